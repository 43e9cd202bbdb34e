//! A full disk: new work is refused and may be tried again, what is there is released all the same.

#![expect(clippy::print_stdout, reason = "seeds and what is skipped are told")]

mod stage;

use std::path::{Path, PathBuf};
use std::process::Command;

use stage::{DCU, MEM, Stage, at_once, claim_of, eventually, mixed, waiting};
use vgpu_backend_mock::Preset;
use vgpu_plugin::AgentOptions;

/// A disk of 512 KiB, in memory.
struct Disk(PathBuf);

impl Disk {
    fn at(path: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&path).expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"])
            .arg(&path)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(path)),
            Ok(output) => {
                println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(e) => {
                println!("skipped: there is no mount: {e}");
                None
            }
        }
    }

    /// Takes all that is left, also of blocks that files have begun.
    fn fill(&self) {
        use std::io::Write as _;
        for n in 0.. {
            let path = self.0.join(format!("filler-{n}"));
            let Ok(mut file) = std::fs::File::create(&path) else { return };
            let mut written = 0;
            while file.write_all(&[0; 512]).is_ok() {
                written += 512;
            }
            if written == 0 {
                return;
            }
        }
    }

    fn make_room(&self) {
        for file in std::fs::read_dir(&self.0).expect("a folder") {
            let path = file.expect("a file").path();
            if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("filler")) {
                std::fs::remove_file(path).expect("removed");
            }
        }
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Also while the agent's files are open.
        let ended = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(ended.is_ok_and(|s| s.success()) || std::thread::panicking(), "still mounted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_new_work_and_still_releases() {
    let stage = Stage::new(Preset::Mixed);
    let Some(disk) = Disk::at(stage.dir.path().join("disk")) else { return };
    let before = stage.parts().len();
    let options = || AgentOptions {
        absence: at_once(),
        state_dir: disk.path().join("state"),
        ..stage.options(&mixed(&stage.machine))
    };
    let agent = stage.agent_with(options()).await;
    let mut old = Vec::new();
    for n in 0..3 {
        old.push(stage.run(&format!("old-{n}"), MEM, 2).await.0);
    }
    disk.fill();
    // As many as it takes: what room the journal had in its last block is used up, too.
    let mut refused = None;
    let mut pods = Vec::new();
    for n in 0..200 {
        let pod = stage.admit(&format!("new-{n}"), DCU, 1).await;
        match stage.kubelet.start_container(&pod.uid, "main").await {
            Err(e) => {
                let text = waiting(&e).to_owned();
                assert!(text.contains("No space left on device"), "{text}");
                assert!(
                    text.contains(disk.path().to_str().expect("UTF-8")),
                    "what is full: {text}"
                );
                refused = Some(pod);
                break;
            }
            Ok(_) => pods.push(pod),
        }
        if pods.len() == 4 {
            let pod = pods.remove(0);
            assert!(stage.kubelet.delete_pod(&pod.uid));
            let gone = || claim_of(&agent, &pod, "main", DCU).is_none();
            eventually("the claim to be released", gone).await;
        }
    }
    let refused = refused.expect("the disk is full");
    let made = before + old.len() + pods.len();
    assert_eq!(stage.parts().len(), made, "nothing was made for the refused one");
    // What is there can be released.
    for pod in old.drain(..) {
        assert!(stage.kubelet.delete_pod(&pod.uid));
        let gone = || claim_of(&agent, &pod, "main", MEM).is_none();
        eventually("the claim to be released", gone).await;
    }
    assert_eq!(stage.parts().len(), before + pods.len());
    // Room again, and all is well, after a restart too.
    disk.make_room();
    stage.start(&refused.uid, "main").await;
    assert_eq!(stage.parts().len(), before + pods.len() + 1);
    let claims = agent.node().claims();
    drop(agent);
    let agent = stage.agent_with(options()).await;
    assert_eq!(agent.node().claims(), claims);
    drop(agent);
    drop(disk);
}

//! Bringing a daemon into the world so that it outlives this process.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vgpu_core::{Error, ErrorKind, Result, Scheme};

use crate::host::DriverTree;
use crate::mps::control::{UNSET, ended};
use crate::mps::daemon::PID_FILE;
use crate::mps::program::{NAME, Program};
use crate::mps::record::DaemonRecord;
use crate::mps::{Folders, Launch, Mps};

/// Starts the daemon, and waits for the starter alone. The unit's name, if it became one.
pub(crate) fn start(
    mps: &Mps,
    program: &Program,
    folders: &Folders,
    record: &DaemonRecord,
) -> Result<Option<String>> {
    let way = way(mps);
    let unit = (way == Launch::Systemd).then(|| unit(record));
    let mut command = match way {
        Launch::Systemd => by_systemd(program, folders, record),
        Launch::Bare => bare(program, folders, record),
        Launch::Probe | Launch::Process => with_own_shm(program, folders, record),
    };
    let said = folders.log().join("start.log");
    // A file and no pipe: the daemon may keep it open for as long as it lives.
    let log = File::create(&said).map_err(|e| Error::io("write", &said, &e))?;
    let copy = log.try_clone().map_err(|e| Error::io("write", &said, &e))?;
    command.stdin(Stdio::null()).stdout(log).stderr(copy);
    let starts = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().map_err(|e| Error::io("start", Path::new(&starts), &e))?;
    let status = ended(&mut child, mps.options.patience)
        .map_err(|e| Error::io("wait for", Path::new(&starts), &e))?;
    let text = || fs::read_to_string(&said).unwrap_or_default().trim().to_owned();
    match status {
        Some(status) if status.success() => Ok(unit),
        Some(status) => {
            let why = format!("{NAME} does not start: {}", first(&text(), &status.to_string()));
            let code = status.code().map_or(-1, i64::from);
            Err(Error::new(ErrorKind::Vendor, why).vendor(NAME, "-d", code))
        }
        None => {
            // It may have ended this moment.
            let _gone = child.kill().and_then(|()| child.wait().map(drop));
            let why = format!("{NAME} did not start within {:?}", mps.options.patience);
            Err(Error::new(ErrorKind::InDoubt, why))
        }
    }
}

/// Puts a daemon into a cgroup of its own, so that the end of this process's cgroup is not its end.
/// Only on cgroup v2, and only what was started as a process; where it cannot be, it stays where it is.
pub(crate) fn enter_cgroup(tree: &DriverTree, record: &DaemonRecord) {
    let root = tree.host.read_at(Path::new(CGROUPS));
    let (Some(process), None) = (record.process, &record.unit) else { return };
    if !root.join("cgroup.controllers").exists() {
        return;
    }
    let own = cgroup(tree, record);
    // A host that does not let us has no such cgroup, and the daemon runs all the same.
    let _stays = fs::create_dir_all(&own)
        .and_then(|()| fs::write(own.join("cgroup.procs"), process.pid.to_string()));
}

/// Removes the cgroup of a daemon that ended.
pub(crate) fn leave_cgroup(tree: &DriverTree, record: Option<&DaemonRecord>) {
    if let Some(record) = record {
        // There is none on cgroup v1 and for units.
        let _none = fs::remove_dir(cgroup(tree, record));
    }
}

const CGROUPS: &str = "/sys/fs/cgroup";

fn cgroup(tree: &DriverTree, record: &DaemonRecord) -> PathBuf {
    tree.host.read_at(Path::new(CGROUPS).join("vgpu-mps").join(record.card.as_str()))
}

fn way(mps: &Mps) -> Launch {
    match mps.options.launch {
        Launch::Probe if mps.stand_in => Launch::Bare,
        Launch::Probe if mps.tree.host.is_own() && Path::new("/run/systemd/system").is_dir() => {
            Launch::Systemd
        }
        Launch::Probe => Launch::Process,
        chosen => chosen,
    }
}

fn args(record: &DaemonRecord) -> &'static [&'static str] {
    match (record.protocol, record.scheme == Scheme::MPS_STATIC) {
        // One server for clients of every user.
        (3, _) => &["-d", "-p", "3", "-m"],
        (_, true) => &["-d", "-S"],
        (_, false) => &["-d"],
    }
}

fn environment(folders: &Folders, record: &DaemonRecord) -> [(&'static str, String); 3] {
    [
        ("CUDA_MPS_PIPE_DIRECTORY", folders.pipe().display().to_string()),
        ("CUDA_MPS_LOG_DIRECTORY", folders.log().display().to_string()),
        // By its id: numbers are given anew when cards come and go.
        ("CUDA_VISIBLE_DEVICES", record.card.to_string()),
    ]
}

/// With the daemon's environment, in a process group of its own.
fn prepared(mut command: Command, folders: &Folders, record: &DaemonRecord) -> Command {
    for name in UNSET {
        command.env_remove(name);
    }
    command.envs(environment(folders, record)).current_dir("/").process_group(0);
    command
}

fn bare(program: &Program, folders: &Folders, record: &DaemonRecord) -> Command {
    let mut command = Command::new(&program.path);
    command.args(args(record));
    prepared(command, folders, record)
}

/// In a mount namespace where the card's folder is `/dev/shm`.
fn with_own_shm(program: &Program, folders: &Folders, record: &DaemonRecord) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "slave", "--", "/bin/sh", "-c"])
        .arg("mount --bind \"$0\" /dev/shm && exec \"$@\"")
        .arg(&folders.shm)
        .arg(&program.path)
        .args(args(record));
    prepared(command, folders, record)
}

fn by_systemd(program: &Program, folders: &Folders, record: &DaemonRecord) -> Command {
    let mut command = Command::new("systemd-run");
    command.args(["--quiet", "--collect", "--property=Type=forking"]);
    command.arg(format!("--unit={}", unit(record)));
    command.arg(format!("--property=PIDFile={}", folders.pipe().join(PID_FILE).display()));
    command.arg(format!("--property=BindPaths={}:/dev/shm", folders.shm.display()));
    for (name, value) in environment(folders, record) {
        command.arg(format!("--setenv={name}={value}"));
    }
    command.arg("--").arg(&program.path).args(args(record));
    command
}

fn unit(record: &DaemonRecord) -> String {
    format!("vgpu-mps-{}", record.card.as_str().trim_start_matches("GPU-"))
}

fn first<'t>(text: &'t str, or: &'t str) -> &'t str {
    text.lines().next().unwrap_or(or)
}

#[cfg(test)]
mod tests {
    use vgpu_core::DeviceId;
    use vgpu_core::id::TrustDomain;

    use super::*;
    use crate::mps::MpsOptions;
    use crate::mps::record::ProcessRecord;

    fn record() -> DaemonRecord {
        DaemonRecord {
            card: DeviceId::new("GPU-1").expect("an id"),
            boot: String::new(),
            scheme: Scheme::MPS_STATIC,
            domain: TrustDomain::new("team-a").expect("a word"),
            protocol: 2,
            process: Some(ProcessRecord { pid: 77, started: 1 }),
            unit: None,
        }
    }

    fn words(command: &Command) -> Vec<String> {
        command.get_args().map(|a| a.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn each_way_starts_the_same_daemon() {
        let tree = DriverTree::new(Path::new("/"), Path::new("/"));
        let mps = Mps::new(tree, MpsOptions::default(), false);
        let folders = mps.folders(&record().card);
        let program =
            Program { path: "/usr/bin/x".into(), namespaces: false, static_partitions: true };
        for command in
            [bare(&program, &folders, &record()), with_own_shm(&program, &folders, &record())]
        {
            assert!(words(&command).ends_with(&["-d".into(), "-S".into()]));
            let pipe = command.get_envs().find(|(k, _)| *k == "CUDA_MPS_PIPE_DIRECTORY");
            let pipe = pipe.and_then(|(_, v)| v).expect("set");
            assert_eq!(pipe, "/var/lib/vgpu/mps/1/pipe");
        }
        let unit = words(&by_systemd(&program, &folders, &record()));
        assert!(unit.ends_with(&["--".into(), "/usr/bin/x".into(), "-d".into(), "-S".into()]));
        for word in [
            "--unit=vgpu-mps-1",
            "--setenv=CUDA_VISIBLE_DEVICES=GPU-1",
            "--property=PIDFile=/var/lib/vgpu/mps/1/pipe/nvidia-cuda-mps-control.pid",
            "--property=BindPaths=/dev/shm/vgpu-mps/1:/dev/shm",
        ] {
            assert!(unit.iter().any(|w| w == word), "{word} is not in {unit:?}");
        }
    }

    #[test]
    fn a_process_gets_a_cgroup_of_its_own_on_v2_only() {
        let root = tempfile::tempdir().expect("a tree");
        let tree = DriverTree::new(root.path(), Path::new("/"));
        let file = root.path().join("sys/fs/cgroup/vgpu-mps/GPU-1/cgroup.procs");
        enter_cgroup(&tree, &record());
        assert!(!file.exists());
        fs::create_dir_all(root.path().join("sys/fs/cgroup")).expect("made");
        fs::write(root.path().join("sys/fs/cgroup/cgroup.controllers"), "memory\n").expect("v2");
        enter_cgroup(&tree, &DaemonRecord { unit: Some("u".into()), ..record() });
        assert!(!file.exists());
        enter_cgroup(&tree, &record());
        assert_eq!(fs::read_to_string(&file).expect("entered"), "77");
    }
}

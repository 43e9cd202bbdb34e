//! The CDI of typical grants as files, so that a change of what containers get is seen in review.
//!
//! `UPDATE_GOLDEN=1 cargo test -p vgpu-core --test cdi_golden` writes them anew.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use vgpu_core::cdi::{self, Kind, RenderOptions};
use vgpu_core::edits::{
    Access, ClaimFile, DeviceNode, Hook, HookAction, HookStage, Mount, MountMode, Symlink,
};
use vgpu_core::{ClaimId, ContainerEdits, ErrorKind};

#[test]
fn a_whole_nvidia_card() {
    let edits = ContainerEdits {
        nodes: ["/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm"].map(DeviceNode::at).into(),
        mounts: vec![
            read_only("/usr/lib/x86_64-linux-gnu/libcuda.so.580.65.06"),
            read_only("/usr/bin/nvidia-smi"),
        ],
        env: vec![("NVIDIA_VISIBLE_DEVICES".into(), "void".into())],
        hooks: vec![
            Hook {
                stage: HookStage::CreateContainer,
                action: HookAction::Link(vec![Symlink {
                    target: "libcuda.so.580.65.06".into(),
                    link: "/usr/lib/x86_64-linux-gnu/libcuda.so.1".into(),
                }]),
            },
            Hook {
                stage: HookStage::CreateContainer,
                action: HookAction::LoaderCache(vec!["/usr/lib/x86_64-linux-gnu".into()]),
            },
        ],
        ..ContainerEdits::default()
    };
    compare("nvidia-whole", &edits, &options("c1"));
}

#[test]
fn a_mig_part_with_cap_nodes_by_number() {
    let cap = |minor| DeviceNode {
        number: Some((238, minor)),
        ..DeviceNode::at(format!("/dev/nvidia-caps/nvidia-cap{minor}"))
    };
    let edits = ContainerEdits {
        nodes: vec![
            DeviceNode::at("/dev/nvidia3"),
            DeviceNode::at("/dev/nvidiactl"),
            DeviceNode::at("/dev/nvidia-uvm"),
            cap(66),
            cap(67),
        ],
        ..ContainerEdits::default()
    };
    compare("nvidia-mig", &edits, &options("c2"));
}

#[test]
fn an_smlu_part_with_another_path_in_the_container() {
    let moved = |path: &str, host: &str| DeviceNode {
        host_path: Some(host.into()),
        ..DeviceNode::at(path)
    };
    let edits = ContainerEdits {
        nodes: vec![
            moved("/dev/cambricon_dev0", "/dev/cambricon_dev2"),
            moved("/dev/cambricon_ipcm0", "/dev/cambricon_ipcm2"),
            DeviceNode::at("/dev/cambricon-caps/cap_dev2_mi257"),
        ],
        ..ContainerEdits::default()
    };
    // A leading digit and annotations both raise the version that is asked for.
    let annotations = BTreeMap::from([("vgpu.dev/scheme".to_owned(), "smlu".to_owned())]);
    compare("cambricon-smlu", &edits, &RenderOptions { annotations, ..options("0f3a") });
}

#[test]
fn a_vdcu_with_its_file_and_a_hook() {
    let name = ClaimId::new("c4").expect("an id");
    let file = |container: &str, text: &str| ClaimFile {
        container: container.into(),
        text: text.to_owned(),
    };
    let edits = ContainerEdits {
        nodes: ["/dev/kfd", "/dev/mkfd", "/dev/dri/card1", "/dev/dri/renderD128"]
            .map(DeviceNode::at)
            .into(),
        mounts: vec![
            read_only("/opt/hyhal"),
            Mount {
                host: "/run/vgpu/shm/c4".into(),
                container: "/run/vgpu/shm".into(),
                mode: MountMode::Writable,
            },
        ],
        files: vec![
            file("/etc/vdev/docker/vdev0.conf", "vdev_id: 0\n"),
            file("/etc/vgpu/claim.json", "{}\n"),
        ],
        hooks: vec![Hook { stage: HookStage::CreateRuntime, action: HookAction::Confine(name) }],
        ..ContainerEdits::default()
    };
    compare("hygon-vdcu", &edits, &options("c4"));
    let files = cdi::files(&edits, Path::new("/d"));
    assert_eq!(files[0], (PathBuf::from("/d/0-vdev0.conf"), "vdev_id: 0\n"));
    assert_eq!(files[1], (PathBuf::from("/d/1-claim.json"), "{}\n"));
}

#[test]
fn every_container_is_looked_at_by_one_hook() {
    let called = |edits: &ContainerEdits, options: &RenderOptions| -> Vec<String> {
        let spec = cdi::render(edits, options).expect("renders");
        spec.devices[0].container_edits.hooks.iter().map(|hook| hook.args[1].clone()).collect()
    };
    let plain = ContainerEdits { nodes: vec![DeviceNode::at("/dev/a")], ..Default::default() };
    let with = |action| ContainerEdits {
        hooks: vec![Hook { stage: HookStage::CreateRuntime, action }],
        ..plain.clone()
    };
    let folders = HookAction::LoaderCache(vec!["/lib".into()]);
    let name = options("c6").name;
    assert_eq!(called(&plain, &options("c6")), ["notice"]);
    assert_eq!(called(&with(folders), &options("c6")), ["loader-cache", "notice"]);
    assert_eq!(called(&with(HookAction::Confine(name)), &options("c6")), ["confine"]);
    let no_hook = RenderOptions { hook: None, ..options("c6") };
    assert_eq!(called(&plain, &no_hook), Vec::<String>::new());
}

#[test]
fn what_cannot_be_rendered_says_why() {
    let node = |node: DeviceNode| ContainerEdits { nodes: vec![node], ..Default::default() };
    let hook = |action| ContainerEdits {
        hooks: vec![Hook { stage: HookStage::CreateRuntime, action }],
        ..Default::default()
    };
    let env = |key: &str, value: &str| ContainerEdits {
        env: vec![("A".into(), "b".into()), (key.into(), value.into())],
        ..Default::default()
    };
    let mount = |host: &str, container: &str| ContainerEdits {
        mounts: vec![Mount { container: container.into(), ..read_only(host) }],
        ..Default::default()
    };
    let link = |target: &str, link: &str| {
        hook(HookAction::Link(vec![Symlink { target: target.into(), link: link.into() }]))
    };
    let twice = ContainerEdits {
        files: vec![ClaimFile { container: "/a/".into(), text: String::new() }],
        ..mount("/x", "/a")
    };
    let other = ClaimId::new("other").expect("an id");
    let table = [
        (ContainerEdits::default(), "change nothing"),
        (node(DeviceNode { number: Some((0, 1)), ..DeviceNode::at("/dev/a") }), "major number 0"),
        (node(DeviceNode::at("dev/a")), "not an absolute path"),
        (node(DeviceNode::at("/dev/../a")), ".."),
        (node(DeviceNode::at(OsStr::from_bytes(b"/dev/\xff"))), "not UTF-8"),
        (env("A", "c"), "want the variable A"),
        (env("", "c"), "no name of a variable"),
        (env("B=C", "c"), "no name of a variable"),
        (env("B", "c\0"), "NUL"),
        (mount("/x", "/"), "no place for a mount"),
        (mount("x", "/a"), "not an absolute path"),
        (twice, "want the container path"),
        (hook(HookAction::Confine(other)), "another claim"),
        (hook(HookAction::Link(vec![])), "nothing to do"),
        (hook(HookAction::LoaderCache(vec!["lib".into()])), "not absolute"),
        (link("", "/a"), "no link's target"),
        (link("--socket", "/a"), "no link's target"),
        (link("a::b", "/a"), "::"),
        (link("b", "a"), "not absolute"),
    ];
    for (edits, word) in table {
        let error = cdi::render(&edits, &options("c5")).expect_err(word);
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
        assert!(error.message.contains(word), "{word}: {error}");
    }
    let no_hook = RenderOptions { hook: None, ..options("c5") };
    let confine = hook(HookAction::Confine(no_hook.name.clone()));
    let error = cdi::render(&confine, &no_hook).expect_err("no hook");
    assert!(error.message.contains("vgpu-hook"), "{error}");
    let relative = RenderOptions { socket: "s".into(), ..options("c5") };
    assert!(cdi::render(&confine, &relative).is_err());
    let mknod = DeviceNode { access: Access::ReadWriteMknod, ..DeviceNode::at("/dev/a") };
    let spec = cdi::render(&node(mknod), &no_hook).expect("needs no hook");
    assert_eq!(cdi::audit(&spec).len(), 1);
}

fn compare(name: &str, edits: &ContainerEdits, options: &RenderOptions) {
    let spec = cdi::render(edits, options).expect("renders");
    let text = serde_json::to_string_pretty(&spec).expect("serializes") + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.json"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let golden = std::fs::read_to_string(&path).expect("run once with UPDATE_GOLDEN=1");
    assert_eq!(text, golden, "{name} changed; if meant so, run with UPDATE_GOLDEN=1");
}

fn options(name: &str) -> RenderOptions {
    RenderOptions {
        kind: Kind::new("vgpu.dev/claim").expect("a kind"),
        name: ClaimId::new(name).expect("an id"),
        hook: Some("/opt/vgpu/bin/vgpu-hook-1".into()),
        socket: "/run/vgpu/hook.sock".into(),
        claim_dir: Path::new("/var/lib/vgpu/claims").join(name),
        annotations: BTreeMap::new(),
    }
}

fn read_only(path: &str) -> Mount {
    Mount { host: path.into(), container: path.into(), mode: MountMode::ReadOnly }
}

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use vgpu_core::edits::DeviceNode;
use vgpu_core::guarantee::{ComputeKind, Enforcement, Guarantees};
use vgpu_core::id::Vendor;
use vgpu_core::scheme::Scheme;
use vgpu_core::size::{Bytes, Size};

use super::*;

struct Node {
    dir: TempDir,
}

impl Node {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a folder") }
    }

    fn options(&self) -> SpecOptions {
        SpecOptions {
            cdi_dir: self.dir.path().join("run/cdi"),
            claims_dir: self.dir.path().join("run/claims"),
            kind: Kind::new("vgpu.dev/claim").expect("a kind"),
            hook: None,
            socket: "/run/vgpu/agent.sock".into(),
            points: FaultPoints::default(),
        }
    }

    fn specs(&self) -> Specs {
        Specs::new(self.options()).expect("absolute")
    }

    fn cdi(&self, name: &str) -> PathBuf {
        self.dir.path().join("run/cdi").join(name)
    }

    fn claim_dir(&self, claim: &str) -> PathBuf {
        self.dir.path().join("run/claims").join(claim)
    }

    /// What a runtime sees: every spec parses, is valid, and what it mounts of ours is there.
    fn look(&self) -> Vec<cdi::Spec> {
        let names = files::names(&self.dir.path().join("run/cdi")).expect("listed");
        let specs = names.iter().filter(|n| n.ends_with(".json")).map(|name| {
            let text = fs::read_to_string(self.cdi(name)).expect("readable");
            let spec: cdi::Spec = serde_json::from_str(&text).expect("whole");
            cdi::validate(&spec).expect("valid");
            for mount in &spec.devices[0].container_edits.mounts {
                let text = fs::read_to_string(&mount.host_path).expect("a spec promises its files");
                assert!(text.ends_with('\n'), "{} is half written", mount.host_path);
            }
            spec
        });
        specs.collect()
    }
}

fn claim(id: &str) -> ClaimId {
    id.parse().expect("an id")
}

fn edits(n: u32) -> ContainerEdits {
    ContainerEdits {
        nodes: vec![DeviceNode::at(format!("/dev/card{n}"))],
        files: vec![ClaimFile { container: "/etc/vendor.conf".into(), text: format!("n={n}\n") }],
        ..ContainerEdits::default()
    }
}

fn facts(id: &str) -> ClaimFacts {
    ClaimFacts {
        claim: claim(id),
        resource: Some("vgpu.dev/gpu".into()),
        grants: vec![GrantFacts {
            vendor: Vendor::NVIDIA,
            model: "H100".into(),
            scheme: Scheme::MIG,
            part: Some("GPU-1/mig/0+4".parse().expect("an id")),
            size: Size { memory: Some(Bytes::gib(40)), ..Size::ANY },
            enforcement: Guarantees::uniform(Enforcement::Hardware, ComputeKind::Partition),
        }],
    }
}

#[test]
fn a_published_claim_is_what_the_runtime_and_the_tenant_read() {
    let node = Node::new();
    let specs = node.specs();
    specs.publish(&claim("c1"), &edits(0), &facts("c1")).expect("published");
    assert_eq!(specs.qualified(&claim("c1")), "vgpu.dev/claim=c1");
    let found = node.look();
    assert_eq!((found.len(), &*found[0].devices[0].name), (1, "c1"));
    let mounts = &found[0].devices[0].container_edits.mounts;
    let file = mounts.iter().find(|m| m.container_path == CLAIM_FILE).expect("for the tenant");
    assert!(file.options.iter().any(|o| o == "ro"));
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
    assert_eq!(mode(Path::new(&file.host_path)), 0o444);
    assert_eq!(mode(&node.claim_dir("c1")), 0o755);
    assert_eq!(mode(&node.cdi("vgpu.dev-claim_c1.json")), 0o644);

    let text = fs::read_to_string(&file.host_path).expect("readable");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["version"], 1);
    assert_eq!(json["grants"][0]["scheme"], "mig");
    assert_eq!(json["grants"][0]["size"]["memory"], "40Gi");
    assert_eq!(json["grants"][0]["enforcement"]["memory"]["level"], "hardware");
    assert_eq!(json["grants"][0]["enforcement"]["memory"]["proof"], "declared");
    assert_eq!(serde_json::from_str::<ClaimFacts>(&text).expect("facts"), facts("c1"));
}

#[test]
fn publishing_again_replaces_and_leaves_nothing_behind() {
    let node = Node::new();
    let specs = node.specs();
    specs.publish(&claim("c1"), &edits(0), &facts("c1")).expect("published");
    specs.publish(&claim("c1"), &edits(7), &facts("c1")).expect("published again");
    let found = node.look();
    assert_eq!(found[0].devices[0].container_edits.device_nodes[0].path, "/dev/card7");
    let fewer = ContainerEdits { files: Vec::new(), ..edits(7) };
    specs.publish(&claim("c1"), &fewer, &facts("c1")).expect("published again");
    node.look();
    assert_eq!(files::names(&node.claim_dir("c1")).expect("listed").len(), 1);
    assert_eq!(files::names(&node.dir.path().join("run/cdi")).expect("listed").len(), 1);
}

#[test]
fn a_path_that_means_something_else_elsewhere_is_refused() {
    let options = SpecOptions { hook: Some("vgpu-hook".into()), ..Node::new().options() };
    let e = Specs::new(options).expect_err("relative");
    assert!(e.kind == ErrorKind::Invalid && e.message.contains("vgpu-hook"), "{e}");
}

#[test]
fn what_no_runtime_would_take_is_refused_before_anything_is_written() {
    let node = Node::new();
    let e = node.specs().publish(
        &claim("c1"),
        &ContainerEdits { nodes: vec![DeviceNode::at("relative")], ..edits(0) },
        &facts("c1"),
    );
    let e = e.expect_err("not absolute");
    assert_eq!((e.kind, e.operation.is_some()), (ErrorKind::Invalid, true));
    let mut takes_ours = edits(0);
    takes_ours.files[0].container = CLAIM_FILE.into();
    let e = node.specs().publish(&claim("c1"), &takes_ours, &facts("c1")).expect_err("ours");
    assert_eq!(e.kind, ErrorKind::Invalid);
    assert!(!node.dir.path().join("run").exists());
}

#[test]
fn a_claim_is_withdrawn_with_its_files_and_others_stay() {
    let node = Node::new();
    let specs = node.specs();
    specs.withdraw(&claim("c1")).expect("nothing to do");
    for id in ["c1", "c2", "c3"] {
        specs.publish(&claim(id), &edits(0), &facts(id)).expect("published");
    }
    let foreign = [node.cdi("nvidia.com-gpu.json"), node.cdi("vgpu.dev-claimed_x.json.tmp")];
    for path in &foreign {
        fs::write(path, "not ours").expect("writes");
    }
    specs.withdraw(&claim("c1")).expect("withdrawn");
    specs.withdraw(&claim("c1")).expect("again");
    assert_eq!(specs.published().expect("listed"), [claim("c2"), claim("c3")]);
    assert!(!node.claim_dir("c1").exists() && node.claim_dir("c2").exists());

    fs::write(node.cdi("vgpu.dev-claim_c9.json.tmp"), "half").expect("writes");
    fs::create_dir(node.claim_dir("c9")).expect("makes");
    let keep = [claim("c2")];
    assert_eq!(specs.withdraw_others(&keep).expect("withdrawn"), [claim("c3")]);
    assert_eq!(specs.published().expect("listed"), [claim("c2")]);
    assert_eq!(files::names(&node.dir.path().join("run/claims")).expect("listed"), ["c2"]);
    assert!(!node.cdi("vgpu.dev-claim_c9.json.tmp").exists());
    assert!(foreign.iter().all(|path| path.exists()), "files of others are left alone");
}

/// Ends the agent at every place of publishing, publishing again and withdrawing.
#[test]
fn an_agent_that_dies_at_any_place_leaves_no_spec_that_lies() {
    let mut died = 0;
    for n in 0.. {
        let node = Node::new();
        let left = Arc::new(AtomicUsize::new(n));
        let points = FaultPoints::new(move |name| {
            if left.fetch_sub(1, Ordering::SeqCst) == 0 {
                std::panic::resume_unwind(Box::new(name));
            }
        });
        let specs = Specs::new(SpecOptions { points, ..node.options() }).expect("absolute");
        let run = catch_unwind(AssertUnwindSafe(|| {
            specs.publish(&claim("c1"), &edits(0), &facts("c1")).expect("published");
            specs.publish(&claim("c1"), &edits(1), &facts("c1")).expect("again");
            specs.withdraw(&claim("c1")).expect("withdrawn");
        }));
        node.look();
        let specs = node.specs();
        specs.publish(&claim("c1"), &edits(2), &facts("c1")).expect("after a crash");
        let found = node.look();
        assert_eq!(found[0].devices[0].container_edits.device_nodes[0].path, "/dev/card2");
        specs.withdraw_others(&[]).expect("withdrawn");
        for folder in ["run/cdi", "run/claims"] {
            assert!(files::names(&node.dir.path().join(folder)).expect("listed").is_empty());
        }
        if run.is_ok() {
            break;
        }
        died += 1;
    }
    assert!(died >= 24, "it died at {died} places only");
}

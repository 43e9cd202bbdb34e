//! Edits word for word, and as another loader of CDI injects them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use container_device_interface::cache::Cache;
use container_device_interface::spec_dirs::with_spec_dirs;
use oci_spec::runtime as oci;
use vgpu_core::ClaimId;
use vgpu_core::cdi::{self, Kind, RenderOptions, Spec};
use vgpu_core::edits::ContainerEdits;

/// The claim of every golden spec.
pub(crate) fn claim() -> ClaimId {
    ClaimId::new("claim-1").expect("an id")
}

pub(crate) fn spec(edits: &ContainerEdits) -> Spec {
    let options = RenderOptions {
        kind: "vgpu.dev/claim".parse::<Kind>().expect("a kind"),
        name: claim(),
        hook: Some(PathBuf::from("/opt/vgpu/vgpu-hook")),
        socket: PathBuf::from("/run/vgpu/agent.sock"),
        claim_dir: PathBuf::from("/var/lib/vgpu/claims/claim-1"),
        annotations: Default::default(),
    };
    let spec = cdi::render(edits, &options).expect("edits render");
    assert_eq!(cdi::audit(&spec), Vec::<String>::new(), "it gives nothing more than is needed");
    spec
}

/// Compares with the file, and injects by the loader that runtimes in Rust use, into a container
/// whose image asks an NVIDIA runtime for every card.
pub(crate) fn golden(edits: &ContainerEdits, file: &str) {
    let text = serde_json::to_string_pretty(&spec(edits)).expect("serializes") + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripted/golden").join(file);
    if std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, &text).expect("blessed");
    }
    let expected = fs::read_to_string(&path).expect("run with BLESS=1 to write it");
    assert_eq!(text, expected, "{file} differs; if that is right, run with BLESS=1");
    injected(edits, &text);
}

fn injected(edits: &ContainerEdits, text: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("vgpu.dev-claim_claim-1.json"), text).expect("written");
    let mut cache = Cache::default();
    with_spec_dirs(&[folder.path().to_str().expect("UTF-8")])(&mut cache);
    cache.refresh().expect("the oracle loads it");
    let mut container = oci::Spec::default();
    let mut process = container.process().clone().expect("a process");
    process.set_env(Some(vec!["PATH=/bin".into(), "NVIDIA_VISIBLE_DEVICES=all".into()]));
    container.set_process(Some(process));
    let mounts = |spec: &oci::Spec| spec.mounts().iter().flatten().count();
    let before = mounts(&container);
    cache
        .inject_devices(Some(&mut container), vec!["vgpu.dev/claim=claim-1".into()])
        .expect("the oracle injects it");
    let linux = container.linux().as_ref().expect("a Linux container");
    let devices: BTreeSet<&PathBuf> = linux.devices().iter().flatten().map(|d| d.path()).collect();
    assert_eq!(devices, edits.nodes.iter().map(|node| &node.path).collect());
    assert!(linux.devices().iter().flatten().all(|device| device.major() > 0), "{devices:?}");
    assert_eq!(mounts(&container) - before, edits.mounts.len());
    let process = container.process().as_ref().expect("a process");
    let asks: Vec<&String> =
        process.env().iter().flatten().filter(|v| v.starts_with("NVIDIA_VISIBLE")).collect();
    // This loader appends, that of containerd replaces; an NVIDIA runtime takes the last.
    let last = asks.last().map(|ask| ask.as_str());
    assert_eq!(
        last,
        Some("NVIDIA_VISIBLE_DEVICES=void"),
        "an NVIDIA runtime would inject once more"
    );
}

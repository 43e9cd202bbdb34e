//! Device nodes, mounts and files, as each vendor's driver has them.

use std::path::PathBuf;

use vgpu_core::edits::{Access, ClaimFile, DeviceNode, Mount, MountMode};
use vgpu_core::{Bytes, ContainerEdits, Error, ErrorKind, Placement, TrustDomain, Vendor};

use crate::Result;
use crate::state::{Card, Part};

/// Major number of `/dev/nvidia-caps/*`; dynamic on a real host.
const CAPS_MAJOR: u32 = 235;

/// The card itself.
pub(crate) fn of_card(card: &Card) -> ContainerEdits {
    let n = card.minor;
    let vendor = card.vendor();
    if vendor == Vendor::CAMBRICON {
        return ContainerEdits {
            nodes: nodes([
                "/dev/cambricon_ctl".to_owned(),
                format!("/dev/cambricon_dev{n}"),
                format!("/dev/cambricon_ipcm{n}"),
            ]),
            ..ContainerEdits::default()
        };
    }
    if vendor == Vendor::HYGON {
        return ContainerEdits {
            nodes: nodes([
                "/dev/kfd".to_owned(),
                "/dev/mkfd".to_owned(),
                format!("/dev/dri/card{}", card.index),
                format!("/dev/dri/renderD{}", 128 + card.index),
            ]),
            mounts: vec![mount("/opt/hyhal", "/opt/hyhal", MountMode::ReadOnly)],
            ..ContainerEdits::default()
        };
    }
    ContainerEdits {
        nodes: nodes([
            "/dev/nvidiactl".to_owned(),
            "/dev/nvidia-uvm".to_owned(),
            "/dev/nvidia-uvm-tools".to_owned(),
            format!("/dev/nvidia{n}"),
        ]),
        // Keeps the vendor's own runtime from adding cards of its own choice.
        env: vec![("NVIDIA_VISIBLE_DEVICES".into(), "void".into())],
        ..ContainerEdits::default()
    }
}

/// The card and the MPS daemon of one trust domain on it.
pub(crate) fn with_daemon(card: &Card, domain: &TrustDomain) -> ContainerEdits {
    let mut edits = of_card(card);
    let base = format!("/run/vgpu/mps/{}/{domain}", card.id);
    edits.mounts.push(mount(&format!("{base}/pipe"), "/tmp/nvidia-mps", MountMode::Writable));
    edits.mounts.push(mount(&format!("{base}/shm"), "/dev/shm", MountMode::Writable));
    edits.env.push(("CUDA_MPS_PIPE_DIRECTORY".into(), "/tmp/nvidia-mps".into()));
    edits
}

/// A part of the card.
///
/// # Errors
/// `NotFound` for half a part, which nobody can use.
pub(crate) fn of_part(card: &Card, part: &Part) -> Result<ContainerEdits> {
    let listed = &part.listed;
    if part.is_half() {
        let why = format!("only half of {} is there; sweep the card", listed.id);
        return Err(Error::new(ErrorKind::NotFound, why));
    }
    let n = card.minor;
    let i = part.instance;
    let mut edits = of_card(card);
    match listed.scheme.as_str() {
        "mig" => {
            // Each instance has one number for itself and eight for its compute instances.
            let first = 3 + n * 135 + i * 9;
            edits.nodes.extend([cap(first), cap(first + 1)]);
        }
        "mps-static" => {
            let domain = card.mode.as_ref().and_then(|m| m.domain.clone());
            let Some(domain) = domain else {
                let why = format!("no MPS daemon runs on {}", card.id);
                return Err(Error::new(ErrorKind::NotFound, why));
            };
            edits = with_daemon(card, &domain);
            let chunk = format!("{}/{}", card.id, listed.handle);
            // The client reads its chunk from env; the file is what tells it without.
            edits.files.push(file("/etc/vgpu/mps/sm-partition", format!("{chunk}\n")));
            edits.env.push(("CUDA_MPS_SM_PARTITION".into(), chunk));
        }
        "smlu" | "mim" => {
            edits.nodes = nodes([
                format!("/dev/cambricon_dev{n}"),
                format!("/dev/cambricon_ipcm{n}"),
                format!("/dev/cambricon-caps/cap_dev{n}_mi{}", i + 1),
            ]);
        }
        "hcu-mig" => {
            let conf = format!("/etc/dmi_mig_config/ci/dev{n}gi{i}ci0.conf");
            edits.mounts.push(mount(&conf, &conf, MountMode::ReadOnly));
            edits.env.push(("DMI_MIG_VISIBLE_DEVICE".into(), listed.handle.clone()));
        }
        _ => edits.files.push(file("/etc/vdev/docker/vdev0.conf", vdev_conf(card, part))),
    }
    Ok(edits)
}

/// A virtual DCU's configuration as its runtime reads it.
fn vdev_conf(card: &Card, part: &Part) -> String {
    let words: Vec<u64> = match &part.listed.placement {
        Placement::Units(words) => words.clone(),
        _ => Vec::new(),
    };
    let word = |i: usize| words.get(i).copied().unwrap_or(0);
    let count: u32 = words.iter().map(|w| w.count_ones()).sum();
    let mem = part.listed.size.memory.unwrap_or(Bytes(0)).0 >> 20;
    format!(
        "PciBusId: {}\ncu_mask: {:#018x}\ncu_mask: {:#018x}\ncu_count: {count}\nmem: {mem} MiB\n\
         device_id: 0\nvdev_id: {}\npipe_id: {}\nenable: 1\n",
        card.pci,
        word(0),
        word(1),
        part.instance,
        part.instance % 20
    )
}

fn cap(n: u32) -> DeviceNode {
    DeviceNode {
        path: PathBuf::from(format!("/dev/nvidia-caps/nvidia-cap{n}")),
        host_path: None,
        number: Some((CAPS_MAJOR, n)),
        access: Access::ReadWrite,
    }
}

fn nodes<const N: usize>(paths: [String; N]) -> Vec<DeviceNode> {
    paths.into_iter().map(DeviceNode::at).collect()
}

fn mount(host: &str, container: &str, mode: MountMode) -> Mount {
    Mount { host: host.into(), container: container.into(), mode }
}

fn file(container: &str, text: String) -> ClaimFile {
    ClaimFile { container: container.into(), text }
}

//! Other plugins on the same cards.

use crate::backends::Name;
use crate::doctor::tests::{CLEAN, Prepared};

/// A checkpoint: resources with so many devices, and one pod's allocation of each name that is given.
fn checkpoint(registered: &[(&str, usize)], held: &[&str]) -> String {
    let ids = |n: &usize| (0..*n).map(|i| format!("d{i}")).collect::<Vec<_>>();
    let registered: serde_json::Map<String, serde_json::Value> =
        registered.iter().map(|(name, n)| ((*name).to_owned(), ids(n).into())).collect();
    let entries: Vec<_> = held
        .iter()
        .map(|name| {
            serde_json::json!({"PodUID": "u", "ContainerName": "c", "ResourceName": name,
                "DeviceIDs": {"-1": ["d0"]}, "AllocResp": ""})
        })
        .collect();
    serde_json::json!({"Data": {"PodDeviceEntries": entries, "RegisteredDevices": registered}, "Checksum": 1})
        .to_string()
}

const CHECKPOINT: &str = "/k/device-plugins/kubelet_internal_checkpoint";

#[test]
fn a_plugin_of_a_vendor_that_is_served_is_an_error_and_else_a_note() {
    let mut host = Prepared::clean();
    host.listen("/k/device-plugins/nvidia-gpu.sock");
    assert_eq!(host.ids(), ["DOC-PLUG-1", "DOC-AGENT-1"]);
    let finding = host.finding("DOC-PLUG-1");
    assert_eq!(finding.place.as_deref(), Some("/k/device-plugins/nvidia-gpu.sock"));
    host.places.vendors = vec![Name::Cambricon];
    assert_eq!(host.ids(), ["DOC-PLUG-5", "DOC-AGENT-1"], "its cards are not vgpu's");
}

#[test]
fn what_a_plugin_left_and_what_serves_no_cards_are_notes() {
    let mut host = Prepared::clean();
    host.leave("/k/device-plugins/nvidia-gpu.sock");
    assert_eq!(host.ids(), ["DOC-PLUG-7", "DOC-AGENT-1"]);
    host.listen("/k/device-plugins/rdma.sock");
    assert_eq!(host.ids(), ["DOC-PLUG-5", "DOC-PLUG-7", "DOC-AGENT-1"]);
}

#[test]
fn our_own_sockets_are_no_strangers() {
    let mut host = Prepared::clean();
    host.listen("/k/device-plugins/vgpu.gpu-1a2b3c4d.0badf00d.sock");
    assert_eq!(host.ids(), CLEAN);
    host.listen("/k/device-plugins/vgpu.mem-1a2b3c4e.0badf00d.sock");
    assert_eq!(host.ids(), CLEAN, "two resources of one process");
    host.leave("/k/device-plugins/vgpu.gpu-1a2b3c4d.0badf00e.sock");
    assert_eq!(host.ids(), CLEAN, "a leftover, which the next agent sweeps");
    host.listen("/k/device-plugins/vgpu.gpu-1a2b3c4d.0badf00f.sock");
    assert_eq!(host.ids(), ["DOC-AGENT-9", "DOC-AGENT-1"]);
}

#[test]
fn resources_of_others_are_found_in_the_checkpoint() {
    let host = Prepared::clean();
    let ours = checkpoint(&[("vgpu.dev/slice", 4), ("rdma/hca", 2)], &["vgpu.dev/slice"]);
    host.write(CHECKPOINT, ours);
    assert_eq!(host.ids(), CLEAN);
    for name in ["nvidia.com/gpumem", "cambricon.com/mlu.smlu.vcore", "hygon.com/dcunum"] {
        host.write(CHECKPOINT, checkpoint(&[(name, 8)], &[]));
        assert_eq!(host.ids(), ["DOC-PLUG-2", "DOC-AGENT-1"], "{name}");
        host.write(CHECKPOINT, checkpoint(&[(name, 0)], &[]));
        assert_eq!(host.ids(), CLEAN, "{name}: its plugin is gone");
        host.write(CHECKPOINT, checkpoint(&[(name, 0)], &[name]));
        assert_eq!(host.ids(), ["DOC-PLUG-3", "DOC-AGENT-1"], "{name}: a pod still has it");
    }
    host.write(CHECKPOINT, checkpoint(&[("amd.com/gpu", 1)], &[]));
    assert_eq!(host.ids(), ["DOC-PLUG-6", "DOC-AGENT-1"]);
}

#[test]
fn a_resource_in_a_vendors_domain_is_ours_where_its_allocations_say_so() {
    let host = Prepared::clean();
    // `cdi_devices`, field 5, with one name, field 1.
    let name = b"vgpu.dev/claim=vgpu-1";
    let length = u8::try_from(name.len()).expect("short");
    let response = [&[0x2a, length + 2, 0x0a, length][..], name].concat();
    let encoded = base64(&response);
    let text = checkpoint(&[("nvidia.com/gpu", 1)], &["nvidia.com/gpu"]);
    host.write(
        CHECKPOINT,
        text.replace(r#""AllocResp":"""#, &format!(r#""AllocResp":"{encoded}""#)),
    );
    assert_eq!(host.ids(), CLEAN);
    host.write(CHECKPOINT, text);
    assert_eq!(host.ids(), ["DOC-PLUG-2", "DOC-PLUG-3", "DOC-AGENT-1"]);
}

#[test]
fn a_dra_driver_of_a_vendor_is_found_by_its_socket() {
    let mut host = Prepared::clean();
    host.listen("/k/plugins/csi.example.com/csi.sock");
    host.write("/k/plugins/gpu.nvidia.com/checkpoint.json", "{}");
    assert_eq!(host.ids(), CLEAN, "a folder that it left serves nothing");
    host.listen("/k/plugins/gpu.nvidia.com/dra.sock");
    assert_eq!(host.ids(), ["DOC-PLUG-4", "DOC-AGENT-1"]);
    host.places.vendors = vec![Name::Hygon];
    assert_eq!(host.ids(), CLEAN);
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |three: &[u8]| -> String {
        let number = (0..3).fold(0_u32, |n, i| n << 8 | u32::from(*three.get(i).unwrap_or(&0)));
        let letter = |i: usize| match i <= three.len() {
            true => char::from(LETTERS[(number >> (18 - 6 * i) & 63) as usize]),
            false => '=',
        };
        (0..4).map(letter).collect()
    };
    bytes.chunks(3).map(group).collect()
}

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde::Deserialize;

use crate::pb::device_plugin as pb;

/// A checkpoint is a few hundred bytes per container; what is larger than this is not one.
const SIZE_LIMIT: u64 = 64 * 1024 * 1024;

/// The kubelet's own record of which container holds which device.
///
/// It knows two things that `PodResources` does not: the pod's UID, and plain init containers. It is the kubelet's file:
/// read it, never write it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// One entry for each container and resource, in the file's order.
    pub entries: Vec<CheckpointEntry>,
    /// Healthy device ids by resource when the file was written.
    pub registered: BTreeMap<String, Vec<String>>,
}

impl Checkpoint {
    /// Reads the file; `None` where there is none, which is so until the first allocation on a node.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`] for a file that cannot be read or makes no sense.
    pub fn read(path: &Path) -> Result<Option<Self>, CheckpointError> {
        let unreadable =
            |source| CheckpointError::Unreadable { path: path.display().to_string(), source };
        let length = match std::fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        if length > SIZE_LIMIT {
            let why = format!("it has {length} bytes, more than {SIZE_LIMIT}");
            return Err(damaged(path, why));
        }
        let bytes = std::fs::read(path).map_err(unreadable)?;
        Self::parse(&bytes).map(Some).map_err(|why| damaged(path, why))
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let entries = file.data.entries.unwrap_or_default();
        Ok(Self {
            entries: entries.into_iter().map(entry).collect::<Result<_, _>>()?,
            registered: file.data.registered.unwrap_or_default(),
        })
    }
}

/// What one container holds of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointEntry {
    /// The pod's UID.
    pub pod_uid: String,
    /// The container, plain init containers included.
    pub container: String,
    /// The resource's name.
    pub resource: String,
    /// The device ids, sorted.
    pub device_ids: Vec<String>,
    /// The CDI names in the plugin's answer to `Allocate`.
    pub cdi_devices: Vec<String>,
}

/// Why a checkpoint could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The bytes are not a checkpoint.
    #[error(
        "the kubelet's checkpoint {path} is damaged: {why}; \
         the kubelet writes a new one at its next allocation"
    )]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong, and where.
        why: String,
    },
    /// The file is there and cannot be read.
    #[error("cannot read the kubelet's checkpoint {path}")]
    Unreadable {
        /// The file.
        path: String,
        /// The system's error.
        source: io::Error,
    },
}

fn damaged(path: &Path, why: String) -> CheckpointError {
    CheckpointError::Damaged { path: path.display().to_string(), why }
}

fn entry(raw: RawEntry) -> Result<CheckpointEntry, String> {
    let place = format!(
        "the entry of pod {}, container {}, resource {}",
        raw.pod_uid, raw.container, raw.resource
    );
    let bytes = STANDARD
        .decode(raw.response.unwrap_or_default())
        .map_err(|error| format!("{place}: AllocResp: {error}"))?;
    let response = pb::ContainerAllocateResponse::decode(bytes.as_slice())
        .map_err(|error| format!("{place}: AllocResp: {error}"))?;
    let mut device_ids = match raw.device_ids {
        None => Vec::new(),
        Some(DeviceIds::ByNode(nodes)) => nodes.into_values().flatten().flatten().collect(),
        Some(DeviceIds::Plain(ids)) => ids,
    };
    // A device with several NUMA nodes stands under each.
    device_ids.sort_unstable();
    device_ids.dedup();
    Ok(CheckpointEntry {
        pod_uid: raw.pod_uid,
        container: raw.container,
        resource: raw.resource,
        device_ids,
        cdi_devices: response.cdi_devices.into_iter().map(|device| device.name).collect(),
    })
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "Data")]
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "PodDeviceEntries")]
    entries: Option<Vec<RawEntry>>,
    #[serde(rename = "RegisteredDevices")]
    registered: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Deserialize)]
struct RawEntry {
    #[serde(rename = "PodUID")]
    pod_uid: String,
    #[serde(rename = "ContainerName")]
    container: String,
    #[serde(rename = "ResourceName")]
    resource: String,
    #[serde(rename = "DeviceIDs")]
    device_ids: Option<DeviceIds>,
    #[serde(rename = "AllocResp")]
    response: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum DeviceIds {
    /// Since Kubernetes 1.20; key −1 is "no NUMA node".
    ByNode(BTreeMap<String, Option<Vec<String>>>),
    /// Before.
    Plain(Vec<String>),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a kubelet 1.36 writes it, with one field more than we know.
    fn sample(response: &str) -> String {
        format!(
            r#"{{"Data":{{"PodDeviceEntries":[{{"PodUID":"u1","ContainerName":"main","ResourceName":"vgpu.dev/slot",
            "DeviceIDs":{{"0":["b"],"1":["b","a"]}},"AllocResp":"{response}","New":7}}],
            "RegisteredDevices":{{"vgpu.dev/slot":["a","b","c"]}}}},"Checksum":3211312391}}"#
        )
    }

    #[test]
    fn entries_carry_pod_ids_and_cdi_names() {
        let response = pb::ContainerAllocateResponse {
            cdi_devices: vec![pb::CdiDevice { name: "vgpu.dev/slot=a".to_owned() }],
            ..Default::default()
        };
        let text = sample(&STANDARD.encode(response.encode_to_vec()));
        let checkpoint = Checkpoint::parse(text.as_bytes()).unwrap();
        assert_eq!(
            checkpoint.entries,
            [CheckpointEntry {
                pod_uid: "u1".to_owned(),
                container: "main".to_owned(),
                resource: "vgpu.dev/slot".to_owned(),
                device_ids: vec!["a".to_owned(), "b".to_owned()],
                cdi_devices: vec!["vgpu.dev/slot=a".to_owned()],
            }]
        );
        assert_eq!(checkpoint.registered["vgpu.dev/slot"].len(), 3);
    }

    #[test]
    fn nulls_and_the_old_form_are_read() {
        let text = r#"{"Data":{"PodDeviceEntries":null,"RegisteredDevices":null},"Checksum":1}"#;
        assert_eq!(Checkpoint::parse(text.as_bytes()).unwrap(), Checkpoint::default());
        let text = r#"{"Data":{"PodDeviceEntries":[{"PodUID":"u","ContainerName":"c","ResourceName":"a/b",
            "DeviceIDs":["x"],"AllocResp":null}]}}"#;
        assert_eq!(Checkpoint::parse(text.as_bytes()).unwrap().entries[0].device_ids, ["x"]);
    }

    #[test]
    fn damage_is_told_with_place_and_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubelet_internal_checkpoint");
        assert!(Checkpoint::read(&path).unwrap().is_none());
        let whole = sample("");
        for text in ["", "{", "[]", &whole[..whole.len() / 2], &sample("!!!"), &sample("/////w==")]
        {
            std::fs::write(&path, text).unwrap();
            let error = Checkpoint::read(&path).unwrap_err();
            assert!(matches!(error, CheckpointError::Damaged { .. }));
            assert!(error.to_string().contains("kubelet_internal_checkpoint"), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(Checkpoint::read(&path), Err(CheckpointError::Unreadable { .. })));
    }
}

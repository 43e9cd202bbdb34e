//! `kubelet_internal_checkpoint` as a kubelet writes it, but for the checksum, which only a kubelet checks.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::pb::device_plugin as pb;

/// What one container holds of one resource.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) pod_uid: String,
    pub(crate) container: String,
    pub(crate) resource: String,
    /// Ids by NUMA node; −1 stands for none.
    pub(crate) by_node: BTreeMap<i64, Vec<String>>,
    pub(crate) response: pb::ContainerAllocateResponse,
}

impl Held {
    /// The ids, sorted, each once.
    pub(crate) fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.by_node.values().flatten().cloned().collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

/// Replaces the file, by rename.
pub(crate) fn write(
    path: &Path,
    held: &[Held],
    registered: BTreeMap<String, Vec<String>>,
) -> io::Result<()> {
    let entries = held.iter().map(RawEntry::from).collect();
    let data = Data { entries: Some(entries), registered: Some(registered) };
    let data = serde_json::to_value(data)?;
    let checksum = data
        .to_string()
        .bytes()
        .fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let file = serde_json::json!({ "Data": data, "Checksum": checksum });
    let new = path.with_extension("new");
    std::fs::write(&new, file.to_string())?;
    std::fs::rename(&new, path)
}

/// Allocations and the names of resources; nothing where there is no file.
pub(crate) fn read(path: &Path) -> io::Result<(Vec<Held>, Vec<String>)> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
        Err(error) => return Err(error),
    };
    let file: File = serde_json::from_slice(&bytes)?;
    let entries = file.data.entries.unwrap_or_default();
    let held = entries.into_iter().map(RawEntry::parse).collect::<io::Result<_>>()?;
    Ok((held, file.data.registered.unwrap_or_default().into_keys().collect()))
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "Data")]
    data: Data,
}

#[derive(Serialize, Deserialize)]
struct Data {
    #[serde(rename = "PodDeviceEntries")]
    entries: Option<Vec<RawEntry>>,
    #[serde(rename = "RegisteredDevices")]
    registered: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Serialize, Deserialize)]
struct RawEntry {
    #[serde(rename = "PodUID")]
    pod_uid: String,
    #[serde(rename = "ContainerName")]
    container: String,
    #[serde(rename = "ResourceName")]
    resource: String,
    #[serde(rename = "DeviceIDs")]
    by_node: BTreeMap<i64, Vec<String>>,
    #[serde(rename = "AllocResp")]
    response: String,
}

impl RawEntry {
    fn parse(self) -> io::Result<Held> {
        let bytes = STANDARD.decode(&self.response).map_err(io::Error::other)?;
        let response = pb::ContainerAllocateResponse::decode(bytes.as_slice())?;
        Ok(Held {
            pod_uid: self.pod_uid,
            container: self.container,
            resource: self.resource,
            by_node: self.by_node,
            response,
        })
    }
}

impl From<&Held> for RawEntry {
    fn from(held: &Held) -> Self {
        Self {
            pod_uid: held.pod_uid.clone(),
            container: held.container.clone(),
            resource: held.resource.clone(),
            by_node: held.by_node.clone(),
            response: STANDARD.encode(held.response.encode_to_vec()),
        }
    }
}

//! What the kubelet knows, in the node's words: its list of pods and its checkpoint.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use vgpu_core::id::{ClaimId, SlotId};
use vgpu_kubelet_plugin::{
    Checkpoint, CheckpointEntry, KubeletPaths, PodList, PodResourcesClient, PodResourcesOptions,
};
use vgpu_node::claim::Holder;
use vgpu_node::{Allocated, CheckpointClaim, KubeletView, Prepare, ResourceName};

/// Asks the kubelet.
#[derive(Debug)]
pub(crate) struct KubeletEyes {
    pods: PodResourcesClient,
    socket: PathBuf,
    /// Which socket file answered the last time.
    answered: Mutex<Option<SocketFile>>,
    checkpoint: PathBuf,
    /// `vgpu.dev/claim=`, which all our CDI names begin with.
    prefix: String,
}

impl KubeletEyes {
    pub(crate) fn new(paths: &KubeletPaths, kind: &str) -> Self {
        let socket = paths.pod_resources_socket.clone();
        Self {
            pods: PodResourcesClient::new(PodResourcesOptions::new(socket.clone())),
            socket,
            answered: Mutex::default(),
            checkpoint: paths.checkpoint(),
            prefix: format!("{kind}="),
        }
    }

    /// What PreStart for these ids is about. What cannot be learned is left out: the node then goes
    /// by what it knows itself.
    pub(crate) async fn about(&self, resource: &ResourceName, ids: BTreeSet<SlotId>) -> Prepare {
        let asked = Instant::now();
        let all = self.all_entries();
        let wanted: BTreeSet<String> = ids.iter().map(ToString::to_string).collect();
        let of_ids = |e: &&CheckpointEntry| {
            e.resource == resource.as_str() && e.device_ids.iter().eq(wanted.iter())
        };
        let pod_uid = all.iter().flatten().rfind(of_ids).map(|entry| entry.pod_uid.clone());
        let (mut listed, mut beside) = (None, BTreeSet::new());
        match self.pods.list().await {
            Ok(list) => {
                listed = holder(&list, resource, &ids, pod_uid);
                // The list has no uid: while a pod that was deleted by force still ends, two pods have one
                // name. So it speaks only where the checkpoint cannot.
                if all.is_none() {
                    beside.extend(listed.iter().flat_map(|of| others(&list, of, resource)));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot learn which pod is starting; going on without its name");
            }
        }
        let checkpoint = all.map(|all| {
            let claims = all.iter().filter(of_ids).flat_map(|entry| {
                let beside = self.beside(&all, entry);
                let claims = entry.cdi_devices.iter().filter_map(|name| self.claim(name));
                claims.map(move |claim| CheckpointClaim {
                    claim,
                    pod_uid: entry.pod_uid.clone(),
                    container: entry.container.clone(),
                    beside: beside.clone(),
                })
            });
            claims.collect()
        });
        Prepare { asked, resource: resource.clone(), ids, holder: listed, checkpoint, beside }
    }

    /// The kubelet's whole view, or nothing if it does not answer.
    ///
    /// Nothing too where another kubelet answers than the last time: it was away, though no question
    /// fell into that time, and its list may still be empty.
    pub(crate) async fn view(&self) -> Option<KubeletView> {
        // Before the list and the checkpoint: neither is older than this.
        let asked = Instant::now();
        if self.is_another() {
            return None;
        }
        let list = match self.pods.list().await {
            Ok(list) => list,
            Err(error) => {
                tracing::debug!(%error, "the kubelet does not list pods");
                return None;
            }
        };
        // It may have been started anew before it answered.
        if self.is_another() {
            return None;
        }
        let mut view = KubeletView::new(asked);
        for holding in &list.holdings {
            let Ok(resource) = ResourceName::new(holding.resource.as_str()) else { continue };
            let ids = holding.device_ids.iter().filter_map(|id| id.parse().ok());
            view.listed.extend(ids.map(|id| (resource.clone(), id)));
        }
        let entries = self.all_entries();
        for entry in entries.iter().flatten() {
            let Ok(resource) = ResourceName::new(entry.resource.as_str()) else { continue };
            let ids = entry.device_ids.iter().filter_map(|id| id.parse().ok()).collect();
            let Some(holder) = holder(&list, &resource, &ids, Some(entry.pod_uid.clone())) else {
                continue;
            };
            let claims = entry.cdi_devices.iter().filter_map(|name| self.claim(name));
            view.holders.extend(claims.map(|claim| (claim, holder.clone())));
        }
        view.checkpoint = entries.map(|entries| {
            let names = entries.iter().flat_map(|e| &e.cdi_devices);
            names.filter_map(|name| self.claim(name)).collect()
        });
        Some(view)
    }

    /// Whether another kubelet is there than the last time.
    fn is_another(&self) -> bool {
        let file = SocketFile::at(&self.socket);
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *answered, file);
        let is_another = before.is_some() && before != file;
        if is_another {
            tracing::debug!("the kubelet was started anew");
        }
        is_another
    }

    /// Every allocation of ours that the kubelet has written down.
    pub(crate) fn allocated(&self) -> Vec<Allocated> {
        let mut all = Vec::new();
        for entry in self.all_entries().unwrap_or_default() {
            let Ok(resource) = ResourceName::new(entry.resource.as_str()) else { continue };
            let ids: BTreeSet<SlotId> =
                entry.device_ids.iter().filter_map(|id| id.parse().ok()).collect();
            if ids.len() != entry.device_ids.len() {
                continue;
            }
            let claims = entry.cdi_devices.iter().filter_map(|name| self.claim(name));
            all.extend(claims.map(|claim| Allocated {
                claim,
                resource: resource.clone(),
                ids: ids.clone(),
            }));
        }
        all
    }

    /// What else of ours the container of an entry has, by the names that our answers gave.
    fn beside(&self, all: &[CheckpointEntry], of: &CheckpointEntry) -> BTreeSet<ResourceName> {
        all.iter()
            .filter(|e| e.pod_uid == of.pod_uid && e.container == of.container)
            .filter(|e| e.resource != of.resource)
            .filter(|e| e.cdi_devices.iter().any(|name| self.claim(name).is_some()))
            .filter_map(|e| ResourceName::new(e.resource.as_str()).ok())
            .collect()
    }

    fn all_entries(&self) -> Option<Vec<CheckpointEntry>> {
        match Checkpoint::read(&self.checkpoint) {
            Ok(checkpoint) => Some(checkpoint.unwrap_or_default().entries),
            Err(error) => {
                tracing::warn!(%error, "going on without the kubelet's checkpoint");
                None
            }
        }
    }

    fn claim(&self, cdi_name: &str) -> Option<ClaimId> {
        ClaimId::new(cdi_name.strip_prefix(&self.prefix)?).ok()
    }
}

/// Tells one run of the kubelet from the next: each makes its socket anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SocketFile {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl SocketFile {
    fn at(path: &Path) -> Option<Self> {
        let file = std::fs::symlink_metadata(path).ok()?;
        let changed = (file.ctime(), file.ctime_nsec());
        Some(Self { device: file.dev(), inode: file.ino(), changed })
    }
}

fn holder(
    list: &PodList,
    resource: &ResourceName,
    ids: &BTreeSet<SlotId>,
    uid: Option<String>,
) -> Option<Holder> {
    let first = ids.first()?.to_string();
    let holding = list.holders(resource.as_str(), &first).next()?;
    Some(Holder {
        namespace: holding.namespace.clone(),
        pod: holding.pod.clone(),
        uid,
        container: holding.container.clone(),
    })
}

/// Whatever else a container has, ours or not.
fn others(list: &PodList, of: &Holder, resource: &ResourceName) -> Vec<ResourceName> {
    let same = list
        .holdings
        .iter()
        .filter(|h| h.namespace == of.namespace && h.pod == of.pod && h.container == of.container);
    same.filter(|h| h.resource != resource.as_str())
        .filter_map(|h| ResourceName::new(h.resource.as_str()).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use vgpu_kubelet_plugin::fake::{FakeKubelet, FakeOptions};

    use super::*;

    #[tokio::test]
    async fn a_kubelet_that_restarted_between_two_questions_was_away() {
        let dir = tempfile::tempdir().expect("a folder");
        let kubelet = FakeKubelet::new(FakeOptions::under(dir.path())).expect("a kubelet");
        let eyes = KubeletEyes::new(kubelet.paths(), "vgpu.dev/claim");
        for restart in [false, true, true] {
            if restart {
                kubelet.restart().await.expect("restarts");
                assert_eq!(eyes.view().await, None, "it is told once");
            }
            for _ in 0..3 {
                assert!(eyes.view().await.is_some());
            }
        }
        kubelet.stop().await;
        assert_eq!(eyes.view().await, None);
    }
}

//! One resource of the node, as the kubelet plugin serves it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use vgpu_core::id::SlotId;
use vgpu_core::{Error, ErrorKind};
use vgpu_kubelet_plugin::{
    AllocateRequest, AllocateResponse, DeviceEntry, DeviceHealth, DeviceList, DevicePlugin,
    PluginOptions, PreStartRequest, PreferredRequest, Refusal, RefusalKind, async_trait,
};
use vgpu_node::listing::Slot;
use vgpu_node::{Node, ResourceName};

use crate::kubelet::KubeletEyes;
use crate::metrics::{Call, Metrics};

/// Serves one resource.
pub(crate) struct NodeResource {
    pub(crate) name: ResourceName,
    pub(crate) node: Arc<Node>,
    pub(crate) eyes: Arc<KubeletEyes>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) list: watch::Receiver<DeviceList>,
}

#[async_trait]
impl DevicePlugin for NodeResource {
    fn options(&self) -> PluginOptions {
        PluginOptions { pre_start: true, preferred_allocation: true }
    }

    fn devices(&self) -> watch::Receiver<DeviceList> {
        self.list.clone()
    }

    async fn preferred_allocation(&self, request: PreferredRequest) -> Vec<String> {
        let parse =
            |ids: &[String]| ids.iter().filter_map(|id| id.parse().ok()).collect::<Vec<_>>();
        let (available, must) = (parse(&request.available), parse(&request.must_include));
        let ids = self.node.prefer(&self.name, &available, &must, request.size);
        ids.iter().map(ToString::to_string).collect()
    }

    async fn allocate(&self, request: AllocateRequest) -> Result<AllocateResponse, Refusal> {
        let began = Instant::now();
        let allocated =
            parse(&request.device_ids).and_then(|ids| self.node.allocate(&self.name, &ids));
        self.metrics.call(Call::Allocate, &self.name, began.elapsed(), allocated.is_ok());
        match allocated {
            Ok(allocation) => {
                tracing::info!(
                    resource = %self.name, claim = %allocation.claim, ids = ?request.device_ids,
                    "allocated"
                );
                let cdi_devices = vec![allocation.cdi_name];
                Ok(AllocateResponse { cdi_devices, ..AllocateResponse::default() })
            }
            Err(error) => {
                tracing::warn!(resource = %self.name, %error, "refused an allocation");
                Err(refusal(&error))
            }
        }
    }

    async fn pre_start(&self, request: PreStartRequest) -> Result<(), Refusal> {
        let began = Instant::now();
        let ids: BTreeSet<SlotId> =
            parse(&request.device_ids).map_err(|e| refusal(&e))?.into_iter().collect();
        let ask = self.eyes.about(&self.name, ids).await;
        let node = self.node.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            let outcome = node.prepare(&ask);
            (ask, outcome)
        });
        let (ask, outcome) = prepared.await.map_err(|e| {
            let why = format!("preparing ended badly: {e}; it is tried again");
            Refusal::new(RefusalKind::Internal, why)
        })?;
        self.metrics.call(Call::PreStart, &self.name, began.elapsed(), outcome.is_ok());
        let pod = ask.holder.map(|h| h.to_string()).unwrap_or_default();
        match outcome {
            Ok(claim) => {
                tracing::info!(resource = %self.name, %claim, pod, "prepared");
                Ok(())
            }
            Err(error) => {
                tracing::warn!(resource = %self.name, pod, %error, "cannot prepare");
                Err(refusal(&error))
            }
        }
    }
}

/// A list as the kubelet reads it.
pub(crate) fn device_list(slots: &[Slot]) -> Result<DeviceList, Error> {
    let entries = slots.iter().map(|slot| DeviceEntry {
        id: slot.id.to_string(),
        health: if slot.healthy { DeviceHealth::Healthy } else { DeviceHealth::Unhealthy },
        numa: slot.numa.into_iter().collect(),
    });
    DeviceList::new(entries.collect()).map_err(|e| Error::new(ErrorKind::Invalid, e.to_string()))
}

fn parse(ids: &[String]) -> Result<Vec<SlotId>, Error> {
    ids.iter().map(|id| id.parse()).collect()
}

fn refusal(error: &Error) -> Refusal {
    let kind = match error.kind {
        ErrorKind::Exhausted => RefusalKind::Exhausted,
        ErrorKind::Invalid => RefusalKind::Invalid,
        kind if kind.is_retryable() => RefusalKind::NotReady,
        _ => RefusalKind::Internal,
    };
    Refusal::new(kind, error.to_string())
}

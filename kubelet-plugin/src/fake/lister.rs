//! The kubelet's `PodResources` service.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::fake::inner::Inner;
use crate::fake::pod::{PodSpec, Role};
use crate::fake::state::State;
use crate::pb::pod_resources as pb;
use crate::pb::pod_resources::pod_resources_lister_server;

pub(crate) struct Lister {
    pub(crate) inner: Arc<Inner>,
}

#[tonic::async_trait]
impl pod_resources_lister_server::PodResourcesLister for Lister {
    async fn list(
        &self,
        _request: Request<pb::ListPodResourcesRequest>,
    ) -> Result<Response<pb::ListPodResourcesResponse>, Status> {
        let pod_resources = self.visible(|_| true);
        Ok(Response::new(pb::ListPodResourcesResponse { pod_resources }))
    }

    async fn get_allocatable_resources(
        &self,
        _request: Request<pb::AllocatableResourcesRequest>,
    ) -> Result<Response<pb::AllocatableResourcesResponse>, Status> {
        let devices = self.inner.look(|state| {
            let mut devices = Vec::new();
            for (resource, known) in &state.resources {
                for id in &known.healthy {
                    devices.extend(entries(state, resource, id));
                }
            }
            devices
        });
        Ok(Response::new(pb::AllocatableResourcesResponse { devices, ..Default::default() }))
    }

    async fn get(
        &self,
        request: Request<pb::GetPodResourcesRequest>,
    ) -> Result<Response<pb::GetPodResourcesResponse>, Status> {
        let asked = request.into_inner();
        let mut found =
            self.visible(|pod| pod.name == asked.pod_name && pod.namespace == asked.pod_namespace);
        match found.pop() {
            Some(pod) => {
                Ok(Response::new(pb::GetPodResourcesResponse { pod_resources: Some(pod) }))
            }
            None => Err(Status::unknown(format!(
                "pod {} in namespace {} not found",
                asked.pod_name, asked.pod_namespace
            ))),
        }
    }
}

impl Lister {
    fn visible(&self, wanted: impl Fn(&PodSpec) -> bool) -> Vec<pb::PodResources> {
        let now = self.inner.options.clock.now();
        self.inner.change(|state| {
            state.counters.pod_resources_calls += 1;
            if state.run.as_ref().is_none_or(|run| now < run.pods_shown_at) {
                return Vec::new();
            }
            state.tidy();
            state.pods.values().filter(|pod| wanted(pod)).map(|pod| describe(state, pod)).collect()
        })
    }
}

fn describe(state: &State, pod: &PodSpec) -> pb::PodResources {
    // Init containers that end are left out, those that stay are not.
    let shown = pod.in_order().filter(|container| container.role != Role::Init);
    let containers = shown.map(|container| {
        let mut devices = Vec::new();
        for held in state.held_by(&pod.uid, &container.name) {
            for id in held.ids() {
                devices.extend(entries(state, &held.resource, &id));
            }
        }
        pb::ContainerResources { name: container.name.clone(), devices, ..Default::default() }
    });
    pb::PodResources {
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        containers: containers.collect(),
        ..Default::default()
    }
}

/// One entry per device and NUMA node. A device whose topology has no nodes has no entry at all, as in a kubelet.
fn entries(state: &State, resource: &str, id: &str) -> Vec<pb::ContainerDevices> {
    let device = state.resources.get(resource).and_then(|known| known.devices.get(id));
    let topology = device.and_then(|device| device.topology.as_ref());
    let entry = |topology| pb::ContainerDevices {
        resource_name: resource.to_owned(),
        device_ids: vec![id.to_owned()],
        topology,
    };
    let Some(topology) = topology else { return vec![entry(None)] };
    let node = |id| pb::TopologyInfo { nodes: vec![pb::NumaNode { id }] };
    topology.nodes.iter().map(|numa| entry(Some(node(numa.id)))).collect()
}

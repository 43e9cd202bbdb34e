//! What a kubelet does when a pod comes: choose devices, ask the plugin, write it down.

use std::collections::{BTreeMap, BTreeSet};

use tonic::transport::Channel;

use crate::fake::checkpoint_file::Held;
use crate::fake::endpoint::rpc_error;
use crate::fake::inner::Inner;
use crate::fake::pod::{ContainerSpec, PodSpec, Role};
use crate::fake::state::State;
use crate::pb::device_plugin as pb;
use crate::pb::device_plugin::device_plugin_client::DevicePluginClient;

/// Ids of one pod's finished init containers, by resource.
type Reusable = BTreeMap<String, BTreeSet<String>>;

/// Gives every container of a pod its devices; the error is the kubelet's text.
pub(crate) async fn allocate_pod(inner: &Inner, pod: &PodSpec) -> Result<(), String> {
    let mut reusable = Reusable::new();
    for container in pod.in_order() {
        allocate_container(inner, pod, container, &reusable).await?;
        inner.look(|state| {
            for held in state.held_by(&pod.uid, &container.name) {
                let ids = reusable.entry(held.resource.clone()).or_default();
                match container.role {
                    Role::Init => ids.extend(held.ids()),
                    Role::App | Role::Sidecar => held.ids().iter().for_each(|id| {
                        ids.remove(id);
                    }),
                }
            }
        });
    }
    Ok(())
}

async fn allocate_container(
    inner: &Inner,
    pod: &PodSpec,
    container: &ContainerSpec,
    reusable: &Reusable,
) -> Result<(), String> {
    let requests = inner.change(|state| state.chance.shuffled(container.requests.clone()));
    let empty = BTreeSet::new();
    let mut wrote = false;
    for (resource, count) in requests {
        // What no plugin ever offered is not the device manager's business.
        let known = inner.look(|state| {
            let held = state.held.iter().any(|held| held.resource == resource);
            held || state.resources.get(&resource).is_some_and(|known| known.listed)
        });
        if !known || count == 0 {
            continue;
        }
        let reusable = reusable.get(&resource).unwrap_or(&empty);
        let ids = choose(inner, &resource, count, reusable).await?;
        let response = allocate(inner, &resource, &ids).await?;
        inner.change(|state| {
            let by_node = by_node(state, &resource, &ids);
            state.held.push(Held {
                pod_uid: pod.uid.clone(),
                container: container.name.clone(),
                resource,
                by_node,
                response,
            });
        });
        wrote = true;
    }
    if wrote {
        inner.write_checkpoint()?;
    }
    Ok(())
}

/// Which devices: those of the pod's own init containers, then the plugin's preference, then any.
async fn choose(
    inner: &Inner,
    resource: &str,
    count: usize,
    reusable: &BTreeSet<String>,
) -> Result<Vec<String>, String> {
    let mut chosen = Vec::new();
    let (available, plugin) = inner.change(|state| {
        let known = match state.resources.get(resource) {
            Some(known) if known.listed => known,
            _ => return Err(format!("cannot allocate unregistered device {resource}")),
        };
        if known.healthy.is_empty() {
            return Err(format!(
                "no healthy devices present; cannot allocate unhealthy devices {resource}"
            ));
        }
        let held = state.held.iter().filter(|held| held.resource == resource);
        let in_use: BTreeSet<String> = held.flat_map(Held::ids).collect();
        let available: Vec<String> = known.healthy.difference(&in_use).cloned().collect();
        let asks = known.options.is_some_and(|o| o.get_preferred_allocation_available);
        let plugin = known.plugin.clone().filter(|_| asks);
        chosen.extend(state.chance.shuffled(reusable.iter().cloned()));
        chosen.truncate(count);
        let needed = count - chosen.len();
        if available.len() < needed {
            return Err(format!(
                "requested number of devices unavailable for {resource}. Requested: {needed}, Available: {}",
                available.len()
            ));
        }
        Ok((state.chance.shuffled(available), plugin))
    })?;
    if chosen.len() == count {
        return Ok(chosen);
    }
    if let Some(plugin) = plugin {
        let preferred = preferred(inner, plugin, &available, &chosen, count).await?;
        let offered: BTreeSet<&String> = preferred.iter().collect();
        let taken = available.iter().filter(|id| offered.contains(id) && !chosen.contains(id));
        let taken: Vec<String> = taken.cloned().collect();
        chosen.extend(taken);
        chosen.truncate(count);
    }
    let rest: Vec<String> = available.into_iter().filter(|id| !chosen.contains(id)).collect();
    chosen.extend(rest.into_iter().take(count - chosen.len()));
    Ok(chosen)
}

async fn preferred(
    inner: &Inner,
    mut plugin: DevicePluginClient<Channel>,
    available: &[String],
    chosen: &[String],
    count: usize,
) -> Result<Vec<String>, String> {
    let offered = inner.change(|state| {
        state.counters.preferred_calls += 1;
        let all: BTreeSet<String> = available.iter().chain(chosen).cloned().collect();
        state.chance.shuffled(all)
    });
    let request = pb::ContainerPreferredAllocationRequest {
        available_device_i_ds: offered,
        must_include_device_i_ds: chosen.to_vec(),
        allocation_size: i32::try_from(count).unwrap_or(i32::MAX),
    };
    let request = pb::PreferredAllocationRequest { container_requests: vec![request] };
    let answer = plugin.get_preferred_allocation(request).await.map_err(|status| {
        format!("device plugin GetPreferredAllocation rpc failed with err: {}", rpc_error(&status))
    })?;
    let first = answer.into_inner().container_responses.into_iter().next();
    Ok(first.map(|response| response.device_i_ds).unwrap_or_default())
}

async fn allocate(
    inner: &Inner,
    resource: &str,
    ids: &[String],
) -> Result<pb::ContainerAllocateResponse, String> {
    let plugin = inner.look(|state| state.resources.get(resource)?.plugin.clone());
    let Some(mut plugin) = plugin else {
        return Err(format!("endpoint of {resource} has been stopped"));
    };
    let devices_ids = inner.change(|state| {
        state.counters.allocate_calls += 1;
        state.chance.shuffled(ids.iter().cloned())
    });
    let container_requests = vec![pb::ContainerAllocateRequest { devices_ids }];
    let answer = plugin.allocate(pb::AllocateRequest { container_requests }).await;
    let answer = answer.map_err(|status| rpc_error(&status))?.into_inner();
    let first = answer.container_responses.into_iter().next();
    first.ok_or_else(|| format!("no containers return in allocation response for {resource}"))
}

fn by_node(state: &State, resource: &str, ids: &[String]) -> BTreeMap<i64, Vec<String>> {
    let devices = state.resources.get(resource).map(|known| &known.devices);
    let mut by_node: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for id in ids {
        let device = devices.and_then(|devices| devices.get(id));
        let topology = device.and_then(|device| device.topology.as_ref());
        let nodes = topology.map(|topology| topology.nodes.as_slice()).unwrap_or_default();
        if nodes.is_empty() {
            by_node.entry(-1).or_default().push(id.clone());
        }
        for node in nodes {
            by_node.entry(node.id).or_default().push(id.clone());
        }
    }
    by_node
}

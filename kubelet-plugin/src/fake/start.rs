//! What a kubelet and its runtime do when a container starts.

use std::collections::BTreeSet;

use tonic::Status;

use crate::fake::cdi;
use crate::fake::checkpoint_file::Held;
use crate::fake::endpoint::rpc_error;
use crate::fake::inner::Inner;
use crate::fake::pod::{ContainerView, StartError};
use crate::pb::device_plugin as pb;

/// Calls `PreStartContainer` where it is wanted, then resolves the CDI names.
pub(crate) async fn start_container(
    inner: &Inner,
    uid: &str,
    container: &str,
) -> Result<ContainerView, StartError> {
    let held = inner.change(|state| {
        let pod = state.pods.get(uid)?;
        pod.container(container)?;
        let held: Vec<Held> = state.held_by(uid, container).into_iter().cloned().collect();
        Some(state.chance.shuffled(held))
    });
    let Some(held) = held else {
        return Err(StartError::Unknown { uid: uid.to_owned(), container: container.to_owned() });
    };
    let mut pre_started = Vec::new();
    for held in &held {
        if pre_start(inner, held).await.map_err(|message| StartError::Config { message })? {
            pre_started.push(held.resource.clone());
        }
    }
    pre_started.sort_unstable();
    let mut view = combine(&held);
    view.pre_started = pre_started;
    let mut seen = BTreeSet::new();
    let names = held.iter().flat_map(|held| &held.response.cdi_devices);
    let names = names.map(|device| device.name.clone()).filter(|name| seen.insert(name.clone()));
    let names: Vec<String> = names.collect();
    view.cdi_devices = cdi::resolve(&inner.options.cdi_dirs, &names)
        .map_err(|message| StartError::Create { message })?;
    Ok(view)
}

/// Whether the plugin was called.
async fn pre_start(inner: &Inner, held: &Held) -> Result<bool, String> {
    let resource = &held.resource;
    let failed =
        |why: String| Err(format!("device plugin PreStartContainer rpc failed with err: {why}"));
    let known = inner.look(|state| {
        let known = state.resources.get(resource)?;
        Some((known.options, known.plugin.clone()))
    });
    let Some((options, plugin)) = known else {
        return Err(format!("endpoint not found in cache for a registered resource: {resource}"));
    };
    let Some(options) = options else {
        // Nobody has registered since the kubelet's start, so it does not know that it should call.
        inner.change(|state| state.counters.pre_start_skipped += 1);
        return Ok(false);
    };
    if !options.pre_start_required {
        return Ok(false);
    }
    let Some(mut plugin) = plugin else {
        return failed(format!("endpoint of {resource} has been stopped"));
    };
    let devices_ids = inner.change(|state| {
        state.counters.pre_start_calls += 1;
        state.chance.shuffled(held.ids())
    });
    let call = plugin.pre_start_container(pb::PreStartContainerRequest { devices_ids });
    match tokio::time::timeout(inner.options.pre_start_limit, call).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(status)) => failed(rpc_error(&status)),
        Err(_elapsed) => failed(rpc_error(&Status::deadline_exceeded("context deadline exceeded"))),
    }
}

/// Where two resources set the same thing the first wins; the order is random.
fn combine(held: &[Held]) -> ContainerView {
    let mut view = ContainerView {
        cdi_devices: Vec::new(),
        envs: Default::default(),
        mounts: Default::default(),
        annotations: Default::default(),
        pre_started: Vec::new(),
    };
    for response in held.iter().map(|held| &held.response) {
        for (name, value) in &response.envs {
            view.envs.entry(name.clone()).or_insert_with(|| value.clone());
        }
        for mount in &response.mounts {
            let path = mount.container_path.clone().into();
            view.mounts.entry(path).or_insert_with(|| mount.host_path.clone().into());
        }
        for (name, value) in &response.annotations {
            view.annotations.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    view
}

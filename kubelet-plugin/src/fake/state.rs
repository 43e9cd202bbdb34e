//! What the fake kubelet's device manager knows, and how events change it. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::fake::chance::Chance;
use crate::fake::checkpoint_file::Held;
use crate::fake::options::OldStreamEnd;
use crate::fake::pod::PodSpec;
use crate::pb::device_plugin as pb;
use crate::pb::device_plugin::device_plugin_client::DevicePluginClient;

/// After this long without a plugin a resource's capacity is 0.
const GRACE: Duration = Duration::from_secs(5 * 60);

/// How often what was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// `Allocate` calls to plugins.
    pub allocate_calls: u64,
    /// Lists received from plugins.
    pub lists: u64,
    /// `List` and `Get` requests answered.
    pub pod_resources_calls: u64,
    /// `GetPreferredAllocation` calls to plugins.
    pub preferred_calls: u64,
    /// `PreStartContainer` calls to plugins.
    pub pre_start_calls: u64,
    /// `PreStartContainer` calls not made, because no plugin had registered since the kubelet's start.
    pub pre_start_skipped: u64,
    /// Registrations accepted.
    pub registrations: u64,
    /// Registrations refused.
    pub registrations_refused: u64,
    /// List streams that ended.
    pub streams_ended: u64,
}

pub(crate) struct State {
    pub(crate) resources: BTreeMap<String, ResourceState>,
    /// The plugin that is connected for a resource.
    clients: BTreeMap<String, ClientHandle>,
    pub(crate) pods: BTreeMap<String, PodSpec>,
    pub(crate) held: Vec<Held>,
    pub(crate) chance: Chance,
    pub(crate) counters: Counters,
    /// While the kubelet runs: ends everything, and the clock's time at which `PodResources` shows pods.
    pub(crate) run: Option<Run>,
    next_client: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) cut: CancellationToken,
    pub(crate) pods_shown_at: Duration,
}

/// Ends one plugin's connection.
struct ClientHandle {
    id: u64,
    disconnect: CancellationToken,
}

#[derive(Default)]
pub(crate) struct ResourceState {
    pub(crate) devices: BTreeMap<String, pb::Device>,
    pub(crate) healthy: BTreeSet<String>,
    unhealthy: BTreeSet<String>,
    /// Whether a list was received, now or before a restart.
    pub(crate) listed: bool,
    /// What the plugin said about itself; unknown after a restart until it registers.
    pub(crate) options: Option<pb::DevicePluginOptions>,
    pub(crate) plugin: Option<DevicePluginClient<Channel>>,
    stopped_at: Option<Duration>,
}

impl State {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            resources: BTreeMap::new(),
            clients: BTreeMap::new(),
            pods: BTreeMap::new(),
            held: Vec::new(),
            chance: Chance::new(seed),
            counters: Counters::default(),
            run: None,
            next_client: 0,
        }
    }

    /// The kubelet's process is gone, and all that it had in memory.
    pub(crate) fn forget_all(&mut self) {
        if let Some(run) = self.run.take() {
            run.cut.cancel();
        }
        self.resources.clear();
        self.clients.clear();
        self.held.clear();
    }

    /// What a checkpoint tells: allocations, and resources that have no device until their plugin registers.
    pub(crate) fn load(&mut self, held: Vec<Held>, resources: Vec<String>, now: Duration) {
        self.held = held;
        for resource in resources {
            let state =
                ResourceState { listed: true, stopped_at: Some(now), ..ResourceState::default() };
            self.resources.insert(resource, state);
        }
    }

    /// A plugin is connected. One that was so before for the resource is no longer asked, but its connection stays.
    pub(crate) fn connected(
        &mut self,
        resource: &str,
        plugin: DevicePluginClient<Channel>,
        options: pb::DevicePluginOptions,
        disconnect: CancellationToken,
    ) -> u64 {
        self.counters.registrations += 1;
        self.next_client += 1;
        let id = self.next_client;
        self.clients.insert(resource.to_owned(), ClientHandle { id, disconnect });
        let state = self.resources.entry(resource.to_owned()).or_default();
        state.plugin = Some(plugin);
        state.options = Some(options);
        state.stopped_at = None;
        id
    }

    /// The full list of a resource.
    pub(crate) fn listed(&mut self, resource: &str, list: pb::ListAndWatchResponse) {
        self.counters.lists += 1;
        let state = self.resources.entry(resource.to_owned()).or_default();
        state.listed = true;
        state.devices = list.devices.into_iter().map(|d| (d.id.clone(), d)).collect();
        let is_healthy = |d: &&pb::Device| d.health == "Healthy";
        state.healthy = state.devices.values().filter(is_healthy).map(|d| d.id.clone()).collect();
        let ids = state.devices.keys();
        state.unhealthy = ids.filter(|id| !state.healthy.contains(*id)).cloned().collect();
    }

    /// A plugin's stream ended.
    pub(crate) fn stream_ended(
        &mut self,
        resource: &str,
        id: u64,
        mode: OldStreamEnd,
        now: Duration,
    ) {
        self.counters.streams_ended += 1;
        let Some(current) = self.clients.get(resource) else { return };
        // A kubelet up to 1.36 looks the client up by the resource's name, whichever it is by now.
        if current.id != id && mode == OldStreamEnd::IsIgnored {
            return;
        }
        self.disconnect(resource, now);
    }

    /// Cuts the connection to a resource's plugin.
    pub(crate) fn disconnect(&mut self, resource: &str, now: Duration) {
        if let Some(current) = self.clients.remove(resource) {
            current.disconnect.cancel();
        }
        if let Some(state) = self.resources.get_mut(resource) {
            let healthy = std::mem::take(&mut state.healthy);
            state.unhealthy.extend(healthy);
            state.plugin = None;
            state.stopped_at = Some(now);
        }
    }

    /// Drops resources that had no plugin for too long.
    pub(crate) fn expire(&mut self, now: Duration) {
        self.resources.retain(|_, state| state.stopped_at.is_none_or(|since| now < since + GRACE));
    }

    pub(crate) fn allocatable(&self, resource: &str) -> usize {
        self.resources.get(resource).map_or(0, |state| state.healthy.len())
    }

    pub(crate) fn capacity(&self, resource: &str) -> usize {
        self.resources.get(resource).map_or(0, |state| state.healthy.len() + state.unhealthy.len())
    }

    /// Frees what pods hold that are no longer here; whether there was any.
    pub(crate) fn tidy(&mut self) -> bool {
        let before = self.held.len();
        let pods = &self.pods;
        self.held.retain(|held| pods.contains_key(&held.pod_uid));
        self.held.len() != before
    }

    pub(crate) fn held_by(&self, uid: &str, container: &str) -> Vec<&Held> {
        let ours = |held: &&Held| held.pod_uid == uid && held.container == container;
        self.held.iter().filter(ours).collect()
    }
}

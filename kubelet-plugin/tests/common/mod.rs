//! A node with a fake kubelet and a plugin whose answers a test can set.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use vgpu_kubelet_plugin::fake::{FakeClock, FakeKubelet, FakeOptions};
use vgpu_kubelet_plugin::{
    AllocateRequest, AllocateResponse, DeviceEntry, DeviceList, DevicePlugin, HostOptions,
    PluginHost, PluginOptions, PreStartRequest, PreferredRequest, Refusal, Registration, Resource,
};

pub(crate) const SLOT: &str = "vgpu.dev/slot";

pub(crate) fn resource(name: &str) -> Resource {
    Resource::parse(name).unwrap()
}

/// A folder for one kubelet and its plugins.
pub(crate) struct Node {
    pub(crate) folder: tempfile::TempDir,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A manual clock, the seed printed.
    pub(crate) fn options(&self) -> FakeOptions {
        let mut options = FakeOptions::under(self.folder.path());
        println!("seed {}", options.seed);
        options.clock = FakeClock::manual();
        options
    }

    pub(crate) fn kubelet(&self) -> FakeKubelet {
        FakeKubelet::new(self.options()).unwrap()
    }

    pub(crate) fn host_options(&self) -> HostOptions {
        HostOptions::new(&self.options().paths, "vgpu")
    }

    pub(crate) fn host(&self) -> PluginHost {
        PluginHost::new(self.host_options()).unwrap()
    }

    /// Socket files in the kubelet's folder but kubelet.sock.
    pub(crate) fn plugin_sockets(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.options().paths.device_plugins).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let sockets = paths.filter(|path| path.extension().is_some_and(|e| e == "sock"));
        sockets.filter(|path| !path.ends_with("kubelet.sock")).collect()
    }

    /// A spec file with one device, as an agent would write it.
    pub(crate) fn write_cdi(&self, slot: &str, env: &str) {
        let folder = self.folder.path().join("cdi");
        std::fs::create_dir_all(&folder).unwrap();
        let spec = serde_json::json!({
            "cdiVersion": "0.5.0",
            "kind": SLOT,
            "devices": [{ "name": slot, "containerEdits": { "env": [env] } }],
        });
        std::fs::write(folder.join(format!("{slot}.json")), spec.to_string()).unwrap();
    }
}

/// What `preferred_allocation` answers.
#[derive(Debug, Clone, Default)]
pub(crate) enum Preference {
    #[default]
    None,
    /// The first ids in order, so many as asked.
    Lowest,
    /// Always these.
    These(Vec<String>),
}

pub(crate) struct TestPlugin {
    pub(crate) list: watch::Sender<DeviceList>,
    pub(crate) preference: Mutex<Preference>,
    pub(crate) preferred: Mutex<Vec<PreferredRequest>>,
    pub(crate) allocated: Mutex<Vec<Vec<String>>>,
    pub(crate) refuse_allocate: Mutex<Option<Refusal>>,
    pub(crate) refuse_pre_start: Mutex<Option<Refusal>>,
    pub(crate) pre_start_begun: AtomicUsize,
    pub(crate) pre_start_ended: watch::Sender<usize>,
    /// One permit lets one `pre_start` end.
    pub(crate) gate: Semaphore,
}

impl TestPlugin {
    /// Healthy devices `<prefix>0`…; `pre_start` passes at once.
    pub(crate) fn new(count: usize) -> Arc<Self> {
        let plugin = Self::gated(count);
        plugin.gate.add_permits(Semaphore::MAX_PERMITS / 2);
        plugin
    }

    /// The same, but `pre_start` waits for the gate.
    pub(crate) fn gated(count: usize) -> Arc<Self> {
        Arc::new(Self {
            list: watch::Sender::new(healthy(count)),
            preference: Mutex::default(),
            preferred: Mutex::default(),
            allocated: Mutex::default(),
            refuse_allocate: Mutex::default(),
            refuse_pre_start: Mutex::default(),
            pre_start_begun: AtomicUsize::new(0),
            pre_start_ended: watch::Sender::new(0),
            gate: Semaphore::new(0),
        })
    }
}

#[vgpu_kubelet_plugin::async_trait]
impl DevicePlugin for TestPlugin {
    fn options(&self) -> PluginOptions {
        PluginOptions { pre_start: true, preferred_allocation: true }
    }

    fn devices(&self) -> watch::Receiver<DeviceList> {
        self.list.subscribe()
    }

    async fn preferred_allocation(&self, request: PreferredRequest) -> Vec<String> {
        self.preferred.lock().unwrap().push(request.clone());
        match self.preference.lock().unwrap().clone() {
            Preference::None => Vec::new(),
            Preference::Lowest => {
                let mut ids = request.available;
                ids.sort_unstable();
                ids.truncate(request.size);
                ids
            }
            Preference::These(ids) => ids,
        }
    }

    async fn allocate(&self, request: AllocateRequest) -> Result<AllocateResponse, Refusal> {
        if let Some(refusal) = self.refuse_allocate.lock().unwrap().clone() {
            return Err(refusal);
        }
        let mut ids = request.device_ids;
        ids.sort_unstable();
        let cdi_devices = ids.iter().map(|id| format!("{SLOT}={id}")).collect();
        let envs = BTreeMap::from([("SLOTS".to_owned(), ids.join(","))]);
        self.allocated.lock().unwrap().push(ids);
        Ok(AllocateResponse { cdi_devices, envs, ..AllocateResponse::default() })
    }

    async fn pre_start(&self, _request: PreStartRequest) -> Result<(), Refusal> {
        self.pre_start_begun.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        self.pre_start_ended.send_modify(|ended| *ended += 1);
        self.refuse_pre_start.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

pub(crate) fn healthy(count: usize) -> DeviceList {
    DeviceList::new((0..count).map(|n| DeviceEntry::healthy(format!("s{n}"))).collect()).unwrap()
}

/// A liveness guard, far above what anything takes.
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(60), work).await {
        Ok(value) => value,
        Err(_elapsed) => panic!("waited in vain for {what}"),
    }
}

pub(crate) async fn serving(registration: &mut watch::Receiver<Registration>) {
    within("the registration", registration.wait_for(|r| *r == Registration::Serving))
        .await
        .unwrap();
}

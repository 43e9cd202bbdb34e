//! A node on a mock machine, which outlives it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this module")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tempfile::TempDir;
use vgpu_backend_mock::{Machine, MachineSpec, MockFactory};
use vgpu_core::cdi::{Kind, Spec};
use vgpu_core::id::{ClaimId, DeviceId, PartitionId, SlotId};
use vgpu_core::{Host, Result, Vendor};
use vgpu_node::absence::AbsenceOptions;
use vgpu_node::health::HealthOptions;
use vgpu_node::inventory::{InventoryOptions, Registry};
use vgpu_node::lanes::LaneOptions;
use vgpu_node::points::FaultPoints;
use vgpu_node::publish::SpecOptions;
use vgpu_node::{Allocation, CheckpointClaim, Node, NodeOptions, Offer, Prepare, ResourceName};

pub struct World {
    pub dir: TempDir,
    pub machine: Arc<Machine>,
    pub offers: Vec<Offer>,
    pub points: FaultPoints,
    pub lanes: LaneOptions,
    pub absence: AbsenceOptions,
}

impl World {
    pub fn new(machine: impl Into<MachineSpec>, offers: &str) -> Self {
        let world = Self {
            dir: folder(),
            machine: Machine::new(machine).expect("a machine"),
            offers: serde_json::from_str(offers).expect("offers"),
            points: FaultPoints::default(),
            lanes: LaneOptions::default(),
            absence: AbsenceOptions::default(),
        };
        world.write_boot_id();
        world
    }

    /// Opens the node and looks at the hardware, as the agent does at its start.
    pub fn open(&self) -> Result<Arc<Node>> {
        let factories = MockFactory::all(&self.machine);
        let host = || Host { root: self.dir.path().join("root"), library: None };
        let registry = factories.into_iter().fold(Registry::new(), |r, f| r.with(f, host()));
        let (node, _) = Node::open(self.options(), registry)?;
        node.refresh();
        node.apply(&self.offers)?;
        Ok(node)
    }

    pub fn node(&self) -> Arc<Node> {
        self.open().expect("the node opens")
    }

    pub fn options(&self) -> NodeOptions {
        let dir = self.dir.path();
        NodeOptions {
            state_dir: dir.join("state"),
            root: dir.join("root"),
            specs: SpecOptions {
                cdi_dir: self.cdi_dir(),
                claims_dir: dir.join("state/claims"),
                kind: Kind::new("vgpu.dev/claim").expect("a kind"),
                hook: Some(dir.join("vgpu-hook")),
                socket: dir.join("hook.sock"),
                points: self.points.clone(),
            },
            inventory: InventoryOptions {
                lanes: LaneOptions { points: self.points.clone(), ..self.lanes.clone() },
                ..InventoryOptions::default()
            },
            health: HealthOptions::default(),
            absence: self.absence,
            ledger_wait: std::time::Duration::ZERO,
            points: self.points.clone(),
        }
    }

    pub fn cdi_dir(&self) -> PathBuf {
        self.dir.path().join("cdi")
    }

    /// The machine is booted anew: parts and specs are gone, the boot id is another.
    pub fn reboot(&self) {
        self.machine.faults().reboot().expect("reboots");
        self.write_boot_id();
        let _ = std::fs::remove_dir_all(self.cdi_dir());
    }

    pub fn write_boot_id(&self) {
        let dir = self.dir.path().join("root/proc/sys/kernel/random");
        std::fs::create_dir_all(&dir).expect("a folder");
        let id = self.machine.boot_id().expect("a boot id");
        std::fs::write(dir.join("boot_id"), id + "\n").expect("a file");
    }

    pub fn cards(&self, vendor: &Vendor) -> Vec<DeviceId> {
        self.machine.devices_of(vendor).expect("cards")
    }

    pub fn parts(&self) -> BTreeSet<PartitionId> {
        self.machine.all_parts().expect("parts").into_iter().collect()
    }

    /// The claims whose specs a runtime would find.
    pub fn specs(&self) -> BTreeSet<String> {
        let Ok(files) = std::fs::read_dir(self.cdi_dir()) else { return BTreeSet::new() };
        files
            .map(|f| f.expect("a file").path())
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .map(|path| {
                let text = std::fs::read_to_string(path).expect("readable");
                let spec: Spec = serde_json::from_str(&text).expect("a spec, whole");
                spec.devices[0].name.clone()
            })
            .collect()
    }

    /// The spec of one claim.
    pub fn spec(&self, claim: &ClaimId) -> Option<Spec> {
        let path = self.cdi_dir().join(format!("vgpu.dev-claim_{claim}.json"));
        let text = std::fs::read_to_string(path).ok()?;
        Some(serde_json::from_str(&text).expect("a spec, whole"))
    }
}

/// In memory where there is such a place: thousands of fsyncs wait for no disk there.
fn folder() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a temporary folder")
}

pub fn resource(name: &str) -> ResourceName {
    ResourceName::new(name).expect("a resource name")
}

/// The first free and healthy ids, as a kubelet without preference would take them.
pub fn free(node: &Node, name: &str, count: usize) -> Vec<SlotId> {
    let held: BTreeSet<SlotId> = node.claims().into_iter().flat_map(|c| c.ids).collect();
    let listing = node.listing();
    let slots = listing.get(&resource(name)).expect("offered");
    let free = slots.iter().filter(|s| s.healthy && !held.contains(&s.id));
    free.take(count).map(|s| s.id.clone()).collect()
}

/// How many ids of a resource are healthy.
pub fn healthy(node: &Node, name: &str) -> usize {
    node.listing().get(&resource(name)).map_or(0, |s| s.iter().filter(|s| s.healthy).count())
}

/// What the kubelet does at admission: asks for a preference, and allocates.
pub fn allocate(node: &Node, name: &str, count: usize) -> Result<(Allocation, Vec<SlotId>)> {
    let held: BTreeSet<SlotId> = node.claims().into_iter().flat_map(|c| c.ids).collect();
    let listing = node.listing();
    let slots = listing.get(&resource(name)).expect("offered");
    let available: Vec<SlotId> =
        slots.iter().filter(|s| s.healthy && !held.contains(&s.id)).map(|s| s.id.clone()).collect();
    let mut ids = node.prefer(&resource(name), &available, &[], count);
    if ids.len() != count {
        ids = available.into_iter().take(count).collect();
    }
    let allocation = node.allocate(&resource(name), &ids)?;
    Ok((allocation, ids))
}

pub fn start(name: &str, ids: &[SlotId]) -> Prepare {
    Prepare {
        asked: Instant::now(),
        resource: resource(name),
        ids: ids.iter().cloned().collect(),
        holder: None,
        checkpoint: None,
        beside: BTreeSet::new(),
    }
}

pub fn start_of(name: &str, ids: &[SlotId], pod: &str, claims: &[&ClaimId]) -> Prepare {
    let entries = claims
        .iter()
        .map(|c| CheckpointClaim {
            claim: (*c).clone(),
            pod_uid: pod.into(),
            container: "main".into(),
            beside: BTreeSet::new(),
        })
        .collect();
    Prepare { checkpoint: Some(entries), ..start(name, ids) }
}

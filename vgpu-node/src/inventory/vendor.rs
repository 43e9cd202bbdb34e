//! One vendor: found, lost and found again.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vgpu_core::backend::{Backend, BackendFactory, BackendInfo, Host, Probe};
use vgpu_core::device::{Device, Scan};
use vgpu_core::error::{Error, ErrorKind};
use vgpu_core::id::{DeviceId, Vendor};

use super::snapshot::{BackendStatus, Card, Presence};
use super::{Inventory, in_parallel, is_newer, list};
use crate::lanes::{Alone, Lanes};

/// A vendor's place in the inventory.
pub(super) struct Slot {
    vendor: Vendor,
    factory: Arc<dyn BackendFactory>,
    host: Host,
    probe: Alone,
    /// Held over a refresh: two at once would open the library twice.
    refreshing: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    run: Option<Run>,
    /// Earlier runs with calls that may still come back.
    retired: Vec<Arc<Lanes>>,
    /// Between which cards the links are known.
    linked: Option<BTreeSet<DeviceId>>,
    driver_replaced: bool,
}

/// A loaded backend.
#[derive(Debug, Clone)]
struct Run {
    lanes: Arc<Lanes>,
    info: BackendInfo,
}

impl Slot {
    pub(super) fn new(factory: Arc<dyn BackendFactory>, host: Host) -> Self {
        Self {
            vendor: factory.vendor(),
            factory,
            host,
            probe: Alone::default(),
            refreshing: Mutex::default(),
            state: Mutex::default(),
        }
    }

    pub(super) fn vendor(&self) -> &Vendor {
        &self.vendor
    }

    pub(super) fn lanes(&self) -> Option<Arc<Lanes>> {
        self.state().run.as_ref().map(|run| run.lanes.clone())
    }

    pub(super) fn driver_replaced(&self) -> bool {
        let state = self.state();
        let lanes = state.run.iter().map(|run| &run.lanes);
        state.driver_replaced || lanes.chain(&state.retired).any(|l| l.driver_replaced())
    }

    /// Probes where there is no backend that answers, then scans.
    pub(super) fn refresh(&self, inventory: &Inventory) {
        let _one = self.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        let run = match self.run(inventory) {
            Ok(run) => run,
            Err(status) => return self.gone(inventory, status),
        };
        match run.lanes.read("scan", |backend| Ok((backend.scan()?, backend.info()))) {
            Ok((scan, info)) => self.take(inventory, &self.told(run, info), scan),
            Err(error) => {
                // Nothing can be said of any card now; each one's health says the rest.
                tracing::warn!(vendor = %self.vendor, %error, "cannot scan");
                self.say(inventory, BackendStatus::Broken(error));
            }
        }
    }

    /// Asks how near the cards are.
    pub(super) fn link(&self, inventory: &Inventory) {
        let Some(lanes) = self.lanes() else { return };
        let here: BTreeSet<DeviceId> = inventory
            .snapshot()
            .cards
            .iter()
            .filter(|(_, c)| c.device.vendor == self.vendor && c.presence == Presence::Here)
            .map(|(id, _)| id.clone())
            .collect();
        match lanes.read("topology", |backend| backend.topology()) {
            Ok(links) => {
                inventory.publish(|snapshot, _| snapshot.link(&self.vendor, links));
                self.state().linked = Some(here);
            }
            Err(error) => {
                tracing::warn!(vendor = %self.vendor, %error, "keeping the links that are known");
            }
        }
    }

    /// The backend that is loaded and answers, or a new one.
    fn run(&self, inventory: &Inventory) -> Result<Run, BackendStatus> {
        let before = {
            let mut state = self.state();
            match &state.run {
                Some(run) if !run.lanes.broken() => return Ok(run.clone()),
                Some(run) if run.lanes.driver_replaced() => {
                    let why = "the driver was replaced; only a new process can load the new one";
                    return Err(BackendStatus::Broken(Error::new(ErrorKind::DriverReplaced, why)));
                }
                _ => {}
            }
            state.retired.retain(|lanes| lanes.any_stuck());
            if state.run.is_some() && state.retired.len() >= inventory.options.retired_limit {
                return Err(BackendStatus::Broken(self.given_up()));
            }
            let before = state.run.as_ref().map(|run| run.lanes.clone());
            before.or_else(|| state.retired.last().cloned())
        };
        let (backend, info) = self.probe(inventory)?;
        let options = inventory.options.lanes.clone();
        let lanes = Lanes::after(before, backend, info.vendor.clone(), options);
        inventory.wire(&lanes);
        let run = Run { lanes, info };
        let mut state = self.state();
        if let Some(old) = state.run.replace(run.clone()) {
            tracing::warn!(vendor = %self.vendor, "the driver's library is run anew");
            state.retired.push(old.lanes);
        }
        state.linked = None;
        Ok(run)
    }

    fn probe(
        &self,
        inventory: &Inventory,
    ) -> Result<(Arc<dyn Backend>, BackendInfo), BackendStatus> {
        let (factory, host) = (self.factory.clone(), self.host.clone());
        let deadline = inventory.options.lanes.deadline;
        let probed = self.probe.run(self.vendor.as_str(), "probe", deadline, move || {
            let probe = factory.probe(&host);
            // Here, since this too may be a call of the library.
            let info = if let Probe::Ready(backend) = &probe { Some(backend.info()) } else { None };
            (probe, info)
        });
        match probed {
            Ok((Probe::Ready(backend), Some(info))) => Ok((backend, info)),
            Ok((Probe::Absent(why), _)) => Err(BackendStatus::Absent(why)),
            Ok((Probe::Broken(error), _)) | Err(error) => {
                self.state().driver_replaced |= error.kind == ErrorKind::DriverReplaced;
                Err(BackendStatus::Broken(error))
            }
            Ok((Probe::Ready(_), None)) => unreachable!("asked above, on the same thread"),
        }
    }

    /// The run with what it tells of itself now: a backend in another process may have been started
    /// anew since, with another driver.
    fn told(&self, run: Run, info: BackendInfo) -> Run {
        if run.info == info {
            return run;
        }
        tracing::info!(vendor = %self.vendor, driver = info.driver, "the backend tells something else of itself");
        let run = Run { info, ..run };
        let mut state = self.state();
        if state.run.as_ref().is_some_and(|now| Arc::ptr_eq(&now.lanes, &run.lanes)) {
            state.run = Some(run.clone());
        }
        run
    }

    /// Takes a scan: who is lost at once, and each card as soon as its parts are listed.
    fn take(&self, inventory: &Inventory, run: &Run, scan: Scan) {
        let devices: Vec<Device> =
            scan.devices.into_iter().filter(|d| self.may_have(inventory, d)).collect();
        let here: Vec<&DeviceId> = devices.iter().map(|d| &d.id).collect();
        inventory.publish(|snapshot, _| {
            let status = BackendStatus::Ready(run.info.clone());
            snapshot.backends.insert(self.vendor.clone(), status);
            snapshot.lose(&self.vendor, &here, scan.lost);
            for device in &devices {
                snapshot.meet(device, &run.lanes);
            }
        });
        in_parallel(&devices, |device| {
            let began = inventory.tick();
            let partitions = list(&run.lanes, &device.id);
            inventory.publish(|snapshot, listed| {
                let newer = is_newer(listed, &device.id, began);
                match snapshot.cards.get_mut(&device.id) {
                    Some(card) if newer => card.partitions = partitions,
                    Some(_) => {}
                    None => {
                        let (device, lanes) = (device.clone(), run.lanes.clone());
                        let card = Card { device, presence: Presence::Here, partitions, lanes };
                        snapshot.cards.insert(card.device.id.clone(), card);
                    }
                }
            });
        });
        let here: BTreeSet<DeviceId> = here.into_iter().cloned().collect();
        if self.state().linked.as_ref() != Some(&here) {
            self.link(inventory);
        }
    }

    /// Whether a card may be this vendor's; an id is one card's for life.
    fn may_have(&self, inventory: &Inventory, device: &Device) -> bool {
        let snapshot = inventory.snapshot();
        let other = snapshot.cards.get(&device.id).map(|c| &c.device.vendor);
        let mine = device.vendor == self.vendor && other.is_none_or(|v| *v == self.vendor);
        if !mine {
            tracing::error!(
                vendor = %self.vendor, device = %device.id, of = %device.vendor, ?other,
                "the backend lists a card of another vendor; it is passed over"
            );
        }
        mine
    }

    fn gone(&self, inventory: &Inventory, status: BackendStatus) {
        let reason = match &status {
            BackendStatus::Absent(why) => Error::new(ErrorKind::Lost, why.clone()),
            BackendStatus::Broken(error) => {
                Error::new(ErrorKind::Lost, "its driver does not work").caused_by(error.clone())
            }
            BackendStatus::Ready(_) => unreachable!("a vendor that works is scanned"),
        };
        inventory.publish(|snapshot, _| snapshot.lose_all(&self.vendor, &reason));
        self.say(inventory, status);
    }

    fn say(&self, inventory: &Inventory, status: BackendStatus) {
        inventory.publish(|snapshot, _| {
            let before = snapshot.backends.insert(self.vendor.clone(), status.clone());
            if before.as_ref() != Some(&status) {
                tracing::info!(vendor = %self.vendor, ?status, "the vendor's state changed");
            }
        });
    }

    fn given_up(&self) -> Error {
        let why = format!(
            "calls of the {} driver do not return, also after its library was run anew; restart \
             the agent, and look into the kernel's log for the driver",
            self.vendor
        );
        Error::new(ErrorKind::Vendor, why)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("vendor", &self.vendor).finish_non_exhaustive()
    }
}

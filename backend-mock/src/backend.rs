//! A vendor's backend on a scripted machine: what is there, and who it is.

use std::path::PathBuf;
use std::sync::Arc;

use vgpu_core::{Backend, BackendInfo, DeviceId, Discovery, ErrorKind, Link, Lost, Scan, Vendor};

use crate::Result;
use crate::machine::{Machine, Stop};
use crate::schemes::describe;
use crate::script::Op;
use crate::session::Session;
use crate::vendor;

/// A backend of one vendor, or of all, on a scripted machine.
#[derive(Debug)]
pub struct MockBackend {
    pub(crate) machine: Arc<Machine>,
    /// `None` serves the cards of all vendors.
    pub(crate) only: Option<Vendor>,
    /// The driver that was there when the library was loaded.
    driver: u64,
}

impl MockBackend {
    pub(crate) fn new(machine: Arc<Machine>, only: Option<Vendor>, driver: u64) -> Self {
        Self { machine, only, driver }
    }

    /// Begins an operation; a card of another vendor is one that is not there.
    pub(crate) fn start(&self, op: Op, device: Option<&DeviceId>) -> Result<Session<'_>> {
        let named = self.only.clone().unwrap_or_else(mock);
        let session = Session::start(&self.machine, op, named, self.driver, device)?;
        if let Some(device) = device {
            self.must_serve(device).map_err(|e| session.failed(e))?;
        }
        Ok(session)
    }

    /// A card of another vendor is one that is not there.
    pub(crate) fn must_serve(&self, device: &DeviceId) -> Result<()> {
        let served =
            self.machine.read(|s| s.card(device).is_ok_and(|c| self.serves(&c.vendor())))?;
        if served { Ok(()) } else { Err(crate::state::no_card(device)) }
    }

    fn counts(&self) -> &'static str {
        vendor::counts_cards(&self.only.clone().unwrap_or_else(mock))
    }

    /// Whether cards of that vendor are ours.
    pub(crate) fn serves(&self, vendor: &Vendor) -> bool {
        self.only.as_ref().is_none_or(|v| v == vendor)
    }
}

impl Discovery for MockBackend {
    fn scan(&self) -> Result<Scan> {
        let session = self.start(Op::Scan, None)?;
        let cards = session
            .ask(self.counts(), |state| {
                let ours = state.cards.iter().filter(|c| self.serves(&c.vendor()));
                ours.map(|c| (c.id.clone(), c.vendor())).collect::<Vec<_>>()
            })
            .map_err(|e| session.failed(e))?;
        let mut scan = Scan::default();
        for (id, of) in cards {
            let read =
                session.look(vendor::reads_card(&of), &id, |state, card| Ok(describe(state, card)));
            match read {
                Ok(device) => scan.devices.push(device),
                Err(Stop::Failed(e)) if e.kind != ErrorKind::DriverReplaced => {
                    scan.lost.push(Lost { name: id.to_string(), reason: e });
                }
                Err(stop) => return Err(session.failed(stop)),
            }
        }
        Ok(scan)
    }

    fn topology(&self) -> Result<Vec<Link>> {
        let session = self.start(Op::Topology, None)?;
        let links = session
            .ask(self.counts(), |state| {
                let ours = |id: &DeviceId| state.card(id).is_ok_and(|c| self.serves(&c.vendor()));
                let links = state.links().into_iter().filter(|l| ours(&l.a) && ours(&l.b));
                links.collect::<Vec<_>>()
            })
            .map_err(|e| session.failed(e))?;
        let mut readable = Vec::new();
        for link in links {
            let of = self.machine.read(|state| state.card(&link.a).map(|c| c.vendor()))??;
            let call = vendor::reads_topology(&of);
            let pair = session
                .look(call, &link.a, |_, _| Ok(()))
                .and_then(|()| session.look(call, &link.b, |_, _| Ok(())));
            match pair {
                Ok(()) => readable.push(link),
                Err(Stop::Failed(e)) if e.kind != ErrorKind::DriverReplaced => {}
                Err(stop) => return Err(session.failed(stop)),
            }
        }
        Ok(readable)
    }
}

impl Backend for MockBackend {
    fn info(&self) -> BackendInfo {
        let named = self.only.clone().unwrap_or_else(mock);
        let told = self.machine.read(|state| {
            let mut missing: Vec<String> = state
                .spec
                .missing_symbols
                .iter()
                .filter(|(name, _)| self.only.as_ref().is_none_or(|v| v.as_str() == *name))
                .flat_map(|(_, list)| list.clone())
                .collect();
            missing.sort();
            missing.dedup();
            let driver = state.spec.drivers.get(named.as_str()).cloned();
            (driver.unwrap_or_else(|| vendor::driver(&named).to_owned()), missing)
        });
        // Without its file the machine still is what it is.
        let (driver, missing_symbols) =
            told.unwrap_or_else(|_gone| (vendor::driver(&named).to_owned(), Vec::new()));
        BackendInfo { vendor: named, library: PathBuf::from("built in"), driver, missing_symbols }
    }
}

/// The vendor that stands for all vendors at once.
pub(crate) fn mock() -> Vendor {
    Vendor::new("mock")
}

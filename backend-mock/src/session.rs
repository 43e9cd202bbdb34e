//! One operation of a backend on its machine: it counts, plays the script, and lets vendor calls
//! have their effect.

use vgpu_core::{DeviceId, Error, ErrorKind, PartitionId, Vendor};

use crate::Result;
use crate::machine::{Machine, Stop, start};
use crate::script::{Here, Moment, Op};
use crate::state::{Card, State};
use crate::vendor;

/// One operation, from its start to its end.
#[derive(Debug)]
pub(crate) struct Session<'m> {
    machine: &'m Machine,
    op: Op,
    /// Whose library the calls go to, unless the card says otherwise.
    vendor: Vendor,
    /// The driver that was there when the library was loaded.
    driver: u64,
}

impl<'m> Session<'m> {
    /// Begins an operation; faults at its start strike here.
    pub(crate) fn start(
        machine: &'m Machine,
        op: Op,
        vendor: Vendor,
        driver: u64,
        device: Option<&DeviceId>,
    ) -> Result<Self> {
        machine
            .play(start(op, device), &vendor)
            .map_err(|stop| Error::from(stop).during(op.into()))?;
        Ok(Self { machine, op, vendor, driver })
    }

    /// A vendor call about a card that changes something, or nothing at all if it fails.
    pub(crate) fn call<R>(
        &self,
        name: &str,
        device: &DeviceId,
        effect: impl FnOnce(&mut State) -> Result<R, Refusal>,
    ) -> Result<R, Stop> {
        let vendor = self.vendor_of(device)?;
        self.around(name, Some(device), &vendor, || {
            self.machine.change(|state| {
                self.answers(state, device, &vendor, name)?;
                effect(state).map_err(|refusal| refusal.told(&vendor, name))
            })
        })
    }

    /// A vendor call about a card that only looks.
    pub(crate) fn look<R>(
        &self,
        name: &str,
        device: &DeviceId,
        look: impl FnOnce(&State, &Card) -> Result<R, Refusal>,
    ) -> Result<R, Stop> {
        let vendor = self.vendor_of(device)?;
        self.around(name, Some(device), &vendor, || {
            self.machine.read(|state| {
                self.answers(state, device, &vendor, name)?;
                look(state, state.card(device)?).map_err(|refusal| refusal.told(&vendor, name))
            })?
        })
    }

    /// A look that is no vendor call of its own: what a library already has in memory.
    pub(crate) fn peek<R>(
        &self,
        device: &DeviceId,
        look: impl FnOnce(&State, &Card) -> Result<R, Refusal>,
    ) -> Result<R, Stop> {
        let vendor = self.vendor_of(device)?;
        let name = vendor::reads_card(&vendor);
        Ok(self.machine.read(|state| {
            self.answers(state, device, &vendor, name)?;
            look(state, state.card(device)?).map_err(|refusal| refusal.told(&vendor, name))
        })??)
    }

    /// A vendor call about no card.
    pub(crate) fn ask<R>(&self, name: &str, look: impl FnOnce(&State) -> R) -> Result<R, Stop> {
        self.around(name, None, &self.vendor, || {
            self.machine.read(|state| {
                self.same_driver(state, &self.vendor, name)?;
                Ok(look(state))
            })?
        })
    }

    /// The vendor call of that purpose, as the card's vendor names it.
    pub(crate) fn named(
        &self,
        device: &DeviceId,
        name: fn(&Vendor) -> &'static str,
    ) -> Result<&'static str> {
        self.vendor_of(device).map(|vendor| name(&vendor))
    }

    /// The error as the operation tells it.
    pub(crate) fn failed(&self, stop: impl Into<Error>) -> Error {
        let error: Error = stop.into();
        error.during(self.op.into())
    }

    fn around<R>(
        &self,
        name: &str,
        device: Option<&DeviceId>,
        vendor: &Vendor,
        effect: impl FnOnce() -> Result<R>,
    ) -> Result<R, Stop> {
        let here = |moment| Here { op: self.op, call: Some(name), device, moment };
        self.machine.play(here(Moment::Before), vendor)?;
        let result = effect()?;
        self.machine.play(here(Moment::After), vendor)?;
        Ok(result)
    }

    /// Whose library a call about this card goes to.
    fn vendor_of(&self, device: &DeviceId) -> Result<Vendor> {
        self.machine.read(|state| state.card(device).map(Card::vendor))?
    }

    fn answers(&self, state: &State, device: &DeviceId, vendor: &Vendor, call: &str) -> Result<()> {
        self.same_driver(state, vendor, call)?;
        match &state.card(device)?.lost {
            Some(why) => {
                Err(vendor::refuse(vendor, call, ErrorKind::Lost, why).with("device", device))
            }
            None => Ok(()),
        }
    }

    fn same_driver(&self, state: &State, vendor: &Vendor, call: &str) -> Result<()> {
        if state.driver == self.driver {
            return Ok(());
        }
        let why = "the driver was replaced under the library; a new process must load the new one";
        Err(vendor::refuse(vendor, call, ErrorKind::DriverReplaced, why))
    }
}

/// A driver's no.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// With the code for this kind.
    No(ErrorKind, String),
    /// An error of ours.
    Ours(Error),
}

impl Refusal {
    /// A no of this kind.
    pub(crate) fn no(kind: ErrorKind, why: impl Into<String>) -> Self {
        Self::No(kind, why.into())
    }

    /// No part of that name.
    pub(crate) fn no_part(id: &PartitionId) -> Self {
        Self::no(ErrorKind::NotFound, format!("there is no part {id}; list the card's parts again"))
    }

    fn told(self, vendor: &Vendor, call: &str) -> Error {
        match self {
            Self::No(kind, why) => vendor::refuse(vendor, call, kind, &why),
            Self::Ours(error) => error,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

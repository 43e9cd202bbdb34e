//! Cards by PCI address, read afresh from the host's own files; ROCm SMI for what those leave out.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vgpu_backend_kit::{HostTree, pci_folder};
use vgpu_core::{Bytes, DeviceId, Error, ErrorKind, Lost, Result};

use crate::kfd::{self, KfdNode};
use crate::smi::Smi;
use crate::{convert, host, models};

/// The cards of a host.
#[derive(Debug, Clone)]
pub(crate) struct Cards {
    pub(crate) tree: HostTree,
    pub(crate) smi: Option<Smi>,
    known: Known,
}

/// The names of the cards that answered since the process started, so that one that fell off the bus
/// is told as lost and not as unknown.
pub(crate) type Known = Arc<Mutex<BTreeSet<DeviceId>>>;

/// A card that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Card {
    pub(crate) id: DeviceId,
    pub(crate) model: String,
    pub(crate) numa: Option<u32>,
    pub(crate) memory: Bytes,
    /// `None` where nobody tells: then its units cannot be handed out.
    pub(crate) units: Option<NonZeroU32>,
    pub(crate) kfd: KfdNode,
}

impl Card {
    /// Its PCI address.
    pub(crate) fn address(&self) -> &str {
        self.id.as_str()
    }

    /// Whole MiB of its memory: the unit of every quota.
    pub(crate) fn mib(&self) -> u64 {
        self.memory.0 >> 20
    }
}

impl Cards {
    pub(crate) fn new(tree: HostTree, smi: Option<Smi>, known: Known) -> Self {
        Self { tree, smi, known }
    }

    /// Every card with those that do not answer, in the order of their addresses.
    pub(crate) fn look(&self) -> (Vec<Card>, Vec<Lost>) {
        let nodes = kfd::nodes(&self.tree);
        let (mut found, mut lost) = (Vec::new(), Vec::new());
        let present = host::cards(&self.tree);
        for address in &present {
            match self.read(address, &nodes) {
                Ok(card) => {
                    self.known().insert(card.id.clone());
                    found.push(card);
                }
                Err(reason) => lost.push(Lost { name: address.clone(), reason }),
            }
        }
        for id in self.known().iter().filter(|id| !present.iter().any(|a| a == id.as_str())) {
            lost.push(Lost { name: id.to_string(), reason: gone(id) });
        }
        (found, lost)
    }

    /// One card.
    ///
    /// # Errors
    /// `NotFound` for one that never was there, `Lost`.
    pub(crate) fn find(&self, id: &DeviceId) -> Result<Card> {
        if self.is_present(id) {
            let node = kfd::find(&self.tree, id.as_str());
            let card = self.read(id.as_str(), node.as_slice())?;
            self.known().insert(card.id.clone());
            return Ok(card);
        }
        if self.known().contains(id) {
            return Err(gone(id));
        }
        Err(Error::new(ErrorKind::NotFound, format!("there is no Hygon card {id}; scan again")))
    }

    /// Whether the PCI bus has it.
    pub(crate) fn is_present(&self, id: &DeviceId) -> bool {
        host::has_card(&self.tree, id.as_str())
    }

    /// The board's serial as it stands there: letters, digits, or nothing. It names no card; an
    /// administrator finds the board by it.
    pub(crate) fn serial(&self, address: &str) -> Option<String> {
        let own = self.tree.text(pci_folder(address).join("serial_number")).ok();
        let told = || {
            let smi = self.smi.as_ref()?;
            smi.read(address, |smi, index| smi.serial(index)).ok()?
        };
        let serial = own.filter(|s| !s.is_empty()).or_else(told)?;
        let plain = serial.trim();
        let unset = plain.is_empty() || plain.eq_ignore_ascii_case("n/a");
        (!unset).then(|| plain.chars().filter(|c| !c.is_control()).take(64).collect())
    }

    /// Memory in use in bytes, where it is told.
    ///
    /// # Errors
    /// Whatever reading it says, apart from "there is no such reading".
    pub(crate) fn memory_used(&self, card: &Card) -> Result<Option<u64>> {
        self.reading(card, "mem_info_vram_used", |smi, index| smi.memory_used(index))
    }

    /// Busy share in percent, where it is told.
    ///
    /// # Errors
    /// As [`Cards::memory_used`].
    pub(crate) fn busy_percent(&self, card: &Card) -> Result<Option<u64>> {
        self.reading(card, "gpu_busy_percent", |smi, index| smi.busy_percent(index).map(u64::from))
    }

    /// A number of sysfs, else of ROCm SMI.
    fn reading(
        &self,
        card: &Card,
        file: &str,
        read: impl FnOnce(
            &dyn crate::api::RocmSmi,
            u32,
        ) -> std::result::Result<u64, crate::api::CallFailure>,
    ) -> Result<Option<u64>> {
        let number = self.tree.number(pci_folder(card.address()).join(file));
        let (None, Some(smi)) = (number, &self.smi) else {
            return Ok(number);
        };
        match smi.read(card.address(), read) {
            Ok(told) => Ok(told),
            Err(failure) if convert::is_unsupported(&failure) => Ok(None),
            Err(failure) => Err(convert::error(&failure).with("device", &card.id)),
        }
    }

    fn read(&self, address: &str, nodes: &[KfdNode]) -> Result<Card> {
        let id = DeviceId::new(address)?;
        let folder = pci_folder(address);
        let Some(node) = nodes.iter().find(|node| node.address == address) else {
            let why = format!(
                "{address} is on the PCI bus and the compute driver does not have it; \
                 load hycu or hydcu, and see the kernel log for a reset that failed"
            );
            return Err(Error::new(ErrorKind::Lost, why).with_serial(self.serial(address)));
        };
        let total = self.tree.number(folder.join("mem_info_vram_total"));
        let smi = |read: fn(&dyn crate::api::RocmSmi, u32) -> _| {
            let smi = self.smi.as_ref()?;
            smi.read(address, read).ok()?
        };
        let memory = total.or(node.memory).or_else(|| smi(|smi, index| smi.memory_total(index)));
        let Some(memory) = memory.filter(|m| m >> 20 > 0) else {
            let why = format!("{address} tells no memory, so that nothing of it can be handed out");
            return Err(Error::new(ErrorKind::Lost, why).with_serial(self.serial(address)));
        };
        let device = self.tree.hex(folder.join("device")).unwrap_or(0);
        let told = || smi(|smi, index| smi.compute_units(index).map(u64::from));
        let units = node.compute_units.or_else(|| u32::try_from(told()?).ok().filter(|n| *n > 0));
        Ok(Card {
            model: models::name(device),
            numa: self.tree.number(folder.join("numa_node")),
            memory: Bytes(memory),
            units: units.or_else(|| models::compute_units(device)).and_then(NonZeroU32::new),
            kfd: node.clone(),
            id,
        })
    }

    fn known(&self) -> MutexGuard<'_, BTreeSet<DeviceId>> {
        // A set of names is whole after every statement, so a panic elsewhere does not spoil it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

trait WithSerial {
    fn with_serial(self, serial: Option<String>) -> Self;
}

impl WithSerial for Error {
    fn with_serial(self, serial: Option<String>) -> Self {
        match serial {
            Some(serial) => self.with("serial", serial),
            None => self,
        }
    }
}

fn gone(id: &DeviceId) -> Error {
    let why = format!("{id} is not on the PCI bus any more; see the kernel log, or seat it again");
    Error::new(ErrorKind::Lost, why)
}

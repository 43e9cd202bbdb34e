//! Which card has which number: the library counts cards of every vendor in an order of its own, we
//! name them by PCI address.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::api::{CallFailure, RocmSmi};

/// ROCm SMI, and the numbers of the cards seen in it.
///
/// No lock is held over a call of the library: one card's call that never returns must not stop
/// another's.
#[derive(Debug, Clone)]
pub(crate) struct Smi {
    pub(crate) api: Arc<dyn RocmSmi>,
    known: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl Smi {
    pub(crate) fn new(api: Arc<dyn RocmSmi>) -> Self {
        Self { api, known: Arc::default() }
    }

    /// The card's number now, checked against the card itself; `None` if the library has none.
    pub(crate) fn index(&self, address: &str) -> Result<Option<u32>, CallFailure> {
        let before = self.known().get(address).copied();
        if let Some(index) = before
            && self.api.pci_address(index).is_ok_and(|found| found == address)
        {
            return Ok(Some(index));
        }
        for index in 0..self.api.device_count()? {
            // One that does not say where it is, is not the one.
            if self.api.pci_address(index).is_ok_and(|found| found == address) {
                self.known().insert(address.to_owned(), index);
                return Ok(Some(index));
            }
        }
        self.known().remove(address);
        Ok(None)
    }

    /// The address of the card with this number.
    pub(crate) fn address(&self, index: u32) -> Option<String> {
        self.api.pci_address(index).ok()
    }

    /// A reading of the card at `address`; `None` where the library has no such card.
    pub(crate) fn read<T>(
        &self,
        address: &str,
        read: impl FnOnce(&dyn RocmSmi, u32) -> Result<T, CallFailure>,
    ) -> Result<Option<T>, CallFailure> {
        match self.index(address)? {
            Some(index) => read(&*self.api, index).map(Some),
            None => Ok(None),
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, u32>> {
        // A map of numbers is whole after every statement, so a panic elsewhere does not spoil it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

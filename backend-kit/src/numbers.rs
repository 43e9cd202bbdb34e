//! Which card has which number: a library counts cards, we name them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vgpu_core::DeviceId;

/// The names of the cards that answered, by their last number.
///
/// It lives as long as the loaded library, so that a backend that is opened anew still knows a card
/// that has fallen off meanwhile.
#[derive(Debug, Default)]
pub struct CardNumbers {
    known: Mutex<BTreeMap<u32, DeviceId>>,
}

impl CardNumbers {
    /// The number that a card had last; the library may have given it to another since.
    pub fn number_of(&self, id: &DeviceId) -> Option<u32> {
        self.known().iter().find(|(_, known)| *known == id).map(|(number, _)| *number)
    }

    /// The card that had this number last, else the one that `ask` says has it, so that a card in
    /// trouble is not asked.
    pub fn name_of(&self, number: u32, ask: impl FnOnce() -> Option<DeviceId>) -> Option<DeviceId> {
        let before = self.known().get(&number).cloned();
        before.or_else(|| {
            // Not under the lock: one card's call that never returns must not stop another's.
            let id = ask()?;
            self.remember(number, &id);
            Some(id)
        })
    }

    /// Notes that a card answered under this number; it had no other then.
    pub fn remember(&self, number: u32, id: &DeviceId) {
        let mut known = self.known();
        known.retain(|before, name| *before == number || name != id);
        known.insert(number, id.clone());
    }

    /// Every card that ever answered, by its last number.
    pub fn all(&self) -> BTreeMap<u32, DeviceId> {
        self.known().clone()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<u32, DeviceId>> {
        // A map of names is whole after every statement, so a panic elsewhere does not spoil it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_has_one_number_and_a_number_one_card() {
        let id = |name: &str| DeviceId::new(name).expect("a good name");
        let numbers = CardNumbers::default();
        numbers.remember(0, &id("a"));
        numbers.remember(1, &id("b"));
        numbers.remember(2, &id("a"));
        assert_eq!((numbers.number_of(&id("a")), numbers.number_of(&id("c"))), (Some(2), None));
        assert_eq!(numbers.name_of(1, || panic!("it is known")), Some(id("b")));
        assert_eq!(numbers.name_of(0, || None), None);
        assert_eq!(numbers.name_of(0, || Some(id("b"))), Some(id("b")));
        assert_eq!(numbers.all(), BTreeMap::from([(0, id("b")), (2, id("a"))]));
    }
}

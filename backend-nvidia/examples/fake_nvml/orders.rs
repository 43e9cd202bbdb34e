//! What happens to a machine besides our own calls: another tool, a mishap, a reset, a reboot.

use std::sync::Arc;

use serde::Deserialize;

use crate::mig::MigState;
use crate::scenario::Card;
use crate::world::World;

/// One thing that happens once.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    /// Each is carried out once.
    pub(crate) id: String,
    /// Whose card; all for `fresh` and `reboot`.
    #[serde(default)]
    card: u32,
    #[serde(rename = "do")]
    what: What,
    /// A profile's name without the vendor's `MIG `.
    #[serde(default)]
    profile: String,
    /// The first slice.
    #[serde(default)]
    slice: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum What {
    /// Everything is as the scenario says.
    Fresh,
    /// Another tool makes a GPU instance and no compute instance.
    Half,
    /// Another tool makes an instance.
    Make,
    /// The machine is booted anew.
    Reboot,
    /// The card is reset.
    Reset,
    /// An instance is gone, whoever held it.
    Vanish,
}

/// Carries out what was not carried out yet, by whatever process.
pub(crate) fn carry_out(world: &mut World) {
    let (orders, cards) = (world.orders().to_vec(), world.cards().to_vec());
    if orders.is_empty() {
        return;
    }
    let outcome = world.mig(|state| {
        for order in &orders {
            if state.done.insert(order.id.clone()) {
                order.carry_out(state, &cards);
            }
        }
    });
    if outcome.is_err() {
        eprintln!("fake_nvml: the control file's orders are not carried out");
    }
}

impl Order {
    fn carry_out(&self, state: &mut MigState, cards: &[Arc<Card>]) {
        let index = self.card;
        match self.what {
            What::Fresh => state.cards.clear(),
            What::Make | What::Half => {
                if let Err(code) = self.make(state, cards) {
                    eprintln!("fake_nvml: order {} fails with {code}", self.id);
                }
            }
            What::Reboot => {
                for (index, card) in (0_u32..).zip(cards) {
                    state.reset(index, card);
                }
            }
            What::Reset => {
                if let Some(card) = cards.get(index as usize) {
                    state.reset(index, card);
                }
            }
            What::Vanish => {
                let found = state.instances(index).iter().find(|i| i.start == self.slice);
                if let Some(id) = found.map(|i| i.id) {
                    state.remove(index, id);
                }
            }
        }
    }

    fn make(&self, state: &mut MigState, cards: &[Arc<Card>]) -> Result<(), u32> {
        let card = cards.get(self.card as usize).ok_or(crate::abi::INVALID_ARGUMENT)?;
        let table = card.profiles();
        let named = |name: &str| name.strip_prefix("MIG ").unwrap_or(name) == self.profile;
        let profile = table.iter().find(|p| named(&p.name)).ok_or(crate::abi::INVALID_ARGUMENT)?;
        let place = profile.places.iter().find(|(start, _)| *start == self.slice);
        let place = *place.ok_or(crate::abi::INVALID_ARGUMENT)?;
        let id = state.create(self.card, card, profile, place)?;
        if self.what == What::Make {
            let spanning = crate::mig::COMPUTE_SLICES.iter().position(|n| *n == profile.slices);
            let spanning = spanning.and_then(|at| u32::try_from(at).ok()).unwrap_or(0);
            state.create_compute(self.card, card, id, spanning)?;
        }
        Ok(())
    }
}

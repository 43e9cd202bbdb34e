//! Memory units on several cards behind one countable resource.
//!
//! A stock scheduler knows only a sum. If it admits a request because the sum is large enough, the
//! request must fit on **one** card, whichever cards earlier requests took. [`advertise`] tells how
//! many free units may be told so that this holds; the rest is reported Unhealthy.
//!
//! # Why the number is right
//! Card *i* has `fᵢ` free units and room for `rᵢ` more requests, each of `s` to `m` units. Suppose a
//! request of `n` finds no card after others took `T` units, all admitted by the sum `V`, so
//! `T ≤ V − n`. Every card then has fewer than `n` units left, or no request left: it gave at least
//! `gᵢ(n) = min(fᵢ − n + 1, s·rᵢ)` (0 if negative) units. So `T ≥ Σ gᵢ(n)`. Hence with
//! `V ≤ n − 1 + Σ gᵢ(n)` for every `n` from `s` to `m` no admitted request fails, and the minimum over
//! `n` is the largest such `V`. For unlimited requests it is `m − 1 + Σ max(0, fᵢ − m + 1)` once a
//! request of `m` fits somewhere, which is never less than `max(max fᵢ, Σ fᵢ − k·(m − 1))`.
//!
//! A sum that was true before some units were given stays true afterwards (`V` never falls by more
//! than was given), so a scheduler that acts on an old sum does no harm either.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::plan::{Held, pack};
use crate::scheme::{Range, SchemeInfo};
use crate::size::{Bytes, ComputeShare, Size};

/// What a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Memory of one unit.
    pub memory: Bytes,
    /// What compute goes with it.
    pub compute: UnitCompute,
}

/// What compute goes with memory units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitCompute {
    /// No compute limit.
    None,
    /// The same share of compute as of memory, rounded down to the grid.
    #[default]
    Proportional,
}

/// What one card can still give.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardRoom {
    /// Units that one request could get.
    pub units: u64,
    /// Further requests that the card can take: slots, profiles. `None` = as many as units.
    pub requests: Option<u64>,
}

/// The sizes that a request may have, in units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// The least; at least 1.
    pub smallest: u64,
    /// The most.
    pub largest: u64,
}

impl Unit {
    /// How many units an empty card has.
    pub fn total(&self, device: &Device) -> u64 {
        device.memory.0.checked_div(self.memory.0).unwrap_or(0)
    }

    /// The size of a part of `units` on `device`.
    ///
    /// # Errors
    /// A sentence, where a single unit would be less than the scheme's grid allows: the unit is too
    /// small for this card.
    pub fn size(&self, device: &Device, range: &Range, units: u64) -> Result<Size, String> {
        let total = self.total(device);
        if units == 0 || units > total {
            return Err(format!("{units} units of {} are not on a card of {total}", self.memory));
        }
        let memory = Bytes(self.memory.0 * units);
        if let Some(grid) = range.memory
            && !grid.has(self.memory)
        {
            let (step, min) = (grid.step, grid.min);
            return Err(format!(
                "a unit of {} is not a multiple of {step} from {min}; choose such a unit",
                self.memory
            ));
        }
        let Some(grid) = range.compute.filter(|_| self.compute == UnitCompute::Proportional) else {
            return Ok(Size { compute: None, memory: Some(memory) });
        };
        // Rounded down, so that the shares of all units together never exceed the card.
        let step = u64::from(grid.step.get());
        let share = |units: u64| units * u64::from(grid.of.get()) / total / step * step;
        if share(1) < u64::from(grid.min).max(1) {
            return Err(format!(
                "one unit of {total} is less than the least compute share {}/{}; \
                 choose a larger unit",
                grid.min.max(1),
                grid.of
            ));
        }
        let units = u32::try_from(share(units)).map_err(|e| format!("compute overflows: {e}"))?;
        Ok(Size { compute: Some(ComputeShare { units, of: grid.of }), memory: Some(memory) })
    }

    /// What a card in the scheme's mode can still give.
    ///
    /// `held` is all that is taken on it; anything under another scheme closes the card.
    pub fn room(
        &self,
        device: &Device,
        info: &SchemeInfo,
        held: &[&Held],
        bounds: Bounds,
    ) -> CardRoom {
        let none = CardRoom { units: 0, requests: Some(0) };
        let Some(range) = info.range() else { return none };
        if held.iter().any(|h| h.scheme != info.scheme) || self.memory.0 == 0 {
            return none;
        }
        let has_units = self.compute == UnitCompute::Proportional && range.compute.is_some();
        if pack::mixes(info, held, has_units) {
            return none;
        }
        let taken: u64 = held.iter().filter_map(|h| h.size.memory).map(|m| m.0).sum();
        let by_memory = device.memory.0.saturating_sub(taken) / self.memory.0;
        let busy: u64 =
            held.iter().filter_map(|h| h.size.compute).map(|c| u64::from(c.units)).sum();
        let fits = |units: u64| match self.size(device, range, units) {
            Ok(Size { compute: Some(c), .. }) => busy + u64::from(c.units) <= c.of.get().into(),
            Ok(_) => true,
            Err(_) => false,
        };
        // Larger requests need more on every axis: the answer is where `fits` turns false.
        let (mut low, mut high) = (0, by_memory.min(self.total(device)));
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if fits(middle) { low = middle } else { high = middle - 1 }
        }
        let slots = info.max.map(|max| u64::from(max.get()).saturating_sub(held.len() as u64));
        let requests =
            [slots, sizes_left(self, device, range, held, bounds)].into_iter().flatten().min();
        CardRoom { units: if requests == Some(0) { 0 } else { low }, requests }
    }
}

/// How many requests of new sizes the card takes; `None` where every allowed size may live at once,
/// beside the sizes that live already.
fn sizes_left(
    unit: &Unit,
    device: &Device,
    range: &Range,
    held: &[&Held],
    bounds: Bounds,
) -> Option<u64> {
    let max = u64::from(range.distinct?.get());
    let living: BTreeSet<String> = held.iter().map(|h| h.size.to_string()).collect();
    let allowed = bounds.largest.saturating_sub(bounds.smallest).saturating_add(1);
    let left = max.saturating_sub(living.len() as u64);
    if allowed > max {
        return Some(left);
    }
    let sizes = (bounds.smallest..=bounds.largest).filter_map(|n| unit.size(device, range, n).ok());
    let all: BTreeSet<String> = sizes.map(|s| s.to_string()).chain(living).collect();
    (all.len() as u64 > max).then_some(left)
}

/// How many free units may be told to a scheduler that knows only their sum.
pub fn advertise(cards: &[CardRoom], bounds: Bounds) -> u64 {
    let free: u64 = cards.iter().map(|c| c.units).sum();
    let smallest = bounds.smallest.max(1);
    let gave = |card: &CardRoom, n: u64| {
        let units = (card.units + 1).saturating_sub(n);
        match card.requests {
            Some(requests) => units.min(requests.saturating_mul(smallest)),
            None => units,
        }
    };
    // Beyond the largest card every request fails, so `n` needs to go one past it at the most.
    let top = cards.iter().map(|c| c.units).max().unwrap_or(0) + 1;
    let most = (smallest..=bounds.largest.min(top))
        .map(|n| (n - 1).saturating_add(cards.iter().map(|c| gave(c, n)).sum()))
        .min()
        .unwrap_or(0)
        .min(free);
    // A sum that admits not even the smallest request would only mislead.
    if most < smallest { 0 } else { most }
}

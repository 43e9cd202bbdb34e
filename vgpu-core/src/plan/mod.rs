//! From a request to fully decided orders. Pure: no clock, no I/O, the same answer for the same input.

mod fit;
mod held;
pub mod layout;
mod pack;
mod refusal;
mod request;
mod sizes;
pub mod units;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::device::{Device, Link};
use crate::id::DeviceId;
use crate::order::{CreateOrder, ModeOrder, Target};
use crate::scheme::SchemeInfo;

pub use held::Held;
pub use refusal::{Reason, Refusal, Why};
pub use request::{Modes, Policy, Request, Selector, Want};
pub use sizes::Sizes;

/// What a plan is made over: one node's cards and how near they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Cards that may be used.
    pub devices: Vec<Device>,
    /// Known links; a missing pair scores 0.
    #[serde(default)]
    pub links: Vec<Link>,
}

impl Inventory {
    /// Makes the cards what they are once a mode was entered.
    pub fn enter(&mut self, order: &ModeOrder) {
        let cards = self.devices.iter_mut().filter(|device| device.id == order.device);
        let is_it = |info: &&mut SchemeInfo| order.scheme.as_ref() == Some(&info.scheme);
        for info in cards.flat_map(|device| &mut device.schemes).filter(is_it) {
            info.mode.active = true;
            // Where no mode serves a domain, what is held says whose neighbourhood it is.
            if info.mode.domain.is_some() {
                info.mode.domain.clone_from(&order.domain);
            }
        }
    }
}

/// One device's part of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The card.
    pub device: DeviceId,
    /// The card's mode is to be changed first.
    pub mode: Option<ModeOrder>,
    /// What to do then.
    pub step: Step,
}

/// What to do for one grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Make this part first.
    Carve(CreateOrder),
    /// Nothing to make.
    Share(Target),
}

/// Decides one request: `count` different cards, each with what was asked.
///
/// The cards are chosen by the policy; where several are asked for, each next one is the one nearest
/// to those already chosen.
///
/// # Errors
/// A [`Refusal`] with one reason for every card, and nothing decided.
pub fn plan(
    inventory: &Inventory,
    held: &[Held],
    request: &Request,
    policy: Policy,
) -> Result<Vec<Assignment>, Refusal> {
    let mut reasons = Vec::new();
    let mut fits: Vec<(&Device, usize, Assignment)> = Vec::new();
    for device in &inventory.devices {
        let mine: Vec<&Held> = held.iter().filter(|h| h.device == device.id).collect();
        match fit::on(device, &mine, request) {
            Ok(assignment) => fits.push((device, fullness(device, &mine), assignment)),
            Err(why) => reasons.push(Reason { device: device.id.clone(), why }),
        }
    }
    if request.count == 0 {
        return Err(Refusal::of_request("count is 0; ask for at least one card"));
    }
    if fits.len() < request.count {
        let asked = request.count;
        return Err(Refusal { asked, found: fits.len(), reasons, request: None });
    }
    fits.sort_by(|a, b| {
        let order = a.1.cmp(&b.1);
        let order = if policy == Policy::Binpack { order.reverse() } else { order };
        order.then_with(|| a.0.id.cmp(&b.0.id))
    });
    Ok(nearest(inventory, fits, request.count))
}

/// Decides several requests one after the other, each seeing what the earlier ones take, and the modes that are entered
/// for them.
///
/// # Errors
/// The index of the first request that is refused, with its refusal; nothing is decided then.
pub fn plan_all(
    inventory: &Inventory,
    held: &[Held],
    requests: &[Request],
    policy: Policy,
) -> Result<Vec<Vec<Assignment>>, (usize, Refusal)> {
    let mut inventory = Cow::Borrowed(inventory);
    let mut held = held.to_vec();
    let mut answers = Vec::new();
    for (i, request) in requests.iter().enumerate() {
        let answer = plan(&inventory, &held, request, policy).map_err(|refusal| (i, refusal))?;
        for assignment in &answer {
            let device = inventory.devices.iter().find(|d| d.id == assignment.device);
            held.extend(device.and_then(|d| Held::of(d, &assignment.step, &request.domain)));
            if let Some(order) = &assignment.mode {
                inventory.to_mut().enter(order);
            }
        }
        answers.push(answer);
    }
    Ok(answers)
}

/// How full a card is, in parts per million of its memory, else by the number of its claims.
fn fullness(device: &Device, held: &[&Held]) -> usize {
    let taken: u128 = held.iter().map(|h| u128::from(h.memory_on(device).0)).sum();
    let ppm = taken * 1_000_000 / u128::from(device.memory.0.max(1));
    usize::try_from(ppm).unwrap_or(usize::MAX).saturating_add(held.len())
}

fn nearest(
    inventory: &Inventory,
    fits: Vec<(&Device, usize, Assignment)>,
    count: usize,
) -> Vec<Assignment> {
    let score = |a: &DeviceId, b: &DeviceId| {
        let joins = |l: &&Link| (l.a == *a && l.b == *b) || (l.a == *b && l.b == *a);
        inventory.links.iter().find(joins).map_or(0, Link::score)
    };
    let mut left: Vec<Assignment> = fits.into_iter().map(|(_, _, a)| a).collect();
    let mut chosen: Vec<Assignment> = Vec::with_capacity(count);
    while chosen.len() < count {
        let near = |a: &Assignment| -> u64 {
            chosen.iter().map(|c| u64::from(score(&c.device, &a.device))).sum()
        };
        // `left` is in the policy's order; the first of the nearest wins.
        let best = (0..left.len()).rev().max_by_key(|&i| near(&left[i]));
        chosen.push(left.remove(best.expect("there are at least `count` fits")));
    }
    chosen
}

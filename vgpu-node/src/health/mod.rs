//! Which cards and parts may be handed out: from readings and events to a state, with hysteresis.
//!
//! Pure: no clock, no driver. `now` is the time since the node's start.

mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use vgpu_core::health::{Event, Meaning, Subject};
use vgpu_core::id::{DeviceId, PartitionId};

use record::Record;

/// How much it takes to lose and to win trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthOptions {
    /// So many doubtful readings, without recovery between them, make a card unhealthy.
    pub suspect_hits: u32,
    /// So many good readings in a row win trust back,
    pub recover_hits: u32,
    /// but not before so much time has passed since the last bad one.
    pub recover_after: Duration,
}

impl Default for HealthOptions {
    /// 2 doubtful readings; 2 good ones and 10 s.
    fn default() -> Self {
        Self { suspect_hits: 2, recover_hits: 2, recover_after: Duration::from_secs(10) }
    }
}

/// How a card or part is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// May be handed out.
    Healthy,
    /// Was unhealthy, or was never read; the last readings are good, but not yet enough. Not handed
    /// out.
    Recovering {
        /// What was wrong.
        cause: String,
        /// Since when it is.
        since: Duration,
        /// Good readings so far.
        good: u32,
    },
    /// Watched. Handed out, unless its lane is shut ([`HealthPolicy::suspect`]).
    Suspect {
        /// What was seen.
        cause: String,
        /// Since when it is.
        since: Duration,
    },
    /// Not handed out.
    Unhealthy {
        /// What is wrong.
        cause: String,
        /// Since when it is.
        since: Duration,
        /// What it takes before good readings can come.
        needs: Needs,
    },
}

/// What an unhealthy card or part is waiting for. Whether it happened is told by good readings
/// alone, so that recovery needs no hand on the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Needs {
    /// Nothing but good readings.
    Time,
    /// A reset of the card.
    Reset,
    /// A reboot of the node.
    Reboot,
    /// That it answers again.
    Return,
    /// A new process of the agent.
    Restart,
}

/// A state that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// Whose: a card (and with it everything on it) or one part.
    pub subject: Subject,
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: State,
}

/// The states of all cards and parts.
#[derive(Debug, Clone)]
pub struct HealthPolicy {
    options: HealthOptions,
    cards: BTreeMap<DeviceId, Card>,
}

#[derive(Debug, Clone)]
struct Card {
    own: Record,
    /// Parts about which something bad was told.
    parts: BTreeMap<PartitionId, Record>,
}

impl HealthPolicy {
    /// Nothing is known yet: a card is handed out from its first good reading on.
    pub fn new(options: HealthOptions) -> Self {
        Self { options, cards: BTreeMap::new() }
    }

    /// Takes a reading or event.
    ///
    /// A good one about a card counts for its parts too, since not every driver tells parts apart;
    /// a bad one about a part concerns no other part. Those about the whole vendor or about a
    /// tenant's share name no card's fault and change nothing.
    pub fn observe(&mut self, now: Duration, event: &Event) -> Vec<Transition> {
        let (device, part) = match &event.subject {
            Subject::Device(device) => (device.clone(), None),
            Subject::Part(part) => (part.device(), Some(part)),
            Subject::Cgroup(..) | Subject::Vendor => return Vec::new(),
        };
        if matches!(event.meaning, Meaning::Changed | Meaning::TenantFault) {
            return Vec::new();
        }
        let (meaning, cause) = (event.meaning, &event.cause);
        self.with(&device, now, |card, options| match part {
            None => {
                card.own.read(now, meaning, cause, options);
                if meaning == Meaning::Good {
                    card.parts.values_mut().for_each(|p| p.read(now, meaning, cause, options));
                }
            }
            Some(part) if meaning == Meaning::Good => {
                if let Some(record) = card.parts.get_mut(part) {
                    record.read(now, meaning, cause, options);
                }
            }
            Some(part) => {
                let record = card.parts.entry(part.clone()).or_insert_with(Record::healthy);
                record.read(now, meaning, cause, options);
            }
        })
    }

    /// Lets time pass: what has had its good readings is healthy once it has waited long enough.
    pub fn tick(&mut self, now: Duration) -> Vec<Transition> {
        let devices: Vec<DeviceId> = self.cards.keys().cloned().collect();
        let tick = |device| {
            self.with(device, now, |card, options| {
                card.own.tick(now, options);
                card.parts.values_mut().for_each(|p| p.tick(now, options));
            })
        };
        devices.iter().flat_map(tick).collect()
    }

    /// Takes that a card's lane is shut: a call on it does not return.
    ///
    /// Nothing is handed out on it until [`Self::unsuspect`], however good it reads.
    pub fn suspect(&mut self, now: Duration, device: &DeviceId, why: &str) -> Vec<Transition> {
        self.with(device, now, |card, _| card.own.shut(now, why))
    }

    /// Takes that a card's lane is open again; good readings do the rest.
    pub fn unsuspect(&mut self, now: Duration, device: &DeviceId) -> Vec<Transition> {
        self.with(device, now, |card, _| card.own.open(now))
    }

    /// Takes that the inventory has lost a card: nothing is handed out until [`Self::returned`],
    /// however good it reads.
    pub fn lost(&mut self, now: Duration, device: &DeviceId, why: &str) -> Vec<Transition> {
        self.with(device, now, |card, _| card.own.lose(now, why))
    }

    /// Takes that a lost card is listed again; good readings do the rest.
    pub fn returned(&mut self, now: Duration, device: &DeviceId) -> Vec<Transition> {
        self.with(device, now, |card, _| card.own.come_back(now))
    }

    /// Forgets what was told of a part that is no more; its id may be given to a new one.
    pub fn part_gone(&mut self, part: &PartitionId) {
        if let Some(card) = self.cards.get_mut(&part.device()) {
            card.parts.remove(part);
        }
    }

    /// How a card or part is, by itself; a container's share and a vendor as a whole are healthy.
    pub fn state(&self, subject: &Subject) -> State {
        match subject {
            Subject::Device(device) => self.card(device).state(),
            Subject::Part(part) => {
                let card = self.cards.get(&part.device());
                card.and_then(|c| c.parts.get(part)).map_or(State::Healthy, Record::state)
            }
            Subject::Cgroup(..) | Subject::Vendor => State::Healthy,
        }
    }

    /// Whether new work may be put on a card, or on one part of it. A card's state holds for every
    /// part on it, a part's for itself only.
    pub fn usable(&self, device: &DeviceId, part: Option<&PartitionId>) -> bool {
        let parts = self.cards.get(device).map(|card| &card.parts);
        let record = part.and_then(|part| parts?.get(part));
        self.card(device).usable() && record.is_none_or(Record::usable)
    }

    fn card(&self, device: &DeviceId) -> Record {
        self.cards.get(device).map_or_else(Record::unread, |card| card.own.clone())
    }

    fn with(
        &mut self,
        device: &DeviceId,
        now: Duration,
        change: impl FnOnce(&mut Card, &HealthOptions),
    ) -> Vec<Transition> {
        let options = &self.options;
        let new = || Card { own: Record::unread_since(now), parts: BTreeMap::new() };
        let card = self.cards.entry(device.clone()).or_insert_with(new);
        let before = card.clone();
        change(card, options);
        let mut transitions = Vec::new();
        let mut note = |subject, from: State, to: State| {
            if from != to {
                transitions.push(Transition { subject, from, to });
            }
        };
        note(Subject::Device(device.clone()), before.own.state(), card.own.state());
        for (part, record) in &card.parts {
            let from = before.parts.get(part).map_or(State::Healthy, Record::state);
            note(Subject::Part(part.clone()), from, record.state());
        }
        // A part that is healthy again is like one of which nothing was told.
        card.parts.retain(|_, record| record.state() != State::Healthy);
        transitions
    }
}

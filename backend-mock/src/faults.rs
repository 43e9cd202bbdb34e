//! Faults on demand: what can happen to a machine, played when a test says so.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vgpu_core::{
    Bytes, ClaimId, CreateOrder, DeviceId, Error, ErrorKind, Event, Holders, Meaning, Partition,
    PartitionId, PartitionState, Shape, Subject, Vendor,
};

use crate::Result;
use crate::carve;
use crate::machine::Machine;
use crate::script::{Action, At, Op, Rule};
use crate::state::{Condition, State};

/// Plays faults on a machine. Each takes effect at once, for all backends and all processes.
#[derive(Debug, Clone)]
pub struct Faults {
    machine: Arc<Machine>,
}

/// Names a rule; dropping it leaves the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleId(u64);

impl Faults {
    pub(crate) fn new(machine: Arc<Machine>) -> Self {
        Self { machine }
    }

    /// Adds a scripted fault on calls.
    ///
    /// # Errors
    /// As [`Machine::boot_id`], like all faults here.
    pub fn add(&self, mut rule: Rule) -> Result<RuleId> {
        self.machine.change(|state| {
            state.serial += 1;
            rule.id = state.serial;
            state.rules.push(rule.clone());
            Ok(RuleId(state.serial))
        })
    }

    /// Takes a scripted fault back; a call that hangs in it goes on.
    ///
    /// # Errors
    /// As [`Faults::add`].
    pub fn take_back(&self, rule: RuleId) -> Result<()> {
        self.machine.change(|state| {
            state.rules.retain(|r| r.id != rule.0);
            Ok(())
        })
    }

    /// Takes all scripted faults back; calls that hang go on.
    ///
    /// # Errors
    /// As [`Faults::add`].
    pub fn take_all_back(&self) -> Result<()> {
        self.machine.change(|state| {
            state.rules.clear();
            Ok(())
        })
    }

    /// The `n`th vendor call that the next `op` on a card makes fails.
    ///
    /// # Errors
    /// As [`Faults::add`].
    pub fn fail(&self, op: Op, device: &DeviceId, n: u32, kind: ErrorKind) -> Result<RuleId> {
        self.add(Rule::new(At::CallsOf(op), Action::Fail(kind)).on(device).nth(n))
    }

    /// The next `op` on a card stops after its `n`th vendor call, as if the process had died.
    ///
    /// # Errors
    /// As [`Faults::add`].
    pub fn crash(&self, op: Op, device: &DeviceId, n: u32) -> Result<RuleId> {
        self.add(Rule::new(At::CallsOf(op), Action::CrashAfter).on(device).nth(n))
    }

    /// The next vendor call of `op` on a card hangs until the rule is taken back.
    ///
    /// # Errors
    /// As [`Faults::add`].
    pub fn hang(&self, op: Op, device: &DeviceId) -> Result<RuleId> {
        self.add(Rule::new(At::CallsOf(op), Action::Hang).on(device))
    }

    /// Every vendor call of `op`, on any card, takes that long.
    ///
    /// # Errors
    /// As [`Faults::add`].
    pub fn slow(&self, op: Op, time: Duration) -> Result<RuleId> {
        self.add(Rule::new(At::CallsOf(op), Action::Latency(time)).times(None))
    }

    /// Whether the rule has hit all the calls that it was to hit; for one that hangs, whether a call
    /// hangs in it.
    ///
    /// # Errors
    /// As [`Faults::add`].
    pub fn has_hit(&self, rule: RuleId) -> Result<bool> {
        let spent = |r: &Rule| r.id == rule.0 && r.times != Some(0);
        self.machine.read(|state| !state.rules.iter().any(spent))
    }

    /// Whether a call hangs now in any rule.
    ///
    /// # Errors
    /// As [`Faults::add`].
    pub fn is_hanging(&self) -> Result<bool> {
        let hit = |r: &Rule| r.action == Action::Hang && r.times == Some(0);
        self.machine.read(|state| state.rules.iter().any(hit))
    }

    /// A card falls off the bus, with the event that its driver sends.
    ///
    /// # Errors
    /// `NotFound`, and as [`Faults::add`].
    pub fn lose(&self, device: &DeviceId) -> Result<()> {
        self.machine.change(|state| {
            let card = state.card_mut(device)?;
            card.lost = Some("the card has fallen off the bus".into());
            let (vendor, subject) = (card.vendor(), Subject::Device(device.clone()));
            let cause = if vendor == Vendor::NVIDIA { "xid 79" } else { "bus error" };
            state.events.push((vendor, Event::now(subject, Meaning::Lost, cause)));
            Ok(())
        })
    }

    /// The card comes back with what it held, with an event.
    ///
    /// # Errors
    /// `NotFound`, and as [`Faults::add`].
    pub fn restore(&self, device: &DeviceId) -> Result<()> {
        self.machine.change(|state| {
            let card = state.card_mut(device)?;
            card.lost = None;
            card.condition = None;
            let (vendor, subject) = (card.vendor(), Subject::Device(device.clone()));
            state.events.push((vendor, Event::now(subject, Meaning::Changed, "card came back")));
            Ok(())
        })
    }

    /// What serves the card's mode dies (an MPS daemon), and leaves all else as it is.
    ///
    /// # Errors
    /// `NotFound` for a card that the machine has not.
    pub fn kill_daemon(&self, device: &DeviceId) -> Result<()> {
        self.machine.change(|state| {
            let mode = state.card_mut(device)?.mode.as_mut();
            mode.into_iter().for_each(|mode| mode.dead = true);
            Ok(())
        })
    }

    /// `check` says this of a card or part from now on; `Good` makes it well again. No event.
    ///
    /// # Errors
    /// `NotFound`, and as [`Faults::add`].
    pub fn condition(&self, subject: &Subject, meaning: Meaning, cause: &str) -> Result<()> {
        let ill = Condition { meaning, cause: cause.to_owned() };
        let ill = Some(ill).filter(|c| c.meaning != Meaning::Good);
        self.machine.change(|state| {
            match subject {
                Subject::Part(id) => state.card_mut(&id.device())?.part_mut(id)?.condition = ill,
                Subject::Device(id) | Subject::Cgroup(id, _) => state.card_mut(id)?.condition = ill,
                Subject::Vendor => {
                    let why = "a condition is of a card or a part";
                    return Err(Error::new(ErrorKind::Invalid, why));
                }
            }
            Ok(())
        })
    }

    /// Queues an event, for the backend of the subject's vendor; about no card, for every vendor.
    ///
    /// # Errors
    /// `NotFound`, and as [`Faults::add`].
    pub fn event(&self, event: &Event) -> Result<()> {
        self.machine.change(|state| {
            let to: Vec<Vendor> = match event.subject.device() {
                Some(device) => vec![state.card(&device)?.vendor()],
                None => {
                    let mut all: Vec<Vendor> = state.cards.iter().map(|c| c.vendor()).collect();
                    all.sort();
                    all.dedup();
                    all
                }
            };
            state.events.extend(to.into_iter().map(|vendor| (vendor, event.clone())));
            Ok(())
        })
    }

    /// So many processes hold a card or part from now on.
    ///
    /// # Errors
    /// `NotFound`, and as [`Faults::add`].
    pub fn hold(&self, subject: &Subject, processes: u32) -> Result<()> {
        self.machine.change(|state| {
            match subject {
                Subject::Part(id) => {
                    let part = state.card_mut(&id.device())?.part_mut(id)?;
                    part.listed.holders = Holders::Processes(processes);
                }
                Subject::Device(id) | Subject::Cgroup(id, _) => {
                    state.card_mut(id)?.holders = processes;
                }
                Subject::Vendor => {
                    return Err(Error::new(ErrorKind::Invalid, "processes hold a card or a part"));
                }
            }
            Ok(())
        })
    }

    /// A part vanishes without a word, as when another tool destroys it.
    ///
    /// # Errors
    /// `NotFound`, and as [`Faults::add`].
    pub fn vanish(&self, part: &PartitionId) -> Result<()> {
        self.machine.change(|state| {
            let card = state.card_mut(&part.device())?;
            card.part(part)?;
            card.parts.retain(|p| p.listed.id != *part);
            Ok(())
        })
    }

    /// A container's memory limit changes from outside, or goes: another tool, or a driver loaded anew.
    ///
    /// # Errors
    /// `NotFound`, and as [`Faults::add`].
    pub fn limit(&self, device: &DeviceId, cgroup: &Path, memory: Option<Bytes>) -> Result<()> {
        self.machine.change(|state| {
            let limits = &mut state.card_mut(device)?.limits;
            let Some(at) = limits.iter().position(|limit| limit.cgroup == cgroup) else {
                let why = format!("no limit is set on {}", cgroup.display());
                return Err(Error::new(ErrorKind::NotFound, why));
            };
            match memory {
                Some(memory) => limits[at].memory = memory,
                None => drop(limits.remove(at)),
            }
            Ok(())
        })
    }

    /// Another tool makes a part there: one without our tag, and with the name `foreign` where the
    /// driver keeps names.
    ///
    /// # Errors
    /// As the order's own `create` would fail, and as [`Faults::add`].
    pub fn foreign(&self, order: &CreateOrder) -> Result<Partition> {
        self.plant(order, PartitionState::Complete, false)
    }

    /// A crash of long ago left half of a part there.
    ///
    /// # Errors
    /// As the order's own `create` would fail, and as [`Faults::add`].
    pub fn half(&self, order: &CreateOrder) -> Result<Partition> {
        self.plant(order, PartitionState::Half, true)
    }

    /// The driver refuses to use a part from now on.
    ///
    /// # Errors
    /// `NotFound`, and as [`Faults::add`].
    pub fn break_part(&self, part: &PartitionId) -> Result<()> {
        self.machine.change(|state| {
            let broken = state.card_mut(&part.device())?.part_mut(part)?;
            broken.listed.state = PartitionState::Broken;
            broken.condition =
                Some(Condition { meaning: Meaning::NeedsReset, cause: "refused by driver".into() });
            Ok(())
        })
    }

    /// The driver under all loaded libraries is replaced; only a new factory loads the new one.
    ///
    /// # Errors
    /// As [`Faults::add`].
    pub fn replace_driver(&self) -> Result<()> {
        self.machine.change(|state| {
            state.driver += 1;
            Ok(())
        })
    }

    /// Resets a card: a pending mode comes into effect, its parts are gone.
    ///
    /// # Errors
    /// `NotFound`, and as [`Faults::add`].
    pub fn reset(&self, device: &DeviceId) -> Result<()> {
        self.machine.change(|state| {
            let card = state.card_mut(device)?;
            if let Some(mode) = card.pending.take() {
                card.mode = mode;
            }
            card.parts.clear();
            card.sizes.clear();
            card.limits.clear();
            card.condition = None;
            card.holders = 0;
            Ok(())
        })
    }

    /// Reboots the machine: another boot id, and only what each driver keeps is left.
    ///
    /// # Errors
    /// As [`Faults::add`].
    pub fn reboot(&self) -> Result<()> {
        self.machine.change(|state| {
            state.reboot();
            Ok(())
        })
    }

    /// Remembers the machine as it is now, to come back to.
    ///
    /// # Errors
    /// As [`Faults::add`].
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.machine.read(|state| Snapshot(Box::new(state.clone())))
    }

    /// Makes the machine what it was; calls that hang go on, and no handle is given twice.
    ///
    /// # Errors
    /// As [`Faults::add`].
    pub fn rewind(&self, to: &Snapshot) -> Result<()> {
        self.machine.change(|state| {
            let serial = state.serial;
            *state = (*to.0).clone();
            state.serial = serial;
            Ok(())
        })
    }

    fn plant(&self, order: &CreateOrder, made: PartitionState, ours: bool) -> Result<Partition> {
        self.machine.change(|state| {
            if let (Shape::Size(size), true) =
                (order.shape(), *order.scheme() == vgpu_core::Scheme::SMLU)
            {
                let size = *size;
                carve::profile_of(state.card_mut(order.device())?, size).map_err(told)?;
            }
            let made = carve::add(state, order, made).map_err(told)?;
            if ours {
                return Ok(made);
            }
            rename(state, &made)
        })
    }
}

/// What a machine held at some time.
#[derive(Debug, Clone)]
pub struct Snapshot(Box<State>);

/// Gives a part the name of another tool, where the driver keeps names.
fn rename(state: &mut State, part: &Partition) -> Result<Partition> {
    let listed = &mut state.card_mut(&part.device)?.part_mut(&part.id)?.listed;
    if listed.tag.is_some() {
        listed.tag = Some(ClaimId::new("foreign")?);
    }
    Ok(listed.clone())
}

fn told(refusal: crate::session::Refusal) -> Error {
    match refusal {
        crate::session::Refusal::No(kind, why) => Error::new(kind, why),
        crate::session::Refusal::Ours(error) => error,
    }
}

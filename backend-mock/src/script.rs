//! Faults on calls: counted and scripted, never random.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vgpu_core::{DeviceId, ErrorKind};

/// An operation of the traits.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumIter,
    strum::EnumString,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Op {
    /// `Health::check`.
    Check,
    /// `Isolation::confine`.
    Confine,
    /// `Partitioner::create`.
    Create,
    /// `Partitioner::destroy`.
    Destroy,
    /// `Isolation::edits`.
    Edits,
    /// `Partitioner::partitions`.
    Partitions,
    /// `Partitioner::resize`.
    Resize,
    /// `Discovery::scan`.
    Scan,
    /// `Partitioner::set_mode`.
    SetMode,
    /// `Partitioner::sweep`.
    Sweep,
    /// `Discovery::topology`.
    Topology,
    /// `Isolation::unconfine`.
    Unconfine,
    /// `Health::usage`.
    Usage,
    /// `Health::wait`.
    Wait,
}

/// Which calls a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum At {
    /// Calls of the vendor's function of that name, whoever makes them.
    Call(String),
    /// Every vendor call that this operation makes.
    CallsOf(Op),
    /// The start of the operation, before any vendor call.
    Start(Op),
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The process aborts after the call had its effect, as by `kill -9`.
    AbortAfter,
    /// The process aborts before the call has its effect.
    AbortBefore,
    /// The operation stops after the call had its effect and undoes nothing, as if the process had
    /// died there; the caller sees `InDoubt`.
    CrashAfter,
    /// The operation stops before the call has its effect, undoing nothing.
    CrashBefore,
    /// The call fails with this kind and the vendor's code for it, and has no effect.
    Fail(ErrorKind),
    /// The call does not return until the rule is taken back; then it goes on.
    Hang,
    /// The call takes so long.
    Latency(Duration),
}

/// A scripted fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which calls.
    pub at: At,
    /// Only calls about this card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// So many matching calls pass first.
    #[serde(default)]
    pub skip: u32,
    /// So many are hit then; `None` = all. A hang counts when it begins.
    #[serde(default = "once", skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// What happens.
    pub action: Action,
    /// Tells rules apart; given when the rule is added.
    #[serde(default)]
    pub(crate) id: u64,
}

impl Rule {
    /// Hits the next call at `at`, once.
    pub fn new(at: At, action: Action) -> Self {
        Self { at, device: None, skip: 0, times: Some(1), action, id: 0 }
    }

    /// Only calls about this card.
    #[must_use]
    pub fn on(mut self, device: &DeviceId) -> Self {
        self.device = Some(device.clone());
        self
    }

    /// Hits the `n`th matching call, counted from 1, instead of the first.
    #[must_use]
    pub fn nth(mut self, n: u32) -> Self {
        self.skip = n.saturating_sub(1);
        self
    }

    /// Hits so many calls; `None` = every one until the rule is taken back.
    #[must_use]
    pub fn times(mut self, times: Option<u32>) -> Self {
        self.times = times;
        self
    }
}

/// Where a call is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Here<'a> {
    pub(crate) op: Op,
    /// `None` at the start of the operation.
    pub(crate) call: Option<&'a str>,
    pub(crate) device: Option<&'a DeviceId>,
    pub(crate) moment: Moment,
}

/// Before or after the effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    After,
    Before,
}

/// The first rule that hits a call here, counted off.
pub(crate) fn consume(rules: &mut Vec<Rule>, here: Here<'_>) -> Option<(u64, Action)> {
    let mut hit = None;
    for (i, rule) in rules.iter_mut().enumerate() {
        if !rule.matches(here) {
            continue;
        }
        if rule.skip > 0 {
            rule.skip -= 1;
            continue;
        }
        // A hanging rule stays until it is taken back, hit or not.
        let spent = rule.times == Some(0);
        if spent {
            continue;
        }
        rule.times = rule.times.map(|n| n - 1);
        hit = Some((i, rule.id, rule.action.clone()));
        break;
    }
    let (i, id, action) = hit?;
    if rules[i].times == Some(0) && action != Action::Hang {
        rules.remove(i);
    }
    Some((id, action))
}

impl Rule {
    fn matches(&self, here: Here<'_>) -> bool {
        let at = match (&self.at, here.call) {
            (At::Start(op), None) => *op == here.op,
            (At::Call(name), Some(call)) => name == call,
            (At::CallsOf(op), Some(_)) => *op == here.op,
            _ => false,
        };
        let moment = match self.action {
            Action::AbortAfter | Action::CrashAfter => Moment::After,
            _ => Moment::Before,
        };
        at && moment == here.moment
            && self.device.as_ref().is_none_or(|device| Some(device) == here.device)
    }
}

fn once() -> Option<u32> {
    Some(1)
}

/// How often each operation and each vendor call was begun, in this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    pub(crate) operations: BTreeMap<Op, u64>,
    pub(crate) vendor: BTreeMap<String, u64>,
}

impl Calls {
    /// How often an operation of the traits was begun.
    pub fn of(&self, op: Op) -> u64 {
        self.operations.get(&op).copied().unwrap_or(0)
    }

    /// How often a function of a vendor was called.
    pub fn vendor(&self, call: &str) -> u64 {
        self.vendor.get(call).copied().unwrap_or(0)
    }

    /// How often any operation was begun.
    pub fn total(&self) -> u64 {
        self.operations.values().sum()
    }

    /// How often any function of any vendor was called.
    pub fn vendor_total(&self) -> u64 {
        self.vendor.values().sum()
    }

    /// The functions that were called, with how often.
    pub fn vendor_calls(&self) -> impl Iterator<Item = (&str, u64)> {
        self.vendor.iter().map(|(name, n)| (name.as_str(), *n))
    }
}

//! The ways to split a card, as data: what a part may hold, what the way asks for, what it enforces.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::guarantee::{ComputeKind, Enforcement, Guarantees};
use crate::id::{CounterId, DeviceId, ProfileId, TrustDomain};
use crate::size::{Bytes, ComputeShare, Size};

/// A way of splitting; open vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scheme(Cow<'static, str>);

macro_rules! schemes {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        impl Scheme { $($(#[$doc])* pub const $name: Self = Self(Cow::Borrowed($text));)* }
    };
}
schemes! {
    /// Hygon hardware instances; the mode is the node's, not the card's.
    HCU_MIG = "hcu-mig";
    /// NVIDIA hardware instances.
    MIG = "mig";
    /// Cambricon hardware instances.
    MIM = "mim";
    /// Several claims at once through the MPS daemon, limits at the daemon.
    MPS = "mps";
    /// Exclusive SM chunks under MPS: the daemon holds an object, so it is a scheme of its own.
    MPS_STATIC = "mps-static";
    /// Cambricon quota instances.
    SMLU = "smlu";
    /// Several claims in turn.
    TIME_SLICE = "time-slice";
    /// Hygon virtual DCU: CU mask and memory quota.
    VDCU = "vdcu";
    /// The card as it is, for one claim.
    WHOLE = "whole";
}

impl Scheme {
    /// A scheme by name.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// One way in which a device can be split, now, with this driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemeInfo {
    /// Which.
    pub scheme: Scheme,
    /// With or without driver objects.
    pub form: Form,
    /// The mode it needs.
    pub mode: ModeInfo,
    /// How sizes are chosen.
    pub sizing: Sizing,
    /// What it enforces.
    pub guarantees: Guarantees,
    /// What a resize asks for; `None` = cannot.
    pub resize: Option<Change>,
    /// Most claims on one card at once (MPS clients, 64 sMLU, 4 vDCU).
    pub max: Option<NonZeroU32>,
    /// Most parts of this scheme in one container over all cards (vDCU 1, HCU-MIG 1, MPS 1).
    pub max_per_container: Option<NonZeroU32>,
    /// How ours are recognised after a crash.
    pub ownership: Ownership,
    /// What a grant asks of the container that it is given to; the node refuses the start without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
}

impl SchemeInfo {
    /// A whole card to one claim: the card's own walls on every axis.
    pub fn whole(mode: ModeInfo) -> Self {
        Self {
            scheme: Scheme::WHOLE,
            sizing: Sizing::Whole,
            guarantees: Guarantees::uniform(Enforcement::Hardware, ComputeKind::Partition),
            max: Some(NonZeroU32::MIN),
            ..Self::time_slice(mode)
        }
    }

    /// Turns on a card as it is, with nothing promised on any axis. A backend whose driver does better
    /// says so over this.
    pub fn time_slice(mode: ModeInfo) -> Self {
        Self {
            scheme: Scheme::TIME_SLICE,
            form: Form::Shared,
            mode,
            sizing: Sizing::Turns,
            guarantees: Guarantees::uniform(Enforcement::None, ComputeKind::Unlimited),
            resize: None,
            max: None,
            max_per_container: None,
            // Nothing is created, so nothing is ever found after a crash.
            ownership: Ownership::Placement,
            needs: Vec::new(),
        }
    }

    /// The profile of that name, if the sizing is a table that has it.
    pub fn profile(&self, id: &ProfileId) -> Option<&Profile> {
        match &self.sizing {
            Sizing::Profiles(table) => table.iter().find(|p| p.id == *id),
            _ => None,
        }
    }

    /// Whether strangers may be neighbours on a card under it: each part has hardware of its own on
    /// every axis. Else only claims of one trust domain share a card.
    pub fn keeps_strangers_apart(&self) -> bool {
        let strength = self.guarantees.strength();
        self.form == Form::Carved && strength.iter().all(|level| *level >= Enforcement::Hardware)
    }

    /// The grid, if sizes are free.
    pub fn range(&self) -> Option<&Range> {
        match &self.sizing {
            Sizing::Range(range) => Some(range),
            _ => None,
        }
    }
}

/// Something that a grant asks of its container, and that no edit can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Need {
    /// A PID namespace that is neither the host's nor another claim's on the card: the driver tells
    /// the card's tenants apart by it (sMLU).
    OwnPidNamespace,
}

/// Whether the driver keeps an object for each part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Form {
    /// An object that `partitions` lists; made by `create`, unmade by `destroy`.
    Carved,
    /// No object: the grant is edits, and perhaps a limit set on the container. Never passes
    /// through `Partitioner`.
    Shared,
}

/// The card's mode that a scheme needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeInfo {
    /// Whether the card is in it now.
    pub active: bool,
    /// What entering asks for.
    pub enter: Change,
    /// What leaving asks for.
    pub leave: Change,
    /// Every device that changes with it; just this one, or all of the node.
    pub affects: Vec<DeviceId>,
    /// Whom it serves, where it serves one trust domain at a time (an MPS daemon). With a domain and
    /// not active, what serves it died: entering it for the same domain brings it back as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<TrustDomain>,
}

impl ModeInfo {
    /// A mode that the card is always in.
    pub fn always(device: &DeviceId) -> Self {
        Self {
            active: true,
            enter: Change::Live,
            leave: Change::Live,
            affects: vec![device.clone()],
            domain: None,
        }
    }
}

/// What must be true before a mode or size may change; from the least to the most disruptive.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, strum::Display,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Change {
    /// Any time.
    Live,
    /// No process and no part on this card.
    IdleDevice,
    /// No process on any card of this vendor (HCU-MIG).
    IdleNode,
    /// After a reset of the card.
    DeviceReset,
    /// After a reboot.
    Reboot,
}

/// How ours are told from another tool's after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Ownership {
    /// Neither tag nor placement: the journal keeps the ids seen before the call
    /// (`dmiCreateVDevices`), and creates run one at a time.
    Difference,
    /// The intended placement, journalled before the call, is unique on the card (MIG, CU mask
    /// written by us).
    Placement,
    /// The driver keeps our tag with the object (sMLU and MIM instance names).
    Tag,
}

/// How sizes are chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sizing {
    /// A closed table.
    Profiles(Vec<Profile>),
    /// Free sizes on a grid.
    Range(Range),
    /// Turns without size.
    Turns,
    /// The whole card.
    Whole,
}

/// A grid of sizes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Compute grid, if compute can be set.
    pub compute: Option<ComputeGrid>,
    /// Memory grid, if memory can be set.
    pub memory: Option<MemoryGrid>,
    /// How many different sizes may live at once (sMLU: 16 profiles).
    pub distinct: Option<NonZeroU32>,
    /// Who picks the units: us (a mask is part of the order) or the driver.
    pub placed_by: PlacedBy,
}

impl Range {
    /// The smallest size on the grid that covers `asked`.
    ///
    /// # Errors
    /// A sentence that says which axis cannot be had: one that the scheme cannot limit, or a size
    /// beyond 64 bits. Whether it fits a card is another question.
    pub fn round_up(&self, asked: &Size) -> Result<Size, String> {
        let memory = match (asked.memory, &self.memory) {
            (None, _) => None,
            (Some(_), None) => return Err("memory cannot be limited by it".into()),
            (Some(asked), Some(grid)) => Some(grid.round_up(asked).ok_or("memory overflows")?),
        };
        let compute = match (asked.compute, &self.compute) {
            (None, _) => None,
            (Some(_), None) => return Err("compute cannot be limited by it".into()),
            (Some(asked), Some(grid)) => Some(grid.round_up(asked).ok_or("compute overflows")?),
        };
        Ok(Size { compute, memory })
    }
}

/// Where compute shares may lie: `min`, `min + step`, … up to `of`, in units of the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComputeGrid {
    /// The least share.
    pub min: u32,
    /// The step; shares are multiples of it.
    pub step: NonZeroU32,
    /// Units of the whole card.
    pub of: NonZeroU32,
}

impl ComputeGrid {
    /// The least share on the grid that covers `asked`, or nothing if it does not fit 32 bits.
    pub fn round_up(&self, asked: ComputeShare) -> Option<ComputeShare> {
        let of = u64::from(self.of.get());
        let units = (u64::from(asked.units) * of).div_ceil(u64::from(asked.of.get()));
        let step = u64::from(self.step.get());
        let units = units.max(u64::from(self.min)).div_ceil(step) * step;
        Some(ComputeShare { units: u32::try_from(units).ok()?, of: self.of })
    }

    /// Whether `share` lies on the grid.
    pub fn has(&self, share: ComputeShare) -> bool {
        share.of == self.of
            && share.units >= self.min
            && share.units <= self.of.get()
            && share.units.is_multiple_of(self.step.get())
    }
}

/// Where memory sizes may lie: multiples of `step` from `min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryGrid {
    /// The least size.
    pub min: Bytes,
    /// The step; sizes are multiples of it. Never 0 (`DISC-3`).
    pub step: Bytes,
}

impl MemoryGrid {
    /// The least size on the grid that covers `asked`, or nothing if it does not fit 64 bits.
    pub fn round_up(&self, asked: Bytes) -> Option<Bytes> {
        let step = self.step.0.max(1);
        asked.0.max(self.min.0).div_ceil(step).checked_mul(step).map(Bytes)
    }

    /// Whether `size` lies on the grid.
    pub fn has(&self, size: Bytes) -> bool {
        size >= self.min && size.0.is_multiple_of(self.step.0.max(1))
    }
}

/// Who picks the units of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlacedBy {
    /// The driver.
    Driver,
    /// The planner; masks are disjoint by construction.
    Planner,
}

/// One entry of a profile table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Its id and name.
    pub id: ProfileId,
    /// What it holds.
    pub size: Size,
    /// Where it may lie, in the vendor's slots.
    pub placements: Vec<Slots>,
    /// What else it uses up; the same data becomes DRA shared counters.
    pub uses: Vec<(CounterId, u64)>,
}

/// Slots `[start, start + len)` of a vendor's placement table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slots {
    /// The first.
    pub start: u32,
    /// How many.
    pub len: u32,
}

impl Slots {
    /// Slots `[start, start + len)`.
    pub const fn new(start: u32, len: u32) -> Self {
        Self { start, len }
    }

    /// Whether they share a slot. Exact also for values that a broken driver may return.
    pub fn overlaps(self, other: Self) -> bool {
        let end = |s: Self| u64::from(s.start) + u64::from(s.len);
        u64::from(self.start) < end(other) && u64::from(other.start) < end(self)
    }
}

impl fmt::Display for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.start, self.len)
    }
}

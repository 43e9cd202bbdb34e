//! What is asked of a backend. An order can only be had from a device's own description, so that
//! backends check nothing.

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ClaimId, DeviceId, PartitionId, ProfileId, TrustDomain};
use crate::scheme::{Form, PlacedBy, Range, Scheme, SchemeInfo, Sizing, Slots};
use crate::size::{ComputeShare, Size};

/// Creation of one part, fully decided, written to the journal before the call.
///
/// `Deserialize` is for the journal and the wire, which only carry orders that were admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateOrder {
    device: DeviceId,
    scheme: Scheme,
    shape: Shape,
    placement: Placement,
    claim: ClaimId,
}

impl CreateOrder {
    /// The only way to an order: everything that `device` excludes is refused here, before anything
    /// is journalled.
    ///
    /// # Errors
    /// `Unsupported` for a scheme that the device lacks, else `Invalid`.
    pub fn admit(
        device: &Device,
        scheme: &Scheme,
        shape: Shape,
        placement: Placement,
        claim: ClaimId,
    ) -> Result<Self> {
        let info = device.scheme(scheme)?;
        check(device, info, &shape, &placement).map_err(|why| {
            Error::new(ErrorKind::Invalid, why).with("device", &device.id).with("scheme", scheme)
        })?;
        Ok(Self { device: device.id.clone(), scheme: scheme.clone(), shape, placement, claim })
    }

    /// The card.
    pub fn device(&self) -> &DeviceId {
        &self.device
    }
    /// The scheme.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }
    /// What to make.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }
    /// Where.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }
    /// For whom; becomes the driver's tag where it keeps one.
    pub fn claim(&self) -> &ClaimId {
        &self.claim
    }
}

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// An entry of the profile table.
    Profile(ProfileId),
    /// A size on the grid.
    Size(Size),
}

/// Where on the card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// The driver picks.
    Driver,
    /// These slots of the vendor's table.
    Slots(Slots),
    /// These compute units, one bit each, unit 0 first, 64 to a word.
    Units(Vec<u64>),
}

impl Placement {
    /// Whether both name a place and share a slot or unit.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Slots(a), Self::Slots(b)) => a.overlaps(*b),
            (Self::Units(a), Self::Units(b)) => a.iter().zip(b).any(|(a, b)| a & b != 0),
            _ => false,
        }
    }
}

/// Change of a card's mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeOrder {
    /// The card.
    pub device: DeviceId,
    /// The scheme whose mode is wanted, or `None` for the default mode.
    pub scheme: Option<Scheme>,
    /// Every device the caller has emptied; must equal [`ModeInfo::affects`], so that nobody
    /// switches a node by accident.
    ///
    /// [`ModeInfo::affects`]: crate::scheme::ModeInfo::affects
    pub affected: Vec<DeviceId>,
    /// Whom the mode serves, where that matters (one MPS daemon per card and domain).
    pub domain: Option<TrustDomain>,
}

/// How far a mode change got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModeChange {
    /// Pending until the node reboots.
    AfterReboot,
    /// Pending until the card is reset; we never reset it.
    AfterReset,
    /// In effect; scan again, ids of parts and minor numbers may have changed.
    Done,
}

/// What a container gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    /// A driver object.
    Part(PartitionId),
    /// A share without an object.
    Shared {
        /// The card.
        device: DeviceId,
        /// Under which scheme.
        scheme: Scheme,
        /// How much.
        size: Size,
        /// Beside whom.
        domain: TrustDomain,
    },
    /// The card.
    Whole(DeviceId),
}

impl Grant {
    /// The card that the grant lies on.
    pub fn device(&self) -> DeviceId {
        match self {
            Self::Part(part) => part.device(),
            Self::Shared { device, .. } | Self::Whole(device) => device.clone(),
        }
    }

    /// The scheme under which it is given.
    pub fn scheme(&self) -> Scheme {
        match self {
            Self::Part(part) => part.scheme(),
            Self::Shared { scheme, .. } => scheme.clone(),
            Self::Whole(_) => Scheme::WHOLE,
        }
    }
}

/// One grant of one claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// For whom.
    pub claim: ClaimId,
    /// What.
    pub grant: Grant,
}

fn check(
    device: &Device,
    info: &SchemeInfo,
    shape: &Shape,
    placement: &Placement,
) -> std::result::Result<(), String> {
    if info.form != Form::Carved {
        return Err("the scheme keeps no driver object, so nothing can be created".into());
    }
    if !info.mode.active {
        return Err("the card is not in the scheme's mode".into());
    }
    match (&info.sizing, shape, placement) {
        (Sizing::Profiles(table), Shape::Profile(id), Placement::Slots(slots)) => {
            let Some(profile) = table.iter().find(|p| p.id == *id) else {
                let has: Vec<&str> = table.iter().map(|p| p.id.as_str()).collect();
                return Err(format!("no profile {id}; the card has {}", has.join(", ")));
            };
            if profile.placements.contains(slots) {
                Ok(())
            } else {
                Err(format!("{id} cannot lie at {slots}"))
            }
        }
        (Sizing::Range(range), Shape::Size(size), placement) => {
            on_grid(device, range, size)?;
            placed(range, size, placement)
        }
        _ => Err("shape and placement do not fit the scheme's sizing".into()),
    }
}

fn on_grid(device: &Device, range: &Range, size: &Size) -> std::result::Result<(), String> {
    if let Some(asked) = size.memory {
        let Some(grid) = range.memory else {
            return Err("the scheme cannot limit memory".into());
        };
        if !grid.has(asked) || asked > device.memory {
            return Err(format!(
                "memory {asked} is not a multiple of {} from {} up to {}",
                grid.step, grid.min, device.memory
            ));
        }
    }
    if let Some(asked) = size.compute {
        let Some(grid) = range.compute else {
            return Err("the scheme cannot limit compute".into());
        };
        if !grid.has(asked) {
            return Err(format!(
                "compute {asked} is not a multiple of {} from {} up to {}, of {}",
                grid.step, grid.min, grid.of, grid.of
            ));
        }
    }
    Ok(())
}

fn placed(range: &Range, size: &Size, placement: &Placement) -> std::result::Result<(), String> {
    match (range.placed_by, placement) {
        (PlacedBy::Driver, Placement::Driver) => Ok(()),
        (PlacedBy::Planner, Placement::Units(mask)) => match size.compute {
            Some(share) => mask_is(mask, share),
            None if mask.iter().all(|word| *word == 0) => Ok(()),
            None => Err("a mask without a compute share".into()),
        },
        (PlacedBy::Driver, _) => Err("the driver places parts, not the order".into()),
        (PlacedBy::Planner, _) => Err("the order must say which units".into()),
    }
}

fn mask_is(mask: &[u64], share: ComputeShare) -> std::result::Result<(), String> {
    let set: u32 = mask.iter().map(|word| word.count_ones()).sum();
    let beyond = mask.iter().enumerate().any(|(i, word)| {
        let first = i as u64 * 64;
        *word != 0 && first + 63 - u64::from(word.leading_zeros()) >= u64::from(share.of.get())
    });
    if set != share.units || beyond {
        return Err(format!("the mask sets {set} units, or one beyond the card, for {share}"));
    }
    Ok(())
}

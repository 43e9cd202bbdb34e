//! What is taken on a card, by ours and by foreign parts alike.

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::id::{CounterId, DeviceId, ProfileId, TrustDomain};
use crate::order::{Grant, Placement, Shape};
use crate::partition::Partition;
use crate::plan::Step;
use crate::scheme::Scheme;
use crate::size::{Bytes, Size};

/// What one claim or foreign part takes on a card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The card.
    pub device: DeviceId,
    /// Under which scheme.
    pub scheme: Scheme,
    /// How much.
    pub size: Size,
    /// Where.
    pub placement: Placement,
    /// Its profile, where it has one.
    #[serde(default)]
    pub profile: Option<ProfileId>,
    /// Whose neighbourhood; `None` for parts of other tools.
    #[serde(default)]
    pub domain: Option<TrustDomain>,
}

impl Held {
    /// What a decided step will take.
    ///
    /// `None` only if the step does not belong to `device`.
    pub fn of(device: &Device, step: &Step, domain: &TrustDomain) -> Option<Self> {
        match step {
            Step::Carve(order) if *order.device() == device.id => {
                let (size, profile) = match order.shape() {
                    Shape::Size(size) => (*size, None),
                    Shape::Profile(id) => {
                        let info = device.scheme(order.scheme()).ok()?;
                        (info.profile(id)?.size, Some(id.clone()))
                    }
                };
                Some(Self {
                    device: device.id.clone(),
                    scheme: order.scheme().clone(),
                    size,
                    placement: order.placement().clone(),
                    profile,
                    domain: Some(domain.clone()),
                })
            }
            Step::Share(target) if target.grant.device() == device.id => {
                Self::of_grant(&target.grant, domain)
            }
            Step::Carve(_) | Step::Share(_) => None,
        }
    }

    /// What a shared or whole grant takes; a part's is told by the driver ([`Held::of_part`]).
    pub fn of_grant(grant: &Grant, domain: &TrustDomain) -> Option<Self> {
        let size = match grant {
            Grant::Part(_) => return None,
            Grant::Shared { size, .. } => *size,
            Grant::Whole(_) => Size::ANY,
        };
        Some(Self {
            device: grant.device(),
            scheme: grant.scheme(),
            size,
            placement: Placement::Driver,
            profile: None,
            domain: Some(domain.clone()),
        })
    }

    /// What a part takes that the driver lists.
    pub fn of_part(part: &Partition, domain: Option<TrustDomain>) -> Self {
        let profile = match &part.shape {
            Some(Shape::Profile(id)) => Some(id.clone()),
            _ => None,
        };
        Self {
            device: part.device.clone(),
            scheme: part.scheme.clone(),
            size: part.size,
            placement: part.placement.clone(),
            profile,
            domain,
        }
    }

    /// The memory that it takes of `device`: all of it for a whole card, none where unlimited.
    pub fn memory_on(&self, device: &Device) -> Bytes {
        match self.size.memory {
            Some(memory) => memory,
            None if self.scheme == Scheme::WHOLE => device.memory,
            None => Bytes(0),
        }
    }

    /// How much of a counter it uses, by its profile.
    pub(crate) fn uses(&self, device: &Device, counter: &CounterId) -> u64 {
        let Some(profile) = &self.profile else { return 0 };
        device
            .scheme(&self.scheme)
            .ok()
            .and_then(|info| info.profile(profile))
            .and_then(|p| p.uses.iter().find(|(c, _)| c == counter))
            .map_or(0, |(_, n)| *n)
    }
}

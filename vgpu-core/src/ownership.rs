//! How a part of ours is recognised after a crash between the journal and the driver.

use serde::{Deserialize, Serialize};

use crate::id::PartitionId;
use crate::order::CreateOrder;
use crate::partition::Partition;
use crate::scheme::Ownership;

/// What the journal says of a part that was about to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The whole order.
    pub order: CreateOrder,
    /// How the scheme's parts are recognised, as the device declared it then.
    pub ownership: Ownership,
    /// Ids on the card before the call: what was there is not ours, unless its tag says so.
    pub seen: Vec<PartitionId>,
}

impl Intent {
    /// The part that this intent made, whole or half, if the driver lists it.
    ///
    /// A tag that is there always decides: a part with another claim's tag is never ours, whatever
    /// its place.
    pub fn recognise<'p>(&self, listed: &'p [Partition]) -> Option<&'p Partition> {
        let order = &self.order;
        listed.iter().filter(|p| p.device == *order.device() && p.scheme == *order.scheme()).find(
            |p| match (&p.tag, self.ownership) {
                (Some(tag), _) => tag == order.claim(),
                (None, Ownership::Tag) => false,
                // A part that names no place (a mask of no units) is told by being new as well.
                (None, Ownership::Placement) => {
                    p.placement == *order.placement() && !self.seen.contains(&p.id)
                }
                (None, Ownership::Difference) => !self.seen.contains(&p.id),
            },
        )
    }
}

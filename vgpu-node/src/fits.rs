//! Whether the ids that a kubelet allocated together are such as an offer allows.

use std::collections::BTreeSet;

use vgpu_core::id::{DeviceId, SlotId};

use crate::offer::{OfferKind, ResourceName};
use crate::slots::Resource;

/// Whether ids are such as the offer has, together.
pub(crate) fn fits(resource: &Resource, ids: &BTreeSet<SlotId>) -> Result<(), String> {
    let name = &resource.offer.resource;
    if let Some(id) = ids.iter().find(|id| resource.slots(id).is_none()) {
        return Err(format!(
            "{id} is no id of {name} as it is offered now; if a pod that had it has just ended, make \
             the pod anew"
        ));
    }
    if resource.offer.distinct {
        apart(name, ids)?;
    }
    let OfferKind::Unit { bounds, .. } = &resource.offer.kind else { return Ok(()) };
    let cards: BTreeSet<&DeviceId> = ids.iter().map(|id| &id.device).collect();
    let count = ids.len() as u64;
    if cards.len() > 1 {
        return Err(format!(
            "{count} units of {name} lie on {} cards and a container's units must be on one; ask \
             for as many as one card has free",
            cards.len()
        ));
    }
    if count < bounds.smallest || count > bounds.largest {
        let (least, most) = (bounds.smallest, bounds.largest);
        return Err(format!("{count} units of {name} were asked; it allows {least} to {most}"));
    }
    Ok(())
}

/// Whether no two ids are of one card.
fn apart(name: &ResourceName, ids: &BTreeSet<SlotId>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    let Some(twice) = ids.iter().find(|id| !seen.insert(&id.device)) else { return Ok(()) };
    Err(format!(
        "{} ids of {name} were allocated, several of them of card {}, and the offer is distinct: \
         each must be of another card; ask for at most as many as cards have one free, or let the \
         pod be made again",
        ids.len(),
        twice.device
    ))
}

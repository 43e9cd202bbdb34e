//! What a layout would come to, without doing anything.

use std::path::Path;

use vgpu_core::Result;
use vgpu_core::id::DeviceId;
use vgpu_core::plan::layout::{LayoutPlan, layout};

use crate::claim::Claims;
use crate::inventory::{Inventory, InventoryOptions, Registry};
use crate::ledger::Ledger;
use crate::offer::Offer;
use crate::pool::{CardLayout, Record, apart, standing};
use crate::slots::Layout;

/// What would be done on one card.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The card.
    pub device: DeviceId,
    /// What would be made and unmade.
    pub plan: LayoutPlan,
}

/// Looks at the cards and at the ledger in `state_dir`, where there is one, and plans; nothing is changed, and a
/// running agent is not disturbed.
///
/// # Errors
/// `Invalid` for offers and layouts that the cards cannot have, others for a card whose parts cannot be listed.
pub fn preview(
    state_dir: &Path,
    registry: Registry,
    offers: &[Offer],
    layouts: &[CardLayout],
) -> Result<Vec<Preview>> {
    let inventory = Inventory::new(registry, InventoryOptions::default());
    inventory.refresh();
    let snapshot = inventory.snapshot();
    let devices: Vec<_> = snapshot.cards.values().map(|card| &card.device).collect();
    let found = Layout::of(offers, layouts, &devices)?;
    let records = Ledger::<Record>::peek(state_dir)?;
    let (claims, pool) = apart(records.values());
    let claims = Claims::restored(claims);
    let mut previews = Vec::new();
    for (device, wish) in &found.pools {
        let Some(card) = snapshot.cards.get(device) else { continue };
        let listed = card.partitions.clone()?;
        let standing = standing::standing(device, &listed, &claims, &pool);
        let plan = layout(&card.device, &wish.scheme, &wish.parts, &standing)?;
        previews.push(Preview { device: device.clone(), plan });
    }
    Ok(previews)
}

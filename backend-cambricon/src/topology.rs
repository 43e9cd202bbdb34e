//! How near cards are to one another: the PCI path, and the MLU-Links between them.

use std::collections::BTreeMap;

use vgpu_core::{Device, Link, Result};

use crate::api::{CndevApi, CndevFailure};
use crate::convert;

/// Every pair that can be read, once.
pub(crate) fn links(api: &dyn CndevApi, cards: &[(u32, Device)]) -> Result<Vec<Link>> {
    let ends: Vec<BTreeMap<String, u32>> =
        cards.iter().map(|(index, _)| ends(api, *index)).collect::<Result<_>>()?;
    let mut links = Vec::new();
    for (n, (index, device)) in cards.iter().enumerate() {
        for (m, (other_index, other)) in cards.iter().enumerate().skip(n + 1) {
            let Some(relation) = tolerate(api.relation(*index, *other_index))? else { continue };
            let to = |ends: &BTreeMap<String, u32>, card: &Device| {
                ends.get(card.id.as_str()).copied().unwrap_or(0)
            };
            links.push(Link {
                a: device.id.clone(),
                b: other.id.clone(),
                kind: convert::link_kind(relation),
                // Either end may be unreadable.
                lanes: to(&ends[n], other).max(to(&ends[m], device)),
            });
        }
    }
    Ok(links)
}

/// How many of a card's links end at each card.
fn ends(api: &dyn CndevApi, index: u32) -> Result<BTreeMap<String, u32>> {
    let mut ends = BTreeMap::new();
    for port in 0..tolerate(api.link_ports(index))?.unwrap_or(0) {
        if tolerate(api.link_up(index, port))? != Some(true) {
            continue;
        }
        let Some(uuid) = tolerate(api.link_remote(index, port))? else { continue };
        if let Ok(remote) = convert::device_id(&uuid) {
            *ends.entry(remote.to_string()).or_default() += 1;
        }
    }
    Ok(ends)
}

/// A reading that may be missing: the pair scores less, and the call does not fail for it.
fn tolerate<T>(reading: std::result::Result<T, CndevFailure>) -> Result<Option<T>> {
    match reading {
        Ok(value) => Ok(Some(value)),
        Err(failure) if convert::is_of_the_driver(&failure) => Err(convert::error(&failure)),
        Err(_) => Ok(None),
    }
}

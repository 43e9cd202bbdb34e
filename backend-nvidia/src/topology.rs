//! How near cards are to one another: the PCI path, and the NVLinks between them.

use std::collections::BTreeMap;

use vgpu_core::{Device, Link, Result};

use crate::api::{LinkEnd, MAX_NVLINKS, NvmlApi, NvmlFailure};
use crate::convert;

/// Every pair that can be read, once.
pub(crate) fn links(api: &dyn NvmlApi, cards: &[(u32, Device)]) -> Result<Vec<Link>> {
    let ends: Vec<Ends> =
        cards.iter().map(|(index, _)| ends(api, *index)).collect::<Result<_>>()?;
    let mut links = Vec::new();
    for (n, (index, device)) in cards.iter().enumerate() {
        for (m, (other_index, other)) in cards.iter().enumerate().skip(n + 1) {
            let Some(level) = tolerate(api.topology_common_ancestor(*index, *other_index))? else {
                continue;
            };
            links.push(Link {
                a: device.id.clone(),
                b: other.id.clone(),
                kind: convert::link_kind(level),
                lanes: lanes((&ends[n], device), (&ends[m], other)),
            });
        }
    }
    Ok(links)
}

/// How many of a card's links end at each address.
#[derive(Debug, Default)]
struct Ends {
    direct: BTreeMap<String, u32>,
    switches: BTreeMap<String, u32>,
}

fn ends(api: &dyn NvmlApi, index: u32) -> Result<Ends> {
    let mut ends = Ends::default();
    for link in 0..MAX_NVLINKS {
        if tolerate(api.nvlink_active(index, link))? != Some(true) {
            continue;
        }
        let Some(address) = tolerate(api.nvlink_remote_address(index, link))? else {
            continue;
        };
        // A driver that does not tell what is there: an address that is a card's is one.
        let kind = tolerate(api.nvlink_remote_kind(index, link))?.unwrap_or(LinkEnd::Unknown);
        let at = match kind {
            LinkEnd::Gpu | LinkEnd::Unknown => &mut ends.direct,
            LinkEnd::Switch => &mut ends.switches,
            LinkEnd::Npu => continue,
        };
        *at.entry(address).or_default() += 1;
    }
    Ok(ends)
}

/// Links from card to card, and over each switch as many as the card with fewer has.
fn lanes(one: (&Ends, &Device), other: (&Ends, &Device)) -> u32 {
    let direct = |from: &Ends, to: &Device| {
        to.pci.as_ref().and_then(|address| from.direct.get(address)).copied().unwrap_or(0)
    };
    // Either end may be unreadable.
    let direct = direct(one.0, other.1).max(direct(other.0, one.1));
    let through =
        one.0.switches.iter().map(|(switch, count)| {
            other.0.switches.get(switch).map_or(0, |others| *count.min(others))
        });
    direct + through.sum::<u32>()
}

/// A reading that may be missing: the pair scores less, and the call does not fail for it.
fn tolerate<T>(reading: std::result::Result<T, NvmlFailure>) -> Result<Option<T>> {
    match reading {
        Ok(value) => Ok(Some(value)),
        Err(failure) if convert::is_of_the_driver(&failure) => Err(convert::error(&failure)),
        Err(_) => Ok(None),
    }
}

//! How near cards are to one another: the driver's own links, else the NUMA nodes.

use vgpu_core::Link;
use vgpu_core::device::LinkKind;

use crate::cards::{Card, Cards};
use crate::kfd;

/// The vendor's own link between cards, as KFD numbers kinds of links.
const OWN: u64 = 11;

/// Every pair that can be read, once.
pub(crate) fn links(cards: &Cards, found: &[Card]) -> Vec<Link> {
    let mut links = Vec::new();
    for (n, one) in found.iter().enumerate() {
        let ends = kfd::links(&cards.tree, one.kfd.number);
        for other in &found[n + 1..] {
            let own = |(to, kind): &&(u32, u64)| *to == other.kfd.number && *kind == OWN;
            let direct = ends.iter().filter(own).count();
            let direct = u32::try_from(direct).unwrap_or(u32::MAX);
            let told = || linked(cards, one, other);
            let lanes = if direct == 0 { told() } else { direct };
            let kind = match (one.numa, other.numa) {
                (Some(a), Some(b)) if a == b => LinkKind::Node,
                (Some(_), Some(_)) => LinkKind::System,
                // Nobody says where they are, and no link of their own: not known.
                _ if lanes == 0 => continue,
                _ => LinkKind::System,
            };
            links.push(Link { a: one.id.clone(), b: other.id.clone(), kind, lanes });
        }
    }
    links
}

/// Links that only ROCm SMI tells.
fn linked(cards: &Cards, one: &Card, other: &Card) -> u32 {
    let read = || {
        let smi = cards.smi.as_ref()?;
        let to = smi.index(other.address()).ok()??;
        smi.read(one.address(), |smi, index| smi.link(index, to)).ok()?
    };
    u32::from(read().is_some_and(|link| link.own))
}

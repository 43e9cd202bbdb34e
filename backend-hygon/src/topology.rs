//! How near cards are to one another: the compute driver's own links, and the NUMA nodes.
//!
//! ROCm SMI is not asked: its call about links ends the process where a link is of a kind that it does
//! not know.

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
            let lanes = u32::try_from(ends.iter().filter(own).count()).unwrap_or(u32::MAX);
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

//! The parts that cards shall have, as their administrator writes them.

use serde::{Deserialize, Serialize};
use vgpu_core::plan::Selector;
use vgpu_core::plan::layout::ProfileCount;
use vgpu_core::scheme::Scheme;

/// The parts that each of some cards shall have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CardLayout {
    /// Which cards.
    #[serde(default)]
    pub select: Selector,
    /// The scheme whose profiles they are.
    pub scheme: Scheme,
    /// So many of each.
    pub parts: Vec<ProfileCount>,
}

impl CardLayout {
    /// How many parts of a profile it has.
    pub fn count(&self, profile: &vgpu_core::ProfileId) -> u32 {
        let of = self.parts.iter().filter(|p| p.profile == *profile);
        of.map(|p| p.count.get()).fold(0, u32::saturating_add)
    }
}

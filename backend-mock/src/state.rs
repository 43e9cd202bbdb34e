//! What a machine's hardware and drivers hold; it outlives every backend, and with a file also the
//! process.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vgpu_core::{
    Bytes, ClaimId, DeviceId, Error, ErrorKind, Event, Link, Meaning, Partition, PartitionId,
    PartitionState, Scheme, Size, TrustDomain, Vendor,
};

use crate::Result;
use crate::model::Facts;
use crate::script::Rule;
use crate::spec::{CardSpec, MachineSpec};

/// Everything that a machine holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    pub(crate) spec: MachineSpec,
    /// How often it was booted.
    pub(crate) boot: u64,
    /// How often the driver under the library was replaced.
    pub(crate) driver: u64,
    /// Counts up; makes handles that differ from all earlier ones.
    pub(crate) serial: u64,
    pub(crate) cards: Vec<Card>,
    pub(crate) events: Vec<(Vendor, Event)>,
    pub(crate) rules: Vec<Rule>,
}

/// A card and what its driver holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Card {
    pub(crate) id: DeviceId,
    pub(crate) pci: String,
    pub(crate) numa: u32,
    /// Place among the cards of its vendor: the minor number of its node.
    pub(crate) minor: u32,
    /// Place among all cards.
    pub(crate) index: u32,
    pub(crate) spec: CardSpec,
    pub(crate) mode: Option<Mode>,
    /// The mode that the next reset brings; the inner `None` is the default mode.
    pub(crate) pending: Option<Option<Mode>>,
    /// Why it does not answer.
    pub(crate) lost: Option<String>,
    pub(crate) condition: Option<Condition>,
    /// Processes on the card itself, not on a part of it.
    pub(crate) holders: u32,
    pub(crate) parts: Vec<Part>,
    /// sMLU profiles.
    pub(crate) sizes: Vec<SmluProfile>,
    pub(crate) limits: Vec<Limit>,
}

/// The mode that a card is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mode {
    pub(crate) scheme: Scheme,
    pub(crate) domain: Option<TrustDomain>,
    /// What serves it died.
    #[serde(default)]
    pub(crate) dead: bool,
}

/// What a health reading says besides "good".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Condition {
    pub(crate) meaning: Meaning,
    pub(crate) cause: String,
}

/// A part as the driver lists it, and what only the driver knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    pub(crate) listed: Partition,
    /// The driver's number; the node in `/dev` carries it.
    pub(crate) instance: u32,
    pub(crate) condition: Option<Condition>,
}

/// An sMLU profile: a size that instances are made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SmluProfile {
    pub(crate) id: u32,
    pub(crate) size: Size,
}

/// A limit in force on a cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limit {
    pub(crate) claim: ClaimId,
    pub(crate) cgroup: PathBuf,
    pub(crate) memory: Bytes,
}

impl State {
    /// The machine of that description, freshly booted.
    pub(crate) fn new(spec: MachineSpec) -> Result<Self> {
        let mut cards: Vec<Card> = Vec::new();
        let all = spec.cards.len();
        for (index, card) in spec.cards.iter().enumerate() {
            let vendor = card.model.vendor();
            let minor = cards.iter().filter(|c| c.vendor() == vendor).count();
            // Ten busses a domain keeps addresses apart on any machine.
            let pci = format!("{:04x}:{:02x}:00.0", index / 20, 0x0f + 0x0b * (index % 20));
            let id = match (&card.id, &vendor) {
                (Some(id), _) => id.clone(),
                (None, v) if *v == Vendor::HYGON => DeviceId::new(pci.clone())?,
                (None, v) if *v == Vendor::CAMBRICON => {
                    DeviceId::new(format!("MLU-{}", uuid(3, minor as u64)))?
                }
                (None, _) => DeviceId::new(format!("GPU-{}", uuid(1, minor as u64)))?,
            };
            if cards.iter().any(|c| c.id == id) {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("the machine's description has the card {id} twice; give each its own"),
                ));
            }
            cards.push(Card {
                id,
                pci,
                numa: card.numa.unwrap_or(u32::from(index * 2 >= all && all > 1)),
                minor: minor as u32,
                index: index as u32,
                mode: None,
                pending: None,
                lost: None,
                condition: None,
                holders: 0,
                parts: Vec::new(),
                sizes: Vec::new(),
                limits: Vec::new(),
                spec: card.clone(),
            });
        }
        let mut state = Self {
            spec,
            boot: 1,
            driver: 1,
            serial: 0,
            cards,
            events: Vec::new(),
            rules: Vec::new(),
        };
        state.enter_described_modes()?;
        Ok(state)
    }

    /// The card of that name.
    pub(crate) fn card(&self, id: &DeviceId) -> Result<&Card> {
        self.cards.iter().find(|c| c.id == *id).ok_or_else(|| no_card(id))
    }

    /// The card of that name, to change it.
    pub(crate) fn card_mut(&mut self, id: &DeviceId) -> Result<&mut Card> {
        self.cards.iter_mut().find(|c| c.id == *id).ok_or_else(|| no_card(id))
    }

    /// A handle that no part ever had.
    pub(crate) fn fresh_uuid(&mut self, kind: u64) -> String {
        self.serial += 1;
        uuid(kind, self.serial)
    }

    /// Reboots: only what each driver keeps over a reboot stays.
    pub(crate) fn reboot(&mut self) {
        self.boot += 1;
        self.events.clear();
        for card in &mut self.cards {
            // Only Ampere keeps MIG mode in its InfoROM; a pending change comes with the reset.
            let wanted = card.pending.take().unwrap_or_else(|| card.mode.take());
            card.mode =
                wanted.filter(|m| m.scheme == Scheme::MIG && card.spec.model.facts().ampere);
            card.lost = None;
            card.condition = None;
            card.holders = 0;
            card.sizes.clear();
            card.limits.clear();
            card.parts.retain(|p| card.spec.keeps_over_reboot(&p.listed.scheme));
            for part in &mut card.parts {
                part.listed.holders = vgpu_core::Holders::Processes(0);
                part.condition = None;
            }
        }
    }

    /// Why nothing of a vendor is found.
    pub(crate) fn has(&self, vendor: Option<&Vendor>) -> bool {
        self.cards.iter().any(|c| vendor.is_none_or(|v| c.vendor() == *v))
    }

    /// How near the cards are.
    pub(crate) fn links(&self) -> Vec<Link> {
        if let Some(links) = &self.spec.links {
            return links.clone();
        }
        let mut links = Vec::new();
        for (i, a) in self.cards.iter().enumerate() {
            for b in self.cards.iter().skip(i + 1).filter(|b| b.vendor() == a.vendor()) {
                links.push(Link {
                    a: a.id.clone(),
                    b: b.id.clone(),
                    kind: if a.numa == b.numa {
                        vgpu_core::LinkKind::Node
                    } else {
                        vgpu_core::LinkKind::System
                    },
                    lanes: a.facts().lanes,
                });
            }
        }
        links
    }

    fn enter_described_modes(&mut self) -> Result<()> {
        for i in 0..self.cards.len() {
            let card = &self.cards[i];
            let Some(scheme) = card.spec.mode.clone() else { continue };
            let has = crate::schemes::describe(self, card);
            has.scheme(&scheme)?;
            let domain = card.spec.domain.clone();
            self.cards[i].mode = Some(Mode { scheme, domain, dead: false });
        }
        Ok(())
    }
}

impl Card {
    /// What is known of its model.
    pub(crate) fn facts(&self) -> Facts {
        self.spec.model.facts()
    }

    /// Whose it is.
    pub(crate) fn vendor(&self) -> Vendor {
        self.facts().vendor
    }

    /// Whether it is in the mode of `scheme`.
    pub(crate) fn is_in(&self, scheme: &Scheme) -> bool {
        self.mode.as_ref().is_some_and(|m| m.scheme == *scheme)
    }

    /// The part of that name.
    pub(crate) fn part(&self, id: &PartitionId) -> Result<&Part> {
        self.parts.iter().find(|p| p.listed.id == *id).ok_or_else(|| no_part(id))
    }

    /// The part of that name, to change it.
    pub(crate) fn part_mut(&mut self, id: &PartitionId) -> Result<&mut Part> {
        self.parts.iter_mut().find(|p| p.listed.id == *id).ok_or_else(|| no_part(id))
    }
}

impl Part {
    /// Whether a crash left only half of it.
    pub(crate) fn is_half(&self) -> bool {
        self.listed.state == PartitionState::Half
    }
}

impl CardSpec {
    /// Whether parts of that scheme are still there after a reboot: only files are.
    fn keeps_over_reboot(&self, scheme: &Scheme) -> bool {
        *scheme == Scheme::VDCU && self.vdcu == crate::spec::VdcuWay::File
    }
}

/// The error for a card that is not there.
pub(crate) fn no_card(id: &DeviceId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no card {id}; scan again"))
}

/// The error for a part that is not there.
pub(crate) fn no_part(id: &PartitionId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no part {id}; list the card's parts again"))
}

/// A UUID-shaped text, the same for the same numbers.
pub(crate) fn uuid(kind: u64, n: u64) -> String {
    let a = mix(kind << 48 | n);
    let b = mix(a);
    format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        a >> 32,
        a >> 16 & 0xffff,
        a & 0xfff,
        b >> 52,
        b & 0xffff_ffff_ffff
    )
}

/// The output function of splitmix64: well spread, and the same everywhere.
fn mix(n: u64) -> u64 {
    let z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

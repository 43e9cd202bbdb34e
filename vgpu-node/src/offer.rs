//! What a node offers, as its administrator writes it; parsed, so that an [`Offer`] is well formed.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use vgpu_core::guarantee::Minimum;
use vgpu_core::id::{ProfileId, TrustDomain};
use vgpu_core::plan::units::{Bounds, Unit, UnitCompute};
use vgpu_core::plan::{Modes, Policy, Selector};
use vgpu_core::scheme::Scheme;
use vgpu_core::size::Bytes;

/// The name of an extended resource, `vgpu.dev/gpu`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResourceName(String);

impl ResourceName {
    /// Parses `domain/name` by the rules that the kubelet has for extended resources.
    ///
    /// # Errors
    /// A sentence that says which rule is broken.
    pub fn new(text: impl Into<String>) -> Result<Self, String> {
        let text = text.into();
        match resource_rule(&text) {
            None => Ok(Self(text)),
            Some(why) => Err(format!("{text:?} is not a resource name: {why}")),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for ResourceName {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::new(text)
    }
}

impl From<ResourceName> for String {
    fn from(name: ResourceName) -> Self {
        name.0
    }
}

/// One resource, and the cards that stand behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawOffer", into = "RawOffer")]
pub struct Offer {
    /// Its name in the cluster.
    pub resource: ResourceName,
    /// Which cards serve it.
    pub select: Selector,
    /// What one id of it is.
    pub kind: OfferKind,
    /// Schemes in order of liking; empty = any, strongest first.
    pub schemes: Vec<Scheme>,
    /// What must at least be enforced; a card that enforces less does not serve.
    pub minimum: Minimum,
    /// Who may be neighbours on a card.
    pub domain: TrustDomain,
    /// How cards are filled.
    pub policy: Policy,
    /// When parts are made.
    pub lifecycle: Lifecycle,
    /// Whether a container's ids must be of different cards: two of one card are refused, rather than
    /// made one larger part or one turn of double weight. A refusal fails the pod's admission.
    pub distinct: bool,
}

/// When parts are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lifecycle {
    /// For a container that starts, and unmade after it.
    #[default]
    OnDemand,
    /// Ahead, by the cards' layouts; containers take them and give them back.
    Pooled,
}

impl Offer {
    /// Whether an idle card's mode may be changed for it: only where the administrator named the
    /// schemes. A card that was put into a mode by hand is not taken out of it by a wide selector.
    pub fn modes(&self) -> Modes {
        if self.schemes.is_empty() { Modes::Keep } else { Modes::Enter }
    }
}

/// What one id of an offer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OfferKind {
    /// A slice: so many equal ones of a card, one of a profile, or one of a size.
    Slice(Slice),
    /// A memory unit; a container's units become one part on one card.
    Unit {
        /// The unit.
        unit: Unit,
        /// How many units a container may ask for.
        bounds: Bounds,
    },
    /// A whole card.
    Whole,
}

/// What a slice is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slice {
    /// One of so many equal parts of a card, or turns where the scheme has no sizes.
    Equal(NonZeroU32),
    /// A part of this profile.
    Profile(ProfileId),
    /// A part of this size.
    Sized {
        /// Memory.
        memory: Bytes,
        /// Percent of the card's compute, where it is limited.
        compute_percent: Option<u32>,
    },
}

/// An offer as written: flat, every key optional, so that each mistake gets its own sentence.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawOffer {
    resource: String,
    kind: String,
    #[serde(default, skip_serializing_if = "is_default")]
    select: Selector,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slots: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    profile: Option<ProfileId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<RawSize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    compute: Option<UnitCompute>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    smallest: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    largest: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    schemes: Vec<Scheme>,
    #[serde(default, skip_serializing_if = "is_default")]
    minimum: Minimum,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domain: Option<TrustDomain>,
    #[serde(default, skip_serializing_if = "is_default")]
    policy: Policy,
    #[serde(default, skip_serializing_if = "is_default")]
    lifecycle: Lifecycle,
    #[serde(default, skip_serializing_if = "is_default")]
    distinct: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawSize {
    memory: Bytes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    compute_percent: Option<u32>,
}

impl TryFrom<RawOffer> for Offer {
    type Error = String;
    fn try_from(raw: RawOffer) -> Result<Self, String> {
        let resource = ResourceName::new(raw.resource.clone())?;
        let kind = kind(&raw).map_err(|why| format!("offer {resource}: {why}"))?;
        let domain = match raw.domain {
            Some(domain) => domain,
            None => TrustDomain::new("default").expect("a word"),
        };
        let (select, schemes, minimum, policy) = (raw.select, raw.schemes, raw.minimum, raw.policy);
        let (lifecycle, distinct) = (raw.lifecycle, raw.distinct);
        let by_profile = matches!(kind, OfferKind::Slice(Slice::Profile(_)));
        if lifecycle == Lifecycle::Pooled && !by_profile {
            return Err(format!(
                "offer {resource}: lifecycle pooled is for slices with a profile; layouts make nothing else"
            ));
        }
        Ok(Self { resource, select, kind, schemes, minimum, domain, policy, lifecycle, distinct })
    }
}

impl From<Offer> for RawOffer {
    fn from(offer: Offer) -> Self {
        let mut raw = Self {
            resource: offer.resource.into(),
            select: offer.select,
            schemes: offer.schemes,
            minimum: offer.minimum,
            domain: Some(offer.domain),
            policy: offer.policy,
            lifecycle: offer.lifecycle,
            distinct: offer.distinct,
            ..Self::default()
        };
        match offer.kind {
            OfferKind::Whole => raw.kind = "whole".into(),
            OfferKind::Slice(slice) => {
                raw.kind = "slice".into();
                match slice {
                    Slice::Equal(slots) => raw.slots = Some(slots.get()),
                    Slice::Profile(profile) => raw.profile = Some(profile),
                    Slice::Sized { memory, compute_percent } => {
                        raw.size = Some(RawSize { memory, compute_percent });
                    }
                }
            }
            OfferKind::Unit { unit, bounds } => {
                raw.kind = "unit".into();
                raw.unit = Some(unit.memory);
                raw.compute = Some(unit.compute);
                raw.smallest = Some(bounds.smallest);
                raw.largest = Some(bounds.largest);
            }
        }
        raw
    }
}

/// The most slots of one card, and the most units: beyond, the kubelet's 4-MiB lists come near.
const MOST_SLOTS: u32 = 4_096;

fn kind(raw: &RawOffer) -> Result<OfferKind, String> {
    let given: Vec<&str> = [
        ("slots", raw.slots.is_some()),
        ("profile", raw.profile.is_some()),
        ("size", raw.size.is_some()),
        ("unit", raw.unit.is_some()),
        ("compute", raw.compute.is_some()),
        ("smallest", raw.smallest.is_some()),
        ("largest", raw.largest.is_some()),
        ("distinct", raw.distinct),
    ]
    .into_iter()
    .filter_map(|(key, there)| there.then_some(key))
    .collect();
    let only = |allowed: &[&str]| match given.iter().find(|key| !allowed.contains(key)) {
        Some(key) => Err(format!("{key} does not belong to kind {}", raw.kind)),
        None => Ok(()),
    };
    match raw.kind.as_str() {
        "whole" => only(&[]).map(|()| OfferKind::Whole),
        "slice" => {
            only(&["slots", "profile", "size", "distinct"])?;
            slice(raw).map(OfferKind::Slice)
        }
        "unit" => {
            only(&["unit", "compute", "smallest", "largest"])?;
            units(raw)
        }
        other => Err(format!("kind {other:?} is unknown; write whole, slice or unit")),
    }
}

fn slice(raw: &RawOffer) -> Result<Slice, String> {
    match (raw.slots, &raw.profile, &raw.size) {
        (Some(slots), None, None) => match NonZeroU32::new(slots) {
            Some(n) if n.get() <= MOST_SLOTS => Ok(Slice::Equal(n)),
            _ => Err(format!("slots is {slots}; it must be from 1 to {MOST_SLOTS}")),
        },
        (None, Some(profile), None) => Ok(Slice::Profile(profile.clone())),
        (None, None, Some(size)) => {
            if size.memory.0 == 0 {
                return Err("size.memory is 0".into());
            }
            match size.compute_percent {
                Some(p) if p == 0 || p > 100 => {
                    Err(format!("size.computePercent is {p}; it must be from 1 to 100"))
                }
                compute_percent => Ok(Slice::Sized { memory: size.memory, compute_percent }),
            }
        }
        (None, None, None) => Err("a slice needs slots, profile or size".into()),
        _ => Err("a slice has one of slots, profile and size, not several".into()),
    }
}

fn units(raw: &RawOffer) -> Result<OfferKind, String> {
    let memory = raw.unit.ok_or("a unit offer needs unit, the memory of one, for example 1Gi")?;
    if memory < Bytes::mib(1) {
        return Err(format!("unit is {memory}; it must be at least 1Mi"));
    }
    let smallest = raw.smallest.unwrap_or(1);
    let largest = raw.largest.ok_or(
        "a unit offer needs largest, the most units of one container: the smaller it is, the more \
         units of fragmented cards can be told to the scheduler",
    )?;
    if smallest == 0 || largest < smallest {
        return Err(format!("smallest is {smallest} and largest is {largest}"));
    }
    let unit = Unit { memory, compute: raw.compute.unwrap_or_default() };
    Ok(OfferKind::Unit { unit, bounds: Bounds { smallest, largest } })
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The rule of the kubelet's `IsExtendedResourceName` that is broken, if one is.
fn resource_rule(text: &str) -> Option<&'static str> {
    let Some((domain, name)) = text.split_once('/') else {
        return Some("it has no domain; write for example vgpu.dev/gpu");
    };
    let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let label = |l: &str| {
        let ends = [l.bytes().next(), l.bytes().last()];
        l.bytes().all(|b| lower(b) || b == b'-') && ends.iter().all(|b| b.is_some_and(lower))
    };
    if domain.len() > 253 - "requests.".len() || !domain.split('.').all(label) {
        return Some("its domain is not a DNS name in lower case");
    }
    if domain == "kubernetes.io" || domain.ends_with(".kubernetes.io") {
        return Some("kubernetes.io is not ours to use");
    }
    if text.starts_with("requests.") {
        return Some("it must not start with requests.");
    }
    let alnum = |b: u8| b.is_ascii_alphanumeric();
    let ends = [name.bytes().next(), name.bytes().last()].iter().all(|b| b.is_some_and(alnum));
    if name.len() > 63 || !ends || !name.bytes().all(|b| alnum(b) || b"-_.".contains(&b)) {
        return Some(
            "its name is not 1 to 63 letters, digits, - _ . with a letter or digit at the ends",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Offer, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn good_offers_parse_and_print_back() {
        for json in [
            r#"{"resource":"vgpu.dev/gpu","kind":"whole"}"#,
            r#"{"resource":"vgpu.dev/eighth","kind":"slice","slots":8,"schemes":["time-slice"]}"#,
            r#"{"resource":"vgpu.dev/turn","kind":"slice","slots":8,"distinct":true}"#,
            r#"{"resource":"vgpu.dev/mig-1g","kind":"slice","profile":"1g.18gb"}"#,
            r#"{"resource":"vgpu.dev/mlu","kind":"slice","size":{"memory":"4Gi","computePercent":25}}"#,
            r#"{"resource":"vgpu.dev/mem","kind":"unit","unit":"1Gi","largest":32,"policy":"spread"}"#,
            r#"{"resource":"vgpu.dev/mig","kind":"slice","profile":"1g.5gb","lifecycle":"pooled"}"#,
        ] {
            let offer = parse(json).expect(json);
            let text = serde_json::to_string(&offer).expect("serializes");
            assert_eq!(parse(&text).expect("parses back"), offer);
        }
    }

    #[test]
    fn each_mistake_has_its_sentence() {
        for (json, word) in [
            (r#"{"resource":"gpu","kind":"whole"}"#, "domain"),
            (r#"{"resource":"x.kubernetes.io/gpu","kind":"whole"}"#, "kubernetes.io"),
            (r#"{"resource":"Vgpu.dev/gpu","kind":"whole"}"#, "lower case"),
            (r#"{"resource":"vgpu.dev/-","kind":"whole"}"#, "63"),
            (r#"{"resource":"vgpu.dev/a","kind":"half"}"#, "whole, slice or unit"),
            (r#"{"resource":"vgpu.dev/a","kind":"whole","slots":2}"#, "does not belong"),
            (
                r#"{"resource":"vgpu.dev/a","kind":"whole","distinct":true}"#,
                "distinct does not belong",
            ),
            (
                r#"{"resource":"vgpu.dev/a","kind":"unit","unit":"1Gi","largest":2,"distinct":true}"#,
                "distinct does not belong",
            ),
            (r#"{"resource":"vgpu.dev/a","kind":"slice"}"#, "needs slots"),
            (r#"{"resource":"vgpu.dev/a","kind":"slice","slots":0}"#, "from 1 to"),
            (r#"{"resource":"vgpu.dev/a","kind":"slice","slots":4294967295}"#, "from 1 to"),
            (r#"{"resource":"vgpu.dev/a","kind":"slice","slots":2,"profile":"1g"}"#, "not several"),
            (r#"{"resource":"vgpu.dev/a","kind":"slice","size":{"memory":"10"}}"#, "no unit"),
            (
                r#"{"resource":"vgpu.dev/a","kind":"slice","size":{"memory":"1Gi","computePercent":0}}"#,
                "100",
            ),
            (r#"{"resource":"vgpu.dev/a","kind":"unit","unit":"1Gi"}"#, "largest"),
            (r#"{"resource":"vgpu.dev/a","kind":"unit","largest":2}"#, "needs unit"),
            (r#"{"resource":"vgpu.dev/a","kind":"unit","unit":"1Ki","largest":2}"#, "1Mi"),
            (
                r#"{"resource":"vgpu.dev/a","kind":"unit","unit":"1Gi","smallest":3,"largest":2}"#,
                "largest is 2",
            ),
            (r#"{"resource":"vgpu.dev/a","kind":"whole","colour":"red"}"#, "colour"),
            (r#"{"resource":"vgpu.dev/a","kind":"whole","lifecycle":"pooled"}"#, "with a profile"),
        ] {
            let e = parse(json).expect_err(json);
            assert!(e.contains(word), "{json}: {e}");
        }
    }
}

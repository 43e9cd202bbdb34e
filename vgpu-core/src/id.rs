//! Names as types. Every one is parsed, so that a value of the type is known to be well formed; a clone shares the text.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::scheme::Scheme;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses; says what is wrong with the text otherwise.
            pub fn new(text: impl Into<String>) -> Result<Self> {
                let text = text.into();
                match $check(&text) {
                    Ok(()) => Ok(Self(text.into())),
                    Err(why) => Err(Error::new(
                        ErrorKind::Invalid,
                        format!(concat!("{:?} is not a ", $what, ": {}"), shown(&text), why),
                    )),
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }
        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                Self::new(text)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> Self {
                (*id.0).into()
            }
        }
    };
}

id!(
    /// A card for life: NVIDIA and MLU UUID, DCU PCI address.
    ///
    /// Grammar of a CDI device name without `::`, since `::` ends the card's part of a [`SlotId`].
    DeviceId, "device id", device_name
);
id!(
    /// A part for life: `<device>/<scheme>/<placement or driver id>`.
    ///
    /// It survives restart and, at the same placement, re-creation, unlike a MIG UUID.
    PartitionId, "partition id (<device>/<scheme>/<local>)", partition_name
);
id!(
    /// A profile as the vendor names it, `3g.20gb`, `1g.10gb+me`.
    ProfileId, "profile", word
);
id!(
    /// One grant to one container (device plugin) or one claim (DRA); never used twice.
    ///
    /// Grammar of a CDI device name: the claim's id is the name that the runtime resolves.
    ClaimId, "claim id", cdi_name
);
id!(
    /// A tenant group that may share a card; given by the offer or the claim, never guessed.
    TrustDomain, "trust domain", word
);
id!(
    /// A thing of which a card has a countable amount: `memory-slice-3`, `decoder`, `instance`.
    CounterId, "counter", word
);

impl PartitionId {
    /// The id of a part of `device` under `scheme`; `local` tells it from its neighbours.
    pub fn of(device: &DeviceId, scheme: &Scheme, local: impl fmt::Display) -> Result<Self> {
        Self::new(format!("{device}/{scheme}/{local}"))
    }

    /// The card that it lies on.
    pub fn device(&self) -> DeviceId {
        let device = self.0.split('/').next().expect("split yields at least one piece");
        DeviceId(device.into())
    }

    /// The scheme that made it.
    pub fn scheme(&self) -> Scheme {
        let scheme = self.0.split('/').nth(1).expect("checked when parsed");
        Scheme::new(scheme.to_owned())
    }

    /// What tells it from its neighbours on the card.
    pub fn local(&self) -> &str {
        self.0.splitn(3, '/').nth(2).expect("checked when parsed")
    }
}

/// A vendor: `nvidia`, `hygon`, `cambricon`, or another; open vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Vendor(Cow<'static, str>);

impl Vendor {
    /// Cambricon MLUs.
    pub const CAMBRICON: Self = Self(Cow::Borrowed("cambricon"));
    /// Hygon DCUs, since 2026 HCUs.
    pub const HYGON: Self = Self(Cow::Borrowed("hygon"));
    /// NVIDIA GPUs.
    pub const NVIDIA: Self = Self(Cow::Borrowed("nvidia"));

    /// A vendor by name.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A kubelet device id of ours: `<device>::<shape>.<n>`.
///
/// The shape is in the id, so that an id that a pod still holds never changes its meaning when the
/// offer does; what stands before `::` is what DCGM's exporter expects.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SlotId {
    /// The card.
    pub device: DeviceId,
    /// `8` (an eighth), `1g.20gb`, `1Gi`, `whole`.
    pub shape: Arc<str>,
    /// Which of them, from 0.
    pub n: u32,
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}.{}", self.device, self.shape, self.n)
    }
}

impl FromStr for SlotId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            let text = shown(text);
            Error::new(ErrorKind::Invalid, format!("{text:?} is not <device>::<shape>.<n>"))
        };
        let (device, rest) = text.split_once("::").ok_or_else(bad)?;
        let (shape, n) = rest.rsplit_once('.').ok_or_else(bad)?;
        // `+7` and `07` would be second spellings of one id.
        if shape.is_empty() || word(shape).is_err() || (n.len() > 1 && n.starts_with('0')) {
            return Err(bad());
        }
        if !n.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let n = n.parse().map_err(|e| bad().with("number", e))?;
        Ok(Self { device: DeviceId::new(device)?, shape: shape.into(), n })
    }
}

impl TryFrom<String> for SlotId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<SlotId> for String {
    fn from(id: SlotId) -> Self {
        id.to_string()
    }
}

const LONGEST: usize = 253;

/// A text as it may be put into a message: a driver's garbage is not repeated at full length.
fn shown(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn word(text: &str) -> std::result::Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > LONGEST {
        return Err("it is longer than 253 characters");
    }
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"_.:+-".contains(&b);
    if !text.bytes().all(fine) {
        return Err("only letters, digits and _ . : + - are allowed");
    }
    Ok(())
}

fn cdi_name(text: &str) -> std::result::Result<(), &'static str> {
    word(text)?;
    if text.contains('+') {
        return Err("+ is not allowed in a CDI name");
    }
    let ends = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric());
    if ends { Ok(()) } else { Err("it must start and end with a letter or digit") }
}

fn device_name(text: &str) -> std::result::Result<(), &'static str> {
    cdi_name(text)?;
    if text.contains("::") { Err(":: ends the device's part of a slot id") } else { Ok(()) }
}

fn partition_name(text: &str) -> std::result::Result<(), &'static str> {
    let mut pieces = text.splitn(3, '/');
    let (Some(device), Some(scheme), Some(local)) = (pieces.next(), pieces.next(), pieces.next())
    else {
        return Err("it has fewer than three pieces");
    };
    device_name(device)?;
    word(scheme)?;
    word(local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_ids_keep_their_shape() {
        for text in ["GPU-1::8.3", "0000:33:00.0::1g.20gb.0", "MLU-1::1Gi.47", "GPU-1::whole.0"] {
            assert_eq!(text.parse::<SlotId>().expect("an id").to_string(), text);
        }
        for text in [
            "GPU-1::",
            "GPU-1::8",
            "::8.1",
            "GPU-1::8.-1",
            "GPU-1::8.+1",
            "GPU-1::8.01",
            "GPU-1::8.4294967296",
            "",
            "a b::8.1",
        ] {
            assert!(text.parse::<SlotId>().is_err(), "{text}");
        }
    }

    #[test]
    fn ids_refuse_what_cdi_refuses() {
        for bad in ["", "-a", "a-", "a/b", "a b", "ä", &"x".repeat(300), "GPU::1"] {
            assert!(DeviceId::new(bad).is_err(), "{bad}");
        }
        for good in ["GPU-3430f778-7a25-704c-9090-8b0bb2478114", "0000:3b:00.0", "MLU-1"] {
            assert!(DeviceId::new(good).is_ok(), "{good}");
        }
        assert!(serde_json::from_str::<DeviceId>("\"a/b\"").is_err());
    }

    #[test]
    fn a_partition_id_gives_its_pieces_back() {
        let device = DeviceId::new("0000:3b:00.0").expect("an id");
        let id = PartitionId::of(&device, &Scheme::MIG, "1g.10gb+me-3").expect("an id");
        assert_eq!((id.device(), id.scheme(), id.local()), (device, Scheme::MIG, "1g.10gb+me-3"));
        assert!(PartitionId::new("GPU-1/mig").is_err());
    }
}

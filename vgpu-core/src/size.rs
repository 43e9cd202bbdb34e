//! Units as types: bytes, and exact shares of a card's compute.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// Memory in bytes; the only unit of memory in the library.
///
/// As text it always has a unit (`10Gi`, `256Mi`, `1000B`); a bare number is refused, since that is
/// how a percent was once read as MiB.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(pub u64);

impl Bytes {
    /// So many GiB.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// So many MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")] {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return f.pad(&format!("{}{unit}", self.0 >> shift));
            }
        }
        f.pad(&format!("{}B", self.0))
    }
}

impl FromStr for Bytes {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            let text: String = text.chars().take(40).collect();
            Err(Error::new(
                ErrorKind::Invalid,
                format!("{text:?} is not an amount of memory: {why}; write 10Gi, 256Mi or 1000B"),
            ))
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let Ok(number) = number.parse::<u64>() else {
            return bad("it does not start with a whole number below 2^64");
        };
        let scale: u64 = match unit {
            "B" => 1,
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            "Ti" => 1 << 40,
            "k" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            "T" => 1_000_000_000_000,
            "" => return bad("it has no unit"),
            _ => return bad("its unit is unknown"),
        };
        match number.checked_mul(scale) {
            Some(bytes) => Ok(Self(bytes)),
            None => bad("it is larger than 2^64 bytes"),
        }
    }
}

impl TryFrom<String> for Bytes {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> Self {
        bytes.to_string()
    }
}

/// An exact share of a card's compute: `units` of `of` (42 of 98 SMs, 30 of 100 %, 15 of 60 CUs).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ComputeShare {
    /// Units granted.
    pub units: u32,
    /// Units of the whole card.
    pub of: NonZeroU32,
}

impl ComputeShare {
    /// Whether this share is at least as large as `other`, exactly.
    pub fn covers(self, other: Self) -> bool {
        u64::from(self.units) * u64::from(other.of.get())
            >= u64::from(other.units) * u64::from(self.of.get())
    }
}

impl fmt::Display for ComputeShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.units, self.of))
    }
}

/// What a part holds; `None` means "no limit on this axis", never zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Compute, exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<ComputeShare>,
    /// Memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
}

impl Size {
    /// No limit on any axis.
    pub const ANY: Self = Self { compute: None, memory: None };

    /// Whether a part of this size gives all that `asked` asks; an axis without limit gives all.
    pub fn covers(&self, asked: &Self) -> bool {
        let memory = match (self.memory, asked.memory) {
            (Some(has), Some(asked)) => has >= asked,
            _ => true,
        };
        let compute = match (self.compute, asked.compute) {
            (Some(has), Some(asked)) => has.covers(asked),
            _ => true,
        };
        memory && compute
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match (self.memory, self.compute) {
            (None, None) => "no limit".to_owned(),
            (Some(m), None) => m.to_string(),
            (None, Some(c)) => format!("compute {c}"),
            (Some(m), Some(c)) => format!("{m}, compute {c}"),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memory_without_a_unit_is_refused() {
        for bad in ["10", "", "Gi", "10 Gi", "-1Gi", "1.5Gi", "10GB", "99999999999Ti", "10%"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Bytes>("10").is_err());
        assert_eq!("10Gi".parse::<Bytes>().expect("parses"), Bytes::gib(10));
        assert_eq!("1G".parse::<Bytes>().expect("parses"), Bytes(1_000_000_000));
    }

    proptest! {
        #[test]
        fn bytes_print_and_parse_back(n: u64) {
            prop_assert_eq!(Bytes(n).to_string().parse::<Bytes>().expect("parses"), Bytes(n));
        }

        #[test]
        fn shares_compare_exactly(a in 0u32..200, b in 0u32..200, of in 1u32..200) {
            let share = |units, of| ComputeShare { units, of: NonZeroU32::new(of).expect("not 0") };
            prop_assert_eq!(share(a, of).covers(share(b, of)), a >= b);
            // The same share over three times the units.
            prop_assert!(share(a * 3, of * 3).covers(share(a, of)));
            prop_assert!(share(a, of).covers(share(a * 3, of * 3)));
        }
    }
}

//! CDI's names and the file names made of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::id::ClaimId;

/// A kind of devices, `vendor/class`.
///
/// The vendor must be ours (`vgpu.dev`, `k8s.<driver>`): where two writers share a kind, a device
/// that both name is unusable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Kind {
    vendor: String,
    class: String,
}

impl Kind {
    /// Parses `vendor/class`; both start with a letter, end with a letter or digit, and have only
    /// letters, digits and `_ . -` between.
    ///
    /// # Errors
    /// `Invalid` with the piece that is wrong.
    pub fn new(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::new(ErrorKind::Invalid, format!("{text:?} is not a CDI vendor/class: {why}"))
        };
        let (vendor, class) = text.split_once('/').ok_or_else(|| bad("it has no /"))?;
        vendor_or_class(vendor).map_err(|why| bad(&format!("the vendor {why}")))?;
        vendor_or_class(class).map_err(|why| bad(&format!("the class {why}")))?;
        Ok(Self { vendor: vendor.to_owned(), class: class.to_owned() })
    }

    /// The vendor, `vgpu.dev`.
    pub fn vendor(&self) -> &str {
        &self.vendor
    }

    /// The class, `claim`.
    pub fn class(&self) -> &str {
        &self.class
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.vendor, self.class)
    }
}

impl FromStr for Kind {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl TryFrom<String> for Kind {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::new(&text)
    }
}

impl From<Kind> for String {
    fn from(kind: Kind) -> Self {
        kind.to_string()
    }
}

/// A device as a runtime is asked for it, `vendor/class=name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QualifiedName {
    /// The kind.
    pub kind: Kind,
    /// The device's name in the kind; of ours, the claim.
    pub name: ClaimId,
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.name)
    }
}

impl FromStr for QualifiedName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let (kind, name) = text.split_once('=').ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                format!("{text:?} is not vendor/class=name: it has no ="),
            )
        })?;
        Ok(Self { kind: kind.parse()?, name: name.parse()? })
    }
}

impl TryFrom<String> for QualifiedName {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<QualifiedName> for String {
    fn from(name: QualifiedName) -> Self {
        name.to_string()
    }
}

/// The name of the spec file of a claim: `<vendor>-<class>_<name>.json`.
///
/// Nothing needs escaping: what CDI allows in names is safe in a file name, and a vendor starts with
/// a letter, so that the file is never hidden.
///
/// # Errors
/// `Invalid` where the name, with its temporary form, is longer than a file name may be.
pub fn file_name(kind: &Kind, name: &ClaimId) -> Result<String> {
    let text = format!("{}{name}{ENDING}", prefix(kind));
    if temp_name(&text).len() > LONGEST_FILE_NAME {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "the CDI file of {kind}={name} would have a name too long for a file; shorten the kind or the claim's id"
            ),
        ));
    }
    Ok(text)
}

/// The name under which a file is written before it is renamed to `file_name`, in the same folder.
///
/// It ends neither in `.json` nor in `.yaml`, so that no loader reads it half written; one that is
/// found at start is left over from a crash and may be removed.
pub fn temp_name(file_name: &str) -> String {
    format!("{file_name}.tmp")
}

/// The claim whose spec a file of this name is, if it is one of `kind`; the reverse of [`file_name`].
pub fn claim_of(kind: &Kind, file_name: &str) -> Option<ClaimId> {
    let name = file_name.strip_prefix(&prefix(kind))?.strip_suffix(ENDING)?;
    ClaimId::new(name).ok()
}

const ENDING: &str = ".json";
const LONGEST_FILE_NAME: usize = 255;

fn prefix(kind: &Kind) -> String {
    format!("{}-{}_", kind.vendor, kind.class)
}

fn vendor_or_class(text: &str) -> std::result::Result<(), &'static str> {
    if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err("must start with a letter");
    }
    word(text, b"_.-", "may have only letters, digits and _ . -")
}

/// Whether a text is a device's name, as loaders take it; [`ClaimId`] is the same, but not endless.
pub(super) fn device_name(text: &str) -> std::result::Result<(), &'static str> {
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err("must start with a letter or digit");
    }
    word(text, b"_.-:", "may have only letters, digits and _ . - :")
}

/// Whether a text is a key of an annotation, `[prefix/]name`, as Kubernetes has them.
pub(super) fn annotation_key(text: &str) -> std::result::Result<(), &'static str> {
    let name = match text.split_once('/') {
        None => text,
        Some((prefix, name)) => {
            dns_name(prefix)?;
            name
        }
    };
    if name.len() > 63 {
        return Err("its name is longer than 63 characters");
    }
    device_name(name)?;
    if name.contains(':') { Err("may have only letters, digits and _ . -") } else { Ok(()) }
}

/// The prefix of an annotation; capitals count as small letters, as in loaders.
fn dns_name(text: &str) -> std::result::Result<(), &'static str> {
    let label = |l: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !l.is_empty() && !l.starts_with('-') && !l.ends_with('-') && l.bytes().all(inner)
    };
    if text.len() <= 253 && text.split('.').all(label) {
        Ok(())
    } else {
        Err("its prefix is not a DNS name")
    }
}

fn word(text: &str, others: &[u8], allowed: &'static str) -> std::result::Result<(), &'static str> {
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || others.contains(&b)) {
        return Err(allowed);
    }
    if !text.ends_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err("must end with a letter or digit");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind() -> Kind {
        Kind::new("vgpu.dev/claim").expect("a kind")
    }

    #[test]
    fn a_qualified_name_gives_its_pieces_back() {
        let name: QualifiedName = "vgpu.dev/claim=0:b_c.d-1".parse().expect("a name");
        assert_eq!((name.kind.vendor(), name.kind.class()), ("vgpu.dev", "claim"));
        assert_eq!(name.to_string(), "vgpu.dev/claim=0:b_c.d-1");
        for bad in ["", "a/b", "a=b", "a/b=", "=c", "a/b/c=d", "a/b=c=d", "1a/b=c", "a-/b=c"] {
            assert!(bad.parse::<QualifiedName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_kind_says_which_piece_is_wrong() {
        let message = |text: &str| Kind::new(text).expect_err("wrong").message;
        assert!(message("9x/gpu").contains("vendor must start"));
        assert!(message("x/g pu").contains("class may have only"));
        assert!(message("x/gpu-").contains("class must end"));
        assert!(serde_json::from_str::<Kind>("\"vgpu.dev\"").is_err());
    }

    #[test]
    fn file_names_lead_back_to_their_claim_and_no_other() {
        let claim = ClaimId::new("a:1").expect("an id");
        let file = file_name(&kind(), &claim).expect("short enough");
        assert_eq!(file, "vgpu.dev-claim_a:1.json");
        assert_eq!(claim_of(&kind(), &file), Some(claim));
        for other in ["vgpu.dev-claim_.json", "nvidia.com-gpu_a.json", "x.json", &temp_name(&file)]
        {
            assert_eq!(claim_of(&kind(), other), None, "{other}");
        }
        let long = ClaimId::new("x".repeat(250)).expect("an id");
        assert_eq!(file_name(&kind(), &long).expect_err("too long").kind, ErrorKind::Invalid);
    }

    #[test]
    fn annotation_keys_follow_kubernetes() {
        for good in ["a", "A_b.c-1", "vgpu.dev/level", "X.Y/z"] {
            assert_eq!(annotation_key(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/a",
            "a/",
            "a/b/c",
            "a:b",
            "-a",
            "a_b/c",
            "a..b/c",
            "-a/b",
            "a-/b",
            &"x".repeat(64),
        ] {
            assert!(annotation_key(bad).is_err(), "{bad}");
        }
    }
}

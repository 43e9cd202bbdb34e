//! Which version of CDI a spec needs: the least, since a loader refuses what is above its own.

use std::fmt;
use std::str::FromStr;

use super::name::Kind;
use super::spec::{Edits, Spec};
use crate::error::{Error, ErrorKind, Result};

/// A released version of CDI that loaders still accept.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, strum::EnumIter, strum::IntoStaticStr,
)]
pub enum Version {
    /// 0.3.0, the earliest that loaders take.
    #[strum(serialize = "0.3.0")]
    V0_3,
    /// 0.4.0: a mount may have a type.
    #[strum(serialize = "0.4.0")]
    V0_4,
    /// 0.5.0: a node may have another path on the host; a device's name may start with a digit.
    #[strum(serialize = "0.5.0")]
    V0_5,
    /// 0.6.0: annotations; a class may have dots.
    #[strum(serialize = "0.6.0")]
    V0_6,
    /// 0.7.0: `intelRdt` and `additionalGids`.
    #[strum(serialize = "0.7.0")]
    V0_7,
    /// 0.8.0: no new field.
    #[strum(serialize = "0.8.0")]
    V0_8,
    /// 1.0.0: no new field.
    #[strum(serialize = "1.0.0")]
    V1_0,
    /// 1.1.0: `netDevices`, `intelRdt.schemata` and `intelRdt.enableMonitoring`; `enableCMT` and
    /// `enableMBM` are gone.
    #[strum(serialize = "1.1.0")]
    V1_1,
}

impl Version {
    /// As a spec declares it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Version {
    type Err = Error;

    /// Parses `0.5.0`, with or without the `v` that loaders let pass.
    fn from_str(text: &str) -> Result<Self> {
        let bare = text.strip_prefix('v').unwrap_or(text);
        <Self as strum::IntoEnumIterator>::iter().find(|v| v.as_str() == bare).ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                format!("{text:?} is no version of CDI that loaders take; use 0.3.0 to 1.1.0"),
            )
        })
    }
}

/// The least version that knows everything `spec` says; what the spec declares is not looked at.
pub fn minimum(spec: &Spec) -> Version {
    let all = || spec.devices.iter().map(|d| &d.container_edits).chain([&spec.container_edits]);
    if all().any(needs_1_1) {
        return Version::V1_1;
    }
    if all().any(|e| e.intel_rdt.is_some() || !e.additional_gids.is_empty()) {
        return Version::V0_7;
    }
    let annotated =
        !spec.annotations.is_empty() || spec.devices.iter().any(|d| !d.annotations.is_empty());
    if annotated || spec.kind.parse::<Kind>().is_ok_and(|k| k.class().contains('.')) {
        return Version::V0_6;
    }
    let digit_leads = spec.devices.iter().any(|d| !d.name.starts_with(|c: char| c.is_alphabetic()));
    if digit_leads || all().any(needs_0_5) {
        return Version::V0_5;
    }
    if all().flat_map(|e| &e.mounts).any(|m| is_set(m.mount_type.as_deref())) {
        return Version::V0_4;
    }
    Version::V0_3
}

fn needs_1_1(edits: &Edits) -> bool {
    let rdt = edits.intel_rdt.as_ref();
    !edits.net_devices.is_empty()
        || rdt.is_some_and(|r| r.schemata.is_some() || r.enable_monitoring.is_some())
}

fn needs_0_5(edits: &Edits) -> bool {
    edits.device_nodes.iter().any(|n| is_set(n.host_path.as_deref()))
}

/// An empty text counts as absent, as in the library that runtimes use.
fn is_set(text: Option<&str>) -> bool {
    text.is_some_and(|t| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_parse_as_they_print_and_order_by_age() {
        let all: Vec<Version> = <Version as strum::IntoEnumIterator>::iter().collect();
        assert!(all.is_sorted());
        for version in all {
            assert_eq!(version.to_string().parse::<Version>().expect("own text"), version);
        }
        assert_eq!("v0.5.0".parse::<Version>().expect("with a v"), Version::V0_5);
        for bad in ["", "0.5", "0.2.0", "1.2.0", "vv0.5.0", "current"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }
}

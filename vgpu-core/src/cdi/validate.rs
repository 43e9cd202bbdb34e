//! What a loader refuses, refused before the file exists.

use std::collections::{BTreeMap, HashSet};

use super::name::{Kind, annotation_key, device_name};
use super::spec::{Device, Spec};
use super::validate_edits::edits;
use super::version::{Version, minimum};
use crate::error::{Error, ErrorKind, Result};

/// Checks a spec as loaders and runtimes do.
///
/// It is a little stricter than the loaders, where the runtime would fail later and with fewer
/// words: paths must be absolute and a hook's timeout above 0.
///
/// # Errors
/// `Invalid` for the first thing that is wrong, naming its place, `devices[0].containerEdits.env[1]`.
pub fn validate(spec: &Spec) -> Result<()> {
    let declared = version(spec)?;
    spec.kind.parse::<Kind>().map_err(|e| wrong("kind", e.message))?;
    annotations(&spec.annotations, "annotations")?;
    edits(&spec.container_edits, "containerEdits", declared)?;
    if spec.devices.is_empty() {
        return Err(wrong("devices", "there is none; a spec has at least one device"));
    }
    let mut names = HashSet::new();
    for (n, device) in spec.devices.iter().enumerate() {
        let place = format!("devices[{n}]");
        one_device(device, &place, declared)?;
        if !names.insert(&device.name) {
            return Err(wrong(&place, format!("{:?} is the name of a device before", device.name)));
        }
    }
    Ok(())
}

fn version(spec: &Spec) -> Result<Version> {
    let place = "cdiVersion";
    let declared: Version = spec.cdi_version.parse().map_err(|e: Error| wrong(place, e.message))?;
    let needed = minimum(spec);
    if declared < needed {
        return Err(wrong(
            place,
            format!("{declared} is declared, but what the spec says needs {needed}"),
        ));
    }
    Ok(declared)
}

fn one_device(device: &Device, place: &str, declared: Version) -> Result<()> {
    device_name(&device.name)
        .map_err(|why| wrong(&format!("{place}.name"), format!("{:?} {why}", device.name)))?;
    annotations(&device.annotations, &format!("{place}.annotations"))?;
    let inner = format!("{place}.containerEdits");
    if device.container_edits.is_empty() {
        return Err(wrong(&inner, "it changes nothing; a device must change something"));
    }
    edits(&device.container_edits, &inner, declared)
}

fn annotations(annotations: &BTreeMap<String, String>, place: &str) -> Result<()> {
    for key in annotations.keys() {
        annotation_key(key).map_err(|why| wrong(place, format!("the key {key:?} {why}")))?;
    }
    let bytes: usize = annotations.iter().map(|(k, v)| k.len() + v.len()).sum();
    if bytes > MOST_ANNOTATION_BYTES {
        return Err(wrong(place, format!("{bytes} bytes are more than 262144, the most allowed")));
    }
    Ok(())
}

/// The limit of Kubernetes, which loaders took over.
const MOST_ANNOTATION_BYTES: usize = 256 * 1024;

pub(super) fn wrong(place: &str, what: impl AsRef<str>) -> Error {
    Error::new(ErrorKind::Invalid, format!("CDI spec, {place}: {}", what.as_ref()))
}

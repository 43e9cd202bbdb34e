//! What a loader or runtime refuses in the edits of a device or of a whole spec.

use std::collections::HashSet;

use super::spec::{Edits, HookSpec, IntelRdt, MountSpec, NetDevice, Node};
use super::validate::wrong;
use super::version::Version;
use crate::error::Result;

pub(super) fn edits(edits: &Edits, place: &str, declared: Version) -> Result<()> {
    env(&edits.env, &format!("{place}.env"))?;
    each(&edits.device_nodes, &format!("{place}.deviceNodes"), node)?;
    each(&edits.hooks, &format!("{place}.hooks"), hook)?;
    each(&edits.mounts, &format!("{place}.mounts"), mount)?;
    net_devices(&edits.net_devices, &format!("{place}.netDevices"))?;
    match &edits.intel_rdt {
        Some(rdt) => intel_rdt(rdt, &format!("{place}.intelRdt"), declared),
        None => Ok(()),
    }
}

fn env(env: &[String], place: &str) -> Result<()> {
    each(env, place, |variable, place| match variable.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(()),
        _ => Err(wrong(place, format!("{variable:?} is not KEY=value"))),
    })
}

fn node(node: &Node, place: &str) -> Result<()> {
    absolute(&node.path, &format!("{place}.path"))?;
    if let Some(host) = node.host_path.as_deref().filter(|h| !h.is_empty()) {
        absolute(host, &format!("{place}.hostPath"))?;
    }
    let node_type = node.node_type.as_deref().unwrap_or_default();
    if !["", "b", "c", "p", "u"].contains(&node_type) {
        return Err(wrong(
            &format!("{place}.type"),
            format!("{node_type:?} is no type of a node; use b, c, u or p"),
        ));
    }
    let permissions = node.permissions.as_deref().unwrap_or_default();
    if permissions != "none" && !permissions.bytes().all(|b| b"rwm".contains(&b)) {
        return Err(wrong(
            &format!("{place}.permissions"),
            format!("{permissions:?} has more than r, w and m"),
        ));
    }
    Ok(())
}

fn hook(hook: &HookSpec, place: &str) -> Result<()> {
    if !HOOK_NAMES.contains(&&*hook.hook_name) {
        return Err(wrong(
            &format!("{place}.hookName"),
            format!("{:?} is no hook; use one of {}", hook.hook_name, HOOK_NAMES.join(", ")),
        ));
    }
    absolute(&hook.path, &format!("{place}.path"))?;
    env(&hook.env, &format!("{place}.env"))?;
    match hook.timeout {
        Some(seconds) if !(1..=u32::MAX.into()).contains(&seconds) => Err(wrong(
            &format!("{place}.timeout"),
            format!("{seconds} s is no time to wait; use 1 or more, or leave it out"),
        )),
        _ => Ok(()),
    }
}

const HOOK_NAMES: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

fn mount(mount: &MountSpec, place: &str) -> Result<()> {
    let host = format!("{place}.hostPath");
    match mount.mount_type.as_deref() {
        None | Some("" | "bind") => absolute(&mount.host_path, &host)?,
        // Of another file system this is its source, `tmpfs`, not a path.
        Some(_) if mount.host_path.is_empty() => return Err(wrong(&host, "it is empty")),
        Some(_) => {}
    }
    absolute(&mount.container_path, &format!("{place}.containerPath"))
}

fn net_devices(devices: &[NetDevice], place: &str) -> Result<()> {
    let mut hosts = HashSet::new();
    let mut names = HashSet::new();
    each(devices, place, |device, place| {
        let NetDevice { host_interface_name: host, name } = device;
        if host.is_empty() || name.is_empty() {
            return Err(wrong(place, "hostInterfaceName and name must both be given"));
        }
        if !hosts.insert(host) || !names.insert(name) {
            return Err(wrong(place, format!("{host} or {name} is used by an interface before")));
        }
        Ok(())
    })
}

fn intel_rdt(rdt: &IntelRdt, place: &str, declared: Version) -> Result<()> {
    let class = rdt.clos_id.as_deref().unwrap_or_default();
    if class.len() >= 4096 || class == "." || class == ".." || class.contains(['/', '\n']) {
        return Err(wrong(&format!("{place}.closID"), "it is no name of a folder"));
    }
    if declared >= Version::V1_1 && (rdt.enable_cmt.is_some() || rdt.enable_mbm.is_some()) {
        return Err(wrong(place, "enableCMT and enableMBM are gone since 1.1.0; drop them"));
    }
    Ok(())
}

fn absolute(path: &str, place: &str) -> Result<()> {
    if path.starts_with('/') {
        return Ok(());
    }
    Err(wrong(place, format!("{path:?} is not an absolute path; write the full one")))
}

fn each<'t, T>(
    items: &'t [T],
    place: &str,
    mut check: impl FnMut(&'t T, &str) -> Result<()>,
) -> Result<()> {
    items.iter().enumerate().try_for_each(|(n, item)| check(item, &format!("{place}[{n}]")))
}

//! What the oracle puts into a container is what the edits say, no more and no less.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use oci_spec::runtime as oci;
use proptest::prelude::*;
use vgpu_core::ContainerEdits;
use vgpu_core::cdi::{self, QualifiedName, Spec};
use vgpu_core::edits::{DeviceNode, HookAction, HookStage, MountMode};

use super::{load, options, ours, strategy};

proptest! {
    #[test]
    fn a_container_gets_what_the_edits_say(edits in strategy::edits()) {
        let rendered = cdi::render(&edits, &options());
        if edits.is_empty() {
            prop_assert!(rendered.is_err());
            return Ok(());
        }
        let spec = rendered.expect("edits that a backend may ask for");
        let text = serde_json::to_string_pretty(&spec).expect("serializes");
        prop_assert_eq!(serde_json::from_str::<Spec>(&text).expect("parses"), spec);
        prop_assert_eq!(ours(&text), Ok(()));

        let before = oci::Spec::default();
        let mut after = before.clone();
        let name = QualifiedName { kind: options().kind, name: options().name };
        load(&text)
            .expect("the oracle loads it")
            .inject_devices(Some(&mut after), vec![name.to_string()])
            .expect("the oracle injects it");

        compare_nodes(&edits, &after)?;
        compare_mounts(&edits, &before, &after)?;
        compare_env(&edits, &before, &after)?;
        compare_hooks(&edits, &after)?;
    }

    /// The declared version is the least: one lower, and the oracle refuses the same text.
    #[test]
    fn no_lower_version_would_do(edits in strategy::edits()) {
        prop_assume!(!edits.is_empty());
        let spec = cdi::render(&edits, &options()).expect("edits that a backend may ask for");
        let lower = match &*spec.cdi_version {
            "0.3.0" => return Ok(()),
            "0.5.0" => "0.4.0",
            other => return Err(TestCaseError::fail(format!("{other} is more than edits need"))),
        };
        let spec = Spec { cdi_version: lower.to_owned(), ..spec };
        let text = serde_json::to_string(&spec).expect("serializes");
        prop_assert!(load(&text).is_err());
        prop_assert!(ours(&text).is_err());
    }
}

fn compare_nodes(edits: &ContainerEdits, after: &oci::Spec) -> Result<(), TestCaseError> {
    let linux = after.linux().as_ref().expect("a Linux container");
    let found: Vec<_> = linux.devices().iter().flatten().collect();
    prop_assert_eq!(found.len(), edits.nodes.len());
    let allowed = linux.resources().as_ref().expect("resources").devices().iter().flatten();
    let allowed: Vec<_> = allowed.filter(|a| a.allow()).collect();
    prop_assert_eq!(allowed.len(), edits.nodes.len());
    for ((node, device), rule) in edits.nodes.iter().zip(found).zip(allowed) {
        let (major, minor) = numbers(node);
        prop_assert_eq!(device.path(), &node.path);
        prop_assert_eq!(device.typ(), oci::LinuxDeviceType::C);
        prop_assert_eq!((device.major(), device.minor()), (major, minor));
        prop_assert_eq!((rule.major(), rule.minor()), (Some(major), Some(minor)));
        prop_assert_eq!(rule.access().as_deref(), Some(node.access.as_str()));
    }
    Ok(())
}

fn numbers(node: &DeviceNode) -> (i64, i64) {
    if let Some((major, minor)) = node.number {
        return (major.into(), minor.into());
    }
    let host = node.host_path.as_ref().unwrap_or(&node.path);
    let number = std::fs::metadata(host).expect("every Linux has it").rdev();
    // Small numbers only: 8 bits of minor below 12 of major.
    ((number >> 8 & 0xfff) as i64, (number & 0xff) as i64)
}

fn compare_mounts(
    edits: &ContainerEdits,
    before: &oci::Spec,
    after: &oci::Spec,
) -> Result<(), TestCaseError> {
    const READ: [&str; 5] = ["ro", "nosuid", "nodev", "rbind", "rprivate"];
    const WRITE: [&str; 6] = ["rw", "nosuid", "nodev", "noexec", "rbind", "rprivate"];
    let mut expected: BTreeMap<PathBuf, (PathBuf, Vec<&str>)> = BTreeMap::new();
    for mount in &edits.mounts {
        let options = match mount.mode {
            MountMode::ReadOnly => READ.to_vec(),
            MountMode::Writable => WRITE.to_vec(),
        };
        expected.insert(mount.container.clone(), (mount.host.clone(), options));
    }
    let files = cdi::files(edits, &options().claim_dir);
    prop_assert_eq!(files.len(), edits.files.len());
    for (file, (host, text)) in edits.files.iter().zip(files) {
        prop_assert_eq!(text, &file.text);
        prop_assert!(host.parent().is_some_and(|p| p == options().claim_dir));
        expected.insert(file.container.clone(), (host, READ.to_vec()));
    }
    let hosts: std::collections::BTreeSet<_> =
        edits.files.iter().map(|f| &expected[&f.container].0).collect();
    prop_assert_eq!(hosts.len(), edits.files.len(), "two files share a place on the host");

    let base = before.mounts().iter().flatten().count();
    let all: Vec<_> = after.mounts().iter().flatten().collect();
    prop_assert_eq!(all.len(), base + expected.len());
    let found = &all[base..];
    for (n, mount) in found.iter().enumerate() {
        let (host, options) = &expected[mount.destination()];
        prop_assert_eq!(mount.source().as_ref(), Some(host));
        prop_assert_eq!(mount.typ(), &None);
        let got: Vec<&str> = mount.options().iter().flatten().map(String::as_str).collect();
        prop_assert_eq!(&got, options);
        let hidden = found[..n].iter().find(|m| m.destination().starts_with(mount.destination()));
        prop_assert!(hidden.is_none(), "{:?} is hidden by {:?}", hidden, mount);
    }
    Ok(())
}

fn compare_env(
    edits: &ContainerEdits,
    before: &oci::Spec,
    after: &oci::Spec,
) -> Result<(), TestCaseError> {
    let env = |spec: &oci::Spec| {
        let process = spec.process().as_ref().expect("a process");
        process.env().clone().unwrap_or_default()
    };
    let set = |key: &str| edits.env.iter().any(|(k, _)| k == key);
    let key = |v: &String| v.split('=').next().map(str::to_owned).expect("split yields one");
    let kept = env(before).into_iter().filter(|v| !set(&key(v)));
    let added = edits.env.iter().map(|(k, v)| format!("{k}={v}"));
    let mut expected: Vec<String> = kept.chain(added).collect();
    let mut found = env(after);
    expected.sort();
    found.sort();
    prop_assert_eq!(found, expected);
    Ok(())
}

fn compare_hooks(edits: &ContainerEdits, after: &oci::Spec) -> Result<(), TestCaseError> {
    let hooks = after.hooks().clone().unwrap_or_default();
    let at = |stage| edits.hooks.iter().filter(move |h| h.stage == stage).collect::<Vec<_>>();
    let mut before: Vec<_> =
        at(HookStage::CreateRuntime).iter().map(|hook| arguments(&hook.action)).collect();
    // Each container is looked at, by one hook.
    if !edits.hooks.iter().any(|hook| matches!(hook.action, HookAction::Confine(_))) {
        before.push(to_agent("notice", options().name.as_str()));
    }
    compare_stage(before, hooks.create_runtime())?;
    let inside = at(HookStage::CreateContainer).into_iter().map(|hook| arguments(&hook.action));
    compare_stage(inside.collect(), hooks.create_container())?;
    prop_assert!(hooks.start_container().iter().flatten().next().is_none());
    prop_assert!(hooks.poststart().iter().flatten().next().is_none());
    prop_assert!(hooks.poststop().iter().flatten().next().is_none());
    Ok(())
}

fn compare_stage(
    asked: Vec<Vec<String>>,
    found: &Option<Vec<oci::Hook>>,
) -> Result<(), TestCaseError> {
    let found: Vec<_> = found.iter().flatten().collect();
    prop_assert_eq!(found.len(), asked.len());
    for (asked, found) in asked.into_iter().zip(found) {
        prop_assert_eq!(found.path().clone(), options().hook.expect("is set"));
        prop_assert_eq!(found.timeout(), Some(cdi::HOOK_TIMEOUT_S));
        prop_assert!(found.env().iter().flatten().next().is_none(), "a hook gets no environment");
        prop_assert_eq!(found.args().clone().unwrap_or_default(), asked);
    }
    Ok(())
}

fn arguments(action: &HookAction) -> Vec<String> {
    let text = |path: &PathBuf| path.to_str().expect("UTF-8").to_owned();
    let mut args = vec!["vgpu-hook".to_owned()];
    match action {
        HookAction::Confine(claim) => return to_agent("confine", claim.as_str()),
        HookAction::Link(links) => {
            args.push("link".into());
            args.extend(links.iter().map(|l| format!("{}::{}", text(&l.target), text(&l.link))));
        }
        HookAction::LoaderCache(folders) => {
            args.push("loader-cache".into());
            args.extend(folders.iter().map(text));
        }
    }
    args
}

fn to_agent(verb: &str, claim: &str) -> Vec<String> {
    ["vgpu-hook", verb, claim, "--socket", "/run/vgpu/hook.sock"].map(Into::into).to_vec()
}

//! `ISO-*`: showing grants, and limits on living containers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use vgpu_core::cdi::{self, Kind, RenderOptions};
use vgpu_core::edits::MountMode;
use vgpu_core::{
    Backend, Bytes, Confinement, Container, ContainerEdits, Device, DeviceId, ErrorKind, Form,
    Grant, PartitionId, Scheme, SchemeInfo, Subject, Target, TrustDomain,
};

use crate::context::{Context, Outcome, Stop, brief, claim, ensure, nobody, refused, share};

/// `ISO-1`.
pub(crate) fn reads_only(cx: &Context<'_>) -> Outcome {
    let targets = cx.targets(1)?;
    let before = cx.backend.partitions(cx.id()?)?;
    let first = cx.backend.edits(&targets)?;
    let again = cx.backend.edits(&targets)?;
    ensure!(first == again, "asked twice: {first:?}, then {again:?}");
    let after = cx.backend.partitions(cx.id()?)?;
    ensure!(before == after, "asking for edits changed the parts to {}", brief(&after));
    Ok(())
}

/// `ISO-2`.
pub(crate) fn valid_cdi(cx: &Context<'_>) -> Outcome {
    let targets = cx.targets(1)?;
    let edits = cx.backend.edits(&targets)?;
    ensure!(!edits.is_empty(), "nothing is shown to the container");
    let kind = Kind::new("vgpu.dev/claim")?;
    for target in targets {
        let options = RenderOptions {
            kind: kind.clone(),
            claim_dir: PathBuf::from("/run/vgpu/claims").join(target.claim.as_str()),
            name: target.claim,
            hook: Some(PathBuf::from("/opt/vgpu/vgpu-hook")),
            socket: PathBuf::from("/run/vgpu/agent.sock"),
            annotations: BTreeMap::new(),
        };
        let spec = cdi::render(&edits, &options)?;
        cdi::validate(&spec)?;
    }
    Ok(())
}

/// `ISO-3`.
pub(crate) fn nothing_shared(cx: &Context<'_>) -> Outcome {
    let own = cx.targets(1)?;
    let card = cx.card()?;
    let info = cx.info(&card)?;
    let shown = writable(&cx.backend.edits(&own)?);
    // On the card itself: another domain's share, or another part.
    let beside = match info.form {
        Form::Shared => {
            Some(Target { claim: claim(), grant: share(&card.id, info, &another_domain()) })
        }
        // One daemon serves one domain, so that its clients may share its folder.
        Form::Carved if info.mode.domain.is_some() => None,
        Form::Carved => cx.targets(2).ok().and_then(|mut two| two.pop()),
    };
    if let Some(beside) = beside {
        disjoint(&shown, &writable(&cx.backend.edits(&[beside])?), "two claims on one card")?;
    }
    // On another card.
    for other in cx.neighbours()? {
        let Some(target) = there(cx, &other, info)? else { continue };
        let theirs = writable(&cx.backend.edits(&[target])?);
        disjoint(&shown, &theirs, "claims on two cards")?;
    }
    Ok(())
}

/// `ISO-4`.
pub(crate) fn differ_without_env(cx: &Context<'_>) -> Outcome {
    let targets = cx.targets(2)?;
    let mut stripped = Vec::new();
    for target in &targets {
        let edits = cx.backend.edits(std::slice::from_ref(target))?;
        // Hooks name the claim, which limits nothing by itself.
        stripped.push(ContainerEdits { env: Vec::new(), hooks: Vec::new(), ..edits });
    }
    ensure!(stripped[0] != stripped[1], "without env, both parts show {:?}", stripped[0]);
    Ok(())
}

/// `ISO-5`.
///
/// Of the card and not of each scheme: that nothing is found shows nothing of a way to split.
pub(crate) fn unknown_target(cx: &Context<'_>) -> Outcome {
    let card = cx.card()?;
    let show = |grant| cx.backend.edits(&[Target { claim: claim(), grant }]);
    for info in &card.schemes {
        if info.form == Form::Shared {
            let grant = share(&nobody(), info, &another_domain());
            let what = format!("showing an unknown card by {}", info.scheme);
            refused(show(grant), ErrorKind::NotFound, &what)?;
            continue;
        }
        for device in [card.id.clone(), nobody()] {
            let part = PartitionId::of(&device, &info.scheme, "conformance-no-such-part")?;
            let what = format!("showing the unknown part {part}");
            refused(show(Grant::Part(part)), ErrorKind::NotFound, &what)?;
        }
    }
    Ok(())
}

/// `ISO-6`.
pub(crate) fn own_nodes(cx: &Context<'_>) -> Outcome {
    let card = cx.card()?;
    let nodes = |device: &DeviceId| -> Outcome<BTreeSet<PathBuf>> {
        let target = Target { claim: claim(), grant: Grant::Whole(device.clone()) };
        let edits = cx.backend.edits(&[target])?;
        Ok(edits.nodes.into_iter().map(|n| n.host_path.unwrap_or(n.path)).collect())
    };
    if !gives_whole(&card) {
        return Err(Stop::Skip(format!("{} is in a mode in which it is not given whole", card.id)));
    }
    let own = nodes(&card.id)?;
    ensure!(!own.is_empty(), "the whole card shows no device node");
    let scan = cx.backend.scan()?;
    let others: Vec<_> =
        scan.devices.iter().filter(|d| d.id != card.id && gives_whole(d)).collect();
    if others.is_empty() {
        return Err(Stop::Skip("there is no second card to tell it from".into()));
    }
    for other in others {
        let theirs = nodes(&other.id)?;
        // What both show is the driver's own; each must show something besides.
        let ours: Vec<_> = own.difference(&theirs).collect();
        let left: Vec<_> = theirs.difference(&own).collect();
        ensure!(!ours.is_empty(), "{} shows all nodes of {}: {own:?}", other.id, card.id);
        ensure!(!left.is_empty(), "{} shows all nodes of {}: {own:?}", card.id, other.id);
        if other.model == card.model {
            let same = ours.len() == left.len();
            ensure!(same, "two like cards show unlike nodes: {ours:?} and {left:?}");
        }
    }
    Ok(())
}

/// `ISO-7`.
pub(crate) fn limit_equals_grant(cx: &Context<'_>) -> Outcome {
    let container = container(cx)?;
    let (target, info) = target_to_limit(cx)?;
    for round in ["once", "again"] {
        let result = cx.backend.confine(&target, &container)?;
        let limit = limit_in_force(&*cx.backend, cx.id()?, &container)?;
        match result {
            Confinement::Set => {
                let asked = granted(&target);
                ensure!(asked.is_some(), "Set {round}, and the grant has no limit");
                ensure!(
                    limit == asked,
                    "{} granted, Set {round}, {} in force",
                    shown(asked),
                    shown(limit)
                );
            }
            Confinement::NotNeeded => {
                ensure!(limit.is_none(), "NotNeeded {round}, and {} is in force", shown(limit));
                // Nothing but the container's own limit can hold a slice of time to its memory.
                let needs = info.scheme == Scheme::TIME_SLICE && granted(&target).is_some();
                ensure!(!needs, "a memory limit of {} is left unset", shown(granted(&target)));
            }
        }
    }
    cx.backend.unconfine(&target, &container)?;
    Ok(())
}

/// `ISO-8`.
pub(crate) fn limit_taken_back(cx: &Context<'_>) -> Outcome {
    let container = container(cx)?;
    let (target, _) = target_to_limit(cx)?;
    cx.backend.unconfine(&target, &container)?;
    cx.backend.confine(&target, &container)?;
    for round in ["once", "again"] {
        cx.backend.unconfine(&target, &container)?;
        let limit = limit_in_force(&*cx.backend, cx.id()?, &container)?;
        ensure!(limit.is_none(), "taken back {round}, {} is in force", shown(limit));
    }
    Ok(())
}

fn container(cx: &Context<'_>) -> Outcome<Container> {
    let none = || Stop::Skip("the fixture has no container to set limits on".into());
    cx.fixture.container().ok_or_else(none)
}

fn target_to_limit(cx: &Context<'_>) -> Outcome<(Target, SchemeInfo)> {
    let card = cx.card()?;
    let info = cx.info(&card)?.clone();
    let target = cx.targets(1)?.pop().ok_or_else(|| Stop::Skip("nothing to grant".into()))?;
    Ok((target, info))
}

fn shown(limit: Option<Bytes>) -> String {
    limit.map_or_else(|| "no limit".into(), |bytes| bytes.to_string())
}

fn granted(target: &Target) -> Option<Bytes> {
    match &target.grant {
        Grant::Shared { size, .. } => size.memory,
        Grant::Part(_) | Grant::Whole(_) => None,
    }
}

fn limit_in_force(
    backend: &dyn Backend,
    device: &DeviceId,
    container: &Container,
) -> Outcome<Option<Bytes>> {
    let subject = Subject::Cgroup(device.clone(), container.cgroup.clone());
    match backend.usage(&subject) {
        Ok(usage) => Ok(usage.limit),
        Err(e) if matches!(e.kind, ErrorKind::NotFound | ErrorKind::Unsupported) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// A grant on another card by the same scheme, if it has one without anything being made.
fn there(cx: &Context<'_>, other: &DeviceId, info: &SchemeInfo) -> Outcome<Option<Target>> {
    if info.form == Form::Shared {
        let scan = cx.backend.scan()?;
        let Some(device) = scan.devices.iter().find(|d| d.id == *other) else { return Ok(None) };
        let Ok(theirs) = device.scheme(&info.scheme) else { return Ok(None) };
        if !theirs.mode.active {
            return Ok(None);
        }
        let grant = share(other, theirs, &another_domain());
        return Ok(Some(Target { claim: claim(), grant }));
    }
    let scan = cx.backend.scan()?;
    let whole = scan.devices.iter().any(|d| d.id == *other && gives_whole(d));
    Ok(whole.then(|| Target { claim: claim(), grant: Grant::Whole(other.clone()) }))
}

/// Whether a card may be granted whole in the mode that it is in.
fn gives_whole(card: &Device) -> bool {
    card.scheme(&Scheme::WHOLE).is_ok_and(|whole| whole.mode.active)
}

fn another_domain() -> TrustDomain {
    TrustDomain::new("conformance-other").expect("letters and a dash make a domain")
}

fn writable(edits: &ContainerEdits) -> BTreeSet<PathBuf> {
    let mounts = edits.mounts.iter().filter(|m| m.mode == MountMode::Writable);
    mounts.map(|m| m.host.clone()).collect()
}

fn disjoint(a: &BTreeSet<PathBuf>, b: &BTreeSet<PathBuf>, what: &str) -> Outcome {
    for x in a {
        // A folder above another's is shared as well.
        let shared = b.iter().find(|y| x.starts_with(y) || y.starts_with(x));
        ensure!(shared.is_none(), "{what} share {} writable", x.display());
    }
    Ok(())
}

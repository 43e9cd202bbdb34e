//! Living containers: what they use, and whether the limits on them are still in force.
//!
//! A limit lives with the container's cgroup and with the driver. It goes when the driver is loaded
//! anew, another tool may change it, and systemd may move a container; so it is looked at again and
//! again. Whether a container lives is read from its cgroup and not from its pid: without the host's
//! `/proc` every process seems gone, and that must take no limit away.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vgpu_core::health::Usage;
use vgpu_core::id::{ClaimId, DeviceId};
use vgpu_core::order::{Grant, Target};
use vgpu_core::{Bytes, Confinement, Container, ErrorKind, Result, Subject};

use crate::claim::{ClaimRecord, Stage};
use crate::inventory::{self, Presence};
use crate::needs;
use crate::node::Node;

/// How long one card may take to tell the use of one grant.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a claim's trouble begins with when a limit could not be set again.
const TROUBLE: &str = "its memory limit is not in force";

impl Node {
    /// Reads the use of every grant, and sets limits again that went or that differ.
    pub(crate) fn look_at_containers(&self) {
        let mut by_card: BTreeMap<DeviceId, Vec<(ClaimId, usize)>> = BTreeMap::new();
        for claim in self.state().claims.iter().filter(|c| c.record.stage == Stage::Prepared) {
            for (at, grant) in claim.record.grants.iter().enumerate() {
                let grants = by_card.entry(grant.device().clone()).or_default();
                grants.push((claim.record.claim.clone(), at));
            }
        }
        let snapshot = self.inventory.snapshot();
        let here = |device: &DeviceId| {
            snapshot.cards.get(device).is_some_and(|card| card.presence == Presence::Here)
        };
        let cards: Vec<(DeviceId, Vec<(ClaimId, usize)>)> =
            by_card.into_iter().filter(|(device, _)| here(device)).collect();
        // Side by side: one that hangs keeps no other from being read in time.
        inventory::in_parallel(&cards, |(device, grants)| self.look_at_card(device, grants));
    }

    /// How many limits were found gone or changed, and set again, since the node was opened.
    pub fn limit_repairs(&self) -> u64 {
        self.state().limit_repairs
    }

    /// What the grants of each claim use, by their place in [`ClaimStatus::grants`], as far as the
    /// drivers told at the last look. Apart from the status, which changes only as the claim does.
    ///
    /// [`ClaimStatus::grants`]: crate::ClaimStatus::grants
    pub fn usage(&self) -> BTreeMap<ClaimId, BTreeMap<usize, Usage>> {
        let state = self.state();
        let told = state.claims.iter().filter(|claim| !claim.usage.is_empty());
        told.map(|claim| (claim.record.claim.clone(), claim.usage.clone())).collect()
    }

    fn look_at_card(&self, device: &DeviceId, grants: &[(ClaimId, usize)]) {
        for (claim, at) in grants {
            match self.look_at(device, claim, *at) {
                Ok(()) => {}
                // The others on the card would wait as long for nothing.
                Err(e)
                    if matches!(e.kind, ErrorKind::Busy | ErrorKind::InDoubt | ErrorKind::Lost) =>
                {
                    tracing::debug!(%device, %claim, error = %e, "use cannot be read now");
                    return;
                }
                Err(e) => tracing::debug!(%device, %claim, error = %e, "use cannot be read"),
            }
        }
    }

    fn look_at(&self, device: &DeviceId, claim: &ClaimId, at: usize) -> Result<()> {
        let Ok(known) = self.claim(claim) else { return Ok(()) };
        let record = &known.record;
        let Some(grant) = record.grants.get(at) else { return Ok(()) };
        let Some(target) = grant.target.clone() else { return Ok(()) };
        let usage = match subject(&target, record.container.as_ref()) {
            Some(subject) => self.use_of(device, subject)?,
            None => None,
        };
        if let Some(claim) = self.state().claims.find_mut(claim) {
            match usage {
                Some(usage) => drop(claim.usage.insert(at, usage)),
                None => drop(claim.usage.remove(&at)),
            }
        }
        // Only a grant that needs it has a hook that tells the container.
        let (Some(memory), Some(container)) = (grant.size.memory, &record.container) else {
            return Ok(());
        };
        if known.confinement == Some(Confinement::NotNeeded) {
            return Ok(());
        }
        let on_cgroup = match &target.grant {
            Grant::Whole(_) => return Ok(()),
            Grant::Shared { .. } => usage,
            // The part has a reading of its own, and the container another.
            Grant::Part(_) => {
                self.use_of(device, Subject::Cgroup(device.clone(), container.cgroup.clone()))?
            }
        };
        self.keep_limit(claim, &target, container, memory, on_cgroup.and_then(|u| u.limit));
        Ok(())
    }

    /// What is read of a subject; nothing where the driver counts nothing for it.
    fn use_of(&self, device: &DeviceId, subject: Subject) -> Result<Option<Usage>> {
        let lanes = self.lanes(device)?.within(PATIENCE);
        match lanes.read_device(device, "usage", move |b| b.usage(&subject)) {
            Ok(usage) => Ok(Some(usage)),
            Err(e) if matches!(e.kind, ErrorKind::NotFound | ErrorKind::Unsupported) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Sets a limit again that is not `memory`; takes it back from a cgroup that has no process left,
    /// since what the driver keeps of it in the cgroups above goes only while the cgroup is there.
    fn keep_limit(
        &self,
        claim: &ClaimId,
        target: &Target,
        container: &Container,
        memory: Bytes,
        found: Option<Bytes>,
    ) {
        let root = &self.options.root;
        let container = match Standing::of(container, root) {
            Standing::Gone => return,
            Standing::Ended if found.is_none() => return,
            Standing::Ended => {
                let undone = self.alone_with(claim, |_| self.unconfine(target, container));
                return tell(claim, "take back the limit of a container that ended", undone);
            }
            Standing::Here if found == Some(memory) => return self.limit_is_fine(claim),
            Standing::Here => container.clone(),
            Standing::Moved(cgroup) => Container { cgroup, ..container.clone() },
        };
        let outcome = self.alone_with(claim, |_| self.confine(claim, &container).map(drop));
        match &outcome {
            Ok(true)
                if self.claim(claim).is_ok_and(|c| c.confinement == Some(Confinement::Set)) =>
            {
                tracing::warn!(
                    %claim, cgroup = %container.cgroup.display(), %memory, found = ?found,
                    "a container's memory limit was not in force; it is set again"
                );
                self.state().limit_repairs += 1;
                self.limit_is_fine(claim);
            }
            Ok(_) => {}
            Err(e) => {
                if let Some(claim) = self.state().claims.find_mut(claim) {
                    claim.trouble = Some(format!("{TROUBLE}: {e}"));
                }
            }
        }
        tell(claim, "set a container's memory limit again", outcome);
    }

    /// Does something for a claim that stays prepared meanwhile; says whether it was done.
    fn alone_with(
        &self,
        claim: &ClaimId,
        act: impl FnOnce(&ClaimRecord) -> Result<()>,
    ) -> Result<bool> {
        let work = self.claim(claim)?.work;
        // Whoever prepares or releases it does what is needed.
        let Ok(_guard) = work.try_lock() else { return Ok(false) };
        let record = self.claim(claim)?.record;
        if record.stage != Stage::Prepared {
            return Ok(false);
        }
        act(&record).map(|()| true)
    }

    fn limit_is_fine(&self, claim: &ClaimId) {
        if let Some(claim) = self.state().claims.find_mut(claim) {
            claim.trouble.take_if(|trouble| trouble.starts_with(TROUBLE));
        }
    }
}

/// Where a container is that was confined.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// Its cgroup has no process left.
    Ended,
    /// Its cgroup is not there, or not to be seen from here.
    Gone,
    Here,
    /// Its first process is in another cgroup now.
    Moved(PathBuf),
}

impl Standing {
    fn of(container: &Container, root: &Path) -> Self {
        let same = needs::namespace(container.pid, root)
            .is_ok_and(|namespace| namespace == container.pid_namespace);
        if same
            && let Some(now) = cgroup_of(container.pid, root)
            && now != container.cgroup
        {
            return Self::Moved(now);
        }
        let folder = below(root, &container.cgroup);
        if !folder.is_dir() {
            return Self::Gone;
        }
        let events = fs::read_to_string(folder.join("cgroup.events")).unwrap_or_default();
        if events.lines().any(|line| line == "populated 0") { Self::Ended } else { Self::Here }
    }
}

/// The cgroup of a process on a host of cgroup v2.
fn cgroup_of(pid: u32, root: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(root.join(format!("proc/{pid}/cgroup"))).ok()?;
    let within = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    // From outside of its cgroup namespace a path begins with `/..`; under v1 there are other lines.
    let alone = text.lines().count() == 1 && !within.split('/').any(|part| part == "..");
    alone.then(|| Path::new("/sys/fs/cgroup").join(within.trim_start_matches('/')))
}

fn below(root: &Path, on_host: &Path) -> PathBuf {
    root.join(on_host.strip_prefix("/").unwrap_or(on_host))
}

/// Whose use is read for a grant.
fn subject(target: &Target, container: Option<&Container>) -> Option<Subject> {
    match &target.grant {
        Grant::Part(part) => Some(Subject::Part(part.clone())),
        Grant::Whole(device) => Some(Subject::Device(device.clone())),
        Grant::Shared { device, .. } => {
            container.map(|c| Subject::Cgroup(device.clone(), c.cgroup.clone()))
        }
    }
}

fn tell(claim: &ClaimId, what: &str, outcome: Result<bool>) {
    if let Err(e) = outcome {
        tracing::error!(%claim, error = %e, "cannot {what}");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const CGROUP: &str = "/sys/fs/cgroup/kubepods.slice/a.scope";

    #[test]
    fn where_a_container_is() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("below the root")).expect("made");
            fs::write(path, text).expect("written");
        };
        // Stands for the namespace: what counts is the inode.
        write("proc/7/ns/pid", "");
        let inode = fs::metadata(root.path().join("proc/7/ns/pid")).expect("there").ino();
        let container = Container { cgroup: CGROUP.into(), pid: 7, pid_namespace: inode };
        let now = || Standing::of(&container, root.path());
        assert_eq!(now(), Standing::Gone);
        write(&format!("{}/cgroup.events", &CGROUP[1..]), "populated 1\nfrozen 0\n");
        assert_eq!(now(), Standing::Here);
        write("proc/7/cgroup", "0::/kubepods.slice/a.scope\n");
        assert_eq!(now(), Standing::Here);
        write("proc/7/cgroup", "0::/kubepods.slice/b.scope\n");
        assert_eq!(now(), Standing::Moved("/sys/fs/cgroup/kubepods.slice/b.scope".into()));
        for unknown in ["0::/../b.scope\n", "4:memory:/kubepods/b\n0::/\n", ""] {
            write("proc/7/cgroup", unknown);
            assert_eq!(now(), Standing::Here, "{unknown:?}");
        }
        let stranger = Container { pid_namespace: inode + 1, ..container.clone() };
        write("proc/7/cgroup", "0::/kubepods.slice/b.scope\n");
        assert_eq!(
            Standing::of(&stranger, root.path()),
            Standing::Here,
            "its pid is another's now"
        );
        write(&format!("{}/cgroup.events", &CGROUP[1..]), "populated 0\nfrozen 0\n");
        assert_eq!(Standing::of(&stranger, root.path()), Standing::Ended);
    }
}

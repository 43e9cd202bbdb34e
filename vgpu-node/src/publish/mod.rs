//! CDI specs and claim files on disk: the gate through which a grant reaches a container.
//!
//! A spec is there only while its part is there and is ours. So it is written last and withdrawn
//! first, and it is never half visible.
//!
//! None of it waits for the disk: it outlives a killed agent, and after a boot all specs are withdrawn and written
//! anew from the ledger, which does.

mod facts;
mod files;
mod left;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use vgpu_core::cdi::{self, Kind, RenderOptions};
use vgpu_core::edits::{ClaimFile, ContainerEdits};
use vgpu_core::error::{Error, ErrorKind, Result};
use vgpu_core::id::ClaimId;

use crate::points::FaultPoints;

pub use facts::{CLAIM_FILE, ClaimFacts, GrantFacts};
pub(crate) use left::{Left, Mark};

/// Where specs and claim files go.
#[derive(Debug, Clone)]
pub struct SpecOptions {
    /// The folder that the runtime reads, `/var/run/cdi`; others write there too.
    pub cdi_dir: PathBuf,
    /// The folder of the claims' own folders; ours alone.
    pub claims_dir: PathBuf,
    /// The kind of our devices, `vgpu.dev/claim`.
    pub kind: Kind,
    /// Path of `vgpu-hook` on the host.
    pub hook: Option<PathBuf>,
    /// The agent's socket on the host, for the hook.
    pub socket: PathBuf,
    /// Where tests end the agent.
    pub points: FaultPoints,
}

/// The specs of this agent.
#[derive(Debug, Clone)]
pub struct Specs {
    options: SpecOptions,
}

impl Specs {
    /// Specs under these folders, which are made when they are needed.
    ///
    /// # Errors
    /// `Invalid` for a path that is not absolute: runtime and hook would look for it elsewhere.
    pub fn new(options: SpecOptions) -> Result<Self> {
        let SpecOptions { cdi_dir, claims_dir, hook, socket, .. } = &options;
        let paths = [cdi_dir, claims_dir, socket].into_iter().chain(hook);
        if let Some(path) = paths.into_iter().find(|path| !path.is_absolute()) {
            let why = format!("{} is not absolute; write the full path", path.display());
            return Err(Error::new(ErrorKind::Invalid, why));
        }
        Ok(Self { options })
    }

    /// Writes the files of a claim and then its spec; visible when it returns. Doing it again replaces what
    /// was there.
    ///
    /// # Errors
    /// `Invalid` for edits that no runtime would take, and nothing is written; `Io`, `Permission`
    /// from the disk, and the spec is as it was.
    pub fn publish(
        &self,
        claim: &ClaimId,
        edits: &ContainerEdits,
        facts: &ClaimFacts,
    ) -> Result<()> {
        self.published_as(claim, edits, facts).map_err(|e| e.during("publish").with("claim", claim))
    }

    /// Whether the spec of a claim and its files are what [`Self::publish`] would write now.
    ///
    /// # Errors
    /// `Invalid` for edits that no runtime would take. What cannot be read is not current.
    pub fn is_current(
        &self,
        claim: &ClaimId,
        edits: &ContainerEdits,
        facts: &ClaimFacts,
    ) -> Result<bool> {
        let SpecOptions { cdi_dir, claims_dir, kind, .. } = &self.options;
        let edits = with_facts(edits, facts)?;
        let claim_dir = claims_dir.join(claim.as_str());
        let spec = self.spec(claim, &edits, claim_dir.clone())?;
        let file = cdi_dir.join(cdi::file_name(kind, claim)?);
        let is =
            |path: &Path, text: &str| std::fs::read(path).is_ok_and(|is| is == text.as_bytes());
        let files = cdi::files(&edits, &claim_dir);
        Ok(is(&file, &spec) && files.iter().all(|(path, text)| is(path, text)))
    }

    /// Removes the spec of a claim, and then its files. Without either there is nothing to do.
    ///
    /// # Errors
    /// `Io`, `Permission`; done again it goes on where it failed.
    pub fn withdraw(&self, claim: &ClaimId) -> Result<()> {
        self.withdrawn(claim).map_err(|e| e.during("withdraw").with("claim", claim))
    }

    /// The claims whose specs are there. Files of others are not looked at.
    ///
    /// # Errors
    /// `Io`, `Permission`.
    pub fn published(&self) -> Result<Vec<ClaimId>> {
        let names = files::names(&self.options.cdi_dir)?;
        Ok(names.iter().filter_map(|n| cdi::claim_of(&self.options.kind, n)).collect())
    }

    /// Withdraws every claim that is not in `keep`, and clears away what a crash left; says which
    /// specs were there.
    ///
    /// # Errors
    /// The first `Io` or `Permission`, after all were tried.
    pub fn withdraw_others(&self, keep: &[ClaimId]) -> Result<Vec<ClaimId>> {
        let SpecOptions { cdi_dir, claims_dir, kind, points, .. } = &self.options;
        let others: Vec<ClaimId> =
            self.published()?.into_iter().filter(|claim| !keep.contains(claim)).collect();
        let mut first = Ok(());
        for claim in &others {
            first = first.and(self.withdraw(claim));
        }
        let half = |name: &str| {
            let spec = name.strip_suffix(&cdi::temp_name(""))?;
            cdi::claim_of(kind, spec)
        };
        points.hit("publish.sweep");
        for name in files::names(cdi_dir)?.iter().filter(|n| half(n).is_some()) {
            first = first.and(files::remove(&cdi_dir.join(name)));
        }
        for name in files::names(claims_dir)? {
            if name.parse().is_ok_and(|claim: ClaimId| !keep.contains(&claim)) {
                first = first.and(files::remove_folder(&claims_dir.join(name)));
            }
        }
        points.hit("publish.sweep");
        first.map(|()| others)
    }

    /// The name under which the runtime is asked for a claim, `vendor/class=claim`.
    pub fn qualified(&self, claim: &ClaimId) -> String {
        format!("{}={claim}", self.options.kind)
    }

    fn published_as(
        &self,
        claim: &ClaimId,
        edits: &ContainerEdits,
        facts: &ClaimFacts,
    ) -> Result<()> {
        let SpecOptions { cdi_dir, claims_dir, points, .. } = &self.options;
        let edits = with_facts(edits, facts)?;
        let claim_dir = claims_dir.join(claim.as_str());
        let spec = self.spec(claim, &edits, claim_dir.clone())?;
        let file = cdi::file_name(&self.options.kind, claim)?;

        points.around("publish.claim-dir", || {
            files::make_folder(claims_dir)?;
            files::make_folder(&claim_dir)
        })?;
        let claim_files = cdi::files(&edits, &claim_dir);
        for (path, text) in &claim_files {
            points.around("publish.claim-file", || files::replace(path, text, 0o444))?;
        }

        files::make_folder(cdi_dir)?;
        let (half, whole) = (cdi_dir.join(cdi::temp_name(&file)), cdi_dir.join(&file));
        points.around("publish.spec-file", || files::write(&half, &spec, 0o644))?;
        points.around("publish.rename", || files::rename(&half, &whole))?;

        // What an earlier publication left in the claim's folder; no spec names it any more.
        let named: BTreeSet<&Path> = claim_files.iter().map(|(path, _)| &**path).collect();
        for name in files::names(&claim_dir)? {
            let path = claim_dir.join(name);
            if !named.contains(&*path) {
                files::remove(&path)?;
            }
        }
        Ok(())
    }

    fn spec(&self, claim: &ClaimId, edits: &ContainerEdits, claim_dir: PathBuf) -> Result<String> {
        let spec = cdi::render(
            edits,
            &RenderOptions {
                kind: self.options.kind.clone(),
                name: claim.clone(),
                hook: self.options.hook.clone(),
                socket: self.options.socket.clone(),
                claim_dir,
                annotations: BTreeMap::new(),
            },
        )?;
        let text = serde_json::to_string_pretty(&spec)
            .map_err(|e| Error::new(ErrorKind::Invalid, format!("a spec that is no JSON: {e}")))?;
        // As a loader does it: the text, not what we think that we wrote.
        let read = serde_json::from_str(&text)
            .map_err(|e| Error::new(ErrorKind::Invalid, format!("a spec that is no spec: {e}")))?;
        cdi::validate(&read)?;
        Ok(text)
    }

    fn withdrawn(&self, claim: &ClaimId) -> Result<()> {
        let SpecOptions { cdi_dir, claims_dir, kind, points, .. } = &self.options;
        let file = cdi::file_name(kind, claim)?;
        points.around("withdraw.spec", || {
            files::remove(&cdi_dir.join(&file))?;
            files::remove(&cdi_dir.join(cdi::temp_name(&file)))
        })?;
        points
            .around("withdraw.claim-dir", || files::remove_folder(&claims_dir.join(claim.as_str())))
    }
}

/// The edits, and what the tenant may know of them.
fn with_facts(edits: &ContainerEdits, facts: &ClaimFacts) -> Result<ContainerEdits> {
    let told = ContainerEdits {
        files: vec![ClaimFile { container: CLAIM_FILE.into(), text: facts.to_json()? }],
        ..ContainerEdits::default()
    };
    edits.clone().merge(told)
}

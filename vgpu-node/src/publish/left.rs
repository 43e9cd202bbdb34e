//! What an earlier run left published: which claim has which part, if the ledger is lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use vgpu_core::cdi;
use vgpu_core::error::Result;
use vgpu_core::id::ClaimId;

use super::{CLAIM_FILE, ClaimFacts, Specs, files};

/// The facts of claims, by the names under which they are published.
pub(crate) type Left = BTreeMap<ClaimId, ClaimFacts>;

/// The file that says in which boot the claims' folders were last gone through: what is in them was published since.
#[derive(Debug)]
pub(crate) struct Mark {
    path: PathBuf,
    boot_id: String,
}

impl Mark {
    /// The mark of a state folder, in this boot.
    pub(crate) fn new(state_dir: &Path, boot_id: String) -> Self {
        Self { path: state_dir.join("claims.boot"), boot_id }
    }

    /// Writes it, once nothing of an earlier boot is in the folders any more.
    ///
    /// # Errors
    /// `Io`, `Permission`.
    pub(crate) fn set(&self) -> Result<()> {
        if self.is_set() {
            return Ok(());
        }
        files::replace(&self.path, &self.boot_id, 0o600)
    }

    fn is_set(&self) -> bool {
        fs::read(&self.path).is_ok_and(|is| is == self.boot_id.as_bytes())
    }
}

impl Specs {
    /// The facts of every claim of which spec and file are there, both of this boot. What cannot be read or says
    /// anything else than it should is left out: it proves nothing.
    pub(crate) fn left(&self, mark: &Mark) -> Left {
        if !mark.is_set() {
            return Left::new();
        }
        let published = self.published().unwrap_or_default().into_iter();
        published.filter_map(|name| Some((name.clone(), self.facts(&name)?))).collect()
    }

    fn facts(&self, name: &ClaimId) -> Option<ClaimFacts> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
            #[serde(flatten)]
            facts: ClaimFacts,
        }
        const MOST: u64 = 256 << 10;
        let folder = self.options.claims_dir.join(name.as_str());
        let spec =
            fs::read(self.options.cdi_dir.join(cdi::file_name(&self.options.kind, name).ok()?));
        let spec: cdi::Spec = serde_json::from_slice(&spec.ok()?).ok()?;
        // The very file that the spec puts into containers, and a file of ours.
        let mounts = spec.devices.iter().flat_map(|device| &device.container_edits.mounts);
        let mount = mounts
            .into_iter()
            .find(|mount| Path::new(&mount.container_path) == Path::new(CLAIM_FILE))?;
        let path = Path::new(&mount.host_path);
        let meta = fs::symlink_metadata(path).ok()?;
        if path.parent() != Some(folder.as_path()) || !meta.is_file() || meta.len() > MOST {
            return None;
        }
        let read: Versioned = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (read.version == 1).then_some(read.facts)
    }
}

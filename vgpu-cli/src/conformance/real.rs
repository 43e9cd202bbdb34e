//! A real backend under the suite: no faults, and read-only unless allowed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vgpu_conformance::{Fixture, Permission};
use vgpu_core::{Backend, BackendFactory, Error, ErrorKind, Host, Probe, Result};

use crate::backends::Name;
use crate::failure::Failure;

/// A backend on this machine's cards.
#[derive(Debug)]
pub(super) struct RealFixture {
    name: String,
    factory: Arc<dyn BackendFactory>,
    host: Host,
    permission: Permission,
    patience: Duration,
    /// Held as long as the fixture lives, so that no two runs change the same cards.
    _alone: Option<File>,
}

impl RealFixture {
    /// The fixture; where cards may be changed, with this machine's lock.
    pub(super) fn new(
        name: Name,
        factory: Arc<dyn BackendFactory>,
        host: Host,
        permission: Permission,
        patience: Duration,
    ) -> std::result::Result<Self, Failure> {
        let alone = match permission {
            Permission::Destructive => {
                let file = format!("run/lock/vgpu-conformance-{name}.lock");
                Some(lock(&host.root.join(file))?)
            }
            Permission::ReadOnly => None,
        };
        Ok(Self { name: name.to_string(), factory, host, permission, patience, _alone: alone })
    }
}

impl Fixture for RealFixture {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self) -> Result<Arc<dyn Backend>> {
        match self.factory.probe(&self.host) {
            Probe::Absent(why) => Err(Error::new(ErrorKind::NotFound, why)),
            Probe::Broken(error) => Err(error),
            Probe::Ready(backend) => Ok(backend),
        }
    }

    fn permission(&self) -> Permission {
        self.permission
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn empty_host(&self) -> Option<(Arc<dyn BackendFactory>, Host)> {
        // Nothing can lie below a file, so that this host stays empty.
        let host = Host { root: PathBuf::from("/dev/null/nothing"), library: None };
        Some((Arc::clone(&self.factory), host))
    }
}

fn lock(path: &Path) -> std::result::Result<File, Failure> {
    let place = path.display().to_string();
    let file = File::create(path).map_err(|error| {
        Failure::broken(format!("cannot keep other runs out: {error}"))
            .at(&*place)
            .so("run as root, or without --allow-destructive")
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(Failure::broken("another run changes these cards now").at(place).so("wait for it"))
        }
        Err(std::fs::TryLockError::Error(error)) => {
            Err(Failure::broken(format!("cannot keep other runs out: {error}")).at(place))
        }
    }
}

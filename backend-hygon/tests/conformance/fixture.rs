//! A prepared host as the suite wants it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use vgpu_backend_hygon::{
    HygonBackend, HygonFactory, HygonOptions, LibraryCalls, LoadedSmi, Parts, RocmSmi,
};
use vgpu_conformance::{FaultPlan, Fixture, Permission, Support};
use vgpu_core::{Backend, BackendFactory, Container, Error, ErrorKind, Host, Probe, Result};

use crate::support::{FakeHost, FaultyDisk, Hanging, built, preset};

/// The machine that this process's environment names.
#[derive(Debug)]
pub(crate) struct FakeHygon {
    name: String,
    pub(crate) fake: FakeHost,
    /// By library, the whole way through the factory.
    by_library: Option<HygonFactory>,
    /// By file, over a disk that can fail.
    smi: Arc<dyn RocmSmi>,
    pub(crate) disk: Arc<FaultyDisk>,
    pub(crate) hanging: Mutex<Option<Hanging>>,
    empty: TempDir,
    library: PathBuf,
}

impl FakeHygon {
    pub(crate) fn here(way: &str) -> Result<Self> {
        let scenario = std::env::var_os("FAKE_HYDMI").map(PathBuf::from).unwrap_or_default();
        let root = scenario.parent().unwrap_or(Path::new("/nowhere"));
        let name = std::env::var("VGPU_TEST_PRESET").unwrap_or_default();
        let unknown = || Error::new(ErrorKind::NotFound, format!("no preset {name:?}"));
        let cards = preset(&name).ok_or_else(unknown)?;
        let smi = built(SMI);
        let loaded = LoadedSmi::load(&smi).map_err(|e| Error::new(ErrorKind::Io, e.to_string()))?;
        let empty =
            tempfile::tempdir().map_err(|e| Error::io("make", &std::env::temp_dir(), &e))?;
        Ok(Self {
            name: format!("{name}-{way}"),
            fake: FakeHost { root: root.to_owned(), cards },
            by_library: (way != "file").then(|| HygonFactory::new(options())),
            smi: Arc::new(loaded),
            disk: Arc::default(),
            hanging: Mutex::default(),
            empty,
            library: built("libfake_hydmi.so"),
        })
    }

    pub(crate) fn is_by_library(&self) -> bool {
        self.by_library.is_some()
    }

    /// Where a backend by library looks.
    pub(crate) fn host(&self) -> Host {
        self.fake.host(Some(self.library.clone()))
    }
}

/// What a backend by library is told, here and in a child.
pub(crate) fn options() -> HygonOptions {
    HygonOptions {
        rocm_smi: Some(built(SMI)),
        calls: LibraryCalls::Here,
        ..HygonOptions::default()
    }
}

const SMI: &str = "libfake_rocm_smi.so";

impl Fixture for FakeHygon {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self) -> Result<Arc<dyn Backend>> {
        let Some(factory) = &self.by_library else {
            let smi = Some(Arc::clone(&self.smi));
            let disk = Arc::clone(&self.disk) as _;
            let parts = Parts { smi, disk, ..Parts::default() };
            let host = self.fake.host(None);
            return Ok(Arc::new(HygonBackend::over(parts, &host, HygonOptions::default())));
        };
        match factory.probe(&self.host()) {
            Probe::Absent(why) => Err(Error::new(ErrorKind::NotFound, why)),
            Probe::Broken(error) => Err(error),
            Probe::Ready(backend) => Ok(backend),
        }
    }

    fn permission(&self) -> Permission {
        Permission::Destructive
    }

    fn faults(&self) -> Option<&dyn FaultPlan> {
        Some(self)
    }

    fn empty_host(&self) -> Option<(Arc<dyn BackendFactory>, Host)> {
        let host = Host { root: self.empty.path().to_owned(), library: None };
        Some((Arc::new(HygonFactory::default()), host))
    }

    fn container(&self) -> Option<Container> {
        Some(Container {
            cgroup: self.fake.at("sys/fs/cgroup/container"),
            pid: std::process::id(),
            pid_namespace: 1,
        })
    }

    fn reset(&self) -> Result<Support> {
        self.heal()?;
        self.fake.rewrite().map_err(|e| Error::io("write", &self.fake.root, &e))?;
        Ok(Support::Played)
    }
}

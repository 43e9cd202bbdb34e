//! How a mock vendor is found on a host.

use std::sync::Arc;

use vgpu_core::{Backend, BackendFactory, ErrorKind, Host, Probe, Vendor};

use crate::backend::{MockBackend, mock};
use crate::defect::Defect;
use crate::flawed::{Flawed, Memory};
use crate::machine::Machine;
use crate::vendor;

/// Makes mock backends of one vendor, or of all at once.
///
/// A factory stands for a process: after the driver was replaced its probes are `Broken`, and only
/// a new factory loads the new driver.
#[derive(Debug)]
pub struct MockFactory {
    machine: Arc<Machine>,
    only: Option<Vendor>,
    defect: Option<Defect>,
    memory: Arc<Memory>,
    driver: u64,
}

impl MockFactory {
    /// The backend of one vendor of a machine.
    pub fn new(machine: &Arc<Machine>, vendor: Vendor) -> Self {
        Self::of(machine, Some(vendor))
    }

    /// One backend of the vendor `mock` that serves the cards of all vendors.
    pub fn combined(machine: &Arc<Machine>) -> Self {
        Self::of(machine, None)
    }

    /// A factory for each of the three vendors, whether the machine has their cards or not.
    pub fn all(machine: &Arc<Machine>) -> Vec<Arc<dyn BackendFactory>> {
        [Vendor::NVIDIA, Vendor::HYGON, Vendor::CAMBRICON]
            .into_iter()
            .map(|vendor| Arc::new(Self::new(machine, vendor)) as Arc<dyn BackendFactory>)
            .collect()
    }

    /// The same factory with one promise broken, for the suite's own test.
    #[must_use]
    pub fn with_defect(mut self, defect: Defect) -> Self {
        self.defect = Some(defect);
        self
    }

    fn of(machine: &Arc<Machine>, only: Option<Vendor>) -> Self {
        // A machine whose file is gone fails in `probe`, where it can be told.
        let driver = machine.read(|state| state.driver).unwrap_or(0);
        Self {
            machine: Arc::clone(machine),
            only,
            defect: None,
            memory: Arc::new(Memory::default()),
            driver,
        }
    }
}

impl BackendFactory for MockFactory {
    fn vendor(&self) -> Vendor {
        self.only.clone().unwrap_or_else(mock)
    }

    fn probe(&self, _host: &Host) -> Probe {
        let looked = self.machine.read(|state| (state.has(self.only.as_ref()), state.driver));
        let (there, driver) = match looked {
            Ok(looked) => looked,
            Err(e) => return Probe::Broken(e),
        };
        if !there && self.defect != Some(Defect::Back10) {
            let whose = self.only.as_ref().map_or("any vendor", Vendor::as_str);
            return Probe::Absent(format!("the mock machine has no card of {whose}"));
        }
        if driver != self.driver {
            let why = "the driver was replaced under the library; a new process must load it";
            let init = "init";
            let kind = ErrorKind::DriverReplaced;
            return Probe::Broken(vendor::refuse(&self.vendor(), init, kind, why));
        }
        let sound = MockBackend::new(Arc::clone(&self.machine), self.only.clone(), self.driver);
        let backend: Arc<dyn Backend> = match self.defect {
            None => Arc::new(sound),
            Some(defect) => Arc::new(Flawed::new(sound, defect, Arc::clone(&self.memory))),
        };
        Probe::Ready(backend)
    }
}

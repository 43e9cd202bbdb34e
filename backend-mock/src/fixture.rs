//! A scripted machine as the conformance suite's fixture, with every fault.

use std::sync::Arc;
use std::time::Duration;

use vgpu_conformance::{During, FaultPlan, Fixture, Permission, Support};
use vgpu_core::{
    Backend, BackendFactory, Container, CreateOrder, DeviceId, Error, ErrorKind, Event, Host,
    Meaning, PartitionId, Probe, Subject, Vendor,
};

use crate::Result;
use crate::defect::Defect;
use crate::factory::MockFactory;
use crate::faults::{Faults, Snapshot};
use crate::machine::Machine;
use crate::preset::Preset;
use crate::script::{Action, At, Op, Rule};
use crate::spec::MachineSpec;

/// A scripted machine under the suite.
#[derive(Debug)]
pub struct MockFixture {
    name: String,
    machine: Arc<Machine>,
    only: Option<Vendor>,
    defect: Option<Defect>,
    permission: Permission,
    patience: Duration,
    faults: Faults,
    fresh: Snapshot,
    /// The factory stands for the process of one case; a reset starts another.
    factory: std::sync::Mutex<MockFactory>,
}

/// The fixtures behind `--backend mock`: every preset that has cards.
///
/// With a planted defect they are impatient: the one that hangs does so for certain, on each kind
/// of card.
///
/// # Errors
/// `Invalid` for a defect that no clause has.
pub fn fixtures(permission: Permission, defect: Option<&str>) -> Result<Vec<Box<dyn Fixture>>> {
    let defect = defect.map(Defect::parse).transpose()?;
    let one = |fixture: MockFixture| {
        let fixture = fixture.permitting(permission);
        let fixture = match defect {
            Some(defect) => fixture.with_defect(defect).with_patience(Duration::from_secs(2)),
            None => fixture,
        };
        Box::new(fixture) as Box<dyn Fixture>
    };
    Ok(MockFixture::all()?.into_iter().map(one).collect())
}

impl MockFixture {
    /// All cards of a machine behind one backend, with everything permitted.
    ///
    /// # Errors
    /// As [`Machine::new`].
    pub fn new(name: &str, spec: impl Into<MachineSpec>) -> Result<Self> {
        Self::of(name, spec, None)
    }

    /// The cards of one vendor of a machine.
    ///
    /// # Errors
    /// As [`Machine::new`].
    pub fn of(
        name: &str,
        spec: impl Into<MachineSpec>,
        only: impl Into<Option<Vendor>>,
    ) -> Result<Self> {
        Self::on(name, Machine::new(spec)?, only)
    }

    /// The cards of one vendor, or of all, of a machine that is there already, perhaps in a file
    /// that other processes use too.
    ///
    /// # Errors
    /// As [`Machine::boot_id`].
    pub fn on(name: &str, machine: Arc<Machine>, only: impl Into<Option<Vendor>>) -> Result<Self> {
        let only = only.into();
        let faults = machine.faults();
        let fresh = faults.snapshot()?;
        let factory = std::sync::Mutex::new(factory(&machine, only.as_ref(), None));
        Ok(Self {
            name: name.to_owned(),
            machine,
            only,
            defect: None,
            permission: Permission::Destructive,
            patience: Duration::from_secs(60),
            faults,
            fresh,
            factory,
        })
    }

    /// A preset by its name, `mock-mixed`.
    ///
    /// # Errors
    /// As [`Machine::new`].
    pub fn preset(preset: Preset) -> Result<Self> {
        Self::new(&format!("mock-{preset}"), preset)
    }

    /// Every preset that has cards: together they show every clause.
    ///
    /// # Errors
    /// As [`Machine::new`].
    pub fn all() -> Result<Vec<Self>> {
        use strum::IntoEnumIterator;
        Preset::iter().filter(|p| *p != Preset::Empty).map(Self::preset).collect()
    }

    /// The same with one promise broken.
    #[must_use]
    pub fn with_defect(mut self, defect: Defect) -> Self {
        self.defect = Some(defect);
        *self.lock() = factory(&self.machine, self.only.as_ref(), self.defect);
        self
    }

    /// The same with this permitted.
    #[must_use]
    pub fn permitting(mut self, permission: Permission) -> Self {
        self.permission = permission;
        self
    }

    /// The same with this guard against calls that hang for good.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The machine that it runs on.
    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, MockFactory> {
        self.factory.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Fixture for MockFixture {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self) -> Result<Arc<dyn Backend>> {
        match self.lock().probe(&Host::default()) {
            Probe::Ready(backend) => Ok(backend),
            Probe::Absent(why) => Err(Error::new(ErrorKind::NotFound, why)),
            Probe::Broken(e) => Err(e),
        }
    }

    fn permission(&self) -> Permission {
        self.permission
    }

    fn faults(&self) -> Option<&dyn FaultPlan> {
        // Faults change the machine, and whoever only reads must find it unchanged.
        (self.permission == Permission::Destructive).then_some(self)
    }

    fn empty_host(&self) -> Option<(Arc<dyn BackendFactory>, Host)> {
        let empty = Machine::new(Preset::Empty).ok()?;
        let factory = factory(&empty, self.only.as_ref(), self.defect);
        Some((Arc::new(factory), Host::default()))
    }

    fn container(&self) -> Option<Container> {
        Some(Container {
            cgroup: "/sys/fs/cgroup/kubepods.slice/conformance.scope".into(),
            pid: std::process::id(),
            pid_namespace: crate::isolation::HOST_PID_NAMESPACE - 1,
        })
    }

    fn reset(&self) -> Result<Support> {
        self.faults.rewind(&self.fresh)?;
        *self.lock() = factory(&self.machine, self.only.as_ref(), self.defect);
        Ok(Support::Played)
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}

impl FaultPlan for MockFixture {
    fn fail(
        &self,
        device: &DeviceId,
        during: During,
        nth: u32,
        kind: ErrorKind,
    ) -> Result<Support> {
        let op = match during {
            During::Create => Op::Create,
            During::Usage => Op::Usage,
        };
        self.faults.fail(op, device, nth, kind)?;
        Ok(Support::Played)
    }

    fn interrupt(&self, device: &DeviceId, after: u32) -> Result<Support> {
        self.faults.crash(Op::Create, device, after)?;
        Ok(Support::Played)
    }

    fn hang(&self, device: &DeviceId) -> Result<Support> {
        self.faults.add(Rule::new(At::CallsOf(Op::Usage), Action::Hang).on(device))?;
        Ok(Support::Played)
    }

    fn is_hanging(&self) -> Result<bool> {
        self.faults.is_hanging()
    }

    fn heal(&self) -> Result<()> {
        self.faults.take_all_back()
    }

    fn lose(&self, device: &DeviceId) -> Result<Support> {
        self.faults.lose(device).map(|()| Support::Played)
    }

    fn restore(&self, device: &DeviceId) -> Result<Support> {
        self.faults.restore(device).map(|()| Support::Played)
    }

    fn condition(&self, device: &DeviceId, meaning: Meaning) -> Result<Support> {
        let subject = Subject::Device(device.clone());
        self.faults.condition(&subject, meaning, "played by the suite").map(|()| Support::Played)
    }

    fn hold(&self, subject: &Subject, processes: u32) -> Result<Support> {
        self.faults.hold(subject, processes).map(|()| Support::Played)
    }

    fn foreign(&self, order: &CreateOrder) -> Result<Option<PartitionId>> {
        self.faults.foreign(order).map(|part| Some(part.id))
    }

    fn vanish(&self, part: &PartitionId) -> Result<Support> {
        self.faults.vanish(part).map(|()| Support::Played)
    }

    fn event(&self, device: &DeviceId, meaning: Meaning) -> Result<Support> {
        let subject = Subject::Device(device.clone());
        self.faults.event(&Event::now(subject, meaning, "played 1"))?;
        Ok(Support::Played)
    }

    fn replace_driver(&self) -> Result<Support> {
        self.faults.replace_driver().map(|()| Support::Played)
    }

    fn reboot(&self) -> Result<Support> {
        self.faults.reboot().map(|()| Support::Played)
    }
}

fn factory(machine: &Arc<Machine>, only: Option<&Vendor>, defect: Option<Defect>) -> MockFactory {
    let factory = match only {
        Some(vendor) => MockFactory::new(machine, vendor.clone()),
        None => MockFactory::combined(machine),
    };
    match defect {
        Some(defect) => factory.with_defect(defect),
        None => factory,
    }
}

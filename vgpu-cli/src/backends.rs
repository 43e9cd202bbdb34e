//! Backends by name, and where each one looks.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strum::IntoEnumIterator;
use vgpu_backend_mock::{Machine, MachineSpec, MockFactory, Preset};
use vgpu_core::{Backend, BackendFactory, Host, Probe};
pub(crate) use vgpu_plugin::backends::Name;
use vgpu_plugin::backends::{LookArgs, Settings};

use crate::child::Fresh;
use crate::failure::Failure;
use crate::input;

/// Where backends look.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Sources {
    /// Where the real ones look.
    #[command(flatten)]
    pub(crate) look: LookArgs,
    /// The machine of `--backend mock`: a preset, or a JSON file that describes one [default: mixed].
    #[arg(long, value_name = "PRESET|FILE")]
    pub(crate) machine: Option<String>,
    /// Where an agent's scripted machine keeps its state: look at that one as it is now.
    #[arg(long, value_name = "FILE")]
    pub(crate) machine_state: Option<PathBuf>,
    /// Run each backend in a process of its own, so that a library that crashes or hangs is told and
    /// hurts nothing else.
    #[arg(long)]
    pub(crate) child: bool,
}

impl Sources {
    /// Refuses what contradicts itself, before anything is looked at.
    pub(crate) fn check(&self, names: &[Name]) -> Result<(), Failure> {
        let scripted = [
            ("--machine", self.machine.is_some()),
            ("--machine-state", self.machine_state.is_some()),
        ];
        if let Some((flag, _)) = scripted.iter().find(|(_, given)| *given)
            && !names.contains(&Name::Mock)
        {
            return Err(Failure::input(format!("{flag} describes a scripted machine"))
                .so(format!("add `--backend mock`, or leave {flag} out to look at this machine")));
        }
        if !self.look.host_root.is_dir() {
            return Err(Failure::input("the host's root is no folder")
                .at(format!("--host-root {}", self.look.host_root.display()))
                .so("name the folder where the host's / is mounted"));
        }
        Ok(())
    }

    /// The factory of a backend, and the host on which it looks.
    pub(crate) fn factory(&self, name: Name) -> Result<(Arc<dyn BackendFactory>, Host), Failure> {
        let (factory, host) = self.own(name)?;
        if !self.child && !self.look.wants_child(name) {
            return Ok((factory, host));
        }
        let mut words = self.look.again();
        if name == Name::Mock {
            let machine = self.machine.iter().map(|machine| ("--machine", absolute(machine)));
            let state = self.machine_state.iter().map(|file| ("--machine-state", whole(file)));
            words.extend(machine.chain(state).flat_map(|(flag, value)| [flag.into(), value]));
        }
        Ok((Arc::new(Fresh::new(name, words)), host))
    }

    fn own(&self, name: Name) -> Result<(Arc<dyn BackendFactory>, Host), Failure> {
        if let Some(choice) = self.look.real(name, &Settings::default()) {
            return Ok((choice.factory, choice.host));
        }
        let host = Host { root: self.look.host_root.clone(), library: None };
        let factory = Arc::new(MockFactory::combined(&self.machine()?));
        Ok((factory, host))
    }

    /// A backend that is there and works.
    pub(crate) fn open(&self, name: Name) -> Result<Arc<dyn Backend>, Failure> {
        let (factory, host) = self.factory(name)?;
        match factory.probe(&host) {
            Probe::Absent(why) => Err(Failure::broken(format!("{name} is absent: {why}"))
                .so("`vgpu devices` shows what is there")),
            Probe::Broken(error) => Err(error.into()),
            Probe::Ready(backend) => Ok(backend),
        }
    }

    /// The description of the scripted machine.
    pub(crate) fn machine_spec(&self) -> Result<MachineSpec, Failure> {
        machine_spec(self.machine.as_deref().unwrap_or("mixed"))
    }

    /// The scripted machine.
    pub(crate) fn machine(&self) -> Result<Arc<Machine>, Failure> {
        let spec = self.machine_spec()?;
        let machine = match &self.machine_state {
            // Opening one that is not there would make it.
            Some(state) if !state.is_file() => {
                return Err(Failure::input("there is no such state of a scripted machine")
                    .at(format!("--machine-state {}", state.display()))
                    .so("name the file that the agent was given as --machine-state"));
            }
            Some(state) => Machine::open(state, spec),
            None => Machine::new(spec),
        };
        machine.map_err(|error| {
            Failure::input(error.to_string())
                .at(format!("--machine {}", self.machine.as_deref().unwrap_or_default()))
                .so("correct the description of the machine")
        })
    }
}

/// A preset, or a file by a name that a process in another folder finds too.
fn absolute(machine: &str) -> OsString {
    match machine.parse::<Preset>() {
        Ok(_) => machine.into(),
        Err(_) => whole(Path::new(machine)),
    }
}

fn whole(path: &Path) -> OsString {
    std::path::absolute(path).map_or_else(|_| path.into(), Into::into)
}

/// A preset's description, or what a file says.
fn machine_spec(name: &str) -> Result<MachineSpec, Failure> {
    if let Ok(preset) = name.parse::<Preset>() {
        return Ok(preset.spec());
    }
    if !Path::new(name).exists() {
        return Err(Failure::input("there is no such machine")
            .at(format!("--machine {name}"))
            .so(format!("name a file or one of {}", presets())));
    }
    let text = input::read(name)?;
    input::decode(&text, name).map_err(|failure| {
        failure.so(r#"a machine is {"cards": [{"model": "h200-sxm141gb", "mode": "mig"}]}"#)
    })
}

/// The machines that are known by name.
pub(crate) fn presets() -> String {
    let names: Vec<String> = Preset::iter().map(|preset| preset.to_string()).collect();
    names.join(", ")
}

//! Which vendors there are, by name; the one list that agent and command line share.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use vgpu_backend_cambricon::CambriconFactory;
use vgpu_backend_hygon::{HygonFactory, HygonOptions, LibraryCalls};
use vgpu_backend_mock::{Machine, MachineSpec, MockFactory, Preset};
use vgpu_backend_nvidia::{NvidiaFactory, NvidiaOptions};
use vgpu_core::{BackendFactory, Host};

use crate::config::NodeConfig;

/// A backend by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, strum::Display)]
#[strum(serialize_all = "kebab-case")]
pub enum Name {
    /// Cambricon MLUs.
    Cambricon,
    /// Hygon DCUs and HCUs.
    Hygon,
    /// A scripted machine; nothing of it is real.
    Mock,
    /// NVIDIA GPUs.
    Nvidia,
}

impl Name {
    /// Those that look at the machine itself. A scripted one is never served by accident.
    pub const REAL: [Self; 3] = [Self::Nvidia, Self::Hygon, Self::Cambricon];
}

/// Which vendors are served, and where they look.
#[derive(Debug, Clone, Args)]
pub struct BackendArgs {
    /// A backend; may be given several times [default: all real ones].
    #[arg(long = "backend", value_name = "NAME", value_enum)]
    pub names: Vec<Name>,
    /// Where they look.
    #[command(flatten)]
    pub look: LookArgs,
    /// The machine of `--backend mock`: a preset, or a JSON file that describes one.
    #[arg(long, default_value = "mixed", value_name = "PRESET|FILE")]
    pub machine: String,
    /// Where the scripted machine keeps its state, so that it outlives the agent.
    #[arg(long, value_name = "FILE")]
    pub machine_state: Option<PathBuf>,
}

/// Where the real backends look; agent and command line share these flags.
// Libraries are no paths: that would refuse an empty variable, which is how charts leave it unset.
#[derive(Debug, Clone, Args)]
pub struct LookArgs {
    /// The host's root, where this program runs in a container.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub host_root: PathBuf,
    /// NVML to load, alone, instead of searching for it. An empty name searches.
    #[arg(long, env = "VGPU_NVML_LIBRARY", value_name = "FILE",
        value_parser = clap::value_parser!(OsString))]
    pub nvml_library: Option<OsString>,
    /// NVIDIA's MPS control program, alone, instead of nvidia-cuda-mps-control in the usual folders.
    /// An empty name searches.
    #[arg(long, env = "VGPU_MPS_CONTROL", value_name = "FILE",
        value_parser = clap::value_parser!(OsString))]
    pub mps_control: Option<OsString>,
    /// Where each card's MPS daemon has its folder, as on the host [default: mps below the agent's
    /// state].
    #[arg(long, value_name = "DIR")]
    pub mps_dir: Option<PathBuf>,
    /// Cambricon's libcndev to load, alone, instead of searching for it. An empty name searches.
    #[arg(long, env = "VGPU_CNDEV_LIBRARY", value_name = "FILE",
        value_parser = clap::value_parser!(OsString))]
    pub cndev_library: Option<OsString>,
    /// Hygon's libhydmi to load, alone, instead of searching for it; libhydmi_mig is taken from beside
    /// it. An empty name searches.
    #[arg(long, env = "VGPU_HYDMI_LIBRARY", value_name = "FILE",
        value_parser = clap::value_parser!(OsString))]
    pub hydmi_library: Option<OsString>,
    /// ROCm SMI to load for Hygon's cards, alone, instead of searching for it. An empty name searches.
    #[arg(long, env = "VGPU_ROCM_SMI_LIBRARY", value_name = "FILE",
        value_parser = clap::value_parser!(OsString))]
    pub rocm_smi_library: Option<OsString>,
    /// Call libhydmi in this very process. It forks a shell and crashes where there is no /etc/passwd:
    /// for trying things out.
    #[arg(long)]
    pub hydmi_here: bool,
}

impl LookArgs {
    /// The factory of a vendor and the host on which it looks; nothing for the scripted machine.
    pub fn real(&self, name: Name, settings: &Settings) -> Option<Choice> {
        let (factory, library): (Arc<dyn BackendFactory>, _) = match name {
            Name::Cambricon => (Arc::new(CambriconFactory::default()), self.cndev_library.as_ref()),
            Name::Hygon => {
                let options = self.hygon_options();
                (Arc::new(HygonFactory::new(options)), self.hydmi_library.as_ref())
            }
            Name::Mock => return None,
            Name::Nvidia => {
                let options = self.nvidia_options(settings);
                (Arc::new(NvidiaFactory::new(options)), self.nvml_library.as_ref())
            }
        };
        Some(Choice { factory, host: self.host(library) })
    }

    /// The arguments by which a child of this program has the same backends, beyond what a probe
    /// tells it. It is there for libraries that this process would not survive.
    pub fn again(&self) -> Vec<OsString> {
        let mut words = vec![OsString::from("--hydmi-here")];
        for (flag, path) in [
            ("--mps-control", named(self.mps_control.as_ref())),
            ("--mps-dir", self.mps_dir.clone()),
            ("--rocm-smi-library", named(self.rocm_smi_library.as_ref())),
        ] {
            let Some(path) = path else { continue };
            words.extend([flag.into(), from_anywhere(path).into()]);
        }
        words
    }

    fn nvidia_options(&self, settings: &Settings) -> NvidiaOptions {
        let mut options = settings.nvidia.clone();
        // Daemons and children start in folders of their own.
        options.mps.program = named(self.mps_control.as_ref()).map(from_anywhere);
        if let Some(folder) = self.mps_dir.clone() {
            options.mps.folder = std::path::absolute(&folder).unwrap_or(folder);
        }
        options
    }

    /// Whether Hygon's cards are to be served by a child without anybody asking for it: a library of
    /// theirs is there, and one that forks or ends its process is called in no other.
    pub fn wants_child(&self, name: Name) -> bool {
        name == Name::Hygon
            && !self.hydmi_here
            && (named(self.hydmi_library.as_ref()).is_some()
                || named(self.rocm_smi_library.as_ref()).is_some()
                || HygonFactory::library_below(&self.host_root).is_some())
    }

    fn hygon_options(&self) -> HygonOptions {
        HygonOptions {
            rocm_smi: named(self.rocm_smi_library.as_ref()),
            calls: if self.hydmi_here { LibraryCalls::Here } else { LibraryCalls::Never },
            ..HygonOptions::default()
        }
    }

    fn host(&self, library: Option<&OsString>) -> Host {
        Host { root: self.host_root.clone(), library: named(library) }
    }
}

/// What the configuration says of a vendor.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// NVIDIA's.
    pub nvidia: NvidiaOptions,
}

impl Settings {
    /// Those of a file.
    ///
    /// # Errors
    /// As [`NodeConfig::read`].
    pub fn read(config: &Path) -> anyhow::Result<Self> {
        let nvidia = NodeConfig::read(config)?.nvidia.options().map_err(anyhow::Error::msg)?;
        Ok(Self { nvidia })
    }
}

/// A vendor's factory, and where it looks.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Makes the backend.
    pub factory: Arc<dyn BackendFactory>,
    /// Where it looks.
    pub host: Host,
}

impl BackendArgs {
    /// The factories that were chosen, in the order given.
    ///
    /// # Errors
    /// A repeated name, a machine that cannot be read.
    pub fn choices(&self, settings: &Settings) -> anyhow::Result<Vec<Choice>> {
        let names: &[Name] = if self.names.is_empty() { &Name::REAL } else { &self.names };
        let mut sorted = names.to_vec();
        sorted.sort_unstable();
        ensure!(sorted.windows(2).all(|w| w[0] != w[1]), "a --backend is given twice");
        let mut choices = Vec::new();
        for name in names {
            choices.extend(self.choice(*name, settings)?);
        }
        Ok(choices)
    }

    /// Whether one of the backends that were chosen is this one.
    pub(crate) fn serves(&self, name: Name) -> bool {
        let names: &[Name] = if self.names.is_empty() { &Name::REAL } else { &self.names };
        names.contains(&name)
    }

    /// The arguments by which a child of this program has the same choices. Where a real backend
    /// looks it is told when it is probed.
    pub(crate) fn again(&self) -> Vec<OsString> {
        let mut words = self.look.again();
        let mut say = |flag: &str, value: &OsStr| words.extend([flag.into(), value.to_owned()]);
        for name in &self.names {
            say("--backend", name.to_string().as_ref());
        }
        say("--machine", self.machine.as_ref());
        if let Some(state) = &self.machine_state {
            // The child's folder is another.
            let state = std::path::absolute(state).unwrap_or_else(|_| state.clone());
            say("--machine-state", state.as_ref());
        }
        words
    }

    fn choice(&self, name: Name, settings: &Settings) -> anyhow::Result<Vec<Choice>> {
        if let Some(choice) = self.look.real(name, settings) {
            return Ok(vec![choice]);
        }
        let one = |factory| Choice { factory, host: self.look.host(None) };
        Ok(MockFactory::all(&self.machine()?).into_iter().map(one).collect())
    }

    fn machine(&self) -> anyhow::Result<Arc<Machine>> {
        let spec = machine_spec(&self.machine)?;
        let machine = match &self.machine_state {
            Some(state) => Machine::open(state, spec),
            None => Machine::new(spec),
        };
        machine.with_context(|| format!("--machine {} cannot be used", self.machine))
    }
}

/// A library that was named; an empty name is none.
fn named(library: Option<&OsString>) -> Option<PathBuf> {
    library.filter(|file| !file.is_empty()).map(PathBuf::from)
}

/// The path as it is right in any folder; a bare name is searched for.
fn from_anywhere(path: PathBuf) -> PathBuf {
    if path.components().count() == 1 {
        return path;
    }
    std::path::absolute(&path).unwrap_or(path)
}

/// A preset's description, or what a file says.
fn machine_spec(name: &str) -> anyhow::Result<MachineSpec> {
    if let Ok(preset) = name.parse::<Preset>() {
        return Ok(preset.spec());
    }
    if !Path::new(name).exists() {
        bail!("there is no machine {name}; name a preset, for example mixed, or a JSON file");
    }
    let text = std::fs::read_to_string(name).with_context(|| format!("cannot read {name}"))?;
    serde_json::from_str(&text).with_context(|| format!("{name} describes no machine"))
}

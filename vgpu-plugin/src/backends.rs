//! Which vendors there are, by name; the one list that agent and command line share.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use vgpu_backend_cambricon::CambriconFactory;
use vgpu_backend_hygon::HygonFactory;
use vgpu_backend_mock::{Machine, MockFactory};
use vgpu_backend_nvidia::NvidiaFactory;
use vgpu_core::{BackendFactory, Host};

/// The names, as `--backend` takes them.
pub const NAMES: [&str; 4] = ["nvidia", "hygon", "cambricon", "mock"];

/// Which vendors are served, and where they look.
#[derive(Debug, Clone, Default, Args)]
pub struct BackendArgs {
    /// A backend: nvidia, hygon, cambricon or mock; may be given several times. Without it: all
    /// but the mock.
    #[arg(long = "backend", value_name = "NAME")]
    pub names: Vec<String>,
    /// The host's root directory as seen from here.
    #[arg(long, default_value = "/", value_name = "DIR")]
    pub host_root: PathBuf,
    /// NVIDIA's libnvidia-ml, tried alone.
    #[arg(long, env = "VGPU_NVML_LIBRARY", value_name = "FILE")]
    pub nvml_library: Option<PathBuf>,
    /// The mock's machine: a preset, or a file that keeps the machine's state.
    #[arg(long, default_value = "mixed", value_name = "PRESET|FILE")]
    pub machine: String,
}

/// A vendor's factory, and where it looks.
#[derive(Debug, Clone)]
pub struct Choice {
    /// As `--backend` names it.
    pub name: String,
    /// Makes the backend.
    pub factory: Arc<dyn BackendFactory>,
    /// Where it looks.
    pub host: Host,
}

impl BackendArgs {
    /// The factories that were chosen, in the order given.
    ///
    /// # Errors
    /// An unknown or repeated name, a machine that cannot be read.
    pub fn choices(&self) -> anyhow::Result<Vec<Choice>> {
        let names: Vec<&str> = match self.names.is_empty() {
            true => NAMES.into_iter().filter(|n| *n != "mock").collect(),
            false => self.names.iter().map(String::as_str).collect(),
        };
        let mut choices: Vec<Choice> = Vec::new();
        for name in names {
            if choices.iter().any(|c| c.name == name) {
                bail!("--backend {name} is given twice");
            }
            choices.extend(self.choice(name)?);
        }
        Ok(choices)
    }

    fn choice(&self, name: &str) -> anyhow::Result<Vec<Choice>> {
        let one = |factory: Arc<dyn BackendFactory>, library: Option<PathBuf>| {
            let host = Host { root: self.host_root.clone(), library };
            vec![Choice { name: name.to_owned(), factory, host }]
        };
        Ok(match name {
            "nvidia" => one(Arc::new(NvidiaFactory::default()), self.nvml_library.clone()),
            "hygon" => one(Arc::new(HygonFactory::default()), None),
            "cambricon" => one(Arc::new(CambriconFactory::default()), None),
            "mock" => {
                let machine = self.machine()?;
                let factories = MockFactory::all(&machine);
                factories.into_iter().flat_map(|factory| one(factory, None)).collect()
            }
            other => bail!("there is no backend {other:?}; there are {}", NAMES.join(", ")),
        })
    }

    /// The mock's machine.
    ///
    /// # Errors
    /// Neither a preset nor a file that holds a machine.
    pub fn machine(&self) -> anyhow::Result<Arc<Machine>> {
        Machine::named(&self.machine)
            .with_context(|| format!("--machine {} cannot be used", self.machine))
    }
}

//! MPS: one control daemon to a card, with a life of its own, and what it holds for claims.
//!
//! | module | holds |
//! | --- | --- |
//! | `program`, `control` | finding the control program, and asking a daemon through it |
//! | `daemon`, `launch`, `process`, `record` | starting, finding again and stopping daemons |
//! | `shares` | scheme `mps`: a share is a record of ours, and a namespace where the daemon has them |
//! | `chunks` | scheme `mps-static`: exclusive multiprocessors, kept by the daemon alone |
//! | `limits` | memory and threads as the program writes them |
//! | `schemes` | both schemes as data |
//! | `tenants` | whose process is whose, by the file that each container of a share has |

mod chunks;
mod control;
mod daemon;
mod launch;
mod limits;
mod process;
mod program;
mod record;
mod schemes;
mod shares;
mod tenants;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use vgpu_core::{DeviceId, Result};

use crate::host::DriverTree;

pub(crate) use crate::mps::daemon::{Look, Running};
pub(crate) use crate::mps::limits::tighter;
pub(crate) use crate::mps::program::{NAME, Program};
pub(crate) use crate::mps::schemes::{Card, Serves, most, of_card as schemes};
pub(crate) use crate::mps::shares::Room;
pub(crate) use crate::mps::tenants::SHARE_FILE;

/// How MPS daemons are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MpsOptions {
    /// The control program, tried alone; else `nvidia-cuda-mps-control` in the usual folders below the
    /// driver's root.
    pub program: Option<PathBuf>,
    /// Where each card's daemon has its folder, as on the host. Short: a socket's path has 107 bytes.
    pub folder: PathBuf,
    /// How daemons are started.
    pub launch: Launch,
    /// How long the control program may take to answer.
    pub patience: Duration,
}

impl Default for MpsOptions {
    fn default() -> Self {
        Self {
            program: None,
            folder: PathBuf::from("/var/lib/vgpu/mps"),
            launch: Launch::Probe,
            patience: Duration::from_secs(20),
        }
    }
}

/// How daemons are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launch {
    /// As a process in a group of its own and nothing more: for stand-ins of the program.
    Bare,
    /// As a systemd unit where systemd runs, else as a process; bare where NVML is a stand-in.
    Probe,
    /// As a process with a `/dev/shm` and, on cgroup v2, a cgroup of its own.
    Process,
    /// As a transient systemd unit.
    Systemd,
}

/// The daemons of this host.
#[derive(Debug)]
pub(crate) struct Mps {
    tree: DriverTree,
    options: MpsOptions,
    /// Where the driver is a stand-in, daemons are too.
    stand_in: bool,
    /// The program as it was looked at last.
    known: Mutex<Option<program::Known>>,
}

impl Mps {
    pub(crate) fn new(tree: DriverTree, options: MpsOptions, stand_in: bool) -> Self {
        Self { tree, options, stand_in, known: Mutex::default() }
    }

    /// The control program, if it is there and runs here.
    ///
    /// # Errors
    /// `NotFound`, `Unsupported` (another machine's), `Permission`: with what to do.
    pub(crate) fn program(&self) -> Result<Program> {
        program::find(&self.tree, &self.options, &self.known)
    }

    /// The folders of one card.
    pub(crate) fn folders(&self, card: &DeviceId) -> Folders {
        let name = card.as_str().trim_start_matches("GPU-");
        Folders {
            card: self.tree.host.read_at(self.options.folder.join(name)),
            on_host: Path::new("/").join(&self.options.folder).join(name),
            shm: self.tree.host.read_at(Path::new(SHM).join(name)),
            shm_on_host: Path::new(SHM).join(name),
        }
    }
}

/// Where clients and server of a card meet in memory: a folder of the host's own tmpfs, so that no
/// client sees what another tenant keeps there.
const SHM: &str = "/dev/shm/vgpu-mps";

/// The folders of one card's daemon, as this process reads them and as the host names them.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    card: PathBuf,
    on_host: PathBuf,
    shm: PathBuf,
    shm_on_host: PathBuf,
}

impl Folders {
    fn pipe(&self) -> PathBuf {
        self.card.join("pipe")
    }

    fn log(&self) -> PathBuf {
        self.card.join("log")
    }

    fn shares(&self) -> PathBuf {
        self.card.join("shares")
    }

    fn record(&self) -> PathBuf {
        self.card.join("daemon.json")
    }

    /// The folder that a container mounts, on the host: of the daemon, or of one namespace.
    pub(crate) fn pipe_on_host(&self, namespace: Option<&str>) -> PathBuf {
        let pipe = self.on_host.join("pipe");
        match namespace {
            Some(name) => pipe.join(control::SERVER).join(name),
            None => pipe,
        }
    }

    pub(crate) fn shm_on_host(&self) -> &Path {
        &self.shm_on_host
    }
}

//! Hygon DCUs and HCUs: whole, in turns, as virtual DCUs and as hardware instances.
//!
//! [`HygonFactory`] finds cards in the host's own files, without any library. ROCm SMI adds what those
//! leave out; libhydmi and libhydmi_mig partition, and are only called where [`HygonOptions`] says that
//! this process is there for it.
//!
//! | module | holds |
//! | --- | --- |
//! | `factory` | from a host to a backend, or the reason why there is none |
//! | `backend`, `cards`, `models`, `schemes`, `topology` | discovery |
//! | `partition` | virtual DCUs by file and by library, hardware instances |
//! | `isolation`, `health` | the other traits |
//! | `host`, `kfd`, `disk` | the host's files, read and written |
//! | `convert` | the libraries' codes as the core's errors |
//! | `api` | the three libraries as safe traits |
//! | `smi`, `dmi`, `mig` | the C side, one folder a library; each `sys` has the `unsafe` |
//! | `symbols` | what their functions answer |

mod api;
mod backend;
mod cards;
mod convert;
mod disk;
mod dmi;
mod factory;
mod health;
mod host;
mod isolation;
mod kfd;
mod mig;
mod models;
mod partition;
mod schemes;
mod smi;
mod symbols;
mod topology;

pub use crate::api::{
    CallFailure, DmiInfo, FailureCause, HyDmi, HyDmiMig, LoadFailure, MAX_CARDS, MAX_INSTANCES,
    MAX_VDCUS, MigHandle, MigInstance, MigProfile, RocmSmi, SmiEvent,
};
pub use crate::backend::{HygonBackend, HygonOptions, LibraryCalls, Parts};
pub use crate::disk::{Disk, HostDisk};
pub use crate::dmi::LoadedDmi;
pub use crate::factory::HygonFactory;
pub use crate::mig::LoadedMig;
pub use crate::smi::LoadedSmi;

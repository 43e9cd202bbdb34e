//! Cambricon MLUs through libcndev, loaded at run time.
//!
//! [`CambriconFactory`] finds the library; what it makes serves whole cards, time-slice, sMLU and MIM.
//!
//! | module | holds |
//! | --- | --- |
//! | `factory` | from a host to a backend, or the reason why there is none |
//! | `backend`, `cards`, `schemes`, `topology` | discovery |
//! | `partition`, `smlu`, `mim`, `modes`, `parts` | making and unmaking parts |
//! | `isolation`, `health` | the other traits, one each |
//! | `host` | what the host's own files say |
//! | `convert` | the library's codes and values as the core's |
//! | `api`, `loaded` | libcndev as a safe trait, and the loaded library behind it |
//! | `symbols`, `table`, `decode`, `sys`, `bindings` | the C side; `sys` has all the `unsafe` |

mod api;
mod backend;
mod bindings;
mod cards;
mod convert;
mod decode;
mod factory;
mod health;
mod host;
mod isolation;
mod loaded;
mod mim;
mod modes;
mod partition;
mod parts;
mod schemes;
mod smlu;
mod symbols;
mod sys;
mod table;
mod topology;

pub use crate::api::{
    CardHealth, CndevApi, CndevEvents, CndevFailure, EccCounters, FailureCause, Incident,
    LoadFailure, MAX_CARDS, MAX_INSTANCES, MAX_LINKS, MAX_NAME, MAX_PLACEMENTS, MAX_PROCESSES,
    MemoryInfo, MimInstance, MimProfile, PciInfo, Process, Quota, RawEvent, Relation, Repair,
    SmluInstance, SmluProfile,
};
pub use crate::backend::{CambriconBackend, CambriconOptions};
pub use crate::factory::CambriconFactory;
pub use crate::health::{DRIVER_STATES, DriverState, SYSTEMS, System};
pub use crate::loaded::LoadedCndev;

//! Scripted machines of any shape with faults on demand: what CI and newcomers run.
//!
//! A [`Machine`] is a node's hardware and drivers: cards of any mix of vendors, each way to split
//! them with its real arithmetic, shared by all backends and outliving them. [`MockFactory`] makes
//! backends on it, [`Faults`] plays what can happen, [`Calls`] counts.
//!
//! ```
//! use vgpu_backend_mock::{Machine, MockFactory, Preset};
//! use vgpu_core::{BackendFactory, Host, Probe, Vendor};
//!
//! let machine = Machine::new(Preset::Mixed)?;
//! let Probe::Ready(nvidia) = MockFactory::new(&machine, Vendor::NVIDIA).probe(&Host::default())
//! else {
//!     panic!("the machine has NVIDIA cards");
//! };
//! let first = machine.devices_of(&Vendor::NVIDIA)?.remove(0);
//! machine.faults().lose(&first)?;
//! assert_eq!(nvidia.scan()?.lost.len(), 1);
//! # Ok::<(), vgpu_core::Error>(())
//! ```

mod backend;
mod carve;
mod defect;
mod factory;
mod faults;
#[cfg(feature = "conformance")]
mod fixture;
mod flawed;
mod health;
mod isolation;
mod machine;
mod model;
mod modes;
mod nodes;
mod partition;
mod preset;
mod room;
mod schemes;
mod script;
mod session;
mod spec;
mod state;
mod store;
mod tables;
mod vendor;

pub use crate::backend::MockBackend;
pub use crate::defect::Defect;
pub use crate::factory::MockFactory;
pub use crate::faults::{Faults, RuleId, Snapshot};
#[cfg(feature = "conformance")]
pub use crate::fixture::{MockFixture, fixtures};
pub use crate::isolation::HOST_PID_NAMESPACE;
pub use crate::machine::Machine;
pub use crate::model::Model;
pub use crate::preset::Preset;
pub use crate::script::{Action, At, Calls, Op, Rule};
pub use crate::spec::{CardSpec, Kernel, MachineSpec, VdcuWay};

/// Our error unless another is named.
type Result<T, E = vgpu_core::Error> = std::result::Result<T, E>;

//! What the suite is told of a backend under test.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use vgpu_core::{
    Backend, BackendFactory, Container, CreateOrder, DeviceId, ErrorKind, Host, Meaning,
    PartitionId, Result, Subject,
};

/// A backend under test.
///
/// The state of a card is global, so the suite runs one case at a time per fixture; a fixture on
/// real cards keeps other runs out, for example by a lock on a file.
pub trait Fixture: Debug + Send + Sync + 'static {
    /// Its name in reports, `nvidia` or `mock-h200x8`.
    fn name(&self) -> &str;

    /// Opens the backend; called again to play a restart, so it answers with a new one each time.
    ///
    /// # Errors
    /// Whatever keeps the backend from being opened.
    fn open(&self) -> Result<Arc<dyn Backend>>;

    /// What may be done.
    fn permission(&self) -> Permission {
        Permission::ReadOnly
    }

    /// Faults that can be played; `None` on real cards.
    fn faults(&self) -> Option<&dyn FaultPlan> {
        None
    }

    /// The factory and a host on which there is neither card nor library.
    fn empty_host(&self) -> Option<(Arc<dyn BackendFactory>, Host)> {
        None
    }

    /// A container whose cgroup limits may be set on.
    fn container(&self) -> Option<Container> {
        None
    }

    /// Makes everything what it was before the first case; `Declined` where only undoing step by
    /// step can do so.
    ///
    /// # Errors
    /// Whatever keeps it from being so.
    fn reset(&self) -> Result<Support> {
        Ok(Support::Declined("the fixture has no reset".into()))
    }

    /// How long a call may take before it counts as hanging. A guard against waiting for good, not
    /// a figure: leave it generous.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// What a fixture around another one leaves as it is: in `impl Fixture`, given the field that holds the
/// inner one, all but `name`, `open` and `empty_host`.
///
/// A method that [`Fixture`] gets with a default is forgotten by nobody who wraps, if it is added here.
#[macro_export]
macro_rules! forward_fixture {
    ($inner:ident) => {
        fn permission(&self) -> $crate::Permission {
            $crate::Fixture::permission(&self.$inner)
        }
        fn faults(&self) -> Option<&dyn $crate::FaultPlan> {
            $crate::Fixture::faults(&self.$inner)
        }
        fn container(&self) -> Option<::vgpu_core::Container> {
            $crate::Fixture::container(&self.$inner)
        }
        fn reset(&self) -> ::vgpu_core::Result<$crate::Support> {
            $crate::Fixture::reset(&self.$inner)
        }
        fn patience(&self) -> ::std::time::Duration {
            $crate::Fixture::patience(&self.$inner)
        }
    };
}

/// What may be done to the cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Make, change and unmake parts and modes on idle cards.
    Destructive,
    /// Read.
    ReadOnly,
}

/// What became of a fault that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Support {
    /// It cannot be played here, for this reason; the case is skipped.
    Declined(String),
    /// It is in force.
    Played,
}

/// The operation in which a scripted fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum During {
    /// `Partitioner::create`.
    Create,
    /// `Health::usage` of a card.
    Usage,
}

/// Faults that a mock or a fake library can play.
///
/// Each method declines what it cannot play. An error means that playing it went wrong, and fails
/// the case.
pub trait FaultPlan: Debug + Send + Sync {
    /// The `nth` vendor call, from 1, of the next such operation on a card fails so.
    ///
    /// # Errors
    /// Whatever went wrong in playing it; so for all faults.
    fn fail(&self, device: &DeviceId, during: During, nth: u32, kind: ErrorKind)
    -> Result<Support>;

    /// The next `create` on a card ends after so many vendor calls, undoing nothing, as if the
    /// process had died there.
    ///
    /// # Errors
    /// As [`FaultPlan::fail`].
    fn interrupt(&self, device: &DeviceId, after: u32) -> Result<Support>;

    /// The next `usage` of a card does not return until [`FaultPlan::heal`].
    ///
    /// # Errors
    /// As [`FaultPlan::fail`].
    fn hang(&self, device: &DeviceId) -> Result<Support>;

    /// Whether a call hangs now.
    ///
    /// # Errors
    /// As [`FaultPlan::fail`].
    fn is_hanging(&self) -> Result<bool>;

    /// Takes back `fail`, `interrupt` and `hang`; what hangs goes on.
    ///
    /// # Errors
    /// As [`FaultPlan::fail`].
    fn heal(&self) -> Result<()>;

    /// A card falls off the bus.
    ///
    /// # Errors
    /// As [`FaultPlan::fail`].
    fn lose(&self, device: &DeviceId) -> Result<Support>;

    /// It comes back, with what it held.
    ///
    /// # Errors
    /// As [`FaultPlan::fail`].
    fn restore(&self, device: &DeviceId) -> Result<Support>;

    /// A card is ill from now on; `Good` makes it well.
    ///
    /// # Errors
    /// As [`FaultPlan::fail`].
    fn condition(&self, device: &DeviceId, meaning: Meaning) -> Result<Support>;

    /// So many processes hold a card or a part from now on.
    ///
    /// # Errors
    /// As [`FaultPlan::fail`].
    fn hold(&self, subject: &Subject, processes: u32) -> Result<Support>;

    /// Another tool makes such a part, without our tag; answers with its id.
    ///
    /// # Errors
    /// As [`FaultPlan::fail`].
    fn foreign(&self, order: &CreateOrder) -> Result<Option<PartitionId>>;

    /// A part vanishes without a word.
    ///
    /// # Errors
    /// As [`FaultPlan::fail`].
    fn vanish(&self, part: &PartitionId) -> Result<Support>;

    /// The driver sends one event about a card, of this meaning.
    ///
    /// # Errors
    /// As [`FaultPlan::fail`].
    fn event(&self, device: &DeviceId, meaning: Meaning) -> Result<Support>;

    /// The driver under the loaded library is replaced.
    ///
    /// # Errors
    /// As [`FaultPlan::fail`].
    fn replace_driver(&self) -> Result<Support>;

    /// The machine reboots.
    ///
    /// # Errors
    /// As [`FaultPlan::fail`].
    fn reboot(&self) -> Result<Support>;
}

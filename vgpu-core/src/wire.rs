//! Every call of a backend, and every reply, as data: a backend may live in another process.
//!
//! [`serve`] answers a call with any backend; [`Remote`] is a backend whose calls go through a
//! [`Transport`]. What lies between (a pipe, or an encoder and decoder in this process) is not the
//! core's business.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backend::{Backend, BackendInfo};
use crate::device::{Discovery, Link, Scan};
use crate::edits::ContainerEdits;
use crate::error::{Error, ErrorKind, Result};
use crate::health::{Event, Health, Subject, Usage};
use crate::id::{DeviceId, PartitionId};
use crate::isolation::{Confinement, Container, Isolation};
use crate::order::{CreateOrder, ModeChange, ModeOrder, Target};
use crate::partition::{Partition, Partitioner, Swept};
use crate::size::Size;

/// A call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Call {
    /// `Health::check`.
    Check(DeviceId),
    /// `Isolation::confine`.
    Confine(Target, Container),
    /// `Partitioner::create`.
    Create(CreateOrder),
    /// `Partitioner::destroy`.
    Destroy(PartitionId),
    /// `Isolation::edits`.
    Edits(Vec<Target>),
    /// `Backend::info`.
    Info,
    /// `Partitioner::partitions`.
    Partitions(DeviceId),
    /// `Partitioner::resize`.
    Resize(PartitionId, Size),
    /// `Discovery::scan`.
    Scan,
    /// `Partitioner::set_mode`.
    SetMode(ModeOrder),
    /// `Partitioner::sweep`.
    Sweep(DeviceId, Vec<PartitionId>),
    /// `Discovery::topology`.
    Topology,
    /// `Isolation::unconfine`.
    Unconfine(Target, Container),
    /// `Health::usage`.
    Usage(Subject),
    /// `Health::wait`.
    Wait(Duration),
}

/// A reply that is not an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reply {
    /// Of `confine`.
    Confinement(Confinement),
    /// Of `destroy` and `unconfine`.
    Done,
    /// Of `edits`.
    Edits(ContainerEdits),
    /// Of `check` and `wait`.
    Events(Vec<Event>),
    /// Of `info`.
    Info(BackendInfo),
    /// Of `topology`.
    Links(Vec<Link>),
    /// Of `set_mode`.
    Mode(ModeChange),
    /// Of `create` and `resize`.
    Partition(Partition),
    /// Of `partitions`.
    Partitions(Vec<Partition>),
    /// Of `scan`.
    Scan(Scan),
    /// Of `sweep`.
    Swept(Vec<Swept>),
    /// Of `usage`.
    Usage(Usage),
}

/// Answers a call with `backend`.
///
/// # Errors
/// The backend's own, unchanged.
pub fn serve(backend: &dyn Backend, call: &Call) -> Result<Reply> {
    Ok(match call {
        Call::Check(device) => Reply::Events(backend.check(device)?),
        Call::Confine(target, container) => Reply::Confinement(backend.confine(target, container)?),
        Call::Create(order) => Reply::Partition(backend.create(order)?),
        Call::Destroy(part) => {
            backend.destroy(part)?;
            Reply::Done
        }
        Call::Edits(targets) => Reply::Edits(backend.edits(targets)?),
        Call::Info => Reply::Info(backend.info()),
        Call::Partitions(device) => Reply::Partitions(backend.partitions(device)?),
        Call::Resize(part, size) => Reply::Partition(backend.resize(part, size)?),
        Call::Scan => Reply::Scan(backend.scan()?),
        Call::SetMode(order) => Reply::Mode(backend.set_mode(order)?),
        Call::Sweep(device, keep) => Reply::Swept(backend.sweep(device, keep)?),
        Call::Topology => Reply::Links(backend.topology()?),
        Call::Unconfine(target, container) => {
            backend.unconfine(target, container)?;
            Reply::Done
        }
        Call::Usage(subject) => Reply::Usage(backend.usage(subject)?),
        Call::Wait(timeout) => Reply::Events(backend.wait(*timeout)?),
    })
}

/// What carries calls to a backend somewhere else.
pub trait Transport: Debug + Send + Sync + 'static {
    /// Sends a call and waits for its reply.
    ///
    /// # Errors
    /// The backend's own, or the transport's: `Io` when the other side is gone.
    fn call(&self, call: &Call) -> Result<Reply>;

    /// Who is on the other side now, where that may have changed since [`Remote::connect`], as
    /// when it was started anew with another driver; `None` where it cannot have.
    fn info(&self) -> Option<BackendInfo> {
        None
    }
}

impl<T: Transport> Transport for Arc<T> {
    fn call(&self, call: &Call) -> Result<Reply> {
        (**self).call(call)
    }
    fn info(&self) -> Option<BackendInfo> {
        (**self).info()
    }
}

/// A backend behind a transport.
#[derive(Debug)]
pub struct Remote<T> {
    transport: T,
    info: BackendInfo,
}

impl<T: Transport> Remote<T> {
    /// Asks the other side who it is; the answer is kept, since `info` cannot fail.
    ///
    /// # Errors
    /// The transport's, and `Vendor` when the other side answers out of turn.
    pub fn connect(transport: T) -> Result<Self> {
        match transport.call(&Call::Info)? {
            Reply::Info(info) => Ok(Self { transport, info }),
            other => Err(out_of_turn(&other)),
        }
    }
}

macro_rules! forward {
    ($self:ident, $call:expr, $reply:path) => {
        match $self.transport.call(&$call)? {
            $reply(value) => Ok(value),
            other => Err(out_of_turn(&other)),
        }
    };
}

impl<T: Transport> Discovery for Remote<T> {
    fn scan(&self) -> Result<Scan> {
        forward!(self, Call::Scan, Reply::Scan)
    }
    fn topology(&self) -> Result<Vec<Link>> {
        forward!(self, Call::Topology, Reply::Links)
    }
}

impl<T: Transport> Partitioner for Remote<T> {
    fn partitions(&self, device: &DeviceId) -> Result<Vec<Partition>> {
        forward!(self, Call::Partitions(device.clone()), Reply::Partitions)
    }
    fn set_mode(&self, order: &ModeOrder) -> Result<ModeChange> {
        forward!(self, Call::SetMode(order.clone()), Reply::Mode)
    }
    fn create(&self, order: &CreateOrder) -> Result<Partition> {
        forward!(self, Call::Create(order.clone()), Reply::Partition)
    }
    fn resize(&self, partition: &PartitionId, size: &Size) -> Result<Partition> {
        forward!(self, Call::Resize(partition.clone(), *size), Reply::Partition)
    }
    fn destroy(&self, partition: &PartitionId) -> Result<()> {
        self.done(&Call::Destroy(partition.clone()))
    }
    fn sweep(&self, device: &DeviceId, keep: &[PartitionId]) -> Result<Vec<Swept>> {
        forward!(self, Call::Sweep(device.clone(), keep.to_vec()), Reply::Swept)
    }
}

impl<T: Transport> Isolation for Remote<T> {
    fn edits(&self, targets: &[Target]) -> Result<ContainerEdits> {
        forward!(self, Call::Edits(targets.to_vec()), Reply::Edits)
    }
    fn confine(&self, target: &Target, container: &Container) -> Result<Confinement> {
        forward!(self, Call::Confine(target.clone(), container.clone()), Reply::Confinement)
    }
    fn unconfine(&self, target: &Target, container: &Container) -> Result<()> {
        self.done(&Call::Unconfine(target.clone(), container.clone()))
    }
}

impl<T: Transport> Health for Remote<T> {
    fn check(&self, device: &DeviceId) -> Result<Vec<Event>> {
        forward!(self, Call::Check(device.clone()), Reply::Events)
    }
    fn wait(&self, timeout: Duration) -> Result<Vec<Event>> {
        forward!(self, Call::Wait(timeout), Reply::Events)
    }
    fn usage(&self, subject: &Subject) -> Result<Usage> {
        forward!(self, Call::Usage(subject.clone()), Reply::Usage)
    }
}

impl<T: Transport> Backend for Remote<T> {
    fn info(&self) -> BackendInfo {
        self.transport.info().unwrap_or_else(|| self.info.clone())
    }
}

impl<T: Transport> Remote<T> {
    fn done(&self, call: &Call) -> Result<()> {
        match self.transport.call(call)? {
            Reply::Done => Ok(()),
            other => Err(out_of_turn(&other)),
        }
    }
}

fn out_of_turn(reply: &Reply) -> Error {
    let reply: String = format!("{reply:?}").chars().take(60).collect();
    Error::new(ErrorKind::Vendor, format!("the backend answered out of turn: {reply}…"))
}

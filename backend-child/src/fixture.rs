//! Any fixture of the conformance suite with its backends in children.

use std::fmt;
use std::sync::Arc;

use vgpu_conformance::Fixture;
use vgpu_core::{Backend, BackendFactory, Error, ErrorKind, Host, Probe, Result};

use crate::factory::ChildFactory;

/// The fixture `inner` with each backend in a child of its own.
///
/// Whatever `inner` plays must reach another process: its machine is in a file.
pub struct ChildFixture<F> {
    name: String,
    inner: F,
    host: Host,
    child: Maker,
    empty: Option<Maker>,
}

type Maker = Box<dyn Fn() -> ChildFactory + Send + Sync>;

impl<F: Fixture> ChildFixture<F> {
    /// The fixture `inner`, by the name `<name>-child`; `child` makes the factory of each backend
    /// that is opened on `host`.
    pub fn new(
        inner: F,
        host: Host,
        child: impl Fn() -> ChildFactory + Send + Sync + 'static,
    ) -> Self {
        let name = format!("{}-child", inner.name());
        Self { name, inner, host, child: Box::new(child), empty: None }
    }

    /// The same with what makes the factory on a host where there is nothing.
    #[must_use]
    pub fn with_empty(mut self, empty: impl Fn() -> ChildFactory + Send + Sync + 'static) -> Self {
        self.empty = Some(Box::new(empty));
        self
    }
}

impl<F: Fixture> Fixture for ChildFixture<F> {
    fn name(&self) -> &str {
        &self.name
    }
    fn open(&self) -> Result<Arc<dyn Backend>> {
        match (self.child)().probe(&self.host) {
            Probe::Ready(backend) => Ok(backend),
            Probe::Absent(why) => Err(Error::new(ErrorKind::NotFound, why)),
            Probe::Broken(error) => Err(error),
        }
    }
    fn empty_host(&self) -> Option<(Arc<dyn BackendFactory>, Host)> {
        let (_, host) = self.inner.empty_host()?;
        Some((Arc::new(self.empty.as_ref()?()), host))
    }

    vgpu_conformance::forward_fixture!(inner);
}

impl<F: Fixture> fmt::Debug for ChildFixture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildFixture").field("inner", &self.inner).finish_non_exhaustive()
    }
}

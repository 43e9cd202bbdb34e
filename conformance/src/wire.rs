//! Every call and reply through JSON text and back, in this process.

use std::sync::Arc;

use vgpu_core::wire::{Call, Remote, Reply, Transport, serve};
use vgpu_core::{Backend, BackendFactory, Error, ErrorKind, Host, Probe, Result, Vendor};

use crate::fixture::Fixture;

/// A transport to a backend in this process that sends nothing but JSON text.
#[derive(Debug)]
pub struct Loopback<B: ?Sized>(Arc<B>);

/// A backend behind JSON text.
pub type Wire<B> = Remote<Loopback<B>>;

impl<B: Backend + ?Sized> Loopback<B> {
    /// A transport to `backend`.
    pub fn new(backend: Arc<B>) -> Self {
        Self(backend)
    }
}

impl Transport for Loopback<dyn Backend> {
    fn call(&self, call: &Call) -> Result<Reply> {
        over_text(&*self.0, call)
    }
}

impl<B: Backend + 'static> Transport for Loopback<B> {
    fn call(&self, call: &Call) -> Result<Reply> {
        over_text(&*self.0, call)
    }
}

/// The same fixture with every backend behind JSON text.
#[derive(Debug)]
pub struct Wired<F> {
    name: String,
    inner: F,
}

impl<F: Fixture> Wired<F> {
    /// The fixture `inner`, by the name `<name>-wire`.
    pub fn new(inner: F) -> Self {
        Self { name: format!("{}-wire", inner.name()), inner }
    }
}

impl<F: Fixture> Fixture for Wired<F> {
    fn name(&self) -> &str {
        &self.name
    }
    fn open(&self) -> Result<Arc<dyn Backend>> {
        wired(self.inner.open()?)
    }
    fn empty_host(&self) -> Option<(Arc<dyn BackendFactory>, Host)> {
        let (factory, host) = self.inner.empty_host()?;
        Some((Arc::new(WiredFactory(factory)), host))
    }

    crate::forward_fixture!(inner);
}

#[derive(Debug)]
struct WiredFactory(Arc<dyn BackendFactory>);

impl BackendFactory for WiredFactory {
    fn vendor(&self) -> Vendor {
        self.0.vendor()
    }
    fn probe(&self, host: &Host) -> Probe {
        match self.0.probe(host) {
            Probe::Ready(backend) => match wired(backend) {
                Ok(backend) => Probe::Ready(backend),
                Err(e) => Probe::Broken(e),
            },
            other => other,
        }
    }
}

fn wired(backend: Arc<dyn Backend>) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(Remote::connect(Loopback::new(backend))?))
}

fn over_text(backend: &dyn Backend, call: &Call) -> Result<Reply> {
    let asked: Call = through_text(call)?;
    // The error crosses as text too.
    let answer: std::result::Result<Reply, Error> = through_text(&serve(backend, &asked))?;
    answer
}

fn through_text<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> Result<T> {
    let broken =
        |e: serde_json::Error| Error::new(ErrorKind::Io, format!("does not cross as text: {e}"));
    let text = serde_json::to_string(value).map_err(broken)?;
    serde_json::from_str(&text).map_err(broken)
}

//! Asking backends, all at once and none for longer than it may take.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use vgpu_core::{Backend, BackendFactory, Error, ErrorKind, Host, Probe, Result};

use crate::backends::{Name, Sources};
use crate::devices::report::{Found, State, Unread};
use crate::failure::Failure;

/// What became of each backend, in the order of the names.
pub(crate) fn at(
    names: &[Name],
    sources: &Sources,
    timeout: Duration,
) -> std::result::Result<Vec<Found>, Failure> {
    each(names, sources, timeout, ask, |name, error| Found::broken(name.to_string(), error))
}

/// Asks all at once. A vendor call that does not return makes its backend `broken` and holds up no other.
pub(crate) fn each<T: Send + 'static>(
    names: &[Name],
    sources: &Sources,
    timeout: Duration,
    ask: fn(Name, &dyn BackendFactory, &Host) -> T,
    broken: impl Fn(Name, Error) -> T,
) -> std::result::Result<Vec<T>, Failure> {
    let factories = names
        .iter()
        .map(|name| Ok((*name, sources.factory(*name)?)))
        .collect::<std::result::Result<Vec<_>, Failure>>()?;
    let asked: Vec<_> = factories
        .into_iter()
        .map(|(name, (factory, host))| {
            let (tell, told) = mpsc::channel();
            let ask = move || {
                // The one who asked may have given up.
                let _late = tell.send(ask(name, &*factory, &host));
            };
            thread::spawn(ask);
            (name, told)
        })
        .collect();
    let until = Instant::now() + timeout;
    let wait = |told: mpsc::Receiver<T>| told.recv_timeout(until - Instant::now().min(until));
    let found = asked.into_iter().map(|(name, told)| match wait(told) {
        Ok(found) => found,
        Err(why) => broken(name, silent(why, timeout)),
    });
    Ok(found.collect())
}

/// What a backend that works has.
pub(crate) fn scanned(name: Name, backend: &Arc<dyn Backend>) -> Found {
    let name = name.to_string();
    scan(&name, backend).unwrap_or_else(|error| Found::broken(name, error))
}

fn ask(name: Name, factory: &dyn BackendFactory, host: &Host) -> Found {
    match factory.probe(host) {
        Probe::Absent(why) => Found::absent(name.to_string(), why),
        Probe::Broken(error) => Found::broken(name.to_string(), error),
        Probe::Ready(backend) => scanned(name, &backend),
    }
}

fn scan(name: &str, backend: &Arc<dyn Backend>) -> Result<Found> {
    let scan = backend.scan().map_err(|error| error.during("scan"))?;
    let mut unread = Vec::new();
    let links = backend.topology().unwrap_or_else(|error| {
        unread.push(Unread { what: "topology".into(), error });
        Vec::new()
    });
    let mut partitions = Vec::new();
    for device in &scan.devices {
        match backend.partitions(&device.id) {
            Ok(parts) => partitions.extend(parts),
            Err(error) => {
                unread.push(Unread { what: format!("partitions of {}", device.id), error });
            }
        }
    }
    Ok(Found {
        info: Some(backend.info()),
        devices: scan.devices,
        lost: scan.lost,
        links,
        partitions,
        unread,
        ..Found::new(name, State::Ready)
    })
}

fn silent(why: RecvTimeoutError, timeout: Duration) -> Error {
    match why {
        RecvTimeoutError::Timeout => Error::new(
            ErrorKind::InDoubt,
            format!(
                "a vendor call did not return within {} s; look at the kernel's log, or wait longer \
                 with --timeout",
                timeout.as_secs()
            ),
        ),
        RecvTimeoutError::Disconnected => Error::new(
            ErrorKind::Vendor,
            "the backend panicked; this is a bug of vgpu, report it with what stands above",
        ),
    }
}

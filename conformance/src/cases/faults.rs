//! `BACK-5` to `BACK-10`: drivers that fail, hang, are replaced or are not there.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use vgpu_core::{Error, ErrorKind, Form, Probe, Subject};

use crate::context::{Context, Outcome, Stop, ensure, played, refused};
use crate::fixture::During;

/// `BACK-5`.
pub(crate) fn code_is_kept(cx: &Context<'_>) -> Outcome {
    let faults = cx.faults()?;
    let card = cx.card()?;
    let info = cx.info(&card)?;
    let (card, during) = match info.form {
        Form::Shared => (card, During::Usage),
        Form::Carved => (cx.entered()?, During::Create),
    };
    for kind in [ErrorKind::Busy, ErrorKind::Permission, ErrorKind::Vendor] {
        played(faults.fail(&card.id, during, 1, kind)?)?;
        let result = match during {
            During::Create => cx.backend.create(&cx.smallest(&card)?).map(drop),
            During::Usage => cx.backend.usage(&Subject::Device(card.id.clone())).map(drop),
        };
        faults.heal()?;
        let error = refused(result, kind, "a vendor call that failed")?;
        let Some(vendor) = &error.vendor else {
            return Err(Stop::Fail(format!("the vendor's code is lost: {error}")));
        };
        let named = !vendor.library.is_empty() && !vendor.call.is_empty();
        ensure!(named, "the vendor's code does not say whose: {vendor:?}");
        ensure!(vendor.code != 0, "the vendor's code of a failure is success");
    }
    Ok(())
}

/// `BACK-6`.
pub(crate) fn driver_replaced(cx: &Context<'_>) -> Outcome {
    let faults = cx.faults()?;
    let first = cx.backend.scan()?.devices.into_iter().next();
    played(faults.replace_driver()?)?;
    let replaced = ErrorKind::DriverReplaced;
    refused(cx.backend.scan(), replaced, "a scan after the driver was replaced")?;
    let Some(first) = first else { return Ok(()) };
    let subject = Subject::Device(first.id.clone());
    refused(cx.backend.usage(&subject), replaced, "usage after the driver was replaced")?;
    refused(cx.backend.check(&first.id), replaced, "a check after the driver was replaced")?;
    let parts = cx.backend.partitions(&first.id);
    refused(parts, replaced, "listing parts after the driver was replaced").map(drop)
}

/// `BACK-7`.
pub(crate) fn lost_fails_alone(cx: &Context<'_>) -> Outcome {
    let id = cx.id()?;
    let neighbours = cx.neighbours()?;
    played(cx.faults()?.lose(id)?)?;
    refused(cx.backend.partitions(id), ErrorKind::Lost, "listing the parts of a lost card")?;
    let subject = Subject::Device(id.clone());
    refused(cx.backend.usage(&subject), ErrorKind::Lost, "the use of a lost card")?;
    for other in neighbours {
        let fails = |e: Error| Stop::Fail(format!("with {id} lost, {other} fails: {e}"));
        cx.backend.partitions(&other).map_err(fails)?;
        cx.backend.usage(&Subject::Device(other.clone())).map_err(fails)?;
    }
    Ok(())
}

/// `BACK-8`.
pub(crate) fn hangs_alone(cx: &Context<'_>) -> Outcome {
    let id = cx.id()?.clone();
    let faults = cx.faults()?;
    let neighbours = cx.neighbours()?;
    if neighbours.is_empty() {
        return Err(Stop::Skip("there is no second card to be held up".into()));
    }
    played(faults.hang(&id)?)?;
    let backend = Arc::clone(&cx.backend);
    let stuck = thread::spawn(move || backend.usage(&Subject::Device(id)).map(drop));
    let outcome = hangs(cx).and_then(|()| {
        cx.returns("a neighbour of a card that hangs", move |backend| {
            for other in neighbours {
                backend.partitions(&other)?;
                backend.usage(&Subject::Device(other.clone()))?;
                backend.check(&other)?;
            }
            vgpu_core::Result::Ok(())
        })
    });
    // Whatever came of it, nothing is left hanging.
    faults.heal()?;
    let ended = stuck.join().map_err(|_panic| Stop::Fail("a call that hung panicked".into()))?;
    outcome??;
    ended.map_err(|e| Stop::Fail(format!("let go, the call that hung fails: {e}")))
}

/// `BACK-9`.
pub(crate) fn info_is_complete(cx: &Context<'_>) -> Outcome {
    let info = cx.backend.info();
    ensure!(!info.vendor.as_str().is_empty(), "the vendor is not named");
    ensure!(!info.library.as_os_str().is_empty(), "the library is not named");
    ensure!(!info.driver.is_empty(), "the driver is not named");
    let missing = &info.missing_symbols;
    let in_order = missing.windows(2).all(|pair| pair[0] < pair[1]);
    ensure!(in_order, "missing symbols are not sorted and once each: {missing:?}");
    ensure!(info == cx.backend.info(), "asked twice, it is another");
    Ok(())
}

/// `BACK-10`.
pub(crate) fn empty_host(cx: &Context<'_>) -> Outcome {
    let Some((factory, host)) = cx.fixture.empty_host() else {
        return Err(Stop::Skip("the fixture has no empty host".into()));
    };
    let probe = cx.returns("probing an empty host", move |_| factory.probe(&host))?;
    match probe {
        Probe::Absent(why) => {
            ensure!(!why.is_empty(), "an empty host is absent for no reason");
            Ok(())
        }
        Probe::Broken(e) => Err(Stop::Fail(format!("an empty host is broken: {e}"))),
        Probe::Ready(backend) => {
            Err(Stop::Fail(format!("an empty host has a backend: {:?}", backend.info())))
        }
    }
}

/// Waits until the call hangs.
fn hangs(cx: &Context<'_>) -> Outcome {
    let faults = cx.faults()?;
    let until = Instant::now() + cx.fixture.patience();
    while !faults.is_hanging()? {
        ensure!(Instant::now() < until, "the call that was to hang does not");
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

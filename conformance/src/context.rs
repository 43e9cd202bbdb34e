//! What a case has at hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use vgpu_core::{
    Backend, BackendExt, Change, ClaimId, CreateOrder, Device, DeviceId, Error, ErrorKind, Form,
    Grant, ModeChange, ModeInfo, ModeOrder, Partition, PartitionId, PartitionState, Scheme,
    SchemeInfo, Size, Subject, Target, TrustDomain,
};

use crate::fixture::{FaultPlan, Fixture, Permission, Support};
use crate::orders::{self, Wish};

/// What a case comes to.
pub type Outcome<T = ()> = Result<T, Stop>;

/// Why a case ends early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The promise was broken, so.
    Fail(String),
    /// It cannot be tried, for this reason.
    Skip(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Fail(error.to_string())
    }
}

/// Fails the case unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err($crate::context::Stop::Fail(format!($($why)+)));
        }
    };
}
pub(crate) use ensure;

/// One case's subject: a backend, and where the case is about one, a card and a scheme.
#[derive(Debug)]
pub struct Context<'f> {
    /// The fixture.
    pub fixture: &'f dyn Fixture,
    /// The backend, opened for this case.
    pub backend: Arc<dyn Backend>,
    /// The card.
    pub device: Option<DeviceId>,
    /// The scheme.
    pub scheme: Option<Scheme>,
}

impl Context<'_> {
    /// The card's id.
    pub(crate) fn id(&self) -> Outcome<&DeviceId> {
        self.device.as_ref().ok_or_else(|| Stop::Skip("the case is about one card".into()))
    }

    /// The card, scanned afresh.
    pub(crate) fn card(&self) -> Outcome<Device> {
        Ok(self.backend.device(self.id()?)?)
    }

    /// The scheme, as the card declares it now.
    pub(crate) fn info<'d>(&self, card: &'d Device) -> Outcome<&'d SchemeInfo> {
        match &self.scheme {
            Some(scheme) => Ok(card.scheme(scheme)?),
            None => Err(Stop::Skip("the case is about one scheme".into())),
        }
    }

    /// The fault plan; skips the case where no faults can be played.
    pub(crate) fn faults(&self) -> Outcome<&dyn FaultPlan> {
        self.fixture.faults().ok_or_else(|| Stop::Skip("no faults can be played here".into()))
    }

    /// The cards of the backend beside the case's own.
    pub(crate) fn neighbours(&self) -> Outcome<Vec<DeviceId>> {
        let own = self.device.as_ref();
        let scan = self.backend.scan()?;
        Ok(scan.devices.into_iter().map(|d| d.id).filter(|id| Some(id) != own).collect())
    }

    /// Asks that parts and modes may be changed, and that nobody uses the card.
    pub(crate) fn may_change(&self) -> Outcome {
        if self.fixture.permission() != Permission::Destructive {
            return Err(Stop::Skip("needs permission to make and unmake parts".into()));
        }
        let card = self.id()?;
        let used = self.backend.usage(&Subject::Device(card.clone()))?.processes;
        match used {
            Some(0) | None => Ok(()),
            Some(n) => Err(Stop::Skip(format!("{n} processes use {card}"))),
        }
    }

    /// The card in the scheme's mode, entered if that can be done here.
    pub(crate) fn entered(&self) -> Outcome<Device> {
        self.may_change()?;
        let card = self.card()?;
        let info = self.info(&card)?;
        if info.mode.active {
            return Ok(card);
        }
        enterable(&info.mode)?;
        for device in &info.mode.affects {
            if !self.backend.partitions(device)?.is_empty() {
                return Err(Stop::Skip(format!("parts are on {device}, so no mode is changed")));
            }
        }
        let order = mode_order(&card.id, Some(&info.scheme), &info.mode);
        let change = self.backend.set_mode(&order)?;
        ensure!(change == ModeChange::Done, "entering an idle card's mode came to {change:?}");
        let card = self.card()?;
        ensure!(self.info(&card)?.mode.active, "the mode was entered and is not active");
        Ok(card)
    }

    /// The order for a wish, under a claim of its own.
    pub(crate) fn order(&self, card: &Device, wish: &Wish) -> Outcome<CreateOrder> {
        let info = self.info(card)?;
        let (shape, placement) = (wish.shape.clone(), wish.placement.clone());
        Ok(CreateOrder::admit(card, &info.scheme, shape, placement, claim())?)
    }

    /// The order for the smallest part that still has a place.
    pub(crate) fn smallest(&self, card: &Device) -> Outcome<CreateOrder> {
        let held = self.backend.partitions(&card.id)?;
        match orders::smallest(card, self.info(card)?, &held) {
            Some(wish) => self.order(card, &wish),
            None => Err(Stop::Skip("no part more has a place on the card".into())),
        }
    }

    /// Makes the smallest part that still has a place.
    pub(crate) fn make(&self, card: &Device) -> Outcome<Partition> {
        match self.backend.create(&self.smallest(card)?) {
            Err(e) if e.kind == ErrorKind::Exhausted => {
                Err(Stop::Skip(format!("the card has no room: {e}")))
            }
            made => Ok(made?),
        }
    }

    /// Grants under the case's scheme: shares, or parts that are made for it.
    pub(crate) fn targets(&self, n: usize) -> Outcome<Vec<Target>> {
        let card = self.card()?;
        let info = self.info(&card)?;
        if info.form == Form::Shared {
            if !info.mode.active {
                let why = format!("{} is not in the mode of {}", card.id, info.scheme);
                return Err(Stop::Skip(why));
            }
            let shared = |_| Target { claim: claim(), grant: share(&card.id, info, &domain()) };
            return Ok((0..n).map(shared).collect());
        }
        let there = self.backend.partitions(&card.id)?;
        let mut parts: Vec<Partition> =
            there.into_iter().filter(|p| p.scheme == info.scheme).take(n).collect();
        if parts.len() < n {
            let card = self.entered()?;
            while parts.len() < n {
                parts.push(self.make(&card)?);
            }
        }
        let target = |p: Partition| Target { claim: claim(), grant: Grant::Part(p.id) };
        Ok(parts.into_iter().map(target).collect())
    }

    /// Runs a call with a guard against one that never returns.
    pub(crate) fn returns<R: Send + 'static>(
        &self,
        what: &str,
        call: impl FnOnce(&dyn Backend) -> R + Send + 'static,
    ) -> Outcome<R> {
        let (tell, told) = mpsc::channel();
        let backend = Arc::clone(&self.backend);
        thread::spawn(move || {
            // The case may have given up waiting.
            let _gone = tell.send(call(&*backend));
        });
        told.recv_timeout(self.fixture.patience())
            .map_err(|_late| Stop::Fail(format!("{what} did not return")))
    }
}

/// Skips the case where the fault could not be played.
pub(crate) fn played(support: Support) -> Outcome {
    match support {
        Support::Played => Ok(()),
        Support::Declined(why) => Err(Stop::Skip(why)),
    }
}

/// Fails unless the result is an error of that kind.
pub(crate) fn refused<T: std::fmt::Debug>(
    result: vgpu_core::Result<T>,
    kind: ErrorKind,
    what: &str,
) -> Outcome<Error> {
    match result {
        Err(e) if e.kind == kind => Ok(e),
        Err(e) => Err(Stop::Fail(format!("{what} is {}, not {kind}: {e}", e.kind))),
        Ok(value) => Err(Stop::Fail(format!("{what} is not refused as {kind}: {value:?}"))),
    }
}

/// A claim that nobody used before.
pub(crate) fn claim() -> ClaimId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let text = format!("conformance-{}-{n}", std::process::id());
    ClaimId::new(text).expect("letters, digits and dashes make a claim id")
}

/// The trust domain of the suite.
pub(crate) fn domain() -> TrustDomain {
    TrustDomain::new("conformance").expect("letters make a domain")
}

/// A card that no machine has.
pub(crate) fn nobody() -> DeviceId {
    DeviceId::new("conformance-no-such-card").expect("letters and dashes make a device id")
}

/// The order to enter a scheme's mode, or to leave it for the default.
pub(crate) fn mode_order(device: &DeviceId, scheme: Option<&Scheme>, mode: &ModeInfo) -> ModeOrder {
    ModeOrder {
        device: device.clone(),
        scheme: scheme.cloned(),
        affected: mode.affects.clone(),
        domain: Some(domain()),
    }
}

/// A grant of a share under a scheme without objects.
pub(crate) fn share(device: &DeviceId, info: &SchemeInfo, domain: &TrustDomain) -> Grant {
    if info.scheme == Scheme::WHOLE {
        return Grant::Whole(device.clone());
    }
    let size = info.range().map_or(Size::ANY, orders::least);
    Grant::Shared {
        device: device.clone(),
        scheme: info.scheme.clone(),
        size,
        domain: domain.clone(),
    }
}

/// Skips the case where a mode cannot be entered and left by idling alone.
pub(crate) fn enterable(mode: &ModeInfo) -> Outcome {
    let idle = |c| matches!(c, Change::Live | Change::IdleDevice | Change::IdleNode);
    if idle(mode.enter) && idle(mode.leave) {
        return Ok(());
    }
    Err(Stop::Skip(format!("the mode asks for {} to enter, {} to leave", mode.enter, mode.leave)))
}

/// The ids of parts.
pub(crate) fn ids(parts: &[Partition]) -> Vec<PartitionId> {
    parts.iter().map(|p| p.id.clone()).collect()
}

/// Parts in few words, for messages.
pub(crate) fn brief<'p>(parts: impl IntoIterator<Item = &'p Partition>) -> String {
    let one = |p: &Partition| match p.state {
        PartitionState::Complete => p.id.to_string(),
        PartitionState::Half => format!("half of {}", p.id),
        PartitionState::Broken => format!("broken {}", p.id),
    };
    let all: Vec<String> = parts.into_iter().map(one).collect();
    if all.is_empty() { "no part".into() } else { all.join(", ") }
}

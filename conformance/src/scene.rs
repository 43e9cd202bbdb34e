//! The cards as they were before a case, and making them so again.

use std::sync::Arc;

use vgpu_core::{
    Backend, Change, Device, DeviceId, ErrorKind, ModeChange, ModeOrder, PartitionId,
    PartitionState, Scheme, TrustDomain,
};

use crate::context::mode_order;
use crate::fixture::{Fixture, Permission, Support};

/// The cards as they were; dropping it makes them so again.
#[derive(Debug)]
pub(crate) struct Scene<'f> {
    fixture: &'f dyn Fixture,
    cards: Vec<Before>,
    done: bool,
}

#[derive(Debug)]
struct Before {
    id: DeviceId,
    mode: Option<Mode>,
    parts: Vec<PartitionId>,
}

/// A mode that is not there by itself, and whom it serves.
#[derive(Debug, PartialEq)]
struct Mode {
    scheme: Scheme,
    domain: Option<TrustDomain>,
}

impl<'f> Scene<'f> {
    /// Remembers the cards. Where nothing may be changed there is nothing to remember.
    pub(crate) fn of(fixture: &'f dyn Fixture, backend: &dyn Backend) -> vgpu_core::Result<Self> {
        let mut cards = Vec::new();
        if fixture.permission() == Permission::Destructive {
            for device in backend.scan()?.devices {
                let parts = backend.partitions(&device.id)?;
                let parts = parts.into_iter().map(|p| p.id).collect();
                cards.push(Before { mode: mode_of(&device), id: device.id, parts });
            }
        }
        Ok(Self { fixture, cards, done: false })
    }

    /// Makes the cards what they were.
    ///
    /// # Errors
    /// What could not be undone, in a sentence.
    pub(crate) fn undo(mut self) -> Result<(), String> {
        self.done = true;
        self.restore()
    }

    fn restore(&self) -> Result<(), String> {
        if let Some(faults) = self.fixture.faults() {
            faults.heal().map_err(|e| format!("faults are not taken back: {e}"))?;
        }
        match self.fixture.reset() {
            Ok(Support::Played) => return Ok(()),
            Ok(Support::Declined(_)) => {}
            Err(e) => return Err(format!("the fixture does not reset: {e}")),
        }
        if self.cards.is_empty() {
            return Ok(());
        }
        let backend =
            self.fixture.open().map_err(|e| format!("the backend does not open to undo: {e}"))?;
        for card in &self.cards {
            card.restore(&backend).map_err(|e| format!("{} is not as it was: {e}", card.id))?;
        }
        Ok(())
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        if !self.done {
            // The case ended in a panic of the suite itself, which is what will be told.
            let _told = self.restore();
        }
    }
}

impl Before {
    fn restore(&self, backend: &Arc<dyn Backend>) -> vgpu_core::Result<()> {
        backend.sweep(&self.id, &self.parts)?;
        for part in backend.partitions(&self.id)? {
            let ours = !self.parts.contains(&part.id);
            if ours || part.state == PartitionState::Half {
                match backend.destroy(&part.id) {
                    Err(e) if e.kind != ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            }
        }
        let scan = backend.scan()?;
        let Some(device) = scan.devices.iter().find(|d| d.id == self.id) else { return Ok(()) };
        let now = mode_of(device);
        if now == self.mode {
            return Ok(());
        }
        let named = self.mode.as_ref().or(now.as_ref()).map(|m| &m.scheme);
        let Some(info) = device.schemes.iter().find(|s| Some(&s.scheme) == named) else {
            return Ok(());
        };
        let wanted = self.mode.as_ref();
        let order = mode_order(&self.id, wanted.map(|m| &m.scheme), &info.mode);
        // A mode that served somebody serves them again.
        let domain = wanted.and_then(|m| m.domain.clone()).or(order.domain);
        let order = ModeOrder { domain, ..order };
        match backend.set_mode(&order)? {
            ModeChange::Done => Ok(()),
            pending => Err(vgpu_core::Error::new(
                ErrorKind::Busy,
                format!("its mode is pending: {pending:?}"),
            )),
        }
    }
}

/// The scheme whose mode the card is in, apart from what is always active.
fn mode_of(device: &Device) -> Option<Mode> {
    device
        .schemes
        .iter()
        .find(|s| s.mode.active && s.mode.leave != Change::Live)
        .map(|s| Mode { scheme: s.scheme.clone(), domain: s.mode.domain.clone() })
}

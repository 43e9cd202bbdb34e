//! Changing a card's mode: sMLU, MIM, or neither.

use vgpu_core::{DeviceId, Error, ErrorKind, ModeChange, ModeOrder, Result, Scheme};

use crate::backend::CambriconBackend;
use crate::convert;
use crate::parts::unserved;

/// A card's mode; the driver lets it be in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Default,
    Mim,
    Smlu,
}

impl CambriconBackend {
    pub(crate) fn change_mode(&self, order: &ModeOrder, index: u32) -> Result<ModeChange> {
        let device = &order.device;
        let wanted = wanted(order)?;
        if order.affected != [device.clone()] {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the order affects {:?}, and the mode is {device}'s alone", order.affected),
            ));
        }
        let now = self.present(device, index, wanted)?;
        if now == wanted {
            return Ok(ModeChange::Done);
        }
        self.idle(device, index)?;
        // The modes exclude one another, so that the present one is left first.
        self.switch(device, index, now, false)?;
        if let Err(why) = self.switch(device, index, wanted, true) {
            let back = self.switch(device, index, now, true);
            return Err(match back {
                Ok(()) => why,
                Err(second) => why.caused_by(second),
            });
        }
        Ok(ModeChange::Done)
    }

    /// The present mode; a wanted one that the card does not have is refused.
    fn present(&self, device: &DeviceId, index: u32, wanted: Mode) -> Result<Mode> {
        let read = |reading: std::result::Result<bool, crate::CndevFailure>| match reading {
            Ok(on) => Ok(Some(on)),
            Err(failure) if failure.is_unsupported() => Ok(None),
            Err(failure) => Err(convert::error(&failure).with("device", device)),
        };
        let smlu = read(self.api().smlu_mode(index))?;
        let mim = read(self.api().mim_mode(index))?;
        match (wanted, smlu, mim) {
            (Mode::Smlu, None, _) => Err(unserved(device, &Scheme::SMLU)),
            (Mode::Mim, _, None) => Err(unserved(device, &Scheme::MIM)),
            (_, Some(true), _) => Ok(Mode::Smlu),
            (_, _, Some(true)) => Ok(Mode::Mim),
            _ => Ok(Mode::Default),
        }
    }

    /// Whether nothing is in the way; said in words here, since the driver only says "in use".
    fn idle(&self, device: &DeviceId, index: u32) -> Result<()> {
        let busy = |why: String| Err(Error::new(ErrorKind::Busy, why).with("device", device));
        let parts = self.parts_of(device, index)?;
        if !parts.is_empty() {
            return busy(format!("{} parts are on the card; destroy them first", parts.len()));
        }
        match self.api().processes(index) {
            Ok(list) if !list.is_empty() => {
                busy(format!("{} processes have the card open; end them first", list.len()))
            }
            // A library that cannot list them: the driver decides.
            _ => Ok(()),
        }
    }

    fn switch(&self, device: &DeviceId, index: u32, mode: Mode, on: bool) -> Result<()> {
        let done = match mode {
            Mode::Default => return Ok(()),
            Mode::Mim => self.api().set_mim_mode(index, on),
            Mode::Smlu => self.api().set_smlu_mode(index, on),
        };
        done.map_err(|failure| {
            let busy = matches!(failure.code(), Some(15));
            let error = convert::error(&failure).with("device", device);
            if busy { error.with("to do", "end what has the card open") } else { error }
        })
    }
}

fn wanted(order: &ModeOrder) -> Result<Mode> {
    match &order.scheme {
        None => Ok(Mode::Default),
        Some(s) if *s == Scheme::WHOLE || *s == Scheme::TIME_SLICE => Ok(Mode::Default),
        Some(s) if *s == Scheme::MIM => Ok(Mode::Mim),
        Some(s) if *s == Scheme::SMLU => Ok(Mode::Smlu),
        Some(other) => Err(unserved(&order.device, other)),
    }
}

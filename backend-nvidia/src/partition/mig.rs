//! MIG: hardware instances.

use vgpu_core::{DeviceId, Error, ErrorKind, ModeChange, Result};

use crate::backend::NvidiaBackend;
use crate::convert;

impl NvidiaBackend {
    /// Takes a card out of MIG mode.
    pub(crate) fn leave_mig(&self, device: &DeviceId, index: u32) -> Result<ModeChange> {
        match self.api().mig_mode(index) {
            Ok(mig) if mig.current && mig.pending => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{device} is in MIG mode, which this version does not leave; destroy its \
                     instances and run `nvidia-smi -i {device} -mig 0`"
                ),
            )),
            Ok(mig) if mig.current => Ok(ModeChange::AfterReset),
            Ok(_) => Ok(ModeChange::Done),
            Err(failure) if failure.is_unsupported() => Ok(ModeChange::Done),
            Err(failure) => Err(convert::error(&failure).with("device", device)),
        }
    }
}

//! MPS in the backend's own terms: a card's mode is its daemon, shares and chunks are its parts.

use vgpu_core::{
    Change, CreateOrder, DeviceId, Error, ErrorKind, ModeChange, ModeInfo, ModeOrder, Partition,
    PartitionId, Result, Scheme, SchemeInfo, Swept,
};

use crate::api::{ComputeMode, MigMode, Version};
use crate::backend::NvidiaBackend;
use crate::convert;
use crate::mps::{self, Card, Look, Room, Running, Serves};
use crate::partition;

/// Whether a scheme is one of the two that need a daemon.
pub(crate) fn is_mps(scheme: &Scheme) -> bool {
    [Scheme::MPS, Scheme::MPS_STATIC].contains(scheme)
}

impl NvidiaBackend {
    /// Adds the schemes that need a daemon to a card's others, and takes the card as it is from those
    /// while one runs.
    pub(crate) fn with_mps(
        &self,
        index: u32,
        device: &DeviceId,
        units: std::num::NonZeroU32,
        mig: Option<MigMode>,
        mut others: Vec<SchemeInfo>,
    ) -> Vec<SchemeInfo> {
        let found =
            mig.is_none_or(|mig| !mig.current).then(|| self.mps_schemes(index, device, units));
        let Some(schemes) = found.flatten() else { return others };
        if schemes.iter().any(|info| info.mode.domain.is_some()) {
            for info in &mut others {
                // A mode of its own asks for an idle card at least; so does leaving ours.
                let enter = info.mode.enter.max(Change::IdleDevice);
                info.mode = ModeInfo { active: false, enter, ..info.mode.clone() };
            }
        }
        others.extend(schemes);
        others
    }

    /// The schemes, or nothing where card, driver or program has neither.
    fn mps_schemes(
        &self,
        index: u32,
        device: &DeviceId,
        units: std::num::NonZeroU32,
    ) -> Option<Vec<SchemeInfo>> {
        let program = self.mps.program().ok()?;
        let capability = self.api().cuda_compute_capability(index).ok()?;
        let (record, running) = match self.mps.look(device) {
            Ok(Look::Up(running)) => (Some(running.record.clone()), Some(running)),
            Ok(Look::Down(record)) => (Some(record), None),
            Ok(Look::None) | Err(_) => (None, None),
        };
        let is_static = |r: &&Running| r.record.scheme == Scheme::MPS_STATIC;
        let counted = running.as_ref().filter(is_static).and_then(|r| self.mps.chunks(r).ok());
        let runs = running.is_some();
        let serves = record.map(|r| Serves { scheme: r.scheme, domain: r.domain, runs });
        let card = Card {
            id: device,
            capability,
            cuda: self.cuda(),
            multiprocessors: units,
            chunks: counted.map(|table| table.total),
            serves,
        };
        Some(mps::schemes(&card, &program))
    }

    /// Starts, keeps or starts again the daemon that an order names.
    pub(crate) fn enter_mps(
        &self,
        order: &ModeOrder,
        scheme: &Scheme,
        index: u32,
    ) -> Result<ModeChange> {
        let device = &order.device;
        let Some(domain) = &order.domain else {
            let why = "an MPS daemon serves one trust domain; name it in the mode order";
            return Err(Error::new(ErrorKind::Invalid, why).with("device", device));
        };
        match self.mps.look(device)? {
            Look::Up(running) if running.record.serves(scheme, domain) => {
                self.mps.answers(&running)?;
                return Ok(ModeChange::Done);
            }
            // Its clients have lost it already: it comes back with all that was written down.
            Look::Down(record) if record.serves(scheme, domain) => {
                let running = self.mps.start_again(record)?;
                if *scheme == Scheme::MPS {
                    self.mps.restore_shares(&running, self.room(index)?)?;
                }
                return Ok(ModeChange::Done);
            }
            Look::Up(_) | Look::Down(_) | Look::None => {}
        }
        self.must_serve(device, scheme, index)?;
        self.leave_mps(device, index)?;
        self.must_be_idle(device, index, &[])?;
        // So that nobody computes on the card but through the daemon.
        self.compute_mode(device, index, ComputeMode::ExclusiveProcess)?;
        match self.mps.start(device, scheme, domain) {
            Ok(_) => Ok(ModeChange::Done),
            Err(e) => match self.compute_mode(device, index, ComputeMode::Default) {
                Ok(()) => Err(e),
                Err(second) => Err(e.caused_by(second)),
            },
        }
    }

    /// Stops a card's daemon, if it has one that nobody uses.
    pub(crate) fn leave_mps(&self, device: &DeviceId, index: u32) -> Result<()> {
        let look = self.mps.look(device)?;
        if matches!(look, Look::None) {
            return Ok(());
        }
        let parts = self.mps_parts_of(device, &look)?.len();
        if parts > 0 {
            let why = format!("{parts} MPS parts are on {device}; destroy them first");
            return Err(Error::new(ErrorKind::Busy, why));
        }
        match &look {
            Look::Up(running) => {
                let clients = self.mps.clients(running)?.len();
                if clients > 0 {
                    let why = format!("{clients} clients use the MPS daemon of {device}; end them");
                    return Err(Error::new(ErrorKind::Busy, why));
                }
                self.must_be_idle(device, index, &self.mps.servers(running)?)?;
                self.mps.stop(running)?;
            }
            Look::Down(record) => {
                self.must_be_idle(device, index, &[])?;
                self.mps.clear(&self.mps.folders(device), Some(record))?;
            }
            Look::None => {}
        }
        self.compute_mode(device, index, ComputeMode::Default)
    }

    /// The parts that a card's daemon holds.
    pub(crate) fn mps_parts(&self, device: &DeviceId) -> Result<Vec<Partition>> {
        self.mps_parts_of(device, &self.mps.look(device)?)
    }

    fn mps_parts_of(&self, device: &DeviceId, look: &Look) -> Result<Vec<Partition>> {
        match look {
            Look::Up(running) if running.record.scheme == Scheme::MPS_STATIC => {
                self.mps.chunk_parts(running)
            }
            look => self.mps.share_parts(device, look),
        }
    }

    /// A part that is there.
    pub(crate) fn mps_part(&self, part: &PartitionId) -> Result<Partition> {
        let parts = self.mps_parts(&part.device())?;
        parts.into_iter().find(|p| p.id == *part).ok_or_else(|| partition::no_part(part))
    }

    pub(crate) fn create_mps(&self, order: &CreateOrder, index: u32) -> Result<Partition> {
        let running = self.daemon(order.device(), order.scheme())?;
        match *order.scheme() == Scheme::MPS_STATIC {
            true => self.mps.create_chunks(&running, order),
            false => self.mps.create_share(&running, self.room(index)?, order),
        }
    }

    pub(crate) fn destroy_mps(&self, part: &PartitionId, index: u32) -> Result<()> {
        let device = part.device();
        let look = self.mps.look(&device)?;
        if part.scheme() == Scheme::MPS_STATIC {
            return match &look {
                Look::Up(running) if running.record.scheme == Scheme::MPS_STATIC => {
                    self.mps.destroy_chunks(running, part.local())
                }
                // They went with their daemon.
                _ => Err(partition::no_part(part)),
            };
        }
        let shares = self.mps.shares(&device)?;
        let share = shares.iter().find(|share| share.n.to_string() == part.local());
        let share = share.ok_or_else(|| partition::no_part(part))?;
        self.mps.destroy_share(&device, &look, self.room(index)?, share)
    }

    pub(crate) fn sweep_mps(
        &self,
        device: &DeviceId,
        index: u32,
        keep: &[PartitionId],
    ) -> Result<Vec<Swept>> {
        match self.mps.look(device)? {
            Look::None => Ok(Vec::new()),
            look => self.mps.sweep_shares(device, &look, self.room(index)?, keep),
        }
    }

    /// The daemon of a card that is in the scheme's mode.
    pub(crate) fn daemon(&self, device: &DeviceId, scheme: &Scheme) -> Result<Running> {
        match self.mps.look(device)? {
            Look::Up(running) if running.record.scheme == *scheme => Ok(running),
            Look::Down(record) if record.scheme == *scheme => {
                let why = format!(
                    "the MPS daemon of {device} for {} died; it is started again at the next look",
                    record.domain
                );
                Err(Error::new(ErrorKind::Busy, why))
            }
            _ => {
                let why = format!("{device} has no MPS daemon for {scheme}; enter the mode first");
                Err(Error::new(ErrorKind::Busy, why))
            }
        }
    }

    /// Memory and clients that the card has for shares.
    pub(crate) fn room(&self, index: u32) -> Result<Room> {
        let memory = self.api().memory_info(index).map_err(|failure| convert::error(&failure))?;
        let usable = memory.total.saturating_sub(memory.reserved.unwrap_or(0));
        let most = mps::most(self.cuda()).get();
        Ok(Room { memory_mib: usable >> 20, most: usize::try_from(most).unwrap_or(usize::MAX) })
    }

    /// Told in one sentence: what is missing of card, driver or program.
    fn must_serve(&self, device: &DeviceId, scheme: &Scheme, index: u32) -> Result<()> {
        let program = self.mps.program().map_err(|e| e.with("device", device))?;
        let found = self.describe_for_mode(index)?;
        if found.scheme(scheme).is_ok() {
            return Ok(());
        }
        let why = format!(
            "{device} cannot be split by {scheme}: card, driver or {} lacks it",
            program.path.display()
        );
        Err(Error::new(ErrorKind::Unsupported, why))
    }

    /// Whether nobody computes on the card apart from these processes.
    fn must_be_idle(&self, device: &DeviceId, index: u32, but: &[u32]) -> Result<()> {
        let processes = match self.api().compute_processes(index) {
            Ok(processes) => processes,
            Err(failure) if failure.is_unsupported() => return Ok(()),
            Err(failure) => return Err(convert::error(&failure).with("device", device)),
        };
        let pids: Vec<u32> =
            processes.iter().map(|process| process.pid).filter(|pid| !but.contains(pid)).collect();
        if pids.is_empty() {
            return Ok(());
        }
        let why =
            format!("{} processes compute on {device} ({pids:?}); end them first", pids.len());
        Err(Error::new(ErrorKind::Busy, why))
    }

    fn compute_mode(&self, device: &DeviceId, index: u32, mode: ComputeMode) -> Result<()> {
        self.api()
            .set_compute_mode(index, mode)
            .map_err(|failure| convert::error(&failure).with("device", device))
    }

    fn cuda(&self) -> Version {
        self.api().cuda_driver_version().unwrap_or(Version { major: 0, minor: 0 })
    }
}

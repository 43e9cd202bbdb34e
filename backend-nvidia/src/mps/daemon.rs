//! A card's daemon: found by what is written down and what `/proc` says, started, started again,
//! stopped.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use vgpu_core::id::TrustDomain;
use vgpu_core::{DeviceId, Error, ErrorKind, Result, Scheme};

use crate::mps::control::{Control, SERVER};
use crate::mps::program::{NAME, Program};
use crate::mps::record::{self, DaemonRecord, ProcessRecord};
use crate::mps::{Folders, Mps, launch, process};

/// What became of a card's daemon.
#[derive(Debug, Clone)]
pub(crate) enum Look {
    /// It was started and is no more; what was written down of it stays.
    Down(DaemonRecord),
    /// There is none.
    None,
    /// It runs.
    Up(Running),
}

/// A daemon that runs.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) record: DaemonRecord,
    pub(crate) process: ProcessRecord,
    pub(crate) folders: Folders,
}

impl Running {
    /// Whether it has namespaces.
    pub(crate) fn has_namespaces(&self) -> bool {
        self.record.protocol == 3
    }
}

impl Mps {
    /// Looks for a card's daemon. Reads only; the daemon itself is not asked.
    pub(crate) fn look(&self, card: &DeviceId) -> Result<Look> {
        let folders = self.folders(card);
        let Some(record) = record::read::<DaemonRecord>(&folders.record())? else {
            return Ok(Look::None);
        };
        // No daemon outlives a boot: what is written of an earlier one is of nothing.
        if record.boot != self.boot() {
            return Ok(Look::None);
        }
        Ok(match self.find(&record, &folders) {
            Some(process) => Look::Up(Running { record, process, folders }),
            None => Look::Down(record),
        })
    }

    /// Starts a daemon where there is none; nothing of it is left where that fails.
    pub(crate) fn start(
        &self,
        card: &DeviceId,
        scheme: &Scheme,
        domain: &TrustDomain,
    ) -> Result<Running> {
        let program = self.program()?;
        let namespaces = *scheme == Scheme::MPS && program.namespaces;
        let record = DaemonRecord {
            card: card.clone(),
            boot: self.boot(),
            scheme: scheme.clone(),
            domain: domain.clone(),
            protocol: if namespaces { 3 } else { 2 },
            process: None,
            unit: None,
        };
        let folders = self.folders(card);
        // What another boot or a daemon for others left is of nobody.
        self.clear(&folders, None)?;
        make(&folders, namespaces)?;
        let up = record::write(&folders.record(), &record)
            .and_then(|()| self.bring_up(&program, &folders, record));
        if up.is_err() {
            // The failure is what is told; leftovers of it are cleared by the next start too.
            let _left = self.clear(&folders, None);
        }
        up
    }

    /// Starts the daemon of a record again; on a failure the record stays, so that it can be tried
    /// again.
    pub(crate) fn start_again(&self, record: DaemonRecord) -> Result<Running> {
        let program = self.program()?;
        let folders = self.folders(&record.card);
        let protocol = if record.scheme == Scheme::MPS && program.namespaces { 3 } else { 2 };
        make(&folders, protocol == 3)?;
        let record = DaemonRecord { process: None, unit: None, protocol, ..record };
        self.bring_up(&program, &folders, record)
    }

    /// Ends a daemon with all that it holds, and removes its folder.
    pub(crate) fn stop(&self, running: &Running) -> Result<()> {
        let ProcessRecord { pid, started } = running.process;
        let asked = self.control(running).and_then(|control| match running.has_namespaces() {
            true => control.verb(&["-q"]),
            false => control.shell("quit"),
        });
        let alive = || process::start_time(Path::new("/proc"), pid) == Some(started);
        let gone = asked.is_ok() && process::gone(self.options.patience, alive);
        // It is ours and idle: one that does not go when asked is made to.
        if !gone && !process::kill(pid, started, self.options.patience) {
            let why = format!("the MPS daemon {pid} of {} does not end", running.record.card);
            return Err(Error::new(ErrorKind::InDoubt, why));
        }
        self.clear(&running.folders, Some(&running.record))
    }

    /// Removes what a daemon that is no more left behind: its servers, its folders.
    pub(crate) fn clear(&self, folders: &Folders, record: Option<&DaemonRecord>) -> Result<()> {
        self.end_leftovers(folders)?;
        launch::leave_cgroup(&self.tree, record);
        record::remove(&folders.shm)?;
        record::remove(&folders.card)
    }

    /// The program, asking this daemon.
    pub(crate) fn control(&self, running: &Running) -> Result<Control> {
        let program = self.program()?;
        Ok(Control::new(&program.path, running.folders.pipe(), self.options.patience))
    }

    /// Asks the daemon something that changes nothing, to see that it is one.
    pub(crate) fn answers(&self, running: &Running) -> Result<()> {
        asked(&self.control(running)?, running.has_namespaces()).map(drop)
    }

    fn bring_up(
        &self,
        program: &Program,
        folders: &Folders,
        mut record: DaemonRecord,
    ) -> Result<Running> {
        self.end_leftovers(folders)?;
        for stale in ["control", PID_FILE] {
            record::remove(&folders.pipe().join(stale))?;
        }
        let control = Control::new(&program.path, folders.pipe(), self.options.patience);
        let namespaces = record.protocol == 3;
        let launched = launch::start(self, program, folders, &record);
        let up = launched.and_then(|unit| {
            record.unit = unit;
            let servers = self.first_answer(&control, namespaces)?;
            let process = self.find(&record, folders).ok_or_else(|| {
                let why = format!("{NAME} was started and no process has its pipe folder");
                Error::new(ErrorKind::Vendor, why).with("pipe", folders.pipe().display())
            })?;
            record.process = Some(process);
            launch::enter_cgroup(&self.tree, &record);
            if namespaces && !servers.lines().any(|line| line.split(',').next() == Some(SERVER)) {
                let device = format!("--allowed-devices={}", record.card);
                control.verb(&["server", "create", SERVER, "--uid=0", &device])?;
            }
            record::write(&folders.record(), &record)?;
            Ok(process)
        });
        match up {
            Ok(process) => Ok(Running { record, process, folders: folders.clone() }),
            Err(e) => {
                self.end_leftovers(folders)?;
                Err(e.with("device", &record.card))
            }
        }
    }

    /// The daemon's first word; until then it may be on its way.
    fn first_answer(&self, control: &Control, namespaces: bool) -> Result<String> {
        let until = Instant::now() + self.options.patience;
        loop {
            match asked(control, namespaces) {
                Ok(text) => return Ok(text),
                Err(e) if Instant::now() >= until => return Err(e),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// The daemon's process: the one that was written down, or the one that says itself in the pipe
    /// folder that it is, if it was started with that folder.
    fn find(&self, record: &DaemonRecord, folders: &Folders) -> Option<ProcessRecord> {
        let (proc, pipe) = (Path::new("/proc"), folders.pipe());
        if let Some(known) = record.process
            && process::start_time(proc, known.pid) == Some(known.started)
            && process::has_pipe(known.pid, &pipe) != Some(false)
        {
            return Some(known);
        }
        let pid: u32 = fs::read_to_string(pipe.join(PID_FILE)).ok()?.trim().parse().ok()?;
        let started = process::start_time(proc, pid)?;
        (process::has_pipe(pid, &pipe) == Some(true)).then_some(ProcessRecord { pid, started })
    }

    /// Ends processes that were started with this pipe folder: servers that outlived their daemon.
    fn end_leftovers(&self, folders: &Folders) -> Result<()> {
        for left in process::with_pipe(&folders.pipe()) {
            if !process::kill(left.pid, left.started, self.options.patience) {
                let why = format!("process {} of an earlier MPS daemon does not end", left.pid);
                return Err(Error::new(ErrorKind::Busy, why));
            }
        }
        Ok(())
    }

    fn boot(&self) -> String {
        let file = self.tree.host.read_at(Path::new("/proc/sys/kernel/random/boot_id"));
        fs::read_to_string(file).unwrap_or_default().trim().to_owned()
    }
}

/// What each daemon writes into its pipe folder.
pub(crate) const PID_FILE: &str = "nvidia-cuda-mps-control.pid";

/// The longest path of a socket.
const LONGEST_SOCKET: usize = 107;

fn asked(control: &Control, namespaces: bool) -> Result<String> {
    match namespaces {
        true => control.verb(&["server", "list", "--format=csv,noheader"]),
        false => control.shell("get_server_list"),
    }
}

fn make(folders: &Folders, namespaces: bool) -> Result<()> {
    let below = if namespaces { format!("{SERVER}/n000/control") } else { "control".into() };
    let length = folders.pipe().join(below).as_os_str().len();
    if length > LONGEST_SOCKET {
        let why = format!(
            "the MPS sockets of a card would have paths of {length} bytes below {}, and \
             {LONGEST_SOCKET} is the most; choose a shorter folder",
            folders.card.display()
        );
        return Err(Error::new(ErrorKind::Invalid, why));
    }
    // Clients of any user reach their socket; what is shared in memory is everybody's, as /dev/shm is.
    let made = [
        (folders.card.clone(), 0o755),
        (folders.pipe(), 0o755),
        (folders.log(), 0o755),
        (folders.shares(), 0o755),
        (folders.shm.clone(), 0o1777),
    ];
    for (folder, mode) in made {
        fs::create_dir_all(&folder)
            .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)))
            .map_err(|e| Error::io("make", &folder, &e))?;
    }
    Ok(())
}

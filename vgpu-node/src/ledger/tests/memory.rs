//! A disk in memory that loses what a real one may lose.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::ledger::disk::Disk;

/// What a disk does wrong, by the number of the change that it is asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    /// These fail.
    pub(super) fail: Vec<usize>,
    /// From this one on everything fails: the process is dead.
    pub(super) dies: Option<usize>,
    /// Room for the files' bytes.
    pub(super) room: Option<usize>,
}

/// Shared with the ledger that writes on it.
#[derive(Debug, Clone)]
pub(super) struct Memory(Arc<Mutex<State>>);

#[derive(Debug, Clone, Default)]
struct State {
    faults: Faults,
    changes: usize,
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    /// The names after each change since the last `sync_dir`, the durable ones first.
    past: Vec<BTreeMap<String, usize>>,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Step>,
    /// A sync failed: as on Linux, what was written counts as clean and may never reach the disk,
    /// and later syncs say that all is well.
    forsaken: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<u8>),
    Cut(usize),
}

impl Memory {
    pub(super) fn new(faults: Faults) -> Self {
        Self(Arc::new(Mutex::new(State {
            faults,
            past: vec![BTreeMap::new()],
            ..State::default()
        })))
    }

    /// What a power cut leaves, one of the many that may be; `pick(n)` chooses below `n`.
    pub(super) fn after_crash(&self, mut pick: impl FnMut(usize) -> usize) -> Self {
        let mut state = self.0.lock().expect("not poisoned").clone();
        state.names = state.past[pick(state.past.len())].clone();
        state.past = vec![state.names.clone()];
        for inode in &mut state.inodes {
            let steps = pick(inode.unsynced.len() + 1);
            let mut bytes = inode.durable.clone();
            for step in &inode.unsynced[..steps] {
                step.on(&mut bytes);
            }
            // The next one may be there in part, or as a length without bytes.
            if let Some(Step::Append(more)) = inode.unsynced.get(steps) {
                let part = pick(more.len() + 1);
                let zeros = pick(3) == 0;
                bytes.extend(more[..part].iter().map(|b| if zeros { 0 } else { *b }));
            }
            *inode = Inode { bytes: bytes.clone(), durable: bytes, ..Inode::default() };
        }
        state.faults = Faults::default();
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn heal(&self) {
        self.0.lock().expect("not poisoned").faults = Faults::default();
    }

    pub(super) fn length(&self, name: &str) -> usize {
        self.read(name).expect("never fails").map_or(0, |bytes| bytes.len())
    }

    fn change<T>(&self, change: impl FnOnce(&mut State, bool) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.lock().expect("not poisoned");
        let n = state.changes;
        state.changes += 1;
        if state.faults.dies.is_some_and(|dies| n > dies) {
            return Err(io::Error::other("dead"));
        }
        // The one at which it dies may be half done, as any that fails.
        let fails = state.faults.fail.contains(&n) || state.faults.dies == Some(n);
        change(&mut state, fails)
    }
}

impl State {
    fn inode(&mut self, name: &str) -> io::Result<&mut Inode> {
        let n = *self.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(&mut self.inodes[n])
    }

    fn used(&self) -> usize {
        self.names.values().map(|n| self.inodes[*n].bytes.len()).sum()
    }

    fn named(&mut self, change: impl FnOnce(&mut BTreeMap<String, usize>)) {
        change(&mut self.names);
        self.past.push(self.names.clone());
    }
}

impl Inode {
    fn step(&mut self, step: Step) {
        step.on(&mut self.bytes);
        self.unsynced.push(step);
    }
}

impl Step {
    fn on(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Append(more) => bytes.extend(more),
            Self::Cut(length) => bytes.truncate(*length),
        }
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::Error::other("input/output error"))
}

impl Disk for Memory {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let state = self.0.lock().expect("not poisoned");
        Ok(state.names.get(name).map(|n| state.inodes[*n].bytes.clone()))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().expect("not poisoned").names.keys().cloned().collect())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.change(|state, fails| {
            if fails {
                return refused();
            }
            if let Ok(inode) = state.inode(name) {
                inode.step(Step::Cut(0));
                return Ok(());
            }
            let n = state.inodes.len();
            state.inodes.push(Inode::default());
            state.named(|names| {
                names.insert(name.to_owned(), n);
            });
            Ok(())
        })
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.change(|state, fails| {
            let left = state.faults.room.map_or(usize::MAX, |room| room - state.used());
            let part = if fails { bytes.len() * 2 / 3 } else { bytes.len().min(left) };
            state.inode(name)?.step(Step::Append(bytes[..part].to_vec()));
            match part < bytes.len() {
                _ if fails => refused(),
                true => Err(io::ErrorKind::StorageFull.into()),
                false => Ok(()),
            }
        })
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.change(|state, fails| {
            if fails {
                return refused();
            }
            state.inode(name)?.step(Step::Cut(length as usize));
            Ok(())
        })
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.change(|state, fails| {
            let inode = state.inode(name)?;
            if fails {
                inode.forsaken = true;
                return refused();
            }
            if !inode.forsaken {
                inode.durable = inode.bytes.clone();
                inode.unsynced.clear();
            }
            Ok(())
        })
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.change(|state, fails| {
            if fails {
                return refused();
            }
            let n = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
            state.named(|names| {
                names.remove(from);
                names.insert(to.to_owned(), n);
            });
            Ok(())
        })
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.change(|state, fails| {
            if fails {
                return refused();
            }
            state.named(|names| {
                names.remove(name);
            });
            Ok(())
        })
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        self.change(|state, fails| {
            if fails {
                return refused();
            }
            state.past = vec![state.names.clone()];
            Ok(())
        })
    }

    fn reserve(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.create(name)?;
        self.append(name, &vec![0; length as usize])
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/memory").join(name)
    }
}

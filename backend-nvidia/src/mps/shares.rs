//! Scheme `mps`: a share is a record of ours, written before anything is asked of the daemon, and a
//! namespace of that number where the daemon has them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vgpu_core::id::ClaimId;
use vgpu_core::{
    CreateOrder, DeviceId, Error, ErrorKind, Holders, Partition, PartitionId, PartitionState,
    Placement, Result, Scheme, Shape, Swept,
};

use crate::mps::control::{Control, SERVER, unexpected};
use crate::mps::limits::{self, Limits};
use crate::mps::{Folders, Look, Mps, Running, record};

/// One claim's share of a card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShareRecord {
    pub(crate) n: u32,
    pub(crate) claim: ClaimId,
    pub(crate) limits: Limits,
    /// Whether all of it is there; else a crash came between.
    pub(crate) made: bool,
}

impl ShareRecord {
    /// The namespace's name.
    pub(crate) fn name(&self) -> String {
        format!("n{}", self.n)
    }
}

/// What a card can hold of shares.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) memory_mib: u64,
    pub(crate) most: usize,
}

impl Mps {
    /// The shares that are written down for a card.
    pub(crate) fn shares(&self, card: &DeviceId) -> Result<Vec<ShareRecord>> {
        let folder = self.folders(card).shares();
        let Ok(entries) = fs::read_dir(&folder) else { return Ok(Vec::new()) };
        let mut shares = Vec::new();
        for path in entries.filter_map(|e| Some(e.ok()?.path())) {
            if path.extension().is_some_and(|e| e == "json") {
                // It may be removed between the two.
                shares.extend(record::read::<ShareRecord>(&path)?);
            }
        }
        shares.sort_by_key(|share| share.n);
        Ok(shares)
    }

    /// The shares as parts, with their holders.
    pub(crate) fn share_parts(&self, card: &DeviceId, look: &Look) -> Result<Vec<Partition>> {
        let shares = self.shares(card)?;
        let serves = match look {
            Look::None => false,
            Look::Down(record) => record.scheme == Scheme::MPS,
            Look::Up(running) => running.record.scheme == Scheme::MPS,
        };
        if !serves || shares.is_empty() {
            return Ok(Vec::new());
        }
        let held = self.holders(card, look, &shares)?;
        shares.iter().map(|share| part(card, share, held.get(&share.n).copied())).collect()
    }

    /// Makes a share and has its limits read back.
    pub(crate) fn create_share(
        &self,
        running: &Running,
        room: Room,
        order: &CreateOrder,
    ) -> Result<Partition> {
        let Shape::Size(size) = order.shape() else {
            return Err(Error::new(ErrorKind::Invalid, "an MPS share is a size, not a profile"));
        };
        let card = order.device();
        let shares = self.shares(card)?;
        let limits = Limits::of(size);
        fits(&shares, &limits, room, order)?;
        let n = (0..).find(|n| shares.iter().all(|s| s.n != *n)).expect("fewer than 2^32 shares");
        let mut share = ShareRecord { n, claim: order.claim().clone(), limits, made: false };
        let file = file(&running.folders, n);
        record::write(&file, &share)?;
        match self.put_in_force(running, room, &share) {
            Ok(()) => {
                share.made = true;
                record::write(&file, &share)?;
                part(card, &share, None)
            }
            Err(e) => match self.unmake(running, room, &share) {
                Ok(()) => Err(e),
                // A half is left, which `sweep` finds; the caller learns of both.
                Err(second) => Err(e.caused_by(second)),
            },
        }
    }

    /// Unmakes a share that nobody holds.
    pub(crate) fn destroy_share(
        &self,
        card: &DeviceId,
        look: &Look,
        room: Room,
        share: &ShareRecord,
    ) -> Result<()> {
        let shares = self.shares(card)?;
        let held = self.holders(card, look, &shares)?;
        if let Some(n) = held.get(&share.n).filter(|n| **n > 0) {
            let why = format!("{n} processes are clients of the share; end them first");
            return Err(Error::new(ErrorKind::Busy, why).with("claim", &share.claim));
        }
        match look {
            Look::Up(running) => self.unmake(running, room, share),
            // With its daemon went all of it but the record.
            Look::Down(_) | Look::None => record::remove(&file(&self.folders(card), share.n)),
        }
    }

    /// Removes what interrupted creates left.
    pub(crate) fn sweep_shares(
        &self,
        card: &DeviceId,
        look: &Look,
        room: Room,
        keep: &[PartitionId],
    ) -> Result<Vec<Swept>> {
        let mut swept = Vec::new();
        for share in self.shares(card)?.into_iter().filter(|share| !share.made) {
            let id = id(card, &share)?;
            if keep.contains(&id) {
                continue;
            }
            match look {
                Look::Up(running) => self.unmake(running, room, &share)?,
                Look::Down(_) | Look::None => record::remove(&file(&self.folders(card), share.n))?,
            }
            swept.push(Swept { what: format!("half of MPS share {id}") });
        }
        Ok(swept)
    }

    /// Puts every share in force again, on a daemon that was started again.
    pub(crate) fn restore_shares(&self, running: &Running, room: Room) -> Result<()> {
        for share in self.shares(&running.record.card)? {
            self.put_in_force(running, room, &share)?;
        }
        Ok(())
    }

    /// The limits of a share as they are in force: the daemon's, and where it has one for all, that
    /// or what the share's own container holds itself to, whichever is less.
    pub(crate) fn limits_in_force(&self, running: &Running, share: &ShareRecord) -> Result<Limits> {
        let control = self.control(running)?;
        if running.has_namespaces() {
            return namespace_limits(&control, &share.name());
        }
        let all = defaults(&control)?;
        Ok(Limits {
            memory_mib: share.limits.memory_mib.or(all.memory_mib).min(all.memory_mib),
            percent: share.limits.percent.or(all.percent).min(all.percent),
        })
    }

    /// How many processes hold each share, by its number.
    fn holders(
        &self,
        card: &DeviceId,
        look: &Look,
        shares: &[ShareRecord],
    ) -> Result<BTreeMap<u32, u32>> {
        let Look::Up(running) = look else {
            // No daemon has clients any more; who still runs in a share's container is what is left.
            let mut by_share = BTreeMap::new();
            for tenant in self.tenants() {
                *by_share.entry(tenant.share).or_insert(0) += 1;
            }
            return numbered(card, shares, &by_share);
        };
        let clients = self.clients(running)?;
        if !running.has_namespaces() {
            return numbered(card, shares, &self.clients_by_share(&clients));
        }
        let count = |share: &ShareRecord| {
            let name = share.name();
            let of = clients.iter().filter(|c| c.namespace.as_deref() == Some(&*name)).count();
            (share.n, u32::try_from(of).unwrap_or(u32::MAX))
        };
        Ok(shares.iter().map(count).collect())
    }

    fn put_in_force(&self, running: &Running, room: Room, share: &ShareRecord) -> Result<()> {
        let control = self.control(running)?;
        if !running.has_namespaces() {
            return self.set_defaults(running, &control, room);
        }
        let (name, server) = (share.name(), format!("--server={SERVER}"));
        let there = control.verb(&["namespace", "list", &server, "--format=csv,noheader"])?;
        if !there.lines().any(|line| line.split(',').next() == Some(&*name)) {
            control.verb(&["namespace", "create", &name, &server])?;
        }
        let wanted = share.limits;
        let memory = wanted.memory_mib.map(|mib| format!("--pinned-memory-limit={mib}M"));
        let percent = wanted.percent.map(|p| format!("--active-thread-percentage={p}"));
        let set: Vec<&str> =
            [&memory, &percent].into_iter().flatten().map(String::as_str).collect();
        if !set.is_empty() {
            let mut args = vec!["namespace", "set", &name, &server];
            args.extend(set);
            control.verb(&args)?;
        }
        let now = namespace_limits(&control, &name)?;
        same(&wanted, &now, "namespace get")
    }

    /// Without namespaces the daemon has one limit for each client: that of the largest share. Read
    /// back, and given to servers that run as well, since the defaults are for those to come.
    fn set_defaults(&self, running: &Running, control: &Control, room: Room) -> Result<()> {
        let shares = self.shares(&running.record.card)?;
        let memory = shares.iter().map(|s| s.limits.memory_mib.unwrap_or(room.memory_mib)).max();
        let percent = shares.iter().map(|s| s.limits.percent.unwrap_or(100)).max();
        let (memory, percent) = (memory.unwrap_or(room.memory_mib), percent.unwrap_or(100));
        control.shell(&format!("set_default_active_thread_percentage {percent}"))?;
        // The card is the daemon's only one, so its number is 0; its id is not understood here.
        control.shell(&format!("set_default_device_pinned_mem_limit 0 {memory}M"))?;
        for server in self.servers(running)? {
            control.shell(&format!("set_active_thread_percentage {server} {percent}"))?;
            control.shell(&format!("set_device_pinned_mem_limit {server} 0 {memory}M"))?;
        }
        let wanted = Limits { memory_mib: Some(memory), percent: Some(percent) };
        same(&wanted, &defaults(control)?, "get_default_device_pinned_mem_limit")
    }

    fn unmake(&self, running: &Running, room: Room, share: &ShareRecord) -> Result<()> {
        let file = file(&running.folders, share.n);
        // Half from here on, so that a crash leaves what `sweep` finds.
        record::write(&file, &ShareRecord { made: false, ..share.clone() })?;
        let control = self.control(running)?;
        if running.has_namespaces() {
            let (name, server) = (share.name(), format!("--server={SERVER}"));
            let gone = control.verb(&["namespace", "delete", &name, &server]);
            let there = || -> Result<bool> {
                let text =
                    control.verb(&["namespace", "list", &server, "--format=csv,noheader"])?;
                Ok(text.lines().any(|line| line.split(',').next() == Some(&*name)))
            };
            if let Err(e) = gone
                && there()?
            {
                // It stays whole for those who use it.
                record::write(&file, share)?;
                return Err(e);
            }
            return record::remove(&file);
        }
        record::remove(&file)?;
        self.set_defaults(running, &control, room)
    }
}

/// The id of a share.
pub(crate) fn id(card: &DeviceId, share: &ShareRecord) -> Result<PartitionId> {
    PartitionId::of(card, &Scheme::MPS, share.n)
}

fn part(card: &DeviceId, share: &ShareRecord, held: Option<u32>) -> Result<Partition> {
    let size = share.limits.size();
    Ok(Partition {
        id: id(card, share)?,
        device: card.clone(),
        scheme: Scheme::MPS,
        shape: Some(Shape::Size(size)),
        size,
        placement: Placement::Driver,
        handle: share.name(),
        tag: Some(share.claim.clone()),
        state: if share.made { PartitionState::Complete } else { PartitionState::Half },
        holders: Holders::Processes(held.unwrap_or(0)),
    })
}

fn file(folders: &Folders, n: u32) -> PathBuf {
    folders.shares().join(format!("{n}.json"))
}

fn numbered(
    card: &DeviceId,
    shares: &[ShareRecord],
    by_share: &BTreeMap<String, u32>,
) -> Result<BTreeMap<u32, u32>> {
    let count = |share: &ShareRecord| {
        Ok((share.n, by_share.get(id(card, share)?.as_str()).copied().unwrap_or(0)))
    };
    shares.iter().map(count).collect()
}

/// Whether a share more stays within the card, together with those that are there.
fn fits(shares: &[ShareRecord], limits: &Limits, room: Room, order: &CreateOrder) -> Result<()> {
    let full =
        |why: String| Err(Error::new(ErrorKind::Exhausted, why).with("device", order.device()));
    if shares.iter().any(|share| share.claim == *order.claim()) {
        let why = format!("claim {} has a share of this card already", order.claim());
        return Err(Error::new(ErrorKind::AlreadyExists, why).with("device", order.device()));
    }
    if shares.len() >= room.most {
        return full(format!("an MPS server has {} clients at most, one to a share", room.most));
    }
    let memory: u64 = shares.iter().filter_map(|s| s.limits.memory_mib).sum();
    let asked = limits.memory_mib.unwrap_or(0);
    if memory.checked_add(asked).is_none_or(|sum| sum > room.memory_mib) {
        let left = room.memory_mib.saturating_sub(memory);
        return full(format!("{asked}Mi are asked and {left}Mi are left of the card"));
    }
    let percent: u32 = shares.iter().filter_map(|s| s.limits.percent).sum();
    let asked = limits.percent.unwrap_or(0);
    if percent.saturating_add(asked) > 100 {
        let left = 100_u32.saturating_sub(percent);
        return full(format!("{asked} % of the threads are asked and {left} % are left"));
    }
    Ok(())
}

fn same(wanted: &Limits, now: &Limits, command: &str) -> Result<()> {
    let memory = wanted.memory_mib.is_none() || wanted.memory_mib == now.memory_mib;
    let percent = wanted.percent.is_none() || wanted.percent == now.percent;
    if memory && percent {
        return Ok(());
    }
    Err(unexpected(command, &format!("{wanted:?} was set and {now:?} is in force")))
}

fn namespace_limits(control: &Control, name: &str) -> Result<Limits> {
    let field = |field: &str| control.verb(&["namespace", "get", name, SERVER, field]);
    let (memory, percent) = (field("pinned-memory-limit")?, field("active-thread-percentage")?);
    read(&memory, &percent, "namespace get")
}

fn defaults(control: &Control) -> Result<Limits> {
    let memory = control.shell("get_default_device_pinned_mem_limit 0")?;
    let percent = control.shell("get_default_active_thread_percentage")?;
    read(&memory, &percent, "get_default_device_pinned_mem_limit")
}

fn read(memory: &str, percent: &str, command: &str) -> Result<Limits> {
    let odd = |text: String| unexpected(command, &text);
    Ok(Limits {
        memory_mib: limits::memory(memory).map_err(odd)?,
        percent: limits::percent(percent).map_err(odd)?,
    })
}

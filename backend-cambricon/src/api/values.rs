//! What the library tells, as plain data.

/// Where a card sits on the PCI bus, and what it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciInfo {
    /// Lower case `dddd:bb:dd.f`, as the kernel writes it in `/sys/bus/pci/devices`.
    pub address: String,
    /// Vendor id, `cabc`.
    pub vendor: u16,
    /// Device id.
    pub device_id: u32,
}

/// A card's memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryInfo {
    /// All of it, what the driver keeps included.
    pub total: u64,
    /// What the driver keeps; `None` where the library is too old to tell.
    pub reserved: Option<u64>,
    /// What is allocated.
    pub used: u64,
}

/// A process on a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Process id in the host's PID namespace.
    pub pid: u32,
    /// Memory in bytes.
    pub used: u64,
}

/// A card's health as the driver sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardHealth {
    /// Whether the card is not "in problem".
    pub good: bool,
    /// The driver's state for this card: 4 is running.
    pub driver_state: i32,
    /// 0 pass, 10 warn, 20 fail; `None` where the library is too old to tell.
    pub overall: Option<i32>,
    /// What is wrong, one by one.
    pub incidents: Vec<Incident>,
}

/// One thing that is wrong with a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// The part of the card, as the library's bits.
    pub system: i32,
    /// 0 pass, 10 warn, 20 fail.
    pub result: i32,
    /// The library's number of it.
    pub code: i32,
    /// Its text; the first 200 characters, what is not UTF-8 replaced.
    pub text: String,
}

/// Counters of memory errors that could not be corrected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EccCounters {
    /// Since the driver was loaded, of both kinds of memory, parity errors included.
    pub uncorrected: u64,
    /// Whether the on-chip memory has had more errors in its life than the vendor allows.
    pub threshold_exceeded: bool,
}

/// Whether memory awaits repair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repair {
    /// Pages are retired, or rows replaced, at the next reset.
    pub pending: bool,
    /// A repair failed: the card is worn out.
    pub failed: bool,
}

/// How near two cards are, near to far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Relation {
    /// On one board.
    Internal,
    /// Under one PCI switch.
    Single,
    /// Under several PCI switches, without crossing a host bridge.
    Multiple,
    /// Under one host bridge.
    HostBridge,
    /// Under one CPU.
    Cpu,
    /// In one machine.
    System,
}

/// A profile of MIM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MimProfile {
    /// The number that further calls want.
    pub id: i32,
    /// For example `2m.16gb`.
    pub name: String,
    /// Cores.
    pub cores: u32,
    /// Memory, in a unit that no public word tells.
    pub memory: u64,
}

/// An instance of MIM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MimInstance {
    /// Its number on the card.
    pub id: i32,
    /// Its UUID.
    pub uuid: String,
    /// Its name: who made it chose it.
    pub name: String,
    /// Its profile's number.
    pub profile: i32,
    /// Start and length in the card's slices.
    pub place: (u32, u32),
    /// Its own node, `/dev/cambricon-caps/cap_dev0_mi1`.
    pub node: String,
    /// The node for communication between cards; may be empty.
    pub ipcm_node: String,
}

/// What an sMLU instance may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Percent of the card's cores.
    pub percent: u32,
    /// Memory in bytes.
    pub memory: u64,
}

/// A profile of sMLU: a size that instances may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmluProfile {
    /// Its number on the card.
    pub id: i32,
    /// As the driver names it, `12p.4096mb`.
    pub name: String,
    /// The size.
    pub quota: Quota,
}

/// An instance of sMLU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmluInstance {
    /// Its number on the card.
    pub id: i32,
    /// Its UUID.
    pub uuid: String,
    /// Its name: who made it chose it.
    pub name: String,
    /// Its profile's number.
    pub profile: i32,
    /// What it may use.
    pub quota: Quota,
    /// What it uses.
    pub used: Quota,
    /// Its own node, `/dev/cambricon-caps/cap_dev0_mi1`.
    pub node: String,
}

/// An event as the library gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawEvent {
    /// The card; `None` for one that this set did not register.
    pub index: Option<u32>,
    /// The library's bit of the type: 1 for an XID.
    pub event_type: u64,
    /// The XID, or what else the type carries.
    pub data: u64,
    /// The instance, where the event is of one.
    pub instance: Option<u32>,
}

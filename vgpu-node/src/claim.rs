//! A claim: what the ledger keeps of it, and the table of all that live.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use serde::{Deserialize, Serialize};
use vgpu_core::guarantee::{Guarantees, Minimum};
use vgpu_core::health::Usage;
use vgpu_core::id::{ClaimId, DeviceId, SlotId, TrustDomain, Vendor};
use vgpu_core::order::{Grant, Target};
use vgpu_core::ownership::Intent;
use vgpu_core::plan::{Held, Modes, Step, Want};
use vgpu_core::scheme::{Need, Scheme};
use vgpu_core::size::Size;
use vgpu_core::{Confinement, Container, Device, Error, ErrorKind, Result};

use crate::offer::{Lifecycle, ResourceName};
use crate::publish::{ClaimFacts, GrantFacts};

/// Every claim id of ours starts so; parts tagged so are ours, even without a ledger.
pub const PREFIX: &str = "vgpu-";

/// What the ledger keeps of a claim. Its id is also the name that the runtime resolves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRecord {
    /// Its id; never used twice.
    pub claim: ClaimId,
    /// Further ids that the kubelet gave out for the same device ids of the same pod: an init
    /// container and an app container that share them. They resolve to the same edits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<ClaimId>,
    /// The resource.
    pub resource: ResourceName,
    /// The kubelet's device ids.
    pub ids: BTreeSet<SlotId>,
    /// Who holds it, where that is known; told to people, never decided on.
    pub holder: Option<Holder>,
    /// Who may be neighbours.
    pub domain: TrustDomain,
    /// What must at least be enforced.
    #[serde(default)]
    pub minimum: Minimum,
    /// What the ids meant when the kubelet allocated them; a later offer changes nothing of it.
    pub wanted: Vec<Wanted>,
    /// How far it is.
    pub stage: Stage,
    /// What it consists of.
    pub grants: Vec<GrantRecord>,
    /// The container that was last confined for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Whether a container of it was started that may open every device of the node, as a privileged
    /// one may; it stays so, since a pod's containers do not change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub every_device: bool,
    /// When the kubelet allocated it.
    pub opened: SystemTime,
}

/// What the ids of one card ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The card.
    pub device: DeviceId,
    /// How the card is split for it.
    pub scheme: Scheme,
    /// One want for each part.
    pub wants: Vec<Want>,
    /// Whether the card's mode may be changed for it.
    pub modes: Modes,
    /// Whether its parts are made for it or were made ahead.
    #[serde(default)]
    pub lifecycle: Lifecycle,
}

/// How far a claim is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// A part was lost under it: its spec is withdrawn, and nothing is made anew in silence.
    Broken(String),
    /// Its grants are decided and written down; the driver may or may not have made them.
    Intended,
    /// Allocated by the kubelet; nothing was asked of a driver.
    Open,
    /// All of it is there and published.
    Prepared,
    /// It is being taken down.
    Releasing,
}

impl Stage {
    /// A word for people.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Broken(_) => "broken",
            Self::Intended => "preparing",
            Self::Open => "allocated",
            Self::Prepared => "prepared",
            Self::Releasing => "releasing",
        }
    }
}

/// One grant of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRecord {
    /// What was decided.
    pub step: Step,
    /// How a part is recognised after a crash; shared grants make nothing.
    pub intent: Option<Intent>,
    /// What it takes of the card.
    pub held: Held,
    /// What came of it.
    pub target: Option<Target>,
    /// Whose card.
    pub vendor: Vendor,
    /// The card's model.
    pub model: String,
    /// The size of it.
    pub size: Size,
    /// What it enforces, as the card declared it then.
    pub guarantees: Guarantees,
    /// What it asks of its container, as the card declared it then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
}

impl GrantRecord {
    /// The card.
    pub fn device(&self) -> &DeviceId {
        &self.held.device
    }

    /// Whether its part was made ahead, and stays when the claim goes.
    pub fn is_pooled(&self) -> bool {
        matches!(&self.step, Step::Share(Target { grant: Grant::Part(_), .. }))
    }

    /// The part, once it is made.
    pub fn part(&self) -> Option<&vgpu_core::PartitionId> {
        match self.target.as_ref().map(|t| &t.grant) {
            Some(Grant::Part(part)) => Some(part),
            _ => None,
        }
    }
}

/// The pod and container that a claim is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Holder {
    /// Namespace.
    pub namespace: String,
    /// Pod.
    pub pod: String,
    /// Pod UID, where the kubelet's checkpoint told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Container; where init and app containers share ids it may be the other one's name.
    pub container: String,
}

impl fmt::Display for Holder {
    /// The pod, as `kubectl` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.pod)
    }
}

impl ClaimRecord {
    /// All names under which it is published.
    pub fn names(&self) -> impl Iterator<Item = &ClaimId> {
        std::iter::once(&self.claim).chain(&self.aliases)
    }

    /// What its tenant may know.
    pub fn facts(&self) -> ClaimFacts {
        let facts = |grant: &GrantRecord| GrantFacts {
            vendor: grant.vendor.clone(),
            model: grant.model.clone(),
            scheme: grant.held.scheme.clone(),
            part: grant.part().cloned(),
            size: grant.size,
            enforcement: grant.guarantees.clone(),
        };
        ClaimFacts {
            claim: self.claim.clone(),
            resource: Some(self.resource.to_string()),
            grants: self.grants.iter().map(facts).collect(),
        }
    }
}

/// A claim as this process sees it.
#[derive(Debug, Clone)]
pub struct Claim {
    /// What the ledger keeps.
    pub record: ClaimRecord,
    /// Whether the ledger has it.
    pub journalled: bool,
    /// The kubelet allocated some of its ids anew: it may go as soon as nobody holds its parts.
    pub superseded: bool,
    /// When the kubelet allocated it; `None` where that was before this process began.
    pub allocated: Option<Instant>,
    /// When the kubelet last allocated it or started a container on it, as far as this process knows:
    /// what the kubelet was asked before that says nothing of it.
    pub touched: Option<Instant>,
    /// The kubelet has not listed it for long enough that its ids count as free; its parts stay until
    /// that is proven.
    pub absent: bool,
    /// Taken by whoever prepares or releases it, so that both never run at once.
    pub work: Arc<Mutex<()>>,
    /// Order of allocation in this process, ledger first.
    pub turn: u64,
    /// What its grants use, by their place among them, as far as the drivers told at the last look.
    pub usage: BTreeMap<usize, Usage>,
    /// What confining its container came to, if this process did so.
    pub confinement: Option<Confinement>,
    /// The last failure to prepare or release it, for people.
    pub trouble: Option<String>,
}

impl Claim {
    fn new(record: ClaimRecord, journalled: bool, turn: u64) -> Self {
        Self {
            record,
            journalled,
            superseded: false,
            allocated: None,
            touched: None,
            absent: false,
            work: Arc::default(),
            turn,
            usage: BTreeMap::new(),
            confinement: None,
            trouble: None,
        }
    }

    /// The kubelet allocates it, or starts a container on it, now: it is there.
    pub fn touch(&mut self) {
        self.touched = Some(Instant::now());
        self.superseded = false;
        self.absent = false;
    }

    /// Whether what the kubelet was asked at that moment can say anything of it.
    pub fn is_known_at(&self, asked: Instant) -> bool {
        self.touched.is_none_or(|touched| touched < asked)
    }

    /// Whether it names this id, by its own or by an alias.
    pub fn answers_to(&self, claim: &ClaimId) -> bool {
        self.record.claim == *claim || self.record.aliases.contains(claim)
    }
}

/// All claims that live.
#[derive(Debug, Default)]
pub struct Claims {
    by_id: BTreeMap<ClaimId, Claim>,
    turn: u64,
}

impl Claims {
    /// Those that the ledger has.
    pub fn restored(records: impl IntoIterator<Item = ClaimRecord>) -> Self {
        let mut claims = Self::default();
        let mut records: Vec<ClaimRecord> = records.into_iter().collect();
        records.sort_by_key(|r| r.opened);
        for record in records {
            claims.put(record, true);
        }
        claims
    }

    /// The claim of that id, or the one that has it as an alias.
    pub fn find(&self, claim: &ClaimId) -> Option<&Claim> {
        self.by_id.get(claim).or_else(|| self.iter().find(|c| c.answers_to(claim)))
    }

    /// The claim of that id, to change it.
    pub fn find_mut(&mut self, claim: &ClaimId) -> Option<&mut Claim> {
        let id = self.find(claim)?.record.claim.clone();
        self.by_id.get_mut(&id)
    }

    /// All, oldest id first.
    pub fn iter(&self) -> impl Iterator<Item = &Claim> {
        self.by_id.values()
    }

    /// All, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Claim> {
        self.by_id.values_mut()
    }

    /// Opens a claim: the kubelet's word that these ids are free. Older claims on any of them are
    /// superseded.
    pub fn open(&mut self, record: ClaimRecord) -> &Claim {
        for other in self.by_id.values_mut() {
            if !other.record.ids.is_disjoint(&record.ids) {
                other.superseded = true;
            }
        }
        self.forget_stale_opens();
        let id = record.claim.clone();
        self.put(record, false);
        let claim = self.by_id.get_mut(&id).expect("it was put there a moment ago");
        claim.touch();
        claim.allocated = claim.touched;
        claim
    }

    /// Adds a claim that was not opened here: from the ledger, or from the kubelet's checkpoint.
    pub fn put(&mut self, record: ClaimRecord, journalled: bool) {
        self.turn += 1;
        let id = record.claim.clone();
        self.by_id.insert(id, Claim::new(record, journalled, self.turn));
    }

    /// Takes down who holds what, where that was not known when the container started: the kubelet names no pods for a
    /// while after its own start. Known holders stay, and whoever held the ids before the claim is none of its.
    pub fn learn_holders(&mut self, asked: Instant, holders: &BTreeMap<ClaimId, Holder>) {
        let known = self.iter_mut().filter(|claim| claim.is_known_at(asked));
        let unknown = known.map(|claim| &mut claim.record);
        for record in unknown.filter(|r| r.holder.is_none() && r.stage == Stage::Prepared) {
            let holder = record.names().find_map(|name| holders.get(name));
            record.holder = holder.cloned();
        }
    }

    /// Forgets a claim.
    pub fn remove(&mut self, claim: &ClaimId) {
        self.by_id.remove(claim);
    }

    /// The claims that PreStart for exactly these ids can mean, newest first.
    pub fn of_ids(&self, resource: &ResourceName, ids: &BTreeSet<SlotId>) -> Vec<&Claim> {
        let mut found: Vec<&Claim> = self
            .iter()
            .filter(|c| c.record.resource == *resource && c.record.ids == *ids)
            .collect();
        found.sort_by_key(|c| std::cmp::Reverse(c.turn));
        found
    }

    /// Superseded claims for which nothing was ever made are kept only as long as an init container
    /// may still be started on them; the newest few of them are enough.
    fn forget_stale_opens(&mut self) {
        const KEPT: usize = 64;
        let mut stale: Vec<(u64, ClaimId)> = self
            .by_id
            .values()
            .filter(|c| c.superseded && c.record.stage == Stage::Open)
            .map(|c| (c.turn, c.record.claim.clone()))
            .collect();
        stale.sort_unstable_by_key(|(turn, _)| std::cmp::Reverse(*turn));
        for (_, claim) in stale.into_iter().skip(KEPT) {
            self.by_id.remove(&claim);
        }
    }
}

/// A new claim id: 80 random bits, so that no two are ever alike, across restarts too.
///
/// # Errors
/// `Io` if the kernel gives no random bytes.
pub fn fresh_id() -> Result<ClaimId> {
    let mut bytes = [0u8; 10];
    let no_random = |e: std::io::Error| {
        Error::new(ErrorKind::Io, format!("the kernel gives no random bytes: {e}"))
    };
    let mut got = 0;
    while got < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        got +=
            rustix::rand::getrandom(&mut bytes[got..], flags).map_err(|e| no_random(e.into()))?;
    }
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    ClaimId::new(format!("{PREFIX}{hex}"))
}

/// What a step takes of a card, and what it enforces there.
pub(crate) fn grant_record(
    device: &Device,
    step: Step,
    domain: &TrustDomain,
    seen: Vec<vgpu_core::PartitionId>,
) -> Result<GrantRecord> {
    let foreign =
        || Error::new(ErrorKind::Invalid, format!("a step for another card than {}", device.id));
    let held = Held::of(device, &step, domain).ok_or_else(foreign)?;
    let info = device.scheme(&held.scheme)?;
    let (intent, target) = match &step {
        Step::Carve(order) => {
            (Some(Intent { order: order.clone(), ownership: info.ownership, seen }), None)
        }
        Step::Share(target) => (None, Some(target.clone())),
    };
    Ok(GrantRecord {
        vendor: device.vendor.clone(),
        model: device.model.clone(),
        size: held.size,
        guarantees: info.guarantees.clone(),
        needs: info.needs.clone(),
        step,
        intent,
        held,
        target,
    })
}

//! What the agent knows of claims and parts: from its socket, or else from its ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vgpu_node::ledger::Ledger;
use vgpu_node::pool::Record;
use vgpu_plugin::sockets::ClaimsReply;

use crate::doctor::places::Places;
use crate::doctor::reader::Reader;

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer is one line; a node has hundreds of claims and not millions.
const LONGEST: u64 = 64 << 20;

/// What became of asking the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Agent {
    /// It says this.
    Answers(Box<ClaimsReply>),
    /// Its answer is no answer.
    Garbled(String),
    /// There is no socket.
    #[default]
    None,
    /// A socket is there, and this is why there is no answer.
    Silent(String),
}

/// Claims and parts that an agent knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Claims by all their names, with their state; nothing without a ledger, which alone has all names.
    pub(crate) claims: Option<BTreeMap<String, String>>,
    /// Parts that claims hold or that were made ahead.
    pub(crate) parts: BTreeSet<String>,
    /// Tags of parts that are being made, or were made ahead.
    pub(crate) tags: BTreeSet<String>,
    /// Whether the agent itself said so.
    pub(crate) by_agent: bool,
    /// Resources that the agent serves.
    pub(crate) resources: BTreeSet<String>,
}

impl Known {
    /// What was known before or after something was read; a claim that came or went meanwhile has no state.
    #[must_use]
    pub(crate) fn and(mut self, later: Self) -> Self {
        let (mut claims, after) = (self.claims.unwrap_or_default(), later.claims.clone());
        let after = after.unwrap_or_default();
        for (name, state) in &mut claims {
            *state = after.get(name).cloned().unwrap_or_default();
        }
        for name in after.into_keys() {
            claims.entry(name).or_default();
        }
        self.claims = later.claims.map(|_| claims);
        self.parts.extend(later.parts);
        self.tags.extend(later.tags);
        self.resources.extend(later.resources);
        self.by_agent &= later.by_agent;
        self
    }
}

/// Asks the agent.
pub(crate) fn ask(places: &Places) -> Agent {
    let socket = places.sockets().claims;
    let asked = || {
        let mut stream = UnixStream::connect(&socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut bytes = Vec::new();
        stream.by_ref().take(LONGEST).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match asked() {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(reply) => Agent::Answers(Box::new(reply)),
            Err(e) => Agent::Garbled(e.to_string()),
        },
        Err(e) => away(&e),
    }
}

fn away(error: &io::Error) -> Agent {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Agent::None,
        // A socket is not a folder deep enough for a system call, nor absent.
        _ => Agent::Silent(error.to_string()),
    }
}

/// Puts together what agent and ledger know. Parts that were made ahead are in the ledger alone.
pub(crate) fn known(reader: &mut Reader<'_>, places: &Places, agent: &Agent) -> Known {
    let mut known = Known::default();
    let journal = places.state_dir.join("journal");
    if reader.tree.has(&journal) {
        let read = Ledger::<Record>::peek(&places.tree.find(&places.state_dir));
        if let Some(records) = reader.made(&journal, read) {
            let mut claims = BTreeMap::new();
            for record in records.values() {
                take(&mut known, &mut claims, record);
            }
            known.claims = Some(claims);
        }
    }
    if let Agent::Answers(reply) = agent {
        known.by_agent = true;
        known.resources.extend(reply.resources.iter().flat_map(BTreeMap::keys).cloned());
        for claim in &reply.claims {
            let state = claim.state.clone();
            known
                .claims
                .iter_mut()
                .for_each(|c| drop(c.insert(claim.claim.to_string(), state.clone())));
            known.resources.insert(claim.resource.to_string());
            known.parts.extend(claim.grants.iter().filter_map(|grant| grant.part.clone()));
        }
    }
    known
}

fn take(known: &mut Known, claims: &mut BTreeMap<String, String>, record: &Record) {
    match record {
        Record::Pool(part) => {
            known.tags.insert(part.key().to_string());
            known.parts.extend(part.part.iter().map(ToString::to_string));
        }
        // A card's mode has neither ids nor parts.
        Record::Mode(_) => {}
        Record::Claim(claim) => {
            known.resources.insert(claim.resource.to_string());
            for name in std::iter::once(&claim.claim).chain(&claim.aliases) {
                claims.insert(name.to_string(), claim.stage.word().to_owned());
            }
            for grant in &claim.grants {
                known.parts.extend(grant.part().map(ToString::to_string));
                let order = grant.intent.as_ref().map(|intent| &intent.order);
                known.tags.extend(order.map(|order| order.claim().to_string()));
            }
        }
    }
}

//! The node whose cards are those of `libfake_cndev.so`: its machine lies in a file, as a driver's state outlives agents.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vgpu_scenarios::cambricon::{CARDS, Machine, card, offers};

use crate::cluster::test::seen::Seen;
use crate::cluster::test::standin::{StandIn, Vendor};
use crate::cluster::test::world::World;

pub(crate) use vgpu_scenarios::cambricon::{MEM, SLOT, WHOLE};

/// The agent with the backend `cambricon`, and its machine.
#[derive(Debug)]
pub(crate) struct Mlu {
    vendor: Vendor,
    machine: Machine,
}

impl Mlu {
    /// Plays a scenario on a machine of its own.
    pub(crate) fn tried(world: &World, scenario: fn(&Self) -> Result<String>) -> Result<String> {
        let mlu = Self::start(world)?;
        mlu.vendor.tried(&[(MEM, 40), (SLOT, 64), (WHOLE, 3)], || scenario(&mlu))
    }

    fn start(world: &World) -> Result<Self> {
        let dir = Vendor::folder(world, "cambricon")?;
        let machine = Machine::new(&dir)?;
        let library = &world.programs.fake_cndev;
        let what = StandIn {
            flags: vec![
                "--backend=cambricon".to_owned(),
                format!("--cndev-library={}", library.display()),
            ],
            env: vec![("FAKE_CNDEV".to_owned(), machine.scenario().display().to_string())],
            offers: offers(),
            nodes: nodes(),
        };
        Ok(Self { vendor: Vendor::start(world, &dir, &what)?, machine })
    }

    pub(crate) fn world(&self) -> &World {
        &self.vendor.world
    }

    /// What a container sees: what the runtime was told, which is what the driver has for its claim and nothing else.
    pub(crate) fn checked(&self, pod: &str, container: &str) -> Result<Seen> {
        let seen = self.world().checked(pod, container)?;
        let claim = seen.claim_id()?;
        // A tenant is not told which card it has; the agent is asked.
        let held = self.world().claims()?.into_iter().find(|c| c["claim"] == claim);
        let held = held.with_context(|| format!("the agent does not know {claim}"))?;
        let mut promised = BTreeSet::new();
        for grant in held["grants"].as_array().context("the claim has no grants")? {
            let device = grant["device"].as_str().context("a grant without a card")?;
            let card = (0..CARDS).find(|n| card(*n) == device);
            let card = card.with_context(|| format!("{device} is none of this machine's"))?;
            let n = number(card);
            promised.insert(format!("/dev/cambricon_dev{n}"));
            promised.insert(format!("/dev/cambricon_ipcm{n}"));
            promised.insert(match grant["part"].is_null() {
                true => "/dev/cambricon_ctl".to_owned(),
                false => {
                    let instance = self.instance(card, claim)?;
                    format!("/dev/cambricon-caps/cap_dev{n}_mi{}", instance["id"])
                }
            });
        }
        let sees: BTreeSet<String> = seen.cards().into_iter().map(str::to_owned).collect();
        ensure!(sees == promised, "{container} of pod {pod} sees {sees:?}, not {promised:?}");
        Ok(seen)
    }

    /// The instances of a card, as the driver has them.
    pub(crate) fn instances(&self, card: usize) -> Result<Vec<Value>> {
        self.machine.instances(card)
    }

    /// How many profiles a card has, used ones and others.
    pub(crate) fn profiles(&self, card: usize) -> Result<usize> {
        Ok(self.machine.state()?["cards"][card]["profiles"].as_array().map_or(0, Vec::len))
    }

    /// How many instances a card has, and of how many sizes they are.
    pub(crate) fn sizes(&self, card: usize) -> Result<(usize, usize)> {
        let all = self.instances(card)?;
        let used: BTreeSet<i64> = all.iter().filter_map(|i| i["profile"].as_i64()).collect();
        Ok((all.len(), used.len()))
    }

    /// The bytes of a claim's instance, as the driver has it.
    pub(crate) fn memory(&self, card: usize, claim: &str) -> Result<u64> {
        let profile = self.instance(card, claim)?["profile"].clone();
        let state = self.machine.state()?;
        let profiles = state["cards"][card]["profiles"].as_array();
        let its = profiles.and_then(|all| all.iter().find(|p| p["id"] == profile));
        its.and_then(|p| p["memory"].as_u64())
            .with_context(|| format!("card {card} has no profile {profile}: {state}"))
    }

    /// What `vgpu partition resize` says, which an admin runs on the node.
    pub(crate) fn resize(&self, part: &str, memory: &str) -> Result<String> {
        let state = self.world().setup.state.display().to_string();
        let args = ["partition", "resize", part, "--memory", memory, "--state-dir", &state];
        self.world().cluster.node.output(&self.world().programs.vgpu, args)
    }

    /// Changes the machine under the library.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        self.machine.change(change)
    }

    fn instance(&self, card: usize, claim: &str) -> Result<Value> {
        let all = self.instances(card)?;
        let its = all.iter().find(|i| i["name"] == claim);
        its.cloned().with_context(|| format!("card {card} has no instance {claim}: {all:?}"))
    }
}

/// The number in the names of its nodes, which is another.
fn number(card: usize) -> usize {
    card ^ 1
}

/// The driver's, of all cards.
fn nodes() -> Vec<String> {
    let of_card = |n| {
        let own = ["dev", "ipcm"].map(|kind| format!("/dev/cambricon_{kind}{n}"));
        let instances = (1..=64).map(move |i| format!("/dev/cambricon-caps/cap_dev{n}_mi{i}"));
        own.into_iter().chain(instances)
    };
    ["/dev/cambricon_ctl".to_owned()].into_iter().chain((0..CARDS).flat_map(of_card)).collect()
}

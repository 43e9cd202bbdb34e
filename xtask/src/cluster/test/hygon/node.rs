//! The node whose cards are those of `fake_hygon_host`: sysfs and KFD below a folder, processes and device nodes real, the
//! libraries the stand-ins, called in a child of the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::process::{children_by, output, wait_for};
use crate::cluster::test::pod::{PROBE, STAY, container};
use crate::cluster::test::seen::Seen;
use crate::cluster::test::standin::{StandIn, Vendor};
use crate::cluster::test::world::{FUSE, PATIENCE, World};

/// Two cards, undivided.
pub(crate) const WHOLE: &str = "vgpu.dev/whole-dcu";
/// Quarters of two others, as virtual DCUs.
pub(crate) const QUARTER: &str = "vgpu.dev/vdcu";

/// By number of the card, as in the names of its nodes; K100-AI, 120 units each.
const CARDS: [&str; 4] = ["0000:9f:00.0", "0000:8f:00.0", "0000:7f:00.0", "0000:6f:00.0"];

/// The agent with the backend `hygon`, and its machine.
#[derive(Debug)]
pub(crate) struct Dcu {
    vendor: Vendor,
    root: PathBuf,
}

impl Dcu {
    /// Plays a scenario on a machine of its own.
    pub(crate) fn tried(world: &World, scenario: fn(&Self) -> Result<String>) -> Result<String> {
        let dcu = Self::start(world)?;
        dcu.vendor.tried(&[(WHOLE, 2), (QUARTER, 8)], || scenario(&dcu))
    }

    fn start(world: &World) -> Result<Self> {
        let dir = Vendor::folder(world, "hygon")?;
        let root = dir.join("root");
        let text = root.display().to_string();
        let fakes = &world.programs.fake_hygon;
        output(&fakes.host.display().to_string(), ["k100-ai-x4", &text])?;
        // Its processes are the node's own, and its nodes have the number that all nodes here have.
        let proc = root.join("proc");
        std::fs::remove_dir(&proc).context("the prepared host has processes already")?;
        symlink("/proc", &proc)?;
        let mut numbers = vec![root.join("sys/class/kfd/kfd/dev")];
        for (n, address) in CARDS.iter().enumerate() {
            let drm = root.join("sys/devices/pci0000:00").join(address).join("drm");
            numbers.push(drm.join(format!("card{n}/dev")));
            numbers.push(drm.join(format!("renderD{}/dev", 128 + n)));
        }
        for file in numbers {
            ensure!(file.is_file(), "the prepared host has no {}", file.display());
            std::fs::write(file, format!("{}:{}\n", FUSE.0, FUSE.1))?;
        }
        let what = StandIn {
            flags: vec![
                "--backend=hygon".to_owned(),
                // Else it is looked for below the prepared host.
                "--runtime-endpoint=/run/containerd/containerd.sock".to_owned(),
                format!("--host-root={text}"),
                format!("--hydmi-library={}", fakes.hydmi.display()),
                format!("--rocm-smi-library={}", fakes.rocm_smi.display()),
            ],
            env: vec![("FAKE_HYDMI".to_owned(), format!("{text}/scenario.json"))],
            offers: offers(),
            nodes: (0..CARDS.len()).flat_map(nodes_of).collect(),
        };
        Ok(Self { vendor: Vendor::start(world, &dir, &what)?, root })
    }

    pub(crate) fn world(&self) -> &World {
        &self.vendor.world
    }

    /// What a container sees: what the runtime was told, which is its cards' nodes and no other's, and of a part the
    /// driver's own words on it.
    pub(crate) fn checked(&self, pod: &str, container: &str) -> Result<Seen> {
        let seen = self.world().checked(pod, container)?;
        let mut promised = BTreeSet::from(["/dev/kfd".to_owned(), "/dev/mkfd".to_owned()]);
        for grant in self.grants(seen.claim_id()?)? {
            promised.extend(nodes_of(number(&grant)?));
        }
        let sees: BTreeSet<String> = seen.cards().into_iter().map(str::to_owned).collect();
        ensure!(sees == promised, "{container} of pod {pod} sees {sees:?}, not {promised:?}");
        Ok(seen)
    }

    /// What a container reads of its virtual DCU, which is what the driver has of it.
    pub(crate) fn conf(&self, pod: &str, container: &str) -> Result<Conf> {
        let claim = self.checked(pod, container)?;
        let claim = claim.claim_id()?;
        let mut told = String::new();
        wait_for("word of the virtual DCU", PATIENCE, || {
            told = self.world().log(pod, container)?;
            Ok(told.ends_with(LAST).then_some(()))
        })?;
        let text = told.rsplit_once(FIRST).map_or("", |(_, text)| text);
        let conf = Conf::parse(text.trim_end_matches(LAST));
        let grants = self.grants(claim)?;
        let grant = grants.first().with_context(|| format!("{claim} has no grant"))?;
        let address = CARDS[number(grant)?];
        ensure!(conf.0.get("PciBusId").is_some_and(|a| a == address), "{conf:?}, not of {address}");
        let same =
            self.confs()?.into_iter().filter(|c| c.without_number() == conf.without_number());
        ensure!(same.count() == 1, "{conf:?} is not one of the driver's: {:?}", self.confs()?);
        Ok(conf)
    }

    /// The virtual DCUs that the driver has.
    pub(crate) fn confs(&self) -> Result<Vec<Conf>> {
        let dir = self.root.join("etc/vdev");
        let mut confs = Vec::new();
        let Ok(entries) = std::fs::read_dir(&dir) else { return Ok(confs) };
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "conf") {
                confs.push(Conf::parse(&std::fs::read_to_string(&path)?));
            }
        }
        Ok(confs)
    }

    /// Faults of the libraries, as `backend-hygon/examples/fake_hydmi/README.md` has them.
    pub(crate) fn control(&self, faults: &Value) -> Result<()> {
        let new = self.root.join("control.new");
        std::fs::write(&new, faults.to_string())?;
        Ok(std::fs::rename(new, self.root.join("control.json"))?)
    }

    /// The process that calls the libraries, by its number in the box.
    pub(crate) fn child(&self) -> Result<u32> {
        let node = &self.world().cluster.node;
        let all = children_by(&node.inside("/proc"), node.number("agent")?);
        ensure!(all.len() == 1, "the agent has the children {all:?}");
        Ok(all[0])
    }

    fn grants(&self, claim: &str) -> Result<Vec<Value>> {
        let held = self.world().claims()?.into_iter().find(|c| c["claim"] == claim);
        let held = held.with_context(|| format!("the agent does not know {claim}"))?;
        held["grants"].as_array().cloned().context("the claim has no grants")
    }
}

/// A virtual DCU's text: `key: value`, of which `cu_mask` is there twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conf(BTreeMap<String, String>);

impl Conf {
    fn parse(text: &str) -> Self {
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in text.lines().filter_map(|line| line.split_once(": ")) {
            let said = all.entry(key.to_owned()).or_default();
            said.push_str(value);
            said.push(' ');
        }
        all.values_mut().for_each(|said| *said = said.trim_end().to_owned());
        Self(all)
    }

    /// One line's value.
    pub(crate) fn says(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// Its units, a bit each.
    pub(crate) fn mask(&self) -> Result<Vec<u64>> {
        let words = self.says("cu_mask").split_whitespace();
        words
            .map(|word| {
                u64::from_str_radix(word.trim_start_matches("0x"), 16)
                    .with_context(|| format!("the mask {word}"))
            })
            .collect()
    }

    /// Within a container its card is the only one, so that the card's number is another.
    fn without_number(&self) -> BTreeMap<String, String> {
        let mut rest = self.0.clone();
        rest.remove("device_id");
        rest
    }
}

const FIRST: &str = "=== virtual\n";
const LAST: &str = "=== all\n";

/// As `prober`, and it tells its virtual DCU.
pub(crate) fn prober(name: &str, resource: &str) -> Value {
    let script =
        format!("{PROBE}\necho '=== virtual'; cat /etc/vdev/docker/*; echo '=== all'\n{STAY}");
    container(name, &script, &[(resource, 1)])
}

/// The number of a grant's card.
fn number(grant: &Value) -> Result<usize> {
    let device = grant["device"].as_str().context("a grant without a card")?;
    let n = CARDS.iter().position(|card| *card == device);
    n.with_context(|| format!("{device} is none of this machine's"))
}

fn nodes_of(n: usize) -> [String; 2] {
    [format!("/dev/dri/card{n}"), format!("/dev/dri/renderD{}", 128 + n)]
}

fn offers() -> String {
    let [first, second, third, fourth] = CARDS;
    format!(
        "
- {{resource: {WHOLE}, kind: whole, select: {{devices: [\"{first}\", \"{second}\"]}}}}
- {{resource: {QUARTER}, kind: slice, slots: 4, schemes: [vdcu], select: {{devices: [\"{third}\", \"{fourth}\"]}}}}
"
    )
}

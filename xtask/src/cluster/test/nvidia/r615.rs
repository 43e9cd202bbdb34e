//! The node whose cards are those of `libfake_nvml.so` under driver 615, which limits memory by cgroup and whose MPS has
//! namespaces. The daemons are `fake_mps_control`'s, the cgroups the kernel's own.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::node::{LIBRARIES, install};
use crate::cluster::cgroups::{self, Version};
use crate::cluster::test::seen::Seen;
use crate::cluster::test::standin::{StandIn, Vendor};
use crate::cluster::test::world::World;

/// Quarters of card 0's memory, by turns.
pub(crate) const TURN: &str = "vgpu.dev/turn";
/// Quarters of card 2, by MPS.
pub(crate) const SHARE: &str = "vgpu.dev/share";
/// The MiB of each.
pub(crate) const QUARTERS: [u64; 2] = [(143_771 - 512) / 4, (46_068 - 512) / 4];

const DRIVER: &str = "615.32.01";
const CARDS: [&str; 2] =
    ["GPU-00002335-0000-4000-8000-000000000000", "GPU-000026b9-0000-4000-8000-000000000002"];
/// The prepared host, by a short name: sockets are in it.
const ROOT: &str = "/run/r615";
/// Where daemons have their folders.
const MPS: &str = "/run/mps";
/// Where cgroups are looked for.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Where a machine with cgroups of version 1 has those of version 2.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// The agent with the backend `nvidia`, and its machine.
#[derive(Debug)]
pub(crate) struct R615 {
    vendor: Vendor,
    dir: PathBuf,
}

impl R615 {
    /// Plays a scenario on a machine of its own.
    pub(crate) fn tried(world: &World, scenario: fn(&Self) -> Result<String>) -> Result<String> {
        let gpu = Self::start(world)?;
        gpu.vendor.tried(&[(TURN, 4), (SHARE, 4)], || scenario(&gpu))
    }

    fn start(world: &World) -> Result<Self> {
        let dir = Vendor::folder(world, "r615")?;
        let (root, driver) = (dir.join("root"), dir.join("driver"));
        prepare(world, &dir)?;
        install(&root, &driver, &world.programs.fake_nvml, DRIVER)?;
        let scenario = dir.join("nvml.yaml");
        let at = |name: &str| dir.join(name).display().to_string();
        let (state, control) = (at("nvml.json"), at("control.yaml"));
        let text = format!("preset: driver-615\nstate: {state}\ncontrol: {control}\n");
        std::fs::write(&scenario, text)?;
        let what = StandIn {
            flags: vec![
                "--backend=nvidia".to_owned(),
                format!("--nvml-library={}", world.programs.fake_nvml.display()),
                format!("--host-root={ROOT}"),
                // Else it is looked for below the prepared host.
                "--runtime-endpoint=/run/containerd/containerd.sock".to_owned(),
                format!("--mps-control={}", world.programs.fake_mps.display()),
                format!("--mps-dir={MPS}"),
                format!("--hook-dir={}", at("hooks")),
                // Pods are gone soon after their end.
                "--absence-ms=5000".to_owned(),
            ],
            env: vec![("FAKE_NVML".to_owned(), scenario.display().to_string())],
            offers: offers(&driver),
            nodes: vec!["/dev/nvidia2".to_owned()],
        };
        Ok(Self { vendor: Vendor::start(world, &dir, &what)?, dir })
    }

    pub(crate) fn world(&self) -> &World {
        &self.vendor.world
    }

    /// What a container sees: what the runtime was told, which is that card's nodes and no other's, and the driver's
    /// libraries.
    pub(crate) fn checked(&self, pod: &str, container: &str, card: usize) -> Result<Seen> {
        let seen = self.world().checked(pod, container)?;
        let card = format!("/dev/nvidia{}", 2 * card);
        let promised = BTreeSet::from(["/dev/nvidiactl", "/dev/nvidia-uvm", &card]);
        let sees = BTreeSet::from_iter(seen.cards());
        ensure!(sees == promised, "{container} of pod {pod} sees {sees:?}, not {promised:?}");
        let library = format!("{LIBRARIES}/libcuda.so.{DRIVER}");
        ensure!(seen.mounts.contains_key(&library), "it has no {library}: {:?}", seen.mounts);
        Ok(seen)
    }

    /// What the driver keeps, which outlives the agent.
    pub(crate) fn state(&self) -> Result<Value> {
        match std::fs::read(self.dir.join("nvml.json")) {
            Ok(text) => serde_json::from_slice(&text).context("the driver's state is no JSON"),
            // Nothing was changed yet.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(json!({"limits": []})),
            Err(e) => Err(e).context("cannot read the driver's state"),
        }
    }

    /// The limits in force on card 0: cgroup, as the box has it, and MiB. A limit goes with its cgroup, and the stand-in
    /// strikes it from its file at the next change only.
    pub(crate) fn limits(&self) -> Result<BTreeSet<(PathBuf, u64)>> {
        let state = self.state()?;
        let mut limits = BTreeSet::new();
        for limit in state["limits"].as_array().context("the driver keeps no limits")? {
            let cgroup = limit["cgroup"].as_str().context("a limit without a cgroup")?;
            let below = Path::new(cgroup).strip_prefix(format!("{ROOT}{CGROUPS}"));
            let below = below.with_context(|| format!("{cgroup} is no cgroup of the host's"))?;
            ensure!(limit["card"] == 0, "{limit} is on another card");
            let bytes = limit["hard"].as_u64().context("a limit without bytes")?;
            let cgroup = hierarchy().join(below);
            if cgroup.is_dir() {
                limits.insert((cgroup, bytes >> 20));
            }
        }
        Ok(limits)
    }

    /// Changes a limit, or takes it, as another tool does.
    pub(crate) fn changed_elsewhere(&self, cgroup: &Path, mib: Option<u64>) -> Result<()> {
        let below = cgroup.strip_prefix(hierarchy())?;
        let cgroup = Path::new(ROOT).join("sys/fs/cgroup").join(below);
        let change = json!({"card": 0, "cgroup": cgroup, "hard_mib": mib});
        let new = self.dir.join("control.new");
        std::fs::write(&new, json!({"cgroup_limits": [change]}).to_string())?;
        Ok(std::fs::rename(new, self.dir.join("control.yaml"))?)
    }

    /// The folder of card 2's daemon, in the box.
    pub(crate) fn daemons(&self) -> String {
        format!("{MPS}/{}", CARDS[1].trim_start_matches("GPU-"))
    }

    /// What the daemon says to the control program.
    pub(crate) fn ask(&self, words: &[&str]) -> Result<String> {
        let pipe = format!("CUDA_MPS_PIPE_DIRECTORY={}/pipe", self.daemons());
        let program = self.world().programs.fake_mps.display().to_string();
        let all = [&*pipe, &*program].into_iter().chain(words.iter().copied());
        let said = self.world().cluster.node.output("/usr/bin/env".as_ref(), all)?;
        Ok(said.trim().to_owned())
    }
}

impl Drop for R615 {
    fn drop(&mut self) {
        let node = &self.world().cluster.node;
        if !node.inside(&format!("{}/daemon.json", self.daemons())).exists() {
            return;
        }
        // An agent that lives would bring the daemon back.
        let ended = node.signal("agent", "TERM").and_then(|()| self.ask(&["-q"]));
        if let Err(error) = ended {
            crate::say(&format!("    the daemon cannot be ended: {error:#}"));
        }
    }
}

/// Where containers have their cgroups of version 2.
pub(crate) fn hierarchy() -> &'static Path {
    Path::new(match cgroups::version(Path::new(CGROUPS)) {
        Version::V1 => UNIFIED,
        Version::V2 => CGROUPS,
    })
}

/// A host's `/` whose nodes, processes and cgroups are the box's own, and the hook.
fn prepare(world: &World, dir: &Path) -> Result<()> {
    let root = dir.join("root");
    std::fs::create_dir_all(root.join("sys/fs"))?;
    std::fs::create_dir_all(root.join("run"))?;
    symlink("/dev", root.join("dev"))?;
    symlink("/proc", root.join("proc"))?;
    symlink(hierarchy(), root.join("sys/fs/cgroup"))?;
    symlink(MPS, root.join(MPS.trim_start_matches('/')))?;
    let script = "mkdir -p \"$0\" && ln -sfn \"$1\" \"$2\"";
    let root = root.display().to_string();
    world.cluster.node.output("/bin/sh".as_ref(), ["-c", script, MPS, &root, ROOT])?;
    let hooks = dir.join("hooks");
    std::fs::create_dir_all(&hooks)?;
    let (own, real) = (hooks.join("vgpu-hook"), hooks.join("real-hook"));
    std::fs::copy(&world.programs.hook, &real)?;
    if cgroups::version(Path::new(CGROUPS)) == Version::V2 {
        return Ok(std::fs::rename(real, own)?);
    }
    ensure!(hierarchy().is_dir(), "limits by cgroup need version 2, and there is no {UNIFIED}");
    let script = HOOK
        .replace("@REAL@", &real.display().to_string())
        .replace("@FACE@", &dir.join("face").display().to_string())
        .replace("@UNIFIED@", UNIFIED)
        .replace("@CGROUPS@", CGROUPS);
    std::fs::write(&own, script)?;
    Ok(std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o755))?)
}

/// Makes of a machine with both versions one of version 2 to our hook: the container's first process goes into a cgroup of
/// version 2 too, of the same path, and that is the only one that is told of it.
const HOOK: &str = r#"#!/bin/sh
set -eu
[ "$1" = confine ] || exec @REAL@ "$@"
state=$(cat)
pid=$(printf '%s' "$state" | sed -n 's/.*"pid": *\([0-9][0-9]*\).*/\1/p')
within=$(sed -n 's/^[0-9]*:memory://p' "/proc/$pid/cgroup")
mkdir -p "@UNIFIED@$within" "@FACE@/$pid/ns" @FACE@/self
echo "$pid" >"@UNIFIED@$within/cgroup.procs"
echo "0::$within" >"@FACE@/$pid/cgroup"
ln -sfn "$(readlink "/proc/$pid/ns/pid")" "@FACE@/$pid/ns/pid"
echo '31 24 0:26 / @CGROUPS@ rw - cgroup2 cgroup2 rw' >@FACE@/self/mountinfo
printf '%s' "$state" | @REAL@ "$@" --proc @FACE@
"#;

fn offers(driver: &Path) -> String {
    format!(
        "
- {{resource: {TURN}, kind: slice, slots: 4, schemes: [time-slice], minimum: {{memory: driver}}, select: {{devices: [{}]}}}}
- {{resource: {SHARE}, kind: slice, slots: 4, schemes: [mps], domain: team-a, minimum: {{memory: driver}}, select: {{devices: [{}]}}}}
nvidia: {{driverRoot: {}}}
",
        CARDS[0],
        CARDS[1],
        driver.display()
    )
}

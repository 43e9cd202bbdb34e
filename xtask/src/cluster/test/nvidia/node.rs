//! The node whose cards are those of `libfake_nvml.so`, two H100 in MIG mode: instances in a file, their capabilities below a
//! prepared host's `/proc`, the driver's libraries in a folder of their own, device nodes real.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::process::wait_for;
use crate::cluster::test::pod::{PROBE, STAY, container};
use crate::cluster::test::seen::Seen;
use crate::cluster::test::standin::{StandIn, Vendor};
use crate::cluster::test::world::{PATIENCE, World};

/// Sevenths of card 0.
pub(crate) const SEVENTH: &str = "vgpu.dev/seventh";
/// Halves of card 1.
pub(crate) const HALF: &str = "vgpu.dev/half";

const DRIVER: &str = "570.124.06";
/// Where the driver's libraries lie below its root, and in containers.
pub(super) const LIBRARIES: &str = "/usr/lib64";

/// The agent with the backend `nvidia`, and its machine.
#[derive(Debug)]
pub(crate) struct Gpu {
    vendor: Vendor,
    root: PathBuf,
}

/// Which instance of which card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instance {
    card: u32,
    gpu: u32,
}

impl Gpu {
    /// Plays a scenario on a machine of its own.
    pub(crate) fn tried(world: &World, scenario: fn(&Self) -> Result<String>) -> Result<String> {
        let gpu = Self::start(world)?;
        gpu.vendor.tried(&[(SEVENTH, 7), (HALF, 2)], || scenario(&gpu))
    }

    fn start(world: &World) -> Result<Self> {
        let dir = Vendor::folder(world, "nvidia")?;
        let (root, driver) = (dir.join("root"), dir.join("driver"));
        prepare(&root, &driver, &world.programs.fake_nvml)?;
        let scenario = dir.join("nvml.yaml");
        let state = dir.join("nvml.json");
        let text = format!(
            "preset: h100-mig\nstate: {}\nhost_root: {}\n",
            state.display(),
            root.display()
        );
        std::fs::write(&scenario, text)?;
        let what = StandIn {
            flags: vec![
                "--backend=nvidia".to_owned(),
                format!("--nvml-library={}", world.programs.fake_nvml.display()),
                format!("--host-root={}", root.display()),
                // Else it is looked for below the prepared host.
                "--runtime-endpoint=/run/containerd/containerd.sock".to_owned(),
            ],
            env: vec![("FAKE_NVML".to_owned(), scenario.display().to_string())],
            offers: offers(&driver),
            nodes: (1..300).map(|n| format!("/dev/nvidia-caps/nvidia-cap{n}")).collect(),
        };
        Ok(Self { vendor: Vendor::start(world, &dir, &what)?, root })
    }

    pub(crate) fn world(&self) -> &World {
        &self.vendor.world
    }

    /// What a container sees: what the runtime was told, which is one instance of the driver's, whole, and no other's
    /// rights. And that its programs find the driver's libraries.
    pub(crate) fn checked(&self, pod: &str, container: &str) -> Result<(Seen, Instance)> {
        let seen = self.world().checked(pod, container)?;
        let caps: BTreeSet<&str> =
            seen.cards().into_iter().filter(|n| n.contains("nvidia-caps")).collect();
        let all = self.instances()?;
        let its = all.iter().find(|(_, nodes)| nodes.iter().map(String::as_str).eq(caps.clone()));
        let (instance, nodes) =
            its.with_context(|| format!("{caps:?} are no instance's: {all:?}"))?;
        let card = format!("/dev/nvidia{}", instance.card);
        let mut promised = nodes.clone();
        promised.extend(["/dev/nvidiactl", "/dev/nvidia-uvm", &card].map(str::to_owned));
        let sees: BTreeSet<String> = seen.cards().into_iter().map(str::to_owned).collect();
        ensure!(sees == promised, "{container} of pod {pod} sees {sees:?}, not {promised:?}");
        let library = format!("{LIBRARIES}/libcuda.so.{DRIVER}");
        ensure!(seen.mounts.contains_key(&library), "it has no {library}: {:?}", seen.mounts);
        Ok((seen, *instance))
    }

    /// That the hooks did in a container what the driver's libraries need there.
    pub(crate) fn linked(&self, pod: &str, container: &str) -> Result<()> {
        let mut told = String::new();
        wait_for("word of the links", PATIENCE, || {
            told = self.world().log(pod, container)?;
            Ok(told.ends_with(LAST).then_some(()))
        })?;
        let told = told.rsplit_once(FIRST).map_or("", |(_, text)| text);
        for word in [format!("libcuda.so.{DRIVER}"), LIBRARIES.to_owned()] {
            ensure!(told.lines().any(|line| line == word), "of {word} it tells {told:?}");
        }
        Ok(())
    }

    /// The instances that the driver has, and the nodes of each.
    pub(crate) fn instances(&self) -> Result<BTreeMap<Instance, BTreeSet<String>>> {
        let all = self.root.join("proc/driver/nvidia/capabilities");
        let mut found = BTreeMap::new();
        for card in 0..2 {
            let Ok(entries) = std::fs::read_dir(all.join(format!("gpu{card}/mig"))) else {
                continue;
            };
            for entry in entries {
                let folder = entry?.path();
                let name = folder.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                let Some(gpu) = name.strip_prefix("gi").and_then(|n| n.parse().ok()) else {
                    continue;
                };
                let nodes = ["access", "ci0/access"].map(|file| node(&folder.join(file)));
                let nodes = nodes.into_iter().collect::<Result<_>>()?;
                found.insert(Instance { card, gpu }, nodes);
            }
        }
        Ok(found)
    }
}

const FIRST: &str = "=== links\n";
const LAST: &str = "=== all\n";

/// As `prober`, and it tells what hooks did.
pub(crate) fn prober(name: &str, resource: &str) -> Value {
    let script = format!(
        "{PROBE}\necho '=== links'; readlink {LIBRARIES}/libcuda.so.1; \
         cat /etc/ld.so.conf.d/00-vgpu.conf; echo '=== all'\n{STAY}"
    );
    container(name, &script, &[(resource, 1)])
}

/// A host's `/` whose nodes are the box's own, and a driver's libraries.
fn prepare(root: &Path, driver: &Path, library: &Path) -> Result<()> {
    std::fs::create_dir_all(root.join("proc"))?;
    symlink("/dev", root.join("dev"))?;
    symlink("/proc/sys", root.join("proc/sys"))?;
    install(root, driver, library, DRIVER)
}

/// Puts a driver's libraries where that driver's root is.
pub(super) fn install(root: &Path, driver: &Path, library: &Path, version: &str) -> Result<()> {
    // It is mounted from where it is, and read below the root, out of which no link is followed.
    for driver in [driver.to_owned(), root.join(driver.strip_prefix("/")?)] {
        let folder = driver.join(LIBRARIES.trim_start_matches('/'));
        std::fs::create_dir_all(&folder)?;
        for stem in ["libcuda", "libnvidia-ml"] {
            let name = format!("{stem}.so.{version}");
            std::fs::copy(library, folder.join(&name))?;
            symlink(name, folder.join(format!("{stem}.so.1")))?;
        }
    }
    Ok(())
}

/// The node of a capability, by the file in which the driver tells its number.
fn node(file: &Path) -> Result<String> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let minor = text.lines().find_map(|line| line.strip_prefix("DeviceFileMinor: "));
    let minor = minor.with_context(|| format!("{} tells no number", file.display()))?;
    Ok(format!("/dev/nvidia-caps/nvidia-cap{minor}"))
}

fn offers(driver: &Path) -> String {
    let card = |n: u32| format!("GPU-00002330-0000-4000-8000-{n:012}");
    format!(
        "
- {{resource: {SEVENTH}, kind: slice, profile: 1g.10gb, schemes: [mig], select: {{devices: [{}]}}}}
- {{resource: {HALF}, kind: slice, profile: 3g.40gb, schemes: [mig], select: {{devices: [{}]}}}}
nvidia: {{driverRoot: {}}}
",
        card(0),
        card(1),
        driver.display()
    )
}

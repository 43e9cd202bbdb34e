//! Figures of the backend over the fake library: discovery, edits, a limit on a container.
//!
//! `FAKE_NVML=h200x8 nvidia_figures LIBRARY`, `FAKE_NVML=h100-mig` for MIG; the fake answers at once, so that no
//! vendor's time is in them. With driver 615 (`FAKE_NVML` naming a scenario file) the limit of a cgroup is timed as
//! well. With a control program, `FAKE_NVML=h100x8 FAKE_MPS=namespaces nvidia_figures LIBRARY CONTROL`, MPS is
//! timed instead.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use vgpu_backend_nvidia::{
    Launch, LoadedNvml, MemorySlices, MigApi, MpsOptions, NvidiaFactory, NvidiaOptions,
};
use vgpu_core::cdi::{self, Kind, RenderOptions};
use vgpu_core::{
    Backend, BackendFactory, Bytes, ClaimId, ComputeShare, Container, ContainerEdits, CreateOrder,
    Device, Error, Grant, Host, ModeOrder, Placement, Probe, Scheme, Shape, Size, Sizing, Target,
    TrustDomain,
};

const ROUNDS: usize = 300;
/// A daemon is a few processes; so many starts are enough.
const DAEMONS: usize = 30;
const CGROUP: &str = "/sys/fs/cgroup/kubepods.slice/pod.slice/a.scope";

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let Some(library) = args.next() else {
        eprintln!("usage: FAKE_NVML=h200x8 nvidia_figures LIBRARY [CONTROL]");
        return ExitCode::from(2);
    };
    let outcome = match args.next() {
        Some(control) => mps(Path::new(&library), Path::new(&control)),
        None => measure(Path::new(&library)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn measure(library: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let root = tempfile::tempdir()?;
    let start = Instant::now();
    let factory = NvidiaFactory::default();
    let host = Host { root: root.path().to_owned(), library: Some(library.to_owned()) };
    let backend = match factory.probe(&host) {
        Probe::Ready(backend) => backend,
        other => return Err(format!("{other:?}").into()),
    };
    backend.scan()?;
    say("first probe and scan (once)", &[start.elapsed()]);
    prepare(root.path(), &backend.info().driver)?;
    // Whether the host has cgroup v2 is known only now.
    let scan = backend.scan()?;
    let device = scan.devices.first().ok_or("no card")?;
    say(&format!("scan of {} cards", scan.devices.len()), &times(|| backend.scan().map(drop))?);
    say("health of one card", &times(|| backend.check(&device.id).map(drop))?);
    if device.scheme(&Scheme::MIG).is_ok_and(|info| info.mode.active) {
        return instances(&*backend, device, library);
    }
    let target = Target { claim: ClaimId::new("claim-1")?, grant: Grant::Whole(device.id.clone()) };
    let targets = [target];
    say("edits of a whole card", &times(|| backend.edits(&targets).map(drop))?);
    let edits = backend.edits(&targets)?;
    say("CDI of them: rendered, validated, as text", &times(|| text(&edits).map(drop))?);
    say_text(&format!("CDI: {} bytes, {} mounts", text(&edits)?.len(), edits.mounts.len()));
    limit(&*backend, device)
}

/// Making and unmaking a MIG instance, by the backend and by the driver's four calls alone.
fn instances(
    backend: &dyn Backend,
    device: &Device,
    library: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let Sizing::Profiles(table) = &device.scheme(&Scheme::MIG)?.sizing else {
        return Err("MIG has no profiles".into());
    };
    let profile = table.first().ok_or("no profile")?;
    let slots = *profile.placements.first().ok_or("no place")?;
    let shape = Shape::Profile(profile.id.clone());
    let claim = ClaimId::new("claim-1")?;
    let placement = Placement::Slots(slots);
    let order = CreateOrder::admit(device, &Scheme::MIG, shape, placement, claim)?;
    let (mut made, mut unmade, mut listed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let part = backend.create(&order)?;
        made.push(start.elapsed());
        let start = Instant::now();
        backend.partitions(&device.id)?;
        listed.push(start.elapsed());
        let start = Instant::now();
        backend.destroy(&part.id)?;
        unmade.push(start.elapsed());
    }
    say("MIG: create", &made);
    say("MIG: list", &listed);
    say("MIG: destroy", &unmade);
    let nvml = LoadedNvml::load(library)?;
    let profile = nvml.gpu_instance_profile(0, 0)?.id;
    let place = MemorySlices { start: slots.start, size: slots.len };
    let (mut made, mut unmade) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let gpu = nvml.create_gpu_instance(0, profile, place)?.id;
        let compute = nvml.create_compute_instance(0, gpu, 0)?;
        made.push(start.elapsed());
        let start = Instant::now();
        nvml.destroy_compute_instance(0, gpu, compute)?;
        nvml.destroy_gpu_instance(0, gpu)?;
        unmade.push(start.elapsed());
    }
    say("MIG: the driver's calls of a create alone", &made);
    say("MIG: the driver's calls of a destroy alone", &unmade);
    Ok(())
}

/// A card's daemon started and stopped, and shares of it.
fn mps(library: &Path, control: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let root = tempfile::tempdir()?;
    fs::create_dir_all(root.path().join("run/lock"))?;
    let mps = MpsOptions {
        program: Some(control.to_owned()),
        folder: PathBuf::from("/m"),
        launch: Launch::Bare,
        ..MpsOptions::default()
    };
    let factory = NvidiaFactory::new(NvidiaOptions { mps, ..NvidiaOptions::default() });
    let host = Host { root: root.path().to_owned(), library: Some(library.to_owned()) };
    let backend = match factory.probe(&host) {
        Probe::Ready(backend) => backend,
        other => return Err(format!("{other:?}").into()),
    };
    let first = || backend.scan().map(|scan| scan.devices.into_iter().next());
    let device = first()?.ok_or("no card")?;
    let into = order(&device, Some(Scheme::MPS))?;
    let out = order(&device, None)?;
    let (mut starts, mut stops) = (Vec::new(), Vec::new());
    for _ in 0..DAEMONS {
        starts.extend(once(|| backend.set_mode(&into).map(drop))?);
        stops.extend(once(|| backend.set_mode(&out).map(drop))?);
    }
    say("into the mode: the daemon started", &starts);
    say("out of it: the daemon stopped", &stops);
    backend.set_mode(&into)?;
    let device = first()?.ok_or("no card")?;
    let outcome = shares(&*backend, &device, &into);
    backend.set_mode(&out)?;
    outcome
}

fn shares(
    backend: &dyn Backend,
    device: &Device,
    into: &ModeOrder,
) -> Result<(), Box<dyn std::error::Error>> {
    let rounds = |call: &dyn Fn() -> vgpu_core::Result<()>| -> vgpu_core::Result<Vec<Duration>> {
        (0..DAEMONS).map(|_| Ok(once(call)?[0])).collect()
    };
    let again = rounds(&|| backend.set_mode(into).map(drop))?;
    say("into the mode where it runs already", &again);
    let compute = ComputeShare { units: 10, of: 100.try_into()? };
    let size = Size { memory: Some(Bytes::gib(4)), compute: Some(compute) };
    let (mut makes, mut ends) = (Vec::new(), Vec::new());
    for n in 0..DAEMONS {
        let claim = ClaimId::new(format!("claim-{n}"))?;
        let order =
            CreateOrder::admit(device, &Scheme::MPS, Shape::Size(size), Placement::Driver, claim)?;
        let start = Instant::now();
        let part = backend.create(&order)?;
        makes.push(start.elapsed());
        ends.extend(once(|| backend.destroy(&part.id))?);
    }
    say("a share made, its limits read back", &makes);
    say("a share unmade", &ends);
    Ok(())
}

fn order(device: &Device, scheme: Option<Scheme>) -> vgpu_core::Result<ModeOrder> {
    let info = device.scheme(&Scheme::MPS)?;
    let affected = info.mode.affects.clone();
    let domain = scheme.as_ref().map(|_| TrustDomain::new("team")).transpose()?;
    Ok(ModeOrder { device: device.id.clone(), scheme, affected, domain })
}

fn once(call: impl Fn() -> vgpu_core::Result<()>) -> vgpu_core::Result<[Duration; 1]> {
    let start = Instant::now();
    call()?;
    Ok([start.elapsed()])
}

/// Where the driver has limits of cgroups.
fn limit(backend: &dyn Backend, device: &Device) -> Result<(), Box<dyn std::error::Error>> {
    let sizing = &device.scheme(&Scheme::TIME_SLICE)?.sizing;
    if !matches!(sizing, Sizing::Range(_)) {
        say_text("this driver has no memory limits of cgroups");
        return Ok(());
    }
    let size = Size { memory: Some(Bytes::gib(8)), compute: None };
    let domain = TrustDomain::new("team")?;
    let (device, scheme) = (device.id.clone(), Scheme::TIME_SLICE);
    let grant = Grant::Shared { device, scheme, size, domain };
    let target = Target { claim: ClaimId::new("claim-1")?, grant };
    let container = Container { cgroup: CGROUP.into(), pid: 1, pid_namespace: 1 };
    say("confine: set and read back", &times(|| backend.confine(&target, &container).map(drop))?);
    Ok(())
}

/// Libraries of a driver in the number that one has, and a cgroup.
fn prepare(root: &Path, version: &str) -> std::io::Result<()> {
    let write = |path: &str, text: &str| {
        let path = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        fs::write(path, text)
    };
    write("/proc/devices", "Character devices:\n195 nvidia\n195 nvidia-modeset\n511 nvidia-uvm\n")?;
    let libraries = "/usr/lib/x86_64-linux-gnu";
    for name in ["cuda", "nvidia-ml", "nvidia-ptxjitcompiler", "nvidia-gpucomp", "nvidia-cfg"] {
        write(&format!("{libraries}/lib{name}.so.{version}"), "")?;
        let link = root.join(&libraries[1..]).join(format!("lib{name}.so.1"));
        std::os::unix::fs::symlink(format!("lib{name}.so.{version}"), link)?;
    }
    for n in 0..10 {
        write(&format!("{libraries}/libnvidia-more-{n}.so.{version}"), "")?;
    }
    // What else lies in such a folder on a real machine.
    for n in 0..1500 {
        write(&format!("{libraries}/libother{n}.so.1"), "")?;
    }
    write("/usr/bin/nvidia-smi", "")?;
    for cgroup in Path::new(CGROUP).ancestors().take(4) {
        for file in ["cgroup.procs", "cgroup.controllers"] {
            write(&cgroup.join(file).to_string_lossy(), "")?;
        }
    }
    Ok(())
}

fn text(edits: &ContainerEdits) -> vgpu_core::Result<String> {
    let options = RenderOptions {
        kind: Kind::new("vgpu.dev/claim")?,
        name: ClaimId::new("claim-1")?,
        hook: Some(PathBuf::from("/opt/vgpu/vgpu-hook")),
        socket: PathBuf::from("/run/vgpu/agent.sock"),
        claim_dir: PathBuf::from("/var/lib/vgpu/claims/claim-1"),
        annotations: std::collections::BTreeMap::new(),
    };
    let spec = cdi::render(edits, &options)?;
    serde_json::to_string_pretty(&spec)
        .map_err(|e| Error::new(vgpu_core::ErrorKind::Invalid, e.to_string()))
}

fn times(call: impl Fn() -> vgpu_core::Result<()>) -> vgpu_core::Result<Vec<Duration>> {
    let once = |_| {
        let start = Instant::now();
        call()?;
        Ok(start.elapsed())
    };
    (0..ROUNDS).map(once).collect()
}

fn say(what: &str, times: &[Duration]) {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let (first, last) = (sorted[0], sorted[sorted.len() - 1]);
    say_text(&format!("{what}: {first:.1?} / {:.1?} / {last:.1?}", sorted[sorted.len() / 2]));
}

#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
fn say_text(text: &str) {
    println!("{text}");
}

//! Figures of this backend on a prepared host: min, median and max of each.
//!
//! `hygon_figures <folder> <cards>` prepares a host below the folder and measures by its files, and by the fake
//! libhydmi where `FAKE_HYDMI=<folder>/scenario.json` and `HYDMI=<library>` are set, in this process and in
//! a child. With
//! `ROCM_SMI=<library>` it also measures upstream's ROCm SMI; that one reads `/sys` itself, so that it
//! needs a mount namespace in which `<folder>/sys` lies there:
//! `unshare -m sh -c 'mount --bind D/sys /sys && ROCM_SMI=… hygon_figures D 8'` (prepared by a first run).

#![expect(clippy::print_stdout, reason = "it prints figures")]

#[path = "fake_hygon_host/host.rs"]
#[allow(dead_code, reason = "the presets are for others")]
mod host;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vgpu_backend_child::{ChildFactory, ChildOptions, serve};
use vgpu_backend_hygon::{
    HyDmi, HygonBackend, HygonFactory, HygonOptions, LibraryCalls, LoadedDmi, LoadedSmi, Parts,
    RocmSmi,
};
use vgpu_core::device::Discovery;
use vgpu_core::health::{Health, Subject};
use vgpu_core::{
    Backend, BackendExt, BackendFactory, Bytes, ClaimId, ComputeShare, CreateOrder, Host, PlacedBy,
    Placement, Probe, Scheme, Shape, Size, Vendor,
};

const ROUNDS: usize = 200;

/// Only the child has it.
const CHILD: &str = "VGPU_FIGURES_CHILD";

fn main() -> ExitCode {
    if std::env::var_os(CHILD).is_some() {
        let calls = LibraryCalls::Here;
        let rocm_smi = std::env::var_os("FAKE_SMI").map(PathBuf::from);
        return serve(
            HygonFactory::new(HygonOptions { calls, rocm_smi, ..HygonOptions::default() }),
            "1",
        );
    }
    figures();
    ExitCode::SUCCESS
}

fn figures() {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(count)) = (arguments.next(), arguments.next()) else {
        eprintln!("name a folder and a number of cards");
        std::process::exit(1);
    };
    let count: usize = count.parse().expect("a number of cards");
    let folder = Path::new(&folder);
    let cards = (0..count).map(|n| host::card(n % 9, 0x6210, 120, 65_520, false));
    if !folder.join("scenario.json").exists() {
        let host = host::FakeHost::write(folder, cards.collect()).expect("prepared");
        println!("{} cards below {}", host.cards.len(), folder.display());
    }
    let host = Host { root: folder.to_owned(), library: None };
    let backend = HygonBackend::over(Parts::default(), &host, HygonOptions::default());
    let ids: Vec<_> = backend.scan().expect("scanned").devices.into_iter().map(|d| d.id).collect();
    let first = ids.first().expect("a card").clone();

    measure(&format!("scan of {count} cards by the host's files"), || {
        black_box(backend.scan().expect("scanned"));
    });
    measure(&format!("poll of {count} cards: check and usage of each"), || {
        for id in &ids {
            black_box(backend.check(id).expect("checked"));
            black_box(backend.usage(&Subject::Device(id.clone())).expect("read"));
        }
    });
    measure("look for changes (one round of wait)", || {
        black_box(backend.wait(Duration::ZERO).expect("waited"));
    });
    create(&backend, &first, "by file");
    if let Some(library) = std::env::var_os("ROCM_SMI") {
        let begun = Instant::now();
        let smi = LoadedSmi::load(library).expect("loaded");
        println!("{:<58} {:>10.1?}", "loading and starting ROCm SMI, once", begun.elapsed());
        measure(&format!("the same of {count} cards by ROCm SMI"), || {
            for index in 0..smi.device_count().expect("counted") {
                black_box(smi.pci_address(index).expect("read"));
                black_box(smi.memory_total(index).expect("read"));
                black_box(smi.memory_used(index).expect("read"));
                black_box(smi.busy_percent(index).expect("read"));
                let _none = black_box(smi.serial(index));
                black_box(smi.uncorrected_errors(index).expect("read"));
            }
        });
    }
    if let Some(library) = std::env::var_os("HYDMI") {
        let dmi: Arc<dyn HyDmi> = Arc::new(LoadedDmi::load(&library).expect("loaded"));
        let smi = std::env::var_os("FAKE_SMI")
            .map(|file| Arc::new(LoadedSmi::load(file).expect("loaded")) as Arc<dyn RocmSmi>);
        let parts = Parts { dmi: Some(dmi), smi, ..Parts::default() };
        let backend = HygonBackend::over(parts, &host, HygonOptions::default());
        create(&backend, &first, "by the fake library, in this process");
        let options = ChildOptions::own(["child"]).variable(CHILD, "1");
        let child = ChildFactory::new(Vendor::HYGON, options);
        let host = Host { library: Some(library.into()), ..host };
        match child.probe(&host) {
            Probe::Ready(backend) => {
                create(backend.as_ref(), &first, "by the fake library, in a child");
            }
            other => eprintln!("the child serves nothing: {other:?}"),
        }
    }
}

/// Makes and unmakes one virtual DCU.
fn create(backend: &dyn Backend, device: &vgpu_core::DeviceId, how: &str) {
    let card = backend.device(device).expect("there");
    let info = card.scheme(&Scheme::VDCU).expect("declared");
    let placed_by_us = info.range().is_some_and(|r| r.placed_by == PlacedBy::Planner);
    let compute = Some(ComputeShare { units: 15, of: card.compute_units });
    let shape = Shape::Size(Size { compute, memory: Some(Bytes::gib(8)) });
    let placement =
        if placed_by_us { Placement::Units(vec![0x7fff, 0]) } else { Placement::Driver };
    let claim = ClaimId::new("figures").expect("a claim");
    let order =
        CreateOrder::admit(&card, &Scheme::VDCU, shape, placement, claim).expect("admitted");
    let mut unmade = Vec::with_capacity(ROUNDS);
    measure(&format!("create of a virtual DCU {how}"), || {
        let begun = Instant::now();
        let part = backend.create(&order).expect("made");
        let made = begun.elapsed();
        backend.destroy(&part.id).expect("destroyed");
        unmade.push(begun.elapsed() - made);
        return_only(made);
    });
    print(&format!("destroy of it {how}"), unmade);
}

thread_local! {
    /// What a round counts instead of all of itself.
    static COUNTED: std::cell::Cell<Option<Duration>> = const { std::cell::Cell::new(None) };
}

fn return_only(counted: Duration) {
    COUNTED.with(|cell| cell.set(Some(counted)));
}

fn measure(what: &str, mut round: impl FnMut()) {
    round();
    let mut all = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        COUNTED.with(|cell| cell.set(None));
        let begun = Instant::now();
        round();
        let whole = begun.elapsed();
        all.push(COUNTED.with(std::cell::Cell::get).unwrap_or(whole));
    }
    print(what, all);
}

fn print(what: &str, mut all: Vec<Duration>) {
    all.sort();
    let (min, median, max) = (all[0], all[all.len() / 2], all[all.len() - 1]);
    println!("{what:<58} {min:>10.1?} {median:>10.1?} {max:>10.1?}");
}

//! Figures of the backend over the stand-in for libcndev, whose machine `FAKE_CNDEV` names:
//! `cargo build --release --examples -p vgpu-backend-cambricon`, then
//! `target/release/examples/cambricon_figures target/release/examples/libfake_cndev.so`.

#![expect(clippy::print_stdout, reason = "a figure is told")]

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use vgpu_backend_cambricon::CambriconFactory;
use vgpu_core::{
    BackendExt as _, BackendFactory as _, Bytes, ClaimId, ComputeShare, CreateOrder, Host,
    ModeOrder, Placement, Probe, Scheme, Shape, Size,
};

fn main() {
    let library = std::env::args_os().nth(1).map(PathBuf::from);
    let host = Host { library, ..Host::default() };
    let start = Instant::now();
    let Probe::Ready(backend) = CambriconFactory::default().probe(&host) else {
        println!("name the library, and FAKE_CNDEV its machine");
        return;
    };
    let cards = backend.scan().expect("it scans").devices;
    let (count, first_time) = (cards.len(), start.elapsed());
    println!("library loaded and started, {count} cards found, once: {first_time:?}");
    told(&format!("scan of {count} cards"), || {
        let found = backend.scan().expect("it scans").devices;
        assert_eq!(found.len(), count);
    });
    let first = cards[0].id.clone();
    told(&format!("poll: check and parts of each of {count} cards"), || {
        for card in &cards {
            backend.check(&card.id).expect("it answers");
            backend.partitions(&card.id).expect("it answers");
        }
    });
    let order = ModeOrder {
        affected: vec![first.clone()],
        device: first.clone(),
        scheme: Some(Scheme::SMLU),
        domain: None,
    };
    backend.set_mode(&order).expect("the card is idle");
    let card = backend.device(&first).expect("it answers");
    let share = ComputeShare { units: 10, of: NonZeroU32::new(100).expect("not 0") };
    let size = Size { compute: Some(share), memory: Some(Bytes::gib(1)) };
    told("create and destroy of an sMLU instance", || {
        let claim = ClaimId::new("vgpu-figure").expect("an id");
        let shape = Shape::Size(size);
        let order = CreateOrder::admit(&card, &Scheme::SMLU, shape, Placement::Driver, claim);
        let made = backend.create(&order.expect("it fits")).expect("made");
        backend.destroy(&made.id).expect("unmade");
    });
}

/// Least, median and most of 101 runs.
fn told(what: &str, run: impl Fn()) {
    let mut all: Vec<Duration> = (0..101)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    all.sort();
    println!("{what}: {:?} / {:?} / {:?}", all[0], all[50], all[100]);
}

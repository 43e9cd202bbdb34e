//! What a call through the pipe costs, beside the same call in this process. The mock answers at
//! once, so that the difference is the pipe: JSON, two threads that wake, one that is started.
#![allow(missing_docs, reason = "a program, not a library")]

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;

use criterion::Criterion;
use vgpu_backend_child::{ChildFactory, ChildOptions, serve};
use vgpu_backend_mock::{Machine, MockFactory, Preset};
use vgpu_core::{Backend, BackendFactory, Host, Probe, Subject, Vendor};

/// Only the child has it.
const CHILD: &str = "VGPU_BENCH_CHILD";

fn main() -> ExitCode {
    let machine = Machine::new(Preset::H200x8).expect("presets are machines");
    let mock = MockFactory::combined(&machine);
    if std::env::var_os(CHILD).is_some() {
        return serve(mock, "1");
    }
    let options = || ChildOptions::own(["child"]).variable(CHILD, "1");
    let child = ChildFactory::new(Vendor::new("mock"), options());
    let mut criterion = Criterion::default().sample_size(50).configure_from_args();
    for (place, backend) in [("in process", open(&mock)), ("in a child", open(&child))] {
        let card = backend.scan().expect("it scans").devices.remove(0).id;
        let subject = Subject::Device(card.clone());
        criterion.bench_function(&format!("pipe/usage of a card, {place}"), |b| {
            b.iter(|| backend.usage(black_box(&subject)).expect("it answers"));
        });
        criterion.bench_function(&format!("pipe/partitions of a card, {place}"), |b| {
            b.iter(|| backend.partitions(black_box(&card)).expect("it answers"));
        });
        criterion.bench_function(&format!("pipe/scan of 8 cards, {place}"), |b| {
            b.iter(|| backend.scan().expect("it answers"));
        });
    }
    criterion.bench_function("pipe/a child started, probed and ended", |b| {
        b.iter(|| open(&ChildFactory::new(Vendor::new("mock"), options())));
    });
    criterion.final_summary();
    ExitCode::SUCCESS
}

fn open(factory: &dyn BackendFactory) -> Arc<dyn Backend> {
    match factory.probe(&Host::default()) {
        Probe::Ready(backend) => backend,
        other => panic!("the mock is ready: {other:?}"),
    }
}

//! What the kubelet waits for: Allocate, a preference, PreStart; on the mock, 8 cards × 100 slots.

#[path = "../tests/world/mod.rs"]
mod world;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use vgpu_backend_mock::Preset;
use vgpu_core::id::SlotId;
use world::{World, resource, start};

const TURNS: &str = r#"[
    {"resource": "vgpu.dev/turn", "kind": "slice", "size": {"memory": "1Gi"}, "schemes": ["time-slice"]}
]"#;

const MEMORY: &str = r#"[
    {"resource": "vgpu.dev/mem", "kind": "unit", "unit": "1Gi", "largest": 16, "schemes": ["smlu"]}
]"#;

fn allocate(c: &mut Criterion) {
    let world = World::new(Preset::H200x8, TURNS);
    let node = world.node();
    let name = resource("vgpu.dev/turn");
    let listing = node.listing();
    let ids: Vec<SlotId> = listing[&name].iter().map(|s| s.id.clone()).collect();
    let mut next = 0;
    c.bench_function(&format!("node/allocate, 8 cards, {} ids", ids.len()), |b| {
        b.iter(|| {
            next = (next + 1) % ids.len();
            node.allocate(&name, &ids[next..=next]).expect("never refused")
        });
    });
    c.bench_function(&format!("node/prefer 4 of {}", ids.len()), |b| {
        b.iter(|| node.prefer(&name, black_box(&ids), &[], 4));
    });
}

fn prepare(c: &mut Criterion) {
    let world = World::new(Preset::Mlu370x8, MEMORY);
    let node = world.node();
    let name = resource("vgpu.dev/mem");
    let ids: Vec<SlotId> = node.listing()[&name].iter().take(4).map(|s| s.id.clone()).collect();
    // The kubelet is asked after it allocated.
    let ask = || start("vgpu.dev/mem", &ids);
    // A new claim on the same ids: the old part is taken down, a new one made, all journalled.
    c.bench_function("node/prepare 4 units after another pod's", |b| {
        b.iter_batched(
            || node.allocate(&name, &ids).expect("never refused"),
            |_| node.prepare(&ask()).expect("prepares"),
            BatchSize::PerIteration,
        );
    });
    c.bench_function("node/prepare again (container restart)", |b| {
        b.iter(|| node.prepare(&ask()).expect("prepares"));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = allocate, prepare
}
criterion_main!(benches);

//! `plan` for 64 claims on 16 cards, and the bound on units.

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;

use common::{card, memory, mig, request, smlu, vdcu};
use criterion::{Criterion, criterion_group, criterion_main};
use vgpu_core::id::{DeviceId, ProfileId};
use vgpu_core::plan::units::{Bounds, CardRoom, advertise};
use vgpu_core::plan::{Inventory, Policy, Request, Want, plan_all};
use vgpu_core::scheme::ModeInfo;
use vgpu_core::size::Bytes;

fn sixteen() -> Inventory {
    let device = |i: usize| {
        let name = format!("card-{i}");
        let always = ModeInfo::always(&DeviceId::new(&*name).expect("an id"));
        match i % 3 {
            0 => card(&name, Bytes::gib(40), 98, vec![mig(&name, always)]),
            1 => card(&name, Bytes::gib(48), 60, vec![smlu(&name, Bytes::mib(256))]),
            _ => card(&name, Bytes::gib(64), 120, vec![vdcu(&name, 120, None)]),
        }
    };
    Inventory { devices: (0..16).map(device).collect(), links: vec![] }
}

fn asks() -> Vec<Request> {
    let profile = || Want::Profile(ProfileId::new("1g.5gb").expect("a profile"));
    let want = |i: u64| match i % 3 {
        0 => profile(),
        _ => Want::AtLeast(memory(Bytes::gib(1 + i % 4))),
    };
    (0..64).map(|i| request("claim", want(i))).collect()
}

fn bench(c: &mut Criterion) {
    let (inventory, asks) = (sixteen(), asks());
    plan_all(&inventory, &[], &asks, Policy::Binpack).expect("all 64 fit");
    c.bench_function("plan/64 claims on 16 cards", |b| {
        b.iter(|| plan_all(black_box(&inventory), &[], black_box(&asks), Policy::Binpack));
    });
    let rooms: Vec<CardRoom> =
        (0..16).map(|i| CardRoom { units: 100 + i, requests: Some(64) }).collect();
    c.bench_function("units/advertise, 16 cards, largest 64", |b| {
        b.iter(|| advertise(black_box(&rooms), Bounds { smallest: 1, largest: 64 }));
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);

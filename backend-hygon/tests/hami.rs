//! The thirteen bugs of the HAMi DCU plugin, as its readers listed them: one test each.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::thread;

use vgpu_core::cdi::{self, Kind, RenderOptions};
use vgpu_core::device::Discovery;
use vgpu_core::edits::MountMode;
use vgpu_core::isolation::Isolation;
use vgpu_core::partition::Partitioner;
use vgpu_core::plan::{Inventory, Modes, Policy, Request, Selector, Want, plan};
use vgpu_core::{
    BackendExt, Bytes, ClaimId, ErrorKind, Grant, Minimum, Scheme, Size, Target, TrustDomain,
};

use crate::support::{
    CardSpec, DiskFaults, FaultyDisk, by_file, card, machine, make, mask, order, preset,
};

fn cards(n: usize) -> Vec<CardSpec> {
    (0..n).map(|i| card(i, 0x6210, 120, 65_520, false)).collect()
}

fn target(grant: Grant) -> Target {
    Target { claim: ClaimId::new("claim-1").expect("a claim"), grant }
}

/// Serials were parsed as numbers: letters became card 0, so that every limit was written for it.
#[test]
fn bug_01_a_serial_of_letters_or_digits_never_moves_a_virtual_dcu_to_another_card() {
    for serial in ["TPAB6210X003", "0042", "99999999999999999999", "3"] {
        let mut specs = cards(4);
        for spec in &mut specs {
            spec.serial = Some(serial.to_owned());
        }
        let (_folder, fake) = machine(specs);
        let backend = by_file(&fake);
        for n in [2, 3, 1] {
            let part = make(&backend, &fake.id(n), Some(15), Some(1024)).expect("made");
            let text = fake.confs().into_iter().find(|(m, _)| m.to_string() == part.id.local());
            let (_, text) = text.expect("there is a file");
            assert!(text.contains(&format!("PciBusId: {}", fake.cards[n].address)), "{text}");
            assert_eq!(backend.serial(&fake.id(n)).expect("read").as_deref(), Some(serial));
        }
    }
}

/// The search for free bits ended early: tenants of 1, 2 and 3 units overlapped.
#[test]
fn bug_02_equal_tenants_never_share_a_unit() {
    for units in 1..=30 {
        let (_folder, fake) = machine(vec![card(0, 0x54b7, 60, 16_368, false)]);
        let backend = by_file(&fake);
        let mut taken = 0;
        for _ in 0..4 {
            let Ok(part) = make(&backend, &fake.id(0), Some(units), Some(64)) else { break };
            assert_eq!(mask(&part) & taken, 0, "{units} units each");
            assert_eq!(mask(&part).count_ones(), units);
            taken |= mask(&part);
        }
        assert_eq!(taken.count_ones(), units * 4.min(60 / units));
    }
}

/// Words of 64 bits were filled whatever the card had: units 60 to 63 of a card of 60.
#[test]
fn bug_03_units_beyond_the_card_are_never_given_out() {
    for (device, units) in [(0x54b7, 60), (0x6370, 80), (0x6210, 120), (0x6211, 128)] {
        let (_folder, fake) = machine(vec![card(0, device, units, 16_368, false)]);
        let backend = by_file(&fake);
        let mut taken = 0;
        for _ in 0..4 {
            taken |= mask(&make(&backend, &fake.id(0), Some(units / 4), Some(64)).expect("made"));
        }
        assert_eq!(taken, if units == 128 { u128::MAX } else { (1 << units) - 1 });
        let more = make(&backend, &fake.id(0), Some(1), Some(64)).expect_err("full");
        assert_eq!(more.kind, ErrorKind::Exhausted);
    }
}

/// More than one card, or all of the memory, and no limit at all was set.
#[test]
fn bug_04_several_cards_or_all_of_the_memory_are_no_way_round_a_limit() {
    let (_folder, fake) = machine(cards(2));
    let backend = by_file(&fake);
    let inventory = Inventory { devices: backend.scan().expect("scanned").devices, links: vec![] };
    let ask = Request {
        claim: ClaimId::new("two").expect("a claim"),
        want: Want::AtLeast(Size { compute: None, memory: Some(Bytes::gib(1)) }),
        count: 2,
        selector: Selector::default(),
        minimum: Minimum::default(),
        schemes: vec![Scheme::VDCU],
        domain: TrustDomain::new("tests").expect("a domain"),
        modes: Modes::Keep,
    };
    let refusal = plan(&inventory, &[], &ask, Policy::Binpack).expect_err("one to a container");
    assert!(refusal.to_string().contains("at most 1"), "{refusal}");
    let part = make(&backend, &fake.id(0), Some(60), Some(65_520)).expect("made");
    let edits = backend.edits(&[target(Grant::Part(part.id))]).expect("shown");
    assert!(edits.files[0].text.contains("cu_count: 60\nmem: 65520 MiB"), "{:?}", edits.files);
}

/// Whether a card was asked for whole was judged by the first card's memory.
#[test]
fn bug_05_each_card_is_judged_by_its_own_memory() {
    let specs = vec![card(0, 0x54b7, 60, 16_368, false), card(1, 0x6210, 120, 65_520, false)];
    let (_folder, fake) = machine(specs);
    let backend = by_file(&fake);
    // All of the small card's memory is a quarter of the large one's.
    let part = make(&backend, &fake.id(1), Some(30), Some(16_368)).expect("made");
    assert_eq!(part.size.memory, Some(Bytes::mib(16_368)));
    let refused = make(&backend, &fake.id(0), Some(30), Some(16_369)).expect_err("too much");
    assert_eq!(refused.kind, ErrorKind::Exhausted);
}

/// Nothing kept two makers apart: both took one number, or read while the other wrote.
#[test]
fn bug_06_makers_at_once_never_take_one_number() {
    let (_folder, fake) = machine(cards(4));
    let backend = Arc::new(by_file(&fake));
    let makers: Vec<_> = (0..4)
        .map(|n| {
            let (backend, id) = (Arc::clone(&backend), fake.id(n));
            thread::spawn(move || {
                for _ in 0..20 {
                    let parts: Vec<_> = (0..4)
                        .map(|_| make(&*backend, &id, Some(30), Some(1024)).expect("made"))
                        .collect();
                    assert_eq!(parts.iter().map(mask).fold(0, |a, b| a | b).count_ones(), 120);
                    for part in parts {
                        backend.destroy(&part.id).expect("destroyed");
                    }
                    make(&*backend, &id, Some(1), Some(1)).expect("made");
                    let left = backend.partitions(&id).expect("listed");
                    assert_eq!(left.len(), 1, "{left:?}");
                    backend.destroy(&left[0].id).expect("destroyed");
                }
            })
        })
        .collect();
    for maker in makers {
        maker.join().expect("no maker met another");
    }
    let left = std::fs::read_dir(fake.at("etc/vdev")).expect("there").count();
    assert_eq!(left, 0, "nothing is left, drafts included");
}

/// One answer was appended for each container and shared by all; the driver's folder came after it.
#[test]
fn bug_07_each_container_gets_its_own_edits_and_the_driver_s_folder() {
    let (_folder, fake) = machine(cards(2));
    let backend = by_file(&fake);
    let edits = |n: usize| backend.edits(&[target(Grant::Whole(fake.id(n)))]).expect("shown");
    let (one, other) = (edits(0), edits(1));
    assert_ne!(one.nodes, other.nodes);
    for edits in [&one, &other] {
        assert_eq!(edits.nodes.len(), 4, "kfd, mkfd, card, render: {:?}", edits.nodes);
        assert_eq!(edits.mounts.len(), 1, "{:?}", edits.mounts);
        assert_eq!(edits.mounts[0].host, Path::new("/opt/hyhal"));
    }
}

/// An error left the node's lock behind, so that the next pod waited for nothing.
#[test]
fn bug_08_an_error_at_any_step_keeps_nobody_out() {
    let (_folder, fake) = machine(cards(1));
    let disk = Arc::new(FaultyDisk::default());
    let parts = vgpu_backend_hygon::Parts { disk: Arc::clone(&disk) as _, ..Default::default() };
    let backend = vgpu_backend_hygon::HygonBackend::over(
        parts,
        &fake.host(None),
        vgpu_backend_hygon::HygonOptions::default(),
    );
    for nth in 1..=3 {
        let order = order(&backend, &fake.id(0), Some(30), Some(1024)).expect("planned");
        disk.set(DiskFaults { fail: Some((nth, 28)), ..DiskFaults::default() });
        backend.create(&order).expect_err("the disk is full");
        disk.set(DiskFaults::default());
        let made = backend.create(&order).expect("the next one is made");
        backend.destroy(&made.id).expect("destroyed");
        assert_eq!(fake.confs(), []);
    }
}

/// Empty entries were dropped, so that containers got one another's grants by their position.
#[test]
fn bug_09_a_grant_names_its_part_and_not_its_position() {
    let (_folder, fake) = machine(cards(1));
    let backend = by_file(&fake);
    let parts: Vec<_> = (1..=3)
        .map(|n| make(&backend, &fake.id(0), Some(10 * n), Some(1024)).expect("made"))
        .collect();
    assert!(backend.edits(&[]).expect("nothing is asked").is_empty());
    for part in parts.iter().rev() {
        let edits = backend.edits(&[target(Grant::Part(part.id.clone()))]).expect("shown");
        let count = part.size.compute.expect("asked").units;
        assert!(edits.files[0].text.contains(&format!("cu_count: {count}\n")));
    }
}

/// Cards without a serial were all called the same.
#[test]
fn bug_10_cards_without_a_serial_are_told_apart() {
    let mut specs = cards(3);
    specs.iter_mut().for_each(|spec| spec.serial = None);
    specs[1].serial = Some("N/A".into());
    let (_folder, fake) = machine(specs);
    let backend = by_file(&fake);
    let mut ids: Vec<_> =
        backend.scan().expect("scanned").devices.into_iter().map(|d| d.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    for n in 0..3 {
        assert_eq!(backend.serial(&fake.id(n)).expect("read"), None);
    }
}

/// A tenant could write its own limits: the folder was mounted for writing.
#[test]
fn bug_11_a_tenant_cannot_edit_its_quota() {
    let (_folder, fake) = machine(cards(1));
    let backend = by_file(&fake);
    let part = make(&backend, &fake.id(0), Some(15), Some(1024)).expect("made");
    let edits = backend.edits(&[target(Grant::Part(part.id))]).expect("shown");
    assert!(edits.mounts.iter().all(|m| m.mode == MountMode::ReadOnly), "{:?}", edits.mounts);
    let below = |m: &vgpu_core::edits::Mount| m.host.starts_with("/etc/vdev");
    assert!(!edits.mounts.iter().any(below), "the host's folder is not shown");
    let options = RenderOptions {
        kind: Kind::new("vgpu.dev/claim").expect("a kind"),
        claim_dir: "/run/vgpu/claims/claim-1".into(),
        name: ClaimId::new("claim-1").expect("a claim"),
        hook: Some("/opt/vgpu/vgpu-hook".into()),
        socket: "/run/vgpu/agent.sock".into(),
        annotations: Default::default(),
    };
    let spec = cdi::render(&edits, &options).expect("rendered");
    let text = serde_json::to_value(&spec).expect("text");
    let mounts = text["devices"][0]["containerEdits"]["mounts"].as_array().expect("mounts");
    let conf = mounts.iter().find(|m| m["containerPath"] == "/etc/vdev/docker/vdev0.conf");
    let options = conf.expect("the quota is a mount")["options"].as_array().expect("options");
    assert!(options.iter().any(|o| o == "ro"), "{options:?}");
}

/// Its own tests could not pass, and nobody ran them.
#[test]
fn bug_12_the_file_is_what_the_tables_say_to_the_letter() {
    let (_folder, fake) = machine(vec![card(0, 0x6210, 120, 65_520, false)]);
    let backend = by_file(&fake);
    make(&backend, &fake.id(0), Some(52), Some(1)).expect("made");
    let part = make(&backend, &fake.id(0), Some(15), Some(8192)).expect("made");
    let edits = backend.edits(&[target(Grant::Part(part.id))]).expect("shown");
    assert_eq!(edits.files[0].container, Path::new("/etc/vdev/docker/vdev0.conf"));
    assert_eq!(
        edits.files[0].text,
        "PciBusId: 0000:9f:00.0\ncu_mask: 0xfff0000000000000\ncu_mask: 0x0000000000000007\n\
         cu_count: 15\nmem: 8192 MiB\ndevice_id: 0\nvdev_id: 1\npipe_id: 1\nenable: 1\n"
    );
}

/// A serial was taken for a minor number, and cards were counted without other vendors' between them.
#[test]
fn bug_13_nodes_follow_the_pci_address_and_no_serial_or_position() {
    let mut specs = preset("mixed").expect("a preset");
    specs.iter_mut().for_each(|spec| spec.serial = Some("128".into()));
    let (_folder, fake) = machine(specs);
    let backend = by_file(&fake);
    let scan = backend.scan().expect("scanned");
    assert_eq!(scan.devices.len(), 3, "the other vendor's card is none of ours: {scan:?}");
    for n in [0, 2, 3] {
        let edits = backend.edits(&[target(Grant::Whole(fake.id(n)))]).expect("shown");
        let paths: Vec<String> =
            edits.nodes.iter().map(|node| node.path.display().to_string()).collect();
        assert_eq!(
            paths,
            [
                "/dev/kfd".into(),
                "/dev/mkfd".into(),
                format!("/dev/dri/card{n}"),
                format!("/dev/dri/renderD{}", 128 + n)
            ]
        );
        assert_eq!(edits.nodes[3].number, Some((226, u32::try_from(128 + n).expect("small"))));
    }
    assert_eq!(backend.device(&fake.id(2)).expect("there").model, "Hygon 1d94:7abc");
}

//! What a host, a hand or another tool may put before us: one clear error each, and the rest goes on.

mod support;

use std::fs;

use vgpu_core::device::Discovery;
use vgpu_core::health::{Health, Meaning, Subject};
use vgpu_core::isolation::Isolation;
use vgpu_core::partition::Partitioner;
use vgpu_core::{BackendExt, Bytes, ClaimId, ErrorKind, Grant, PartitionState, Size, Target};

use crate::support::{by_file, by_library, card, inside, machine, make, mask, preset, put, ready};

fn two() -> Vec<support::CardSpec> {
    (0..2).map(|i| card(i, 0x6210, 120, 65_520, false)).collect()
}

#[test]
fn a_file_edited_by_hand_closes_its_card_alone_and_is_told() {
    for text in ["mem: 1024", "garbage", "mem: 1024 MiB\ncu_mask: 0xZZ"] {
        let (_folder, fake) = machine(two());
        let backend = by_file(&fake);
        let planned = support::order(&backend, &fake.id(0), Some(1), Some(1)).expect("planned");
        let address = &fake.cards[0].address;
        put(&fake.at("etc/vdev/vdev7.conf"), &format!("PciBusId: {address}\n{text}\n"))
            .expect("put");
        let listed = backend.partitions(&fake.id(0)).expect("listed");
        assert_eq!(listed[0].state, PartitionState::Broken);
        let events = backend.check(&fake.id(0)).expect("checked");
        assert_eq!(events[0].meaning, Meaning::Good, "the card itself is sound");
        assert_eq!(events[1].subject, Subject::Part(listed[0].id.clone()));
        let grant = Grant::Part(listed[0].id.clone());
        let target = Target { claim: ClaimId::new("c").expect("a claim"), grant };
        assert_eq!(backend.edits(&[target]).expect_err("not shown").kind, ErrorKind::Io);
        make(&backend, &fake.id(0), Some(1), Some(1)).expect_err("the planner sees it too");
        let refused = backend.create(&planned).expect_err("refused");
        assert!(
            refused.kind == ErrorKind::Busy && refused.message.contains("vdev7.conf"),
            "{refused}"
        );
        let other = make(&backend, &fake.id(1), Some(1), Some(1)).expect("the other card serves");
        assert_eq!(other.id.local(), "0");
        // And it can be taken down.
        backend.destroy(&listed[0].id).expect("destroyed");
        make(&backend, &fake.id(0), Some(1), Some(1)).expect("serves again");
    }
}

#[test]
fn a_mask_beyond_the_card_is_told_and_no_folder_or_link_is_read_as_a_file() {
    let (_folder, fake) = machine(two());
    let backend = by_file(&fake);
    let part = make(&backend, &fake.id(0), Some(1), Some(1)).expect("made");
    let file = fake.at(&format!("etc/vdev/vdev{}.conf", part.id.local()));
    let text = fs::read_to_string(&file).expect("read");
    let beyond = text.replacen("cu_mask: 0x0000000000000000", "cu_mask: 0xff00000000000000", 1);
    assert_ne!(text, beyond);
    put(&file, &beyond).expect("put");
    let listed = backend.partitions(&fake.id(0)).expect("listed");
    assert_eq!(listed[0].state, PartitionState::Broken);
    fs::create_dir_all(fake.at("etc/vdev/vdev9.conf")).expect("made");
    std::os::unix::fs::symlink("/dev/zero", fake.at("etc/vdev/vdev10.conf")).expect("linked");
    put(&fake.at("etc/vdev/vdev007x.conf"), "PciBusId: what").expect("put");
    assert_eq!(backend.partitions(&fake.id(1)).expect("listed"), []);
    assert_eq!(make(&backend, &fake.id(1), Some(1), Some(1)).expect("made").id.local(), "1");
}

#[test]
fn another_tool_s_virtual_dcu_is_seen_and_left_alone() {
    let (_folder, fake) = machine(two());
    let backend = by_file(&fake);
    let conf = format!(
        "PciBusId: {}\ncu_mask: 0x00000000000000ff\ncu_mask: 0x0000000000000000\ncu_count: 12\n\
         mem: 60000 MiB\ndevice_id: 1\nvdev_id: 150\npipe_id: 0\nenable: 1\n",
        fake.cards[0].address.to_uppercase()
    );
    put(&fake.at("etc/vdev/vdev150.conf"), &conf).expect("put");
    let part = make(&backend, &fake.id(0), Some(8), Some(1024)).expect("made beside it");
    assert_eq!(mask(&part), 0xff00);
    assert!(fake.confs().iter().any(|(_, text)| text.contains("pipe_id: 1\n")));
    let full = make(&backend, &fake.id(0), Some(8), Some(8192)).expect_err("its memory counts");
    assert_eq!(full.kind, ErrorKind::Exhausted);
    backend.sweep(&fake.id(0), &[]).expect("swept");
    assert_eq!(backend.partitions(&fake.id(0)).expect("listed").len(), 2);
}

#[test]
fn units_alone_and_memory_alone() {
    let (_folder, fake) = machine(two());
    let backend = by_file(&fake);
    // Units alone: a virtual DCU is made, with the same share of memory.
    let part = make(&backend, &fake.id(0), Some(30), None).expect("made");
    assert_eq!(part.size.memory, Some(Bytes::mib(16_380)));
    // Memory alone: units are shared by all such, and by no other.
    let one = make(&backend, &fake.id(1), None, Some(4096)).expect("made");
    let other = make(&backend, &fake.id(1), None, Some(4096)).expect("made");
    assert_eq!((mask(&one), mask(&other), one.size.compute), (0, 0, None));
    for (id, units) in [(fake.id(0), None), (fake.id(1), Some(4))] {
        let refused = make(&backend, &id, units, Some(16)).expect_err("not beside the other kind");
        assert_eq!(refused.kind, ErrorKind::Exhausted);
    }
    let resized = Size { compute: part.size.compute, memory: Some(Bytes::mib(100)) };
    assert_eq!(backend.resize(&part.id, &resized).expect("resized").size, resized);
}

#[test]
fn a_stale_view_of_the_card_never_becomes_two_tenants_on_one_unit() {
    let (_folder, fake) = machine(two());
    let backend = by_file(&fake);
    let stale = support::order(&backend, &fake.id(0), Some(8), Some(64)).expect("planned");
    make(&backend, &fake.id(0), Some(1), Some(64)).expect("made");
    assert_eq!(backend.create(&stale).expect_err("taken").kind, ErrorKind::Exhausted);
}

#[test]
fn several_whole_cards_and_one_part_alone() {
    let (_folder, fake) = machine(two());
    let backend = by_file(&fake);
    let claim = || ClaimId::new("c").expect("a claim");
    let whole = |n| Target { claim: claim(), grant: Grant::Whole(fake.id(n)) };
    let edits = backend.edits(&[whole(0), whole(1)]).expect("shown");
    assert_eq!(edits.nodes.len(), 6, "{:?}", edits.nodes);
    let part = make(&backend, &fake.id(0), Some(8), Some(64)).expect("made");
    let part = Target { claim: claim(), grant: Grant::Part(part.id) };
    let refused = backend.edits(&[part, whole(1)]).expect_err("a part is alone");
    assert_eq!(refused.kind, ErrorKind::Invalid);
    // No node of virtual DCUs where the host has none, and never one of the machine's memory.
    fs::remove_file(fake.at("dev/mkfd")).expect("removed");
    let edits = backend.edits(&[whole(0)]).expect("shown");
    assert_eq!(edits.nodes.len(), 3, "{:?}", edits.nodes);
}

#[test]
fn a_card_that_is_pulled_out_or_has_no_driver_is_told() {
    let (_folder, fake) = machine(two());
    let backend = by_file(&fake);
    backend.scan().expect("scanned");
    fake.unplug(0).expect("pulled out");
    let events = backend.wait(std::time::Duration::ZERO).expect("waited");
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((events[0].meaning, events[0].subject.device()), (Meaning::Lost, Some(fake.id(0))));
    assert_eq!(backend.check(&fake.id(0)).expect("checked")[0].meaning, Meaning::Lost);
    fake.lose(1).expect("lost");
    let scan = backend.scan().expect("scanned");
    assert_eq!((scan.devices.len(), scan.lost.len()), (0, 2));
    let reason = scan.lost.iter().find(|l| l.name == fake.id(1).as_str()).expect("lost");
    assert!(reason.reason.to_string().contains("serial=TPAB"), "{}", reason.reason);
    fake.restore(1).expect("back");
    assert_eq!(backend.check(&fake.id(1)).expect("checked")[0].meaning, Meaning::Good);
}

#[test]
fn what_cannot_be_read_is_not_known_and_what_is_not_there_is_no_illness() {
    let (_folder, fake) = machine(two());
    let backend = by_file(&fake);
    let how = || backend.check(&fake.id(0)).expect("checked").remove(0);
    fs::remove_dir_all(fake.card_folder(0).join("ras")).expect("removed");
    assert_eq!(how().meaning, Meaning::Good);
    assert!(how().cause.contains("no error counts"), "{}", how().cause);
    fake.set(0, "ras/umc_err_count", "what?\n").expect("set");
    assert_eq!(how().meaning, Meaning::Unknown);
    fake.set(0, "ras/umc_err_count", "ue: 1\nce: 0\n").expect("set");
    assert_eq!(how().meaning, Meaning::NeedsReset);
    fake.set(0, "ras/umc_err_count", "ue: 0\nce: 5\n").expect("set");
    fs::remove_file(fake.card_folder(0).join("mem_info_vram_used")).expect("removed");
    assert_eq!(how().meaning, Meaning::Unknown, "no memory can be read: {}", how().cause);
}

#[test]
fn a_process_that_cannot_be_looked_at_holds_the_part() {
    let (_folder, fake) = machine(two());
    let backend = by_file(&fake);
    let part = make(&backend, &fake.id(0), Some(8), Some(64)).expect("made");
    // Of another PID namespace: KFD lists it, /proc does not.
    fake.run(77, 0, &[]).expect("runs");
    fs::remove_dir_all(fake.at("proc/77")).expect("not seen from here");
    let refused = backend.destroy(&part.id).expect_err("may be held");
    assert!(
        refused.kind == ErrorKind::Busy && refused.message.contains("PID namespace"),
        "{refused}"
    );
    fake.end(77);
    backend.destroy(&part.id).expect("destroyed");
}

#[test]
fn a_library_that_makes_what_was_not_ordered_is_taken_back() {
    inside("a_library_that_makes_what_was_not_ordered_is_taken_back", two(), |fake| {
        let (factory, host) = by_library(fake);
        let backend = ready(&factory, &host);
        let first = make(&*backend, &fake.id(0), Some(8), Some(64)).expect("made");
        for defect in ["overlap", "beyond", "wrong-card"] {
            let control = format!("{{\"defects\": [\"{defect}\"]}}");
            put(&fake.control_file(), &control).expect("told");
            let refused = make(&*backend, &fake.id(0), Some(8), Some(64)).expect_err(defect);
            assert_eq!(refused.kind, ErrorKind::Vendor, "{refused}");
            assert_eq!(fake.confs().len(), 1, "{defect}: nothing of it is left");
        }
        put(&fake.control_file(), "{\"count\": 1}").expect("told");
        let refused = make(&*backend, &fake.id(0), Some(8), Some(64)).expect_err("which card?");
        assert!(refused.message.contains("counts 1 cards"), "{refused}");
        put(&fake.control_file(), "{}").expect("told");
        let second = make(&*backend, &fake.id(0), Some(8), Some(64)).expect("made");
        assert_eq!(mask(&first) & mask(&second), 0);
        // Each lies on the card that was asked, though the library counts in another order.
        make(&*backend, &fake.id(1), Some(8), Some(64)).expect("made");
        let on = |n: usize| {
            let of = format!("PciBusId: {}", fake.cards[n].address);
            fake.confs().iter().filter(|(_, text)| text.contains(&of)).count()
        };
        assert_eq!((on(0), on(1)), (2, 1));
        put(&fake.control_file(), "{\"busy\": [0]}").expect("told");
        assert_eq!(backend.destroy(&first.id).expect_err("in use").kind, ErrorKind::Busy);
    });
}

#[test]
fn a_larger_struct_of_the_library_s_is_room_for_and_numbers_are_by_address() {
    let cards = preset("mixed").expect("a preset");
    inside(
        "a_larger_struct_of_the_library_s_is_room_for_and_numbers_are_by_address",
        cards,
        |fake| {
            for n in 0..4 {
                for file in ["ras", "mem_info_vram_used", "serial_number"] {
                    let path = fake.card_folder(n).join(file);
                    let _gone = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
                }
            }
            let (factory, host) = by_library(fake);
            let backend = ready(&factory, &host);
            let info = backend.info();
            assert!(info.library.to_string_lossy().contains("libfake_rocm_smi.so"), "{info:?}");
            // 64 bytes are written where upstream has 16.
            let told = backend.check(&fake.id(0)).expect("checked").remove(0);
            assert_eq!(told.meaning, Meaning::NeedsReset);
            assert!(told.cause.contains("4 uncorrected"), "{}", told.cause);
            assert!(told.cause.contains("serial TPAB25104X000"), "{}", told.cause);
            let used = backend.usage(&Subject::Device(fake.id(3))).expect("read");
            assert_eq!(used.memory, Some(Bytes::mib(96)));
            assert_eq!(backend.device(&fake.id(2)).expect("there").compute_units.get(), 64);
        },
    );
}

#[test]
fn a_stale_leftover_poisons_a_number_until_it_is_swept() {
    let cards = preset("bw100-x4").expect("a preset");
    inside("a_stale_leftover_poisons_a_number_until_it_is_swept", cards, |fake| {
        let (factory, host) = by_library(fake);
        let backend = ready(&factory, &host);
        let device = backend.device(&fake.id(0)).expect("there");
        let info = device.scheme(&vgpu_core::Scheme::HCU_MIG).expect("declared").clone();
        assert_eq!(info.mode.affects.len(), 4, "the mode is the node's");
        let enter = vgpu_core::ModeOrder {
            device: fake.id(0),
            scheme: Some(vgpu_core::Scheme::HCU_MIG),
            affected: info.mode.affects.clone(),
            domain: None,
        };
        // /dev/kfd is held by somebody.
        fake.run(42, 3, &[]).expect("runs");
        assert_eq!(backend.set_mode(&enter).expect_err("held").kind, ErrorKind::Busy);
        fake.end(42);
        backend.set_mode(&enter).expect("entered");
        let device = backend.device(&fake.id(0)).expect("there");
        let profile = vgpu_core::ProfileId::new("2g.15gb").expect("a profile");
        let order = || {
            vgpu_core::CreateOrder::admit(
                &device,
                &vgpu_core::Scheme::HCU_MIG,
                vgpu_core::Shape::Profile(profile.clone()),
                vgpu_core::Placement::Slots(vgpu_core::Slots::new(0, 1)),
                ClaimId::new("c").expect("a claim"),
            )
            .expect("admitted")
        };
        // Of card 0 by the registry's number, whatever that is, and of one whose number begins alike.
        for n in 0..4 {
            fs::create_dir_all(fake.at(&format!("etc/dmi_mig_config/ci/dev{n}gi1ci0")))
                .expect("made");
        }
        fs::create_dir_all(fake.at("etc/dmi_mig_config/ci/dev10gi1ci0")).expect("made");
        let refused = backend.create(&order()).expect_err("poisoned");
        assert_eq!(refused.kind, ErrorKind::Exhausted);
        assert!(refused.message.contains("leftover"), "{refused}");
        assert_eq!(backend.partitions(&fake.id(0)).expect("listed"), []);
        let swept = backend.sweep(&fake.id(0), &[]).expect("swept");
        assert_eq!(swept.len(), 1, "{swept:?}");
        assert!(fake.at("etc/dmi_mig_config/ci/dev10gi1ci0").exists());
        let made = backend.create(&order()).expect("made");
        assert!(made.handle.starts_with("MIG-"), "{}", made.handle);
    });
}

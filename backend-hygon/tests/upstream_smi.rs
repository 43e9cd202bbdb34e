//! Upstream's real `librocm_smi64` (Debian's package) on a prepared sysfs in a mount namespace of its own.
//!
//! Skipped, with the reason printed, where the package or the privilege to mount is not there.

mod support;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use vgpu_backend_hygon::{HygonFactory, HygonOptions};
use vgpu_core::health::{Meaning, Subject};
use vgpu_core::{Bytes, DeviceId};

use crate::support::{CardSpec, FakeHost, card, machine, ready};

/// Where Debian and others put it.
const PLACES: &[&str] = &[
    "/usr/lib/librocm_smi64.so.1",
    "/usr/lib/x86_64-linux-gnu/librocm_smi64.so.1",
    "/usr/lib/x86_64-linux-gnu/librocm_smi64.so.5",
    "/usr/lib64/librocm_smi64.so.1",
];

fn ours(n: usize) -> Vec<CardSpec> {
    (0..n).map(|i| card(i, 0x6210, 120, 65_520, false)).collect()
}

/// Another vendor's card between the first and the rest.
fn with_a_stranger(n: usize) -> Vec<CardSpec> {
    let mut cards = ours(n + 1);
    cards[1] = CardSpec { vendor: 0x1002, device: 0x740f, ..cards[1].clone() };
    cards
}

#[test]
fn one_card() {
    on("one_card", ours(1));
}

#[test]
fn two_cards() {
    on("two_cards", ours(2));
}

#[test]
fn eight_cards() {
    on("eight_cards", ours(8));
}

#[test]
fn two_cards_and_a_stranger_between() {
    on("two_cards_and_a_stranger_between", with_a_stranger(2));
}

#[test]
fn eight_cards_and_a_stranger_between() {
    on("eight_cards_and_a_stranger_between", with_a_stranger(8));
}

/// Starts itself with the prepared sysfs over the machine's own, for this process alone.
fn on(test: &str, cards: Vec<CardSpec>) {
    let Some(library) = PLACES.iter().map(Path::new).find(|place| place.exists()) else {
        eprintln!("skipped: no librocm_smi64 is installed (Debian: librocm-smi64-1)");
        return;
    };
    if std::env::var("VGPU_TEST_INSIDE").is_ok_and(|name| name == test) {
        let root = PathBuf::from(std::env::var_os("VGPU_TEST_ROOT").expect("set beside it"));
        return tried(&FakeHost { root, cards }, library);
    }
    let (_folder, fake) = machine(cards);
    // What the kernel's own files leave out, so that the library is asked.
    for (n, spec) in fake.cards.iter().enumerate() {
        if spec.vendor == 0x1d94 {
            fake.set(n, "mem_info_vram_used", &format!("{}\n", (100 + n) << 20)).expect("set");
        }
    }
    let own = std::env::current_exe().expect("a test knows its own path");
    let script = "mount --make-rprivate / && mount --bind \"$VGPU_TEST_ROOT/sys\" /sys || exit 77
                  exec \"$0\" \"$@\"";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(own)
        .args([test, "--exact", "--nocapture"])
        .env("VGPU_TEST_INSIDE", test)
        .env("VGPU_TEST_ROOT", &fake.root)
        .process_group(0)
        .output();
    let output = match output {
        Ok(output) if output.status.code() == Some(77) => {
            eprintln!("skipped: nothing may be mounted here ({})", text(&output.stderr));
            return;
        }
        Ok(output) if text(&output.stderr).contains("unshare failed") => {
            eprintln!("skipped: no mount namespace may be made here ({})", text(&output.stderr));
            return;
        }
        Err(e) => {
            eprintln!("skipped: unshare does not start ({e})");
            return;
        }
        Ok(output) => output,
    };
    let (words, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && words.contains("1 passed"), "{words}\n{errors}");
}

/// The same backend with the real library: everything once by the kernel's files, once by the library.
fn tried(fake: &FakeHost, library: &Path) {
    let options = HygonOptions { rocm_smi: Some(library.to_owned()), ..HygonOptions::default() };
    let factory = HygonFactory::new(options);
    let host = fake.host(None);
    let backend = ready(&factory, &host);
    let info = backend.info();
    assert!(info.library.to_string_lossy().contains("librocm_smi64"), "{info:?}");
    assert!(info.missing_symbols.contains(&"rsmi_dev_cu_num_get".to_owned()), "{info:?}");
    let by_files = backend.scan().expect("scanned");
    assert!(by_files.lost.is_empty(), "{by_files:?}");
    let expected: Vec<DeviceId> = {
        let of_ours = fake.cards.iter().filter(|card| card.vendor == 0x1d94);
        let mut ids: Vec<_> =
            of_ours.map(|c| DeviceId::new(c.address.as_str()).expect("an id")).collect();
        ids.sort();
        ids
    };
    let ids: Vec<DeviceId> = by_files.devices.iter().map(|d| d.id.clone()).collect();
    assert_eq!(ids, expected);
    assert_eq!(backend.topology().expect("read").len(), ids.len() * (ids.len() - 1) / 2);
    for id in &ids {
        let how = backend.check(id).expect("checked").remove(0);
        assert_eq!(how.meaning, Meaning::Good, "{}", how.cause);
    }
    // Our reader looks at a copy in which these are missing; the library still sees them all.
    let copy = support::folder();
    let blind = FakeHost::write(copy.path(), fake.cards.clone()).expect("written");
    for n in 0..blind.cards.len() {
        for file in
            ["mem_info_vram_total", "mem_info_vram_used", "gpu_busy_percent", "serial_number"]
        {
            let _absent = fs::remove_file(blind.card_folder(n).join(file));
        }
        fs::remove_dir_all(blind.card_folder(n).join("ras")).expect("removed");
        fs::remove_dir_all(blind.node_folder(n).join("mem_banks")).expect("removed");
    }
    let backend = ready(&factory, &blind.host(None));
    let by_library = backend.scan().expect("scanned");
    assert_eq!(by_library.devices, by_files.devices);
    for id in &ids {
        let n = blind.place(id).expect("there");
        let used = backend.usage(&Subject::Device(id.clone())).expect("read");
        // Of this very card, whatever the library counts between.
        assert_eq!(used.memory, Some(Bytes::mib(100 + n as u64)), "{id}");
        assert_eq!(used.busy_ppm, Some(0));
        let how = backend.check(id).expect("checked").remove(0);
        assert_eq!(how.meaning, Meaning::Good, "{}", how.cause);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

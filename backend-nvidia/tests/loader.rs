//! The loader and the safe trait against the fake NVML, through `dlopen`, in processes of their own.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Machine, Probe, built};

mod support;

fn error(value: &Value) -> &str {
    value["error"].as_str().unwrap_or_else(|| panic!("no error: {value}"))
}

fn load_error(library: &Path, scenario: Option<&str>) -> String {
    let probe = Probe::start(library, scenario);
    assert_eq!(probe.loaded["loaded"], false, "{}", probe.loaded);
    error(&probe.loaded).to_owned()
}

#[test]
fn h200x8_is_read_whole() {
    let mut probe = Probe::fake("h200x8");
    assert_eq!(probe.loaded["missing"], json!([]));
    let machine = probe.ask("scan");
    assert_eq!(machine["driver"], "570.124.06");
    assert_eq!(machine["cuda"], "12.8");
    assert_eq!(machine["count"], 8);
    let card = &machine["cards"][5];
    assert_eq!(card["name"], "NVIDIA H200");
    assert_eq!(card["uuid"], "GPU-00002335-0000-4000-8000-000000000005");
    assert_eq!(card["minor"], 5);
    assert_eq!(card["pci"], json!(["0000:c3:00.0", 0x2335_10de, 0x16c1_10de]));
    assert_eq!(card["numa"], 1);
    assert_eq!(card["cores"], 16_896);
    assert_eq!(card["compute"], "9.0");
    assert_eq!(card["mig"], json!([false, false]));
    assert_eq!(card["event_types"], 0xc10b);
    assert_eq!(card["recovery"], 0);
    assert_eq!(card["rows"], json!([0, 0, false, false]));
    assert_eq!(card["ecc"], 0);
    assert_eq!([&card["temperature"], &card["slowdown"], &card["shutdown"]], [34, 89, 92]);
    let mib = 1_u64 << 20;
    assert_eq!(
        card["memory"],
        json!({
            "total": 143_771 * mib, "reserved": 512 * mib, "free": (143_771 - 512) * mib, "used": 0,
        })
    );
    assert_eq!(card["links"].as_array().map(Vec::len), Some(18));
    assert_eq!(card["links"][17], json!(["0000:08:00.0", "Switch"]));
    assert_eq!(
        machine["topology"][4],
        json!(["System", "System", "System", "System", "Internal", "Single", "Node", "Node"])
    );
}

#[test]
fn direct_links_end_at_cards() {
    let machine = Probe::fake("a100x4").ask("scan");
    let ends: Vec<&Value> = machine["cards"][1]["links"]
        .as_array()
        .expect("links")
        .iter()
        .map(|link| {
            assert_eq!(link[1], "Gpu");
            &link[0]
        })
        .collect();
    assert_eq!(ends.len(), 12);
    assert_eq!(ends.iter().filter(|end| **end == "0000:61:00.0").count(), 4);
}

#[test]
fn what_a_card_lacks_is_not_supported() {
    let machine = Probe::fake("t4x1").ask("scan");
    let card = &machine["cards"][0];
    assert_eq!(card["links"], json!([]));
    assert_eq!(card["retired_pending"], false);
    assert_eq!(error(&card["mig"]), "nvmlDeviceGetMigMode is not supported here");
    assert_eq!(error(&card["rows"]), "nvmlDeviceGetRemappedRows is not supported here");
    assert_eq!(error(&card["recovery"]), "nvmlDeviceGetFieldValues is not supported here");
}

#[test]
fn a_lost_card_leaves_the_others() {
    let machine = Probe::fake("lost-one").ask("scan");
    assert_eq!(machine["count"], 4);
    for key in ["uuid", "name", "memory", "pci", "temperature"] {
        let why = error(&machine["cards"][2][key]);
        assert_eq!(why, "nvmlDeviceGetHandleByIndex_v2 failed with 15 (GPU is lost)");
    }
    for index in [0, 1, 3] {
        assert!(machine["cards"][index]["uuid"].is_string());
        assert!(machine["topology"][index][2]["error"].is_string());
    }
    assert_eq!(machine["topology"][0][3], "Node");
}

#[test]
fn models_may_be_mixed() {
    let machine = Probe::fake("mixed-models").ask("scan");
    let names: Vec<&Value> = (0..4).map(|index| &machine["cards"][index]["name"]).collect();
    assert_eq!(names, ["NVIDIA H200", "NVIDIA A100-SXM4-40GB", "Tesla T4", "NVIDIA L40S"]);
    assert_eq!(machine["cards"][1]["processes"], json!([[4242, 1_u64 << 30, null, null]]));
}

#[test]
fn a_node_without_cards_is_no_failure() {
    let machine = Probe::fake("no-cards").ask("scan");
    assert_eq!(machine["count"], 0);
    assert_eq!(machine["cards"], json!([]));
}

#[test]
fn newer_functions_may_answer_function_not_found() {
    let mut probe = Probe::fake("old-driver");
    assert_eq!(probe.loaded["missing"], json!([]));
    let machine = probe.ask("scan");
    assert_eq!(machine["driver"], "450.248.02");
    let card = &machine["cards"][0];
    let why = error(&card["rows"]);
    assert_eq!(why, "nvmlDeviceGetRemappedRows failed with 13 (function not found)");
    assert_eq!(card["memory"]["reserved"], Value::Null, "read by the call's first version");
    assert_eq!(card["memory"]["total"], 40_960_u64 << 20);
}

#[test]
fn an_old_library_lacks_symbols() {
    let mut probe = Probe::start(&built("libfake_nvml_old.so"), Some("a100x4"));
    assert_eq!(
        probe.loaded["missing"],
        json!([
            "nvmlDeviceGetComputeRunningProcesses_v3",
            "nvmlDeviceGetGpuInstanceProfileInfoV",
            "nvmlDeviceGetMemoryAffinity",
            "nvmlDeviceGetMemoryInfo_v2",
            "nvmlDeviceGetMemoryLimits_v1",
            "nvmlDeviceGetNumGpuCores",
            "nvmlDeviceGetNvLinkRemoteDeviceType",
            "nvmlDeviceGetRemappedRows",
            "nvmlDeviceSetMemoryLimits_v1",
            "nvmlEventSetWait_v2",
        ])
    );
    let machine = probe.ask("scan");
    let card = &machine["cards"][3];
    assert_eq!(error(&card["cores"]), "the library has no nvmlDeviceGetNumGpuCores");
    assert_eq!(error(&card["numa"]), "the library has no nvmlDeviceGetMemoryAffinity");
    assert_eq!(
        error(&card["links"][0][1]),
        "the library has no nvmlDeviceGetNvLinkRemoteDeviceType"
    );
    assert_eq!(card["memory"]["total"], 40_960_u64 << 20);
    assert_eq!(card["memory"]["used"], 512_u64 << 20, "what is reserved counts as used");
    assert_eq!(card["processes"], json!([]), "read by the call's second version");
    assert_eq!(error(&probe.ask("events 8")), "the library has no nvmlEventSetWait_v2");
}

#[test]
fn another_library_is_not_nvml() {
    assert_eq!(
        load_error(Path::new("libm.so.6"), None),
        "libm.so.6 is loaded but is not NVML: lacks nvmlInit_v2"
    );
}

#[test]
fn a_path_that_is_not_there_is_told() {
    let why = load_error(Path::new("/nonexistent/libnvidia-ml.so.1"), None);
    assert!(why.starts_with("/nonexistent/libnvidia-ml.so.1 cannot be loaded: "), "{why}");
}

#[test]
fn a_driver_that_does_not_start_is_told() {
    let fake = built("libfake_nvml.so");
    let why = load_error(&fake, Some("no-driver"));
    assert!(
        why.ends_with("does not start: nvmlInit_v2 failed with 9 (driver not loaded)"),
        "{why}"
    );
    let unset = load_error(&fake, None);
    assert!(unset.contains("does not start"), "{unset}");
    let machine = Machine::new("preset: h200x2\nno_such_key: 1");
    let refused = load_error(&fake, Some(&machine.scenario()));
    assert!(refused.contains("does not start"), "{refused}");
}

#[test]
fn a_driver_version_without_an_end_stops_the_load() {
    let machine = Machine::new("preset: t4x1\nunterminated: [driver_version]");
    let why = load_error(&built("libfake_nvml.so"), Some(&machine.scenario()));
    assert!(why.contains("nvmlSystemGetDriverVersion"), "{why}");
    assert!(why.ends_with("a string without an end within 80 bytes"), "{why}");
}

#[test]
fn strings_without_an_end_or_sense_are_bounded() {
    let machine = Machine::new(
        "preset: h200x2\npatch:\n  0: {unterminated: [name, uuid]}\n  1: {name_bytes: [71, 255, 80]}",
    );
    let machine = Probe::fake(&machine.scenario()).ask("scan");
    for key in ["name", "uuid"] {
        let why = error(&machine["cards"][0][key]).to_owned();
        assert!(why.ends_with("a string without an end within 96 bytes"), "{why}");
    }
    assert_eq!(machine["cards"][0]["minor"], 0);
    assert_eq!(machine["cards"][1]["name"], "G\u{fffd}P");
}

#[test]
fn counts_that_cannot_be_are_refused() {
    let many = Machine::new("preset: t4x1\ndevice_count: 4000000000");
    let machine = Probe::fake(&many.scenario()).ask("scan");
    let why = error(&machine["count"]);
    assert!(why.contains("4000000000 cards, and 64 at most"), "{why}");

    let claims = Machine::new("preset: t4x1\npatch: {0: {claimed_processes: 4000000000}}");
    let machine = Probe::fake(&claims.scenario()).ask("scan");
    let why = error(&machine["cards"][0]["processes"]);
    assert!(why.contains("4000000000 processes"), "{why}");

    let over_room = Machine::new("preset: t4x1\npatch: {0: {claimed_processes: 65}}");
    let machine = Probe::fake(&over_room.scenario()).ask("scan");
    let why = error(&machine["cards"][0]["processes"]);
    assert!(why.contains("65 processes for room of 64"), "{why}");
}

#[test]
fn more_processes_than_the_first_room_are_all_read() {
    let list: Vec<String> = (0..300)
        .map(|n| match n {
            0 => "{pid: 1000}".to_owned(),
            n => format!("{{pid: {}, used_mib: {n}, gi: 1, ci: 0}}", 1000 + n),
        })
        .collect();
    let text = format!("preset: t4x1\npatch: {{0: {{processes: [{}]}}}}", list.join(", "));
    let machine = Probe::fake(&Machine::new(&text).scenario()).ask("scan");
    let processes = machine["cards"][0]["processes"].as_array().expect("a list").clone();
    assert_eq!(processes.len(), 300);
    assert_eq!(processes[0], json!([1000, null, null, null]));
    assert_eq!(processes[299], json!([1299, 299_u64 << 20, 1, 0]));
}

#[test]
fn more_cards_than_there_are_fail_alone() {
    let machine = Machine::new("preset: h200x2\ndevice_count: 3\npatch: {0: {handle_code: 999}}");
    let machine = Probe::fake(&machine.scenario()).ask("scan");
    let why = error(&machine["cards"][0]["uuid"]);
    assert_eq!(why, "nvmlDeviceGetHandleByIndex_v2 failed with 999 (unknown error)");
    assert!(machine["cards"][1]["uuid"].is_string());
    let why = error(&machine["cards"][2]["uuid"]);
    assert_eq!(why, "nvmlDeviceGetHandleByIndex_v2 failed with 2 (invalid argument)");
}

#[test]
fn cards_are_found_by_uuid() {
    let mut probe = Probe::fake("lost-one");
    assert_eq!(probe.ask("index GPU-000020b0-0000-4000-8000-000000000003"), 3);
    let lost = probe.ask("index GPU-000020b0-0000-4000-8000-000000000002");
    assert_eq!(error(&lost), "nvmlDeviceGetHandleByUUID failed with 15 (GPU is lost)");
    let none = probe.ask("index GPU-none");
    assert_eq!(error(&none), "nvmlDeviceGetHandleByUUID failed with 6 (not found)");
}

#[test]
fn events_keep_their_instances() {
    let mut probe = Probe::fake("ampere-events");
    assert_eq!(probe.ask("events a"), json!([true, true]));
    let event = |card, kind, data, gi: Option<u32>, ci: Option<u32>| json!({ "card": card, "type": kind, "data": data, "gi": gi, "ci": ci });
    assert_eq!(probe.ask("wait 60000"), event(0, 8, 43, None, None));
    assert_eq!(probe.ask("wait 60000"), event(0, 8, 94, Some(3), Some(0)));
    assert_eq!(probe.ask("wait 60000"), event(1, 8, 48, None, None));
    assert_eq!(probe.ask("wait 60000"), event(1, 2, 0, None, None));
    assert_eq!(probe.ask("wait 20"), "timeout");
}

#[test]
fn event_types_beyond_the_wrapper_arrive() {
    let machine = Machine::new(
        "preset: h200x2\nevents: [{card: 1, type: 32768, data: 1}, {card: 0, type: 16384, data: 0}]",
    );
    let mut probe = Probe::fake(&machine.scenario());
    assert_eq!(probe.ask("events c000"), json!([true, true]));
    assert_eq!(probe.ask("wait 60000")["type"], 0x8000);
    assert_eq!(probe.ask("wait 60000")["type"], 0x4000);
}

#[test]
fn a_card_refuses_events_it_cannot_raise() {
    let mut probe = Probe::fake("mixed-models");
    let registered = probe.ask("events 8000");
    assert_eq!(registered[0], true);
    assert_eq!(error(&registered[1]), "nvmlDeviceRegisterEvents is not supported here");
    assert_eq!(probe.ask("wait 10"), "timeout", "the set lives on");
}

#[test]
fn an_event_ends_a_wait_that_is_under_way() {
    let machine = Machine::new("preset: h200x2");
    let mut probe = Probe::fake(&machine.scenario());
    probe.ask("events 8");
    probe.send("wait 50000");
    machine.control("events: [{id: fell-off, card: 1, type: 8, data: 79}]");
    let event = probe.answer();
    assert_eq!((&event["card"], &event["data"]), (&json!(1), &json!(79)));
    assert_eq!(probe.ask("wait 30"), "timeout", "an id is given out once");
    probe.ask("events 8");
    assert_eq!(probe.ask("wait 30"), "timeout", "to a new set neither");
}

#[test]
fn a_wait_that_fails_is_not_a_timeout() {
    let machine =
        Machine::new("preset: h200x2\nfail: [{function: nvmlEventSetWait_v2, nth: 1, code: 999}]");
    let mut probe = Probe::fake(&machine.scenario());
    probe.ask("events 8");
    let why = probe.ask("wait 50000");
    assert_eq!(error(&why), "nvmlEventSetWait_v2 failed with 999 (unknown error)");
    assert_eq!(probe.ask("wait 20"), "timeout");
}

#[test]
fn a_card_falls_off_and_comes_back() {
    let machine = Machine::new("preset: h200x2");
    let mut probe = Probe::fake(&machine.scenario());
    let before = probe.ask("scan");
    machine.control("cards: {1: {state: lost}}");
    let during = probe.ask("scan");
    assert_eq!(during["cards"][0], before["cards"][0]);
    // The known handle says so once, and from then on the card is looked up again and again.
    let memory = error(&during["cards"][1]["memory"]);
    assert_eq!(memory, "nvmlDeviceGetMemoryInfo_v2 failed with 15 (GPU is lost)");
    let name = error(&during["cards"][1]["name"]);
    assert_eq!(name, "nvmlDeviceGetHandleByIndex_v2 failed with 15 (GPU is lost)");
    machine.control("");
    assert_eq!(probe.ask("scan"), before);
}

#[test]
fn readings_follow_the_card() {
    let machine = Machine::new("preset: h200x2");
    let mut probe = Probe::fake(&machine.scenario());
    machine.control(
        "cards: {0: {recovery_action: 2, temperature: 91, ecc_uncorrected: 7, retired_pending: true,\n  \
         remapped_rows: {corrected: 1, uncorrected: 2, pending: true, failed: true},\n  \
         mig: {current: 0, pending: 1}, numa: 70}}",
    );
    let card = probe.ask("scan")["cards"][0].clone();
    assert_eq!(card["recovery"], 2);
    assert_eq!(card["temperature"], 91);
    assert_eq!(card["ecc"], 7);
    assert_eq!(card["retired_pending"], true);
    assert_eq!(card["rows"], json!([1, 2, true, true]));
    assert_eq!(card["mig"], json!([false, true]));
    assert_eq!(card["numa"], 70, "beyond the mask's first word");
}

#[test]
fn flags_that_are_neither_are_malformed() {
    let machine = Machine::new("preset: h200x2\npatch: {0: {mig: {current: 2, pending: 0}}}");
    let card = Probe::fake(&machine.scenario()).ask("scan")["cards"][0].clone();
    let why = error(&card["mig"]);
    assert_eq!(
        why,
        "nvmlDeviceGetMigMode gave what cannot be: current MIG mode is 2, neither 0 nor 1"
    );
}

#[test]
fn the_nth_call_fails_and_the_next_does_not() {
    let machine = Machine::new(
        "preset: h200x2\nfail: [{function: nvmlDeviceGetTemperature, card: 1, nth: 2, code: 17}]",
    );
    let mut probe = Probe::fake(&machine.scenario());
    assert_eq!(probe.ask("scan")["cards"][1]["temperature"], 34);
    let second = probe.ask("scan");
    assert_eq!(second["cards"][0]["temperature"], 34);
    let why = error(&second["cards"][1]["temperature"]);
    assert_eq!(why, "nvmlDeviceGetTemperature failed with 17 (blocked by the operating system)");
    assert_eq!(probe.ask("scan")["cards"][1]["temperature"], 34);
}

#[test]
fn a_call_hangs_until_it_is_let_go() {
    let machine = Machine::new("preset: t4x1\nlatency_ms: {nvmlDeviceGetTemperature: 86400000}");
    let mut probe = Probe::fake(&machine.scenario());
    probe.send("scan");
    assert!(probe.is_silent(Duration::from_millis(300)), "the call takes a day");
    machine.control("latency_ms: {nvmlDeviceGetTemperature: 0}");
    assert_eq!(probe.answer()["cards"][0]["temperature"], 34);
}

#[test]
fn a_broken_control_file_changes_nothing() {
    let machine = Machine::new("preset: h200x2");
    let mut probe = Probe::fake(&machine.scenario());
    machine.control("cards: {0: {temperature: 50}}");
    assert_eq!(probe.ask("scan")["cards"][0]["temperature"], 50);
    for broken in ["cards: {0: {temper", "cards: {0: {no_such_key: 1}}", "cards: {9: {minor: 1}}"] {
        machine.control(broken);
        assert_eq!(probe.ask("scan")["cards"][0]["temperature"], 50, "{broken}");
    }
}

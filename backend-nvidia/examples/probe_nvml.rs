//! Says in JSON, a line each, what this crate reads of an NVML: `probe_nvml LIBRARY`, then commands on stdin.
//!
//! The first line tells how loading went. Commands: `scan` (everything of every card), `index UUID`,
//! `events HEXMASK` (a new set with every card that takes it), `wait MILLISECONDS`.

use std::fmt::Display;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use vgpu_backend_nvidia::{
    FIELD_RECOVERY_ACTION, LoadedNvml, MAX_NVLINKS, NvmlApi, NvmlEventSet, TemperatureLimit,
};

fn main() -> ExitCode {
    let Some(library) = std::env::args_os().nth(1) else {
        eprintln!("usage: probe_nvml LIBRARY, then commands on stdin: scan, index, events, wait");
        return ExitCode::from(2);
    };
    match LoadedNvml::load(&library).map_err(|failure| failure.to_string()) {
        Ok(nvml) => {
            say(&json!({ "loaded": true, "missing": nvml.missing_symbols() }));
            serve(&nvml);
            ExitCode::SUCCESS
        }
        Err(why) => {
            say(&json!({ "loaded": false, "error": why }));
            ExitCode::FAILURE
        }
    }
}

fn serve(nvml: &dyn NvmlApi) {
    let mut events: Option<Box<dyn NvmlEventSet>> = None;
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let (command, argument) = line.split_once(' ').unwrap_or((line.as_str(), ""));
        let answer = match command {
            "events" => open_events(nvml, argument, &mut events),
            "index" => value(nvml.index_of(argument)),
            "scan" => scan(nvml),
            "wait" => wait(argument, events.as_mut()),
            other => json!({ "error": format!("no command is called {other:?}") }),
        };
        say(&answer);
    }
}

fn scan(nvml: &dyn NvmlApi) -> Value {
    let count = nvml.device_count();
    let cards = 0..count.as_ref().copied().unwrap_or(0);
    json!({
        "driver": value(nvml.driver_version()),
        "cuda": value(nvml.cuda_driver_version().map(|v| format!("{}.{}", v.major, v.minor))),
        "count": value(count),
        "cards": cards.clone().map(|index| card(nvml, index)).collect::<Vec<_>>(),
        "topology": cards.clone().map(|one| topology(nvml, one, cards.clone())).collect::<Vec<_>>(),
    })
}

fn card(nvml: &dyn NvmlApi, index: u32) -> Value {
    let memory = nvml.memory_info(index).map(|memory| {
        json!({
            "total": memory.total,
            "reserved": memory.reserved,
            "free": memory.free,
            "used": memory.used,
        })
    });
    let processes = nvml.compute_processes(index).map(|list| {
        let one = |p: &vgpu_backend_nvidia::ComputeProcess| {
            json!([p.pid, p.used, p.gpu_instance, p.compute_instance])
        };
        list.iter().map(one).collect::<Vec<_>>()
    });
    let rows = nvml.remapped_rows(index);
    json!({
        "uuid": value(nvml.uuid(index)),
        "name": value(nvml.name(index)),
        "minor": value(nvml.minor_number(index)),
        "pci": value(nvml.pci_info(index).map(|pci| json!([pci.address, pci.device_id, pci.subsystem_id]))),
        "memory": value(memory),
        "cores": value(nvml.num_gpu_cores(index)),
        "compute": value(nvml.cuda_compute_capability(index).map(|v| format!("{}.{}", v.major, v.minor))),
        "numa": value(nvml.numa_node(index)),
        "mig": value(nvml.mig_mode(index).map(|mode| [mode.current, mode.pending])),
        "processes": value(processes),
        "links": links(nvml, index),
        "event_types": value(nvml.supported_event_types(index)),
        "recovery": value(nvml.field_value(index, FIELD_RECOVERY_ACTION)),
        "rows": value(rows.map(|r| json!([r.corrected, r.uncorrected, r.pending, r.failed]))),
        "retired_pending": value(nvml.retired_pages_pending(index)),
        "ecc": value(nvml.uncorrected_ecc_errors(index)),
        "temperature": value(nvml.temperature(index)),
        "shutdown": value(nvml.temperature_limit(index, TemperatureLimit::Shutdown)),
        "slowdown": value(nvml.temperature_limit(index, TemperatureLimit::Slowdown)),
    })
}

/// The links that are up, as far as the first that the card does not have.
fn links(nvml: &dyn NvmlApi, index: u32) -> Vec<Value> {
    (0..MAX_NVLINKS)
        .map_while(|link| nvml.nvlink_active(index, link).ok().map(|active| (link, active)))
        .filter(|(_, active)| *active)
        .map(|(link, _)| {
            let kind = nvml.nvlink_remote_kind(index, link).map(|kind| format!("{kind:?}"));
            json!([value(nvml.nvlink_remote_address(index, link)), value(kind)])
        })
        .collect()
}

fn topology(nvml: &dyn NvmlApi, one: u32, others: std::ops::Range<u32>) -> Vec<Value> {
    let level = |other| nvml.topology_common_ancestor(one, other).map(|level| format!("{level:?}"));
    others.map(|other| value(level(other))).collect()
}

fn open_events(
    nvml: &dyn NvmlApi,
    mask: &str,
    events: &mut Option<Box<dyn NvmlEventSet>>,
) -> Value {
    let Ok(mask) = u64::from_str_radix(mask, 16) else {
        return json!({ "error": "events takes a mask in hex" });
    };
    // The old set goes first, so that it does not take the new one's events.
    *events = None;
    let mut set = match nvml.open_event_set() {
        Ok(set) => set,
        Err(failure) => return error(&failure),
    };
    let cards = 0..nvml.device_count().unwrap_or(0);
    let registered = cards.map(|index| value(set.register(index, mask).map(|()| true))).collect();
    *events = Some(set);
    Value::Array(registered)
}

fn wait(timeout: &str, events: Option<&mut Box<dyn NvmlEventSet>>) -> Value {
    let (Ok(timeout), Some(events)) = (timeout.parse(), events) else {
        return json!({ "error": "wait takes milliseconds, after events" });
    };
    match events.wait(Duration::from_millis(timeout)) {
        Ok(Some(event)) => json!({
            "card": event.index,
            "type": event.event_type,
            "data": event.data,
            "gi": event.gpu_instance,
            "ci": event.compute_instance,
        }),
        Ok(None) => json!("timeout"),
        Err(failure) => error(&failure),
    }
}

fn value<T: Into<Value>, E: Display>(result: Result<T, E>) -> Value {
    result.map_or_else(|failure| error(&failure), Into::into)
}

fn error(failure: &dyn Display) -> Value {
    json!({ "error": failure.to_string() })
}

fn say(value: &Value) {
    let mut out = io::stdout().lock();
    // A reader that went away is no news for a probe.
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}

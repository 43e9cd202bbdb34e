//! How the demo is told.

use std::io::Write;

use serde_json::Value;
use vgpu_core::id::DeviceId;
use vgpu_kubelet_plugin::fake::ContainerView;
use vgpu_node::ClaimStatus;
use vgpu_node::status::Levels;

use crate::demo::stage::Stage;

/// One claim in the table.
pub(super) struct Row {
    pub(super) resource: String,
    pub(super) device: DeviceId,
    pod: String,
    ids: String,
    mechanism: String,
    size: String,
    levels: Levels,
    claim: String,
}

impl Row {
    pub(super) fn of(status: &ClaimStatus) -> Option<Self> {
        let grant = status.grants.first()?;
        let ids = match status.ids.as_slice() {
            [one] => one.to_string(),
            [first, .., last] => format!("{first} … .{}", last.n),
            [] => return None,
        };
        Some(Self {
            resource: status.resource.to_string(),
            device: grant.device.clone(),
            pod: status.holder.as_ref().map_or_else(|| "?".into(), |h| h.pod.clone()),
            ids,
            mechanism: grant.scheme.to_string(),
            size: grant.size.clone(),
            levels: grant.levels,
            claim: status.claim.to_string(),
        })
    }
}

pub(super) fn resources(out: &mut dyn Write, stage: &Stage) -> std::io::Result<()> {
    writeln!(out, "  {:<22} {:>11} {:>8}  cards", "resource", "allocatable", "capacity")?;
    for (name, resource) in &stage.agent.node().layout().resources {
        let allocatable = stage.kubelet.allocatable(name.as_str());
        let capacity = stage.kubelet.capacity(name.as_str());
        let schemes: Vec<String> =
            resource.cards.iter().map(|(id, c)| format!("{id} ({})", c.scheme)).collect();
        writeln!(out, "  {name:<22} {allocatable:>11} {capacity:>8}  {}", schemes.join(", "))?;
    }
    Ok(())
}

pub(super) fn claims(out: &mut dyn Write, rows: &[Row]) -> std::io::Result<()> {
    let width = rows.iter().map(|r| r.ids.chars().count()).max().unwrap_or(0);
    writeln!(
        out,
        "  {:<9} {:<width$} {:<10} {:<21} {:<12} {:<12} {:<12} CDI name",
        "pod", "id", "mechanism", "size", "memory", "compute", "faults"
    )?;
    for r in rows {
        let Levels { memory, compute, faults } = r.levels;
        writeln!(
            out,
            "  {:<9} {:<width$} {:<10} {:<21} {:<12} {:<12} {:<12} vgpu.dev/claim={}",
            r.pod,
            r.ids,
            r.mechanism,
            r.size,
            memory.to_string(),
            compute.to_string(),
            faults.to_string(),
            r.claim
        )?;
    }
    Ok(())
}

/// What a container sees, as the runtime resolved it.
pub(super) fn edits(out: &mut dyn Write, pod: &str, view: &ContainerView) -> std::io::Result<()> {
    writeln!(out, "\n  {pod} sees:")?;
    for device in &view.cdi_devices {
        let edits = &device.device_edits;
        let texts = |key: &str, of: &dyn Fn(&Value) -> Option<String>| -> Vec<String> {
            edits[key].as_array().into_iter().flatten().filter_map(of).collect()
        };
        let path = |v: &Value| v["path"].as_str().map(str::to_owned);
        let mount = |v: &Value| v["containerPath"].as_str().map(|p| format!("{p} (read-only)"));
        let writable = |v: &Value| v["containerPath"].as_str().map(str::to_owned);
        let is_read_only =
            |v: &Value| v["options"].as_array().is_some_and(|o| o.iter().any(|o| o == "ro"));
        let mounts = texts("mounts", &|v| if is_read_only(v) { mount(v) } else { writable(v) });
        let env = texts("env", &|v| v.as_str().map(str::to_owned));
        let hooks = texts("hooks", &|v| {
            let args: Vec<&str> = v["args"].as_array()?.iter().filter_map(Value::as_str).collect();
            Some(args.get(1).copied().unwrap_or_default().to_owned())
        });
        for (what, list) in [
            ("nodes", texts("deviceNodes", &path)),
            ("files", mounts),
            ("env", env),
            ("hooks", hooks),
        ] {
            if !list.is_empty() {
                writeln!(out, "    {what:<6} {}", list.join("  "))?;
            }
        }
    }
    Ok(())
}

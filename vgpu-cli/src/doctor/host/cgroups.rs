//! Which cgroups there are: NVIDIA's memory limits on containers need version 2.

use std::path::Path;

use crate::doctor::catalogue::Check;
use crate::doctor::finding::Finding;
use crate::doctor::reader::Reader;

const ROOT: &str = "/sys/fs/cgroup";

/// The driver from which on there are memory limits of a cgroup.
const LIMITS_SINCE: u32 = 615;

/// How cgroups are mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) layout: Layout,
    /// Controllers of version 2.
    pub(crate) controllers: Vec<String>,
}

/// Who has the controllers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Version 1, with an empty tree of version 2 beside it.
    Hybrid,
    #[default]
    None,
    V1,
    V2,
}

/// Reads what is mounted.
pub(crate) fn read(reader: &mut Reader<'_>) -> Facts {
    let root = Path::new(ROOT);
    let unified = root.join("cgroup.controllers");
    if let Some(text) = reader.text(&unified) {
        let controllers = text.split_whitespace().map(str::to_owned).collect();
        return Facts { layout: Layout::V2, controllers };
    }
    let layout = match () {
        () if reader.tree.has(&root.join("unified/cgroup.controllers")) => Layout::Hybrid,
        () if reader.tree.has(&root.join("memory")) || reader.tree.has(&root.join("cpu")) => {
            Layout::V1
        }
        () if reader.tree.has(&unified) => Layout::V2,
        () => Layout::None,
    };
    Facts { layout, controllers: Vec::new() }
}

/// What it means for our mechanisms; `driver` is the major version of NVIDIA's, where it is loaded.
pub(crate) fn judge(facts: &Facts, driver: Option<u32>) -> Vec<Finding> {
    let has_limits = driver.is_some_and(|driver| driver >= LIMITS_SINCE);
    let name = match facts.layout {
        Layout::V2
            if has_limits && !facts.controllers.iter().any(|c| c == "dmem" || c == "misc") =>
        {
            let what = "cgroup v2 has neither the dmem nor the misc controller: NVIDIA's memory limits of a container \
                        may be refused";
            let remedy = "use a kernel with CONFIG_CGROUP_DMEM (6.14) or CONFIG_CGROUP_MISC";
            return vec![Finding::new(Check::NoDmem, what).at(ROOT).so(remedy)];
        }
        Layout::V2 => return Vec::new(),
        Layout::None => {
            let what = "no cgroups are mounted here; limits on containers cannot be set";
            let remedy = "with --host-root, mount the host's /sys below it too";
            return vec![Finding::new(Check::NoCgroup, what).at(ROOT).so(remedy)];
        }
        Layout::Hybrid => "cgroup v1 with an empty v2 beside it",
        Layout::V1 => "cgroup v1",
    };
    let finding = match has_limits {
        true => {
            let what = format!(
                "the host has {name}: this driver's memory limits need v2, so that turns (time-slice) and MPS enforce no \
                 memory"
            );
            Finding::new(Check::CgroupNoLimits, what)
                .so("boot with systemd.unified_cgroup_hierarchy=1")
        }
        false => {
            let what = format!(
                "the host has {name}: NVIDIA's memory limits of a container (driver 615) will not be there; all other \
                 mechanisms work"
            );
            Finding::new(Check::CgroupV1, what)
        }
    };
    vec![finding.at(ROOT)]
}

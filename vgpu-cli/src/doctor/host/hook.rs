//! The program that runtimes call for containers of ours.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use crate::doctor::catalogue::Check;
use crate::doctor::finding::Finding;
use crate::doctor::host::elf::{self, Linking};
use crate::doctor::places::Places;
use crate::doctor::reader::Reader;

/// Its headers lie in its first bytes.
const HEAD: u64 = 64 << 10;

/// Hook programs: where they should be, and what is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) programs: Vec<Program>,
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// Whether a spec that is there names it.
    pub(crate) in_use: bool,
    /// Permission bits and first bytes, where it is there.
    pub(crate) there: Option<(u32, Linking)>,
}

/// Looks at the program of `--hook-dir`, and at all that specs of ours name.
pub(crate) fn read(reader: &mut Reader<'_>, places: &Places, named: &BTreeSet<PathBuf>) -> Facts {
    let own = places.hook_dir.as_ref().map(|dir| dir.join("vgpu-hook"));
    let paths: BTreeSet<&PathBuf> = named.iter().chain(&own).collect();
    let mut programs = Vec::new();
    for path in paths {
        let in_use = named.contains(path);
        let bytes = reader.tree.beginning(path, HEAD);
        let Some(bytes) = reader.read(path, bytes) else { continue };
        let mode = reader.tree.metadata(path).ok().flatten().map_or(0, |m| m.mode() & 0o7777);
        let there = bytes.map(|bytes| (mode, elf::linking(&bytes)));
        programs.push(Program { path: path.clone(), in_use, there });
    }
    Facts { programs }
}

/// What of it would keep containers from starting.
pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    if facts.programs.is_empty() {
        let what = "where vgpu-hook lies is not said, and was not checked; claims that need it are refused without";
        return vec![
            Finding::new(Check::HookUnknown, what).so("give the agent's --hook-dir here too"),
        ];
    }
    facts.programs.iter().flat_map(of).collect()
}

fn of(program: &Program) -> Vec<Finding> {
    let at = program.path.display();
    let whose = if program.in_use {
        "specs of living claims name it: their containers cannot start"
    } else {
        "the agent does not start without it"
    };
    let Some((mode, linking)) = &program.there else {
        let what = format!("there is no hook program here; {whose}");
        return vec![
            Finding::new(Check::HookMissing, what)
                .at(&at)
                .so("install vgpu-hook at this path of the host"),
        ];
    };
    let mut found = Vec::new();
    if mode & 0o111 == 0 {
        let what = format!(
            "the hook program has mode {mode:04o} and cannot be run: containers of ours cannot start"
        );
        found.push(Finding::new(Check::HookNotRunnable, what).at(&at).so("chmod 0755"));
    }
    match linking {
        Linking::Static => {}
        Linking::Dynamic(loader) => {
            let what = format!(
                "the hook program needs {loader} and the host's libraries; where a runtime calls it in \
                                other mounts it does not start"
            );
            let remedy = "install the static one (`--target x86_64-unknown-linux-musl`)";
            found.push(Finding::new(Check::HookDynamic, what).at(&at).so(remedy));
        }
        Linking::No(why) => {
            let what = format!("it is no program of this machine: {why}");
            found.push(
                Finding::new(Check::HookNotRunnable, what)
                    .at(&at)
                    .so("install vgpu-hook at this path of the host"),
            );
        }
    }
    found
}

//! The program that runtimes call for containers of ours.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use vgpu_plugin::hook::{self, Answer};

use crate::doctor::catalogue::Check;
use crate::doctor::finding::Finding;
use crate::doctor::host::elf::{self, Linking};
use crate::doctor::places::Places;
use crate::doctor::reader::Reader;
use crate::doctor::record::Agent;

/// Its headers lie in its first bytes.
const HEAD: u64 = 64 << 10;

/// Hook programs: where they should be, and what is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) programs: Vec<Program>,
    /// The version that they should be of.
    pub(crate) wanted: String,
    /// Whether it is the agent's; else this command's.
    pub(crate) by_agent: bool,
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// Whether a spec that is there names it.
    pub(crate) in_use: bool,
    /// Permission bits and first bytes, where it is there.
    pub(crate) there: Option<(u32, Linking)>,
    /// What became of running it, where it was run.
    pub(crate) ran: Option<Answer>,
}

/// Looks at the program of `--hook-dir`, at the agent's own, and at all that specs of ours name.
pub(crate) fn read(
    reader: &mut Reader<'_>,
    places: &Places,
    named: &BTreeSet<PathBuf>,
    agent: &Agent,
) -> Facts {
    let reply = match agent {
        Agent::Answers(reply) => Some(reply),
        _ => None,
    };
    let told = reply.and_then(|reply| reply.hook.as_ref());
    let given = places.hook_dir.as_ref().map(|dir| dir.join(hook::PROGRAM));
    let own = given.or_else(|| told.map(|hook| hook.path.clone()));
    let version = reply.and_then(|reply| reply.version.clone());
    let paths: BTreeSet<&PathBuf> = named.iter().chain(&own).collect();
    let mut programs = Vec::new();
    for path in paths {
        let in_use = named.contains(path);
        let bytes = reader.tree.beginning(path, HEAD);
        let Some(bytes) = reader.read(path, bytes) else { continue };
        let mode = reader.tree.metadata(path).ok().flatten().map_or(0, |m| m.mode() & 0o7777);
        let there = bytes.map(|bytes| (mode, elf::linking(&bytes)));
        let ran = match &there {
            Some((mode, linking)) if places.on_host => run(places, path, *mode, linking),
            // From a container, what the agent saw at its start.
            Some(_) => told
                .filter(|hook| hook.path == *path)
                .and_then(|hook| hook.version.clone())
                .map(Answer::Version),
            None => None,
        };
        programs.push(Program { path: path.clone(), in_use, there, ran });
    }
    let by_agent = version.is_some();
    let wanted = version.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
    Facts { programs, wanted, by_agent }
}

/// Runs one that its mode and headers do not rule out already.
fn run(places: &Places, path: &Path, mode: u32, linking: &Linking) -> Option<Answer> {
    let is_out = mode & 0o111 == 0 || matches!(linking, Linking::No(_));
    (!is_out).then(|| hook::ask(&places.tree.find(path), hook::LIMIT))
}

/// What of it would keep containers from starting.
pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    if facts.programs.is_empty() {
        let what = "where vgpu-hook lies is not said, and was not checked; claims that need it are refused without";
        return vec![
            Finding::new(Check::HookUnknown, what).so("give the agent's --hook-dir here too"),
        ];
    }
    facts.programs.iter().flat_map(|program| of(program, facts)).collect()
}

fn of(program: &Program, facts: &Facts) -> Vec<Finding> {
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
            let remedy = "install the static one (`cargo xtask hook` builds it)";
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
    found.extend(
        program.ran.as_ref().and_then(|answer| of_answer(answer, facts)).map(|f| f.at(&at)),
    );
    found
}

fn of_answer(answer: &Answer, facts: &Facts) -> Option<Finding> {
    let own = "install the vgpu-hook that came with the agent, before the agent is started";
    match answer {
        Answer::Version(version) if *version == facts.wanted => None,
        Answer::Version(version) => {
            let whose = if facts.by_agent { "the agent's" } else { "this command's" };
            let what = format!(
                "the hook program's version is {version}, {whose} is {}: an older one may not know what the agent's specs \
                 call, and then no container of ours starts",
                facts.wanted
            );
            Some(Finding::new(Check::HookVersion, what).so(own))
        }
        Answer::Silent => {
            let limit = hook::LIMIT.as_secs();
            let what = format!(
                "the hook program did not say its version within {limit} s; containers of ours wait for it as long"
            );
            let remedy = "look at the program and at its disk, and look again";
            Some(Finding::new(Check::HookVersion, what).so(remedy))
        }
        Answer::Broken(why) => {
            let what = format!(
                "the hook program does not run, and containers of ours cannot start: {why}"
            );
            let remedy =
                "install the static one (`cargo xtask hook` builds it) where programs may be run";
            Some(Finding::new(Check::HookNotRunnable, what).so(remedy))
        }
        Answer::Other(said) => {
            let what = format!("it is no vgpu-hook: asked for its version it says {said:?}");
            Some(
                Finding::new(Check::HookNotRunnable, what)
                    .so("install vgpu-hook at this path of the host"),
            )
        }
    }
}

//! Random edits that a backend could ask for.

use std::path::PathBuf;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use vgpu_core::ContainerEdits;
use vgpu_core::edits::{
    Access, ClaimFile, DeviceNode, Hook, HookAction, HookStage, Mount, MountMode, Symlink,
};

use super::options;

pub(crate) fn edits() -> impl Strategy<Value = ContainerEdits> {
    let paths = btree_set(path(), 0..9).prop_map(Vec::from_iter).prop_shuffle();
    let env = btree_map("[A-Z_][A-Z0-9_]{0,8}", any::<String>(), 0..4);
    (nodes(), paths, vec((any::<bool>(), path(), any::<bool>()), 9), env, vec(hook(), 0..4))
        .prop_map(|(nodes, paths, how, env, hooks)| {
            let mut edits = ContainerEdits { nodes, hooks, ..ContainerEdits::default() };
            edits.env = env.into_iter().map(|(k, v)| (k, v.replace('\0', ""))).collect();
            for (container, (is_file, host, writable)) in paths.into_iter().zip(how) {
                if is_file {
                    edits.files.push(ClaimFile { container, text: host.display().to_string() });
                } else {
                    let mode = if writable { MountMode::Writable } else { MountMode::ReadOnly };
                    edits.mounts.push(Mount { host, container, mode });
                }
            }
            edits
        })
}

/// Nodes with a number need not be on this machine; the others are looked at by the loader, so
/// that they name nodes that every Linux has.
fn nodes() -> impl Strategy<Value = Vec<DeviceNode>> {
    let number = (1u32..4096, 0u32..1 << 20);
    let one = (any::<Index>(), proptest::option::of(number), any::<bool>(), any::<bool>());
    btree_map("/dev/x[a-z0-9:-]{1,6}", one, 0..6).prop_map(|nodes| {
        let node = |(path, (index, number, moved, mknod)): (String, NodeParts)| {
            let host = *index.get(&["/dev/null", "/dev/zero", "/dev/full", "/dev/urandom"]);
            let must_be_there = number.is_none();
            DeviceNode {
                host_path: (must_be_there || moved).then(|| host.into()),
                path: path.into(),
                number,
                access: if mknod { Access::ReadWriteMknod } else { Access::ReadWrite },
            }
        };
        nodes.into_iter().map(node).collect()
    })
}

/// Which node of the host, number, whether at another path, whether with mknod.
type NodeParts = (Index, Option<(u32, u32)>, bool, bool);

/// Few names, so that paths often lie in each other, or odd ones.
fn path() -> impl Strategy<Value = PathBuf> {
    prop_oneof!["(/[ab]){1,4}", "(/[a-zé ._+-]{0,4}[a-z]){1,3}"]
        .prop_map(|p| PathBuf::from(format!("/x{p}")))
}

fn hook() -> impl Strategy<Value = Hook> {
    let link = (path(), path(), any::<bool>()).prop_map(|(target, link, relative)| {
        let target = if relative { "libx.so.1".into() } else { target };
        Symlink { target, link }
    });
    let action = prop_oneof![
        Just(HookAction::Confine(options().name)),
        vec(link, 1..4).prop_map(HookAction::Link),
        vec(path(), 1..4).prop_map(HookAction::LoaderCache),
    ];
    let stage = select(vec![HookStage::CreateContainer, HookStage::CreateRuntime]);
    (stage, action).prop_map(|(stage, action)| Hook { stage, action })
}

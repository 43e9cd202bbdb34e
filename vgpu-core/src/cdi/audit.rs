//! What is allowed, but gives a tenant more than we hand out.

use super::spec::{Edits, MountSpec, Node, Spec};

/// Lists what in a valid spec gives a tenant more than it needs; a line each, none for a good one.
///
/// Writable mounts are listed though some are needed (a daemon's socket folder): they are what a
/// reviewer looks at first. Useful on other writers' specs too.
pub fn audit(spec: &Spec) -> Vec<String> {
    let whole = [("every device", &spec.container_edits)];
    let devices = spec.devices.iter().map(|d| (&*d.name, &d.container_edits));
    devices.chain(whole).flat_map(|(name, edits)| of_edits(name, edits)).collect()
}

fn of_edits(name: &str, edits: &Edits) -> Vec<String> {
    let mounts = edits.mounts.iter().filter_map(writable);
    let nodes = edits.device_nodes.iter().flat_map(|n| [mknod(n), host_memory(n)]).flatten();
    let env = edits.env.iter().filter_map(|v| limit(v));
    mounts.chain(nodes).chain(env).map(|line| format!("{name}: {line}")).collect()
}

fn writable(mount: &MountSpec) -> Option<String> {
    if mount.options.iter().any(|o| o == "ro" || o == "rro") {
        return None;
    }
    Some(format!("{} of the host is mounted writable", mount.host_path))
}

fn mknod(node: &Node) -> Option<String> {
    // Absent means all three.
    let all = node.permissions.as_deref().is_none_or(|p| p.is_empty() || p.contains('m'));
    all.then(|| format!("{} may be made anew (mknod); rw is enough", node.path))
}

fn host_memory(node: &Node) -> Option<String> {
    let host = node.host_path.as_deref().filter(|h| !h.is_empty()).unwrap_or(&node.path);
    ["/dev/kmem", "/dev/mem", "/dev/port"]
        .contains(&host)
        .then(|| format!("{host} is the memory of the whole host"))
}

fn limit(variable: &str) -> Option<String> {
    let (key, _) = variable.split_once('=')?;
    let upper = key.to_ascii_uppercase();
    ["LIMIT", "PERCENTAGE", "QUOTA"]
        .iter()
        .any(|word| upper.contains(word))
        .then(|| format!("{key} looks like a limit, and a process can change its environment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_gives_too_much_is_listed_once() {
        let text = r#"{"cdiVersion": "0.5.0", "kind": "v/c", "devices": [{"name": "d", "containerEdits": {
            "env": ["CARD=0", "CUDA_DEVICE_MEMORY_LIMIT=1g"],
            "deviceNodes": [
                {"path": "/dev/a", "permissions": "rw"},
                {"path": "/dev/b"},
                {"path": "/dev/c", "hostPath": "/dev/mem", "permissions": "rw"}
            ],
            "mounts": [
                {"hostPath": "/r", "containerPath": "/r", "options": ["ro", "bind"]},
                {"hostPath": "/w", "containerPath": "/w", "options": ["bind"]}
            ]
        }}]}"#;
        let found = audit(&serde_json::from_str(text).expect("a spec"));
        assert_eq!(found.len(), 4, "{found:?}");
        for (line, word) in
            found.iter().zip(["/w", "/dev/b", "/dev/mem", "CUDA_DEVICE_MEMORY_LIMIT"])
        {
            assert!(line.contains(word), "{line}");
        }
    }
}

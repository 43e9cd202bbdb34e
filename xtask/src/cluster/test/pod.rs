//! Pods as scenarios want them.

use serde_json::{Value, json};

use crate::cluster::image::IMAGE;

/// Tells what the container sees, then stays until it is told to end.
pub(crate) const PROBE: &str = r#"
echo "=== nodes"; find /dev -type c | while read -r n; do stat -c '%n %t:%T' "$n"; done
echo "=== opens"
for n in /dev/nvidia* /dev/nvidia-caps/* /dev/kfd /dev/mkfd /dev/dri/* /dev/cambricon* /dev/cambricon-caps/*; do
    test -c "$n" || continue
    why=$( (exec 3<>"$n") 2>&1 ) && echo "$n ok" || echo "$n $why"
done
echo "=== env"; env
echo "=== mounts"; cat /proc/self/mountinfo
echo "=== claim"; cat /etc/vgpu/claim.json
echo "=== end"
"#;

/// Waits for the end, and takes it at once.
pub(crate) const STAY: &str = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done\n";

/// A container that runs a script and asks for resources.
pub(crate) fn container(name: &str, script: &str, limits: &[(&str, u32)]) -> Value {
    let limits: serde_json::Map<String, Value> =
        limits.iter().map(|(resource, n)| ((*resource).to_owned(), json!(n.to_string()))).collect();
    json!({
        "name": name,
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", script],
        "resources": {"limits": limits},
    })
}

/// A container that tells what it sees and stays.
pub(crate) fn prober(name: &str, limits: &[(&str, u32)]) -> Value {
    container(name, &format!("{PROBE}{STAY}"), limits)
}

/// A pod of these containers.
pub(crate) fn pod(name: &str, containers: Vec<Value>) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"scenario": "vgpu"}},
        "spec": {
            "containers": containers,
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
        },
    })
}

/// A pod of one container that tells what it sees and stays.
pub(crate) fn one(name: &str, limits: &[(&str, u32)]) -> Value {
    pod(name, vec![prober("main", limits)])
}

//! Containers that end, and are started again, when a scenario wants it.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use crate::cluster::test::pod::{PROBE, STAY, container, pod};
use crate::cluster::test::world::World;

/// A pod whose containers run until their flags are raised, and then once more, to stay. Each run tells what it sees.
#[derive(Debug)]
pub(crate) struct Flagged {
    pod: String,
    flags: PathBuf,
}

impl Flagged {
    /// Runs a pod of such containers; each has a name and asks for so much of a resource.
    pub(crate) fn run(world: &World, name: &str, containers: &[(&str, &str, u32)]) -> Result<Self> {
        let flags = world.cluster.node.layout.dir.join("flags").join(name);
        if flags.exists() {
            std::fs::remove_dir_all(&flags)?;
        }
        std::fs::create_dir_all(&flags)?;
        let flagged = containers.iter().map(|(name, resource, n)| {
            // The folder of the pod's own tells the second run from the first.
            let script = format!(
                "{PROBE}\ntest -e /own/{name} && {{ {STAY} }}; : >/own/{name}; \
                 while ! test -e /flags/{name}; do sleep 1; done; exit 3"
            );
            let mut made = container(name, &script, &[(resource, *n)]);
            made["volumeMounts"] = json!([
                {"name": "own", "mountPath": "/own"},
                {"name": "flags", "mountPath": "/flags", "readOnly": true},
            ]);
            made
        });
        let mut made = pod(name, flagged.collect());
        made["spec"]["volumes"] = json!([
            {"name": "own", "emptyDir": {}},
            {"name": "flags", "hostPath": {"path": flags}},
        ]);
        world.create(&made)?;
        world.wait_running(name)?;
        Ok(Self { pod: name.to_owned(), flags })
    }

    /// Has one of them end, and waits until it runs again.
    pub(crate) fn raise(&self, world: &World, container: &str) -> Result<()> {
        std::fs::write(self.flags.join(container), "")?;
        world.wait_pod(&self.pod, "second run", |pod| {
            let statuses = pod["status"]["containerStatuses"].as_array();
            let is_it = |s: &&serde_json::Value| s["name"] == container;
            Ok(statuses.and_then(|all| all.iter().find(is_it)).is_some_and(|status| {
                status["restartCount"] == 1 && status["state"]["running"].is_object()
            }))
        })?;
        Ok(())
    }
}

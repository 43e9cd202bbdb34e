//! The kubelet's folders and sockets.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use crate::doctor::catalogue::Check;
use crate::doctor::finding::Finding;
use crate::doctor::places::Places;

/// What of the kubelet is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The device plugins' folder.
    pub(crate) folder: bool,
    /// The socket at which plugins register.
    pub(crate) registration: bool,
    /// The socket that tells which pod holds what.
    pub(crate) pod_resources: bool,
}

/// Looks.
pub(crate) fn read(places: &Places) -> Facts {
    let is_socket = |path: &Path| {
        places.tree.metadata(path).ok().flatten().is_some_and(|m| m.file_type().is_socket())
    };
    Facts {
        folder: places.tree.find(&places.kubelet.device_plugins).is_dir(),
        registration: is_socket(&places.kubelet.registration_socket()),
        pod_resources: is_socket(&places.kubelet.pod_resources_socket),
    }
}

/// What of it the agent would miss.
pub(crate) fn judge(facts: &Facts, places: &Places) -> Vec<Finding> {
    if !facts.folder {
        let what = "the kubelet's folder for device plugins is not there: no kubelet runs or ever ran here";
        let remedy = "start the kubelet; this folder is /var/lib/kubelet/device-plugins whatever its --root-dir is";
        let finding = Finding::new(Check::NoKubeletFolder, what).so(remedy);
        return vec![finding.at(places.kubelet.device_plugins.display())];
    }
    if !facts.registration {
        let what = "the kubelet does not run: it has no socket for device plugins";
        let finding = Finding::new(Check::NoKubelet, what).so("start it; the agent waits for it");
        return vec![finding.at(places.kubelet.registration_socket().display())];
    }
    if !facts.pod_resources {
        let what = "the kubelet's PodResources socket is not there: the agent cannot tell when a pod is gone";
        let remedy = "name it with --pod-resources-socket: the kubelet's --root-dir moves it";
        let finding = Finding::new(Check::NoPodResources, what).so(remedy);
        return vec![finding.at(places.kubelet.pod_resources_socket.display())];
    }
    Vec::new()
}

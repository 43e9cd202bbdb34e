//! The programs that a node is made of, and where they are found.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

/// Those that `cluster build` makes: name, tool module, package.
pub(crate) const BUILT: [Built; 9] = [
    Built::new("containerd", "containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
    Built::new(
        "containerd-shim-runc-v2",
        "containerd",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    ),
    Built::new("ctr", "containerd", "github.com/containerd/containerd/v2/cmd/ctr"),
    Built::new("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    Built::new("kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    Built::new(
        "kube-controller-manager",
        "kubernetes",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
    ),
    Built::new("kube-scheduler", "kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"),
    Built::new("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
    Built::new("kubelet", "kubernetes", "k8s.io/kubernetes/cmd/kubelet"),
];

/// Those of the machine: path candidates and the Debian package that has them.
const FROM_DEBIAN: [(&str, &str); 12] = [
    ("runc", "runc"),
    ("busybox", "busybox-static"),
    ("ip", "iproute2"),
    ("openssl", "openssl"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("mknod", "coreutils"),
    ("tar", "tar"),
    ("sha256sum", "coreutils"),
    ("sysctl", "procps"),
    ("hostname", "hostname"),
];

/// Where Debian puts the CNI plugins.
pub(crate) const CNI_DIR: &str = "/usr/lib/cni";

/// Programs that a variable may name one by one, whatever else lies in the folder.
const NAMED: [(&str, &str); 3] =
    [("CONTAINERD", "containerd"), ("KUBELET", "kubelet"), ("RUNC", "runc")];

/// One program that is made from a Go module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Built {
    pub(crate) name: &'static str,
    /// The folder below `xtask/cluster/tools`.
    pub(crate) module: &'static str,
    pub(crate) package: &'static str,
}

impl Built {
    const fn new(name: &'static str, module: &'static str, package: &'static str) -> Self {
        Self { name, module, package }
    }
}

/// Where each program lies.
#[derive(Debug, Clone)]
pub(crate) struct Assets {
    dir: PathBuf,
    /// Those that variables name.
    named: BTreeMap<&'static str, PathBuf>,
    runc: PathBuf,
    busybox: PathBuf,
}

impl Assets {
    /// Looks for all of them.
    ///
    /// # Errors
    /// Everything that is missing, and what to do about it.
    pub(crate) fn find(out: Option<&Path>) -> Result<Self> {
        let named = named(|variable| std::env::var_os(variable))?;
        let mut why = Vec::new();
        let lacks = |dir: &Path| {
            let mut lacks = missing(dir);
            lacks.retain(|program| !named.contains_key(program));
            lacks
        };
        let dir = places(out).into_iter().find(|dir| lacks(dir).is_empty());
        if dir.is_none() {
            why.extend(
                places(out)
                    .iter()
                    .map(|dir| format!("{} lacks {}", dir.display(), lacks(dir).join(", "))),
            );
            why.push(
                "make them with `cargo xtask cluster build`, or set KUBEBUILDER_ASSETS".into(),
            );
        }
        let absent: Vec<&str> = FROM_DEBIAN
            .iter()
            .filter(|(program, _)| !named.contains_key(program) && on_path(program).is_none())
            .map(|(_, package)| *package)
            .chain(
                (!Path::new(CNI_DIR).join("bridge").exists())
                    .then_some("containernetworking-plugins"),
            )
            .collect();
        if !absent.is_empty() {
            why.push(format!("install {} (Debian's names)", absent.join(" ")));
        }
        let runc = named.get("runc").cloned().or_else(|| on_path("runc"));
        match (dir, runc, on_path("busybox")) {
            (Some(dir), Some(runc), Some(busybox)) if why.is_empty() => {
                Ok(Self { dir, named, runc, busybox })
            }
            _ => bail!("programs are missing: {}", why.join("; ")),
        }
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.named.get(name).cloned().unwrap_or_else(|| self.dir.join(name))
    }

    /// The folder with all that were built.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn runc(&self) -> &Path {
        &self.runc
    }

    pub(crate) fn busybox(&self) -> &Path {
        &self.busybox
    }
}

/// Where built programs go: outside the tree, since they are half a gigabyte.
pub(crate) fn default_out() -> PathBuf {
    PathBuf::from("/var/cache/vgpu-cluster/bin")
}

/// Which of the built programs a folder lacks.
pub(crate) fn missing(dir: &Path) -> Vec<&'static str> {
    BUILT.iter().map(|b| b.name).filter(|name| !dir.join(name).is_file()).collect()
}

fn places(out: Option<&Path>) -> Vec<PathBuf> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").filter(|dir| !dir.is_empty());
    let out = out.map_or_else(default_out, Path::to_path_buf);
    assets.into_iter().map(PathBuf::from).chain([out]).collect()
}

/// The programs that variables name; an empty one names none.
fn named(variable: impl Fn(&str) -> Option<OsString>) -> Result<BTreeMap<&'static str, PathBuf>> {
    let mut named = BTreeMap::new();
    for (name, program) in NAMED {
        let Some(given) = variable(name).filter(|given| !given.is_empty()) else { continue };
        let path = std::path::absolute(&given).with_context(|| format!("{name}={given:?}"))?;
        ensure!(
            path.is_file(),
            "{name} names {}, which is no file; name a {program} or unset it",
            path.display()
        );
        named.insert(program, path);
    }
    Ok(named)
}

/// Where a program of the machine lies; system folders too, which a user's PATH may lack.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    let mut dirs = std::env::split_paths(&path).chain(more);
    dirs.find_map(|dir| Some(dir.join(program)).filter(|file| file.is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_folder_lacks_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(missing(dir.path()).len(), BUILT.len());
        std::fs::write(dir.path().join("etcd"), "").expect("writes");
        assert!(!missing(dir.path()).contains(&"etcd"));
    }

    #[test]
    fn variables_name_single_programs() {
        let dir = tempfile::tempdir().expect("a folder");
        let kubelet = dir.path().join("my-kubelet");
        std::fs::write(&kubelet, "").expect("writes");
        let set = |wanted: &'static str, value: PathBuf| {
            move |name: &str| (name == wanted).then(|| value.clone().into_os_string())
        };
        let found = named(set("KUBELET", kubelet.clone())).expect("it is a file");
        assert_eq!(found, BTreeMap::from([("kubelet", kubelet)]));
        assert_eq!(named(set("RUNC", PathBuf::new())).expect("none is named"), BTreeMap::new());
        let error = named(set("CONTAINERD", dir.path().join("none"))).expect_err("no file");
        assert!(error.to_string().contains("CONTAINERD names"), "{error}");
    }

    #[test]
    fn every_tool_module_names_its_programs() {
        for built in BUILT {
            let file = crate::workspace_root()
                .join("xtask/cluster/tools")
                .join(built.module)
                .join("go.mod");
            let text = std::fs::read_to_string(&file).expect("a tool module");
            assert!(
                text.contains(built.package),
                "{} is no tool of {}",
                built.package,
                built.module
            );
        }
    }
}

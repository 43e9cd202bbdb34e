//! The node's files: keys, tokens, and the components' configurations.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::cluster::assets::{Assets, CNI_DIR};
use crate::cluster::cgroups;
use crate::cluster::image::IMAGE;
use crate::cluster::process::output;

/// The node's name in the cluster.
pub(crate) const NODE: &str = "vgpu-node";
/// Its address, at one end of a pair that does not leave the box.
pub(crate) const ADDRESS: &str = "172.31.255.1";
/// Where pods find the apiserver.
pub(crate) const SERVICE: &str = "10.96.0.1";

const CONTAINERD: &str = include_str!("../../cluster/node/containerd.toml");
const KUBELET: &str = include_str!("../../cluster/node/kubelet.yaml");
const CNI: &str = include_str!("../../cluster/node/cni.conflist");

/// Who speaks to the apiserver: file name, user, groups.
const USERS: [(&str, &str, &str); 4] = [
    ("admin", "admin", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("kubelet", "system:node:vgpu-node", "system:nodes"),
    ("scheduler", "system:kube-scheduler", ""),
];

/// Where things lie below the node's folder.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) dir: PathBuf,
}

impl Layout {
    /// The node's group in every cgroup hierarchy.
    pub(crate) fn cgroup(&self) -> String {
        cgroups::name(&self.dir)
    }

    pub(crate) fn etc(&self, name: &str) -> PathBuf {
        self.dir.join("etc").join(name)
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.dir.join("log").join(format!("{name}.log"))
    }

    pub(crate) fn pid(&self, name: &str) -> PathBuf {
        self.dir.join("pid").join(name)
    }

    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.etc(&format!("{user}.kubeconfig"))
    }

    /// `kubectl proxy` listens here: plain HTTP, and reached from outside the box.
    pub(crate) fn api_socket(&self) -> PathBuf {
        self.dir.join("api.sock")
    }

    /// What is `/var/lib/kubelet` inside.
    pub(crate) fn kubelet_dir(&self) -> PathBuf {
        self.dir.join("kubelet")
    }

    /// The apiserver's own certificate, and who signed it.
    pub(crate) fn certificates(&self) -> PathBuf {
        self.etc("apiserver")
    }
}

/// Writes everything that the components read.
pub(crate) fn write(layout: &Layout, assets: &Assets) -> Result<()> {
    for dir in ["etc/cni", "etc/apiserver", "log", "pid", "tmp", "volume-plugins"] {
        let dir = layout.dir.join(dir);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let filled = |template: &str| {
        template
            .replace("@DIR@", &layout.dir.display().to_string())
            .replace("@CNI@", CNI_DIR)
            .replace("@IMAGE@", IMAGE)
            .replace("@CGROUP@", &layout.cgroup())
            .replace("@RUNC@", &assets.runc().display().to_string())
    };
    put(&layout.etc("containerd.toml"), &filled(CONTAINERD))?;
    put(&layout.etc("kubelet.yaml"), &filled(KUBELET))?;
    put(&layout.etc("cni/10-pods.conflist"), CNI)?;
    // No name server is reached from the box.
    put(&layout.etc("resolv.conf"), "nameserver 127.0.0.1\n")?;
    keys(layout)?;
    let mut tokens = String::new();
    for (name, user, groups) in USERS {
        let token = random()?;
        tokens.push_str(&format!("{token},{user},{name},\"{groups}\"\n"));
        put(&layout.kubeconfig(name), &kubeconfig(layout, &token)?)?;
    }
    put(&layout.etc("tokens.csv"), &tokens)
}

/// The key that signs service accounts' tokens.
fn keys(layout: &Layout) -> Result<()> {
    let key = layout.etc("service-accounts.key");
    let key = key.display().to_string();
    output(
        "openssl",
        [
            "genpkey",
            "-quiet",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-out",
            &key,
        ],
    )
    .or_else(|_| {
        // OpenSSL 1.1 and early 3.0 have no -quiet.
        output(
            "openssl",
            ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &key],
        )
    })?;
    let public = layout.etc("service-accounts.pub").display().to_string();
    output("openssl", ["pkey", "-in", &key, "-pubout", "-out", &public])?;
    Ok(())
}

/// JSON is YAML.
fn kubeconfig(layout: &Layout, token: &str) -> Result<String> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "node",
        "contexts": [{"name": "node", "context": {"cluster": "node", "user": "own"}}],
        "users": [{"name": "own", "user": {"token": token}}],
        "clusters": [{"name": "node", "cluster": {
            "server": format!("https://{ADDRESS}:443"),
            // Holds the signer too.
            "certificate-authority": layout.certificates().join("apiserver.crt"),
        }}],
    });
    Ok(serde_json::to_string_pretty(&config)?)
}

fn random() -> Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// Keys and tokens are for root alone, and so the whole folder is.
fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

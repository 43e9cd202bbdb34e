//! Starting a whole node, and ending it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::cluster::api::Api;
use crate::cluster::args::Args;
use crate::cluster::assets::Assets;
use crate::cluster::config::{self, ADDRESS, Layout, NODE};
use crate::cluster::image::{self, Contents, IMAGE};
use crate::cluster::node::Node;
use crate::cluster::process::{retry, wait_for};

/// How long a component may take to answer; many times of what it takes on two busy cores.
const PATIENCE: Duration = Duration::from_secs(180);

const REBOOT: &str = include_str!("../../cluster/node/reboot.sh");

/// A node whose pods can run.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub(crate) node: Node,
    pub(crate) api: Api,
    pub(crate) assets: Assets,
}

impl Cluster {
    /// Starts everything and waits until pods can be made.
    pub(crate) fn start(dir: &Path, assets: Assets) -> Result<Self> {
        let layout = Layout { dir: dir.to_path_buf() };
        let node = Node::make(layout.clone(), &assets)?;
        config::write(&layout, &assets)?;
        let api = Api::new(layout.api_socket());
        let cluster = Self { node, api, assets };
        cluster.components().map_err(|error| {
            let end = match Node::end(dir) {
                Ok(_) => String::new(),
                Err(e) => format!("; and it could not be ended: {e:#}"),
            };
            error.context(format!("the node did not come up{end}"))
        })?;
        Ok(cluster)
    }

    /// Starts the kubelet; it is the one that scenarios end and start again.
    pub(crate) fn start_kubelet(&self) -> Result<()> {
        self.start_kubelet_with(&[])
    }

    /// The same with more flags.
    pub(crate) fn start_kubelet_with(&self, flags: &[&str]) -> Result<()> {
        let layout = &self.node.layout;
        let mut args = vec![
            flag("--config", layout.etc("kubelet.yaml")),
            flag("--kubeconfig", layout.kubeconfig("kubelet")),
            format!("--hostname-override={NODE}"),
            format!("--node-ip={ADDRESS}"),
        ];
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self.node.spawn("kubelet", &self.assets.program("kubelet"), args)
    }

    /// Ends pods, runtime, kubelet and agent as a loss of power does; the runtime runs again then, nothing else.
    pub(crate) fn reboot(&self) -> Result<()> {
        let dir = &self.node.layout.dir;
        let script = dir.join("reboot.sh");
        std::fs::write(&script, REBOOT)?;
        let cgroup = PathBuf::from(self.node.layout.cgroup());
        self.node.output("/bin/sh".as_ref(), [&script, dir, &cgroup])?;
        self.start_containerd()?;
        self.wait_containerd()
    }

    fn components(&self) -> Result<()> {
        self.start_etcd()?;
        self.start_containerd()?;
        self.start_apiserver()?;
        self.import(IMAGE, &[])?;
        self.wait_answer("kube-apiserver", "/readyz")?;
        self.start_controllers()?;
        self.start_kubelet()?;
        self.wait_ready()?;
        wait_for("default service account", PATIENCE, || {
            let path = "/api/v1/namespaces/default/serviceaccounts/default";
            Ok(self.api.find(path).unwrap_or_default())
        })?;
        Ok(())
    }

    fn start_etcd(&self) -> Result<()> {
        let data = flag("--data-dir", self.node.layout.dir.join("etcd"));
        let peers = "--listen-peer-urls=http://127.0.0.1:2380";
        // The node lives for minutes: what a crash of the machine would lose is of no use to anybody.
        self.spawn("etcd", [data.as_str(), peers, "--unsafe-no-fsync", "--log-level=warn"])
    }

    fn start_containerd(&self) -> Result<()> {
        let config = self.node.layout.etc("containerd.toml");
        self.spawn("containerd", ["--config".to_owned(), config.display().to_string()])
    }

    fn start_apiserver(&self) -> Result<()> {
        let layout = &self.node.layout;
        self.spawn(
            "kube-apiserver",
            [
                "--etcd-servers=http://127.0.0.1:2379".to_owned(),
                "--bind-address=0.0.0.0".to_owned(),
                "--secure-port=443".to_owned(),
                format!("--advertise-address={ADDRESS}"),
                "--service-cluster-ip-range=10.96.0.0/24".to_owned(),
                "--authorization-mode=Node,RBAC".to_owned(),
                "--enable-admission-plugins=NodeRestriction".to_owned(),
                "--allow-privileged=true".to_owned(),
                // The node's name is known to no name server.
                "--kubelet-preferred-address-types=InternalIP".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                flag("--service-account-key-file", layout.etc("service-accounts.pub")),
                flag("--service-account-signing-key-file", layout.etc("service-accounts.key")),
                flag("--token-auth-file", layout.etc("tokens.csv")),
                flag("--cert-dir", layout.certificates()),
            ],
        )?;
        // It makes its certificate first; without it nobody else can trust it.
        let certificate = layout.certificates().join("apiserver.crt");
        wait_for("certificate of kube-apiserver", PATIENCE, || {
            self.must_run("kube-apiserver")?;
            Ok(certificate.exists().then_some(()))
        })?;
        self.node.spawn(
            "kubectl-proxy",
            &self.assets.program("kubectl"),
            [
                flag("--kubeconfig", layout.kubeconfig("admin")),
                "proxy".to_owned(),
                flag("--unix-socket", layout.api_socket()),
            ],
        )
    }

    fn start_controllers(&self) -> Result<()> {
        let layout = &self.node.layout;
        self.spawn(
            "kube-controller-manager",
            [
                flag("--kubeconfig", layout.kubeconfig("controller-manager")),
                flag("--service-account-private-key-file", layout.etc("service-accounts.key")),
                flag("--root-ca-file", layout.certificates().join("apiserver.crt")),
                "--use-service-account-credentials=true".to_owned(),
                "--leader-elect=false".to_owned(),
                "--secure-port=0".to_owned(),
            ],
        )?;
        self.spawn(
            "kube-scheduler",
            [
                flag("--kubeconfig", layout.kubeconfig("scheduler")),
                "--leader-elect=false".to_owned(),
                "--secure-port=0".to_owned(),
            ],
        )
    }

    /// Makes an image and gives it to the runtime.
    pub(crate) fn import(&self, name: &str, programs: &[&Path]) -> Result<()> {
        let scratch = self.node.layout.dir.join("image");
        let archive = self.node.layout.dir.join("image.tar");
        std::fs::create_dir_all(&scratch)?;
        let contents = Contents { name, busybox: self.assets.busybox(), programs };
        image::write(&contents, &archive, &scratch)?;
        std::fs::remove_dir_all(&scratch)?;
        self.wait_containerd()?;
        let ctr = self.assets.program("ctr");
        let args = ["-n", "k8s.io", "images", "import"].map(PathBuf::from);
        // It answers only some time after the socket is there.
        retry(PATIENCE, || self.node.output(&ctr, args.iter().chain([&archive])))?;
        Ok(())
    }

    fn wait_containerd(&self) -> Result<()> {
        let socket = self.node.inside("/run/containerd/containerd.sock");
        wait_for("socket of containerd", PATIENCE, || {
            self.must_run("containerd")?;
            Ok(socket.exists().then_some(()))
        })
    }

    fn wait_answer(&self, name: &str, path: &str) -> Result<()> {
        wait_for(&format!("answer of {name}"), PATIENCE, || {
            self.must_run(name)?;
            Ok(self.api.text(path).is_ok_and(|text| text == "ok").then_some(()))
        })
    }

    fn wait_ready(&self) -> Result<()> {
        wait_for("ready node", PATIENCE, || {
            self.must_run("kubelet")?;
            let path = format!("/api/v1/nodes/{NODE}");
            let Some(node) = self.api.find(&path).unwrap_or_default() else {
                return Ok(None);
            };
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
            // The controller takes the taint away a moment after the kubelet has said so.
            Ok((ready && node["spec"]["taints"].is_null()).then_some(()))
        })
    }

    fn must_run(&self, name: &str) -> Result<()> {
        ensure!(self.node.runs(name), "{name} ended:\n{}", self.node.log_tail(name));
        Ok(())
    }

    fn spawn<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(
        &self,
        name: &str,
        args: I,
    ) -> Result<()> {
        self.node.spawn(name, &self.assets.program(name), args)
    }
}

/// `cargo xtask cluster up`.
pub(crate) fn up(args: &Args) -> Result<()> {
    let assets = Assets::find(args.out.as_deref())?;
    let began = Instant::now();
    let cluster = Cluster::start(&args.dir, assets)?;
    let layout = &cluster.node.layout;
    let kubectl = cluster.assets.program("kubectl");
    crate::say(&format!("node {NODE} is ready after {:.1} s", began.elapsed().as_secs_f64()));
    crate::say(&format!("  API, plain HTTP   {}", layout.api_socket().display()));
    crate::say(&format!(
        "  kubeconfig        {} (its address is inside the box)",
        layout.kubeconfig("admin").display()
    ));
    crate::say(&format!("  kubelet's folder  {}", layout.kubelet_dir().display()));
    crate::say(&format!("  CDI folder        {}", cluster.node.inside("/run/cdi").display()));
    crate::say(&format!("  logs              {}", layout.dir.join("log").display()));
    crate::say(&format!(
        "  a shell inside    nsenter --mount --net --uts --pid --target $(cut -d' ' -f1 {})",
        layout.dir.join("init.pid").display()
    ));
    crate::say(&format!(
        "  kubectl inside    {} --kubeconfig {} get pods",
        kubectl.display(),
        layout.kubeconfig("admin").display()
    ));
    Ok(())
}

/// `cargo xtask cluster down`.
pub(crate) fn down(args: &Args) -> Result<()> {
    let began = Instant::now();
    let was_there = Node::end(&args.dir).context("the node could not be ended")?;
    let seconds = began.elapsed().as_secs_f64();
    crate::say(&match was_there {
        true => format!("the node in {} is gone after {seconds:.1} s", args.dir.display()),
        false => format!("no node runs in {}", args.dir.display()),
    });
    Ok(())
}

fn flag(name: &str, path: impl AsRef<Path>) -> String {
    format!("{name}={}", path.as_ref().display())
}

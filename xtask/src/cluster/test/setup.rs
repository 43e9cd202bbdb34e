//! How the agent is started, and what it is told.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::cluster::config::Layout;
use crate::cluster::process::wait_for;
use crate::cluster::test::world::{PATIENCE, World};

/// How the agent is started, and where it keeps what.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// All that `vgpu-plugin` is told.
    args: Vec<String>,
    env: Vec<(String, String)>,
    /// Its configuration. In a folder of its own: an agent in a pod has it mounted.
    config: PathBuf,
    /// Its state folder, as it is reached from outside the box.
    pub(crate) state: PathBuf,
}

/// How often the agent looks at cards and kubelet.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Looks {
    /// As people have it who say nothing of it.
    AsShipped,
    /// So that scenarios wait less for it.
    EachSecond,
}

impl Setup {
    /// The mock, on the scripted machine.
    pub(crate) fn of_the_mock(layout: &Layout) -> Self {
        let config = layout.etc("vgpu.yaml");
        let machine = layout.dir.join("machine.json");
        let mut args = common(layout, &config);
        args.extend(["--backend=mock".to_owned(), "--machine=mixed".to_owned()]);
        args.push(format!("--machine-state={}", machine.display()));
        // Its usual state folder is there in the box.
        Self { args, env: Vec::new(), config, state: layout.dir.join("vgpu") }
    }

    /// Another backend, whose flags and variables are these, with a state and a configuration of its own below `dir`.
    pub(crate) fn of_another(
        layout: &Layout,
        dir: &Path,
        flags: &[String],
        env: &[(String, String)],
    ) -> Self {
        let (config, state) = (dir.join("vgpu.yaml"), dir.join("state"));
        let mut args = common(layout, &config);
        args.push(format!("--state-dir={}", state.display()));
        let args = told(args, flags);
        Self { args, env: env.to_vec(), config, state }
    }
}

fn common(layout: &Layout, config: &Path) -> Vec<String> {
    vec![
        "run".to_owned(),
        format!("--config={}", config.display()),
        format!("--hook-dir={}", layout.dir.join("hooks").display()),
        "--cdi-dir=/run/cdi".to_owned(),
        "--metrics-address=127.0.0.1:9400".to_owned(),
    ]
}

/// Arguments with these in the place of those of the same name: a flag may be given once.
fn told(mut args: Vec<String>, flags: &[String]) -> Vec<String> {
    let name = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
    args.retain(|arg| !flags.iter().any(|flag| name(flag) == name(arg)));
    args.extend_from_slice(flags);
    args
}

impl World {
    /// Starts the agent as a process of the node itself.
    pub(crate) fn start_agent(&self) -> Result<()> {
        self.start_agent_with(&[])
    }

    /// The same with more flags; a later one counts.
    pub(crate) fn start_agent_with(&self, flags: &[&str]) -> Result<()> {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let args = told(self.agent_args(), &flags);
        self.cluster.node.spawn_with("agent", self.agent(), args, &self.setup.env)
    }

    /// Writes the agent's configuration; a running agent takes it at SIGHUP.
    pub(crate) fn configure(&self, offers: &str) -> Result<()> {
        self.configured(Looks::EachSecond, offers)
    }

    /// Starts the agent anew, and waits until it serves what it did. When it looks at cards and kubelet it takes only at
    /// its start.
    pub(crate) fn restart_agent(&self, looks: Looks) -> Result<()> {
        self.cluster.node.signal("agent", "TERM")?;
        self.configured(looks, &self.offers()?)?;
        self.start_agent()?;
        self.wait_served()
    }

    fn configured(&self, looks: Looks, offers: &str) -> Result<()> {
        let poll = match looks {
            Looks::AsShipped => "",
            Looks::EachSecond => "poll: {hardwareSeconds: 1, kubeletSeconds: 1}\n",
        };
        let head = "apiVersion: vgpu.dev/v1alpha1\nkind: NodeConfig\n";
        let text = format!("{head}{poll}offers:\n{offers}");
        std::fs::write(&self.setup.config, text).context("cannot write the agent's configuration")
    }

    /// Has the agent read its configuration again, and waits for its word on it.
    pub(crate) fn reload(&self, offers: &str, word: &str) -> Result<()> {
        self.configure(offers)?;
        let before = self.agent_log()?.matches(word).count();
        self.cluster.node.signal("agent", "HUP")?;
        wait_for(&format!("{word:?} in the agent's log"), PATIENCE, || {
            Ok((self.agent_log()?.matches(word).count() > before).then_some(()))
        })
    }

    /// All that the agent said in this node's life.
    pub(crate) fn agent_log(&self) -> Result<String> {
        let file = self.cluster.node.layout.log("agent");
        // A log may be cut within a letter.
        let bytes =
            std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The agent's program.
    pub(crate) fn agent(&self) -> &Path {
        &self.programs.agent
    }

    /// How the agent is started, wherever it runs.
    pub(crate) fn agent_args(&self) -> Vec<String> {
        self.setup.args.clone()
    }
}

//! What a daemon holds: servers, defaults, namespaces, chunks. It dies with the daemon.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::chunks::Chunks;
use crate::scenario::{Client, Control, Scenario};

pub(crate) struct World {
    pub(crate) pipe: PathBuf,
    /// `CUDA_VISIBLE_DEVICES`, which names the card.
    pub(crate) card: String,
    /// In protocol 2.
    pub(crate) defaults: Limits,
    pub(crate) servers: Vec<Server>,
    pub(crate) chunks: Option<Chunks>,
}

/// What is in force; `None` limits nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Limits {
    pub(crate) memory_mib: Option<u64>,
    pub(crate) percent: Option<f64>,
}

/// A server process; in protocol 2 it has no name.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) limits: Limits,
    pub(crate) namespaces: BTreeMap<String, Namespace>,
    process: Child,
}

#[derive(Default)]
pub(crate) struct Namespace {
    pub(crate) limits: Limits,
    /// Held, so that the socket is one.
    _listener: Option<UnixListener>,
}

impl World {
    pub(crate) fn new(scenario: &Scenario, pipe: PathBuf, is_static: bool) -> Self {
        Self {
            pipe,
            card: env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default(),
            defaults: Limits::default(),
            servers: Vec::new(),
            chunks: is_static.then(|| Chunks::new(scenario.chunks, scenario.sms_per_chunk)),
        }
    }

    /// Whether a rule or client of the control file is about this daemon.
    pub(crate) fn is_card(&self, named: Option<&str>) -> bool {
        named.is_none_or(|card| card == self.card)
    }

    pub(crate) fn clients<'c>(&self, control: &'c Control) -> Vec<&'c Client> {
        control.clients.iter().filter(|c| self.is_card(c.card.as_deref())).collect()
    }

    pub(crate) fn start_server(&mut self, name: &str, uid: u32) -> Result<(), String> {
        let own = env::current_exe().map_err(|e| e.to_string())?;
        let process = Command::new(own)
            .arg("--server")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| e.to_string())?;
        let limits = self.defaults.clone();
        let namespaces = BTreeMap::new();
        self.servers.push(Server { name: name.into(), uid, limits, namespaces, process });
        Ok(())
    }

    pub(crate) fn namespace_folder(&self, server: &str, namespace: &str) -> PathBuf {
        self.pipe.join(server).join(namespace)
    }

    /// The folder and socket that a namespace's clients connect to.
    pub(crate) fn open_namespace(
        &self,
        server: &str,
        namespace: &str,
    ) -> Result<Namespace, String> {
        let folder = self.namespace_folder(server, namespace);
        let socket = folder.join("control");
        let said = |e: std::io::Error| format!("{}: {e}", socket.display());
        fs::create_dir_all(&folder).map_err(said)?;
        let _none = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).map_err(said)?;
        Ok(Namespace { limits: Limits::default(), _listener: Some(listener) })
    }

    /// Ends the servers and takes away what clients would connect to.
    pub(crate) fn end(&mut self) {
        for server in &mut self.servers {
            server.end();
        }
        let _none = fs::remove_file(self.pipe.join("control"));
        let _none = fs::remove_file(self.pipe.join("nvidia-cuda-mps-control.pid"));
    }
}

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn end(&mut self) {
        // It may have ended by itself.
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

impl Limits {
    /// As the program writes memory: whole GiB as G, else M.
    pub(crate) fn memory(&self) -> String {
        match self.memory_mib {
            None => "-".into(),
            Some(mib) if mib % 1024 == 0 => format!("{}G", mib / 1024),
            Some(mib) => format!("{mib}M"),
        }
    }
}

/// `512M`, `4G` or `1024K` in MiB.
pub(crate) fn mib(text: &str) -> Result<u64, String> {
    let number = |unit: char| text.strip_suffix(unit).and_then(|n| n.parse::<u64>().ok());
    let mib = match (number('K'), number('M'), number('G')) {
        (Some(k), _, _) => Some(k / 1024),
        (_, Some(m), _) => Some(m),
        (_, _, Some(g)) => g.checked_mul(1024),
        _ => None,
    };
    mib.filter(|mib| *mib > 0).ok_or(format!("Invalid memory limit {text}"))
}

/// A percentage from 1 to 100.
pub(crate) fn percent(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|p| *p > 0.0 && *p <= 100.0);
    value.ok_or(format!("Invalid active thread percentage {text}"))
}

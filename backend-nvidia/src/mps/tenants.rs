//! Whose process is whose. The control program knows pids; each container of a share has a file, put
//! there read-only by us, that names the share.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use vgpu_core::Result;

use crate::host::DriverTree;
use crate::mps::control::{SERVER, unexpected};
use crate::mps::{Mps, Running, process};

/// The file in a container; its first line is the part's id.
pub(crate) const SHARE_FILE: &str = "/etc/vgpu/mps/share";

/// `O_NONBLOCK` of Linux.
const NONBLOCK: i32 = 0o4000;

/// A process in the container of a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tenant {
    pub(crate) pid: u32,
    /// The part's id, as its container's file says.
    pub(crate) share: String,
    /// Ticks since boot.
    pub(crate) started: u64,
}

/// A client of a daemon, as the daemon tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) pid: u32,
    /// Where the daemon has namespaces.
    pub(crate) namespace: Option<String>,
}

impl Mps {
    /// The daemon's clients.
    pub(crate) fn clients(&self, running: &Running) -> Result<Vec<Client>> {
        let control = self.control(running)?;
        if running.has_namespaces() {
            let server = format!("--server={SERVER}");
            let args = ["client", "list", &server, "--format=csv,noheader"];
            let text = control.verb(&args)?;
            return text.lines().filter(|l| !l.trim().is_empty()).map(named).collect();
        }
        let mut clients = Vec::new();
        for server in self.servers(running)? {
            let command = format!("get_client_list {server}");
            let pids = pids(&command, &control.shell(&command)?)?;
            clients.extend(pids.into_iter().map(|pid| Client { pid, namespace: None }));
        }
        Ok(clients)
    }

    /// The pids of the daemon's servers.
    pub(crate) fn servers(&self, running: &Running) -> Result<Vec<u32>> {
        let control = self.control(running)?;
        if !running.has_namespaces() {
            const COMMAND: &str = "get_server_list";
            return pids(COMMAND, &control.shell(COMMAND)?);
        }
        Ok(self.server_rows(running)?.into_iter().filter_map(|(pid, _)| pid).collect())
    }

    /// Whether a client's fault has brought a server down: it takes no new clients until all are gone.
    pub(crate) fn is_in_fault(&self, running: &Running) -> Result<bool> {
        let is_fault = |status: &str| status.to_uppercase().contains("FAULT");
        if running.has_namespaces() {
            return Ok(self.server_rows(running)?.iter().any(|(_, status)| is_fault(status)));
        }
        let control = self.control(running)?;
        for server in self.servers(running)? {
            if is_fault(&control.shell(&format!("get_server_status {server}"))?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Pid and status of each named server.
    fn server_rows(&self, running: &Running) -> Result<Vec<(Option<u32>, String)>> {
        let text = self.control(running)?.verb(&["server", "list", "--format=csv,noheader"])?;
        let row = |line: &str| {
            let mut columns = line.split(',').map(str::trim);
            let pid = columns.nth(2).and_then(|pid| pid.parse().ok());
            (pid, columns.next().unwrap_or_default().to_owned())
        };
        Ok(text.lines().filter(|line| !line.trim().is_empty()).map(row).collect())
    }

    /// How many of a daemon's clients are of each share, by the part's id.
    pub(crate) fn clients_by_share(&self, clients: &[Client]) -> BTreeMap<String, u32> {
        let mut by_share = BTreeMap::new();
        for share in clients.iter().filter_map(|client| share_of(&self.tree, client.pid)) {
            *by_share.entry(share).or_insert(0) += 1;
        }
        by_share
    }

    /// Every process in a container of a share of any card.
    pub(crate) fn tenants(&self) -> Vec<Tenant> {
        let proc = self.tree.host.read_at(Path::new("/proc"));
        let Ok(entries) = fs::read_dir(&proc) else { return Vec::new() };
        let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let mut tenants: Vec<Tenant> = pids
            .filter_map(|pid| {
                let share = share_of(&self.tree, pid)?;
                let started = process::start_time(&proc, pid)?;
                Some(Tenant { pid, share, started })
            })
            .collect();
        tenants.sort_by_key(|tenant| tenant.pid);
        tenants
    }
}

/// The part whose container a process is in.
fn share_of(tree: &DriverTree, pid: u32) -> Option<String> {
    let root = tree.host.read_at(Path::new("/proc")).join(pid.to_string()).join("root");
    let path = root.join(SHARE_FILE.trim_start_matches('/'));
    // What lies there is the tenant's wherever we mounted nothing: only a plain file is read, little of
    // it, and never waited for. A file that lies makes its own container ail, and frees nothing.
    fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file)?;
    let file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(&path).ok()?;
    let mut text = String::new();
    file.take(512).read_to_string(&mut text).ok()?;
    text.lines().next().map(str::to_owned)
}

fn pids(command: &str, text: &str) -> Result<Vec<u32>> {
    text.split_whitespace()
        .map(|word| word.parse().map_err(|_other| unexpected(command, text)))
        .collect()
}

/// `pid,server,device,namespace,command`, of which the last may hold commas.
fn named(line: &str) -> Result<Client> {
    let columns: Vec<&str> = line.splitn(5, ',').map(str::trim).collect();
    if let [pid, _, _, namespace, _] = columns.as_slice()
        && let Ok(pid) = pid.parse()
    {
        return Ok(Client { pid, namespace: Some((*namespace).to_owned()) });
    }
    Err(unexpected("client list", line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_says_of_clients() {
        let client = named("51087,vgpu,0,n3,python eval.py, --fast").expect("a client");
        assert_eq!(client, Client { pid: 51087, namespace: Some("n3".into()) });
        assert!(named("Server not found").is_err());
        assert_eq!(pids("get_server_list", "1\n22\n").expect("pids"), [1, 22]);
        assert!(pids("get_server_list", "Server 3 not found").is_err());
    }
}

//! Other device plugins and DRA drivers for the same cards.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use vgpu_kubelet_plugin::Checkpoint;

use crate::backends::Name;
use crate::doctor::catalogue::Check;
use crate::doctor::finding::{Finding, Topic};
use crate::doctor::owners::{Owner, of_domain, of_socket};
use crate::doctor::places::Places;
use crate::doctor::reader::Reader;

/// What the kubelet's folders tell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// Sockets in the device plugins' folder, without the kubelet's.
    pub(crate) sockets: Vec<Socket>,
    /// Resources of the kubelet's checkpoint.
    pub(crate) resources: BTreeMap<String, Resource>,
    /// The checkpoint.
    pub(crate) checkpoint: PathBuf,
    /// Folders of DRA drivers.
    pub(crate) drivers: Vec<PathBuf>,
}

/// A device plugin's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    pub(crate) listening: Listening,
}

/// Whether somebody is behind a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listening {
    No,
    Unknown,
    Yes,
}

/// A resource that the kubelet knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resource {
    /// Devices that a plugin told.
    pub(crate) devices: usize,
    /// Pods, by UID, that hold some.
    pub(crate) pods: BTreeSet<String>,
    /// Whether allocations of it have our CDI names.
    pub(crate) ours: bool,
}

/// Reads the kubelet's folders.
pub(crate) fn read(reader: &mut Reader<'_>, places: &Places) -> Facts {
    let folder = &places.kubelet.device_plugins;
    let mut facts = Facts { checkpoint: places.kubelet.checkpoint(), ..Facts::default() };
    for path in reader.paths(folder) {
        let Ok(Some(metadata)) = places.tree.metadata(&path) else { continue };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if metadata.file_type().is_socket() && name != "kubelet.sock" {
            let listening = listening(&places.tree.find(&path));
            facts.sockets.push(Socket { path, name, listening });
        }
    }
    let checkpoint = places.tree.find(&facts.checkpoint);
    let read = Checkpoint::read(&checkpoint).map_err(|error| told(&error));
    if let Some(Some(checkpoint)) = reader.made(&facts.checkpoint, read) {
        facts.resources = resources(checkpoint);
    }
    for path in reader.paths(&places.kubelet_dir.join("plugins")) {
        // CSI drivers and the kubelet's own folders lie here too; a DRA driver's folder is named after it.
        let has_socket = reader.paths(&path).iter().any(|p| {
            places.tree.metadata(p).ok().flatten().is_some_and(|m| m.file_type().is_socket())
        });
        if has_socket {
            facts.drivers.push(path);
        }
    }
    facts
}

/// Asks a socket whether somebody listens; the connection is dropped at once.
fn listening(path: &Path) -> Listening {
    match UnixStream::connect(path) {
        Ok(_) => Listening::Yes,
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Listening::No,
        Err(_) => Listening::Unknown,
    }
}

fn resources(checkpoint: Checkpoint) -> BTreeMap<String, Resource> {
    let mut resources: BTreeMap<String, Resource> = BTreeMap::new();
    for (name, ids) in checkpoint.registered {
        resources.entry(name).or_default().devices = ids.len();
    }
    let prefix = format!("{}=", vgpu_plugin::agent::CDI_KIND);
    for entry in checkpoint.entries {
        let resource = resources.entry(entry.resource).or_default();
        resource.ours |= entry.cdi_devices.iter().any(|name| name.starts_with(&prefix));
        resource.pods.insert(entry.pod_uid);
    }
    resources
}

/// An error with its cause.
fn told(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Whether two would serve the same cards. `ours` are resources that the agent says it serves.
pub(crate) fn judge(facts: &Facts, places: &Places, ours: &BTreeSet<String>) -> Vec<Finding> {
    let strangers = facts.sockets.iter().filter(|s| !is_ours(&s.name));
    let mut found: Vec<Finding> = strangers.map(|socket| of_stranger(socket, places)).collect();
    for (name, resource) in &facts.resources {
        if !resource.ours && !ours.contains(name) {
            found.extend(of_resource(name, resource, facts, places));
        }
    }
    for folder in &facts.drivers {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        if let Owner::Vendor(vendor) = of_domain(&name)
            && places.serves(vendor)
        {
            let what = format!("the DRA driver {name} hands out {vendor} cards too");
            let remedy = "serve each card by one of the two: give the driver other nodes, or leave this vendor out of vgpu";
            found.push(Finding::new(Check::DraDriver, what).at(folder.display()).so(remedy));
        }
    }
    if found.is_empty() {
        let what = "no other device plugin or DRA driver serves the same cards";
        found.push(Finding::new(Check::Fine(Topic::Plugins), what));
    }
    found
}

/// Whether a socket has the name that the agent gives: `vgpu.<resource>-<hash>.<nonce>.sock`.
pub(crate) fn is_ours(name: &str) -> bool {
    nonce(name).is_some()
}

/// What tells the processes apart in the name of a socket of ours.
pub(crate) fn nonce(name: &str) -> Option<&str> {
    let (_resource, nonce) = name.strip_prefix("vgpu.")?.strip_suffix(".sock")?.rsplit_once('.')?;
    (nonce.len() == 8 && nonce.bytes().all(|b| b.is_ascii_hexdigit())).then_some(nonce)
}

fn of_stranger(socket: &Socket, places: &Places) -> Finding {
    let name = &socket.name;
    let owner = of_socket(name);
    let found = match (owner, socket.listening) {
        (_, Listening::No) => {
            let what = format!("{name} was left by a device plugin that has ended");
            return Finding::new(Check::DeadSocket, what).at(socket.path.display());
        }
        (Owner::Vendor(vendor), _) if places.serves(vendor) => {
            let what = format!("another device plugin serves {vendor} cards");
            Finding::new(Check::PluginSocket, what).so(one_path(vendor))
        }
        (Owner::Amd, _) if places.serves(Name::Hygon) => amd("AMD's device plugin"),
        _ => Finding::new(
            Check::OtherPlugin,
            format!(
                "another device plugin is there; it serves none of vgpu's vendors by its name ({name})"
            ),
        ),
    };
    found.at(socket.path.display())
}

fn of_resource(name: &str, resource: &Resource, facts: &Facts, places: &Places) -> Vec<Finding> {
    let at = facts.checkpoint.display();
    let pods = resource.pods.len();
    match of_domain(name) {
        Owner::Vendor(vendor) if places.serves(vendor) => {
            let mut found = Vec::new();
            if resource.devices > 0 {
                let what = format!(
                    "the kubelet has {} devices of {name} from another plugin",
                    resource.devices
                );
                found.push(Finding::new(Check::PluginResource, what).at(&at).so(one_path(vendor)));
            }
            if pods > 0 {
                let what = format!(
                    "{pods} pods hold {name} of another plugin, on cards that vgpu would give out again"
                );
                let remedy = "drain the node of them before vgpu serves these cards; entries of pods that are gone \
                              vanish at the kubelet's next allocation";
                found.push(Finding::new(Check::PluginHolds, what).at(&at).so(remedy));
            }
            found
        }
        Owner::Amd if places.serves(Name::Hygon) && resource.devices + pods > 0 => {
            vec![amd(&format!("the resource {name}")).at(&at)]
        }
        _ => Vec::new(),
    }
}

fn one_path(vendor: Name) -> String {
    format!(
        "serve each card by one of the two: remove the other plugin from this node, or leave {vendor} out of vgpu \
         (`--backend`)"
    )
}

fn amd(who: &str) -> Finding {
    let what =
        format!("{who} hands out what the kernel's /dev/kfd lists, Hygon's cards among them");
    Finding::new(Check::AmdPlugin, what)
        .so("keep it off this node, or see to it that it knows AMD's cards only")
}

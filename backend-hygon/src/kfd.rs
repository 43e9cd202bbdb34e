//! The compute driver's own list of cards and processes, `/sys/class/kfd/kfd`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vgpu_backend_kit::HostTree;

/// A card as KFD lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KfdNode {
    /// Its number in the topology, by which links name it.
    pub(crate) number: u32,
    /// What names it in per-process files.
    pub(crate) gpu_id: u32,
    /// PCI address.
    pub(crate) address: String,
    pub(crate) compute_units: Option<u32>,
    /// Bytes of its own memory.
    pub(crate) memory: Option<u64>,
}

/// Every card of every vendor that the compute driver serves.
pub(crate) fn nodes(tree: &HostTree) -> Vec<KfdNode> {
    let numbers = tree.names(NODES).into_iter();
    let mut nodes: Vec<KfdNode> =
        numbers.filter_map(|name| node(tree, name.parse().ok()?)).collect();
    nodes.sort_by_key(|node| node.number);
    nodes
}

/// The card at a PCI address; the others are only looked at until it is found.
pub(crate) fn find(tree: &HostTree, address: &str) -> Option<KfdNode> {
    let mut numbers: Vec<u32> =
        tree.names(NODES).iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    let of = |number: u32| Some((number, properties(tree, &folder(number).join("properties"))));
    let is_it =
        |(_, says): &(u32, BTreeMap<String, u64>)| address_in(says).is_some_and(|a| a == address);
    let (number, says) = numbers.into_iter().filter_map(of).find(is_it)?;
    described(tree, number, &says)
}

/// A link from a card: to which node, by what kind of link (2 PCIe, 11 the vendor's own).
pub(crate) fn links(tree: &HostTree, number: u32) -> Vec<(u32, u64)> {
    let folder = Path::new(NODES).join(number.to_string()).join("io_links");
    let links = tree.names(&folder).into_iter();
    let read = |name: String| {
        let says = properties(tree, &folder.join(name).join("properties"));
        Some((u32::try_from(*says.get("node_to")?).ok()?, *says.get("type")?))
    };
    links.filter_map(read).collect()
}

/// Processes that have the compute driver open, by PID on the host.
pub(crate) fn processes(tree: &HostTree) -> Vec<u32> {
    tree.names(PROCESSES).into_iter().filter_map(|name| name.parse().ok()).collect()
}

/// Memory of a card that a process has, in bytes.
pub(crate) fn memory_of(tree: &HostTree, pid: u32, gpu_id: u32) -> Option<u64> {
    tree.number(Path::new(PROCESSES).join(pid.to_string()).join(format!("vram_{gpu_id}")))
}

const NODES: &str = "/sys/class/kfd/kfd/topology/nodes";
const PROCESSES: &str = "/sys/class/kfd/kfd/proc";

fn folder(number: u32) -> PathBuf {
    Path::new(NODES).join(number.to_string())
}

fn node(tree: &HostTree, number: u32) -> Option<KfdNode> {
    described(tree, number, &properties(tree, &folder(number).join("properties")))
}

fn described(tree: &HostTree, number: u32, says: &BTreeMap<String, u64>) -> Option<KfdNode> {
    let folder = folder(number);
    // A processor is a node as well, with no GPU id.
    let gpu_id = tree.number::<u32>(folder.join("gpu_id")).filter(|id| *id != 0)?;
    let units = match (says.get("simd_count"), says.get("simd_per_cu")) {
        (Some(all), Some(each)) => all.checked_div(*each),
        _ => None,
    };
    Some(KfdNode {
        number,
        gpu_id,
        address: address_in(says)?,
        compute_units: units.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0),
        memory: memory(tree, &folder.join("mem_banks")),
    })
}

fn address_in(says: &BTreeMap<String, u64>) -> Option<String> {
    let location = *says.get("location_id")?;
    let domain = says.get("domain").copied().unwrap_or(0);
    let (bus, device) = ((location >> 8) & 0xff, (location >> 3) & 0x1f);
    Some(format!("{domain:04x}:{bus:02x}:{device:02x}.{}", location & 7))
}

/// The sum of the banks that are the card's own.
fn memory(tree: &HostTree, banks: &PathBuf) -> Option<u64> {
    let all = tree.names(banks).into_iter();
    let sizes = all.filter_map(|bank| {
        let says = properties(tree, &banks.join(bank).join("properties"));
        // 1 is what the processor sees of it, 2 what it does not.
        matches!(says.get("heap_type")?, 1 | 2).then(|| says.get("size_in_bytes").copied())?
    });
    Some(sizes.fold(0_u64, u64::saturating_add)).filter(|sum| *sum > 0)
}

/// `name number` by lines; what is not so is left out.
fn properties(tree: &HostTree, file: &Path) -> BTreeMap<String, u64> {
    let text = tree.text(file).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let (name, number) = line.trim().split_once(char::is_whitespace)?;
            Some((name.to_owned(), number.trim().parse().ok()?))
        })
        .collect()
}

//! Each vendor's cards, kernel driver and library, and whether they fit together.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::backends::Name;
use crate::doctor::catalogue::Check;
use crate::doctor::finding::Finding;
use crate::doctor::owners::of_node;
use crate::doctor::places::Places;
use crate::doctor::reader::Reader;

const PCI: &str = "/sys/bus/pci/devices";
const NVIDIA_VERSION: &str = "/proc/driver/nvidia/version";

/// Where distributions and vendors put libraries.
const FOLDERS: [&str; 12] = [
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu/nvidia/current",
    "/usr/lib",
    "/usr/local/nvidia/lib64",
    "/opt/hyhal/lib",
    "/opt/hyhal/lib64",
    "/usr/local/neuware/lib64",
    "/usr/local/neuware/lib",
    "/usr/local/lib",
];

/// One vendor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) vendor: Name,
    /// Cards on the PCI bus, with the kernel driver that has each.
    pub(crate) cards: BTreeMap<String, Option<String>>,
    /// A device node of a card.
    pub(crate) node: Option<String>,
    /// Its library, where it lies and what it leads to.
    pub(crate) library: Option<(PathBuf, PathBuf)>,
    /// The version of the loaded kernel module, where it is told.
    pub(crate) module: Option<String>,
}

struct About {
    vendor: Name,
    pci: &'static str,
    /// Classes of what computes: the bus has the vendor's bridges and audio too.
    classes: &'static [&'static str],
    modules: &'static [&'static str],
    library: &'static str,
    /// Whether cards can be served without the library.
    needs_library: bool,
}

const VENDORS: [About; 3] = [
    About {
        vendor: Name::Nvidia,
        pci: "0x10de",
        classes: &["0x03"],
        modules: &["nvidia"],
        library: "libnvidia-ml.so.1",
        needs_library: true,
    },
    About {
        vendor: Name::Hygon,
        pci: "0x1d94",
        classes: &["0x0b", "0x12", "0x03"],
        modules: &["hydcu", "hycu", "amdgpu"],
        library: "libhydmi.so",
        needs_library: false,
    },
    About {
        vendor: Name::Cambricon,
        pci: "0xcabc",
        classes: &["0x12"],
        modules: &["cambricon"],
        library: "libcndev.so",
        needs_library: true,
    },
];

/// Looks at the vendors that vgpu serves here.
pub(crate) fn read(reader: &mut Reader<'_>, places: &Places) -> Vec<Facts> {
    let served = VENDORS.iter().filter(|about| places.serves(about.vendor));
    served.map(|about| of(reader, about)).collect()
}

fn of(reader: &mut Reader<'_>, about: &About) -> Facts {
    let mut cards = BTreeMap::new();
    for path in reader.paths(Path::new(PCI)) {
        let said = |reader: &mut Reader<'_>, file: &str| {
            reader.text(&path.join(file)).unwrap_or_default().trim().to_owned()
        };
        // A virtual function is its card's business.
        if said(reader, "vendor") != about.pci || reader.tree.has(&path.join("physfn")) {
            continue;
        }
        let class = said(reader, "class");
        if about.classes.iter().any(|known| class.starts_with(known)) {
            let link = fs::read_link(reader.tree.find(&path).join("driver")).ok();
            let driver = link.and_then(|l| Some(l.file_name()?.to_string_lossy().into_owned()));
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            cards.insert(name, driver);
        }
    }
    let node = super::nodes::paths(reader).into_iter().find(|n| of_node(n) == Some(about.vendor));
    let library =
        FOLDERS.iter().map(|folder| Path::new(folder).join(about.library)).find_map(|path| {
            let is_file = reader.tree.metadata(&path).ok().flatten().is_some_and(|m| m.is_file());
            is_file.then(|| (path.clone(), reader.tree.real(&path)))
        });
    let module = match about.vendor {
        Name::Nvidia => reader.text(Path::new(NVIDIA_VERSION)).and_then(|text| {
            let version = version_in(&text);
            reader.made(Path::new(NVIDIA_VERSION), version.ok_or("no version is in it"))
        }),
        _ => None,
    };
    Facts { vendor: about.vendor, cards, node, library, module }
}

/// The first word of the first line that is a version: `570.124.06`.
fn version_in(text: &str) -> Option<String> {
    let is_version = |word: &&str| {
        word.contains('.')
            && word.split('.').all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    text.lines().next()?.split_whitespace().find(is_version).map(str::to_owned)
}

/// The major version of NVIDIA's loaded driver.
pub(crate) fn major(vendors: &[Facts]) -> Option<u32> {
    let nvidia = vendors.iter().find(|facts| facts.vendor == Name::Nvidia)?;
    nvidia.module.as_ref()?.split('.').next()?.parse().ok()
}

/// What does not fit together.
pub(crate) fn judge(vendors: &[Facts]) -> Vec<Finding> {
    vendors.iter().flat_map(of_vendor).collect()
}

fn of_vendor(facts: &Facts) -> Vec<Finding> {
    let about = VENDORS.iter().find(|about| about.vendor == facts.vendor);
    let Some(about) = about else { return Vec::new() };
    let (vendor, library) = (facts.vendor, about.library);
    let mut found = Vec::new();
    for (card, driver) in &facts.cards {
        if let Some(driver) =
            driver.as_deref().filter(|d| !about.modules.iter().any(|m| d.starts_with(m)))
        {
            let what = format!(
                "the {vendor} card is held by the kernel driver {driver}; vgpu cannot serve it"
            );
            let remedy = "leave it so if it is passed to a virtual machine; else bind it to the vendor's driver";
            found.push(Finding::new(Check::OtherDriver, what).at(card).so(remedy));
        }
    }
    let is_bound = |driver: &Option<String>| {
        driver.as_ref().is_none_or(|d| about.modules.iter().any(|m| d.starts_with(m)))
    };
    let ours = facts.cards.values().filter(|driver| is_bound(driver)).count();
    match (&facts.node, &facts.library) {
        (None, _) if ours > 0 => {
            let what =
                format!("{ours} {vendor} cards are on the PCI bus and /dev has no node of one");
            let remedy = "load the vendor's kernel module; for NVIDIA, `nvidia-modprobe -c 0` or nvidia-persistenced \
                          makes the nodes";
            found.push(Finding::new(Check::NoNode, what).at("/dev").so(remedy));
        }
        (Some(node), None) if about.needs_library => {
            let what = format!("{node} is there and {library} is not: the cards cannot be asked");
            let remedy = format!(
                "install the driver's libraries, or name {library} with the agent's flag for it"
            );
            found.push(Finding::new(Check::NoLibrary, what).at(node).so(remedy));
        }
        _ => {}
    }
    if let (Some(module), Some((path, real))) = (&facts.module, &facts.library) {
        let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A file that is no link to a version tells none.
        let version = name.split_once(".so.").map(|(_, v)| v).filter(|v| v.contains('.'));
        if let Some(version) = version.filter(|version| version != module) {
            let what = format!(
                "the kernel has {vendor} driver {module} and the library is of {version}: every call fails"
            );
            let remedy =
                "the driver was upgraded: reload its kernel module on the drained node, or reboot";
            found.push(Finding::new(Check::LibraryDiffers, what).at(path.display()).so(remedy));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_both_kernel_modules() {
        for (line, version) in [
            (
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.124.06  Wed Feb 26 2025",
                Some("570.124.06"),
            ),
            (
                "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  615.43.02  Release Build",
                Some("615.43.02"),
            ),
            ("NVRM version: none", None),
            ("", None),
        ] {
            assert_eq!(version_in(line).as_deref(), version, "{line}");
        }
    }
}

//! A host's `/` as the driver of Hygon's cards shows it, below any folder: sysfs, KFD, device nodes.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::json;

/// A card to be shown.
#[derive(Debug, Clone)]
pub(crate) struct CardSpec {
    pub(crate) address: String,
    pub(crate) vendor: u32,
    pub(crate) device: u32,
    pub(crate) units: u32,
    pub(crate) memory_mib: u64,
    pub(crate) serial: Option<String>,
    pub(crate) numa: i32,
    pub(crate) mig: bool,
}

/// A prepared host.
#[derive(Debug, Clone)]
pub(crate) struct FakeHost {
    pub(crate) root: PathBuf,
    pub(crate) cards: Vec<CardSpec>,
}

/// Machines by name.
pub(crate) const PRESETS: &[&str] = &["k100-ai-x4", "z100-x2", "bw100-x4", "k100-lce-x2", "mixed"];

/// The cards of a machine.
pub(crate) fn preset(name: &str) -> Option<Vec<CardSpec>> {
    let many = |n: usize, device: u32, units: u32, memory_mib: u64, mig: bool| {
        let one = |i: usize| card(i, device, units, memory_mib, mig);
        (0..n).map(one).collect::<Vec<_>>()
    };
    Some(match name {
        "k100-ai-x4" => many(4, 0x6210, 120, 65_520, false),
        "z100-x2" => many(2, 0x54b7, 60, 16_368, false),
        "bw100-x4" => many(4, 0x6370, 80, 65_520, true),
        "k100-lce-x2" => many(2, 0x6211, 128, 65_520, false),
        // Another vendor's card between ours, one that nobody listed, and one without a serial.
        "mixed" => {
            let mut cards = many(4, 0x6210, 120, 65_520, false);
            cards[1] = CardSpec { vendor: 0x1002, device: 0x740f, ..cards[1].clone() };
            cards[2] = CardSpec { device: 0x7abc, units: 64, serial: None, ..cards[2].clone() };
            cards
        }
        _ => return None,
    })
}

/// One of ours in the nth slot, with a serial of letters.
pub(crate) fn card(n: usize, device: u32, units: u32, memory_mib: u64, mig: bool) -> CardSpec {
    CardSpec {
        // Not in the order of their numbers.
        address: format!("0000:{:02x}:00.0", 0x9f - 0x10 * n),
        vendor: 0x1d94,
        device,
        units,
        memory_mib,
        serial: Some(format!("TPAB{}X{n:03}", device)),
        numa: i32::try_from(n % 2).expect("0 or 1"),
        mig,
    }
}

impl FakeHost {
    /// Writes everything below `root`.
    pub(crate) fn write(root: &Path, cards: Vec<CardSpec>) -> io::Result<Self> {
        let host = Self { root: root.to_owned(), cards };
        let kfd = host.at("sys/class/kfd/kfd");
        put(&kfd.join("dev"), "511:0")?;
        fs::create_dir_all(kfd.join("proc"))?;
        let nodes = kfd.join("topology/nodes");
        put(&kfd.join("topology/generation_id"), "1")?;
        put(&kfd.join("topology/system_properties"), "platform_oem 0\nnum_devices 1\n")?;
        put(&nodes.join("0/gpu_id"), "0")?;
        put(&nodes.join("0/name"), "")?;
        put(&nodes.join("0/properties"), "cpu_cores_count 64\nsimd_count 0\nlocation_id 0\n")?;
        host.write_links(&nodes.join("0"), 0, (1..=host.cards.len()).collect())?;
        for (n, card) in host.cards.iter().enumerate() {
            host.write_card(n, card)?;
        }
        put(&host.at("sys/module/hycu/version"), "6.3.8")?;
        for file in ["dev/kfd", "dev/mkfd"] {
            put(&host.at(file), "")?;
        }
        put(&host.at("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
        fs::create_dir_all(host.at("opt/hyhal/lib"))?;
        fs::create_dir_all(host.at("proc"))?;
        // Where `vgpu conformance run --allow-destructive` keeps other runs out.
        fs::create_dir_all(host.at("run/lock"))?;
        host.scenario()?;
        Ok(host)
    }

    /// Where the fakes read this machine: what `FAKE_HYDMI` names.
    pub(crate) fn scenario_file(&self) -> PathBuf {
        self.root.join("scenario.json")
    }

    /// Where the fakes look for faults.
    pub(crate) fn control_file(&self) -> PathBuf {
        self.root.join("control.json")
    }

    pub(crate) fn at(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// The folder of a card in sysfs.
    pub(crate) fn card_folder(&self, n: usize) -> PathBuf {
        self.at("sys/devices/pci0000:00").join(&self.cards[n].address)
    }

    /// What names a card in per-process files of KFD.
    pub(crate) fn gpu_id(n: usize) -> u32 {
        10_000 + 7 * u32::try_from(n).expect("few cards")
    }

    /// The folder of a card in KFD's topology.
    pub(crate) fn node_folder(&self, n: usize) -> PathBuf {
        self.at("sys/class/kfd/kfd/topology/nodes").join((n + 1).to_string())
    }

    fn scenario(&self) -> io::Result<()> {
        let one = |card: &CardSpec| {
            json!({
                "address": card.address, "vendor": card.vendor, "units": card.units,
                "memory_mib": card.memory_mib, "serial": card.serial, "mig": card.mig,
            })
        };
        let cards: Vec<_> = self.cards.iter().map(one).collect();
        let scenario = json!({ "root": self.root, "control": self.control_file(), "cards": cards });
        put(&self.scenario_file(), &format!("{scenario:#}\n"))
    }

    fn write_card(&self, n: usize, card: &CardSpec) -> io::Result<()> {
        let folder = self.card_folder(n);
        let total = card.memory_mib << 20;
        let hex = |number: u32| format!("0x{number:04x}");
        let address = &card.address;
        for (name, text) in [
            ("vendor", hex(card.vendor)),
            ("device", hex(card.device)),
            ("class", "0x120000".into()),
            ("subsystem_vendor", hex(card.vendor)),
            ("subsystem_device", "0x0001".into()),
            ("unique_id", format!("{:016x}", 0x1122_3344_0000_u64 + n as u64)),
            ("mem_info_vram_total", total.to_string()),
            ("mem_info_vram_used", (64_u64 << 20).to_string()),
            ("mem_info_vis_vram_total", total.to_string()),
            ("mem_info_vis_vram_used", (64_u64 << 20).to_string()),
            ("mem_info_gtt_total", total.to_string()),
            ("mem_info_gtt_used", "0".into()),
            ("gpu_busy_percent", "0".into()),
            ("mem_busy_percent", "0".into()),
            ("numa_node", card.numa.to_string()),
            ("vbios_version", "113-FAKE-001".into()),
            ("pcie_replay_count", "0".into()),
            ("ras/umc_err_count", "ue: 0\nce: 0".into()),
            ("ras/features", "feature mask: 0x1\nUMC: multi_uncorrectable".into()),
            ("uevent", format!("DRIVER=hycu\nPCI_SLOT_NAME={address}")),
        ] {
            put(&folder.join(name), &format!("{text}\n"))?;
        }
        if let Some(serial) = &card.serial {
            put(&folder.join("serial_number"), serial)?;
        }
        let sensor = folder.join(format!("hwmon/hwmon{}", n + 3));
        for (name, text) in [
            ("name", "amdgpu"),
            ("temp1_input", "45000"),
            ("temp1_label", "edge"),
            ("power1_average", "90000000"),
            ("power1_cap", "400000000"),
            ("in0_input", "800"),
            ("in0_label", "vddgfx"),
        ] {
            put(&sensor.join(name), &format!("{text}\n"))?;
        }
        for (name, minor) in [(format!("card{n}"), n), (format!("renderD{}", 128 + n), 128 + n)] {
            let node = folder.join("drm").join(&name);
            put(&node.join("dev"), &format!("226:{minor}\n"))?;
            symlink("../..", node.join("device"))?;
            link(
                &format!("../../devices/pci0000:00/{address}/drm/{name}"),
                &self.at("sys/class/drm").join(&name),
            )?;
            put(&self.at("dev/dri").join(&name), "")?;
        }
        let up = "../../../devices/pci0000:00";
        link(&format!("{up}/{address}"), &self.at("sys/bus/pci/devices").join(address))?;
        if card.vendor == 0x1d94 {
            let driver = self.at("sys/module/hycu/drivers/pci:hycu").join(address);
            link(&format!("../../{up}/{address}"), &driver)?;
        }
        self.write_node(n, card)
    }

    fn write_node(&self, n: usize, card: &CardSpec) -> io::Result<()> {
        let node = self.node_folder(n);
        put(&node.join("gpu_id"), &Self::gpu_id(n).to_string())?;
        put(&node.join("name"), "gfx928\n")?;
        let pieces: Vec<u64> = card
            .address
            .split([':', '.'])
            .map(|piece| u64::from_str_radix(piece, 16).expect("a PCI address"))
            .collect();
        let location = pieces[1] << 8 | pieces[2] << 3 | pieces[3];
        let properties = [
            ("cpu_cores_count", 0),
            ("simd_count", u64::from(card.units) * 4),
            ("simd_per_cu", 4),
            ("simd_arrays_per_engine", 1),
            ("array_count", 4),
            ("cu_per_simd_array", u64::from(card.units) / 4),
            ("mem_banks_count", 1),
            ("io_links_count", self.cards.len() as u64),
            ("location_id", location),
            ("domain", pieces[0]),
            ("drm_render_minor", 128 + n as u64),
            ("unique_id", 0x1122_3344_0000 + n as u64),
            ("gfx_target_version", 90_208),
            ("hive_id", 0),
            ("vendor_id", u64::from(card.vendor)),
            ("device_id", u64::from(card.device)),
        ];
        let lines: Vec<String> = properties.iter().map(|(k, v)| format!("{k} {v}")).collect();
        put(&node.join("properties"), &format!("{}\n", lines.join("\n")))?;
        let bank = format!("heap_type 1\nsize_in_bytes {}\nflags 0\n", card.memory_mib << 20);
        put(&node.join("mem_banks/0/properties"), &bank)?;
        // To the processor, and through it to every other card.
        let others = (0..=self.cards.len()).filter(|other| *other != n + 1);
        self.write_links(&node, n + 1, others.collect())
    }

    /// ROCm SMI ends the process where a node has no folder of links.
    fn write_links(&self, node: &Path, from: usize, to: Vec<usize>) -> io::Result<()> {
        fs::create_dir_all(node.join("io_links"))?;
        for (i, to) in to.into_iter().enumerate() {
            let text = format!(
                "type 2\nversion_major 0\nversion_minor 0\nnode_from {from}\nnode_to {to}\nweight 40\n\
                 min_latency 0\nmax_latency 0\nmin_bandwidth 0\nmax_bandwidth 0\n\
                 recommended_transfer_size 0\nflags 1\n"
            );
            put(&node.join(format!("io_links/{i}/properties")), &text)?;
        }
        Ok(())
    }
}

/// Writes a file and the folders above it; renamed into place, since others read at any moment.
pub(crate) fn put(path: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all(path.parent().expect("a file is in a folder"))?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(".draft");
    fs::write(&draft, text)?;
    fs::rename(draft, path)
}

fn link(target: &str, at: &Path) -> io::Result<()> {
    fs::create_dir_all(at.parent().expect("a link is in a folder"))?;
    symlink(target, at)
}

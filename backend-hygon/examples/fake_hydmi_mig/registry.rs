//! What is made, as files below `etc/dmi_mig_config`: mode, cards, instances.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;

use crate::world::{Call, Card};
use crate::{INSUFFICIENT_RESOURCES, NOT_FOUND, UNKNOWN};

/// A profile; its id is not what it is asked for by.
pub(crate) struct Profile {
    pub(crate) id: u32,
    pub(crate) slices: u32,
    pub(crate) starts: &'static [u32],
}

pub(crate) const PROFILES: &[Profile] = &[
    Profile { id: 3, slices: 1, starts: &[0, 1, 2, 3] },
    Profile { id: 10, slices: 2, starts: &[0, 2] },
    Profile { id: 24, slices: 4, starts: &[0] },
];

pub(crate) struct Instance {
    pub(crate) card: usize,
    pub(crate) id: u32,
    pub(crate) profile: u32,
    pub(crate) start: u32,
    pub(crate) compute: bool,
}

impl Profile {
    /// As the vendor's tool prints it, `2g.15gb`.
    pub(crate) fn name(&self, card: &Card) -> String {
        let gib = card.memory_mib / 4 * u64::from(self.slices) / 1024;
        format!("{}g.{gib}gb", self.slices * 2)
    }
}

pub(crate) fn is_cut(call: &Call) -> bool {
    fs::read_to_string(file(call, "mode")).is_ok_and(|text| text == "1")
}

pub(crate) fn cut(call: &Call, on: bool) {
    let _ = fs::create_dir_all(file(call, "gi"));
    let _ = fs::create_dir_all(file(call, "ci"));
    for (n, card) in call.cards().iter().enumerate() {
        let _ = fs::write(file(call, &format!("dev{n}")), format!("{}\n", card.address));
    }
    let _ = fs::write(file(call, "mode"), if on { "1" } else { "0" });
    call.changed();
}

pub(crate) fn all(call: &Call) -> Vec<Instance> {
    let Ok(entries) = fs::read_dir(file(call, "gi")) else { return Vec::new() };
    let mut all: Vec<Instance> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let (card, id) = name.strip_prefix("dev")?.strip_suffix(".conf")?.split_once("gi")?;
            let text = fs::read_to_string(entry.path()).ok()?;
            let (profile, start) = text.trim().split_once(' ')?;
            let (card, id) = (card.parse().ok()?, id.parse().ok()?);
            Some(Instance {
                card,
                id,
                profile: profile.parse().ok()?,
                start: start.parse().ok()?,
                compute: compute_file(call, card, id).is_file(),
            })
        })
        .collect();
    all.sort_by_key(|i| (i.card, i.id));
    all
}

pub(crate) fn make(call: &Call, card: usize, profile: &Profile, start: u32) -> Result<u32, u32> {
    if !is_cut(call) {
        return Err(crate::NOT_SUPPORTED);
    }
    let all = all(call);
    let on_card: Vec<&Instance> = all.iter().filter(|i| i.card == card).collect();
    let slices = |id: u32| PROFILES.iter().find(|p| p.id == id).map_or(0, |p| p.slices);
    let touches =
        |i: &&&Instance| i.start < start + profile.slices && start < i.start + slices(i.profile);
    if on_card.iter().any(|i| touches(&i)) {
        return Err(INSUFFICIENT_RESOURCES);
    }
    let id = (1..64).find(|n| on_card.iter().all(|i| i.id != *n)).ok_or(INSUFFICIENT_RESOURCES)?;
    let text = format!("{} {start}\n", profile.id);
    fs::write(gpu_file(call, card, id), text).map_err(|_e| UNKNOWN)?;
    call.changed();
    Ok(id)
}

pub(crate) fn unmake(call: &Call, i: &Instance) -> Result<(), u32> {
    fs::remove_file(gpu_file(call, i.card, i.id)).map_err(|_e| NOT_FOUND)?;
    call.changed();
    Ok(())
}

pub(crate) fn make_compute(call: &Call, i: &Instance) -> Result<(), u32> {
    let path = compute_file(call, i.card, i.id);
    // A leftover poisons the number.
    if path.exists() || path.with_extension("").exists() {
        return Err(INSUFFICIENT_RESOURCES);
    }
    let random = RandomState::new().hash_one((i.card, i.id));
    let uuid = format!("{random:016x}-{:02}-{:02}", i.card, i.id);
    let text = format!(
        "pci: {}\nprofile: {}\nmig_uuid: {uuid}\n",
        call.cards()[i.card].address,
        i.profile
    );
    fs::write(path, text).map_err(|_e| UNKNOWN)?;
    call.changed();
    Ok(())
}

pub(crate) fn unmake_compute(call: &Call, i: &Instance) -> Result<(), u32> {
    fs::remove_file(compute_file(call, i.card, i.id)).map_err(|_e| NOT_FOUND)?;
    call.changed();
    Ok(())
}

/// Writes down that a function of this library was called, where a test wants to know.
pub(crate) fn called(function: &str) {
    use std::io::Write;
    let Some(file) = std::env::var_os("FAKE_HYDMI_CALLS") else { return };
    let opened = fs::OpenOptions::new().create(true).append(true).open(file);
    if let Ok(mut file) = opened {
        let _ = writeln!(file, "{function}");
    }
}

fn file(call: &Call, name: &str) -> PathBuf {
    call.at("etc/dmi_mig_config").join(name)
}

fn gpu_file(call: &Call, card: usize, id: u32) -> PathBuf {
    file(call, "gi").join(format!("dev{card}gi{id}.conf"))
}

fn compute_file(call: &Call, card: usize, id: u32) -> PathBuf {
    file(call, "ci").join(format!("dev{card}gi{id}ci0.conf"))
}

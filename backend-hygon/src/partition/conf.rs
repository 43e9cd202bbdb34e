//! The text of a virtual DCU, `vdevN.conf`.

use std::fmt;
use std::str::FromStr;

/// A virtual DCU as its file describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VdevConf {
    /// PCI address of the card, lower case.
    pub(crate) address: String,
    /// Compute units, one bit each, unit 0 first; none for one that shares them all.
    pub(crate) mask: [u64; 2],
    /// As it stands there; the mask decides.
    pub(crate) count: u32,
    pub(crate) memory_mib: u64,
    /// The card's number; 0 in the container's copy, where it is the only one.
    pub(crate) device: u32,
    /// Its number on the node.
    pub(crate) vdev: u32,
    /// Its number on the card.
    pub(crate) pipe: u32,
    pub(crate) enabled: bool,
}

impl VdevConf {
    /// Units of the mask.
    pub(crate) fn units(&self) -> u32 {
        self.mask.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether a unit is set that a card of `units` lacks.
    pub(crate) fn exceeds(&self, units: u32) -> bool {
        beyond(units).iter().zip(self.mask).any(|(beyond, word)| beyond & word != 0)
    }

    /// The container's copy: there the card is the only one.
    pub(crate) fn of_container(&self) -> Self {
        Self { device: 0, ..self.clone() }
    }
}

impl fmt::Display for VdevConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "PciBusId: {}", self.address)?;
        for word in self.mask {
            writeln!(f, "cu_mask: {word:#018x}")?;
        }
        writeln!(f, "cu_count: {}", self.count)?;
        writeln!(f, "mem: {} MiB", self.memory_mib)?;
        writeln!(f, "device_id: {}", self.device)?;
        writeln!(f, "vdev_id: {}", self.vdev)?;
        writeln!(f, "pipe_id: {}", self.pipe)?;
        writeln!(f, "enable: {}", u8::from(self.enabled))
    }
}

impl FromStr for VdevConf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = address_of(text).ok_or("it has no line `PciBusId: dddd:bb:dd.f`")?;
        let masks: Vec<&str> = values(text, "cu_mask").collect();
        let mut mask = [0; 2];
        if masks.is_empty() || masks.len() > mask.len() {
            return Err(format!("it has {} lines `cu_mask`, and two are expected", masks.len()));
        }
        for (word, text) in mask.iter_mut().zip(&masks) {
            let digits = text.strip_prefix("0x").ok_or_else(|| bad("cu_mask", text))?;
            *word = u64::from_str_radix(digits, 16).map_err(|_e| bad("cu_mask", text))?;
        }
        let memory = value(text, "mem")?;
        let number = memory.strip_suffix("MiB").map(str::trim).ok_or_else(|| bad("mem", memory))?;
        let memory_mib = number.parse().map_err(|_e| bad("mem", memory))?;
        Ok(Self {
            address,
            mask,
            memory_mib,
            count: number_of(text, "cu_count")?,
            device: number_of(text, "device_id")?,
            vdev: number_of(text, "vdev_id")?,
            pipe: number_of(text, "pipe_id")?,
            enabled: number_of(text, "enable")? != 0,
        })
    }
}

/// The card that a file is about, even where the rest of it is garbage.
pub(crate) fn address_of(text: &str) -> Option<String> {
    let address = values(text, "PciBusId").next()?.to_ascii_lowercase();
    let fine = address.len() <= 16
        && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.')
        && address.matches(':').count() == 2;
    fine.then_some(address)
}

/// The bits that a card of `units` does not have.
pub(crate) fn beyond(units: u32) -> [u64; 2] {
    [units.min(64), units.saturating_sub(64)].map(|n| if n >= 64 { 0 } else { !0 << n })
}

fn values<'t>(text: &'t str, key: &str) -> impl Iterator<Item = &'t str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .filter(move |(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim())
}

fn value<'t>(text: &'t str, key: &str) -> Result<&'t str, String> {
    values(text, key).next().ok_or_else(|| format!("it has no line `{key}`"))
}

fn number_of(text: &str, key: &str) -> Result<u32, String> {
    let value = value(text, key)?;
    value.parse().map_err(|_e| bad(key, value))
}

fn bad(key: &str, value: &str) -> String {
    let value: String = value.chars().take(40).collect();
    format!("its line `{key}` says {value:?}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn conf() -> VdevConf {
        VdevConf {
            address: "0000:33:00.0".into(),
            mask: [0x7fff, 0],
            count: 15,
            memory_mib: 8192,
            device: 2,
            vdev: 7,
            pipe: 1,
            enabled: true,
        }
    }

    #[test]
    fn text_as_the_runtime_reads_it() {
        assert_eq!(
            conf().of_container().to_string(),
            "PciBusId: 0000:33:00.0\ncu_mask: 0x0000000000007fff\ncu_mask: 0x0000000000000000\n\
             cu_count: 15\nmem: 8192 MiB\ndevice_id: 0\nvdev_id: 7\npipe_id: 1\nenable: 1\n"
        );
        assert_eq!(conf().to_string().parse(), Ok(conf()));
    }

    #[test]
    fn what_a_hand_broke_is_told_by_its_line_and_still_names_its_card() {
        for (from, to, word) in [
            ("mem: 8192 MiB", "mem: 8192", "mem"),
            ("mem: 8192 MiB", "mem: many MiB", "mem"),
            ("cu_mask: 0x0000000000007fff", "cu_mask: all", "cu_mask"),
            ("pipe_id: 1\n", "", "pipe_id"),
            ("vdev_id: 7", "vdev_id: -7", "vdev_id"),
        ] {
            let text = conf().to_string().replacen(from, to, 1);
            let why = text.parse::<VdevConf>().expect_err("not read");
            assert!(why.contains(word), "{why}");
            assert_eq!(address_of(&text).as_deref(), Some("0000:33:00.0"));
        }
        assert_eq!(address_of("PciBusId: /etc/passwd"), None);
    }

    #[test]
    fn units_beyond_a_card_are_found_for_every_count_in_the_tables() {
        for units in crate::models::counts() {
            for unit in 0..128_u32 {
                let mut conf = conf();
                conf.mask = [0; 2];
                conf.mask[unit as usize / 64] = 1 << (unit % 64);
                assert_eq!(conf.exceeds(units), unit >= units, "unit {unit} of {units}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_conf_is_read_as_it_was_written(
            mask: [u64; 2], count: u32, memory_mib: u64, vdev in 0_u32..200, pipe in 0_u32..20, enabled: bool
        ) {
            let conf = VdevConf { mask, count, memory_mib, vdev, pipe, enabled, ..conf() };
            prop_assert_eq!(conf.to_string().parse(), Ok(conf));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,400}") {
            let with = format!("PciBusId: 0000:33:00.0\n{text}");
            let _either: Result<VdevConf, String> = with.parse();
        }

        #[test]
        fn a_mask_fits_a_card_of_each_count_or_exceeds_it(mask: [u64; 2]) {
            let bits = u128::from(mask[1]) << 64 | u128::from(mask[0]);
            for units in crate::models::counts() {
                let conf = VdevConf { mask, ..conf() };
                prop_assert_eq!(conf.exceeds(units), bits.checked_shr(units).unwrap_or(0) != 0);
                let cut = bits & (u128::MAX >> (128 - units));
                let within = VdevConf { mask: [cut as u64, (cut >> 64) as u64], ..conf };
                prop_assert!(!within.exceeds(units) && within.units() <= units);
            }
        }
    }
}

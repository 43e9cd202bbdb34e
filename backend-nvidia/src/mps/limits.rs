//! Memory and threads of a share, as the control program writes them.

use serde::{Deserialize, Serialize};
use vgpu_core::{Bytes, ComputeShare, Size};

use crate::mps::schemes::PERCENT;

/// What holds a share; `None` holds nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    pub(crate) memory_mib: Option<u64>,
    /// Percent of the card's threads.
    pub(crate) percent: Option<u32>,
}

impl Limits {
    /// Of a size on the scheme's grid: whole MiB, whole percent.
    pub(crate) fn of(size: &Size) -> Self {
        Self {
            memory_mib: size.memory.map(|memory| memory.0 >> 20),
            percent: size.compute.map(|share| share.units),
        }
    }

    pub(crate) fn size(&self) -> Size {
        Size {
            memory: self.memory_mib.map(Bytes::mib),
            compute: self.percent.map(|units| ComputeShare { units, of: PERCENT }),
        }
    }
}

/// What a container without a namespace of its own is given to hold itself to less than the daemon's
/// one limit for all.
pub(crate) fn tighter(size: &Size) -> Vec<(String, String)> {
    let limits = Limits::of(size);
    let memory = limits.memory_mib.map(|mib| format!("0={mib}M"));
    let percent = limits.percent.map(|percent| percent.to_string());
    [("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", memory), ("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", percent)]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

/// `512M`, `4G` or `1024K` in MiB; `None` for what says that there is no limit.
///
/// # Errors
/// The text, if it is none of these.
pub(crate) fn memory(text: &str) -> Result<Option<u64>, String> {
    let text = text.trim();
    if matches!(text, "" | "-") {
        return Ok(None);
    }
    let of = |unit: char| text.strip_suffix(unit).and_then(|n| n.trim().parse::<u64>().ok());
    let mib = match (of('K'), of('M'), of('G')) {
        (Some(kib), _, _) => Some(kib / 1024),
        (_, Some(mib), _) => Some(mib),
        (_, _, Some(gib)) => gib.checked_mul(1024),
        _ => None,
    };
    mib.map(Some).ok_or_else(|| text.to_owned())
}

/// `25`, `25.0` in percent; `None` for what says that there is no limit.
///
/// # Errors
/// The text, if it is no such number.
pub(crate) fn percent(text: &str) -> Result<Option<u32>, String> {
    let text = text.trim();
    if matches!(text, "" | "-") {
        return Ok(None);
    }
    let whole = text.strip_suffix(".0").unwrap_or(text);
    let value = whole.parse::<u32>().ok().filter(|p| (1..=100).contains(p));
    value.map(Some).ok_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_programs_write_them() {
        assert_eq!(memory("4G"), Ok(Some(4096)));
        assert_eq!(memory(" 512M\n"), Ok(Some(512)));
        assert_eq!(memory("2048K"), Ok(Some(2)));
        assert_eq!(memory("-"), Ok(None));
        assert!(memory("4 pages").is_err() && memory("18446744073709551615G").is_err());
        assert_eq!(percent("25.0"), Ok(Some(25)));
        assert_eq!(percent("100"), Ok(Some(100)));
        assert_eq!(percent(""), Ok(None));
        assert!(percent("12.5").is_err() && percent("0").is_err() && percent("101").is_err());
    }
}

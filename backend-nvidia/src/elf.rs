//! Which machine a library is for, by the first bytes of its file.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A machine as an ELF file names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Machine {
    bits: u8,
    number: u16,
}

impl Machine {
    /// The one that this program runs on.
    pub(crate) fn here() -> Self {
        let number = match std::env::consts::ARCH {
            "aarch64" => 183,
            "x86" => 3,
            "x86_64" => 62,
            // One that NVIDIA has no driver for; everything is then foreign.
            _ => 0,
        };
        Self { bits: if cfg!(target_pointer_width = "64") { 64 } else { 32 }, number }
    }

    /// The one that a file is for; `None` where it cannot be read or is no ELF file.
    pub(crate) fn of(file: &Path) -> Option<Self> {
        let mut head = [0_u8; 20];
        File::open(file).ok()?.read_exact(&mut head).ok()?;
        if !head.starts_with(b"\x7fELF") {
            return None;
        }
        let bits = match head[4] {
            1 => 32,
            2 => 64,
            _ => return None,
        };
        let number = [head[18], head[19]];
        let number =
            if head[5] == 2 { u16::from_be_bytes(number) } else { u16::from_le_bytes(number) };
        Some(Self { bits, number })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.number, self.bits) {
            (3, _) => f.write_str("x86, 32 bits"),
            (21, _) => f.write_str("ppc64"),
            (62, 64) => f.write_str("x86_64"),
            (62, _) => f.write_str("x86_64 with 32-bit pointers"),
            (183, _) => f.write_str("aarch64"),
            (number, bits) => write!(f, "machine {number}, {bits} bits"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_is_of_this_machine() {
        let own = std::env::current_exe().expect("a test knows its own path");
        assert_eq!(Machine::of(&own), Some(Machine::here()));
        assert_eq!(Machine::of(Path::new("/proc/version")), None);
        assert_eq!(Machine::of(Path::new("/nonexistent")), None);
    }
}

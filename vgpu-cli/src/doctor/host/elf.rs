//! Whether a program needs another one to run, by its first bytes.

/// How a program is linked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Linking {
    /// With this loader; of a script, its interpreter.
    Dynamic(String),
    /// It is no program, for this reason.
    No(&'static str),
    Static,
}

const MAGIC: &[u8] = b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const PT_INTERP: u64 = 3;

/// `EM_X86_64`, `EM_AARCH64`.
const MACHINE: u64 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

/// Reads a program's headers from its first bytes.
pub(crate) fn linking(bytes: &[u8]) -> Linking {
    if let Some(interpreter) = interpreter(bytes) {
        return Linking::Dynamic(interpreter);
    }
    if !bytes.starts_with(MAGIC) {
        return Linking::No("it is no ELF file");
    }
    if bytes.get(4..6) != Some(&[CLASS_64, LITTLE_ENDIAN]) || number(bytes, 18, 2) != Some(MACHINE)
    {
        return Linking::No("it is for another processor");
    }
    headers(bytes).unwrap_or(Linking::No("its headers are cut off"))
}

/// What a script begins with, `#!/bin/sh -e`.
fn interpreter(bytes: &[u8]) -> Option<String> {
    let line = bytes.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let text = String::from_utf8_lossy(line);
    text.split_whitespace().next().map(str::to_owned)
}

fn headers(bytes: &[u8]) -> Option<Linking> {
    let table = number(bytes, 32, 8)?;
    let (size, count) = (number(bytes, 54, 2)?, number(bytes, 56, 2)?);
    for index in 0..count {
        let header = usize::try_from(table.checked_add(index * size)?).ok()?;
        if number(bytes, header, 4)? == PT_INTERP {
            let from = usize::try_from(number(bytes, header.checked_add(8)?, 8)?).ok()?;
            let length = usize::try_from(number(bytes, header.checked_add(32)?, 8)?).ok()?;
            let name = bytes.get(from..from.checked_add(length)?)?;
            let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
            return Some(Linking::Dynamic(name));
        }
    }
    Some(Linking::Static)
}

/// A little-endian number of so many bytes.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let piece = bytes.get(at..at.checked_add(length)?)?;
    Some(piece.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with one program header of this type, and a name behind it.
    fn program(kind: u8) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18] = u8::try_from(MACHINE).expect("one byte");
        (bytes[32], bytes[54], bytes[56]) = (64, 56, 1);
        bytes[64] = kind;
        (bytes[64 + 8], bytes[64 + 32]) = (120, 7);
        bytes.extend(b"/lib/x\0");
        bytes
    }

    #[test]
    fn loaders_are_seen() {
        assert_eq!(linking(&program(3)), Linking::Dynamic("/lib/x".into()));
        assert_eq!(linking(&program(1)), Linking::Static);
        let mut other = program(1);
        other[18] = 243;
        assert!(matches!(linking(&other), Linking::No(_)));
        assert!(matches!(linking(b"MZ"), Linking::No(_)));
        assert!(matches!(linking(b"#! \n/bin/sh"), Linking::No(_)), "it names no interpreter");
        assert_eq!(linking(b"#! /bin/sh -e\nexit\n"), Linking::Dynamic("/bin/sh".into()));
        let whole = program(3);
        for cut in 0..whole.len() {
            assert!(matches!(linking(&whole[..cut]), Linking::No(_)), "{cut}");
        }
    }

    #[test]
    fn this_very_program_is_read() {
        let own = std::env::current_exe().expect("a test knows its own path");
        let bytes = std::fs::read(own).expect("read");
        assert!(!matches!(linking(&bytes), Linking::No(_)));
    }
}

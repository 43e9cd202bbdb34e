//! What a library says, within bounds: strings are not read beyond their buffer, counts are believed
//! up to a limit, and lists grow no further than that.

use std::ffi::c_char;
use std::fmt;

/// Reads a string from a buffer that a library filled; nothing is read beyond it.
///
/// # Errors
/// There is no end within the buffer.
pub fn text(buffer: &[c_char]) -> Result<String, Endless> {
    let bytes: Vec<u8> =
        buffer.iter().map(|c| c.to_ne_bytes()[0]).take_while(|byte| *byte != 0).collect();
    match bytes.len() < buffer.len() {
        true => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        false => Err(Endless { room: buffer.len() }),
    }
}

/// A string without an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endless {
    /// Within so many bytes.
    pub room: usize,
}

impl fmt::Display for Endless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a string without an end within {} bytes", self.room)
    }
}

impl std::error::Error for Endless {}

/// A count that a library claims, believed up to `most`.
///
/// # Errors
/// What is wrong with it, for a failure of the backend's own.
pub fn at_most(count: u32, what: &str, most: u32) -> Result<u32, String> {
    match count <= most {
        true => Ok(count),
        false => Err(format!("{count} {what}, and {most} at most are read")),
    }
}

/// What a list is of, and how long it may be.
#[derive(Debug, Clone, Copy)]
pub struct ListOf<'a, T> {
    /// In the plural, for errors.
    pub what: &'a str,
    /// What an entry is before it is filled.
    pub empty: T,
    /// How many are asked for at first; not 0.
    pub first: u32,
    /// How many are read at most.
    pub most: u32,
}

/// What a library said to a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// That was all.
    All,
    /// The buffer is too small.
    WantsRoom,
}

/// Asks with a small buffer, then with one of the size that the library wants, as long as that is
/// within bounds. `ask` gets the buffer and the count of its entries, and leaves in the count how many
/// there are.
///
/// # Errors
/// `ask`'s own; `malformed` of a count beyond the room or the bound, and of a library that never has
/// enough.
pub fn list<T: Clone, E>(
    of: ListOf<'_, T>,
    mut ask: impl FnMut(&mut u32, &mut [T]) -> Result<Told, E>,
    malformed: impl FnOnce(String) -> E,
) -> Result<Vec<T>, E> {
    let ListOf { what, empty, first, most } = of;
    let mut room = first;
    loop {
        let mut entries = vec![empty.clone(); room as usize];
        let mut count = room;
        let told = ask(&mut count, &mut entries)?;
        if count > most || (told == Told::All && count > room) {
            let why = format!("{count} {what} for room of {room}, and {most} at most are read");
            return Err(malformed(why));
        }
        if told == Told::All {
            entries.truncate(count as usize);
            return Ok(entries);
        }
        // More may come between two calls, so ask for more than was said; the bound ends this loop.
        room = count.max(room).saturating_mul(2);
        if room > most.saturating_mul(4) {
            return Err(malformed(format!("room for {count} {what} is never enough")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_end_within_their_buffer() {
        let buffer = |bytes: &[u8]| -> Vec<c_char> {
            bytes.iter().map(|b| c_char::from_ne_bytes([*b])).collect()
        };
        assert_eq!(text(&buffer(b"ab\0junk")).as_deref(), Ok("ab"));
        assert_eq!(text(&buffer(b"\0")).as_deref(), Ok(""));
        assert_eq!(text(&buffer(b"a\xff\0")).as_deref(), Ok("a\u{fffd}"));
        assert_eq!(text(&buffer(b"ab")), Err(Endless { room: 2 }));
        assert_eq!(text(&[]), Err(Endless { room: 0 }));
    }

    /// A library with so many entries, that says so or not.
    fn ask(there: u32, says: u32, calls: &mut u32) -> Result<Vec<u32>, String> {
        let of = ListOf { what: "things", empty: 0, first: 4, most: 16 };
        let answer = |count: &mut u32, entries: &mut [u32]| {
            *calls += 1;
            let room = *count;
            assert_eq!(entries.len(), room as usize);
            *count = says;
            if there > room {
                return Ok(Told::WantsRoom);
            }
            for (entry, n) in entries.iter_mut().zip(0..there) {
                *entry = n;
            }
            Ok(Told::All)
        };
        list(of, answer, |why| why)
    }

    #[test]
    fn lists_grow_to_what_is_wanted_and_no_further() {
        let mut calls = 0;
        assert_eq!(ask(3, 3, &mut calls), Ok(vec![0, 1, 2]));
        assert_eq!(calls, 1);
        assert_eq!(ask(9, 9, &mut calls).map(|list| list.len()), Ok(9));
        assert_eq!(calls, 3);
        let beyond = "17 things for room of 4, and 16 at most are read";
        assert_eq!(ask(17, 17, &mut calls), Err(beyond.to_owned()));
        // More than there was room for, and still "that was all".
        let lie = "5 things for room of 4, and 16 at most are read";
        assert_eq!(ask(4, 5, &mut calls), Err(lie.to_owned()));
        let never = "room for 2 things is never enough";
        assert_eq!(ask(u32::MAX, 2, &mut calls), Err(never.to_owned()));
    }
}

//! One record as a line of the journal.
//!
//! `<crc> <format> <min_reader> <length> <payload>\n`: the checksum, as 8 hex digits, is over the raw
//! bytes between its space and the end of the line, so that a record of another version is checked
//! without being understood. This framing is for good; a new one would go into a file of another
//! name.

use std::ops::Range;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Entry<R> {
    /// The boot in which what follows happened.
    Boot {
        /// Its id.
        id: String,
    },
    /// The key is gone.
    Forget {
        /// Which.
        key: String,
    },
    /// The key has this record from now on.
    Put {
        /// Which.
        key: String,
        /// What.
        record: R,
    },
}

/// A line that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// Where it lies in the journal, with its end of line.
    pub(super) at: Range<usize>,
    /// Format of its writer.
    pub(super) format: u32,
    /// The oldest format that can read it.
    pub(super) min_reader: u32,
    /// Where its payload lies.
    pub(super) payload: Range<usize>,
}

/// A journal, cut into its good beginning and the rest.
#[derive(Debug, Default)]
pub(super) struct Cut {
    /// Whole lines from the beginning on.
    pub(super) good: Vec<Frame>,
    /// Where they end.
    pub(super) end: usize,
    /// Whole lines behind the first that is not.
    pub(super) beyond: Vec<Frame>,
}

/// The line of one entry.
pub(super) fn encode<R: Serialize>(
    entry: &Entry<R>,
    format: u32,
    min_reader: u32,
) -> serde_json::Result<Vec<u8>> {
    let payload = serde_json::to_string(entry)?;
    let body = format!("{format} {min_reader} {} {payload}", payload.len());
    Ok(format!("{:08x} {body}\n", crc32fast::hash(body.as_bytes())).into_bytes())
}

/// The entry of a payload. Unknown fields are let pass; a kind of entry that is unknown is an error.
pub(super) fn decode<R: DeserializeOwned>(payload: &[u8]) -> serde_json::Result<Entry<R>> {
    serde_json::from_slice(payload)
}

/// Cuts a journal where it stops being whole.
pub(super) fn cut(journal: &[u8]) -> Cut {
    let mut cut = Cut::default();
    let mut at = 0;
    let mut broken = false;
    while at < journal.len() {
        let Some(length) = journal[at..].iter().position(|b| *b == b'\n') else { break };
        let line = at..at + length + 1;
        at = line.end;
        match frame(journal, line) {
            Some(frame) if broken => cut.beyond.push(frame),
            Some(frame) => {
                cut.end = frame.at.end;
                cut.good.push(frame);
            }
            None => broken = true,
        }
    }
    cut
}

fn frame(journal: &[u8], at: Range<usize>) -> Option<Frame> {
    let line = &journal[at.start..at.end - 1];
    let (crc, body) = (line.get(..8)?, line.get(9..)?);
    if line[8] != b' ' || crc != format!("{:08x}", crc32fast::hash(body)).as_bytes() {
        return None;
    }
    let mut words = body.splitn(4, |b| *b == b' ');
    let mut number = || std::str::from_utf8(words.next()?).ok()?.parse::<u32>().ok();
    let (format, min_reader, length) = (number()?, number()?, number()?);
    let payload = words.next()?.len();
    let end = at.end - 1;
    (u64::from(length) == payload as u64).then(|| Frame {
        at,
        format,
        min_reader,
        payload: end - payload..end,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(key: &str, record: &str) -> Vec<u8> {
        let entry = Entry::Put { key: key.into(), record: record.to_owned() };
        encode(&entry, 3, 2).expect("serializes")
    }

    #[test]
    fn a_line_comes_back_with_its_versions() {
        let line = put("a b\n", "x\ny");
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        let cut = cut(&line);
        assert_eq!((cut.good.len(), cut.end, cut.beyond.len()), (1, line.len(), 0));
        assert_eq!((cut.good[0].format, cut.good[0].min_reader), (3, 2));
        let entry = decode::<String>(&line[cut.good[0].payload.clone()]).expect("parses");
        assert_eq!(entry, Entry::Put { key: "a b\n".into(), record: "x\ny".into() });
    }

    #[test]
    fn lines_behind_damage_are_told_from_good_ones() {
        let mut journal = [put("a", "1"), put("b", "2"), put("c", "3")].concat();
        let second = put("a", "1").len();
        journal[second + 12] ^= 1;
        let cut = cut(&journal);
        assert_eq!((cut.good.len(), cut.end, cut.beyond.len()), (1, second, 1));
    }

    proptest! {
        #[test]
        fn no_changed_byte_goes_unnoticed(at in 0usize..1000, flip in 1u8..) {
            let good = put("key", "some record");
            let mut bad = good.clone();
            let at = at % bad.len();
            bad[at] ^= flip;
            prop_assert!(cut(&bad).good.is_empty(), "byte {} to {}", at, bad[at]);
        }

        #[test]
        fn nothing_that_may_lie_on_a_disk_upsets_it(
            journal in prop::collection::vec(any::<u8>(), 0..300)
        ) {
            prop_assert!(cut(&journal).end <= journal.len());
        }
    }
}

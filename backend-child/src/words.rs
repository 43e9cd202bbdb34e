//! What a child says on standard error: told line by line, and never more than a log can bear.

use std::time::{Duration, Instant};

use vgpu_core::Vendor;

/// A longer line is cut.
const LONGEST: usize = 1_000;

/// So many lines at once,
const BURST: u32 = 100;

/// and one more for each of these.
const PER_LINE: Duration = Duration::from_millis(100);

/// Its lines, as they come in pieces.
#[derive(Debug)]
pub(crate) struct Words {
    vendor: Vendor,
    line: Vec<u8>,
    last: String,
    left: u32,
    earned: Instant,
    dropped: u64,
}

impl Words {
    pub(crate) fn of(vendor: Vendor, now: Instant) -> Self {
        let (line, last) = (Vec::new(), String::new());
        Self { vendor, line, last, left: BURST, earned: now, dropped: 0 }
    }

    /// Takes a piece.
    pub(crate) fn hear(&mut self, piece: &[u8], now: Instant) {
        for &byte in piece {
            match byte {
                b'\n' => self.end_line(now),
                _ if self.line.len() < LONGEST => self.line.push(byte),
                _ => {}
            }
        }
    }

    /// Its last line, for the one who asks why it ended; empty if it said nothing.
    pub(crate) fn last(&mut self, now: Instant) -> &str {
        self.end_line(now);
        &self.last
    }

    fn end_line(&mut self, now: Instant) {
        let text = String::from_utf8_lossy(&self.line);
        // A terminal that shows the log is not the library's to command.
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.line.clear();
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        self.last = text.to_owned();
        if self.may_tell(now) {
            if self.dropped > 0 {
                tracing::warn!(vendor = %self.vendor, lines = self.dropped, "lines of the child were dropped");
                self.dropped = 0;
            }
            tracing::info!(vendor = %self.vendor, child = text);
        } else {
            self.dropped += 1;
        }
    }

    fn may_tell(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.earned).as_millis();
        let earned = u32::try_from(since / PER_LINE.as_millis()).unwrap_or(BURST);
        if earned > 0 {
            self.earned = now;
            self.left = self.left.saturating_add(earned).min(BURST);
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_cut_and_cleaned() {
        let now = Instant::now();
        let mut words = Words::of(Vendor::new("acme"), now);
        words.hear(b"one\ntw", now);
        assert_eq!(words.last, "one");
        words.hear(b"o\n\n  \n", now);
        assert_eq!(words.last, "two");
        words.hear(b"\x1b[31mred\xff\n", now);
        assert_eq!(words.last, "[31mred\u{fffd}");
        words.hear(&vec![b'x'; 10_000_000], now);
        assert!(words.line.capacity() <= 4 * LONGEST, "{}", words.line.capacity());
        assert_eq!(words.last(now).len(), LONGEST);
    }

    #[test]
    fn a_flood_is_counted_and_not_told() {
        let now = Instant::now();
        let mut words = Words::of(Vendor::new("acme"), now);
        for _ in 0..1_000 {
            words.hear(b"again\n", now);
        }
        assert_eq!(words.dropped, u64::from(1_000 - BURST));
        words.hear(b"later\n", now + PER_LINE);
        assert_eq!(words.dropped, 0, "told, now that there is room");
        words.hear(b"again\n", now + PER_LINE);
        assert_eq!(words.dropped, 1);
        words.hear(b"much later\n", now + PER_LINE * 100_000);
        assert_eq!(words.left, BURST - 1);
    }
}

//! Frames: four bytes of length, the highest first, then so many bytes of JSON.

use std::io::{self, Read};

use serde::Serialize;

use crate::protocol::FRAME_LIMIT;

/// How much memory a buffer may keep between frames.
const KEPT: usize = 1 << 20;

/// A message as a frame.
///
/// # Errors
/// In words, when it does not serialize or is too long.
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, String> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message).map_err(|e| format!("it is no JSON: {e}"))?;
    let length = frame.len() - 4;
    match u32::try_from(length) {
        Ok(told) if length <= FRAME_LIMIT => frame[..4].copy_from_slice(&told.to_be_bytes()),
        _ => return Err(format!("it has {length} bytes, and a frame at most {FRAME_LIMIT}")),
    }
    Ok(frame)
}

/// Waits for a frame; `None` where the stream ends before one.
///
/// # Errors
/// The stream's; `InvalidData` for a length that no frame has, `UnexpectedEof` within a frame.
pub(crate) fn read(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    let first = loop {
        match input.read(&mut length[..1]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            first => break first?,
        }
    };
    if first == 0 {
        return Ok(None);
    }
    input.read_exact(&mut length[1..])?;
    let wrong = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    let length = self::length(length).map_err(wrong)?;
    // It grows as bytes come: a length alone costs nothing.
    let mut frame = Vec::new();
    input.take(length as u64).read_to_end(&mut frame)?;
    if frame.len() < length {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends within a frame"));
    }
    Ok(Some(frame))
}

/// Frames out of pieces, as they come.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    buffer: Vec<u8>,
    /// Where the next frame begins.
    at: usize,
}

impl Assembler {
    /// Takes a piece.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(KEPT);
            self.at = 0;
        } else if self.at > 0 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        self.buffer.extend_from_slice(piece);
    }

    /// The next frame that is complete.
    ///
    /// # Errors
    /// In words, for a length that no frame has; nothing after it can be understood.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, String> {
        let rest = &self.buffer[self.at..];
        let Some((head, body)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = length(*head)?;
        let Some(frame) = body.get(..length) else { return Ok(None) };
        self.at += 4 + length;
        Ok(Some(frame))
    }
}

fn length(head: [u8; 4]) -> Result<usize, String> {
    let length = u32::from_be_bytes(head) as usize;
    if length == 0 || length > FRAME_LIMIT {
        let seen = head.escape_ascii();
        return Err(format!(
            "a frame of {length} bytes was announced, of at most {FRAME_LIMIT}; it begins with \
             \"{seen}\""
        ));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_they_are_cut() {
        let messages = ["", "a", "two words", &"long ".repeat(10_000)];
        let stream: Vec<u8> = messages.iter().flat_map(|m| encode(m).expect("a frame")).collect();
        for size in [1, 2, 3, 5, 7, 4_096, stream.len()] {
            let mut assembler = Assembler::default();
            let mut seen = Vec::new();
            for piece in stream.chunks(size) {
                assembler.push(piece);
                while let Some(frame) = assembler.next().expect("frames") {
                    seen.push(serde_json::from_slice::<String>(frame).expect("text"));
                }
            }
            assert_eq!(seen, messages, "in pieces of {size}");
        }
        let mut input = &stream[..];
        for message in messages {
            let frame = read(&mut input).expect("a frame").expect("not the end");
            assert_eq!(serde_json::from_slice::<String>(&frame).expect("text"), message);
        }
        assert_eq!(read(&mut input).expect("the end"), None);
    }

    #[test]
    fn what_is_no_frame_is_told_with_what_it_begins_with() {
        let mut assembler = Assembler::default();
        assembler.push(b"hello, I am a library");
        let why = assembler.next().expect_err("no frame");
        assert!(why.contains("\"hell\""), "{why}");
        let e = read(&mut &b"\0\0\0\0"[..]).expect_err("an empty frame");
        assert_eq!(e.kind(), io::ErrorKind::InvalidData);
        let e = read(&mut &b"\0\0\0\x05abc"[..]).expect_err("half a frame");
        assert_eq!(e.kind(), io::ErrorKind::UnexpectedEof);
        let e = read(&mut &b"\0\0"[..]).expect_err("half a length");
        assert_eq!(e.kind(), io::ErrorKind::UnexpectedEof);
        let long = "x".repeat(FRAME_LIMIT);
        assert!(encode(&long).expect_err("too long").contains("16777218"));
    }
}

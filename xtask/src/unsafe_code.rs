//! Finds the word `unsafe` in code, where it may not be.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Every place with `unsafe` outside `sys.rs`, `bindings.rs` and `examples/`, as `path:line`.
pub(crate) fn misplaced(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in entries(&folder)? {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let name = name.unwrap_or_default();
            if path.is_dir() && !path.is_symlink() {
                if !name.starts_with('.') && !name.starts_with("target") && name != "examples" {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") && !matches!(name.as_str(), "bindings.rs" | "sys.rs") {
                found.extend(in_file(root, &path)?);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("cannot list {}", folder.display()))
}

fn in_file(root: &Path, path: &Path) -> Result<Vec<String>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let shown = path.strip_prefix(root).unwrap_or(path).display();
    Ok(lines(&text).into_iter().map(|line| format!("{shown}:{line}")).collect())
}

/// The lines, from 1, on which the word stands in code: not in a comment, text or longer word.
fn lines(text: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut line, mut found) = (0, 1, Vec::new());
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = match rest {
            [b'/', b'/', ..] => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
            [b'/', b'*', ..] => block_comment(rest),
            [b'"', ..] => quoted(rest),
            [b'\'', ..] => character(rest),
            [first, ..] if is_word(*first) => {
                let length = rest.iter().take_while(|byte| is_word(**byte)).count();
                match (&rest[..length], raw_text(&rest[length..])) {
                    (b"unsafe", _) => {
                        found.push(line);
                        length
                    }
                    (b"r" | b"br" | b"cr", Some(raw)) => length + raw,
                    _ => length,
                }
            }
            _ => 1,
        };
        line += rest[..length].iter().filter(|byte| **byte == b'\n').count();
        at += length;
    }
    found
}

/// Comments nest.
fn block_comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_u32);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    rest.len()
}

fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// A character, of which only `'"'` and `'\…'` could mislead; anything else may be a lifetime.
fn character(rest: &[u8]) -> usize {
    match rest {
        [_, b'\\', _, tail @ ..] => {
            3 + tail.iter().position(|byte| *byte == b'\'').map_or(0, |end| end + 1)
        }
        [_, _, b'\'', ..] => 3,
        _ => 1,
    }
}

/// What follows the `r` of a raw text: `#` as often as at its end.
fn raw_text(rest: &[u8]) -> Option<usize> {
    let hashes = rest.iter().take_while(|byte| **byte == b'#').count();
    if rest.get(hashes) != Some(&b'"') {
        return None;
    }
    let mut end = vec![b'"'];
    end.resize(hashes + 1, b'#');
    let body = &rest[hashes + 1..];
    let length = body.windows(end.len()).position(|window| window == end);
    Some(length.map_or(rest.len(), |length| hashes + 1 + length + end.len()))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_found_in_code() {
        let text =
            "fn f() {\n    unsafe { g() }\n}\n#[unsafe(no_mangle)]\nunsafe impl Send for X {}\n";
        assert_eq!(lines(text), [2, 4, 5]);
    }

    #[test]
    fn what_is_no_code_is_not_code() {
        let text = concat!(
            "// unsafe\n/* unsafe /* unsafe */ unsafe */\n\"unsafe \\\" unsafe\"\n",
            "#![forbid(unsafe_code)]\nr#\"unsafe \" unsafe\"#\nb\"unsafe\"\nnot_unsafe\n",
        );
        assert_eq!(lines(text), Vec::<usize>::new());
    }

    #[test]
    fn quotes_do_not_swallow_code() {
        let text = "let q = '\"'; let b = '\\''; fn f<'a>(x: &'a str) {}\nr\"\\\"; unsafe {}\n";
        assert_eq!(lines(text), [2]);
        assert_eq!(lines("r##\"a\"#b\"## unsafe"), [1]);
        assert_eq!(lines("/* open unsafe"), Vec::<usize>::new());
    }

    #[test]
    fn only_some_files_may_have_it() {
        let root = std::env::temp_dir().join(format!("vgpu-xtask-{}", std::process::id()));
        for path in ["a/src/sys.rs", "a/src/bindings.rs", "a/examples/x/lib.rs", "target/x.rs"] {
            put(&root, path);
        }
        assert_eq!(misplaced(&root).expect("it can be read"), Vec::<String>::new());
        put(&root, "a/src/api.rs");
        put(&root, "a/tests/t.rs");
        let found = misplaced(&root).expect("it can be read");
        fs::remove_dir_all(&root).expect("it was made here");
        assert_eq!(found, ["a/src/api.rs:1", "a/tests/t.rs:1"]);
    }

    fn put(root: &Path, path: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("folders");
        fs::write(path, "unsafe {}\n").expect("a file");
    }
}

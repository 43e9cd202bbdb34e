//! Files that people write: read within bounds, and parsed so that a mistake is told with its place.

use std::fs::File;
use std::io::{self, Read};

use serde::de::DeserializeOwned;

use crate::failure::Failure;

/// The text of a file, or of stdin for `-`.
pub(crate) fn read(name: &str) -> Result<String, Failure> {
    let place = named(name);
    let mut text = Vec::new();
    let got = match name {
        "-" => io::stdin().lock().take(MOST + 1).read_to_end(&mut text),
        file => File::open(file).and_then(|file| file.take(MOST + 1).read_to_end(&mut text)),
    };
    got.map_err(|error| {
        Failure::input(format!("cannot read it: {error}"))
            .at(place)
            .so("name a file that can be read, or - for stdin")
    })?;
    if text.len() as u64 > MOST {
        return Err(Failure::input(format!("it is larger than {} MiB", MOST >> 20))
            .at(place)
            .so("give less at once"));
    }
    String::from_utf8(text).map_err(|error| {
        Failure::input(format!("it is not UTF-8 from byte {} on", error.utf8_error().valid_up_to()))
            .at(place)
            .so("write it as JSON in UTF-8")
    })
}

/// Parses JSON; unknown fields are refused wherever they are, and a mistake is told with its path.
pub(crate) fn decode<T: DeserializeOwned>(text: &str, name: &str) -> Result<T, Failure> {
    let mut unknown: Option<String> = None;
    let mut track = serde_path_to_error::Track::new();
    let mut json = serde_json::Deserializer::from_str(text);
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let parsed = serde_ignored::deserialize(tracked, |path| {
        unknown.get_or_insert_with(|| path_text(&path));
    });
    let wrong = |error: serde_json::Error, path: String| {
        let line = match error.line() {
            0 => String::new(),
            line => format!(", line {line} column {}", error.column()),
        };
        let text = error.to_string();
        // The place is told once, behind.
        let what = text.rsplit_once(" at line ").map_or(&*text, |(what, _)| what);
        let failure = Failure::input(what).at(format!("{}{path}{line}", named(name)));
        match remedy(&error, what, &path) {
            Some(remedy) => failure.so(remedy),
            None => failure,
        }
    };
    let value = parsed.map_err(|error| {
        let path = track.path().to_string();
        let path = if path == "." { String::new() } else { format!(", {path}") };
        wrong(error, path)
    })?;
    json.end().map_err(|error| wrong(error, String::new()))?;
    match unknown {
        None => Ok(value),
        Some(path) => Err(Failure::input("unknown field")
            .at(format!("{}, {path}", named(name)))
            .so("correct its name or leave it out")),
    }
}

/// A 100-MB message is a mistake, not an inventory.
const MOST: u64 = 64 << 20;

fn named(name: &str) -> &str {
    if name == "-" { "stdin" } else { name }
}

/// A path in the form of the other one, `nodes[0].devices[1].id`.
fn path_text(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;

    match path {
        Path::Map { parent, key } => match &*path_text(parent) {
            "" => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent }
        | Path::Some { parent } => path_text(parent),
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", path_text(parent)),
    }
}

fn remedy(error: &serde_json::Error, what: &str, path: &str) -> Option<&'static str> {
    let of_memory = ["memory", "min", "step"].iter().any(|field| path.ends_with(field));
    if of_memory && what.contains("expected a string") {
        return Some("memory has a unit and is a text: \"10Gi\", \"256Mi\" or \"1000B\"");
    }
    match error.classify() {
        serde_json::error::Category::Eof => Some("it ends too early; is it the whole file?"),
        serde_json::error::Category::Syntax => Some("write it as JSON"),
        // Our own types say what to write; serde names what it expected.
        serde_json::error::Category::Data | serde_json::error::Category::Io => None,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use vgpu_core::Size;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Form {
        #[expect(dead_code, reason = "only parsed")]
        sizes: Vec<Size>,
        #[expect(dead_code, reason = "only parsed")]
        inner: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        #[expect(dead_code, reason = "only parsed")]
        n: u8,
    }

    #[test]
    fn every_mistake_has_its_place() {
        for (text, says) in [
            (r#"{"sizes": [{"memory": "1Gi"}, {"memory": 10}]}"#, "f.json, sizes[1].memory"),
            (r#"{"sizes": [{"memory": "10"}]}"#, "it has no unit"),
            (r#"{"sizes": [{"memory": 10}]}"#, "memory has a unit and is a text"),
            (r#"{"sizes": [], "inner": {"n": 1, "m": 2}}"#, "unknown field (f.json, inner.m)"),
            (r#"{"sizes": [], "outer": 1}"#, "unknown field (f.json, outer)"),
            (r#"{"sizes": []} x"#, "line 1 column 15"),
            (r#"{"sizes": ["#, "it ends too early"),
            ("", "it ends too early"),
            ("hello", "write it as JSON"),
        ] {
            let told = decode::<Form>(text, "f.json").expect_err("wrong").to_string();
            assert!(told.contains(says), "{text}: {told}");
        }
        assert!(decode::<Form>(r#"{"sizes": [{"memory": "1Gi"}], "inner": null}"#, "-").is_ok());
    }
}

//! Reading for one topic: what is there and cannot be read becomes a finding, never silence.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::doctor::catalogue::Check;
use crate::doctor::finding::{Finding, Topic};
use crate::doctor::tree::Tree;

/// Reads the host's files for one topic.
#[derive(Debug)]
pub(crate) struct Reader<'t> {
    pub(crate) tree: &'t Tree,
    topic: Topic,
    /// What could not be read.
    pub(crate) troubles: Vec<Finding>,
}

impl<'t> Reader<'t> {
    pub(crate) fn new(tree: &'t Tree, topic: Topic) -> Self {
        Self { tree, topic, troubles: Vec::new() }
    }

    /// A file's text; nothing where it is absent or, with a finding, cannot be read.
    pub(crate) fn text(&mut self, path: &Path) -> Option<String> {
        let bytes = self.tree.bytes(path);
        let bytes = self.read(path, bytes)??;
        let text = String::from_utf8(bytes);
        self.made(
            path,
            text.map_err(|e| {
                format!("it is not UTF-8 from byte {} on", e.utf8_error().valid_up_to())
            }),
        )
    }

    /// What a file of TOML says.
    pub(crate) fn toml<T: DeserializeOwned>(&mut self, path: &Path) -> Option<T> {
        let text = self.text(path)?;
        self.made(path, toml::from_str(&text).map_err(|e| first(&e.to_string())))
    }

    /// What a file of JSON says.
    pub(crate) fn json<T: DeserializeOwned>(&mut self, path: &Path) -> Option<T> {
        let text = self.text(path)?;
        self.made(path, serde_json::from_str(&text))
    }

    /// What a file of YAML says.
    pub(crate) fn yaml<T: DeserializeOwned>(&mut self, path: &Path) -> Option<T> {
        let text = self.text(path)?;
        self.made(path, serde_saphyr::from_str(&text).map_err(|e| first(&e.to_string())))
    }

    /// The names in a folder, as whole paths of the host; none where it is absent.
    pub(crate) fn paths(&mut self, folder: &Path) -> Vec<PathBuf> {
        let names = self.tree.names(folder);
        let names = self.read(folder, names).unwrap_or_default();
        names.into_iter().map(|name| folder.join(name)).collect()
    }

    /// A piece of a file that was read, if it makes sense.
    pub(crate) fn made<T, E: Display>(&mut self, path: &Path, made: Result<T, E>) -> Option<T> {
        made.map_err(|why| {
            let what = format!("a file that is not what it should be was passed over: {why}");
            let remedy = "correct or remove the file, and look again";
            self.say(Finding::new(Check::Damaged, what).at(path.display()).so(remedy));
        })
        .ok()
    }

    /// What was read, if it could be.
    pub(crate) fn read<T>(&mut self, path: &Path, read: io::Result<T>) -> Option<T> {
        read.map_err(|why| {
            let remedy = match why.kind() {
                io::ErrorKind::PermissionDenied => "run `vgpu doctor` as root",
                _ => "look at the file and at the disk, and look again",
            };
            let what = format!("what cannot be read was passed over: {why}");
            self.say(Finding::new(Check::Unreadable, what).at(path.display()).so(remedy));
        })
        .ok()
    }

    fn say(&mut self, finding: Finding) {
        self.troubles.push(finding.about(self.topic));
    }
}

/// What a parser's picture of a mistake says, without the picture.
fn first(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let drawn = |line: &&&str| !line.contains('|') && !line.starts_with("-->");
    lines.iter().filter(drawn).copied().collect::<Vec<_>>().join("; ")
}

//! The options of `cargo xtask cluster`.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};

use crate::cluster::{HELP, default_dir};

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) out: Option<PathBuf>,
    pub(crate) jobs: u32,
    pub(crate) force: bool,
    pub(crate) dir: PathBuf,
    pub(crate) only: Vec<String>,
    pub(crate) agent: Option<PathBuf>,
    pub(crate) hook: Option<PathBuf>,
    pub(crate) bin: Option<PathBuf>,
    pub(crate) times: u32,
    pub(crate) keep: bool,
    pub(crate) list: bool,
    pub(crate) release: bool,
    pub(crate) minutes: u32,
    pub(crate) csv: PathBuf,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            out: None,
            jobs: 1,
            force: false,
            dir: default_dir(),
            only: Vec::new(),
            agent: None,
            hook: None,
            bin: None,
            times: 1,
            keep: false,
            list: false,
            release: false,
            minutes: 30,
            csv: PathBuf::from("docs/churn.csv"),
        }
    }
}

impl Args {
    /// Reads what follows the command.
    ///
    /// # Errors
    /// An option that is not known, lacks its value, or has a bad one.
    pub(crate) fn parse(words: &[String]) -> Result<Self> {
        let mut args = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--out" => args.out = Some(value()?.into()),
                "--jobs" => args.jobs = number(word, value()?)?,
                "--force" => args.force = true,
                "--dir" => args.dir = absolute(value()?)?,
                "--only" => args.only.push(value()?.clone()),
                "--agent" => args.agent = Some(absolute(value()?)?),
                "--hook" => args.hook = Some(absolute(value()?)?),
                "--bin" => args.bin = Some(absolute(value()?)?),
                "--times" => args.times = number(word, value()?)?,
                "--keep" => args.keep = true,
                "--list" => args.list = true,
                "--release" => args.release = true,
                "--minutes" => args.minutes = number(word, value()?)?,
                "--csv" => args.csv = absolute(value()?)?,
                _ => bail!("cluster does not know the option {word}\n\n{HELP}"),
            }
        }
        // The box lays its own file systems over these.
        for covered in ["/var/lib", "/run", "/dev", "/var/run", "/opt", "/var/log", "/proc", "/sys"]
        {
            ensure!(
                !args.dir.starts_with(covered),
                "--dir {} lies below {covered}, which is another one inside the node; take another place",
                args.dir.display()
            );
        }
        Ok(args)
    }
}

fn number(option: &str, text: &str) -> Result<u32> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => bail!("{option} takes a number from 1, not {text:?}"),
    }
}

fn absolute(text: &str) -> Result<PathBuf> {
    std::path::absolute(text).with_context(|| format!("{text:?} is no path"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args> {
        Args::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read() {
        let args = parse("--only whole --only unit --dir /tmp/n --times 3 --keep").expect("parses");
        assert_eq!(args.only, ["whole", "unit"]);
        assert_eq!(args.dir, PathBuf::from("/tmp/n"));
        assert_eq!((args.times, args.keep, args.list), (3, true, false));
    }

    #[test]
    fn each_mistake_is_told() {
        for (line, word) in [
            ("--colour red", "--colour"),
            ("--only", "--only needs a value"),
            ("--times 0", "from 1"),
            ("--jobs many", "many"),
            ("--dir /var/lib/x", "/var/lib"),
        ] {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}

//! How a child is started and what is borne of it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use vgpu_core::Bytes;

/// How a child is started and what is borne of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildOptions {
    /// The program.
    pub program: PathBuf,
    /// What it is called with.
    pub arguments: Vec<OsString>,
    /// What is added to this process's environment for it.
    pub environment: Vec<(OsString, OsString)>,
    /// How long it may take to say hello.
    pub hello: Duration,
    /// How long a call may take, the probe too, before the child is killed. It ought to be longer
    /// than callers wait, since a call that returns late is better than one that is in doubt.
    pub call: Duration,
    /// How much address space it may have; without it no limit.
    pub memory: Option<Bytes>,
    /// The pause before it is started anew: the first, and the longest after failures in a row.
    pub pause: (Duration, Duration),
    /// What becomes of it when the driver under its library was replaced.
    pub replaced: Replaced,
}

/// What becomes of a child when the driver under its library was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// It is started anew; callers see a retryable error meanwhile.
    Restart,
    /// Callers are told `DriverReplaced`, as by a backend in this process.
    Tell,
}

impl ChildOptions {
    /// 15 s for hello, 60 s for a call, no limit of memory, pauses from 1 s to 15 s, started anew
    /// when the driver was replaced.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            hello: Duration::from_secs(15),
            call: Duration::from_secs(60),
            memory: None,
            pause: (Duration::from_secs(1), Duration::from_secs(15)),
            replaced: Replaced::Restart,
        }
    }

    /// The program that runs now, called with this: its own code serves in the child. It stays the
    /// same program when its file is replaced meanwhile.
    pub fn own<A: Into<OsString>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Self::new("/proc/self/exe").arguments(arguments)
    }

    /// The same with these arguments.
    #[must_use]
    pub fn arguments<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// The same with one more variable in its environment.
    #[must_use]
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }
}

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::backoff::random;
use crate::fake::clock::FakeClock;
use crate::paths::KubeletPaths;

/// How the fake kubelet behaves; start from [`FakeOptions::under`].
#[derive(Debug, Clone)]
pub struct FakeOptions {
    /// Where its sockets and its checkpoint lie.
    pub paths: KubeletPaths,
    /// Where the runtime looks for CDI specs; a later folder wins over an earlier one.
    pub cdi_dirs: Vec<PathBuf>,
    /// For the orders that are random in a kubelet: resources, devices, choices.
    pub seed: u64,
    /// What the end of an old instance's stream does to a new instance.
    pub old_stream_end: OldStreamEnd,
    /// When the devices of a deleted pod are forgotten.
    pub forget: Forget,
    /// For dialling back inside Register.
    pub dial_limit: Duration,
    /// For `PreStartContainer`.
    pub pre_start_limit: Duration,
    /// How long `PodResources` answers with no pods after each start but the first, on the clock.
    pub pods_hidden: Duration,
    /// For `pods_hidden` and the 5 minutes after which a resource without plugin is dropped.
    pub clock: FakeClock,
    /// How long the wait helpers wait in real time; only a guard.
    pub wait_limit: Duration,
}

impl FakeOptions {
    /// The kubelet's own limits, below one folder, with a random seed, a clock that runs and CDI specs in `cdi` there.
    #[must_use]
    pub fn under(folder: impl AsRef<Path>) -> Self {
        Self {
            paths: KubeletPaths::under(&folder),
            cdi_dirs: vec![folder.as_ref().join("cdi")],
            seed: random(),
            old_stream_end: OldStreamEnd::DisconnectsNew,
            forget: Forget::AtOnce,
            dial_limit: Duration::from_secs(10),
            pre_start_limit: Duration::from_secs(30),
            pods_hidden: Duration::ZERO,
            clock: FakeClock::running(),
            wait_limit: Duration::from_secs(30),
        }
    }
}

/// What happens when a plugin's stream ends after another instance has registered the same resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OldStreamEnd {
    /// The new instance is disconnected; so in Kubernetes up to 1.36.
    DisconnectsNew,
    /// Nothing; so after 1.36.
    IsIgnored,
}

/// When the devices of a deleted pod are free and gone from the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forget {
    /// With the deletion, file included: what tests mostly want.
    AtOnce,
    /// As a kubelet does: in memory at the next `PodResources` list or admission of a pod with devices; in the file when it is
    /// written next, which is at an allocation or when a plugin sends a list. On a quiet node the file names a deleted pod
    /// for ever.
    Lazily,
}

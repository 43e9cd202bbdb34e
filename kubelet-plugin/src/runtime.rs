use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::pb::runtime::VersionRequest;
use crate::pb::runtime::runtime_service_client::RuntimeServiceClient;
use crate::transport::connect;

/// Who the container runtime says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeVersion {
    /// `containerd`, `cri-o`, or another.
    pub name: String,
    /// As it tells it, `v2.3.4`.
    pub version: String,
}

/// What becomes of CDI names that a device plugin answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CdiSupport {
    /// They are resolved, if the runtime's configuration switched it on.
    IfConfigured,
    /// They are resolved.
    On,
    /// They are silently ignored: containers start without their devices.
    Silent,
    /// This runtime is not known here.
    Unknown,
}

impl RuntimeVersion {
    /// Where runtimes usually listen, below the host's root.
    pub const USUAL: [&str; 2] = ["run/containerd/containerd.sock", "run/crio/crio.sock"];

    /// Asks the runtime behind a CRI socket.
    ///
    /// # Errors
    ///
    /// [`RuntimeError`], with the socket and what to look at.
    pub async fn ask(socket: &Path, limit: Duration) -> Result<Self, RuntimeError> {
        let failed = |why: String| RuntimeError { socket: socket.into(), why };
        let asking = async {
            let channel = connect(socket).await.map_err(|error| failed(error.to_string()))?;
            let request = VersionRequest { version: "v1".into() };
            let answer = RuntimeServiceClient::new(channel).version(request).await;
            let answer = answer.map_err(|status| failed(status.message().to_owned()))?;
            let answer = answer.into_inner();
            Ok(Self { name: answer.runtime_name, version: answer.runtime_version })
        };
        let late = || failed(format!("no answer within {limit:?}"));
        tokio::time::timeout(limit, asking).await.map_err(|_elapsed| late())?
    }

    /// What this version does with CDI names.
    #[must_use]
    pub fn cdi(&self) -> CdiSupport {
        let version = self.numbers();
        match (self.name.as_str(), version) {
            ("containerd", Some(version)) if version < (1, 7) => CdiSupport::Silent,
            ("containerd", Some(version)) if version < (2, 0) => CdiSupport::IfConfigured,
            ("containerd", Some(_)) => CdiSupport::On,
            ("cri-o", Some(version)) if version < (1, 23) => CdiSupport::Silent,
            ("cri-o", Some(_)) => CdiSupport::On,
            _ => CdiSupport::Unknown,
        }
    }

    fn numbers(&self) -> Option<(u32, u32)> {
        let mut parts = self.version.trim_start_matches('v').split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        Some((major, minor))
    }
}

/// The runtime could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the container runtime at {} does not answer: {why}; is this the CRI socket that the kubelet uses?",
    socket.display()
)]
pub struct RuntimeError {
    socket: PathBuf,
    why: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeRuntime;

    #[tokio::test]
    async fn a_runtime_is_asked_over_its_socket() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("containerd.sock");
        let old = FakeRuntime { name: "containerd".into(), version: "1.6.20~ds1".into() };
        let at = socket.clone();
        let serving = tokio::spawn(async move { old.serve(&at).await });
        while !socket.exists() {
            assert!(!serving.is_finished(), "it does not serve");
            tokio::task::yield_now().await;
        }
        let limit = Duration::from_secs(20);
        let version = RuntimeVersion::ask(&socket, limit).await.expect("answers");
        assert_eq!(version.name, "containerd");
        assert_eq!(version.cdi(), CdiSupport::Silent);
        serving.abort();
        let error = RuntimeVersion::ask(&folder.path().join("none.sock"), limit).await;
        assert!(error.expect_err("nobody is there").to_string().contains("none.sock"));
    }

    #[test]
    fn old_runtimes_ignore_cdi_silently() {
        for (name, version, support) in [
            ("containerd", "1.6.20~ds1", CdiSupport::Silent),
            ("containerd", "v1.7.25", CdiSupport::IfConfigured),
            ("containerd", "v2.3.4", CdiSupport::On),
            ("cri-o", "1.33.0", CdiSupport::On),
            ("cri-o", "1.22.1", CdiSupport::Silent),
            ("containerd", "from source", CdiSupport::Unknown),
            ("another", "1.0.0", CdiSupport::Unknown),
        ] {
            let runtime = RuntimeVersion { name: name.into(), version: version.into() };
            assert_eq!(runtime.cdi(), support, "{name} {version}");
        }
    }
}

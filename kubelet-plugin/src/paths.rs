use std::path::{Path, PathBuf};

/// `sun_path` holds 108 bytes and the last is the end mark.
pub(crate) const SOCKET_PATH_LIMIT: usize = 107;

/// Where a kubelet keeps what plugins talk to. Every folder can be set alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeletPaths {
    /// The folder with `kubelet.sock` and the plugins' sockets. The kubelet compiles `/var/lib/kubelet/device-plugins` in
    /// and does not move it with `--root-dir`.
    pub device_plugins: PathBuf,
    /// The socket of the `PodResources` service; moves with `--root-dir`.
    pub pod_resources_socket: PathBuf,
}

impl KubeletPaths {
    /// The usual places below one folder.
    #[must_use]
    pub fn under(kubelet_dir: impl AsRef<Path>) -> Self {
        let dir = kubelet_dir.as_ref();
        Self {
            device_plugins: dir.join("device-plugins"),
            pod_resources_socket: dir.join("pod-resources/kubelet.sock"),
        }
    }

    /// The kubelet's registration socket.
    #[must_use]
    pub fn registration_socket(&self) -> PathBuf {
        self.device_plugins.join("kubelet.sock")
    }

    /// The file in which the kubelet keeps which container holds which device.
    #[must_use]
    pub fn checkpoint(&self) -> PathBuf {
        self.device_plugins.join("kubelet_internal_checkpoint")
    }
}

impl Default for KubeletPaths {
    fn default() -> Self {
        Self::under("/var/lib/kubelet")
    }
}

/// A socket path that the system cannot take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the socket path {path} has {length} bytes and a Unix socket takes {SOCKET_PATH_LIMIT}; \
     use a shorter directory or socket prefix"
)]
pub struct SocketPathError {
    path: String,
    length: usize,
}

pub(crate) fn check_socket_path(path: &Path) -> Result<(), SocketPathError> {
    let length = path.as_os_str().len();
    if length <= SOCKET_PATH_LIMIT {
        return Ok(());
    }
    Err(SocketPathError { path: path.display().to_string(), length })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_moves_alone() {
        let paths = KubeletPaths {
            pod_resources_socket: "/data/kubelet/pod-resources/kubelet.sock".into(),
            ..KubeletPaths::default()
        };
        assert_eq!(
            paths.checkpoint(),
            Path::new("/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint")
        );
        assert_eq!(
            paths.registration_socket(),
            Path::new("/var/lib/kubelet/device-plugins/kubelet.sock")
        );
    }

    #[test]
    fn the_path_limit_is_exact() {
        assert!(check_socket_path(Path::new(&"x".repeat(107))).is_ok());
        let error = check_socket_path(Path::new(&"x".repeat(108))).unwrap_err();
        assert!(error.to_string().contains("108 bytes"), "{error}");
    }
}

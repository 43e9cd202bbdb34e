use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;

use crate::socket_name::SocketNames;
use crate::transport::SocketIdentity;

/// A socket that is bound and not listening yet refuses connections for a moment; so ask twice.
const SECOND_LOOK: Duration = Duration::from_millis(200);
/// A listener that is alive and busy does not refuse, it lets us wait.
const PATIENCE: Duration = Duration::from_millis(500);

/// Removes sockets of earlier instances of this program at which nobody listens.
pub(crate) async fn sweep(folder: PathBuf, names: SocketNames) {
    // A folder that is not there has no leftovers.
    let Ok(entries) = std::fs::read_dir(&folder) else { return };
    let mut dead = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let ours = entry.file_name().to_str().is_some_and(|name| names.is_of_another(name));
        if ours
            && let Some(identity) = SocketIdentity::of(&path)
            && is_dead(&path).await
        {
            dead.push((path, identity));
        }
    }
    if dead.is_empty() {
        return;
    }
    tokio::time::sleep(SECOND_LOOK).await;
    for (path, identity) in dead {
        if SocketIdentity::of(&path) == Some(identity) && is_dead(&path).await {
            match std::fs::remove_file(&path) {
                Ok(()) => {
                    tracing::info!(path = %path.display(), "removed the socket of an earlier instance")
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "cannot remove the socket of an earlier instance")
                }
            }
        }
    }
}

async fn is_dead(path: &Path) -> bool {
    match tokio::time::timeout(PATIENCE, UnixStream::connect(path)).await {
        Ok(Err(error)) => error.kind() == ErrorKind::ConnectionRefused,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::resource::Resource;

    #[tokio::test]
    async fn only_dead_sockets_of_ours_go() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let resource = Resource::parse("vgpu.dev/slot").unwrap();
        let own = SocketNames::new("vgpu", 1).unwrap();
        let dead = at(&SocketNames::new("vgpu", 2).unwrap().endpoint(&resource));
        let alive = at(&SocketNames::new("vgpu", 3).unwrap().endpoint(&resource));
        let others = at(&SocketNames::new("other", 4).unwrap().endpoint(&resource));
        let mine = at(&own.endpoint(&resource));
        for path in [&dead, &others, &mine] {
            drop(UnixListener::bind(path).unwrap());
        }
        let _listener = UnixListener::bind(&alive).unwrap();
        let file = at("vgpu.slot-00000000.0badf00d.sock");
        std::fs::write(&file, "not a socket").unwrap();

        sweep(folder.path().to_owned(), own).await;

        assert!(!dead.exists());
        for path in [&alive, &others, &mine, &file] {
            assert!(path.exists(), "{}", path.display());
        }
    }
}

//! Tells that something may have changed in the kubelet's folder: at once by inotify, and slowly by the clock.

use std::path::{Path, PathBuf};
use std::time::Duration;

use inotify::{EventMask, EventStream, Inotify, WatchMask};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;

/// Without inotify (its instances are used up, or the folder is not there yet) a missed restart would cost the pods that are
/// admitted 0.8 s later, so look often.
const BLIND_POLL: Duration = Duration::from_millis(100);

/// Ticks for ever. Whoever listens looks at the folder itself; what an event says is never trusted, because events race with
/// what they tell.
pub(crate) async fn watch_folder(folder: PathBuf, poll: Duration, tick: watch::Sender<u64>) {
    let mut told = false;
    loop {
        match open(&folder) {
            Ok(events) => {
                told = false;
                // What came before the watch was set is told by nobody else.
                touch(&tick);
                until_lost(events, poll, &tick).await;
            }
            Err(error) => {
                if !told {
                    tracing::warn!(folder = %folder.display(), %error, "cannot watch the kubelet's folder; looking every {BLIND_POLL:?}");
                    told = true;
                }
                tokio::time::sleep(BLIND_POLL.min(poll)).await;
            }
        }
        touch(&tick);
    }
}

fn touch(tick: &watch::Sender<u64>) {
    tick.send_modify(|count| *count = count.wrapping_add(1));
}

type Events = EventStream<[u8; 4096]>;

fn open(folder: &Path) -> std::io::Result<Events> {
    let inotify = Inotify::init()?;
    let mask = WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR;
    inotify.watches().add(folder, mask)?;
    inotify.into_event_stream([0; 4096])
}

/// Returns when the folder itself is gone or moved, or the watch broke.
async fn until_lost(mut events: Events, poll: Duration, tick: &watch::Sender<u64>) {
    loop {
        let lost = match tokio::time::timeout(poll, events.next()).await {
            Ok(Some(Ok(event))) => event
                .mask
                .intersects(EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED),
            Ok(Some(Err(_)) | None) => true,
            Err(_elapsed) => false,
        };
        touch(tick);
        if lost {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_file_is_told_without_the_clock() {
        let folder = tempfile::tempdir().unwrap();
        let (tick, mut ticks) = watch::channel(0);
        // Only inotify can tick: the clock would take an hour.
        let task =
            tokio::spawn(watch_folder(folder.path().to_owned(), Duration::from_secs(3600), tick));
        next(&mut ticks).await; // the watch is set
        for name in ["a", "b", "c"] {
            std::fs::write(folder.path().join(name), "").unwrap();
            next(&mut ticks).await;
        }
        task.abort();
    }

    #[tokio::test]
    async fn a_folder_that_is_made_anew_is_watched_again() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("device-plugins");
        let (tick, mut ticks) = watch::channel(0);
        // Only inotify can end the watch on a folder that went; then the missing one is looked for every 100 ms.
        let task = tokio::spawn(watch_folder(folder.clone(), Duration::from_secs(3600), tick));
        for _ in 0..3 {
            std::fs::create_dir(&folder).unwrap();
            told_of(&mut ticks, &folder.join("a")).await;
            std::fs::remove_dir_all(&folder).unwrap();
            next(&mut ticks).await;
        }
        task.abort();
    }

    /// Makes files until one is told.
    async fn told_of(ticks: &mut watch::Receiver<u64>, path: &Path) {
        ticks.borrow_and_update();
        let writing = async {
            loop {
                std::fs::write(path, "").unwrap();
                std::fs::remove_file(path).unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = next(ticks) => {}
            () = writing => {}
        }
    }

    async fn next(ticks: &mut watch::Receiver<u64>) {
        let told = tokio::time::timeout(Duration::from_secs(30), ticks.changed()).await;
        told.expect("nothing was told").unwrap();
    }
}

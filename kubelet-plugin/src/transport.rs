//! Unix sockets that can be cut, moved and told apart: what `tonic` alone does not do.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};

/// Which socket file lies at a path. A new file at the same path has another identity even where the inode number is used
/// again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketIdentity {
    device: u64,
    inode: u64,
    modified: (i64, i64),
}

impl SocketIdentity {
    /// `None` where nothing, or nothing but a socket, lies at the path.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::symlink_metadata(path).ok()?;
        metadata.file_type().is_socket().then(|| Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// Accepted connections of one server. Several listeners, one after the other, may feed it.
pub(crate) type Incoming = ReceiverStream<io::Result<CuttableStream>>;

/// The giving end of [`Incoming`].
#[derive(Debug, Clone)]
pub(crate) struct Acceptor {
    connections: mpsc::Sender<io::Result<CuttableStream>>,
    cut: CancellationToken,
}

impl Acceptor {
    /// Connections of this acceptor end abruptly when `cut` is cancelled, as if the process had been killed.
    pub(crate) fn new(cut: CancellationToken) -> (Self, Incoming) {
        let (connections, incoming) = mpsc::channel(16);
        (Self { connections, cut }, ReceiverStream::new(incoming))
    }

    /// Binds a socket at a path, replacing what lies there, and accepts until the value is dropped, or the cut.
    pub(crate) fn listen(&self, path: &Path) -> io::Result<Listening> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        let identity = SocketIdentity::of(path)
            .ok_or_else(|| io::Error::other("the socket vanished right after it was bound"))?;
        let this = self.clone();
        let task = tokio::spawn(async move {
            this.cut.run_until_cancelled(this.accept(listener)).await;
        });
        Ok(Listening { identity, task })
    }

    async fn accept(&self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let stream = CuttableStream::new(stream, self.cut.clone());
                    if self.connections.send(Ok(stream)).await.is_err() {
                        return; // the server is gone
                    }
                }
                Err(error) => {
                    // Out of file descriptors: the connection stays in the backlog and can be taken later.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// A bound socket file and the task that accepts from it.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) identity: SocketIdentity,
    task: JoinHandle<()>,
}

impl Listening {
    /// Nobody can connect any more when this returns; connections that were made stay.
    #[cfg(feature = "fake-kubelet")]
    pub(crate) async fn close(mut self) {
        self.task.abort();
        // That it was aborted is what we want.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection that a token can end.
#[derive(Debug)]
pub(crate) struct CuttableStream {
    stream: UnixStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl CuttableStream {
    fn new(stream: UnixStream, cut: CancellationToken) -> Self {
        Self { stream, cut: Box::pin(cut.cancelled_owned()) }
    }

    fn is_cut(&mut self, context: &mut Context<'_>) -> bool {
        self.cut.as_mut().poll(context).is_ready()
    }
}

impl AsyncRead for CuttableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_cut(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_cut(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for CuttableStream {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

/// Opens one connection. None is kept between calls, so that a kubelet that was restarted is never spoken to over a dead one.
pub(crate) async fn connect(path: &Path) -> Result<Channel, ConnectError> {
    let told = || path.display().to_string();
    let endpoint = Endpoint::from_shared(format!("unix://{}", path.display()))
        .map_err(|source| ConnectError { path: told(), source })?;
    endpoint.connect().await.map_err(|source| ConnectError { path: told(), source })
}

/// Nobody answers at a socket.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {path}: {}", root_cause(.source))]
pub(crate) struct ConnectError {
    path: String,
    source: tonic::transport::Error,
}

/// `tonic` says "transport error"; the system's own words are at the end of the chain.
fn root_cause(error: &tonic::transport::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

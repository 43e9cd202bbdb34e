//! A container runtime that only says who it is.

use std::io;
use std::path::Path;

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use crate::pb::runtime::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use crate::pb::runtime::{VersionRequest, VersionResponse};

/// A container runtime, as far as its version goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeRuntime {
    /// `containerd`, `cri-o`, or another.
    pub name: String,
    /// As the runtime tells it.
    pub version: String,
}

impl FakeRuntime {
    /// Answers on this socket until the future is dropped.
    ///
    /// # Errors
    ///
    /// The socket cannot be bound, or serving it fails.
    pub async fn serve(self, socket: &Path) -> io::Result<()> {
        let incoming = UnixListenerStream::new(UnixListener::bind(socket)?);
        tonic::transport::Server::builder()
            .add_service(RuntimeServiceServer::new(self))
            .serve_with_incoming(incoming)
            .await
            .map_err(io::Error::other)
    }
}

#[tonic::async_trait]
impl RuntimeService for FakeRuntime {
    async fn version(
        &self,
        _: Request<VersionRequest>,
    ) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: self.name.clone(),
            runtime_version: self.version.clone(),
            runtime_api_version: "v1".into(),
        }))
    }
}

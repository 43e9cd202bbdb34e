//! The gRPC side of one resource: from the kubelet's messages to [`DevicePlugin`] and back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::device_list::DeviceList;
use crate::device_plugin::{AllocateRequest, DevicePlugin, PreStartRequest, PreferredRequest};
use crate::host::{CallLimits, Farewell};
use crate::pb::device_plugin as pb;
use crate::pb::device_plugin::device_plugin_server;

/// The kubelet sends back at most the ids that it could read, so twice its own limit is generous; what is larger is answered
/// with an error before it is read.
pub(crate) const REQUEST_LIMIT: usize = 2 * crate::device_list::KUBELET_MESSAGE_LIMIT;

pub(crate) struct Service {
    pub(crate) plugin: Arc<dyn DevicePlugin>,
    pub(crate) limits: CallLimits,
    pub(crate) streams: watch::Sender<Streams>,
    pub(crate) farewell: watch::Receiver<Option<Farewell>>,
}

/// The kubelet's `ListAndWatch` streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Streams {
    /// Now.
    pub(crate) open: usize,
    /// Since the start.
    pub(crate) opened: u64,
}

#[tonic::async_trait]
impl device_plugin_server::DevicePlugin for Service {
    type ListAndWatchStream = ReceiverStream<Result<pb::ListAndWatchResponse, Status>>;

    async fn get_device_plugin_options(
        &self,
        _request: Request<pb::Empty>,
    ) -> Result<Response<pb::DevicePluginOptions>, Status> {
        Ok(Response::new(self.plugin.options().into()))
    }

    async fn list_and_watch(
        &self,
        _request: Request<pb::Empty>,
    ) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let (messages, stream) = mpsc::channel(1);
        let open = OpenStream::new(self.streams.clone());
        let devices = self.plugin.devices();
        tokio::spawn(feed(messages, devices, self.farewell.clone(), open));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<pb::PreferredAllocationRequest>,
    ) -> Result<Response<pb::PreferredAllocationResponse>, Status> {
        let mut container_responses = Vec::new();
        for container in request.into_inner().container_requests {
            let plugin = Arc::clone(&self.plugin);
            let request = PreferredRequest {
                available: container.available_device_i_ds,
                must_include: container.must_include_device_i_ds,
                size: usize::try_from(container.allocation_size).unwrap_or(0),
            };
            let call = async move { plugin.preferred_allocation(request).await };
            let ids = to_its_end("GetPreferredAllocation", self.limits.preferred, call).await;
            let device_i_ds = ids.unwrap_or_else(|status| {
                // An error would reject the pod; no preference only costs a good place.
                tracing::warn!(why = status.message(), "no preference is given");
                Vec::new()
            });
            container_responses.push(pb::ContainerPreferredAllocationResponse { device_i_ds });
        }
        Ok(Response::new(pb::PreferredAllocationResponse { container_responses }))
    }

    async fn allocate(
        &self,
        request: Request<pb::AllocateRequest>,
    ) -> Result<Response<pb::AllocateResponse>, Status> {
        let mut container_responses = Vec::new();
        for container in request.into_inner().container_requests {
            let plugin = Arc::clone(&self.plugin);
            let request = AllocateRequest { device_ids: container.devices_ids };
            let call = async move { plugin.allocate(request).await };
            let response = to_its_end("Allocate", self.limits.allocate, call).await??;
            container_responses.push(response.into());
        }
        Ok(Response::new(pb::AllocateResponse { container_responses }))
    }

    async fn pre_start_container(
        &self,
        request: Request<pb::PreStartContainerRequest>,
    ) -> Result<Response<pb::PreStartContainerResponse>, Status> {
        let plugin = Arc::clone(&self.plugin);
        let request = PreStartRequest { device_ids: request.into_inner().devices_ids };
        let call = async move { plugin.pre_start(request).await };
        to_its_end("PreStartContainer", self.limits.pre_start, call).await??;
        Ok(Response::new(pb::PreStartContainerResponse {}))
    }
}

/// Counts one stream for as long as it lives.
struct OpenStream(watch::Sender<Streams>);

impl OpenStream {
    fn new(streams: watch::Sender<Streams>) -> Self {
        streams.send_modify(|streams| {
            streams.open += 1;
            streams.opened += 1;
        });
        Self(streams)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.send_modify(|streams| streams.open -= 1);
    }
}

/// Runs a plugin's call in a task of its own and waits for it, at most the limit.
///
/// `tonic` drops a handler's future when the kubelet's deadline passes or its connection ends; the task runs on.
async fn to_its_end<T: Send + 'static>(
    call: &'static str,
    limit: Duration,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Status> {
    match tokio::time::timeout(limit, tokio::spawn(work)).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) if error.is_panic() => {
            tracing::error!(call, %error, "the plugin panicked");
            Err(Status::internal(format!("the plugin's {call} panicked; its log says where")))
        }
        Ok(Err(_cancelled)) => Err(Status::unavailable("the plugin is shutting down")),
        Err(_elapsed) => Err(Status::deadline_exceeded(format!(
            "the plugin's {call} is still under way after {limit:?}; it goes on and a later call finds its result"
        ))),
    }
}

/// Sends the list now and after each change, until the kubelet leaves or the plugin says farewell.
async fn feed(
    messages: mpsc::Sender<Result<pb::ListAndWatchResponse, Status>>,
    mut devices: watch::Receiver<DeviceList>,
    mut farewell: watch::Receiver<Option<Farewell>>,
    _open: OpenStream,
) {
    loop {
        let message = devices.borrow_and_update().to_message();
        let sent = tokio::select! {
            biased;
            last = said(&mut farewell) => return part(&messages, last).await,
            sent = messages.send(Ok(message)) => sent,
        };
        if sent.is_err() {
            return;
        }
        tokio::select! {
            biased;
            () = messages.closed() => return,
            last = said(&mut farewell) => return part(&messages, last).await,
            () = changed(&mut devices) => {}
        }
    }
}

/// Ends a stream; by an empty list first if the resource is to be withdrawn, so that the node's capacity is 0 at once and not
/// after the kubelet's grace of 5 minutes.
async fn part(
    messages: &mpsc::Sender<Result<pb::ListAndWatchResponse, Status>>,
    farewell: Farewell,
) {
    if farewell == Farewell::Withdraw {
        // The kubelet that is gone needs no word.
        let _ = messages.send(Ok(DeviceList::default().to_message())).await;
    }
}

/// Waits for a farewell; a host that is dropped says none, its connections are cut.
async fn said(farewell: &mut watch::Receiver<Option<Farewell>>) -> Farewell {
    match farewell.wait_for(Option::is_some).await.map(|said| *said) {
        Ok(Some(last)) => last,
        _ => std::future::pending().await,
    }
}

/// Waits for a newer list; without a sender there is none.
async fn changed(devices: &mut watch::Receiver<DeviceList>) {
    if devices.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

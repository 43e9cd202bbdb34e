//! The gRPC side of one resource: from the kubelet's messages to [`DevicePlugin`] and back.

use std::collections::BTreeMap;
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
    pub(crate) taken: watch::Sender<Taken>,
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

/// The list that each open stream has given to the kubelet, by the stream's number; the one with the greatest is the
/// kubelet's own, an earlier one may be of a kubelet that is gone.
pub(crate) type Taken = BTreeMap<u64, Option<DeviceList>>;

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
        let open = OpenStream::new(self.streams.clone(), self.taken.clone());
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
        let devices = self.plugin.devices();
        let before = devices.borrow().clone();
        let mut container_responses = Vec::new();
        for container in request.into_inner().container_requests {
            let plugin = Arc::clone(&self.plugin);
            let request = AllocateRequest { device_ids: container.devices_ids };
            let call = async move { plugin.allocate(request).await };
            let response = to_its_end("Allocate", self.limits.allocate, call).await??;
            container_responses.push(response.into());
        }
        if devices.borrow().gives_less_than(&before) {
            self.newest_taken(&devices).await;
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

impl Service {
    /// Waits until the newest list is on its way to the kubelet, or there is no stream to it, or it takes too long.
    async fn newest_taken(&self, devices: &watch::Receiver<DeviceList>) {
        let mut taken = self.taken.subscribe();
        let is_taken = |taken: &Taken| {
            let last = taken.last_key_value().map(|(_, list)| list);
            // Asked each time: while we wait there may come another.
            last.is_none_or(|list| list.as_ref().is_some_and(|l| l.is(&devices.borrow())))
        };
        let waiting = taken.wait_for(is_taken);
        if tokio::time::timeout(self.limits.list, waiting).await.is_err() {
            tracing::debug!("the kubelet does not take the list; allocating without");
        }
    }
}

/// One stream, told of for as long as it lives.
struct OpenStream {
    number: u64,
    streams: watch::Sender<Streams>,
    taken: watch::Sender<Taken>,
}

impl OpenStream {
    fn new(streams: watch::Sender<Streams>, taken: watch::Sender<Taken>) -> Self {
        let mut number = 0;
        streams.send_modify(|streams| {
            streams.open += 1;
            streams.opened += 1;
            number = streams.opened;
        });
        taken.send_modify(|taken| drop(taken.insert(number, None)));
        Self { number, streams, taken }
    }

    fn took(&self, list: DeviceList) {
        self.taken.send_modify(|taken| drop(taken.insert(self.number, Some(list))));
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.taken.send_modify(|taken| drop(taken.remove(&self.number)));
        self.streams.send_modify(|streams| streams.open -= 1);
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
    open: OpenStream,
) {
    loop {
        let list = devices.borrow_and_update().clone();
        let message = list.to_message();
        let sent = tokio::select! {
            biased;
            last = said(&mut farewell) => return part(&messages, last).await,
            sent = messages.send(Ok(message)) => sent,
        };
        if sent.is_err() {
            return;
        }
        // There is room for one message: where there is some again, the connection has taken ours.
        tokio::select! {
            biased;
            last = said(&mut farewell) => return part(&messages, last).await,
            room = messages.reserve() => match room {
                Ok(_) => open.took(list),
                Err(_) => return,
            }
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

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::DeviceEntry;
    use crate::device_plugin::{AllocateResponse, PluginOptions, Refusal};
    use crate::pb::device_plugin::device_plugin_server::DevicePlugin as _;

    /// A guard, or a wait that is never waited for.
    const LONG: Duration = Duration::from_secs(60);

    /// Two devices; an allocation takes the second away, if so told.
    struct Two {
        lists: watch::Sender<DeviceList>,
        takes: bool,
    }

    fn two(second_is_healthy: bool) -> DeviceList {
        let second = match second_is_healthy {
            true => DeviceEntry::healthy("b"),
            false => DeviceEntry::unhealthy("b"),
        };
        DeviceList::new(vec![DeviceEntry::healthy("a"), second]).unwrap()
    }

    #[tonic::async_trait]
    impl DevicePlugin for Two {
        fn options(&self) -> PluginOptions {
            PluginOptions { pre_start: false, preferred_allocation: false }
        }

        fn devices(&self) -> watch::Receiver<DeviceList> {
            self.lists.subscribe()
        }

        async fn allocate(&self, _request: AllocateRequest) -> Result<AllocateResponse, Refusal> {
            self.lists.send_replace(two(!self.takes));
            Ok(AllocateResponse::default())
        }

        async fn preferred_allocation(&self, _request: PreferredRequest) -> Vec<String> {
            Vec::new()
        }

        async fn pre_start(&self, _request: PreStartRequest) -> Result<(), Refusal> {
            Ok(())
        }
    }

    fn service(takes: bool, list: Duration) -> Service {
        Service {
            plugin: Arc::new(Two { lists: watch::Sender::new(two(true)), takes }),
            limits: CallLimits { list, ..CallLimits::default() },
            streams: watch::Sender::default(),
            taken: watch::Sender::default(),
            farewell: watch::channel(None).1,
        }
    }

    async fn allocate(service: &Service) {
        let one = pb::ContainerAllocateRequest { devices_ids: vec!["a".to_owned()] };
        let request = pb::AllocateRequest { container_requests: vec![one] };
        let answer = tokio::time::timeout(LONG / 2, service.allocate(Request::new(request)));
        answer.await.expect("an answer").expect("it is allocated");
    }

    /// The test's one thread would answer first if nobody waited: the answer is looked for first each time.
    #[tokio::test]
    async fn less_to_give_is_told_before_the_answer() {
        let service = service(true, LONG);
        let mut stream =
            service.list_and_watch(Request::new(pb::Empty {})).await.unwrap().into_inner();
        stream.next().await.unwrap().unwrap();
        let order = std::sync::Mutex::new(Vec::new());
        tokio::join!(
            biased;
            async {
                allocate(&service).await;
                order.lock().unwrap().push("answer");
            },
            async {
                let list = stream.next().await.unwrap().unwrap();
                assert_eq!(list.devices[1].health, "Unhealthy");
                order.lock().unwrap().push("list");
            }
        );
        assert_eq!(*order.lock().unwrap(), ["list", "answer"]);
    }

    #[tokio::test]
    async fn nobody_waits_in_vain() {
        // No stream; a stream that ended; nothing lost, and nobody reads.
        let alone = service(true, LONG);
        allocate(&alone).await;
        let left = service(true, LONG);
        let mut stream =
            left.list_and_watch(Request::new(pb::Empty {})).await.unwrap().into_inner();
        stream.next().await.unwrap().unwrap();
        drop(stream);
        allocate(&left).await;
        let same = service(false, LONG);
        let unread = same.list_and_watch(Request::new(pb::Empty {})).await.unwrap();
        allocate(&same).await;
        drop(unread);
        // A kubelet that does not read is waited for only so long.
        let slow = service(true, Duration::from_millis(1));
        let unread = slow.list_and_watch(Request::new(pb::Empty {})).await.unwrap();
        allocate(&slow).await;
        drop(unread);
    }

    #[tokio::test]
    async fn the_newest_stream_counts() {
        let service = service(true, LONG);
        let old = service.list_and_watch(Request::new(pb::Empty {})).await.unwrap();
        let mut new =
            service.list_and_watch(Request::new(pb::Empty {})).await.unwrap().into_inner();
        new.next().await.unwrap().unwrap();
        tokio::join!(allocate(&service), async { new.next().await.unwrap().unwrap() });
        drop(old);
    }
}

//! The kubelet as a plugin's client: dial, options, one list stream.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

use crate::device_list::KUBELET_MESSAGE_LIMIT;
use crate::fake::inner::Inner;
use crate::pb::device_plugin as pb;
use crate::pb::device_plugin::device_plugin_client::DevicePluginClient;
use crate::transport;

/// As Go's gRPC prints an error.
pub(crate) fn rpc_error(status: &Status) -> String {
    let code = match status.code() {
        tonic::Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    };
    format!("rpc error: code = {code} desc = {}", status.message())
}

/// Dials a plugin, again and again until the limit, as a blocking dial does.
pub(crate) async fn dial(
    socket: &Path,
    limit: Duration,
) -> Result<DevicePluginClient<Channel>, Status> {
    let trying = async {
        loop {
            match transport::connect(socket).await {
                Ok(channel) => return channel,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    match tokio::time::timeout(limit, trying).await {
        Ok(channel) => {
            Ok(DevicePluginClient::new(channel).max_decoding_message_size(KUBELET_MESSAGE_LIMIT))
        }
        Err(_elapsed) => {
            Err(Status::unknown("failed to dial device plugin: context deadline exceeded"))
        }
    }
}

/// One plugin's list stream.
pub(crate) struct Reading {
    pub(crate) resource: String,
    /// The connection's number.
    pub(crate) id: u64,
    /// The kubelet's life.
    pub(crate) run: CancellationToken,
    /// The connection's life.
    pub(crate) disconnect: CancellationToken,
}

/// Reads a plugin's lists until its stream ends, once.
pub(crate) async fn read_lists(
    inner: Arc<Inner>,
    mut plugin: DevicePluginClient<Channel>,
    reading: Reading,
) {
    let Reading { resource, id, run, disconnect } = reading;
    let lists = async {
        let mut stream = plugin.list_and_watch(pb::Empty {}).await?.into_inner();
        while let Some(list) = stream.message().await? {
            inner.change_in(&run, |state| state.listed(&resource, list));
            if let Err(error) = inner.write_checkpoint() {
                tracing::warn!(error, "the fake kubelet goes on without its checkpoint");
            }
        }
        Ok::<_, Status>(())
    };
    match disconnect.run_until_cancelled(lists).await {
        Some(Err(status)) => {
            tracing::info!(resource, why = rpc_error(&status), "a plugin's stream ended");
        }
        Some(Ok(())) => tracing::info!(resource, "a plugin's stream ended"),
        None => tracing::info!(resource, "a plugin was disconnected"),
    }
    // Before the kubelet looks at its books, the connection is gone.
    drop(plugin);
    let (mode, now) = (inner.options.old_stream_end, inner.options.clock.now());
    inner.change_in(&run, |state| state.stream_ended(&resource, id, mode, now));
}

//! The kubelet's Registration service.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::fake::endpoint::{Reading, dial, read_lists};
use crate::fake::inner::Inner;
use crate::pb::device_plugin as pb;
use crate::pb::device_plugin::registration_server;
use crate::register::VERSION;
use crate::resource::Resource;

pub(crate) struct Registry {
    pub(crate) inner: Arc<Inner>,
    pub(crate) cut: CancellationToken,
}

#[tonic::async_trait]
impl registration_server::Registration for Registry {
    async fn register(
        &self,
        request: Request<pb::RegisterRequest>,
    ) -> Result<Response<pb::Empty>, Status> {
        let request = request.into_inner();
        let work = connect(Arc::clone(&self.inner), request, self.cut.clone());
        // A kubelet carries on when the caller has left.
        let cut = self.cut.clone();
        let task = tokio::spawn(async move { cut.run_until_cancelled(work).await });
        let result = match task.await {
            Ok(Some(result)) => result,
            _ => Err(Status::unavailable("the kubelet is going away")),
        };
        if result.is_err() {
            self.inner.change(|state| state.counters.registrations_refused += 1);
        }
        result.map(Response::new)
    }
}

async fn connect(
    inner: Arc<Inner>,
    request: pb::RegisterRequest,
    cut: CancellationToken,
) -> Result<pb::Empty, Status> {
    if request.version != VERSION {
        return Err(Status::unknown(format!(
            "requested API version {:?} is not supported by kubelet; supported version is {VERSION:?}",
            request.version
        )));
    }
    if let Err(error) = Resource::parse(&request.resource_name) {
        return Err(Status::unknown(format!("invalid name of device plugin resource: {error}")));
    }
    let socket = inner.options.paths.device_plugins.join(&request.endpoint);
    let mut plugin = dial(&socket, inner.options.dial_limit).await?;
    // What the request says about options is not looked at.
    let options = plugin.get_device_plugin_options(pb::Empty {}).await?.into_inner();
    let resource = request.resource_name;
    let disconnect = cut.child_token();
    let id = inner.change_in(&cut, |state| {
        state.connected(&resource, plugin.clone(), options, disconnect.clone())
    });
    let Some(id) = id else { return Err(Status::unavailable("the kubelet is going away")) };
    let reading = Reading { resource, id, run: cut, disconnect };
    tokio::spawn(read_lists(inner, plugin, reading));
    Ok(pb::Empty {})
}

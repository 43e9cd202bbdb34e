use std::path::Path;
use std::time::Duration;

use crate::pb::device_plugin as pb;
use crate::pb::device_plugin::registration_client::RegistrationClient;
use crate::resource::Resource;
use crate::transport::{self, ConnectError};

/// The only version that a kubelet knows.
pub(crate) const VERSION: &str = "v1beta1";

/// Announces a resource to the kubelet. The kubelet dials back before it answers, for up to 10 s.
pub(crate) async fn register(
    kubelet_socket: &Path,
    resource: &Resource,
    endpoint: &str,
    options: pb::DevicePluginOptions,
    limit: Duration,
) -> Result<(), RegisterError> {
    let request = pb::RegisterRequest {
        version: VERSION.to_owned(),
        endpoint: endpoint.to_owned(),
        resource_name: resource.as_str().to_owned(),
        options: Some(options),
    };
    let call = async {
        let channel = transport::connect(kubelet_socket).await?;
        RegistrationClient::new(channel).register(request).await.map_err(|status| {
            RegisterError::Refused(format!("{:?}: {}", status.code(), status.message()))
        })
    };
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result.map(drop),
        Err(_elapsed) => Err(RegisterError::Timeout(limit)),
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RegisterError {
    #[error("the kubelet refused the registration: {0}")]
    Refused(String),
    #[error("the kubelet did not answer the registration within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Unreachable(#[from] ConnectError),
}

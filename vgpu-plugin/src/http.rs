//! `/metrics` and `/healthz`.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::task::JoinSet;
use vgpu_kubelet_plugin::PluginHost;
use vgpu_node::Node;

use crate::metrics::Metrics;
use crate::sockets::told;

/// What the pages are made from.
#[derive(Clone)]
pub(crate) struct Pages {
    pub(crate) node: Arc<Node>,
    pub(crate) host: Arc<PluginHost>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Serves the pages as long as the tasks live. Binding is tried before it returns, so that a wrong
/// address is told at the start.
pub(crate) async fn serve(
    tasks: &mut JoinSet<()>,
    address: SocketAddr,
    pages: Pages,
) -> anyhow::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} for metrics; choose another --metrics-address")
    })?;
    let bound = listener.local_addr()?;
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .with_state(pages);
    tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the metrics server ended");
        }
    });
    Ok(bound)
}

async fn metrics(State(pages): State<Pages>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], pages.metrics.text(&pages.node))
}

/// Well as long as the agent works; a kubelet or a card that is away is told, and does not make it
/// unwell, since a restart would heal neither.
async fn healthz(State(pages): State<Pages>) -> impl IntoResponse {
    let mut lines = vec!["ok".to_owned()];
    let registrations = pages.host.registrations().into_iter();
    lines.extend(registrations.map(|(resource, how)| format!("{resource}: {}", told(&how))));
    lines.extend(pages.node.trouble().map(|e| format!("configuration: {e}")));
    if pages.node.driver_replaced() {
        lines[0] = "the driver was replaced; restarting".to_owned();
        return (StatusCode::SERVICE_UNAVAILABLE, lines.join("\n") + "\n");
    }
    (StatusCode::OK, lines.join("\n") + "\n")
}

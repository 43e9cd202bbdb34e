//! What the hook tells of a container and no answer depends on: it may open every device of the node.

use std::sync::Arc;

use serde::Deserialize;
use vgpu_core::id::ClaimId;
use vgpu_node::Node;

/// The hook's word that a claim's container may open every device of the node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Notice {
    /// The claim, under whichever of its names.
    pub(crate) claim: ClaimId,
    /// The container's name in its pod, where the runtime wrote it down.
    #[serde(default)]
    pub(crate) container: Option<String>,
}

/// Says it in the log, and takes it down with the claim.
pub(crate) async fn take(node: Arc<Node>, told: Notice) -> Result<(), String> {
    let Notice { claim, container } = told;
    let asked = claim.clone();
    let known = tokio::task::spawn_blocking(move || node.note_every_device(&asked))
        .await
        .map_err(|e| e.to_string())
        .and_then(|known| known.map_err(|e| e.to_string()));
    let holder = known.as_ref().ok().and_then(|known| known.holder.as_ref());
    let pod = holder.map_or_else(|| "?".to_owned(), ToString::to_string);
    let container =
        container.or_else(|| holder.map(|h| h.container.clone())).unwrap_or_else(|| "?".to_owned());
    tracing::warn!(
        pod, container, %claim,
        "this container may open every device of the node, as a privileged one may: nothing keeps it off other \
         pods' cards; run it without `privileged`, and forbid that where tenants meet (Pod Security `baseline`)"
    );
    if let Err(error) = &known {
        tracing::warn!(%claim, error, "that could not be taken down with its claim");
    }
    known.map(drop)
}

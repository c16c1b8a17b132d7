//! Objects from an API server: one list of each kind that matters.

use std::path::Path;

use anyhow::Context as _;
use portolan_client::{ApiPath, Client, List, ListOptions, paths};
use serde_json::Value;

use super::objects::Objects;

pub(crate) async fn read(kubeconfig: &Path) -> anyhow::Result<Objects> {
    let client = Client::from_kubeconfig(kubeconfig, "portolan-trace")?;
    let list = |api: ApiPath| list(&client, api);
    Ok(Objects {
        services: list(paths::SERVICES).await?,
        slices: list(paths::ENDPOINT_SLICES).await?,
        pods: list(paths::PODS).await?,
        nodes: list(paths::NODES).await?,
        // Clusters before Kubernetes 1.33 do not have them.
        service_cidrs: list(paths::SERVICE_CIDRS).await.unwrap_or_default(),
        ..Objects::default()
    })
}

async fn list(client: &Client, api: ApiPath) -> anyhow::Result<Vec<Value>> {
    let list: List<Value> = client
        .list(&api, None, &ListOptions::default())
        .await
        .with_context(|| format!("cannot list {}", api.plural))?;
    Ok(list.items)
}

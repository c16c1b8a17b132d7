//! Services and slices in the API, written as a controller would.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use portolan_client::{Client, Patch, Subresource, paths};
use serde_json::{Value, json};

const NAMESPACE: Option<&str> = Some("default");
const WRITERS: usize = 16;

/// Services without selector, each with one slice of so many endpoints that nobody asks for.
pub(crate) async fn populate(client: &Client, services: usize, endpoints: usize) -> anyhow::Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let client = client.clone();
        tasks.spawn(async move {
            for index in (writer..services).step_by(WRITERS) {
                let endpoint = |n: usize| json!({"addresses": [other_endpoint(index, n).to_string()]});
                let endpoints: Vec<Value> = (0..endpoints).map(endpoint).collect();
                create(&client, &format!("other-{index}"), &json!(endpoints), 8000).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    Ok(())
}

/// No two Services share an endpoint: 16 addresses for each of up to a million.
fn other_endpoint(service: usize, n: usize) -> Ipv4Addr {
    const FIRST: u32 = u32::from_be_bytes([100, 0, 0, 1]);
    Ipv4Addr::from_bits(FIRST + (service * 16 + n) as u32)
}

/// A Service of one port 80, and its slice; gives where it listens.
pub(crate) async fn create(
    client: &Client,
    name: &str,
    endpoints: &Value,
    port: u16,
) -> anyhow::Result<SocketAddr> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": port}]},
    });
    let service: Value = client.create(&paths::SERVICES, NAMESPACE, &service).await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "endpoints": endpoints, "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    });
    let _: Value = client.create(&paths::ENDPOINT_SLICES, NAMESPACE, &slice).await?;
    let ip = service["spec"]["clusterIP"].as_str().context("the Service has no ClusterIP")?;
    Ok(SocketAddr::new(ip.parse()?, 80))
}

/// Gives a Service's slice other endpoints.
pub(crate) async fn set_endpoints(client: &Client, name: &str, addresses: &[Ipv4Addr]) -> anyhow::Result<()> {
    let endpoints: Vec<Value> =
        addresses.iter().map(|address| json!({"addresses": [address.to_string()]})).collect();
    let patch = json!({"endpoints": endpoints});
    let patch = Patch::Merge(&patch);
    let _: Value = client.patch(&paths::ENDPOINT_SLICES, NAMESPACE, name, Subresource::None, patch).await?;
    Ok(())
}

//! Cluster DNS as a role of the control plane: the server on this node's address, and the Service `kube-dns` that leads to
//! it from everywhere.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portolan_client::{ApiPath, Client, Error as ApiError, paths};
use portolan_role::Progress;
use serde_json::{Value, json};

use crate::config::Config;
use crate::forward;
use crate::run::{Error, run};
use crate::zone::Options;

const NAMESPACE: &str = "kube-system";
const SERVICE: &str = "kube-dns";
/// Who writes the slice; controllers leave it alone.
const MANAGED_BY: &str = "portolan-dns";
/// A free port on most hosts; 53 itself is often taken.
pub const TARGET_PORT: u16 = 10_053;

/// How often the objects are looked after, and how soon a failure is tried again.
const LOOK_AFTER: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(250);

/// Cluster DNS beside a control plane.
#[derive(Debug, Clone)]
pub struct InCluster {
    pub cluster_domain: String,
    /// The Service's address: the tenth of the service range.
    pub service_ip: IpAddr,
    pub node_name: String,
    /// Where this server listens.
    pub node_ip: IpAddr,
    pub port: u16,
    /// Addresses or files like `/etc/resolv.conf`; empty: names outside the cluster are refused.
    pub upstreams: Vec<String>,
}

impl InCluster {
    pub fn new(service_ip: IpAddr, node_name: impl Into<String>, node_ip: IpAddr) -> InCluster {
        InCluster {
            cluster_domain: "cluster.local".into(),
            service_ip,
            node_name: node_name.into(),
            node_ip,
            port: TARGET_PORT,
            upstreams: vec!["/etc/resolv.conf".into()],
        }
    }

    /// The server's configuration: on the node's address only, without HTTP.
    fn config(&self) -> Result<Config, Error> {
        let mut options = Options::new(&self.cluster_domain)?;
        options.own_addresses = vec![self.service_ip];
        options.pods = crate::zone::PodRecords::Insecure;
        let mut config = Config::new(options);
        config.listen = vec![SocketAddr::new(self.node_ip, self.port)];
        (config.health, config.ready, config.metrics) = (None, None, None);
        config.forward = match forward::upstreams(&self.upstreams) {
            Ok(upstreams) => Some(forward::Config { upstreams, ..forward::Config::default() }),
            Err(error) => {
                tracing::warn!(%error, "names outside the cluster are refused");
                None
            }
        };
        Ok(config)
    }
}

/// Publishes the Service and answers its names until `shutdown` ends.
pub async fn run_in_cluster(
    client: Client,
    cluster: InCluster,
    progress: Progress<Arc<[SocketAddr]>>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let config = cluster.config()?;
    let publishing = look_after(client.clone(), cluster);
    let running = run(client, config, progress, shutdown);
    tokio::pin!(publishing, running);
    tokio::select! {
        result = &mut running => result,
        () = &mut publishing => running.await,
    }
}

/// Keeps the Service and this node's slice as they should be. Ends only if somebody else's DNS is there.
async fn look_after(client: Client, cluster: InCluster) {
    let mut told = false;
    loop {
        let wait = match publish(&client, &cluster).await {
            Ok(true) => LOOK_AFTER,
            Ok(false) => {
                tracing::info!("the Service {NAMESPACE}/{SERVICE} has a selector: it is left to its pods");
                return;
            }
            Err(error) => {
                if !told {
                    tracing::warn!(%error, "cannot publish the Service {NAMESPACE}/{SERVICE}; trying again");
                    told = true;
                }
                AGAIN
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Writes what is missing or different. `false`: the Service is somebody else's.
pub async fn publish(client: &Client, cluster: &InCluster) -> Result<bool, ApiError> {
    match client.get::<Value>(&paths::SERVICES, Some(NAMESPACE), SERVICE).await {
        Ok(service) => {
            let selects = service["spec"]["selector"].as_object().is_some_and(|s| !s.is_empty());
            if selects {
                return Ok(false);
            }
        }
        Err(error) if error.is_not_found() => {
            ensure(client, &paths::SERVICES, &service(cluster)).await?;
        }
        Err(error) => return Err(error),
    }
    let wanted = slice(cluster);
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
    match client.get::<Value>(&paths::ENDPOINT_SLICES, Some(NAMESPACE), name).await {
        Ok(mut slice) if !same(&slice, &wanted) => {
            slice["endpoints"] = wanted["endpoints"].clone();
            slice["ports"] = wanted["ports"].clone();
            slice["metadata"]["labels"] = wanted["metadata"]["labels"].clone();
            client.update(&paths::ENDPOINT_SLICES, Some(NAMESPACE), name, &slice).await?;
        }
        Ok(_) => {}
        Err(error) if error.is_not_found() => {
            ensure(client, &paths::ENDPOINT_SLICES, &wanted).await?;
        }
        Err(error) => return Err(error),
    }
    Ok(true)
}

async fn ensure(client: &Client, api: &ApiPath, object: &Value) -> Result<(), ApiError> {
    let mut object = object.clone();
    object["apiVersion"] = api.api_version().into();
    object["kind"] = api.kind.into();
    match client.create(api, Some(NAMESPACE), &object).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_already_exists() => Ok(()),
        Err(error) => Err(error),
    }
}

/// What matters of two slices; the server adds fields of its own.
fn same(have: &Value, want: &Value) -> bool {
    let address = |slice: &Value| slice["endpoints"][0]["addresses"].clone();
    let ports = |slice: &Value| -> Vec<(Value, Value)> {
        let all = slice["ports"].as_array().into_iter().flatten();
        all.map(|port| (port["name"].clone(), port["port"].clone())).collect()
    };
    let count = |slice: &Value| slice["endpoints"].as_array().map_or(0, Vec::len);
    let labels = |slice: &Value| slice["metadata"]["labels"]["kubernetes.io/service-name"].clone();
    address(have) == address(want)
        && ports(have) == ports(want)
        && count(have) == 1
        && labels(have) == labels(want)
}

fn service(cluster: &InCluster) -> Value {
    let port = |name, protocol| json!({ "name": name, "protocol": protocol, "port": 53, "targetPort": cluster.port });
    let labels = json!({
        "k8s-app": SERVICE, "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "PortolanDNS",
    });
    json!({
        "metadata": { "name": SERVICE, "namespace": NAMESPACE, "labels": labels },
        "spec": { "clusterIP": cluster.service_ip, "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")] },
    })
}

/// One slice for each node that runs the server.
fn slice(cluster: &InCluster) -> Value {
    let port = |name, protocol| json!({ "name": name, "protocol": protocol, "port": cluster.port });
    let family = if cluster.node_ip.is_ipv4() { "IPv4" } else { "IPv6" };
    json!({
        "metadata": {
            "name": format!("{SERVICE}-{}", cluster.node_name), "namespace": NAMESPACE,
            "labels": {
                "kubernetes.io/service-name": SERVICE,
                "endpointslice.kubernetes.io/managed-by": MANAGED_BY,
            },
        },
        "addressType": family,
        "endpoints": [{
            "addresses": [cluster.node_ip], "nodeName": cluster.node_name,
            "conditions": { "ready": true, "serving": true, "terminating": false },
        }],
        "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
    })
}

#[cfg(test)]
mod tests {
    use portolan_client::testing::FakeApi;

    use super::*;

    fn cluster() -> InCluster {
        InCluster::new("10.96.0.10".parse().unwrap(), "n1", "192.0.2.1".parse().unwrap())
    }

    #[tokio::test]
    async fn the_service_is_made_once_and_its_slice_follows_the_node() {
        let api = FakeApi::new();
        let client = api.client();
        assert!(publish(&client, &cluster()).await.unwrap());
        assert!(publish(&client, &cluster()).await.unwrap());
        assert_eq!(api.writes().len(), 2, "Service and slice: {:?}", api.writes());
        let moved = InCluster { node_ip: "192.0.2.2".parse().unwrap(), ..cluster() };
        assert!(publish(&client, &moved).await.unwrap());
        let slice = api.get(&paths::ENDPOINT_SLICES, NAMESPACE, "kube-dns-n1").unwrap();
        assert_eq!(slice["endpoints"][0]["addresses"][0], "192.0.2.2");
        assert_eq!(slice["ports"][1]["port"], 10_053);
        assert_eq!(api.get(&paths::SERVICES, NAMESPACE, SERVICE).unwrap()["spec"]["clusterIP"], "10.96.0.10");
    }

    #[tokio::test]
    async fn a_service_with_pods_of_its_own_is_left_alone() {
        let api = FakeApi::new();
        let theirs = json!({
            "metadata": { "name": SERVICE, "namespace": NAMESPACE }, "spec": { "selector": { "k8s-app": "kube-dns" } },
        });
        api.put(&paths::SERVICES, theirs);
        assert!(!publish(&api.client(), &cluster()).await.unwrap());
        assert!(api.writes().is_empty());
    }
}

//! Writing the Node object and the lease.

use ipnet::Ipv4Net;
use portolan_api::coordination::v1::Lease;
use portolan_api::core::v1::Node;
use portolan_api::schema::Object as _;
use portolan_api::{MicroTime, Time};
use portolan_client::{Client, Error, paths};

use super::object::{self, Facts};
use crate::Config;

/// Where the leases of nodes live.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// How long a lease holds after its last renewal.
const LEASE_DURATION_SECONDS: i32 = 40;
/// How often a write that met somebody else's is tried.
const CONFLICTS_MAX: usize = 5;

/// Creates the Node object, or brings the labels of the present one up to date. A new one starts with `range`: pods with
/// addresses of it may be running, if somebody deleted the object that was there before.
pub(super) async fn register(
    client: &Client,
    config: &Config,
    range: Option<Ipv4Net>,
) -> Result<Node, Error> {
    for _ in 0..CONFLICTS_MAX {
        let result = match client.get::<Node>(&paths::NODES, None, &config.node_name).await {
            Ok(mut node) => {
                let labels = object::labels(config);
                if labels.iter().all(|(key, value)| node.metadata.labels.get(key) == Some(value)) {
                    return Ok(node);
                }
                node.metadata.labels.extend(labels);
                client.update(&paths::NODES, None, &config.node_name, &node).await
            }
            Err(e) if e.is_not_found() => {
                client.create(&paths::NODES, None, &object::new_node(config, range)).await
            }
            Err(e) => Err(e),
        };
        match result {
            Err(e) if e.is_conflict() || e.is_already_exists() => {}
            other => return other,
        }
    }
    client.get(&paths::NODES, None, &config.node_name).await
}

/// Writes the node's status.
pub(super) async fn report(
    client: &Client,
    config: &Config,
    facts: &Facts,
    has_range: bool,
) -> Result<(), Error> {
    let mut result = Ok(());
    for _ in 0..CONFLICTS_MAX {
        let mut node: Node = client.get(&paths::NODES, None, &config.node_name).await?;
        node.status = object::status(config, facts, has_range, &node.status, Time::now());
        result = client.update_status(&paths::NODES, None, &config.node_name, &node).await.map(drop);
        match &result {
            Err(e) if e.is_conflict() => {}
            _ => break,
        }
    }
    result
}

/// Renews the lease, or takes it out anew. Returns it, for the next renewal to save a read.
pub(super) async fn renew(client: &Client, config: &Config, known: Option<Lease>) -> Result<Lease, Error> {
    let name = &config.node_name;
    let mut lease = match known {
        Some(lease) => lease,
        None => match client.get(&paths::LEASES, Some(LEASE_NAMESPACE), name).await {
            Ok(lease) => lease,
            Err(e) if e.is_not_found() => {
                let mut lease = Lease::named(LEASE_NAMESPACE, name);
                fill(&mut lease, name);
                return client.create(&paths::LEASES, Some(LEASE_NAMESPACE), &lease).await;
            }
            Err(e) => return Err(e),
        },
    };
    fill(&mut lease, name);
    client.update(&paths::LEASES, Some(LEASE_NAMESPACE), name, &lease).await
}

fn fill(lease: &mut Lease, name: &str) {
    lease.spec.holder_identity = Some(name.to_owned());
    lease.spec.lease_duration_seconds = Some(LEASE_DURATION_SECONDS);
    lease.spec.renew_time = Some(MicroTime::now());
}

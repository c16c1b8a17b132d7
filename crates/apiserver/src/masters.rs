//! Which API servers there are: the endpoints of the Service `kubernetes`.
//!
//! Where servers share a store, each renews a key `masterleases/IP` that goes by itself, and whoever renews writes down
//! all that are there. Keys, values and times are Kubernetes' own, so that a kube-apiserver on the same etcd takes
//! part. A server with a store of its own is the only one.

use std::collections::BTreeSet;
use std::net::IpAddr;

use portolan_api::resource::{ENDPOINT_SLICES, ENDPOINTS};
use portolan_api::status;
use serde_json::{Value, json};

use crate::bootstrap::put;
use crate::errors::Result;
use crate::limits::{MASTER_LEASE_SECONDS, SHUTDOWN_GRACE};
use crate::server::ApiServer;

const LEASES: &str = "/registry/masterleases/";

/// Says that this server is there, and writes down which ones are.
pub(crate) async fn publish(server: &ApiServer) -> Result<()> {
    let own = server.config().advertise_address;
    let Some(leases) = server.store().leases() else {
        return write(server, &BTreeSet::from([own])).await;
    };
    let key = format!("{LEASES}{own}");
    let before = server.store().get(&key).await?.0;
    let generation = before.and_then(|kv| {
        let value: Value = serde_json::from_slice(&kv.value).ok()?;
        value["metadata"]["generation"].as_i64()
    });
    let value = json!({
        "kind": "Endpoints",
        "apiVersion": "v1",
        "metadata": { "generation": generation.unwrap_or(0) + 1, "creationTimestamp": null },
        "subsets": [{ "addresses": [{ "ip": own }] }],
    });
    leases.put_for(&key, value.to_string().into(), MASTER_LEASE_SECONDS).await?;
    write(server, &present(server).await?).await
}

/// Takes this server out, if others are left.
pub(crate) async fn leave(server: &ApiServer) {
    let Some(leases) = server.store().leases() else { return };
    let left = async {
        leases.remove(&format!("{LEASES}{}", server.config().advertise_address)).await?;
        let others = present(server).await?;
        if others.is_empty() { Ok(()) } else { write(server, &others).await }
    };
    // If it fails, the key goes by itself and the others notice.
    let _ = tokio::time::timeout(SHUTDOWN_GRACE, left).await;
}

async fn present(server: &ApiServer) -> Result<BTreeSet<IpAddr>> {
    let page = server.store().list(LEASES, None, 0, None).await?;
    Ok(page.items.iter().filter_map(|kv| address(&kv.key)).collect())
}

/// The address is the key's name: the value of a kube-apiserver's may be in protobuf.
fn address(key: &str) -> Option<IpAddr> {
    key.strip_prefix(LEASES)?.parse().ok()
}

async fn write(server: &ApiServer, addresses: &BTreeSet<IpAddr>) -> Result<()> {
    refuse_none(addresses)?;
    let port = server.config().secure_port;
    put(server, &ENDPOINTS, endpoints(addresses, port)).await?;
    put(server, &ENDPOINT_SLICES, slice(addresses, port)).await
}

fn refuse_none(addresses: &BTreeSet<IpAddr>) -> Result<()> {
    if addresses.is_empty() {
        let why = "no API server IP addresses were listed in storage, refusing to erase all endpoints for the \
                   kubernetes Service";
        return Err(status::internal_error(why).into());
    }
    Ok(())
}

fn endpoints(addresses: &BTreeSet<IpAddr>, port: u16) -> Value {
    let addresses: Vec<Value> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" },
        },
        "subsets": [{
            "addresses": addresses,
            "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
        }],
    })
}

/// A slice has one family: IPv6 only if there is nothing else.
fn slice(addresses: &BTreeSet<IpAddr>, port: u16) -> Value {
    let six = addresses.iter().all(IpAddr::is_ipv6);
    let endpoints: Vec<Value> = addresses
        .iter()
        .filter(|ip| ip.is_ipv6() == six)
        .map(|ip| json!({ "addresses": [ip], "conditions": { "ready": true } }))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": { "kubernetes.io/service-name": "kubernetes" },
        },
        "addressType": if six { "IPv6" } else { "IPv4" },
        "endpoints": endpoints,
        "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_name_all_servers_and_the_slice_one_family() {
        let addresses: BTreeSet<IpAddr> =
            ["fd00::1", "10.0.0.2", "10.0.0.1"].iter().map(|text| text.parse().unwrap()).collect();
        let object = endpoints(&addresses, 6443);
        let all = json!([{ "ip": "10.0.0.1" }, { "ip": "10.0.0.2" }, { "ip": "fd00::1" }]);
        assert_eq!(object["subsets"][0]["addresses"], all);
        let object = slice(&addresses, 6443);
        assert_eq!(object["addressType"], "IPv4");
        assert_eq!(object["endpoints"].as_array().unwrap().len(), 2);
        assert_eq!(slice(&BTreeSet::from(["fd00::1".parse().unwrap()]), 6443)["addressType"], "IPv6");
    }

    #[test]
    fn nobody_erases_all_servers() {
        let why = refuse_none(&BTreeSet::new()).unwrap_err().0.message;
        assert!(why.ends_with("refusing to erase all endpoints for the kubernetes Service"), "{why}");
        assert!(refuse_none(&BTreeSet::from(["fd00::1".parse().unwrap()])).is_ok());
    }

    #[test]
    fn a_lease_is_named_after_its_address() {
        assert_eq!(address("/registry/masterleases/10.0.0.1"), "10.0.0.1".parse().ok());
        assert_eq!(address("/registry/masterleases/fd00::1"), "fd00::1".parse().ok());
        assert_eq!(address("/registry/masterleases/web"), None);
    }
}

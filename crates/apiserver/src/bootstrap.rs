//! The objects that every cluster has: its first namespaces, and the Service `kubernetes` that leads to this server.
//!
//! The allocators have made the default ServiceCIDR before. Everything goes through the same writes as a client's.

use portolan_api::resource::{ENDPOINT_SLICES, ENDPOINTS, NAMESPACES, Resource, SERVICES};
use serde_json::{Value, json};

use crate::config::StartError;
use crate::errors::{ApiError, Result};
use crate::object::meta;
use crate::server::ApiServer;
use crate::write::{At, Part};

const FIRST_NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Makes what is missing, and puts this server's address where it is wrong.
pub(crate) async fn run(server: &ApiServer) -> std::result::Result<(), StartError> {
    for name in FIRST_NAMESPACES {
        let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        let made = create(server, &NAMESPACES, object).await;
        made.map_err(|error| failed(&format!("namespace {name}"), &error))?;
    }
    let service = service(server)?;
    create(server, &SERVICES, service).await.map_err(|error| failed("service kubernetes", &error))?;
    for (resource, object) in [(&ENDPOINTS, endpoints(server)), (&ENDPOINT_SLICES, slice(server))] {
        let put = put(server, resource, object).await;
        put.map_err(|error| failed(&format!("{} kubernetes", resource.singular), &error))?;
    }
    Ok(())
}

fn failed(object: &str, error: &ApiError) -> StartError {
    StartError::Bootstrap { object: object.into(), message: error.0.message.clone() }
}

/// Creates the object if it is missing. It is looked for first: a Service that is there holds its address, so that
/// making it again would fail for that reason.
async fn create(server: &ApiServer, resource: &'static Resource, object: Value) -> Result<()> {
    if server.fetch(at(resource, &object)).await.is_ok() {
        return Ok(());
    }
    match server.insert(resource, object, false, &mut Vec::new()).await {
        Err(error) if !error.is("AlreadyExists") => Err(error),
        _ => Ok(()),
    }
}

/// Creates the object, or replaces what it says about addresses and ports.
async fn put(server: &ApiServer, resource: &'static Resource, object: Value) -> Result<()> {
    create(server, resource, object.clone()).await?;
    let change = &mut |old: &Value| {
        let mut new = old.clone();
        for field in ["subsets", "endpoints", "ports"] {
            if let Some(value) = object.get(field) {
                new[field] = value.clone();
            }
        }
        Ok(new)
    };
    server.change(at(resource, &object), Part::Main, false, &mut Vec::new(), change).await.map(drop)
}

fn at<'a>(resource: &'static Resource, object: &'a Value) -> At<'a> {
    let text = |field| meta(object, field).unwrap_or_default();
    At { resource, namespace: text("namespace"), name: text("name") }
}

fn service(server: &ApiServer) -> std::result::Result<Value, StartError> {
    let config = server.config();
    let address = config
        .first_service_address()
        .ok_or_else(|| StartError::Config("at least one service range is needed".into()))?;
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": { "component": "apiserver", "provider": "kubernetes" },
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilyPolicy": "SingleStack",
            "ports": [{ "name": "https", "protocol": "TCP", "port": 443, "targetPort": config.secure_port }],
            "sessionAffinity": "None",
        },
    }))
}

fn endpoints(server: &ApiServer) -> Value {
    let config = server.config();
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" },
        },
        "subsets": [{
            "addresses": [{ "ip": config.advertise_address }],
            "ports": [{ "name": "https", "port": config.secure_port, "protocol": "TCP" }],
        }],
    })
}

fn slice(server: &ApiServer) -> Value {
    let config = server.config();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": { "kubernetes.io/service-name": "kubernetes" },
        },
        "addressType": if config.advertise_address.is_ipv6() { "IPv6" } else { "IPv4" },
        "endpoints": [{ "addresses": [config.advertise_address], "conditions": { "ready": true } }],
        "ports": [{ "name": "https", "port": config.secure_port, "protocol": "TCP" }],
    })
}

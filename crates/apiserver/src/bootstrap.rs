//! The objects that every cluster has: the default ServiceCIDR, the first namespaces, and the Service `kubernetes` that
//! leads to the servers. Range and Service are looked for again and again, and made again when somebody took them away.
//!
//! Everything goes through the same writes as a client's.

use std::sync::{Arc, Weak};

use futures_util::future::try_join_all;
use portolan_api::resource::{NAMESPACES, Resource, SERVICES};
use serde_json::{Value, json};

use crate::config::StartError;
use crate::default_range::{self, Told};
use crate::errors::{ApiError, Result};
use crate::limits::KEEP_INTERVAL;
use crate::masters;
use crate::object::meta;
use crate::server::ApiServer;
use crate::write::{At, Part};
use crate::{accounts, authz};

const FIRST_NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Makes what is missing, and puts this server's address where it is wrong.
pub(crate) async fn run(server: &Arc<ApiServer>, told: &mut Told) -> std::result::Result<(), StartError> {
    // First of all, for the Service needs an address.
    default_range::keep(server, told).await.map_err(|error| failed("the default ServiceCIDR", &error))?;
    server.allocator().reload().await?;
    // All at once: the store makes many writes durable together.
    let namespaces = FIRST_NAMESPACES.iter().map(|name| async move {
        let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        let made = create(server, &NAMESPACES, object).await;
        made.map_err(|error| failed(&format!("namespace {name}"), &error))
    });
    try_join_all(namespaces).await?;
    let furnished = try_join_all(FIRST_NAMESPACES.iter().map(|name| accounts::furnish(server, name)));
    let (furnished, roles) = tokio::join!(furnished, authz::defaults::bootstrap(server));
    furnished.map_err(|error| failed("service accounts", &error))?;
    roles.map_err(|error| failed("roles", &error))?;
    let service = service(server)?;
    create(server, &SERVICES, service).await.map_err(|error| failed("service kubernetes", &error))?;
    masters::publish(server).await.map_err(|error| failed("endpoints of kubernetes", &error))
}

/// Looks for the range and the Service, and renews who the servers are, until the server goes.
pub(crate) async fn keep(server: Weak<ApiServer>, mut told: Told) {
    loop {
        let Some(strong) = server.upgrade() else { return };
        let mut stopped = strong.stopped();
        drop(strong);
        tokio::select! {
            () = tokio::time::sleep(KEEP_INTERVAL) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
        let Some(server) = server.upgrade() else { return };
        let service = async {
            default_range::keep(&server, &mut told).await?;
            make_service(&server).await
        };
        // Side by side: a lease that is renewed late is a server that is gone.
        let (service, masters) = tokio::join!(service, masters::publish(&server));
        for (what, done) in [
            ("the default ServiceCIDR or the Service kubernetes", service),
            ("the endpoints of the Service kubernetes", masters),
        ] {
            if let Err(error) = done {
                tracing::warn!(error = %error.0.message, "{what} could not be looked after");
            }
        }
    }
}

async fn make_service(server: &ApiServer) -> Result<()> {
    match service(server) {
        Ok(object) => create(server, &SERVICES, object).await,
        // The server would not have started.
        Err(_) => Ok(()),
    }
}

pub(crate) fn failed(object: &str, error: &ApiError) -> StartError {
    StartError::Bootstrap { object: object.into(), message: error.0.message.clone() }
}

/// Creates the object if it is missing. It is looked for first: a Service that is there holds its address, so that
/// making it again would fail for that reason.
async fn create(server: &ApiServer, resource: &'static Resource, object: Value) -> Result<()> {
    if server.fetch(at(resource, &object)).await.is_ok() {
        return Ok(());
    }
    match server.insert(resource, object.clone(), false, &mut Vec::new()).await {
        // Another server may have made it meanwhile, in which case even its address is taken.
        Err(error) if server.fetch(at(resource, &object)).await.is_err() => Err(error),
        _ => Ok(()),
    }
}

/// Creates the object, or replaces its labels and what it says about addresses and ports.
pub(crate) async fn put(server: &ApiServer, resource: &'static Resource, object: Value) -> Result<()> {
    create(server, resource, object.clone()).await?;
    let change = &mut |old: &Value| {
        let mut new = old.clone();
        for field in ["subsets", "endpoints", "ports"] {
            if let Some(value) = object.get(field) {
                new[field] = value.clone();
            }
        }
        for (label, value) in object["metadata"]["labels"].as_object().into_iter().flatten() {
            new["metadata"]["labels"][label] = value.clone();
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

//! What the proxy answers over HTTP: `/healthz`, `/livez`, `/metrics`, `/metrics/slis`, `/proxyMode`, `/configz`, and the health-check
//! node ports of Services (NP-3).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use portolan_client::{EventRecorder, EventType, ObjectRef};
use portolan_forward::{HealthCheck, NodePortAddresses, ServiceKey};
use portolan_role::http::header::HeaderValue;
use portolan_role::http::{Answer, JSON, OPEN_METRICS, StatusCode, TEXT, answer, listen, not_found, serve};
use portolan_role::listen::{Families, tcp};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Mode;
use crate::health::{Health, Now, service_body};
use crate::metrics::Metrics;

/// Balancers read the weight of a node here.
const WEIGHT: &str = "x-load-balancing-endpoint-weight";

/// An address to serve on, and what to say when it cannot be had.
pub(crate) struct Place {
    address: SocketAddr,
    /// Bound already.
    listener: Option<TcpListener>,
    events: EventRecorder,
    node: ObjectRef,
    reason: &'static str,
    flag: &'static str,
}

impl Place {
    pub(crate) fn healthz(address: SocketAddr, events: &EventRecorder, node: &ObjectRef) -> Self {
        let (reason, flag) = ("FailedToStartProxierHealthcheck", "--healthz-bind-address");
        Self { address, listener: None, events: events.clone(), node: node.clone(), reason, flag }
    }

    pub(crate) fn metrics(address: SocketAddr, events: &EventRecorder, node: &ObjectRef) -> Self {
        let (reason, flag) = ("FailedToStartMetricServer", "--metrics-bind-address");
        Self { address, listener: None, events: events.clone(), node: node.clone(), reason, flag }
    }

    /// Takes the address now or never.
    pub(crate) fn take(&mut self) -> Result<(), crate::Error> {
        let Self { address, flag, .. } = *self;
        let listener = tcp(address, Families::Both);
        self.listener = Some(listener.map_err(|source| crate::Error::Listen { address, flag, source })?);
        Ok(())
    }

    /// Takes the address as soon as it can be had.
    async fn listener(self) -> TcpListener {
        if let Some(listener) = self.listener {
            return listener;
        }
        let failed = |error: &std::io::Error| {
            let message = format!(
                "cannot listen on {}: {error}; trying again; choose another address with {} if another proxy runs here",
                self.address, self.flag
            );
            tracing::warn!("{message}");
            self.events.record(&self.node, EventType::Warning, self.reason, &message);
        };
        listen(self.address, Families::Both, failed).await
    }
}

pub(crate) async fn healthz(place: Place, health: Arc<Health>, metrics: Arc<Metrics>) {
    let listener = place.listener().await;
    serve(listener, move |path| {
        let livez = match path {
            "/healthz" => false,
            "/livez" => true,
            _ => return not_found(),
        };
        let said = if livez { health.livez(Now::get()) } else { health.healthz(Now::get()) };
        let code = if said.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        if livez {
            metrics.livez_answered(code.as_u16());
        } else {
            metrics.healthz_answered(code.as_u16());
        }
        answer(code, JSON, said.body.to_string())
    })
    .await;
}

/// `shown` is what `/configz` answers.
pub(crate) async fn metrics(place: Place, mode: Mode, shown: Option<Arc<str>>, metrics: Arc<Metrics>) {
    let listener = place.listener().await;
    serve(listener, move |path| match path {
        "/metrics" => answer(StatusCode::OK, OPEN_METRICS, metrics.render()),
        "/proxyMode" => answer(StatusCode::OK, TEXT, mode.as_str()),
        "/metrics/slis" => answer(StatusCode::OK, OPEN_METRICS, metrics.render_indicators()),
        "/healthz" | "/healthz/ping" => {
            metrics.pinged();
            answer(StatusCode::OK, TEXT, "ok")
        }
        "/configz" => match &shown {
            Some(shown) => answer(StatusCode::OK, JSON, format!("{{\"kubeproxy.config.k8s.io\":{shown}}}\n")),
            None => not_found(),
        },
        _ => not_found(),
    })
    .await;
}

/// The health-check node ports that should be served, and on which addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct HealthChecks {
    pub(crate) services: BTreeMap<ServiceKey, Check>,
    /// `None`: every address.
    pub(crate) addresses: Option<Vec<IpAddr>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) check: HealthCheck,
    pub(crate) uid: String,
}

impl HealthChecks {
    pub(crate) fn listen_on(&mut self, addresses: &NodePortAddresses) {
        self.addresses = match addresses {
            NodePortAddresses::All => None,
            NodePortAddresses::Addresses(addresses) => Some(addresses.clone()),
        };
    }

    /// Who answers at which socket.
    fn sockets(&self) -> BTreeMap<SocketAddr, (ServiceKey, Check)> {
        let all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let addresses = self.addresses.as_deref().unwrap_or(&all);
        let mut sockets = BTreeMap::new();
        for (key, check) in &self.services {
            for address in addresses {
                let socket = SocketAddr::new(*address, check.check.port);
                sockets.entry(socket).or_insert_with(|| (key.clone(), check.clone()));
            }
        }
        sockets
    }
}

/// One listener, with what it says now.
struct Served {
    service: ServiceKey,
    local_endpoints: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps the listeners as the newest value says, until its sender is gone.
pub(crate) async fn service_health(
    mut wanted: watch::Receiver<HealthChecks>,
    health: Arc<Health>,
    events: EventRecorder,
) {
    let mut served: BTreeMap<SocketAddr, Served> = BTreeMap::new();
    loop {
        let sockets = wanted.borrow_and_update().sockets();
        let keep: BTreeSet<SocketAddr> = sockets
            .iter()
            .filter(|(socket, (key, _))| served.get(socket).is_some_and(|served| served.service == *key))
            .map(|(socket, _)| *socket)
            .collect();
        served.retain(|socket, _| keep.contains(socket));
        for (socket, (service, check)) in sockets {
            if let Some(served) = served.get(&socket) {
                *served.local_endpoints.lock().unwrap_or_else(PoisonError::into_inner) =
                    check.check.local_endpoints;
                continue;
            }
            let local_endpoints = Arc::new(Mutex::new(check.check.local_endpoints));
            let task = tokio::spawn(serve_one(
                socket,
                (service.clone(), check.uid),
                Arc::clone(&local_endpoints),
                Arc::clone(&health),
                events.clone(),
            ));
            served.insert(socket, Served { service, local_endpoints, task });
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

async fn serve_one(
    socket: SocketAddr,
    (service, uid): (ServiceKey, String),
    local_endpoints: Arc<Mutex<usize>>,
    health: Arc<Health>,
    events: EventRecorder,
) {
    let failed = |error: &std::io::Error| {
        let message =
            format!("node cannot start health check server for service {service} on {socket}: {error}");
        tracing::warn!("{message}");
        let about = ObjectRef {
            api_version: "v1".into(),
            kind: "Service".into(),
            namespace: service.namespace.to_string(),
            name: service.name.to_string(),
            uid: uid.clone(),
            ..ObjectRef::default()
        };
        events.record(&about, EventType::Warning, "FailedToStartServiceHealthcheck", &message);
    };
    let listener = listen(socket, Families::Own, failed).await;
    serve(listener, move |_| {
        let count = *local_endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        service_answer(&service, count, health.is_healthy(Instant::now()))
    })
    .await;
}

fn service_answer(service: &ServiceKey, local_endpoints: usize, healthy: bool) -> Answer {
    let ok = local_endpoints > 0 && healthy;
    let code = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = service_body(&service.namespace, &service.name, local_endpoints, healthy);
    let mut response = answer(code, JSON, body);
    response.headers_mut().insert(WEIGHT, HeaderValue::from(local_endpoints as u64));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn each_address_gets_a_socket_and_the_first_service_a_taken_port() {
        let mut checks = HealthChecks::default();
        checks.listen_on(&NodePortAddresses::Addresses(vec![
            "192.0.2.1".parse().unwrap(),
            "2001:db8::1".parse().unwrap(),
        ]));
        for name in ["b", "a"] {
            let check = Check { check: HealthCheck { port: 32000, local_endpoints: 1 }, uid: String::new() };
            checks.services.insert(ServiceKey::new("default", name), check);
        }
        let sockets: Vec<String> =
            checks.sockets().into_iter().map(|(socket, (key, _))| format!("{socket} {key}")).collect();
        assert_eq!(sockets, ["192.0.2.1:32000 default/a", "[2001:db8::1]:32000 default/a"]);
        checks.listen_on(&NodePortAddresses::All);
        assert_eq!(checks.sockets().len(), 2);
    }

    #[tokio::test]
    async fn health_checks_are_answered_at_all_addresses_of_both_families() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut checks = HealthChecks::default();
        let check = Check { check: HealthCheck { port, local_endpoints: 1 }, uid: String::new() };
        checks.services.insert(ServiceKey::new("shop", "web"), check);
        let (_wanted, watched) = watch::channel(checks);
        let health = Arc::new(Health::new(vec![portolan_forward::Family::V4], Now::get()));
        let events = EventRecorder::new(portolan_client::testing::FakeApi::new().client(), "test", "n1");
        let _serving = tokio::spawn(service_health(watched, health, events));
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let connect = async {
                while tokio::net::TcpStream::connect((ip, port)).await.is_err() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(10), connect).await.expect("a listener");
        }
    }

    #[tokio::test]
    async fn a_health_check_answers_by_endpoints_and_health() {
        let key = ServiceKey::new("shop", "web");
        for (endpoints, healthy, code) in [(2, true, 200), (0, true, 503), (2, false, 503)] {
            let response = service_answer(&key, endpoints, healthy);
            assert_eq!(response.status().as_u16(), code);
            assert_eq!(response.headers()[WEIGHT], endpoints.to_string());
            assert_eq!(response.headers()["x-content-type-options"], "nosniff");
            assert_eq!(response.headers()["content-type"], "application/json");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["localEndpoints"], endpoints);
            assert_eq!(body["serviceProxyHealthy"], healthy);
        }
    }
}

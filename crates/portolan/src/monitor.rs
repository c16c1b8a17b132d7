//! Metrics and health of the load-balancer roles over HTTP, on one address.

use std::net::SocketAddr;
use std::sync::Arc;

use portolan_announce::Health;
use portolan_controllers::loadbalancer;
use portolan_role::http::{Answer, OPEN_METRICS, StatusCode, TEXT, answer, listen, not_found, serve};
use portolan_role::listen::Families;
use prometheus_client::registry::Registry;

/// The port of MetalLB's speaker.
pub(crate) const ADDRESS: &str = "127.0.0.1:7472";

/// The roles of this process.
#[derive(Default, Clone)]
pub(crate) struct Roles {
    pub(crate) announcer: Option<Arc<portolan_announce::Metrics>>,
    pub(crate) allocator: Option<Arc<loadbalancer::Metrics>>,
}

impl Roles {
    fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        if let Some(announcer) = &self.announcer {
            announcer.register(&mut registry);
        }
        if let Some(allocator) = &self.allocator {
            allocator.register(&mut registry);
        }
        registry
    }

    /// Without an announcer there is nothing that could hang unseen.
    fn health(&self) -> Health {
        self.announcer.as_ref().map_or(Health::Ready, |announcer| announcer.health())
    }
}

/// Where to serve; `None`: nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) Option<SocketAddr>);

pub(crate) fn address(text: &str) -> Result<Address, String> {
    if text == "none" {
        return Ok(Address(None));
    }
    let parsed = text
        .parse()
        .map_err(|_| format!("{text:?} is neither an address and port such as {ADDRESS} nor none"));
    parsed.map(|address| Address(Some(address)))
}

/// Several control planes of one host would be in each other's way, and none of them announces.
pub(crate) fn usual(is_node: bool) -> Address {
    Address(ADDRESS.parse().ok().filter(|_| is_node))
}

/// Serves in the background, for as long as the program runs.
pub(crate) fn start(address: Address, flag: &'static str, roles: Roles) {
    if let Some(address) = address.0 {
        tokio::spawn(run(address, flag, roles));
    }
}

/// Serves `/metrics`, `/livez`, `/readyz` and `/healthz` until dropped; tries for ever where the address is taken.
async fn run(address: SocketAddr, flag: &'static str, roles: Roles) {
    let failed = |error: &std::io::Error| {
        tracing::warn!(%address, %error, "no metrics and health of load balancing: set another address with {flag}");
    };
    let listener = listen(address, Families::Both, failed).await;
    let registry = roles.registry();
    serve(listener, move |path| match path {
        "/metrics" => {
            let mut out = String::new();
            // Writing to a String cannot fail.
            let _ = prometheus_client::encoding::text::encode(&mut out, &registry);
            answer(StatusCode::OK, OPEN_METRICS, out)
        }
        // A process that starts is not to be started anew.
        "/livez" => health(roles.health(), |health| health != Health::Hanging),
        "/readyz" | "/healthz" => health(roles.health(), |health| health == Health::Ready),
        _ => not_found(),
    })
    .await;
}

fn health(health: Health, fine: impl Fn(Health) -> bool) -> Answer {
    let code = if fine(health) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let text = match health {
        Health::Starting => "starting: waiting for the API, or listening to the other announcers\n",
        Health::Ready => "ok\n",
        Health::Hanging => "the announcer's thread does not run any more\n",
    };
    answer(code, TEXT, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused_with_an_example() {
        assert_eq!(address("127.0.0.1:7472"), Ok(Address(ADDRESS.parse().ok())));
        assert_eq!(address("none"), Ok(Address(None)));
        assert!(address("7472").unwrap_err().contains(ADDRESS));
    }

    #[test]
    fn a_start_is_no_reason_to_start_anew() {
        let live = |now| health(now, |now| now != Health::Hanging).status().as_u16();
        let ready = |now| health(now, |now| now == Health::Ready).status().as_u16();
        assert_eq!((live(Health::Starting), ready(Health::Starting)), (200, 503));
        assert_eq!((live(Health::Hanging), ready(Health::Hanging)), (503, 503));
        assert_eq!((live(Health::Ready), ready(Health::Ready)), (200, 200));
    }
}

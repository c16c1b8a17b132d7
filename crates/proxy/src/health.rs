//! Whether the proxy is healthy (NODE-2). The state takes `now` as an argument; `server` asks it over HTTP.
//!
//! Unhealthy means that a change has waited too long to reach the kernel. The start counts as a change.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use portolan_forward::Family;
use serde_json::{Value, json};

/// A change that waits longer makes the proxy unhealthy.
pub const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub struct Health {
    state: Mutex<State>,
    families: Vec<Family>,
}

#[derive(Debug)]
struct State {
    /// The oldest change that is not in the kernel yet.
    waiting_since: Option<Instant>,
    last_success: Timestamp,
    node_eligible: bool,
}

/// A moment in both reckonings.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub instant: Instant,
    pub timestamp: Timestamp,
}

impl Now {
    pub fn get() -> Self {
        Self { instant: Instant::now(), timestamp: Timestamp::now() }
    }
}

/// An answer of `/healthz` or `/livez`.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub ok: bool,
    pub body: Value,
}

impl Health {
    pub fn new(families: Vec<Family>, now: Now) -> Self {
        // Until the Node object says otherwise the node may not take traffic.
        let state =
            State { waiting_since: Some(now.instant), last_success: now.timestamp, node_eligible: false };
        Self { state: Mutex::new(state), families }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something to write.
    pub fn queued(&self, now: Instant) {
        self.state().waiting_since.get_or_insert(now);
    }

    /// Everything known is in the kernel.
    pub fn synced(&self, now: Now) {
        let mut state = self.state();
        state.waiting_since = None;
        state.last_success = now.timestamp;
    }

    pub fn node(&self, eligible: bool) {
        self.state().node_eligible = eligible;
    }

    pub fn is_healthy(&self, now: Instant) -> bool {
        healthy(&self.state(), now)
    }

    /// `/healthz`: the rules are up to date and the node may take traffic.
    pub fn healthz(&self, now: Now) -> Answer {
        let state = self.state();
        let ok = healthy(&state, now.instant) && state.node_eligible;
        let mut answer = self.answer(&state, now, ok);
        answer.body["nodeEligible"] = state.node_eligible.into();
        answer
    }

    /// `/livez`: the rules are up to date, whatever is to become of the node.
    pub fn livez(&self, now: Now) -> Answer {
        let state = self.state();
        self.answer(&state, now, healthy(&state, now.instant))
    }

    fn answer(&self, state: &State, now: Now, ok: bool) -> Answer {
        let healthy = healthy(state, now.instant);
        let last = state.last_success.to_string();
        let of_families = self
            .families
            .iter()
            .map(|family| (name(*family).to_owned(), json!({ "lastUpdated": last, "healthy": healthy })));
        let body = json!({
            // A healthy proxy with nothing to do is up to date.
            "lastUpdated": if ok { now.timestamp.to_string() } else { last.clone() },
            "currentTime": now.timestamp.to_string(),
            "healthy": healthy,
            "status": Value::Object(of_families.collect()),
        });
        Answer { ok, body }
    }
}

fn healthy(state: &State, now: Instant) -> bool {
    state.waiting_since.is_none_or(|since| now.saturating_duration_since(since) < PATIENCE)
}

/// The API's spelling.
pub fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// The answer of a health-check node port (NP-3), byte for byte kube-proxy's: balancers parse it.
pub fn service_body(namespace: &str, name: &str, local_endpoints: usize, healthy: bool) -> String {
    format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {namespace:?},\n\t\t\"name\": {name:?}\n\t}},\n\t\
         \"localEndpoints\": {local_endpoints},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later(now: Now, seconds: u64) -> Now {
        let by = Duration::from_secs(seconds);
        Now { instant: now.instant + by, timestamp: now.timestamp + by }
    }

    #[test]
    fn unhealthy_when_a_change_waits_too_long() {
        let now = Now::get();
        let health = Health::new(vec![Family::V4], now);
        health.node(true);
        assert!(health.healthz(later(now, 59)).ok);
        assert!(!health.healthz(later(now, 60)).ok, "the first sync counts");
        health.synced(later(now, 61));
        assert!(health.healthz(later(now, 9999)).ok, "nothing to do is fine");
        health.queued(later(now, 100).instant);
        health.queued(later(now, 150).instant);
        assert!(!health.healthz(later(now, 160)).ok, "the oldest change counts");
        let body = health.healthz(later(now, 160)).body;
        assert_eq!(body["status"]["IPv4"]["healthy"], false);
        assert_eq!(body["lastUpdated"], later(now, 61).timestamp.to_string());
    }

    #[test]
    fn livez_does_not_look_at_the_node() {
        let now = Now::get();
        let health = Health::new(vec![Family::V4], now);
        let (healthz, livez) = (health.healthz(now), health.livez(now));
        assert!(!healthz.ok && livez.ok, "the node is not known yet");
        assert_eq!((&healthz.body["nodeEligible"], &healthz.body["healthy"]), (&json!(false), &json!(true)));
        assert!(livez.body.get("nodeEligible").is_none());
    }

    #[test]
    fn a_health_check_port_says_what_kube_proxy_says() {
        let expected = "{\n\t\"service\": {\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 1,\n\t\"serviceProxyHealthy\": true\n}";
        assert_eq!(service_body("shop", "web", 1, true), expected);
        assert!(serde_json::from_str::<Value>(expected).is_ok());
    }
}

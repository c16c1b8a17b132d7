//! Counters of the API server, named as Kubernetes names them.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::alloc_metrics::AllocMetrics;
use crate::flow_metrics::FlowMetrics;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: String,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    verb: &'static str,
    resource: &'static str,
}

/// What a request was, for its counters. Requests that are not about objects have empty names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Labels {
    /// Verb.
    pub(crate) verb: &'static str,
    /// API group.
    pub(crate) group: &'static str,
    /// API version.
    pub(crate) version: &'static str,
    /// Plural name.
    pub(crate) resource: &'static str,
    /// Subresource.
    pub(crate) subresource: String,
}

/// All counters of one server.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    durations: Family<Kind, Histogram>,
    long_running: Family<Kind, Gauge<i64, AtomicI64>>,
    watch_events: Family<Kind, Counter>,
    /// How full the allocators are.
    pub(crate) allocators: AllocMetrics,
    /// Those of fairness.
    pub(crate) flows: FlowMetrics,
}

impl Metrics {
    /// Counters at zero.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        // From 0.5 ms, below which nothing is worth telling apart, to 16 s.
        let durations: Family<Kind, Histogram> = Family::new_with_constructor(|| {
            Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(0.0005, 2.0, 16))
        });
        let long_running = Family::default();
        let watch_events = Family::default();
        registry.register(
            "apiserver_request",
            "Requests by verb, resource and code",
            Family::clone(&requests),
        );
        registry.register(
            "apiserver_request_duration_seconds",
            "Time to answer, watches excepted",
            durations.clone(),
        );
        registry.register(
            "apiserver_longrunning_requests",
            "Watches that are open now",
            Family::clone(&long_running),
        );
        registry.register("apiserver_watch_events", "Events sent to watches", Family::clone(&watch_events));
        let allocators = AllocMetrics::default();
        allocators.register(&mut registry);
        let flows = FlowMetrics::default();
        flows.register(&mut registry);
        Self { registry, requests, durations, long_running, watch_events, allocators, flows }
    }

    /// Counts one answered request.
    pub(crate) fn observe(&self, labels: &Labels, code: u16, took: Duration) {
        let Labels { verb, group, version, resource, subresource } = labels.clone();
        let request = Request { verb, group, version, resource, subresource, code };
        self.requests.get_or_create(&request).inc();
        if verb != "WATCH" {
            self.durations.get_or_create(&Kind { verb, resource }).observe(took.as_secs_f64());
        }
    }

    /// Counts a watch for as long as the guard lives.
    pub(crate) fn watch(&self, resource: &'static str) -> WatchGuard {
        let kind = Kind { verb: "WATCH", resource };
        let open = self.long_running.get_or_create_owned(&kind);
        open.inc();
        WatchGuard { open, events: self.watch_events.get_or_create_owned(&kind) }
    }

    /// All counters in `OpenMetrics` text.
    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// One open watch.
pub(crate) struct WatchGuard {
    open: Gauge<i64, AtomicI64>,
    /// Events sent to it, counted together with those of its kind.
    pub(crate) events: Counter,
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.open.dec();
    }
}

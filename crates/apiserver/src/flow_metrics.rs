//! What fairness counts, under the names of Kubernetes' API priority and fairness where they mean the same. There is one
//! level, and flows are users: what Kubernetes calls `global-default`.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

const NAME: &str = "global-default";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Level {
    priority_level: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Schema {
    priority_level: &'static str,
    flow_schema: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rejected {
    priority_level: &'static str,
    flow_schema: &'static str,
    reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Waited {
    priority_level: &'static str,
    flow_schema: &'static str,
    execute: &'static str,
}

const LEVEL: Level = Level { priority_level: NAME };
const SCHEMA: Schema = Schema { priority_level: NAME, flow_schema: NAME };

/// Why a request got no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// Its flow's queue, or all queues together, had no room.
    QueueFull,
    /// It waited too long.
    TimeOut,
    /// Whoever asked went away.
    Cancelled,
}

impl EncodeLabelValue for Reason {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        let word = match self {
            Self::QueueFull => "queue-full",
            Self::TimeOut => "time-out",
            Self::Cancelled => "cancelled",
        };
        word.encode(encoder)
    }
}

/// The counters. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct FlowMetrics {
    dispatched: Family<Schema, Counter>,
    rejected: Family<Rejected, Counter>,
    waiting: Family<Schema, Gauge<i64, AtomicI64>>,
    executing: Family<Schema, Gauge<i64, AtomicI64>>,
    seats: Family<Level, Gauge<i64, AtomicI64>>,
    waited: Family<Waited, Histogram>,
}

impl Default for FlowMetrics {
    fn default() -> Self {
        Self {
            dispatched: Family::default(),
            rejected: Family::default(),
            waiting: Family::default(),
            executing: Family::default(),
            seats: Family::default(),
            // From 1 ms to 16 s, beyond the longest wait.
            waited: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 15))),
        }
    }
}

impl FlowMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        const PREFIX: &str = "apiserver_flowcontrol";
        let registry = registry.sub_registry_with_prefix(PREFIX);
        registry.register("dispatched_requests", "Requests that got a seat", self.dispatched.clone());
        registry.register(
            "rejected_requests",
            "Requests that got none, by the reason",
            self.rejected.clone(),
        );
        registry.register(
            "current_inqueue_requests",
            "Requests that wait for a seat now",
            self.waiting.clone(),
        );
        registry.register(
            "current_executing_requests",
            "Requests that hold a seat now",
            self.executing.clone(),
        );
        registry.register("nominal_limit_seats", "How many seats there are", self.seats.clone());
        registry.register(
            "request_wait_duration_seconds",
            "Time in the queue, by whether a seat came of it",
            self.waited.clone(),
        );
    }

    pub(crate) fn dispatched(&self, waited: Duration) {
        self.dispatched.get_or_create(&SCHEMA).inc();
        self.waited(waited, "true");
    }

    pub(crate) fn rejected(&self, reason: Reason, waited: Duration) {
        let labels = Rejected { priority_level: NAME, flow_schema: NAME, reason };
        self.rejected.get_or_create(&labels).inc();
        self.waited(waited, "false");
    }

    fn waited(&self, waited: Duration, execute: &'static str) {
        let labels = Waited { priority_level: NAME, flow_schema: NAME, execute };
        self.waited.get_or_create(&labels).observe(waited.as_secs_f64());
    }

    /// What is so at the moment.
    pub(crate) fn show(&self, executing: usize, waiting: usize, seats: usize) {
        let set = |gauge: &Gauge<i64, AtomicI64>, value: usize| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.executing.get_or_create(&SCHEMA), executing);
        set(&self.waiting.get_or_create(&SCHEMA), waiting);
        set(&self.seats.get_or_create(&LEVEL), seats);
    }
}

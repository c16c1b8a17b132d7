//! What is measured. Names are kube-proxy's where the meaning is the same, `portolan_proxy_...` where it is ours.

use std::sync::atomic::AtomicU64;

use portolan_dataplane::Report;
use portolan_forward::{Family, FrontendKind, Route, ServiceChange, ServiceTable};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family as Labelled, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::config::Mode;
use crate::health;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IpFamily {
    ip_family: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

/// Of Kubernetes' indicators of a component's health.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Check {
    name: &'static str,
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Checked {
    name: &'static str,
    status: &'static str,
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Policy {
    traffic_policy: &'static str,
    ip_family: &'static str,
}

#[derive(Clone)]
struct Buckets(fn() -> Vec<f64>);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new((self.0)())
    }
}

type Durations = Labelled<IpFamily, Histogram, Buckets>;
type Seconds = Gauge<f64, AtomicU64>;

/// 1 ms to 16 s.
fn sync_buckets() -> Vec<f64> {
    exponential_buckets(0.001, 2.0, 15).collect()
}

/// As kube-proxy has them, and finer below: here most changes take milliseconds.
fn programming_buckets() -> Vec<f64> {
    let steps = |from: u32, to: u32, by: usize| (from..=to).step_by(by).map(f64::from);
    let fine = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5];
    fine.into_iter().chain(steps(1, 59, 1)).chain(steps(60, 115, 5)).chain(steps(120, 300, 30)).collect()
}

pub struct Metrics {
    registry: Registry,
    /// What `/metrics/slis` shows.
    indicators: Registry,
    families: Vec<Family>,
    sync_duration: Durations,
    full_duration: Durations,
    partial_duration: Durations,
    programming: Durations,
    last_success: Labelled<IpFamily, Seconds>,
    last_queued: Labelled<IpFamily, Seconds>,
    sync_failures: Labelled<IpFamily, Counter>,
    /// Of them, those of a change.
    partial_failures: Labelled<IpFamily, Counter>,
    cleanup_failures: Labelled<IpFamily, Counter>,
    no_local_endpoints: Labelled<Policy, Gauge>,
    service_changes: Counter,
    endpoint_changes: Counter,
    service_changes_pending: Gauge,
    endpoint_changes_pending: Gauge,
    healthz: Labelled<Code, Counter>,
    livez: Labelled<Code, Counter>,
    check: Labelled<Check, Gauge>,
    checks: Labelled<Checked, Counter>,
    conntrack_duration: Durations,
    conntrack_deleted: Labelled<IpFamily, Counter>,
    objects: Labelled<Operation, Counter>,
    operations: Counter,
    services: Gauge,
    refused: Gauge,
    pub notes: Counter,
    pub drift: Counter,
    pub verifications: Counter,
    pub decode_failures: Gauge,
    pub alarms: Counter,
    endpoints: Gauge,
}

impl Metrics {
    pub fn new(families: Vec<Family>, mode: Mode) -> Self {
        let (sync, programming) = (Buckets(sync_buckets), Buckets(programming_buckets));
        let durations = |buckets: &Buckets| Durations::new_with_constructor(buckets.clone());
        let mut metrics = Self {
            registry: Registry::default(),
            indicators: Registry::default(),
            families,
            sync_duration: durations(&sync),
            full_duration: durations(&sync),
            partial_duration: durations(&sync),
            programming: durations(&programming),
            conntrack_duration: durations(&sync),
            last_success: Labelled::default(),
            last_queued: Labelled::default(),
            sync_failures: Labelled::default(),
            partial_failures: Labelled::default(),
            cleanup_failures: Labelled::default(),
            no_local_endpoints: Labelled::default(),
            service_changes: Counter::default(),
            endpoint_changes: Counter::default(),
            service_changes_pending: Gauge::default(),
            endpoint_changes_pending: Gauge::default(),
            healthz: Labelled::default(),
            livez: Labelled::default(),
            check: Labelled::default(),
            checks: Labelled::default(),
            conntrack_deleted: Labelled::default(),
            objects: Labelled::default(),
            operations: Counter::default(),
            services: Gauge::default(),
            refused: Gauge::default(),
            notes: Counter::default(),
            drift: Counter::default(),
            verifications: Counter::default(),
            decode_failures: Gauge::default(),
            alarms: Counter::default(),
            endpoints: Gauge::default(),
        };
        metrics.register_shared();
        metrics.register_failures(mode);
        metrics.register_own();
        metrics.register_indicators();
        metrics
    }

    fn register_shared(&mut self) {
        let kube = self.registry.sub_registry_with_prefix("kubeproxy");
        kube.register("sync_proxy_rules_duration_seconds", "Time a sync took", self.sync_duration.clone());
        kube.register(
            "sync_full_proxy_rules_duration_seconds",
            "Time a full sync took",
            self.full_duration.clone(),
        );
        kube.register(
            "sync_partial_proxy_rules_duration_seconds",
            "Time one change took",
            self.partial_duration.clone(),
        );
        kube.register(
            "network_programming_duration_seconds",
            "Time from a change of endpoints to its rules",
            self.programming.clone(),
        );
        kube.register(
            "sync_proxy_rules_last_timestamp_seconds",
            "The last success",
            self.last_success.clone(),
        );
        kube.register(
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "The last change seen",
            self.last_queued.clone(),
        );
        kube.register(
            "sync_proxy_rules_service_changes",
            "Changes of Services",
            self.service_changes.clone(),
        );
        kube.register(
            "sync_proxy_rules_endpoint_changes",
            "Changes of EndpointSlices",
            self.endpoint_changes.clone(),
        );
        kube.register(
            "sync_proxy_rules_service_changes_pending",
            "Changes of Services that are not in the kernel yet",
            self.service_changes_pending.clone(),
        );
        kube.register(
            "sync_proxy_rules_endpoint_changes_pending",
            "Changes of EndpointSlices that are not in the kernel yet",
            self.endpoint_changes_pending.clone(),
        );
        kube.register(
            "sync_proxy_rules_no_local_endpoints_total",
            "Service ports of policy Local whose endpoints are all elsewhere",
            self.no_local_endpoints.clone(),
        );
        kube.register("proxy_healthz", "Answers of /healthz", self.healthz.clone());
        kube.register("proxy_livez", "Answers of /livez", self.livez.clone());
        kube.register(
            "conntrack_reconciler_sync_duration_seconds",
            "Time a look for stale flows took",
            self.conntrack_duration.clone(),
        );
        kube.register(
            "conntrack_reconciler_deleted_entries",
            "Stale flows removed",
            self.conntrack_deleted.clone(),
        );
    }

    fn register_own(&mut self) {
        let own = self.registry.sub_registry_with_prefix("portolan_proxy");
        own.register(
            "kernel_objects",
            "Kernel objects written, by what became of them",
            self.objects.clone(),
        );
        own.register("kernel_operations", "Operations sent to the kernel", self.operations.clone());
        own.register("services", "Services in the table", self.services.clone());
        own.register(
            "services_refused",
            "Services that the data plane could not encode",
            self.refused.clone(),
        );
        own.register("notes", "Odd input that was left out", self.notes.clone());
        own.register("drift_objects", "Kernel objects that others changed", self.drift.clone());
        own.register(
            "verifications",
            "Times the kernel was read back to compare",
            self.verifications.clone(),
        );
        own.register("intrusions", "Times others were heard changing our rules", self.alarms.clone());
        own.register("endpoints", "Serving endpoints of all Service ports", self.endpoints.clone());
        own.register("decode_failures", "Objects that could not be read", self.decode_failures.clone());
    }

    /// By the names that kube-proxy has for them in the same mode; its mode ipvs writes with iptables, too.
    fn register_failures(&mut self, mode: Mode) {
        let kube = self.registry.sub_registry_with_prefix("kubeproxy");
        match mode {
            Mode::Nftables => {
                kube.register(
                    "sync_proxy_rules_nftables_sync_failures",
                    "Commits that failed",
                    self.sync_failures.clone(),
                );
                kube.register(
                    "sync_proxy_rules_nftables_cleanup_failures",
                    "Times that superfluous chains and elements could not be removed",
                    self.cleanup_failures.clone(),
                );
            }
            Mode::Iptables | Mode::Ipvs => {
                kube.register(
                    "sync_proxy_rules_iptables_restore_failures",
                    "Writes that failed",
                    self.sync_failures.clone(),
                );
                kube.register(
                    "sync_proxy_rules_iptables_partial_restore_failures",
                    "Writes that failed, of single changes",
                    self.partial_failures.clone(),
                );
            }
        }
        // Where kube-proxy has no name for it. Mode iptables leaves nothing for later.
        if mode == Mode::Ipvs {
            self.registry.sub_registry_with_prefix("portolan_proxy").register(
                "cleanup_failures",
                "Times that something superfluous could not be removed",
                self.cleanup_failures.clone(),
            );
        }
    }

    fn register_indicators(&mut self) {
        let kubernetes = self.indicators.sub_registry_with_prefix("kubernetes");
        kubernetes.register("healthcheck", "Whether the check passed last", self.check.clone());
        kubernetes.register("healthchecks", "Checks, by how they went", self.checks.clone());
    }

    fn each_family(&self, mut with: impl FnMut(&IpFamily)) {
        for family in &self.families {
            with(&IpFamily { ip_family: health::name(*family) });
        }
    }

    /// So many Services and slices have changed.
    pub fn changed(&self, services: usize, slices: usize) {
        self.service_changes.inc_by(services as u64);
        self.service_changes_pending.inc_by(services as i64);
        self.endpoint_changes.inc_by(slices as u64);
        self.endpoint_changes_pending.inc_by(slices as i64);
    }

    /// The kernel holds everything known.
    pub fn settled(&self) {
        self.service_changes_pending.set(0);
        self.endpoint_changes_pending.set(0);
    }

    pub fn queued(&self, timestamp_s: f64) {
        self.each_family(|family| _ = self.last_queued.get_or_create(family).set(timestamp_s));
    }

    /// A commit went through.
    pub fn committed(&self, full: bool, seconds: f64, timestamp_s: f64, report: &Report, services: usize) {
        let kind = if full { &self.full_duration } else { &self.partial_duration };
        self.each_family(|family| {
            self.sync_duration.get_or_create(family).observe(seconds);
            kind.get_or_create(family).observe(seconds);
            self.last_success.get_or_create(family).set(timestamp_s);
        });
        for (operation, count) in
            [("add", report.added), ("remove", report.removed), ("change", report.changed)]
        {
            self.objects.get_or_create(&Operation { operation }).inc_by(count as u64);
        }
        self.operations.inc_by(report.operations as u64);
        self.services.set(services as i64);
        if full {
            self.refused.set(report.refused.len() as i64);
        } else {
            self.refused.inc_by(report.refused.len() as i64);
        }
    }

    /// A Service changed: counts the ports whose traffic is dropped for want of an endpoint on this node.
    pub fn service_changed(&self, change: &ServiceChange) {
        for (table, by) in [(&change.from, -1), (&change.to, 1)] {
            let ports = table.iter().flat_map(|table| &table.ports);
            self.endpoints.inc_by(by * ports.map(|port| port.serving.len() as i64).sum::<i64>());
            for (family, traffic_policy) in table.iter().flat_map(|table| without_local_endpoint(table)) {
                let policy = Policy { traffic_policy, ip_family: health::name(family) };
                self.no_local_endpoints.get_or_create(&policy).inc_by(by);
            }
        }
    }

    /// Writing failed: of everything, or of a change.
    pub fn failed(&self, full: bool) {
        self.each_family(|family| _ = self.sync_failures.get_or_create(family).inc());
        if !full {
            self.each_family(|family| _ = self.partial_failures.get_or_create(family).inc());
        }
    }

    /// What is superfluous stays in the kernel for now.
    pub fn cleanup_failed(&self, times: u64) {
        self.each_family(|family| _ = self.cleanup_failures.get_or_create(family).inc_by(times));
    }

    pub fn programmed(&self, seconds: f64) {
        self.each_family(|family| self.programming.get_or_create(family).observe(seconds));
    }

    pub fn conntrack(&self, family: Family, seconds: f64, deleted: usize) {
        let family = IpFamily { ip_family: health::name(family) };
        self.conntrack_duration.get_or_create(&family).observe(seconds);
        self.conntrack_deleted.get_or_create(&family).inc_by(deleted as u64);
    }

    pub fn healthz_answered(&self, code: u16) {
        self.healthz.get_or_create(&Code { code }).inc();
        self.checked("sync", "healthz", code == 200);
    }

    pub fn livez_answered(&self, code: u16) {
        self.livez.get_or_create(&Code { code }).inc();
        self.checked("sync", "livez", code == 200);
    }

    /// The server of the metrics itself was asked whether it lives.
    pub fn pinged(&self) {
        self.checked("ping", "healthz", true);
    }

    fn checked(&self, name: &'static str, kind: &'static str, passed: bool) {
        self.check.get_or_create(&Check { name, r#type: kind }).set(passed.into());
        let status = if passed { "success" } else { "error" };
        self.checks.get_or_create(&Checked { name, status, r#type: kind }).inc();
    }

    /// The exposition text (`OpenMetrics` 1.0).
    pub fn render(&self) -> String {
        encoded(&self.registry)
    }

    /// The indicators of health alone, in the same form.
    pub fn render_indicators(&self) -> String {
        encoded(&self.indicators)
    }
}

fn encoded(registry: &Registry) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    _ = text::encode(&mut out, registry);
    out
}

/// The ports of a Service that drop internal or external traffic (POL-1, POL-3).
fn without_local_endpoint(table: &ServiceTable) -> Vec<(Family, &'static str)> {
    let mut found = Vec::new();
    for port in &table.ports {
        let drops = |internal: bool| {
            port.frontends.iter().any(|frontend| {
                matches!(frontend.kind, FrontendKind::ClusterIp(_)) == internal
                    && frontend.routes.outside == Route::Drop
            })
        };
        let policies = [(true, "internal"), (false, "external")].into_iter();
        found.extend(
            policies.filter(|(internal, _)| drops(*internal)).map(|(_, policy)| (port.key.family, policy)),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_the_names_of_the_mode() {
        let line =
            |name: &str, count| format!("kubeproxy_sync_proxy_rules_{name}{{ip_family=\"IPv4\"}} {count}\n");
        let restore =
            [line("iptables_restore_failures_total", 3), line("iptables_partial_restore_failures_total", 2)];
        let sync = [line("nftables_sync_failures_total", 3)];
        for mode in Mode::ALL {
            let metrics = Metrics::new(vec![Family::V4], mode);
            for full in [true, false, false] {
                metrics.failed(full);
            }
            let text = metrics.render();
            let is_nftables = mode == Mode::Nftables;
            assert!(restore.iter().all(|line| text.contains(line) != is_nftables), "{mode:?}: {text}");
            assert!(sync.iter().all(|line| text.contains(line) == is_nftables), "{mode:?}: {text}");
        }
    }

    #[test]
    fn names_are_kube_proxys_where_the_meaning_is() {
        let metrics = Metrics::new(vec![Family::V4], Mode::Nftables);
        metrics.changed(1, 2);
        let report = Report { added: 3, operations: 4, ..Report::default() };
        metrics.committed(true, 0.002, 1.0, &report, 1);
        metrics.programmed(0.004);
        metrics.failed(true);
        metrics.cleanup_failed(2);
        metrics.conntrack(Family::V4, 0.001, 2);
        metrics.healthz_answered(200);
        let text = metrics.render();
        for line in [
            "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
            "kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
            "kubeproxy_network_programming_duration_seconds_bucket{le=\"0.005\",ip_family=\"IPv4\"} 1",
            "kubeproxy_sync_proxy_rules_service_changes_total 1",
            "kubeproxy_sync_proxy_rules_service_changes_pending 1",
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending 2",
            "kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"} 1",
            "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total{ip_family=\"IPv4\"} 2",
            "kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv4\"} 2",
            "kubeproxy_proxy_healthz_total{code=\"200\"} 1",
            "portolan_proxy_kernel_objects_total{operation=\"add\"} 3",
            "portolan_proxy_services 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn ports_without_a_local_endpoint_are_counted_and_forgotten() {
        use std::sync::Arc;

        use portolan_client::Key;
        use portolan_forward::Policy;

        use crate::snapshot::Snapshot;
        use crate::testing::{node_view, service_object, slice_object, slice_on};

        let metrics = Metrics::new(vec![Family::V4], Mode::Nftables);
        let mut snapshot = Snapshot::new(node_view());
        let key = Key::new("default", "web");
        let mut web = service_object("web", "10.96.0.1", "UDP");
        web.view.internal_policy = Policy::Local;
        web.view.external_policy = Policy::Local;
        let elsewhere = slice_on("n2", "web", &["10.0.0.1"], "UDP");
        let line = |policy: &str, count: usize| {
            format!(
                "kubeproxy_sync_proxy_rules_no_local_endpoints_total{{traffic_policy=\"{policy}\",ip_family=\"IPv4\"}} {count}\n"
            )
        };
        let mut step = |slice: Option<_>, count: usize| {
            snapshot.service(&key, Some(Arc::new(web.clone())));
            snapshot.slice(&key, slice.map(Arc::new));
            for change in &snapshot.compile().delta.services {
                metrics.service_changed(change);
            }
            let text = metrics.render();
            assert!(
                text.contains(&line("internal", count)) && text.contains(&line("external", count)),
                "{text}"
            );
        };
        step(Some(elsewhere), 1);
        step(Some(slice_object("web", &["10.0.0.1"], "UDP")), 0);
    }
}

//! What is measured. Names are CoreDNS' where the meaning is the same, `portolan_dns_...` where it is ours.
//!
//! Workers count in a [`Tally`] of their own, so that they never wait for each other's cache lines; [`Metrics`] adds the
//! tallies up when somebody reads.

use std::collections::BTreeMap;
use std::fmt::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::forward::Forwarder;
use crate::rr::{rcode_name, rtype};
use crate::server::Handler;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp = 0,
    Tcp = 1,
}

/// Who made an answer; CoreDNS' plugins of the same job give the labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Zone = 0,
    Cache = 1,
    Forward = 2,
    Refused = 3,
}

const SOURCES: [&str; 4] = ["kubernetes", "cache", "forward", ""];
const TRANSPORTS: [&str; 2] = ["udp", "tcp"];
const FAMILIES: [&str; 2] = ["1", "2"];
/// The types that have a label of their own, as CoreDNS chose them; the rest is `other`.
const TYPES: [(u16, &str); 11] = [
    (rtype::A, "A"),
    (rtype::AAAA, "AAAA"),
    (rtype::SRV, "SRV"),
    (rtype::PTR, "PTR"),
    (rtype::CNAME, "CNAME"),
    (rtype::MX, "MX"),
    (rtype::NS, "NS"),
    (rtype::SOA, "SOA"),
    (rtype::TXT, "TXT"),
    (rtype::ANY, "ANY"),
    (0, "other"),
];
const RCODES: [u8; 8] = [0, 1, 2, 3, 4, 5, 16, 255];

/// Seconds: CoreDNS' own buckets start at 250 us, where most answers here have long been sent.
const DURATIONS_S: [f64; 20] = [
    0.000_004, 0.000_016, 0.000_032, 0.000_064, 0.000_125, 0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008,
    0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 4.096, 8.192,
];
const SIZES: [f64; 13] =
    [100.0, 200.0, 300.0, 400.0, 511.0, 1_023.0, 2_047.0, 4_095.0, 8_291.0, 16e3, 32e3, 48e3, 64e3];

fn rcode_index(rcode: u8) -> usize {
    RCODES.iter().position(|code| *code == rcode).unwrap_or(RCODES.len() - 1)
}

#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts per bucket, one more for what is larger than all, and the sum in millionths.
#[derive(Debug)]
struct Histogram<const N: usize> {
    bounds: &'static [f64; N],
    buckets: Vec<Counter>,
    sum_millionths: Counter,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: &'static [f64; N]) -> Self {
        Histogram {
            bounds,
            buckets: (0..=N).map(|_| Counter::default()).collect(),
            sum_millionths: Counter::default(),
        }
    }

    fn observe(&self, value: f64, times: u64) {
        let bucket = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(N);
        self.buckets[bucket].add(times);
        self.sum_millionths.add((value * 1e6) as u64 * times);
    }
}

/// One worker's counts.
#[derive(Debug)]
pub struct Tally {
    requests: [[[Counter; TYPES.len()]; 2]; 2],
    responses: [[Counter; SOURCES.len()]; RCODES.len()],
    request_bytes: [Histogram<13>; 2],
    response_bytes: [Histogram<13>; 2],
    durations: [Histogram<20>; 2],
    limited: Counter,
    send_failures: Counter,
}

impl Default for Tally {
    fn default() -> Self {
        let sizes = || [Histogram::new(&SIZES), Histogram::new(&SIZES)];
        Tally {
            requests: Default::default(),
            responses: Default::default(),
            request_bytes: sizes(),
            response_bytes: sizes(),
            durations: [Histogram::new(&DURATIONS_S), Histogram::new(&DURATIONS_S)],
            limited: Counter::default(),
            send_failures: Counter::default(),
        }
    }
}

impl Tally {
    pub(crate) fn request(&self, transport: Transport, peer: IpAddr, rtype: u16, bytes: usize) {
        let family = usize::from(peer.is_ipv6());
        let rtype = TYPES.iter().position(|(number, _)| *number == rtype).unwrap_or(TYPES.len() - 1);
        self.requests[transport as usize][family][rtype].add(1);
        self.request_bytes[transport as usize].observe(bytes as f64, 1);
    }

    pub(crate) fn response(&self, transport: Transport, rcode: u8, source: Source, bytes: usize) {
        self.responses[rcode_index(rcode)][source as usize].add(1);
        self.response_bytes[transport as usize].observe(bytes as f64, 1);
    }

    pub(crate) fn durations(&self, transport: Transport, each: Duration, count: u64) {
        self.durations[transport as usize].observe(each.as_secs_f64(), count);
    }

    pub(crate) fn limited(&self) {
        self.limited.add(1);
    }

    pub(crate) fn send_failures(&self, count: u64) {
        if count > 0 {
            self.send_failures.add(count);
        }
    }
}

/// Seconds from a change of endpoints to the zone that has it, as CoreDNS has the buckets, and finer below.
const PROGRAMMING_S: [f64; 20] = [
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384,
    32.768, 65.536, 131.072, 262.144, 524.288,
];

/// How long one upstream took for its answers, by their code.
#[derive(Debug)]
pub(crate) struct UpstreamTimes([Histogram<20>; RCODES.len()]);

impl Default for UpstreamTimes {
    fn default() -> Self {
        UpstreamTimes(std::array::from_fn(|_| Histogram::new(&DURATIONS_S)))
    }
}

impl UpstreamTimes {
    pub(crate) fn add(&self, rcode: u8, time: Duration) {
        self.0[rcode_index(rcode)].observe(time.as_secs_f64(), 1);
    }
}

/// Everything together, for those who read it.
#[derive(Debug)]
pub struct Metrics {
    handler: Arc<Handler>,
    tallies: Vec<Arc<Tally>>,
    /// The labels that CoreDNS' metrics have and ours never vary.
    server: String,
    zone: String,
    programming: Histogram<20>,
    changes: Counter,
}

impl Metrics {
    pub fn new(handler: Arc<Handler>, tallies: Vec<Arc<Tally>>, server: String) -> Metrics {
        let zone = handler.snapshot().zone.options().zone.to_string();
        let programming = Histogram::new(&PROGRAMMING_S);
        Metrics { handler, tallies, server, zone, programming, changes: Counter::default() }
    }

    /// A zone with a change that happened so long ago is being served.
    pub fn programmed(&self, since: Duration) {
        self.programming.observe(since.as_secs_f64(), 1);
    }

    pub fn zone_changed(&self) {
        self.changes.add(1);
    }

    /// `OpenMetrics` text.
    pub fn render(self: &Arc<Self>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Collector(self.clone())));
        let mut out = String::new();
        // Writing to a String cannot fail.
        _ = text::encode(&mut out, &registry);
        out
    }

    fn sum(&self, of: impl Fn(&Tally) -> &Counter) -> u64 {
        self.tallies.iter().map(|tally| of(tally).get()).sum()
    }

    fn requests(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let help = "DNS requests by protocol, family and type";
        let mut metric =
            encoder.encode_descriptor("coredns_dns_requests", help, None, MetricType::Counter)?;
        for (t, proto) in TRANSPORTS.iter().enumerate() {
            for (f, family) in FAMILIES.iter().enumerate() {
                for (n, (_, rtype)) in TYPES.iter().enumerate() {
                    let count = self.sum(|tally| &tally.requests[t][f][n]);
                    if count > 0 {
                        let labels = [("server", &*self.server), ("zone", &self.zone), ("view", "")];
                        let labels: Vec<_> = labels
                            .into_iter()
                            .chain([("proto", *proto), ("family", *family), ("type", *rtype)])
                            .collect();
                        metric
                            .encode_family(&Labels(labels))?
                            .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn responses(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let help = "DNS responses by code and by who made them";
        let mut metric =
            encoder.encode_descriptor("coredns_dns_responses", help, None, MetricType::Counter)?;
        for (r, rcode) in RCODES.iter().enumerate() {
            for (s, plugin) in SOURCES.iter().enumerate() {
                let count = self.sum(|tally| &tally.responses[r][s]);
                if count > 0 {
                    let labels = vec![
                        ("server", &*self.server),
                        ("zone", &self.zone),
                        ("view", ""),
                        ("rcode", rcode_name(*rcode)),
                        ("plugin", *plugin),
                    ];
                    metric
                        .encode_family(&Labels(labels))?
                        .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                }
            }
        }
        Ok(())
    }

    fn histogram<const N: usize>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        of: impl Fn(&Tally) -> &[Histogram<N>; 2],
    ) -> Result<(), Error> {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (t, proto) in TRANSPORTS.iter().enumerate() {
            let all = self.tallies.iter().map(|tally| &of(tally)[t]);
            let (sum, count, buckets) = add_up(all);
            let labels = vec![("server", &*self.server), ("zone", &self.zone), ("proto", *proto)];
            metric
                .encode_family(&Labels(labels))?
                .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        self.requests(encoder)?;
        self.responses(encoder)?;
        let durations = "coredns_dns_request_duration_seconds";
        self.histogram(encoder, durations, "Time to an answer", |tally| &tally.durations)?;
        let sizes = "coredns_dns_request_size_bytes";
        self.histogram(encoder, sizes, "Size of requests", |tally| &tally.request_bytes)?;
        let sizes = "coredns_dns_response_size_bytes";
        self.histogram(encoder, sizes, "Size of responses", |tally| &tally.response_bytes)?;
        let programming = "coredns_kubernetes_dns_programming_duration_seconds";
        let help = "Time from a change of endpoints to answers that have it";
        let mut metric = encoder.encode_descriptor(programming, help, None, MetricType::Histogram)?;
        let (sum, count, buckets) = add_up([&self.programming].into_iter());
        let labels = Labels(vec![("service_kind", "headless_with_selector")]);
        metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        let snapshot = self.handler.snapshot();
        let own = [
            ("portolan_dns_zone_changes", "Zones made so far", self.changes.get()),
            (
                "portolan_dns_limited",
                "Questions held back by the rate limit",
                self.sum(|tally| &tally.limited),
            ),
            (
                "portolan_dns_send_failures",
                "Answers that could not be sent",
                self.sum(|tally| &tally.send_failures),
            ),
        ];
        for (name, help, value) in own {
            counter(encoder, name, help, value)?;
        }
        let services = snapshot.zone.service_count() as u64;
        gauge(encoder, "portolan_dns_services", "Services that have names", services)?;
        self.handler.forwarder().map_or(Ok(()), |forwarder| encode_forwarder(encoder, forwarder))
    }
}

/// CoreDNS' metrics of its cache and forward plugins.
fn encode_forwarder(encoder: &mut DescriptorEncoder<'_>, forwarder: &Forwarder) -> Result<(), Error> {
    let counts = forwarder.counts();
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let kinds = ["success", "denial"];
    let entries = forwarder.entries();
    let mut metric =
        encoder.encode_descriptor("coredns_cache_entries", "Entries held", None, MetricType::Gauge)?;
    for (kind, count) in kinds.iter().zip(entries) {
        metric.encode_family(&Labels(vec![("type", *kind)]))?.encode_gauge(&(count as i64))?;
    }
    for (name, help, values) in [
        ("coredns_cache_hits", "Answers from the cache", &counts.hits),
        ("coredns_cache_evictions", "Entries that had to go early", &counts.evictions),
    ] {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (kind, value) in kinds.iter().zip(values) {
            let labels = Labels(vec![("type", *kind)]);
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&get(value), None)?;
        }
    }
    let requests = get(&counts.hits[0]) + get(&counts.hits[1]) + get(&counts.misses);
    for (name, help, value) in [
        ("coredns_cache_misses", "Questions that the cache could not answer", get(&counts.misses)),
        ("coredns_cache_requests", "Questions to the cache", requests),
        ("coredns_cache_served_stale", "Answers after their time", get(&counts.stale)),
        ("coredns_cache_prefetch", "Answers asked for before they expired", get(&counts.prefetches)),
        (
            "coredns_forward_max_concurrent_rejects",
            "Questions refused since too many are under way",
            get(&counts.rejected),
        ),
        (
            "coredns_forward_healthcheck_broken",
            "Questions while every upstream was down",
            get(&counts.all_down),
        ),
        ("coredns_proxy_healthcheck_failures", "Health checks that failed", get(&counts.health_failures)),
        ("portolan_dns_upstream_untrue", "Upstreams' messages that were no answers", get(&counts.untrue)),
    ] {
        counter(encoder, name, help, value)?;
    }
    encode_upstreams(encoder, forwarder)?;
    let loops = forwarder.loops().len() as u64;
    gauge(encoder, "portolan_dns_upstream_loops", "Upstreams that lead back here", loops)
}

fn encode_upstreams(encoder: &mut DescriptorEncoder<'_>, forwarder: &Forwarder) -> Result<(), Error> {
    // One address may be an upstream of several zones.
    let mut upstreams: BTreeMap<SocketAddr, Vec<&UpstreamTimes>> = BTreeMap::new();
    for (address, times) in forwarder.upstream_times() {
        upstreams.entry(address).or_default().push(times);
    }
    let (name, help) = ("coredns_proxy_request_duration_seconds", "Time to an upstream's answer");
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (address, times) in upstreams {
        let to = address.to_string();
        for (r, rcode) in RCODES.iter().enumerate() {
            let (sum, count, buckets) = add_up(times.iter().map(|times| &times.0[r]));
            if count > 0 {
                let labels =
                    Labels(vec![("proxy_name", "forward"), ("to", &to), ("rcode", rcode_name(*rcode))]);
                metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
    }
    Ok(())
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result<(), Error> {
    encoder
        .encode_descriptor(name, help, None, MetricType::Counter)?
        .encode_counter::<NoLabelSet, _, u64>(&value, None)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result<(), Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&(value as i64))
}

/// Sum, count, and counts by bucket.
fn add_up<'a, const N: usize>(all: impl Iterator<Item = &'a Histogram<N>>) -> (f64, u64, Vec<(f64, u64)>) {
    let (mut sum, mut count, mut buckets) = (0.0, 0, vec![(f64::MAX, 0); N + 1]);
    for histogram in all {
        sum += histogram.sum_millionths.get() as f64 / 1e6;
        for (n, bucket) in histogram.buckets.iter().enumerate() {
            if let Some(bound) = histogram.bounds.get(n) {
                buckets[n].0 = *bound;
            }
            buckets[n].1 += bucket.get();
            count += bucket.get();
        }
    }
    (sum, count, buckets)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Labels<'a>(Vec<(&'a str, &'a str)>);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>) -> Result<(), Error> {
        EncodeLabelSet::encode(&self.0, encoder)
    }
}

#[derive(Debug)]
struct Collector(Arc<Metrics>);

impl prometheus_client::collector::Collector for Collector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        self.0.encode(&mut encoder)
    }
}

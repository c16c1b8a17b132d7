//! What is measured. Names are CoreDNS' where the meaning is the same, `portolan_dns_...` where it is ours.
//!
//! Workers count in a [`Tally`] of their own, so that they never wait for each other's cache lines; [`Metrics`] adds the
//! tallies up when somebody reads.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::rr::rtype;

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

pub(crate) const SOURCES: [&str; 4] = ["kubernetes", "cache", "forward", ""];
pub(crate) const TRANSPORTS: [&str; 2] = ["udp", "tcp"];
pub(crate) const FAMILIES: [&str; 2] = ["1", "2"];
/// The types that have a label of their own, as CoreDNS chose them; the rest is `other`.
pub(crate) const TYPES: [(u16, &str); 11] = [
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
pub(crate) const RCODES: [u8; 8] = [0, 1, 2, 3, 4, 5, 16, 255];

/// Seconds: CoreDNS' own buckets start at 250 us, where most answers here have long been sent.
pub(crate) const DURATIONS_S: [f64; 20] = [
    0.000_004, 0.000_016, 0.000_032, 0.000_064, 0.000_125, 0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008,
    0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 4.096, 8.192,
];
pub(crate) const SIZES: [f64; 13] =
    [100.0, 200.0, 300.0, 400.0, 511.0, 1_023.0, 2_047.0, 4_095.0, 8_291.0, 16e3, 32e3, 48e3, 64e3];

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts per bucket (one more for what is larger than all), and the sum in `f64` of the unit times a million.
#[derive(Debug)]
pub(crate) struct Histogram<const N: usize> {
    bounds: &'static [f64; N],
    pub(crate) buckets: Vec<Counter>,
    pub(crate) sum_millionths: Counter,
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
    pub(crate) requests: [[[Counter; TYPES.len()]; 2]; 2],
    pub(crate) responses: [[Counter; SOURCES.len()]; RCODES.len()],
    pub(crate) request_bytes: [Histogram<13>; 2],
    pub(crate) response_bytes: [Histogram<13>; 2],
    pub(crate) durations: [Histogram<20>; 2],
    pub(crate) limited: Counter,
    pub(crate) send_failures: Counter,
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
        let rcode = RCODES.iter().position(|code| *code == rcode).unwrap_or(RCODES.len() - 1);
        self.responses[rcode][source as usize].add(1);
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

//! What is counted, and whether the announcer is well. Names are MetalLB's where the meaning is the same, and
//! `portolan_announce_...` where it is ours. Serving them is the program's affair.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::claims::Holder;

/// A thread that has not turned for so long hangs: it turns ten times a second.
const HANGS_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Address {
    ip: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Announced {
    service: String,
    protocol: &'static str,
    node: String,
    ip: String,
}

/// How an announcer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It does not announce yet: the API does not answer, or the others are still listened to.
    Starting,
    Ready,
    /// Its thread has not run for a long time, or has ended.
    Hanging,
}

/// The figures of one announcer.
#[derive(Debug)]
pub struct Metrics {
    requests: Family<Address, Counter>,
    responses: Family<Address, Counter>,
    gratuitous: Family<Address, Counter>,
    announced: Family<Announced, Gauge>,
    pub(crate) addresses: Gauge,
    pub(crate) conflicts: Counter,
    pub(crate) takeovers: Counter,
    pub(crate) freezes: Counter,
    pub(crate) beats_sent: Counter,
    pub(crate) beats_received: Counter,
    pub(crate) beats_refused: Counter,
    pub(crate) nodes_heard: Gauge,
    origin: Instant,
    /// Milliseconds since the origin, plus one; 0 before the first time.
    turned: AtomicU64,
    ready: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            responses: Family::default(),
            gratuitous: Family::default(),
            announced: Family::default(),
            addresses: Gauge::default(),
            conflicts: Counter::default(),
            takeovers: Counter::default(),
            freezes: Counter::default(),
            beats_sent: Counter::default(),
            beats_received: Counter::default(),
            beats_refused: Counter::default(),
            nodes_heard: Gauge::default(),
            origin: Instant::now(),
            turned: AtomicU64::new(0),
            ready: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let speaker = registry.sub_registry_with_prefix("metallb");
        speaker.register(
            "layer2_requests_received",
            "ARP and NDP questions for addresses that this node answers for",
            self.requests.clone(),
        );
        speaker.register("layer2_responses_sent", "Answers to them", self.responses.clone());
        speaker.register(
            "layer2_gratuitous_sent",
            "Unasked announcements after this node has taken an address",
            self.gratuitous.clone(),
        );
        speaker.register("speaker_announced", "Services announced from this node", self.announced.clone());
        let own = registry.sub_registry_with_prefix("portolan_announce");
        own.register("addresses", "Addresses that this node answers for", self.addresses.clone());
        own.register(
            "conflicts",
            "Times another host was found to answer for an address",
            self.conflicts.clone(),
        );
        own.register("takeovers", "Times this node has taken an address", self.takeovers.clone());
        own.register(
            "freezes",
            "Times this node did not run for so long that others may have called it dead",
            self.freezes.clone(),
        );
        own.register("beats_sent", "Beats sent, each to all other announcers", self.beats_sent.clone());
        own.register("beats_received", "Beats of other announcers", self.beats_received.clone());
        own.register(
            "beats_refused",
            "Datagrams that were no beat or had another key",
            self.beats_refused.clone(),
        );
        own.register("nodes_heard", "Other announcers that are heard now", self.nodes_heard.clone());
    }

    pub fn health(&self) -> Health {
        let turned = self.turned.load(Ordering::Relaxed);
        if turned == 0 {
            return Health::Starting;
        }
        let now = self.origin.elapsed();
        if now.saturating_sub(Duration::from_millis(turned)) > HANGS_AFTER {
            Health::Hanging
        } else if self.ready.load(Ordering::Relaxed) == 0 {
            Health::Starting
        } else {
            Health::Ready
        }
    }

    /// The thread has come round once more.
    pub(crate) fn turn(&self, ready: bool) {
        self.turned.store(self.origin.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
        self.ready.store(u64::from(ready), Ordering::Relaxed);
    }

    pub(crate) fn asked(&self, ip: IpAddr, answered: bool) {
        let address = Address { ip: ip.to_string() };
        self.requests.get_or_create(&address).inc();
        if answered {
            self.responses.get_or_create(&address).inc();
        }
    }

    pub(crate) fn gratuitous(&self, ip: IpAddr, frames: u64) {
        self.gratuitous.get_or_create(&Address { ip: ip.to_string() }).inc_by(frames);
    }

    pub(crate) fn announces(&self, node: &str, ip: IpAddr, services: &[Holder], now: bool) {
        for holder in services {
            let labels = Announced {
                service: holder.key.to_string(),
                protocol: "layer2",
                node: node.to_owned(),
                ip: ip.to_string(),
            };
            if now {
                self.announced.get_or_create(&labels).set(1);
            } else {
                self.announced.remove(&labels);
            }
        }
    }

    /// No Service has the address any more: its counts would only add up.
    pub(crate) fn forget(&self, ip: IpAddr) {
        let address = Address { ip: ip.to_string() };
        for family in [&self.requests, &self.responses, &self.gratuitous] {
            family.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use portolan_client::Key;

    use super::*;

    fn text(metrics: &Metrics) -> String {
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut out = String::new();
        prometheus_client::encoding::text::encode(&mut out, &registry).unwrap();
        out
    }

    #[test]
    fn names_are_metallbs_where_the_meaning_is() {
        let metrics = Metrics::default();
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        let holder = Holder { key: Key::new("default", "web"), uid: String::new() };
        metrics.asked(ip, true);
        metrics.gratuitous(ip, 2);
        metrics.announces("node-1", ip, std::slice::from_ref(&holder), true);
        let all = text(&metrics);
        for line in [
            "metallb_layer2_requests_received_total{ip=\"192.0.2.1\"} 1",
            "metallb_layer2_responses_sent_total{ip=\"192.0.2.1\"} 1",
            "metallb_layer2_gratuitous_sent_total{ip=\"192.0.2.1\"} 2",
            "metallb_speaker_announced{service=\"default/web\",protocol=\"layer2\",node=\"node-1\",ip=\"192.0.2.1\"} 1",
            "portolan_announce_freezes_total 0",
        ] {
            assert!(all.contains(line), "{line} is not in\n{all}");
        }
        metrics.announces("node-1", ip, &[holder], false);
        metrics.forget(ip);
        assert!(!text(&metrics).contains("192.0.2.1"));
    }

    #[test]
    fn an_announcer_is_ready_when_it_has_joined() {
        let metrics = Metrics::default();
        assert_eq!(metrics.health(), Health::Starting);
        metrics.turn(false);
        assert_eq!(metrics.health(), Health::Starting);
        metrics.turn(true);
        assert_eq!(metrics.health(), Health::Ready);
    }
}

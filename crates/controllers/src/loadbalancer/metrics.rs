//! How full the pools are, under the names that MetalLB's users know. Serving is the program's affair.

use std::collections::HashSet;
use std::sync::Mutex;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::pool::Pool;
use crate::caches::lock;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    pool: String,
}

/// The figures of the allocator; all zero where another process of the cluster allocates.
#[derive(Debug, Default)]
pub struct Metrics {
    in_use: Family<Labels, Gauge>,
    total: Family<Labels, Gauge>,
    waiting: Gauge,
    known: Mutex<HashSet<String>>,
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let allocator = registry.sub_registry_with_prefix("metallb_allocator");
        allocator.register(
            "addresses_in_use_total",
            "Addresses of the pool that Services hold, of both families",
            self.in_use.clone(),
        );
        allocator.register("addresses_total", "Addresses of the pool", self.total.clone());
        let own = registry.sub_registry_with_prefix("portolan_allocator");
        own.register(
            "services_waiting",
            "Services that have not got what they ask for; their conditions say why",
            self.waiting.clone(),
        );
    }

    pub(super) fn set<'a>(&self, pools: impl Iterator<Item = &'a Pool>, waiting: usize) {
        self.waiting.set(waiting as i64);
        let mut now = HashSet::new();
        for pool in pools {
            let (four, six) = (pool.counts(true), pool.counts(false));
            let labels = Labels { pool: pool.name.clone() };
            let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
            self.in_use.get_or_create(&labels).set(number(four.0 + six.0));
            let total = [four.0, four.1, six.0, six.1].into_iter().fold(0, u64::saturating_add);
            self.total.get_or_create(&labels).set(number(total));
            now.insert(pool.name.clone());
        }
        let mut known = lock(&self.known);
        for pool in known.difference(&now) {
            let labels = Labels { pool: pool.clone() };
            self.in_use.remove(&labels);
            self.total.remove(&labels);
        }
        *known = now;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pools_that_are_gone_are_counted_no_more() {
        let pool = |name: &str| {
            let object =
                json!({"metadata": {"name": name}, "spec": {"addresses": ["192.0.2.0/30", "fd00::/64"]}});
            Pool::of(&serde_json::from_value(object).unwrap()).0
        };
        let metrics = Metrics::default();
        let text = || {
            let mut registry = Registry::default();
            metrics.register(&mut registry);
            let mut out = String::new();
            prometheus_client::encoding::text::encode(&mut out, &registry).unwrap();
            out
        };
        metrics.set([pool("a"), pool("b")].iter(), 3);
        let all = text();
        assert!(all.contains("metallb_allocator_addresses_in_use_total{pool=\"a\"} 0"), "{all}");
        // More than can be counted is as much as can.
        assert!(all.contains("metallb_allocator_addresses_total{pool=\"b\"} 9223372036854775807"), "{all}");
        assert!(all.contains("portolan_allocator_services_waiting 3"), "{all}");
        metrics.set([pool("b")].iter(), 0);
        assert!(!text().contains("\"a\""));
    }
}

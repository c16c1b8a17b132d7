//! What holds for any cluster: the lint, and that a table reached change by change equals one built at once.

use std::collections::BTreeMap;

use portolan_forward::{
    Affinity, EndpointView, NodeView, Policy, Protocol, ServiceKey, ServiceView, Table, compile, lint,
};
use proptest::prelude::*;

use crate::build::{endpoint, hinted, ip, node, not_ready, port, range, terminating};

pub(crate) fn endpoints() -> impl Strategy<Value = Vec<EndpointView>> {
    let one = (1..4u8, 1..6u8, 0..4u8, 0..3u8).prop_map(|(node, host, condition, hint)| {
        let mut view = endpoint(&format!("10.244.{node}.{host}"), &format!("node-{node}"));
        view = match condition {
            0 | 1 => view,
            2 => not_ready(view),
            _ => terminating(view),
        };
        match hint {
            0 => view,
            1 => hinted(view, "zone-a"),
            _ => hinted(view, "zone-b"),
        }
    });
    proptest::collection::vec(one, 0..8)
}

pub(crate) fn services() -> impl Strategy<Value = ServiceView> {
    (0..6u8, 1..9u8, any::<[bool; 6]>(), 0..3u16).prop_map(|(name, host, flags, node_port)| {
        let policy = |local| if local { Policy::Local } else { Policy::Cluster };
        let mut http = port("http", Protocol::Tcp, 80);
        http.node_port = (node_port > 0).then_some(30000 + node_port);
        ServiceView {
            key: ServiceKey::new("default", &format!("svc-{name}")),
            external_name: false,
            other_proxy: false,
            cluster_ips: vec![ip(&format!("10.96.0.{host}"))],
            external_ips: if flags[0] { vec![ip(&format!("10.96.0.{}", host + 1))] } else { vec![] },
            load_balancer_ips: if flags[1] { vec![ip("203.0.113.1")] } else { vec![] },
            source_ranges: if flags[2] { vec![range("198.51.100.0/24")] } else { vec![] },
            ports: vec![http],
            internal_policy: policy(flags[3]),
            external_policy: policy(flags[4]),
            affinity: flags[5].then_some(Affinity { timeout_seconds: 60 }),
            algorithm: None,
            health_check_node_port: None,
        }
    })
}

fn apply(table: &mut Table, node: &NodeView, service: &ServiceView, endpoints: &[EndpointView]) {
    let compiled = compile(service, endpoints, node).0;
    table.update([(service.key.clone(), Some(compiled))]);
}

proptest! {
    #[test]
    fn change_by_change_equals_from_scratch(
        steps in proptest::collection::vec((services(), endpoints(), any::<bool>()), 1..24)
    ) {
        let node = node();
        let mut table = Table::new(node.clone());
        let mut last = BTreeMap::new();
        for (service, endpoints, remove) in steps {
            if remove {
                table.update([(service.key.clone(), None)]);
                last.remove(&service.key);
            } else {
                apply(&mut table, &node, &service, &endpoints);
                last.insert(service.key.clone(), (service, endpoints));
            }
            prop_assert_eq!(lint::lint(&table), vec![]);
        }
        let mut fresh = Table::new(node.clone());
        for (service, endpoints) in last.values() {
            apply(&mut fresh, &node, service, endpoints);
        }
        prop_assert_eq!(table.len(), fresh.len());
        for entry in fresh.iter() {
            prop_assert_eq!(table.get(&entry.key), Some(entry));
        }
    }

    #[test]
    fn a_change_that_changes_nothing_is_no_change(service in services(), endpoints in endpoints()) {
        let node = node();
        let mut table = Table::new(node.clone());
        apply(&mut table, &node, &service, &endpoints);
        let mut reversed = endpoints.clone();
        reversed.reverse();
        let compiled = compile(&service, &reversed, &node).0;
        prop_assert!(table.update([(service.key.clone(), Some(compiled))]).0.is_empty());
    }
}

//! Where objects are in the store: where a kube-apiserver on the same etcd looks for them.

use std::collections::BTreeMap;

use portolan_api::resource::RESOURCES;

/// Group and plural of every stored kind, and the key of its object `name` in `ns`.
const KEYS: &[(&str, &str, &str)] = &[
    ("", "configmaps", "/registry/configmaps/ns/name"),
    ("", "endpoints", "/registry/services/endpoints/ns/name"),
    ("", "events", "/registry/events/ns/name"),
    ("", "namespaces", "/registry/namespaces/name"),
    ("", "nodes", "/registry/minions/name"),
    ("", "pods", "/registry/pods/ns/name"),
    ("", "secrets", "/registry/secrets/ns/name"),
    ("", "serviceaccounts", "/registry/serviceaccounts/ns/name"),
    ("", "services", "/registry/services/specs/ns/name"),
    ("apps", "deployments", "/registry/deployments/ns/name"),
    ("apps", "replicasets", "/registry/replicasets/ns/name"),
    ("coordination.k8s.io", "leases", "/registry/leases/ns/name"),
    ("discovery.k8s.io", "endpointslices", "/registry/endpointslices/ns/name"),
    ("events.k8s.io", "events", "/registry/events/ns/name"),
    ("networking.k8s.io", "ipaddresses", "/registry/ipaddresses/name"),
    ("networking.k8s.io", "servicecidrs", "/registry/servicecidrs/name"),
    // Our own, where that of a custom resource would be.
    ("portolan.dev", "loadbalancerpools", "/registry/portolan.dev/loadbalancerpools/name"),
    ("rbac.authorization.k8s.io", "clusterrolebindings", "/registry/clusterrolebindings/name"),
    ("rbac.authorization.k8s.io", "clusterroles", "/registry/clusterroles/name"),
    ("rbac.authorization.k8s.io", "rolebindings", "/registry/rolebindings/ns/name"),
    ("rbac.authorization.k8s.io", "roles", "/registry/roles/ns/name"),
];

#[test]
fn every_object_is_where_kubernetes_stores_it() {
    let stored = RESOURCES.iter().filter(|resource| resource.stored);
    let keys: BTreeMap<_, _> =
        stored.map(|resource| ((resource.group, resource.plural), resource.key("ns", "name"))).collect();
    let expected: BTreeMap<_, _> =
        KEYS.iter().map(|(group, plural, key)| ((*group, *plural), (*key).to_owned())).collect();
    assert_eq!(keys, expected);
}

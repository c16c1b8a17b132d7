//! How each list merges: by strategic patch, and by server-side apply. The two do not always agree.

use super::{ListType, Schema};
use crate::apps::v1::Deployment;
use crate::core::v1::{Endpoints, Namespace, Node, Pod, Service, ServiceAccount};
use crate::discovery::v1::EndpointSlice;
use crate::networking::v1::ServiceCIDR;

/// `STRATEGIC SSA` of the field at a path: a merge key, `set` or `replace`; `map(KEYS)`, `set` or `atomic`.
fn merges(schema: &'static Schema, path: &str) -> String {
    let (parents, name) = path.rsplit_once('.').unwrap_or(("", path));
    let mut at = schema;
    for step in parents.split('.').filter(|step| !step.is_empty()) {
        let field = at.field(step).unwrap_or_else(|| panic!("{path}: no {step}"));
        at = field.ty.schema().unwrap_or_else(|| panic!("{path}: {step} has no fields"));
    }
    let field = at.field(name).unwrap_or_else(|| panic!("{path}: no {name}"));
    let strategic = match field.patch {
        None => "replace".to_owned(),
        Some(meta) if meta.strategy == "retainKeys" => "retainKeys".to_owned(),
        Some(meta) if meta.merge_key.is_empty() => "set".to_owned(),
        Some(meta) if meta.strategy == "merge" => meta.merge_key.to_owned(),
        Some(meta) => format!("{}+{}", meta.merge_key, meta.strategy.trim_start_matches("merge,")),
    };
    let ssa = match field.list {
        ListType::Map(keys) => format!("map({})", keys.join(",")),
        ListType::Set => "set".to_owned(),
        ListType::Atomic => "atomic".to_owned(),
        ListType::None if field.atomic_map => "atomic".to_owned(),
        ListType::None => "-".to_owned(),
    };
    format!("{strategic} {ssa}")
}

#[test]
fn lists_merge_by_kubernetes_keys() {
    let (service, pod, node) = (Service::schema(), Pod::schema(), Node::schema());
    let (endpoints, slice) = (Endpoints::schema(), EndpointSlice::schema());
    let container = |list: &str| format!("spec.containers.{list}");
    let cases = [
        (service, "spec.ports", "port map(port,protocol)"),
        (service, "spec.selector", "replace atomic"),
        (service, "spec.clusterIPs", "replace atomic"),
        (service, "spec.externalIPs", "replace atomic"),
        (service, "spec.ipFamilies", "replace atomic"),
        (service, "spec.loadBalancerSourceRanges", "replace atomic"),
        (service, "status.loadBalancer.ingress", "replace atomic"),
        (service, "status.loadBalancer.ingress.ports", "replace atomic"),
        (service, "metadata.ownerReferences", "uid map(uid)"),
        (service, "metadata.finalizers", "set set"),
        (service, "metadata.managedFields", "replace atomic"),
        (pod, "spec.containers", "name map(name)"),
        (pod, "spec.initContainers", "name map(name)"),
        (pod, "spec.ephemeralContainers", "name map(name)"),
        (pod, &container("ports"), "containerPort map(containerPort,protocol)"),
        (pod, &container("env"), "name map(name)"),
        (pod, &container("volumeMounts"), "mountPath map(mountPath)"),
        (pod, &container("volumeDevices"), "devicePath map(devicePath)"),
        (pod, &container("args"), "replace atomic"),
        (pod, &container("command"), "replace atomic"),
        (pod, &container("envFrom"), "replace atomic"),
        (pod, &container("resizePolicy"), "replace atomic"),
        (pod, "spec.volumes", "name+retainKeys map(name)"),
        (pod, "spec.imagePullSecrets", "name map(name)"),
        (pod, "spec.schedulingGates", "name map(name)"),
        (pod, "spec.resourceClaims", "name+retainKeys map(name)"),
        (pod, "spec.hostAliases", "ip map(ip)"),
        (pod, "spec.topologySpreadConstraints", "topologyKey map(topologyKey,whenUnsatisfiable)"),
        (pod, "spec.tolerations", "replace atomic"),
        (pod, "spec.readinessGates", "replace atomic"),
        (pod, "spec.nodeSelector", "replace atomic"),
        (pod, "status.containerStatuses", "replace atomic"),
        (pod, "status.podIPs", "ip map(ip)"),
        (pod, "status.hostIPs", "ip atomic"),
        (node, "status.addresses", "type map(type)"),
        (node, "spec.taints", "replace atomic"),
        (node, "spec.podCIDRs", "set set"),
        (endpoints, "subsets", "replace atomic"),
        (endpoints, "subsets.addresses", "replace atomic"),
        (endpoints, "subsets.notReadyAddresses", "replace atomic"),
        (endpoints, "subsets.ports", "replace atomic"),
        (slice, "endpoints", "replace atomic"),
        (slice, "ports", "replace atomic"),
        (slice, "endpoints.addresses", "replace set"),
        (slice, "endpoints.hints.forZones", "replace atomic"),
        (slice, "endpoints.hints.forNodes", "replace atomic"),
        (ServiceAccount::schema(), "secrets", "name map(name)"),
        (ServiceAccount::schema(), "imagePullSecrets", "replace atomic"),
        (Deployment::schema(), "spec.strategy", "retainKeys -"),
    ];
    for (schema, path, wanted) in cases {
        assert_eq!(merges(schema, path), wanted, "{} {path}", schema.name);
    }
    for schema in [service, pod, node, Namespace::schema(), Deployment::schema(), ServiceCIDR::schema()] {
        assert_eq!(merges(schema, "status.conditions"), "type map(type)", "{}", schema.name);
    }
}

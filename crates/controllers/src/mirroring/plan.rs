//! From custom Endpoints and the slices that mirror them to the writes that bring the slices in order.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::MANAGED_BY;
use crate::endpoints::subsets::repack;
use crate::endpointslice::{Write, desired, in_order};
use crate::objects::Service;
use crate::written::{
    Address, AddressType, Conditions, Endpoint, EndpointPort, EndpointSlice, Endpoints, MANAGED_BY_LABEL,
    OwnerReference, SERVICE_NAME_LABEL, Subset, TRIGGER_TIME_ANNOTATION,
};

/// More addresses of one subset are not mirrored.
pub const ADDRESSES_PER_SUBSET_MAX: usize = 1000;
const SKIP_MIRROR_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER_ANNOTATION: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED_ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

pub struct Input<'a> {
    pub service: Option<&'a Service>,
    pub endpoints: Option<&'a Endpoints>,
    /// Every slice labelled as this Service's and managed by this controller.
    pub slices: &'a [Arc<EndpointSlice>],
}

#[derive(Debug, Default)]
pub struct Plan {
    pub writes: Vec<Write>,
    /// Addresses that are no addresses.
    pub invalid: usize,
    /// Addresses over the limit.
    pub skipped: usize,
}

/// Whether these Endpoints are mirrored at all.
fn mirrored(service: &Service, endpoints: &Endpoints) -> bool {
    service.spec.selector.is_none()
        && !endpoints.metadata.deleting()
        && endpoints.metadata.labels.get(SKIP_MIRROR_LABEL).is_none_or(|skip| skip != "true")
        && !endpoints.metadata.annotations.contains_key(LEADER_ANNOTATION)
}

pub fn plan(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    let wanted = match (input.service, input.endpoints) {
        (Some(service), Some(endpoints)) if mirrored(service, endpoints) => {
            slices(service, endpoints, &mut plan)
        }
        _ => Vec::new(),
    };
    let mut existing: Vec<_> =
        input.slices.iter().filter(|slice| !slice.metadata.deleting()).cloned().collect();
    let (mut writes, mut unchanged, mut new) = (Vec::new(), Vec::new(), Vec::new());
    for slice in wanted {
        let same_key = |held: &Arc<EndpointSlice>| {
            held.address_type == slice.address_type
                && desired::sorted(&held.ports) == desired::sorted(&slice.ports)
        };
        match existing.iter().position(same_key).map(|index| existing.remove(index)) {
            Some(from) => match replaced(&slice, &from) {
                Some(slice) => writes.push(Write::Update { slice, from }),
                None => unchanged.push(from),
            },
            None => new.push(slice),
        }
    }
    for slice in new {
        let same_type = |held: &Arc<EndpointSlice>| held.address_type == slice.address_type;
        match existing.iter().position(same_type).map(|index| existing.remove(index)) {
            Some(from) => writes.extend(replaced(&slice, &from).map(|slice| Write::Update { slice, from })),
            None => writes.push(Write::Create(slice)),
        }
    }
    writes.extend(existing.into_iter().map(Write::Delete));
    let unchanged: Vec<&EndpointSlice> = unchanged.iter().map(|slice| &**slice).collect();
    plan.writes = in_order(writes, &unchanged);
    plan
}

/// The held slice with the content of the wanted one; `None` when that changes nothing.
fn replaced(wanted: &EndpointSlice, held: &EndpointSlice) -> Option<EndpointSlice> {
    let mut next = held.clone();
    next.metadata.labels.clone_from(&wanted.metadata.labels);
    next.metadata.annotations.clone_from(&wanted.metadata.annotations);
    next.metadata.owner_references.clone_from(&wanted.metadata.owner_references);
    next.ports.clone_from(&wanted.ports);
    next.endpoints.clone_from(&wanted.endpoints);
    (next != *held).then_some(next)
}

/// One slice per subset and family.
fn slices(service: &Service, endpoints: &Endpoints, plan: &mut Plan) -> Vec<EndpointSlice> {
    let mut slices = Vec::new();
    let addresses = |subset: &Subset| subset.addresses.len() + subset.not_ready_addresses.len();
    let valid: Vec<Subset> = endpoints
        .subsets
        .iter()
        .map(|subset| {
            let valid = valid(subset);
            plan.invalid += addresses(subset) - addresses(&valid);
            valid
        })
        .collect();
    for subset in repack(&valid) {
        let ready = subset.addresses.iter().map(|address| (true, address));
        let all = ready.chain(subset.not_ready_addresses.iter().map(|address| (false, address)));
        let mut families: BTreeMap<AddressType, Vec<Endpoint>> = BTreeMap::new();
        for (ready, address) in all.take(ADDRESSES_PER_SUBSET_MAX) {
            if let Some((family, endpoint)) = endpoint(address, ready) {
                families.entry(family).or_default().push(endpoint);
            }
        }
        plan.skipped += addresses(&subset).saturating_sub(ADDRESSES_PER_SUBSET_MAX);
        for (family, list) in families {
            slices.push(slice(service, endpoints, &subset, family, list));
        }
    }
    slices
}

fn valid(subset: &Subset) -> Subset {
    let keep = |addresses: &[Address]| -> Vec<Address> {
        addresses.iter().filter(|address| address.ip.parse::<IpAddr>().is_ok()).cloned().collect()
    };
    Subset {
        addresses: keep(&subset.addresses),
        not_ready_addresses: keep(&subset.not_ready_addresses),
        ports: subset.ports.clone(),
    }
}

fn endpoint(address: &Address, ready: bool) -> Option<(AddressType, Endpoint)> {
    let ip: IpAddr = address.ip.parse().ok()?;
    let endpoint = Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Conditions { ready: Some(ready), ..Conditions::default() },
        hostname: (!address.hostname.is_empty()).then(|| address.hostname.clone()),
        target_ref: address.target_ref.clone(),
        node_name: address.node_name.clone(),
        ..Endpoint::default()
    };
    Some((AddressType::of(ip), endpoint))
}

fn slice(
    service: &Service,
    from: &Endpoints,
    subset: &Subset,
    family: AddressType,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let ports = subset.ports.iter().map(|port| EndpointPort {
        name: Some(port.name.clone()),
        protocol: Some(if port.protocol.is_empty() { "TCP".into() } else { port.protocol.clone() }),
        port: Some(port.port),
        app_protocol: port.app_protocol.clone(),
    });
    let mut slice =
        EndpointSlice { address_type: family, endpoints, ports: ports.collect(), ..EndpointSlice::default() };
    let name = service.metadata.name.to_string();
    slice.metadata.generate_name = format!("{name}-");
    slice.metadata.namespace = service.metadata.namespace.to_string();
    slice.metadata.labels.clone_from(&from.metadata.labels);
    slice.metadata.labels.insert(SERVICE_NAME_LABEL, &name);
    slice.metadata.labels.insert(MANAGED_BY_LABEL, MANAGED_BY);
    slice.metadata.annotations.clone_from(&from.metadata.annotations);
    for left_behind in [TRIGGER_TIME_ANNOTATION, LAST_APPLIED_ANNOTATION] {
        slice.metadata.annotations.remove(left_behind);
    }
    slice.metadata.owner_references = vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Endpoints".into(),
        name,
        uid: from.metadata.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }];
    slice
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{labels, service};
    use crate::written::Port;

    fn custom(ready: &[&str], not_ready: &[&str]) -> Endpoints {
        let address = |ip: &&str| Address { ip: (*ip).into(), ..Address::default() };
        let mut endpoints = Endpoints::default();
        endpoints.metadata.name = "web".into();
        endpoints.metadata.uid = "uid-ep".into();
        endpoints.subsets = vec![Subset {
            addresses: ready.iter().map(address).collect(),
            not_ready_addresses: not_ready.iter().map(address).collect(),
            ports: vec![Port { port: 80, protocol: "TCP".into(), ..Port::default() }],
        }];
        endpoints
    }

    fn selectorless() -> Service {
        let mut web = service("web");
        web.spec.selector = None;
        web
    }

    fn planned(service: &Service, endpoints: &Endpoints, slices: &[Arc<EndpointSlice>]) -> Plan {
        plan(&Input { service: Some(service), endpoints: Some(endpoints), slices })
    }

    fn created(plan: Plan) -> Vec<Arc<EndpointSlice>> {
        let mut slices = Vec::new();
        for (index, write) in plan.writes.into_iter().enumerate() {
            let Write::Create(mut slice) = write else { panic!("{write:?}") };
            slice.metadata.name = format!("web-{index}");
            slices.push(Arc::new(slice));
        }
        slices
    }

    #[test]
    fn one_slice_per_family_with_readiness_only() {
        let endpoints = custom(&["192.0.2.1", "2001:DB8::1"], &["192.0.2.2"]);
        let slices = created(planned(&selectorless(), &endpoints, &[]));
        assert_eq!(slices.len(), 2);
        let v4 = slices.iter().find(|slice| slice.address_type == AddressType::V4).unwrap();
        let ready: Vec<_> =
            v4.endpoints.iter().map(|e| (e.addresses[0].as_str(), e.conditions.clone())).collect();
        let only = |ready| Conditions { ready: Some(ready), serving: None, terminating: None };
        assert_eq!(ready, [("192.0.2.1", only(true)), ("192.0.2.2", only(false))]);
        let owner = v4.metadata.controller().unwrap();
        assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("Endpoints", "uid-ep"));
        let v6 = slices.iter().find(|slice| slice.address_type == AddressType::V6).unwrap();
        assert_eq!(v6.endpoints[0].addresses, ["2001:db8::1"]);
        assert!(planned(&selectorless(), &endpoints, &slices).writes.is_empty(), "stable");
    }

    #[test]
    fn labels_and_annotations_are_copied_but_for_two() {
        let mut endpoints = custom(&["192.0.2.1"], &[]);
        endpoints.metadata.labels.insert("team", "a");
        for annotation in ["note", TRIGGER_TIME_ANNOTATION, LAST_APPLIED_ANNOTATION] {
            endpoints.metadata.annotations.insert(annotation, "x");
        }
        let slices = created(planned(&selectorless(), &endpoints, &[]));
        assert_eq!(slices[0].metadata.annotations.keys().collect::<Vec<_>>(), ["note"]);
        let labels = |team: &str| {
            labels(&[("team", team), (SERVICE_NAME_LABEL, "web"), (MANAGED_BY_LABEL, MANAGED_BY)])
        };
        assert_eq!(slices[0].metadata.labels, labels("a"));
        // Who takes its labels from Endpoints takes none from the Service, headless or not.
        let mut headless = selectorless();
        headless.spec.cluster_ip = "None".into();
        endpoints.metadata.labels.insert("team", "b");
        endpoints.metadata.labels.insert(SKIP_MIRROR_LABEL, "false");
        let plan = planned(&headless, &endpoints, &slices);
        let [Write::Update { slice, .. }] = plan.writes.as_slice() else { panic!("{plan:?}") };
        let mut wanted = labels("b");
        wanted.insert(SKIP_MIRROR_LABEL, "false");
        assert_eq!(slice.metadata.labels, wanted);
    }

    #[test]
    fn a_mirrored_slice_in_full() {
        let mut endpoints = custom(&["192.0.2.1"], &[]);
        let address = &mut endpoints.subsets[0].addresses[0];
        address.hostname = "db-0".into();
        address.node_name = Some("n1".into());
        address.target_ref = Some(crate::written::ObjectReference {
            kind: "Pod".into(),
            name: "db-0".into(),
            ..Default::default()
        });
        endpoints.subsets[0].ports[0].app_protocol = Some("a/b".into());
        let plan = planned(&selectorless(), &endpoints, &[]);
        let [Write::Create(slice)] = plan.writes.as_slice() else { panic!("{plan:?}") };
        assert_eq!(
            serde_json::to_value(slice).unwrap(),
            serde_json::json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {
                    "generateName": "web-", "namespace": "default",
                    "labels": { SERVICE_NAME_LABEL: "web", MANAGED_BY_LABEL: MANAGED_BY },
                    "ownerReferences": [{ "apiVersion": "v1", "kind": "Endpoints", "name": "web", "uid": "uid-ep",
                        "controller": true, "blockOwnerDeletion": true }],
                },
                "addressType": "IPv4",
                "endpoints": [{ "addresses": ["192.0.2.1"], "conditions": { "ready": true }, "hostname": "db-0",
                    "nodeName": "n1", "targetRef": { "kind": "Pod", "name": "db-0" } }],
                "ports": [{ "name": "", "port": 80, "protocol": "TCP", "appProtocol": "a/b" }],
            })
        );
        let nothing = planned(&selectorless(), &custom(&[], &[]), &[]);
        assert!(nothing.writes.is_empty(), "nothing is mirrored by no slice");
    }

    #[test]
    fn what_is_not_mirrored_loses_its_slices() {
        let endpoints = custom(&["192.0.2.1"], &[]);
        let slices = created(planned(&selectorless(), &endpoints, &[]));
        let all_go = |plan: Plan| matches!(plan.writes.as_slice(), [Write::Delete(_)]);
        assert!(all_go(planned(&service("web"), &endpoints, &slices)), "a selector came");
        assert!(all_go(plan(&Input { service: None, endpoints: Some(&endpoints), slices: &slices })));
        assert!(all_go(plan(&Input { service: Some(&selectorless()), endpoints: None, slices: &slices })));
        let mut skipped = endpoints.clone();
        skipped.metadata.labels.insert(SKIP_MIRROR_LABEL, "true");
        assert!(all_go(planned(&selectorless(), &skipped, &slices)));
        let mut leader = endpoints;
        leader.metadata.annotations.insert(LEADER_ANNOTATION, "{}");
        assert!(all_go(planned(&selectorless(), &leader, &slices)));
    }

    #[test]
    fn a_change_updates_in_place_and_a_new_owner_is_written() {
        let endpoints = custom(&["192.0.2.1"], &[]);
        let slices = created(planned(&selectorless(), &endpoints, &[]));
        let mut changed = custom(&["192.0.2.3"], &[]);
        changed.subsets[0].ports[0].port = 81;
        let plan = planned(&selectorless(), &changed, &slices);
        let [Write::Update { slice, .. }] = plan.writes.as_slice() else { panic!("{plan:?}") };
        assert_eq!((slice.ports[0].port, slice.endpoints[0].addresses[0].as_str()), (Some(81), "192.0.2.3"));
        let mut recreated = endpoints;
        recreated.metadata.uid = "uid-second".into();
        let plan = planned(&selectorless(), &recreated, &slices);
        let [Write::Update { slice, .. }] = plan.writes.as_slice() else { panic!("{plan:?}") };
        assert_eq!(slice.metadata.controller().unwrap().uid, "uid-second");
    }

    #[test]
    fn odd_and_too_many_addresses_are_counted() {
        let many: Vec<String> = (0..1003).map(|i| format!("10.1.{}.{}", i / 250, i % 250)).collect();
        let mut addresses: Vec<&str> = many.iter().map(String::as_str).collect();
        addresses.push("not-an-address");
        let plan = planned(&selectorless(), &custom(&addresses, &[]), &[]);
        assert_eq!((plan.invalid, plan.skipped), (1, 3));
        let Write::Create(slice) = &plan.writes[0] else { panic!() };
        assert_eq!(slice.endpoints.len(), 1000);
    }
}

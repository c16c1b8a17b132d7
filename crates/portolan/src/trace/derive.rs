//! The EndpointSlices of manifests, as the controllers would make them: the same pure plans, without a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use portolan_controllers::endpointslice::{self, Write, topology};
use portolan_controllers::mirroring;
use portolan_controllers::objects::{Labels, Node, Pod, Service};
use portolan_controllers::written::{EndpointSlice, Endpoints, MANAGED_BY_LABEL, SERVICE_NAME_LABEL};
use serde_json::{Value, json};

use super::objects::{Objects, is_set, name_of, set, text};

/// Kubernetes' own limit: how endpoints spread over slices does not matter here.
const ENDPOINTS_PER_SLICE: usize = 1000;

/// Adds the slices that a Service's selector or its custom Endpoints lead to. Where the files already hold slices that a
/// controller made, they are taken as they are.
pub(crate) fn slices(objects: &mut Objects) {
    let pods: Vec<Arc<Pod>> = objects.pods.iter().filter_map(read).map(Arc::new).collect();
    let nodes: BTreeMap<String, Node> =
        objects.nodes.iter().filter_map(read::<Node>).map(|n| (n.metadata.name.to_string(), n)).collect();
    let zone_of = |name: &str| nodes.get(name).map(|node| node.zone().map(str::to_owned));
    let shares = topology::shares(nodes.values());
    let mut made = Vec::new();
    for object in &mut objects.services {
        if !is_set(object, "/metadata/uid") {
            let uid = format!("uid-{}", name_of(object));
            set(object, &["metadata", "uid"], json!(uid));
        }
        let Some(service) = read::<Service>(object) else { continue };
        if objects.slices.iter().any(|slice| controller_made(slice, &service)) {
            continue;
        }
        let writes = if let Some(selector) = service.selector() {
            let of_service = |pod: &&Arc<Pod>| selects(selector, &service, pod);
            let pods: Vec<Arc<Pod>> = pods.iter().filter(of_service).cloned().collect();
            let input = endpointslice::Input {
                service: &service,
                pods: &pods,
                slices: &[],
                zone_of: &zone_of,
                trigger: None,
                max_per_slice: ENDPOINTS_PER_SLICE,
                shares: &shares,
            };
            endpointslice::plan(&input).writes
        } else {
            let endpoints: Option<Endpoints> =
                objects.endpoints.iter().find(|e| name_of(e) == name_of(object)).and_then(read);
            let input = mirroring::plan::Input {
                service: Some(&service),
                endpoints: endpoints.as_ref(),
                slices: &[],
            };
            mirroring::plan::plan(&input).writes
        };
        made.extend(writes.into_iter().filter_map(|write| match write {
            Write::Create(slice) => Some(slice),
            Write::Update { .. } | Write::Delete(_) => None,
        }));
    }
    for (number, mut slice) in made.into_iter().enumerate() {
        slice.metadata.name = format!("{}{number}", slice.metadata.generate_name);
        objects.slices.extend(serde_json::to_value::<EndpointSlice>(slice));
    }
}

pub(crate) fn selects(selector: &Labels, service: &Service, pod: &Pod) -> bool {
    pod.metadata.namespace == service.metadata.namespace
        && selector.iter().all(|(label, value)| pod.metadata.labels.get(label) == Some(value))
}

fn controller_made(slice: &Value, service: &Service) -> bool {
    let label = |name: &str| slice["metadata"]["labels"][name].as_str().unwrap_or_default().to_owned();
    text(slice, "/metadata/namespace") == &*service.metadata.namespace
        && label(SERVICE_NAME_LABEL) == *service.metadata.name
        && label(MANAGED_BY_LABEL).starts_with("endpointslice")
}

fn read<T: serde::de::DeserializeOwned>(object: &Value) -> Option<T> {
    serde_json::from_value(object.clone()).ok()
}

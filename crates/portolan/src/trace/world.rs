//! The objects, parsed: what the proxy of a node would know, and what an explanation needs beside.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use portolan_client::Key;
use portolan_controllers::objects::{Pod as PodFields, Service as ServiceFields};
use portolan_controllers::written::EndpointSlice;
use portolan_forward::{EndpointView, NodeView, ServiceKey, Table};
use portolan_proxy::Config;
use portolan_proxy::snapshot::Snapshot;
use portolan_proxy::views::{self, HEADLESS_LABEL, Interner, NodeObject, ServiceObject, SliceObject};
use serde_json::Value;

use super::objects::{Objects, text};
use super::report::{Problem, ProblemKind};

/// Where ClusterIPs come from when nobody says it: the default of `portolan up`.
const SERVICE_RANGE: &str = "10.96.0.0/12";

pub(crate) struct World {
    pub(crate) services: BTreeMap<ServiceKey, Service>,
    pub(crate) pods: BTreeMap<(Arc<str>, Arc<str>), Pod>,
    pub(crate) nodes: BTreeMap<String, NodeObject>,
    pub(crate) slices: Vec<Slice>,
    pub(crate) service_cidrs: Vec<IpNet>,
    pub(crate) assumptions: Vec<String>,
    pub(crate) problems: Vec<Problem>,
}

pub(crate) struct Service {
    pub(crate) raw: Value,
    pub(crate) object: Arc<ServiceObject>,
    pub(crate) fields: ServiceFields,
}

pub(crate) struct Pod {
    pub(crate) raw: Value,
    pub(crate) fields: PodFields,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Pod {
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.fields.metadata.namespace, self.fields.metadata.name)
    }

    pub(crate) fn on_host_network(&self) -> bool {
        self.raw.pointer("/spec/hostNetwork").and_then(Value::as_bool).unwrap_or_default()
    }
}

pub(crate) struct Slice {
    key: Key,
    object: Arc<SliceObject>,
    /// What the proxy does not read: which pod an endpoint is.
    written: Option<EndpointSlice>,
    headless: bool,
}

impl World {
    /// Parses everything; what cannot be read at all becomes a problem.
    pub(crate) fn new(objects: Objects) -> Self {
        let mut world = Self {
            services: BTreeMap::new(),
            pods: BTreeMap::new(),
            nodes: BTreeMap::new(),
            slices: Vec::new(),
            service_cidrs: Vec::new(),
            assumptions: objects.assumptions,
            problems: objects.problems,
        };
        let interner = Interner::default();
        world.each(objects.services, |world, raw, bytes| {
            let object = Arc::new(views::service(bytes, &interner)?);
            let fields = serde_json::from_slice(bytes)?;
            world.services.insert(object.view.key.clone(), Service { raw, object, fields });
            Ok(())
        });
        world.each(objects.slices, |world, raw, bytes| {
            let object = Arc::new(views::slice(bytes, &interner)?);
            let key = Key::new(text(&raw, "/metadata/namespace"), text(&raw, "/metadata/name"));
            let headless = raw["metadata"]["labels"].get(HEADLESS_LABEL).is_some();
            world.slices.push(Slice { key, object, written: serde_json::from_slice(bytes).ok(), headless });
            Ok(())
        });
        world.each(objects.pods, |world, raw, bytes| {
            let fields: PodFields = serde_json::from_slice(bytes)?;
            let addresses = fields.addresses().filter_map(|ip| ip.parse().ok()).collect();
            let key = (fields.metadata.namespace.clone(), fields.metadata.name.clone());
            world.pods.insert(key, Pod { raw, fields, addresses });
            Ok(())
        });
        world.each(objects.nodes, |world, raw, bytes| {
            world.nodes.insert(text(&raw, "/metadata/name").to_owned(), views::node(bytes)?);
            Ok(())
        });
        world.each(objects.service_cidrs, |world, _, bytes| {
            world.service_cidrs.extend(views::service_cidr(bytes)?);
            Ok(())
        });
        if world.service_cidrs.is_empty() {
            world.service_cidrs.extend(SERVICE_RANGE.parse::<IpNet>());
        }
        world
    }

    fn each(
        &mut self,
        objects: Vec<Value>,
        take: impl Fn(&mut Self, Value, &[u8]) -> Result<(), portolan_client::BoxError>,
    ) {
        for raw in objects {
            let name = super::objects::name_of(&raw);
            let bytes = raw.to_string().into_bytes();
            if let Err(error) = take(self, raw, &bytes) {
                let what = format!("{name} cannot be read: {error}");
                let problem = Problem::new(ProblemKind::Unreadable, what, "correct the object");
                self.problems.push(problem.about(&name));
            }
        }
    }

    /// What the proxy of this node makes of the cluster.
    pub(crate) fn table(&self, node: NodeView) -> Table {
        let mut snapshot = Snapshot::new(node);
        for (key, service) in &self.services {
            let key = Key { namespace: key.namespace.clone(), name: key.name.clone() };
            snapshot.service(&key, Some(service.object.clone()));
        }
        // SVC-2: the proxy does not see the others.
        for slice in self.slices.iter().filter(|slice| !slice.headless) {
            snapshot.slice(&slice.key, Some(slice.object.clone()));
        }
        snapshot.compile();
        snapshot.table().clone()
    }

    /// The node as a proxy with these settings sees it.
    pub(crate) fn node_view(&self, name: &str, settings: &Config) -> Option<NodeView> {
        let node = self.nodes.get(name)?;
        let config = Config { node_name: name.to_owned(), ..settings.clone() };
        Some(portolan_proxy::node::view(&config, node, &self.service_cidrs, &node.addresses))
    }

    /// The endpoints of a Service, in the order of its slices' names: the order in which the proxy compiles them.
    pub(crate) fn endpoints(&self, service: &ServiceKey) -> Vec<EndpointView> {
        let mut slices: Vec<&Slice> =
            self.slices.iter().filter(|slice| slice.object.service.as_ref() == Some(service)).collect();
        slices.sort_by(|a, b| a.key.name.cmp(&b.key.name));
        slices.into_iter().flat_map(|slice| slice.object.endpoints.iter()).collect()
    }

    /// The pod that an endpoint of the Service is, by the slice or by its address.
    pub(crate) fn pod_at(&self, service: &ServiceKey, address: IpAddr) -> Option<&Pod> {
        let of_service = self.slices.iter().filter(|slice| slice.object.service.as_ref() == Some(service));
        let endpoints = of_service.filter_map(|slice| slice.written.as_ref()).flat_map(|s| &s.endpoints);
        let target = endpoints
            .filter(|endpoint| endpoint.addresses.iter().any(|text| text.parse() == Ok(address)))
            .find_map(|endpoint| endpoint.target_ref.as_ref().filter(|target| target.kind == "Pod"));
        if let Some(target) = target {
            return self.pods.get(&(service.namespace.clone(), target.name.as_str().into()));
        }
        self.pod_with(address).filter(|pod| pod.fields.metadata.namespace == service.namespace)
    }

    /// The pod that has this address, those on the host's network apart.
    pub(crate) fn pod_with(&self, address: IpAddr) -> Option<&Pod> {
        self.pods.values().find(|pod| pod.addresses.contains(&address) && !pod.on_host_network())
    }

    pub(crate) fn node_with(&self, address: IpAddr) -> Option<&str> {
        self.nodes.iter().find(|(_, node)| node.addresses.contains(&address)).map(|(name, _)| name.as_str())
    }
}

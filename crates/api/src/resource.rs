//! Resources: everything the server knows about each kind it serves. Start at [`RESOURCES`].

use serde_json::Value;

use crate::kinds;
use crate::printer::{Cells, Column};
use crate::schema::{Gvk, Object, Schema};
use crate::strategy::Strategy;
use crate::validate::name::dns1123_subdomain;
use crate::{
    apps, authentication, authorization, coordination, core, discovery, events, networking, portolan,
    printer, rbac, service,
};

/// One kind the server serves.
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    /// The name in paths, such as `services`.
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    /// The part of the store's key between `/registry/` and the namespace or name, such as `services/specs`.
    pub prefix: &'static str,
    /// Objects are kept. What is not kept is answered: a question is created, and the answer comes back in it.
    pub stored: bool,
    pub schema: fn() -> &'static Schema,
    /// Subresources that are served, such as `status`.
    pub subresources: &'static [&'static str],
    /// Paths that field selectors may use, besides `metadata.name` and `metadata.namespace`.
    pub selectable_fields: &'static [&'static str],
    /// DELETE answers with the object instead of a Status.
    pub returns_deleted: bool,
    /// PUT to a name that does not exist creates it.
    pub create_on_update: bool,
    /// PUT without a resource version is taken.
    pub unconditional_update: bool,
    pub strategy: &'static dyn Strategy,
    pub columns: &'static [Column],
    pub cells: Cells,
    /// Objects are stored as a kind of another group, at the same keys.
    pub view: Option<&'static View>,
}

/// Two forms of the same objects, and the way from one to the other.
#[derive(Debug)]
pub struct View {
    /// From the stored form to the one shown.
    pub shown: fn(&mut Value),
    /// Back.
    pub stored: fn(&mut Value),
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} {}", self.group, self.version, self.plural)
    }
}

impl Resource {
    pub fn gvk(&self) -> Gvk {
        Gvk { group: self.group, version: self.version, kind: self.kind }
    }

    /// `v1` or `discovery.k8s.io/v1`.
    pub fn api_version(&self) -> String {
        self.gvk().api_version()
    }

    /// The kind of a list of these.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    pub fn has_status(&self) -> bool {
        self.subresources.contains(&"status")
    }

    /// `/api/v1` or `/apis/discovery.k8s.io/v1`.
    pub fn root_path(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }

    /// The request path of the collection in a namespace, or of all of them without one.
    pub fn collection_path(&self, namespace: Option<&str>) -> String {
        match namespace {
            Some(namespace) if self.namespaced => {
                format!("{}/namespaces/{namespace}/{}", self.root_path(), self.plural)
            }
            _ => format!("{}/{}", self.root_path(), self.plural),
        }
    }

    /// The key of one object in the store.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced {
            format!("/registry/{}/{namespace}/{name}", self.prefix)
        } else {
            format!("/registry/{}/{name}", self.prefix)
        }
    }

    /// The prefix of all keys of this kind, or of one namespace.
    pub fn key_prefix(&self, namespace: Option<&str>) -> String {
        match namespace {
            Some(namespace) if self.namespaced => format!("/registry/{}/{namespace}/", self.prefix),
            _ => format!("/registry/{}/", self.prefix),
        }
    }
}

/// Whether a subresource is an act on an object, or a talk with it, rather than a part of it.
pub fn is_act(subresource: &str) -> bool {
    matches!(
        subresource,
        "attach" | "binding" | "eviction" | "exec" | "log" | "portforward" | "proxy" | "token"
    )
}

/// The resource served at a group, version and plural name.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().copied().find(|r| r.plural == plural && r.group == group && r.version == version)
}

/// The resource of a kind.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    RESOURCES.iter().copied().find(|r| r.kind == kind && r.group == group && r.version == version)
}

/// The resource of a typed object.
pub fn of<T: Object>() -> Option<&'static Resource> {
    find_kind(T::GVK.group, T::GVK.version, T::GVK.kind)
}

/// The kinds whose objects are kept, each once.
pub fn stored() -> impl Iterator<Item = &'static Resource> {
    RESOURCES.iter().copied().filter(|resource| resource.stored && resource.view.is_none())
}

/// Every kind, in the order in which discovery lists them.
pub static RESOURCES: &[&Resource] = &[
    &CONFIG_MAPS,
    &ENDPOINTS,
    &EVENTS,
    &NAMESPACES,
    &NODES,
    &PODS,
    &SECRETS,
    &SERVICE_ACCOUNTS,
    &SERVICES,
    &DEPLOYMENTS,
    &REPLICA_SETS,
    &LEASES,
    &ENDPOINT_SLICES,
    &EVENTS_VIEW,
    &IP_ADDRESSES,
    &SERVICE_CIDRS,
    &LOAD_BALANCER_POOLS,
    &CLUSTER_ROLE_BINDINGS,
    &CLUSTER_ROLES,
    &ROLE_BINDINGS,
    &ROLES,
    &SELF_SUBJECT_REVIEWS,
    &TOKEN_REVIEWS,
    &LOCAL_SUBJECT_ACCESS_REVIEWS,
    &SELF_SUBJECT_ACCESS_REVIEWS,
    &SELF_SUBJECT_RULES_REVIEWS,
    &SUBJECT_ACCESS_REVIEWS,
];

const CORE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    prefix: "",
    stored: true,
    schema: core::v1::Service::schema,
    subresources: &[],
    selectable_fields: &[],
    returns_deleted: false,
    create_on_update: false,
    unconditional_update: true,
    strategy: &kinds::Named { namespaced: true, rule: dns1123_subdomain },
    columns: printer::NAME_AGE,
    cells: printer::name_age,
    view: None,
};

pub static CONFIG_MAPS: Resource = Resource {
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    prefix: "configmaps",
    schema: core::v1::ConfigMap::schema,
    strategy: &kinds::config::ConfigMapStrategy,
    columns: printer::CONFIG_MAP,
    cells: printer::config_map,
    ..CORE
};

pub static ENDPOINTS: Resource = Resource {
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    prefix: "services/endpoints",
    schema: core::v1::Endpoints::schema,
    create_on_update: true,
    strategy: &kinds::endpoints::EndpointsStrategy,
    columns: printer::ENDPOINTS,
    cells: printer::endpoints,
    ..CORE
};

pub static EVENTS: Resource = Resource {
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    prefix: "events",
    schema: core::v1::Event::schema,
    selectable_fields: &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ],
    create_on_update: true,
    strategy: &kinds::event::EventStrategy,
    columns: printer::EVENT,
    cells: printer::event,
    ..CORE
};

/// The same events in the newer form.
pub static EVENTS_VIEW: Resource = Resource {
    group: "events.k8s.io",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    prefix: "events",
    schema: events::v1::Event::schema,
    selectable_fields: &[
        "regarding.kind",
        "regarding.namespace",
        "regarding.name",
        "regarding.uid",
        "regarding.apiVersion",
        "regarding.resourceVersion",
        "regarding.fieldPath",
        "reason",
        "reportingController",
        "type",
    ],
    create_on_update: true,
    strategy: &kinds::event::ViewStrategy,
    columns: printer::EVENT,
    cells: printer::event,
    view: Some(&events::VIEW),
    ..CORE
};

pub static NAMESPACES: Resource = Resource {
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    namespaced: false,
    prefix: "namespaces",
    schema: core::v1::Namespace::schema,
    subresources: &["status", "finalize"],
    selectable_fields: &["status.phase"],
    returns_deleted: true,
    strategy: &kinds::namespace::NamespaceStrategy,
    columns: printer::NAMESPACE,
    cells: printer::namespace,
    ..CORE
};

pub static NODES: Resource = Resource {
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    namespaced: false,
    prefix: "minions",
    schema: core::v1::Node::schema,
    subresources: &["proxy", "status"],
    selectable_fields: &["spec.unschedulable"],
    strategy: &kinds::node::NodeStrategy,
    columns: printer::NODE,
    cells: printer::node,
    ..CORE
};

pub static PODS: Resource = Resource {
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    prefix: "pods",
    schema: core::v1::Pod::schema,
    subresources: &["attach", "binding", "eviction", "exec", "log", "portforward", "proxy", "status"],
    selectable_fields: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ],
    returns_deleted: true,
    strategy: &kinds::pod::PodStrategy,
    columns: printer::POD,
    cells: printer::pod,
    ..CORE
};

pub static SECRETS: Resource = Resource {
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    prefix: "secrets",
    schema: core::v1::Secret::schema,
    selectable_fields: &["type"],
    strategy: &kinds::config::SecretStrategy,
    columns: printer::SECRET,
    cells: printer::secret,
    ..CORE
};

pub static SERVICE_ACCOUNTS: Resource = Resource {
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    prefix: "serviceaccounts",
    schema: core::v1::ServiceAccount::schema,
    subresources: &["token"],
    returns_deleted: true,
    columns: printer::SERVICE_ACCOUNT,
    cells: printer::service_account,
    ..CORE
};

pub static SERVICES: Resource = Resource {
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    prefix: "services/specs",
    schema: core::v1::Service::schema,
    subresources: &["proxy", "status"],
    selectable_fields: &["spec.clusterIP", "spec.type"],
    returns_deleted: true,
    create_on_update: true,
    strategy: &service::ServiceStrategy,
    columns: printer::SERVICE,
    cells: printer::service,
    ..CORE
};

pub static DEPLOYMENTS: Resource = Resource {
    group: "apps",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    prefix: "deployments",
    schema: apps::v1::Deployment::schema,
    subresources: &["scale", "status"],
    strategy: &kinds::apps::DeploymentStrategy,
    columns: printer::DEPLOYMENT,
    cells: printer::deployment,
    ..CORE
};

pub static REPLICA_SETS: Resource = Resource {
    group: "apps",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    prefix: "replicasets",
    schema: apps::v1::ReplicaSet::schema,
    subresources: &["scale", "status"],
    selectable_fields: &["status.replicas"],
    strategy: &kinds::apps::ReplicaSetStrategy,
    columns: printer::REPLICA_SET,
    cells: printer::replica_set,
    ..CORE
};

pub static LEASES: Resource = Resource {
    group: "coordination.k8s.io",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    prefix: "leases",
    schema: coordination::v1::Lease::schema,
    create_on_update: true,
    unconditional_update: false,
    strategy: &kinds::lease::LeaseStrategy,
    columns: printer::LEASE,
    cells: printer::lease,
    ..CORE
};

pub static ENDPOINT_SLICES: Resource = Resource {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    prefix: "endpointslices",
    schema: discovery::v1::EndpointSlice::schema,
    strategy: &kinds::endpoint_slice::EndpointSliceStrategy,
    columns: printer::ENDPOINT_SLICE,
    cells: printer::endpoint_slice,
    ..CORE
};

pub static IP_ADDRESSES: Resource = Resource {
    group: "networking.k8s.io",
    kind: "IPAddress",
    plural: "ipaddresses",
    singular: "ipaddress",
    short_names: &["ip"],
    namespaced: false,
    prefix: "ipaddresses",
    schema: networking::v1::IPAddress::schema,
    selectable_fields: &[
        "spec.parentRef.group",
        "spec.parentRef.resource",
        "spec.parentRef.namespace",
        "spec.parentRef.name",
    ],
    strategy: &kinds::networking::IPAddressStrategy,
    columns: printer::IP_ADDRESS,
    cells: printer::ip_address,
    ..CORE
};

pub static SERVICE_CIDRS: Resource = Resource {
    group: "networking.k8s.io",
    kind: "ServiceCIDR",
    plural: "servicecidrs",
    singular: "servicecidr",
    namespaced: false,
    prefix: "servicecidrs",
    schema: networking::v1::ServiceCIDR::schema,
    subresources: &["status"],
    strategy: &kinds::networking::ServiceCIDRStrategy,
    columns: printer::SERVICE_CIDR,
    cells: printer::service_cidr,
    ..CORE
};

pub static LOAD_BALANCER_POOLS: Resource = Resource {
    group: "portolan.dev",
    version: "v1alpha1",
    kind: "LoadBalancerPool",
    plural: "loadbalancerpools",
    singular: "loadbalancerpool",
    short_names: &["lbpool"],
    namespaced: false,
    prefix: "portolan.dev/loadbalancerpools",
    schema: portolan::v1alpha1::LoadBalancerPool::schema,
    subresources: &["status"],
    strategy: &kinds::pool::LoadBalancerPoolStrategy,
    columns: printer::LOAD_BALANCER_POOL,
    cells: printer::load_balancer_pool,
    ..CORE
};

pub static CLUSTER_ROLE_BINDINGS: Resource = Resource {
    group: kinds::rbac::GROUP,
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    namespaced: false,
    prefix: "clusterrolebindings",
    schema: rbac::v1::ClusterRoleBinding::schema,
    create_on_update: true,
    strategy: &kinds::rbac::BindingStrategy { namespaced: false },
    columns: printer::BINDING,
    cells: printer::binding,
    ..CORE
};

pub static CLUSTER_ROLES: Resource = Resource {
    group: kinds::rbac::GROUP,
    kind: "ClusterRole",
    plural: "clusterroles",
    singular: "clusterrole",
    namespaced: false,
    prefix: "clusterroles",
    schema: rbac::v1::ClusterRole::schema,
    create_on_update: true,
    strategy: &kinds::rbac::RoleStrategy { namespaced: false },
    columns: printer::ROLE,
    cells: printer::role,
    ..CORE
};

pub static ROLE_BINDINGS: Resource = Resource {
    group: kinds::rbac::GROUP,
    kind: "RoleBinding",
    plural: "rolebindings",
    singular: "rolebinding",
    namespaced: true,
    prefix: "rolebindings",
    schema: rbac::v1::RoleBinding::schema,
    create_on_update: true,
    strategy: &kinds::rbac::BindingStrategy { namespaced: true },
    columns: printer::BINDING,
    cells: printer::binding,
    ..CORE
};

pub static ROLES: Resource = Resource {
    group: kinds::rbac::GROUP,
    kind: "Role",
    plural: "roles",
    singular: "role",
    namespaced: true,
    prefix: "roles",
    schema: rbac::v1::Role::schema,
    create_on_update: true,
    strategy: &kinds::rbac::RoleStrategy { namespaced: true },
    columns: printer::ROLE,
    cells: printer::role,
    ..CORE
};

pub static SELF_SUBJECT_REVIEWS: Resource = Resource {
    group: "authentication.k8s.io",
    kind: "SelfSubjectReview",
    plural: "selfsubjectreviews",
    singular: "selfsubjectreview",
    namespaced: false,
    stored: false,
    schema: authentication::v1::SelfSubjectReview::schema,
    ..CORE
};

pub static TOKEN_REVIEWS: Resource = Resource {
    group: "authentication.k8s.io",
    kind: "TokenReview",
    plural: "tokenreviews",
    singular: "tokenreview",
    namespaced: false,
    stored: false,
    schema: authentication::v1::TokenReview::schema,
    ..CORE
};

pub static LOCAL_SUBJECT_ACCESS_REVIEWS: Resource = Resource {
    group: "authorization.k8s.io",
    kind: "LocalSubjectAccessReview",
    plural: "localsubjectaccessreviews",
    singular: "localsubjectaccessreview",
    namespaced: true,
    stored: false,
    schema: authorization::v1::LocalSubjectAccessReview::schema,
    ..CORE
};

pub static SELF_SUBJECT_ACCESS_REVIEWS: Resource = Resource {
    group: "authorization.k8s.io",
    kind: "SelfSubjectAccessReview",
    plural: "selfsubjectaccessreviews",
    singular: "selfsubjectaccessreview",
    namespaced: false,
    stored: false,
    schema: authorization::v1::SelfSubjectAccessReview::schema,
    ..CORE
};

pub static SELF_SUBJECT_RULES_REVIEWS: Resource = Resource {
    group: "authorization.k8s.io",
    kind: "SelfSubjectRulesReview",
    plural: "selfsubjectrulesreviews",
    singular: "selfsubjectrulesreview",
    namespaced: false,
    stored: false,
    schema: authorization::v1::SelfSubjectRulesReview::schema,
    ..CORE
};

pub static SUBJECT_ACCESS_REVIEWS: Resource = Resource {
    group: "authorization.k8s.io",
    kind: "SubjectAccessReview",
    plural: "subjectaccessreviews",
    singular: "subjectaccessreview",
    namespaced: false,
    stored: false,
    schema: authorization::v1::SubjectAccessReview::schema,
    ..CORE
};

/// The string at a path such as `spec.clusterIP`; numbers and booleans as text; absent is empty.
pub fn field_text(object: &Value, path: &str) -> String {
    let mut at = object;
    for part in path.split('.') {
        match at.get(part) {
            Some(inner) => at = inner,
            None => return String::new(),
        }
    }
    match at {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

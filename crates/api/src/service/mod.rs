//! Services: defaults, the rules about addresses and families, validation, warnings.
//!
//! The server's order for a write: [`defaults`] while decoding; then the allocator with the functions of [`families`]
//! and [`carry`] (they work on the typed struct, because the allocator does); then `prepare_*`, [`validate`], and
//! [`warnings`] through the [`ServiceStrategy`]. Allocation itself is the server's.

pub mod carry;
pub mod defaults;
pub mod families;
pub mod validate;
pub mod validate_update;
pub mod warnings;

use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::core::v1::{Service, ServiceSpec};
use crate::field::{FieldError, FieldErrors};
use crate::strategy::Strategy;

pub const CLUSTER_IP_NONE: &str = "None";

impl ServiceSpec {
    pub fn is_external_name(&self) -> bool {
        self.type_ == "ExternalName"
    }

    pub fn is_load_balancer(&self) -> bool {
        self.type_ == "LoadBalancer"
    }

    /// `clusterIP: None`.
    pub fn is_headless(&self) -> bool {
        match self.cluster_ips.as_slice() {
            [] => self.cluster_ip == CLUSTER_IP_NONE,
            [only] => only == CLUSTER_IP_NONE,
            _ => false,
        }
    }

    /// Its type has a value in `clusterIP`, be it `None`.
    pub fn needs_cluster_ip(&self) -> bool {
        matches!(self.type_.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer")
    }

    /// Its type gives every port a node port by itself.
    pub fn allocates_node_ports(&self) -> bool {
        match self.type_.as_str() {
            "NodePort" => true,
            "LoadBalancer" => self.allocate_load_balancer_node_ports.unwrap_or(true),
            _ => false,
        }
    }

    /// Its type may have node ports.
    pub fn may_have_node_ports(&self) -> bool {
        matches!(self.type_.as_str(), "NodePort" | "LoadBalancer")
    }

    /// Nodes answer a load balancer's question about local endpoints.
    pub fn needs_health_check_node_port(&self) -> bool {
        self.is_load_balancer() && self.external_traffic_policy == "Local"
    }

    /// Reached from outside the cluster, so that `externalTrafficPolicy` means something.
    pub fn is_externally_accessible(&self) -> bool {
        self.may_have_node_ports() || (self.type_ == "ClusterIP" && !self.external_ips.is_empty())
    }
}

/// Reads a Service. Decoding has checked the types before, so what cannot be read is our own mistake.
pub fn read(object: &Value) -> Result<Service, FieldErrors> {
    Service::deserialize(object).map_err(|e| vec![FieldError::internal("", e.to_string())])
}

/// Writes a changed spec back into its object.
pub fn write_spec(object: &mut Value, spec: &ServiceSpec) {
    // A struct of strings, numbers, lists and maps always has a JSON form.
    object["spec"] = serde_json::to_value(spec).unwrap_or_else(|_| json!({}));
}

/// There is no traffic inside the cluster to a Service that is a name elsewhere. A policy that exists is dropped, as
/// Kubernetes drops it when it shows such a Service; one that does not is left for validation to refuse.
fn drop_internal_policy(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let known = |policy: &Value| validate::TRAFFIC_POLICIES.iter().any(|known| policy == known);
    if spec.get("type").is_some_and(|kind| kind == "ExternalName")
        && spec.get("internalTrafficPolicy").is_some_and(known)
    {
        spec.remove("internalTrafficPolicy");
    }
}

/// The rules of Services.
#[derive(Debug)]
pub struct ServiceStrategy;

impl Strategy for ServiceStrategy {
    fn default(&self, object: &mut Value) {
        defaults::apply(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
        drop_internal_policy(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        new["status"] = old.get("status").cloned().unwrap_or_else(|| json!({"loadBalancer": {}}));
        let (Ok(mut service), Ok(stored)) = (read(new), read(old)) else { return };
        let before = service.spec.clone();
        carry::drop_type_dependent(&mut service.spec, &stored.spec);
        if service.spec != before {
            write_spec(new, &service.spec);
        }
        if !service.spec.is_load_balancer() {
            new["status"]["loadBalancer"] = json!({});
        }
        drop_internal_policy(new);
    }

    fn validate_create(&self, object: &Value) -> FieldErrors {
        match read(object) {
            Ok(service) => validate::create(&service),
            Err(errors) => errors,
        }
    }

    fn validate_update(&self, new: &Value, old: &Value) -> FieldErrors {
        match (read(new), read(old)) {
            (Ok(new), Ok(old)) => validate_update::update(&new, &old),
            (Err(errors), _) | (_, Err(errors)) => errors,
        }
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> FieldErrors {
        match (read(new), read(old)) {
            (Ok(new), Ok(old)) => validate_update::status_update(&new, &old),
            (Err(errors), _) | (_, Err(errors)) => errors,
        }
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        read(new).map(|service| warnings::of(&service)).unwrap_or_default()
    }
}

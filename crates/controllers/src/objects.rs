//! What the controllers read of Pods, Services, Nodes, Leases and Namespaces: only the fields they use.
//!
//! A cluster holds many pods, and a pod is mostly text that no controller looks at; decoding just these fields keeps
//! the caches small. Objects that controllers also write (Endpoints, EndpointSlices) use the API's own types.
//! The names are the API's; a JSON `null` reads like a missing field, since Go clients write both.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

pub use portolan_client::Labels;

/// Reads `null` as the default.
pub(crate) fn nullable<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// The same for a list that is kept for long, in no more room than it needs.
fn exact<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let mut list: Vec<T> = Option::deserialize(from)?.unwrap_or_default();
    list.shrink_to_fit();
    Ok(list)
}

/// A word that most objects have from a few: those take no room of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word(Cow<'static, str>);

/// Types, kinds, families and protocols that are everywhere.
const WORDS: &[&str] = &[
    "ClusterIP",
    "LoadBalancer",
    "NodePort",
    "IPv4",
    "IPv6",
    "TCP",
    "UDP",
    "v1",
    "apps/v1",
    "Service",
    "Endpoints",
    "Pod",
    "Node",
    "ReplicaSet",
    "Deployment",
];

impl From<&str> for Word {
    fn from(text: &str) -> Self {
        let known = WORDS.iter().find(|word| **word == text);
        Self(known.map_or_else(|| Cow::Owned(text.to_owned()), |word| Cow::Borrowed(*word)))
    }
}

impl std::ops::Deref for Word {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Word {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for Word {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Word;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Word, E> {
                Ok(text.into())
            }
        }
        from.deserialize_str(Text)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    #[serde(deserialize_with = "nullable")]
    pub name: Arc<str>,
    #[serde(deserialize_with = "nullable")]
    pub namespace: Arc<str>,
    #[serde(deserialize_with = "nullable")]
    pub uid: Arc<str>,
    #[serde(deserialize_with = "nullable")]
    pub resource_version: String,
    #[serde(deserialize_with = "nullable")]
    pub labels: Labels,
    #[serde(deserialize_with = "nullable")]
    pub annotations: Labels,
    #[serde(deserialize_with = "nullable")]
    pub owner_references: Arc<[Owner]>,
    pub creation_timestamp: Option<Arc<str>>,
    pub deletion_timestamp: Option<String>,
}

impl Meta {
    pub fn deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    /// The owner that controls this object, if one does.
    pub fn controller(&self) -> Option<&Owner> {
        self.owner_references.iter().find(|owner| owner.controller)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Owner {
    #[serde(deserialize_with = "nullable")]
    pub api_version: Word,
    #[serde(deserialize_with = "nullable")]
    pub kind: Word,
    #[serde(deserialize_with = "nullable")]
    pub name: Arc<str>,
    #[serde(deserialize_with = "nullable")]
    pub uid: Box<str>,
    #[serde(deserialize_with = "nullable")]
    pub controller: bool,
}

/// A number or a name: `targetPort`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum PortRef {
    Number(i32),
    Name(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    #[serde(deserialize_with = "nullable")]
    pub status: String,
    #[serde(deserialize_with = "nullable")]
    pub reason: String,
    #[serde(deserialize_with = "nullable")]
    pub message: String,
    pub last_transition_time: Option<String>,
    pub last_heartbeat_time: Option<String>,
}

// --- Pod ---

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    pub metadata: Meta,
    #[serde(deserialize_with = "nullable")]
    pub spec: PodSpec,
    #[serde(deserialize_with = "nullable")]
    pub status: PodStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    #[serde(deserialize_with = "nullable")]
    pub node_name: Arc<str>,
    #[serde(deserialize_with = "nullable")]
    pub hostname: String,
    #[serde(deserialize_with = "nullable")]
    pub subdomain: String,
    #[serde(deserialize_with = "nullable")]
    pub scheduler_name: String,
    #[serde(deserialize_with = "nullable")]
    pub node_selector: Labels,
    #[serde(deserialize_with = "nullable")]
    pub tolerations: Vec<Toleration>,
    #[serde(deserialize_with = "nullable")]
    pub scheduling_gates: Vec<SchedulingGate>,
    #[serde(deserialize_with = "nullable")]
    pub containers: Vec<Container>,
    #[serde(deserialize_with = "nullable")]
    pub init_containers: Vec<Container>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    #[serde(deserialize_with = "nullable")]
    pub restart_policy: String,
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<ContainerPort>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    pub container_port: i32,
    #[serde(deserialize_with = "nullable")]
    pub protocol: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    #[serde(deserialize_with = "nullable")]
    pub key: String,
    #[serde(deserialize_with = "nullable")]
    pub operator: String,
    #[serde(deserialize_with = "nullable")]
    pub value: String,
    #[serde(deserialize_with = "nullable")]
    pub effect: String,
    /// How long a pod stays once a taint evicts; absent is for ever.
    pub toleration_seconds: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SchedulingGate {
    #[serde(deserialize_with = "nullable")]
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    #[serde(deserialize_with = "nullable")]
    pub phase: String,
    #[serde(rename = "podIP", deserialize_with = "nullable")]
    pub pod_ip: String,
    #[serde(rename = "podIPs", deserialize_with = "nullable")]
    pub pod_ips: Vec<PodIp>,
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodIp {
    #[serde(deserialize_with = "nullable")]
    pub ip: String,
}

impl Pod {
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// The Ready condition is True.
    pub fn ready(&self) -> bool {
        self.condition("Ready").is_some_and(|condition| condition.status == "True")
    }

    /// It ran to its end and will never serve again.
    pub fn finished(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Its addresses as the status spells them, primary first.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        let only = (self.status.pod_ips.is_empty() && !self.status.pod_ip.is_empty())
            .then_some(self.status.pod_ip.as_str());
        self.status.pod_ips.iter().map(|entry| entry.ip.as_str()).chain(only)
    }

    /// The number behind a named target port: containers first, then sidecars (init containers that keep running).
    /// Name and protocol must both agree.
    pub fn named_port(&self, name: &str, protocol: &str) -> Option<i32> {
        let sidecars =
            self.spec.init_containers.iter().filter(|container| container.restart_policy == "Always");
        self.spec
            .containers
            .iter()
            .chain(sidecars)
            .flat_map(|container| &container.ports)
            .find(|port| port.name == name && or_tcp(&port.protocol) == protocol)
            .map(|port| port.container_port)
    }
}

/// A missing protocol is TCP.
pub fn or_tcp(protocol: &str) -> &str {
    if protocol.is_empty() { "TCP" } else { protocol }
}

// --- Service ---

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    pub metadata: Meta,
    #[serde(deserialize_with = "nullable")]
    pub spec: ServiceSpec,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub kind: Word,
    /// `None` where the user manages the endpoints; empty selects every pod of the namespace.
    pub selector: Option<Labels>,
    #[serde(rename = "clusterIP", deserialize_with = "nullable")]
    pub cluster_ip: Box<str>,
    #[serde(deserialize_with = "exact")]
    pub ip_families: Vec<Word>,
    #[serde(deserialize_with = "exact")]
    pub ports: Vec<ServicePort>,
    #[serde(deserialize_with = "nullable")]
    pub publish_not_ready_addresses: bool,
    #[serde(deserialize_with = "nullable")]
    pub traffic_distribution: Box<str>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    #[serde(deserialize_with = "nullable")]
    pub protocol: Word,
    pub port: i32,
    pub target_port: Option<PortRef>,
    pub app_protocol: Option<String>,
}

impl Service {
    /// The pods it asks for, where a controller is to keep its endpoints: not for ExternalName, not without selector.
    pub fn selector(&self) -> Option<&Labels> {
        if self.spec.kind == "ExternalName" { None } else { self.spec.selector.as_ref() }
    }

    /// It has no ClusterIP: a list of endpoints and nothing more.
    pub fn headless(&self) -> bool {
        self.spec.cluster_ip.is_empty() || &*self.spec.cluster_ip == "None"
    }
}

impl ServicePort {
    /// The port of one pod behind this Service port; `None` where the pod has no port of that name.
    pub fn target(&self, pod: &Pod) -> Option<i32> {
        match &self.target_port {
            None | Some(PortRef::Number(0)) => Some(self.port),
            Some(PortRef::Number(number)) => Some(*number),
            Some(PortRef::Name(name)) if name.is_empty() => Some(self.port),
            Some(PortRef::Name(name)) => pod.named_port(name, or_tcp(&self.protocol)),
        }
    }
}

// --- Node, Lease, Namespace ---

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    pub metadata: Meta,
    #[serde(deserialize_with = "nullable")]
    pub spec: NodeSpec,
    #[serde(deserialize_with = "nullable")]
    pub status: NodeStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    #[serde(rename = "podCIDR", deserialize_with = "nullable")]
    pub pod_cidr: String,
    #[serde(rename = "podCIDRs", deserialize_with = "nullable")]
    pub pod_cidrs: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub unschedulable: bool,
    #[serde(deserialize_with = "nullable")]
    pub taints: Vec<Taint>,
}

/// Also written back, in a list with others'.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Taint {
    #[serde(deserialize_with = "nullable")]
    pub key: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub value: String,
    #[serde(deserialize_with = "nullable")]
    pub effect: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_added: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<Condition>,
    #[serde(deserialize_with = "nullable")]
    pub allocatable: BTreeMap<String, String>,
}

impl Node {
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|condition| condition.kind == kind)
    }

    pub fn ready(&self) -> bool {
        self.condition("Ready").is_some_and(|condition| condition.status == "True")
    }

    pub fn zone(&self) -> Option<&str> {
        self.metadata.labels.get("topology.kubernetes.io/zone").filter(|zone| !zone.is_empty())
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Lease {
    pub metadata: Meta,
    #[serde(deserialize_with = "nullable")]
    pub spec: LeaseSpec,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseSpec {
    pub renew_time: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Namespace {
    pub metadata: Meta,
    #[serde(deserialize_with = "nullable")]
    pub spec: NamespaceSpec,
    #[serde(deserialize_with = "nullable")]
    pub status: NamespaceStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceSpec {
    #[serde(deserialize_with = "nullable")]
    pub finalizers: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceStatus {
    #[serde(deserialize_with = "nullable")]
    pub phase: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_reads_like_missing() {
        let pod: Pod = serde_json::from_str(
            r#"{"metadata":{"name":"a","labels":null,"creationTimestamp":null},"spec":{"containers":null},"status":null}"#,
        )
        .unwrap();
        assert_eq!(&*pod.metadata.name, "a");
        assert!(pod.metadata.labels.is_empty());
    }

    #[test]
    fn named_ports_need_name_and_protocol_and_see_sidecars() {
        let pod: Pod = serde_json::from_str(
            r#"{"spec":{"containers":[{"ports":[{"name":"dns","containerPort":53,"protocol":"UDP"}]}],
                "initContainers":[{"restartPolicy":"Always","ports":[{"name":"metrics","containerPort":9000}]},
                                  {"ports":[{"name":"setup","containerPort":1}]}]}}"#,
        )
        .unwrap();
        assert_eq!(pod.named_port("dns", "UDP"), Some(53));
        assert_eq!(pod.named_port("dns", "TCP"), None);
        assert_eq!(pod.named_port("metrics", "TCP"), Some(9000));
        assert_eq!(pod.named_port("setup", "TCP"), None, "an init container that ends serves nothing");
    }

    #[test]
    fn a_missing_selector_differs_from_an_empty_one() {
        let without: Service = serde_json::from_str(r#"{"spec":{}}"#).unwrap();
        let empty: Service = serde_json::from_str(r#"{"spec":{"selector":{}}}"#).unwrap();
        assert_eq!(without.selector(), None);
        assert_eq!(empty.selector(), Some(&Labels::new()));
    }
}

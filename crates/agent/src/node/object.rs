//! What the Node object says. Pure but for the facts, which come in as an argument.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use portolan_api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus, NodeSystemInfo,
};
use portolan_api::schema::Object as _;
use portolan_api::{Quantity, Time};

use crate::Config;

/// How many pods a node says it can run: kubelet's default.
const PODS_MAX: u32 = 110;

/// What this machine is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) cpus: usize,
    pub(crate) memory_kib: u64,
    pub(crate) machine_id: String,
    pub(crate) boot_id: String,
    pub(crate) kernel: String,
    pub(crate) os_image: String,
}

impl Facts {
    /// Reads them; what cannot be read stays empty.
    pub(crate) fn read() -> Self {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str, separator: char| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(separator))
                .map(|value| value.trim().trim_matches('"').to_owned())
                .unwrap_or_default()
        };
        let memory = field(&file("/proc/meminfo"), "MemTotal", ':');
        Self {
            cpus: std::thread::available_parallelism().map_or(1, Into::into),
            memory_kib: memory.trim_end_matches(" kB").parse().unwrap_or(0),
            machine_id: file("/etc/machine-id").trim().to_owned(),
            boot_id: file("/proc/sys/kernel/random/boot_id").trim().to_owned(),
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            os_image: field(&file("/etc/os-release"), "PRETTY_NAME", '='),
        }
    }
}

/// Kubernetes' name of this processor architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The labels that the agent sees to; those of the configuration win.
pub(crate) fn labels(config: &Config) -> BTreeMap<String, String> {
    let arch = architecture();
    let own = [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ];
    let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
    own.into_iter().chain(config.labels.clone()).collect()
}

/// The object for a node that is not registered yet.
pub(crate) fn new_node(config: &Config, range: Option<Ipv4Net>) -> Node {
    let mut node = Node::named("", &config.node_name);
    node.metadata.labels = labels(config);
    if let Some(range) = range {
        node.spec.pod_cidr = range.to_string();
        node.spec.pod_cidrs = vec![range.to_string()];
    }
    node
}

/// The status, given what is there and whether the node has its podCIDR.
pub(crate) fn status(
    config: &Config,
    facts: &Facts,
    has_range: bool,
    old: &NodeStatus,
    now: Time,
) -> NodeStatus {
    let mut addresses: Vec<NodeAddress> = config
        .node_ips
        .iter()
        .map(|ip| NodeAddress { type_: "InternalIP".into(), address: ip.to_string() })
        .collect();
    addresses.push(NodeAddress { type_: "Hostname".into(), address: config.node_name.clone() });
    let capacity: BTreeMap<String, Quantity> = [
        ("cpu", facts.cpus.to_string()),
        ("memory", format!("{}Ki", facts.memory_kib)),
        ("pods", PODS_MAX.to_string()),
    ]
    .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
    .into();
    NodeStatus {
        allocatable: capacity.clone(),
        capacity,
        conditions: conditions(has_range, old, now),
        addresses,
        node_info: node_info(facts),
        daemon_endpoints: NodeDaemonEndpoints {
            kubelet_endpoint: DaemonEndpoint {
                port: config.serving.as_ref().map_or(0, |serving| serving.address.port().into()),
            },
        },
        ..old.clone()
    }
}

fn node_info(facts: &Facts) -> NodeSystemInfo {
    let version = concat!("v", env!("CARGO_PKG_VERSION"), "-portolan");
    NodeSystemInfo {
        machine_id: facts.machine_id.clone(),
        system_uuid: facts.machine_id.clone(),
        boot_id: facts.boot_id.clone(),
        kernel_version: facts.kernel.clone(),
        os_image: facts.os_image.clone(),
        container_runtime_version: concat!("portolan://", env!("CARGO_PKG_VERSION")).into(),
        kubelet_version: version.into(),
        operating_system: "linux".into(),
        architecture: architecture().into(),
        ..NodeSystemInfo::default()
    }
}

fn conditions(has_range: bool, old: &NodeStatus, now: Time) -> Vec<NodeCondition> {
    let ready = if has_range {
        ("Ready", "True", "KubeletReady", "the node agent is posting ready status")
    } else {
        ("Ready", "False", "KubeletNotReady", "the pod network is not ready: the node has no podCIDR yet")
    };
    let own = [
        (
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "the node agent has sufficient memory available",
        ),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "the node agent has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "the node agent has sufficient PID available"),
        ready,
    ];
    let earlier = |type_: &str| old.conditions.iter().find(|c| c.type_ == type_);
    let foreign = old.conditions.iter().filter(|c| own.iter().all(|(type_, ..)| c.type_ != *type_)).cloned();
    let own = own.map(|(type_, status, reason, message)| NodeCondition {
        type_: type_.into(),
        status: status.into(),
        last_heartbeat_time: Some(now),
        last_transition_time: earlier(type_)
            .filter(|c| c.status == status)
            .and_then(|c| c.last_transition_time)
            .or(Some(now)),
        reason: reason.into(),
        message: message.into(),
    });
    foreign.chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let mut config = Config::new("node-a", "192.0.2.1".parse().unwrap(), "/x", "/y");
        config.labels.insert("topology.kubernetes.io/zone".into(), "z1".into());
        config
    }

    fn ready(status: &NodeStatus) -> (&str, i64) {
        let c = status.conditions.iter().find(|c| c.type_ == "Ready").unwrap();
        (&c.status, c.last_transition_time.unwrap().as_second())
    }

    #[test]
    fn a_node_says_who_and_where_it_is() {
        let node = new_node(&config(), None);
        assert_eq!(node.metadata.name, "node-a");
        assert_eq!(node.metadata.labels["kubernetes.io/hostname"], "node-a");
        assert_eq!(node.metadata.labels["topology.kubernetes.io/zone"], "z1");
        let status = status(&config(), &Facts::read(), true, &NodeStatus::default(), Time::from_second(5));
        assert_eq!(status.addresses[0].type_, "InternalIP");
        assert_eq!(status.addresses[0].address, "192.0.2.1");
        assert_eq!(status.addresses[1].type_, "Hostname");
        assert!(!status.node_info.kernel_version.is_empty());
        assert_ne!(status.capacity["memory"].0, "0Ki");
    }

    #[test]
    fn ready_follows_the_pod_range_and_keeps_its_time() {
        let facts = Facts::default();
        let derive = |range, old: &NodeStatus, second| {
            status(&config(), &facts, range, old, Time::from_second(second))
        };
        let first = derive(false, &NodeStatus::default(), 10);
        assert_eq!(ready(&first), ("False", 10));
        let second = derive(true, &first, 20);
        assert_eq!(ready(&second), ("True", 20));
        assert_eq!(ready(&derive(true, &second, 30)), ("True", 20));
    }

    #[test]
    fn conditions_of_others_are_kept() {
        let other = NodeCondition {
            type_: "NetworkUnavailable".into(),
            status: "False".into(),
            ..NodeCondition::default()
        };
        let old = NodeStatus { conditions: vec![other.clone()], ..NodeStatus::default() };
        let new = status(&config(), &Facts::default(), true, &old, Time::from_second(1));
        assert!(new.conditions.contains(&other));
        assert_eq!(new.conditions.len(), 5);
    }
}

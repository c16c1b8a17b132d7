//! kube-proxy's configuration file, `KubeProxyConfiguration` of `kubeproxy.config.k8s.io/v1alpha1`: every field with
//! its default. What reads a file is in [`super::read`], what the fields mean here in [`super::settings`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::duration::GoDuration;

pub(crate) const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
pub(crate) const KIND: &str = "KubeProxyConfiguration";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Configuration {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) feature_gates: BTreeMap<String, bool>,
    pub(crate) client_connection: ClientConnection,
    /// Only its names are checked; `verbosity` is used.
    pub(crate) logging: Map<String, Value>,
    pub(crate) hostname_override: String,
    pub(crate) bind_address: String,
    pub(crate) healthz_bind_address: String,
    pub(crate) metrics_bind_address: String,
    pub(crate) bind_address_hard_fail: bool,
    pub(crate) enable_profiling: bool,
    pub(crate) show_hidden_metrics_for_version: String,
    pub(crate) mode: String,
    pub(crate) iptables: Iptables,
    pub(crate) ipvs: Ipvs,
    pub(crate) nftables: Nftables,
    pub(crate) winkernel: Winkernel,
    pub(crate) detect_local_mode: String,
    pub(crate) detect_local: DetectLocal,
    #[serde(rename = "clusterCIDR")]
    pub(crate) cluster_cidr: String,
    pub(crate) node_port_addresses: Vec<String>,
    pub(crate) oom_score_adj: i32,
    pub(crate) conntrack: Conntrack,
    pub(crate) config_sync_period: GoDuration,
    pub(crate) port_range: String,
    pub(crate) windows_run_as_service: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ClientConnection {
    pub(crate) kubeconfig: String,
    pub(crate) accept_content_types: String,
    pub(crate) content_type: String,
    pub(crate) qps: f64,
    pub(crate) burst: i32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Iptables {
    pub(crate) masquerade_bit: i32,
    pub(crate) masquerade_all: bool,
    pub(crate) localhost_node_ports: bool,
    pub(crate) sync_period: GoDuration,
    pub(crate) min_sync_period: GoDuration,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Ipvs {
    pub(crate) sync_period: GoDuration,
    pub(crate) min_sync_period: GoDuration,
    pub(crate) scheduler: String,
    #[serde(rename = "excludeCIDRs")]
    pub(crate) exclude_cidrs: Vec<String>,
    #[serde(rename = "strictARP")]
    pub(crate) strict_arp: bool,
    pub(crate) tcp_timeout: GoDuration,
    pub(crate) tcp_fin_timeout: GoDuration,
    pub(crate) udp_timeout: GoDuration,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Nftables {
    pub(crate) masquerade_bit: i32,
    pub(crate) masquerade_all: bool,
    pub(crate) sync_period: GoDuration,
    /// 0 here, 1s in kube-proxy: a change costs what it changes, so there is no need to let changes gather.
    pub(crate) min_sync_period: GoDuration,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Winkernel {
    pub(crate) network_name: String,
    pub(crate) source_vip: String,
    #[serde(rename = "enableDSR")]
    pub(crate) enable_dsr: bool,
    pub(crate) root_hns_endpoint_name: String,
    pub(crate) forward_health_check_vip: bool,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DetectLocal {
    pub(crate) bridge_interface: String,
    pub(crate) interface_name_prefix: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Conntrack {
    pub(crate) max_per_core: i32,
    pub(crate) min: i32,
    pub(crate) tcp_established_timeout: GoDuration,
    pub(crate) tcp_close_wait_timeout: GoDuration,
    pub(crate) tcp_be_liberal: bool,
    pub(crate) udp_timeout: GoDuration,
    pub(crate) udp_stream_timeout: GoDuration,
}

impl Default for Configuration {
    fn default() -> Self {
        let logging =
            json!({ "format": "text", "flushFrequency": "5s", "verbosity": 0, "vmodule": [], "options": {} });
        Self {
            api_version: API_VERSION.into(),
            kind: KIND.into(),
            feature_gates: BTreeMap::new(),
            client_connection: ClientConnection::default(),
            logging: logging.as_object().cloned().unwrap_or_default(),
            hostname_override: String::new(),
            bind_address: "0.0.0.0".into(),
            healthz_bind_address: "0.0.0.0:10256".into(),
            metrics_bind_address: "127.0.0.1:10249".into(),
            bind_address_hard_fail: false,
            enable_profiling: false,
            show_hidden_metrics_for_version: String::new(),
            mode: String::new(),
            iptables: Iptables::default(),
            ipvs: Ipvs::default(),
            nftables: Nftables::default(),
            winkernel: Winkernel::default(),
            detect_local_mode: "ClusterCIDR".into(),
            detect_local: DetectLocal::default(),
            cluster_cidr: String::new(),
            node_port_addresses: Vec::new(),
            oom_score_adj: -999,
            conntrack: Conntrack::default(),
            config_sync_period: GoDuration::seconds(15 * 60),
            port_range: String::new(),
            windows_run_as_service: false,
        }
    }
}

impl Default for ClientConnection {
    fn default() -> Self {
        let content_type = "application/vnd.kubernetes.protobuf".into();
        Self {
            kubeconfig: String::new(),
            accept_content_types: String::new(),
            content_type,
            qps: 5.0,
            burst: 10,
        }
    }
}

impl Default for Iptables {
    fn default() -> Self {
        Self {
            masquerade_bit: 14,
            masquerade_all: false,
            localhost_node_ports: true,
            sync_period: GoDuration::seconds(30),
            // kube-proxy waits a second, as each of its changes costs so much.
            min_sync_period: GoDuration::ZERO,
        }
    }
}

impl Default for Ipvs {
    fn default() -> Self {
        Self {
            sync_period: GoDuration::seconds(30),
            min_sync_period: GoDuration::ZERO,
            scheduler: String::new(),
            exclude_cidrs: Vec::new(),
            strict_arp: false,
            tcp_timeout: GoDuration::ZERO,
            tcp_fin_timeout: GoDuration::ZERO,
            udp_timeout: GoDuration::ZERO,
        }
    }
}

impl Default for Nftables {
    fn default() -> Self {
        Self {
            masquerade_bit: 14,
            masquerade_all: false,
            sync_period: GoDuration::seconds(30),
            min_sync_period: GoDuration::ZERO,
        }
    }
}

impl Default for Conntrack {
    fn default() -> Self {
        Self {
            max_per_core: 32768,
            min: 131_072,
            tcp_established_timeout: GoDuration::seconds(24 * 3600),
            tcp_close_wait_timeout: GoDuration::seconds(3600),
            tcp_be_liberal: false,
            udp_timeout: GoDuration::ZERO,
            udp_stream_timeout: GoDuration::ZERO,
        }
    }
}

impl Configuration {
    /// Where an empty value stands for the default, puts that.
    pub(crate) fn fill_in(&mut self) {
        let default = Self::default();
        let v6 = self.bind_address.parse::<std::net::Ipv6Addr>().is_ok();
        let text = |field: &mut String, default: &str| {
            if field.is_empty() {
                default.clone_into(field);
            }
        };
        text(&mut self.bind_address, &default.bind_address);
        text(&mut self.healthz_bind_address, if v6 { "[::]:10256" } else { &default.healthz_bind_address });
        text(&mut self.metrics_bind_address, if v6 { "[::1]:10249" } else { &default.metrics_bind_address });
        text(&mut self.detect_local_mode, &default.detect_local_mode);
        text(&mut self.client_connection.content_type, &default.client_connection.content_type);
        if self.client_connection.qps == 0.0 {
            self.client_connection.qps = default.client_connection.qps;
        }
        if self.client_connection.burst == 0 {
            self.client_connection.burst = default.client_connection.burst;
        }
        for (field, default) in [
            (&mut self.nftables.sync_period, default.nftables.sync_period),
            (&mut self.iptables.sync_period, default.iptables.sync_period),
            (&mut self.ipvs.sync_period, default.ipvs.sync_period),
            (&mut self.config_sync_period, default.config_sync_period),
        ] {
            if *field == GoDuration::ZERO {
                *field = default;
            }
        }
    }

    pub(crate) fn verbosity(&self) -> u64 {
        self.logging.get("verbosity").and_then(Value::as_u64).unwrap_or(0)
    }
}

//! kube-proxy's flags. Those that count become fields of a configuration, as if a file had them.

#![allow(clippy::doc_markdown, reason = "these comments are what --help prints")]

use std::path::PathBuf;

use clap::Args;

use super::configuration::Configuration;
use super::duration::GoDuration;

/// How the traffic of a node's own pods is told from what comes from elsewhere: the proxy and `trace` must agree on it.
#[derive(Debug, Default, Args)]
#[group(skip)]
pub(crate) struct LocalTraffic {
    /// Where the cluster's pods get their addresses from; what comes from elsewhere is masqueraded
    #[arg(long, value_name = "CIDR[,CIDR]")]
    pub(crate) cluster_cidr: Option<String>,
    /// How traffic of the node's pods is told: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix
    #[arg(long, value_name = "MODE")]
    pub(crate) detect_local_mode: Option<String>,
    /// The bridge of the node's pods, for BridgeInterface
    #[arg(long, value_name = "NAME")]
    pub(crate) pod_bridge_interface: Option<String>,
    /// How the names of the pods' interfaces begin, for InterfaceNamePrefix
    #[arg(long, value_name = "PREFIX")]
    pub(crate) pod_interface_name_prefix: Option<String>,
}

impl LocalTraffic {
    /// Makes the flags fields of the configuration; gives the names of those that were set.
    pub(crate) fn apply(&self, to: &mut Configuration) -> Vec<&'static str> {
        let mut set = Setter(Vec::new());
        set.to(&mut to.cluster_cidr, self.cluster_cidr.as_ref(), "cluster-cidr");
        set.to(&mut to.detect_local_mode, self.detect_local_mode.as_ref(), "detect-local-mode");
        let local = &mut to.detect_local;
        set.to(&mut local.bridge_interface, self.pod_bridge_interface.as_ref(), "pod-bridge-interface");
        let prefix = self.pod_interface_name_prefix.as_ref();
        set.to(&mut local.interface_name_prefix, prefix, "pod-interface-name-prefix");
        set.0
    }
}

#[derive(Debug, Default, Args)]
#[group(skip)]
pub(crate) struct Flags {
    /// Access to the API server; without it, and without --config, that of the pod this runs in
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The API server's URL, instead of the one in the kubeconfig
    #[arg(long, value_name = "URL")]
    pub(crate) master: Option<String>,
    /// A KubeProxyConfiguration file; beside it only --hostname-override and logging flags count
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The name of this host's Node object; otherwise its hostname
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname_override: Option<String>,
    /// What forwards in the kernel: nftables, iptables or ipvs
    #[arg(long, visible_alias = "mode", value_name = "MODE")]
    proxy_mode: Option<String>,
    #[command(flatten)]
    local_traffic: LocalTraffic,
    /// On which of the node's addresses node ports listen: CIDRs, or `primary`
    #[arg(long, alias = "node-port-addresses", value_name = "CIDR,...", value_delimiter = ',')]
    nodeport_addresses: Option<Vec<String>>,
    /// Masquerade everything sent to ClusterIPs
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    masquerade_all: Option<bool>,
    /// Which bit of the packet mark asks for masquerading, 0 to 31
    #[arg(long, alias = "iptables-masquerade-bit", value_name = "BIT")]
    nftables_masquerade_bit: Option<i32>,
    /// The node's own address, instead of those in its Node object
    #[arg(long, value_name = "IP")]
    bind_address: Option<String>,
    /// Where /healthz and /livez are served
    #[arg(long, value_name = "IP:PORT")]
    healthz_bind_address: Option<String>,
    /// Where /metrics, /proxyMode and /configz are served
    #[arg(long, value_name = "IP:PORT")]
    metrics_bind_address: Option<String>,
    /// Stop when an address cannot be had, instead of trying again
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    bind_address_hard_fail: Option<bool>,
    /// Tracked connections per core; 0 leaves the table's size alone
    #[arg(long, value_name = "COUNT")]
    conntrack_max_per_core: Option<i32>,
    /// Tracked connections at least, whatever the cores
    #[arg(long, value_name = "COUNT")]
    conntrack_min: Option<i32>,
    /// How long a silent TCP connection is remembered; 0s leaves it alone
    #[arg(long, value_name = "DURATION")]
    conntrack_tcp_timeout_established: Option<GoDuration>,
    /// The same in state CLOSE_WAIT
    #[arg(long, value_name = "DURATION")]
    conntrack_tcp_timeout_close_wait: Option<GoDuration>,
    /// Track TCP packets outside of the window too
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    conntrack_tcp_be_liberal: Option<bool>,
    /// How long an unanswered UDP flow is remembered
    #[arg(long, value_name = "DURATION")]
    conntrack_udp_timeout: Option<GoDuration>,
    /// How long an answered UDP flow is remembered
    #[arg(long, value_name = "DURATION")]
    conntrack_udp_timeout_stream: Option<GoDuration>,
    /// Mode ipvs: how endpoints are chosen, for Services that ask for nothing else: rr, wlc, mh and others
    #[arg(long, value_name = "NAME")]
    ipvs_scheduler: Option<String>,
    /// Mode ipvs: taken for kube-proxy's sake; virtual servers of others are left alone anyway
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    ipvs_exclude_cidrs: Option<Vec<String>>,
    /// Mode ipvs: answer for an address only on the link that has it
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipvs_strict_arp: Option<bool>,
    /// Mode ipvs: how long IPVS keeps its entry of a silent TCP connection; 0s leaves it alone
    #[arg(long, value_name = "DURATION")]
    ipvs_tcp_timeout: Option<GoDuration>,
    /// The same after the end of a connection; 0s means a second
    #[arg(long, value_name = "DURATION")]
    ipvs_tcpfin_timeout: Option<GoDuration>,
    /// The same for UDP; 0s leaves it alone
    #[arg(long, value_name = "DURATION")]
    ipvs_udp_timeout: Option<GoDuration>,
    /// How readily the kernel ends this process when memory runs out, -1000 to 1000
    #[arg(long, value_name = "SCORE", allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
    /// How often the kernel's rules are compared at most
    #[arg(long, aliases = ["iptables-sync-period", "ipvs-sync-period"], value_name = "DURATION")]
    nftables_sync_period: Option<GoDuration>,
    /// The least time between two commits; 0s, the default, commits each change at once
    #[arg(long, aliases = ["iptables-min-sync-period", "ipvs-min-sync-period"], value_name = "DURATION")]
    nftables_min_sync_period: Option<GoDuration>,
    /// Do what needs privileges beyond CAP_NET_ADMIN, such as sysctls, and stop
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) init_only: Option<bool>,
    /// Write the configuration with all defaults to a file and stop
    #[arg(long, value_name = "FILE")]
    pub(crate) write_config_to: Option<PathBuf>,
    /// The same as `portolan proxy cleanup --kube-proxy`
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) cleanup: Option<bool>,
    /// How much to log: 0 to 3 the usual, 4 to 7 details, more everything
    #[arg(short = 'v', long = "v", value_name = "LEVEL")]
    pub(crate) verbosity: Option<u64>,
    #[command(flatten)]
    ignored: Ignored,
}

/// Taken, so that a manifest written for kube-proxy starts, and named in a warning.
#[derive(Debug, Default, Args)]
#[group(skip)]
#[command(next_help_heading = None)]
struct Ignored {
    #[arg(long, hide = true)]
    feature_gates: Option<String>,
    #[arg(long, hide = true)]
    kube_api_content_type: Option<String>,
    #[arg(long, hide = true)]
    kube_api_burst: Option<String>,
    #[arg(long, hide = true)]
    kube_api_qps: Option<String>,
    #[arg(long, hide = true)]
    config_sync_period: Option<String>,
    #[arg(long, hide = true)]
    show_hidden_metrics_for_version: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    profiling: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    iptables_localhost_nodeports: Option<String>,
    #[arg(long, hide = true)]
    proxy_port_range: Option<String>,
    #[arg(long, hide = true)]
    healthz_port: Option<String>,
    #[arg(long, hide = true)]
    metrics_port: Option<String>,
    #[arg(long, hide = true)]
    vmodule: Option<String>,
    #[arg(long, hide = true)]
    logging_format: Option<String>,
    #[arg(long, hide = true)]
    log_flush_frequency: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    logtostderr: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    alsologtostderr: Option<String>,
}

impl Ignored {
    fn given(&self) -> Vec<&'static str> {
        let all = [
            ("feature-gates", &self.feature_gates),
            ("kube-api-content-type", &self.kube_api_content_type),
            ("kube-api-burst", &self.kube_api_burst),
            ("kube-api-qps", &self.kube_api_qps),
            ("config-sync-period", &self.config_sync_period),
            ("show-hidden-metrics-for-version", &self.show_hidden_metrics_for_version),
            ("profiling", &self.profiling),
            ("iptables-localhost-nodeports", &self.iptables_localhost_nodeports),
            ("proxy-port-range", &self.proxy_port_range),
            ("healthz-port", &self.healthz_port),
            ("metrics-port", &self.metrics_port),
            ("vmodule", &self.vmodule),
            ("logging-format", &self.logging_format),
            ("log-flush-frequency", &self.log_flush_frequency),
            ("logtostderr", &self.logtostderr),
            ("alsologtostderr", &self.alsologtostderr),
        ];
        all.into_iter().filter(|(_, value)| value.is_some()).map(|(name, _)| name).collect()
    }
}

impl Flags {
    /// The flags that were given and mean nothing here.
    pub(crate) fn meaningless(&self) -> Vec<&'static str> {
        let mut meaningless = self.ignored.given();
        if self.proxy_mode.as_deref().is_some_and(|mode| mode != "ipvs") {
            let mut of_ipvs = Setter(Vec::new());
            self.apply_ipvs(&mut Configuration::default(), &mut of_ipvs);
            meaningless.extend(of_ipvs.0);
        }
        meaningless
    }

    /// Makes the flags fields of the configuration; gives the names of those that were set.
    pub(crate) fn apply(&self, to: &mut Configuration) -> Vec<&'static str> {
        let mut set = Setter(Vec::new());
        let kubeconfig = self.kubeconfig.as_ref().map(|path| path.display().to_string());
        set.to(&mut to.client_connection.kubeconfig, kubeconfig.as_ref(), "kubeconfig");
        set.to(&mut to.mode, self.proxy_mode.as_ref(), "proxy-mode");
        set.0.extend(self.local_traffic.apply(to));
        set.to(&mut to.node_port_addresses, self.nodeport_addresses.as_ref(), "nodeport-addresses");
        set.to(&mut to.nftables.masquerade_all, self.masquerade_all.as_ref(), "masquerade-all");
        let bit = self.nftables_masquerade_bit.as_ref();
        set.to(&mut to.nftables.masquerade_bit, bit, "nftables-masquerade-bit");
        set.to(&mut to.bind_address, self.bind_address.as_ref(), "bind-address");
        set.to(&mut to.healthz_bind_address, self.healthz_bind_address.as_ref(), "healthz-bind-address");
        set.to(&mut to.metrics_bind_address, self.metrics_bind_address.as_ref(), "metrics-bind-address");
        set.to(
            &mut to.bind_address_hard_fail,
            self.bind_address_hard_fail.as_ref(),
            "bind-address-hard-fail",
        );
        set.to(&mut to.oom_score_adj, self.oom_score_adj.as_ref(), "oom-score-adj");
        set.to(&mut to.nftables.sync_period, self.nftables_sync_period.as_ref(), "nftables-sync-period");
        let min = self.nftables_min_sync_period.as_ref();
        set.to(&mut to.nftables.min_sync_period, min, "nftables-min-sync-period");
        self.apply_conntrack(to, &mut set);
        self.apply_ipvs(to, &mut set);
        // The same flags serve all modes; each mode has fields of its own for them.
        to.iptables.masquerade_all = to.nftables.masquerade_all;
        to.iptables.masquerade_bit = to.nftables.masquerade_bit;
        (to.iptables.sync_period, to.ipvs.sync_period) = (to.nftables.sync_period, to.nftables.sync_period);
        let min = to.nftables.min_sync_period;
        (to.iptables.min_sync_period, to.ipvs.min_sync_period) = (min, min);
        to.fill_in();
        set.0
    }

    fn apply_ipvs(&self, to: &mut Configuration, set: &mut Setter) {
        let to = &mut to.ipvs;
        set.to(&mut to.scheduler, self.ipvs_scheduler.as_ref(), "ipvs-scheduler");
        set.to(&mut to.exclude_cidrs, self.ipvs_exclude_cidrs.as_ref(), "ipvs-exclude-cidrs");
        set.to(&mut to.strict_arp, self.ipvs_strict_arp.as_ref(), "ipvs-strict-arp");
        set.to(&mut to.tcp_timeout, self.ipvs_tcp_timeout.as_ref(), "ipvs-tcp-timeout");
        set.to(&mut to.tcp_fin_timeout, self.ipvs_tcpfin_timeout.as_ref(), "ipvs-tcpfin-timeout");
        set.to(&mut to.udp_timeout, self.ipvs_udp_timeout.as_ref(), "ipvs-udp-timeout");
    }

    fn apply_conntrack(&self, to: &mut Configuration, set: &mut Setter) {
        let to = &mut to.conntrack;
        set.to(&mut to.max_per_core, self.conntrack_max_per_core.as_ref(), "conntrack-max-per-core");
        set.to(&mut to.min, self.conntrack_min.as_ref(), "conntrack-min");
        let established = self.conntrack_tcp_timeout_established.as_ref();
        set.to(&mut to.tcp_established_timeout, established, "conntrack-tcp-timeout-established");
        let close_wait = self.conntrack_tcp_timeout_close_wait.as_ref();
        set.to(&mut to.tcp_close_wait_timeout, close_wait, "conntrack-tcp-timeout-close-wait");
        set.to(&mut to.tcp_be_liberal, self.conntrack_tcp_be_liberal.as_ref(), "conntrack-tcp-be-liberal");
        set.to(&mut to.udp_timeout, self.conntrack_udp_timeout.as_ref(), "conntrack-udp-timeout");
        let stream = self.conntrack_udp_timeout_stream.as_ref();
        set.to(&mut to.udp_stream_timeout, stream, "conntrack-udp-timeout-stream");
    }
}

struct Setter(Vec<&'static str>);

impl Setter {
    fn to<T: Clone>(&mut self, field: &mut T, value: Option<&T>, flag: &'static str) {
        if let Some(value) = value {
            field.clone_from(value);
            self.0.push(flag);
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn parse(line: &str) -> Flags {
        Line::try_parse_from(std::iter::once("proxy").chain(line.split_whitespace())).unwrap().flags
    }

    #[test]
    fn flags_are_fields() {
        let mut configuration = Configuration::default();
        let flags = parse(
            "--kubeconfig=/k --proxy-mode=nftables --cluster-cidr 10.244.0.0/16 --masquerade-all \
             --iptables-masquerade-bit=15 --nodeport-addresses=10.0.0.0/8,192.0.2.0/24 --oom-score-adj=-998 \
             --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=1h --bind-address-hard-fail=false \
             --metrics-bind-address=0.0.0.0:10249 --iptables-min-sync-period=2s --v=2",
        );
        let set = flags.apply(&mut configuration);
        assert_eq!(set.len(), 12, "{set:?}");
        assert_eq!(configuration.client_connection.kubeconfig, "/k");
        assert_eq!(configuration.nftables.masquerade_bit, 15);
        assert!(configuration.nftables.masquerade_all);
        assert_eq!(configuration.node_port_addresses, ["10.0.0.0/8", "192.0.2.0/24"]);
        assert_eq!((configuration.oom_score_adj, configuration.conntrack.max_per_core), (-998, 0));
        assert_eq!(configuration.conntrack.tcp_established_timeout.to_string(), "1h0m0s");
        assert_eq!((flags.verbosity, flags.meaningless().len()), (Some(2), 0));
    }

    #[test]
    fn mode_has_two_names_and_meaningless_flags_are_told() {
        let mut configuration = Configuration::default();
        let flags =
            parse("--mode=ipvs --feature-gates=A=true --profiling --ipvs-strict-arp=true --logtostderr=true");
        flags.apply(&mut configuration);
        assert_eq!(configuration.mode, "ipvs");
        assert_eq!(flags.meaningless(), ["feature-gates", "profiling", "logtostderr"]);
        assert!(configuration.ipvs.strict_arp);
        let flags = parse("--mode=nftables --ipvs-scheduler=wlc --ipvs-udp-timeout=10s");
        assert_eq!(flags.meaningless(), ["ipvs-scheduler", "ipvs-udp-timeout"]);
    }
}

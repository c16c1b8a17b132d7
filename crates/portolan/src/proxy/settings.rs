//! What a configuration means: every field parsed and checked once, every problem said at once.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use portolan_api::suggest;
use portolan_forward::Algorithm;
use portolan_netlink::ipvs::Timeouts;
use portolan_proxy::{Config, DetectLocal, Ipvs, Mode, NodePortAddresses};

use super::configuration::{self, Configuration};
use super::duration::GoDuration;
use super::sysctls::Wanted;

const DETECT_LOCAL_MODES: [&str; 4] = ["ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"];
const PRIMARY: &str = "primary";

/// Ready to run.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) proxy: Config,
    pub(crate) conntrack: Wanted,
    pub(crate) oom_score_adj: i32,
    pub(crate) kubeconfig: Option<PathBuf>,
}

impl Settings {
    /// `hostname` is the host's own, used where none is given.
    pub(crate) fn of(configuration: &Configuration, hostname: &str) -> Result<Self, Vec<String>> {
        let mut check = Check::default();
        check.ranges(configuration);
        let mut proxy = Config::new(node_name(configuration, hostname));
        proxy.mode = check.mode(&configuration.mode);
        proxy.ipvs = check.ipvs(&configuration.ipvs);
        proxy.detect_local = check.detect_local(configuration);
        proxy.cluster_cidrs = check.cluster_cidrs(&configuration.cluster_cidr);
        proxy.nodeport_addresses = check.node_port_addresses(&configuration.node_port_addresses);
        let of_mode = OfMode::new(configuration, proxy.mode);
        proxy.masquerade_all = of_mode.masquerade_all;
        proxy.masquerade_bit = u8::try_from(of_mode.masquerade_bit).unwrap_or_default();
        proxy.healthz_address = check.socket("healthzBindAddress", &configuration.healthz_bind_address);
        proxy.metrics_address = check.socket("metricsBindAddress", &configuration.metrics_bind_address);
        proxy.bind_address_hard_fail = configuration.bind_address_hard_fail;
        proxy.node_addresses = check.node_addresses(&configuration.bind_address);
        proxy.min_sync_period = of_mode.min_sync_period.positive();
        proxy.verify_period = of_mode.sync_period.positive();
        proxy.shown = serde_json::to_string(configuration).ok().map(Into::into);
        if !check.problems.is_empty() {
            return Err(check.problems);
        }
        let kubeconfig = &configuration.client_connection.kubeconfig;
        Ok(Self {
            proxy,
            conntrack: Wanted::of(&configuration.conntrack),
            oom_score_adj: configuration.oom_score_adj,
            kubeconfig: (!kubeconfig.is_empty()).then(|| kubeconfig.into()),
        })
    }
}

/// What each mode has a field of its own for.
struct OfMode {
    masquerade_all: bool,
    masquerade_bit: i32,
    sync_period: GoDuration,
    min_sync_period: GoDuration,
}

impl OfMode {
    /// As in kube-proxy, mode ipvs masquerades as `iptables` says.
    fn new(configuration: &Configuration, mode: Mode) -> Self {
        let Configuration { nftables, iptables, ipvs, .. } = configuration;
        let (masquerade_all, masquerade_bit) = match mode {
            Mode::Nftables => (nftables.masquerade_all, nftables.masquerade_bit),
            Mode::Iptables | Mode::Ipvs => (iptables.masquerade_all, iptables.masquerade_bit),
        };
        let (sync_period, min_sync_period) = match mode {
            Mode::Nftables => (nftables.sync_period, nftables.min_sync_period),
            Mode::Iptables => (iptables.sync_period, iptables.min_sync_period),
            Mode::Ipvs => (ipvs.sync_period, ipvs.min_sync_period),
        };
        Self { masquerade_all, masquerade_bit, sync_period, min_sync_period }
    }
}

/// As kubelet names the Node: lower case, no blanks around.
fn node_name(configuration: &Configuration, hostname: &str) -> String {
    let asked = configuration.hostname_override.trim().to_lowercase();
    if asked.is_empty() { hostname.to_owned() } else { asked }
}

#[derive(Default)]
struct Check {
    problems: Vec<String>,
}

impl Check {
    fn wrong(&mut self, path: &str, value: impl std::fmt::Debug, why: &str) {
        self.problems.push(format!("{path}: Invalid value: {value:?}: {why}"));
    }

    fn parsed<T: FromStr>(&mut self, path: &str, text: &str, what: &str) -> Option<T> {
        let parsed = text.trim().parse().ok();
        if parsed.is_none() {
            self.wrong(path, text, what);
        }
        parsed
    }

    fn ranges(&mut self, configuration: &Configuration) {
        let (nft, conntrack) = (&configuration.nftables, &configuration.conntrack);
        let positive = [
            ("nftables.syncPeriod", nft.sync_period),
            ("iptables.syncPeriod", configuration.iptables.sync_period),
            ("ipvs.syncPeriod", configuration.ipvs.sync_period),
            ("configSyncPeriod", configuration.config_sync_period),
        ];
        for (path, value) in positive {
            if value <= GoDuration::ZERO {
                self.wrong(path, value.to_string(), "must be greater than 0");
            }
        }
        let not_negative = [
            ("nftables.minSyncPeriod", nft.min_sync_period),
            ("conntrack.tcpEstablishedTimeout", conntrack.tcp_established_timeout),
            ("conntrack.tcpCloseWaitTimeout", conntrack.tcp_close_wait_timeout),
            ("conntrack.udpTimeout", conntrack.udp_timeout),
            ("conntrack.udpStreamTimeout", conntrack.udp_stream_timeout),
        ];
        for (path, value) in not_negative {
            if value.is_negative() {
                self.wrong(path, value.to_string(), "must be greater than or equal to 0");
            }
        }
        if nft.min_sync_period > nft.sync_period {
            let why = "must be greater than or equal to nftables.minSyncPeriod";
            self.wrong("nftables.syncPeriod", nft.sync_period.to_string(), why);
        }
        for (path, value) in
            [("conntrack.maxPerCore", conntrack.max_per_core), ("conntrack.min", conntrack.min)]
        {
            if value < 0 {
                self.wrong(path, value, "must be greater than or equal to 0");
            }
        }
        for (path, bit) in [
            ("nftables.masqueradeBit", nft.masquerade_bit),
            ("iptables.masqueradeBit", configuration.iptables.masquerade_bit),
        ] {
            if !(0..=31).contains(&bit) {
                self.wrong(path, bit, "must be within the range [0, 31]");
            }
        }
        if !(-1000..=1000).contains(&configuration.oom_score_adj) {
            self.wrong("oomScoreAdj", configuration.oom_score_adj, "must be within the range [-1000, 1000]");
        }
    }

    fn mode(&mut self, text: &str) -> Mode {
        if text.is_empty() {
            return Mode::default();
        }
        text.parse().unwrap_or_else(|()| {
            let modes = Mode::ALL.map(Mode::as_str);
            let near = suggest::near_value(text, &modes).map(suggest::did_you_mean);
            self.wrong("mode", text, &near.unwrap_or_else(|| format!("must be one of {}", modes.join(", "))));
            Mode::default()
        })
    }

    fn ipvs(&mut self, given: &configuration::Ipvs) -> Ipvs {
        let of_ipvs = |algorithm: &Algorithm| algorithm.scheduler().is_some();
        let scheduler = match given.scheduler.as_str() {
            "" => Algorithm::RoundRobin,
            text => text.parse().ok().filter(of_ipvs).unwrap_or_else(|| {
                let names: Vec<_> = Algorithm::ALL.into_iter().filter_map(Algorithm::scheduler).collect();
                self.wrong("ipvs.scheduler", text, &format!("must be one of {}", names.join(", ")));
                Algorithm::RoundRobin
            }),
        };
        for (index, range) in given.exclude_cidrs.iter().enumerate() {
            self.parsed::<IpNet>(&format!("ipvs.excludeCIDRs[{index}]"), range, "must be a CIDR");
        }
        let mut seconds = |path: &str, value: GoDuration| {
            if value.is_negative() {
                self.wrong(path, value.to_string(), "must be greater than or equal to 0");
            }
            u32::try_from(value.positive().as_secs()).unwrap_or(u32::MAX)
        };
        let timeouts = Timeouts {
            tcp: seconds("ipvs.tcpTimeout", given.tcp_timeout),
            tcp_fin: seconds("ipvs.tcpFinTimeout", given.tcp_fin_timeout),
            udp: seconds("ipvs.udpTimeout", given.udp_timeout),
        };
        Ipvs { scheduler, strict_arp: given.strict_arp, timeouts }
    }

    fn detect_local(&mut self, configuration: &Configuration) -> DetectLocal {
        let wanted = &configuration.detect_local;
        match configuration.detect_local_mode.as_str() {
            "ClusterCIDR" => DetectLocal::ClusterCidr,
            "NodeCIDR" => DetectLocal::NodeCidr,
            "BridgeInterface" => DetectLocal::BridgeInterface(
                self.interface("detectLocal.bridgeInterface", &wanted.bridge_interface),
            ),
            "InterfaceNamePrefix" => DetectLocal::InterfaceNamePrefix(
                self.interface("detectLocal.interfaceNamePrefix", &wanted.interface_name_prefix),
            ),
            other => {
                let near = suggest::near_value(other, &DETECT_LOCAL_MODES).map(suggest::did_you_mean);
                let all = || format!("must be one of {}", DETECT_LOCAL_MODES.join(", "));
                self.wrong("detectLocalMode", other, &near.unwrap_or_else(all));
                DetectLocal::Nothing
            }
        }
    }

    /// At most 15 bytes, as the kernel has it.
    fn interface(&mut self, path: &str, name: &str) -> String {
        if name.is_empty() {
            self.problems.push(format!("{path}: Required value: this detectLocalMode needs it"));
        } else if name.len() > 15 || name.contains(['/', ' ', '*']) {
            self.wrong(path, name, "must be the name of an interface, without a wildcard");
        }
        name.to_owned()
    }

    /// One range, or one of each family.
    fn cluster_cidrs(&mut self, text: &str) -> Vec<IpNet> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let cidrs: Vec<IpNet> = parts
            .filter_map(|part| self.parsed("clusterCIDR", part, "must be a CIDR such as 10.244.0.0/16"))
            .collect();
        let of_v4 = cidrs.iter().filter(|cidr| cidr.addr().is_ipv4()).count();
        if of_v4 > 1 || cidrs.len() - of_v4 > 1 {
            self.wrong("clusterCIDR", text, "must be one range, or one of each family");
        }
        cidrs
    }

    fn node_port_addresses(&mut self, texts: &[String]) -> NodePortAddresses {
        if texts.is_empty() || texts == [PRIMARY] {
            return NodePortAddresses::Primary;
        }
        let mut cidrs = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let path = format!("nodePortAddresses[{index}]");
            if text == PRIMARY {
                self.wrong(&path, text, "cannot stand beside CIDRs");
            } else {
                cidrs.extend(self.parsed::<IpNet>(
                    &path,
                    text,
                    "must be a CIDR such as 192.0.2.0/24, or primary alone",
                ));
            }
        }
        NodePortAddresses::Cidrs(cidrs)
    }

    fn socket(&mut self, path: &str, text: &str) -> Option<SocketAddr> {
        self.parsed(path, text, "must be an address and a port such as 0.0.0.0:10256")
    }

    /// An address to bind to is the node's own, unless it stands for all.
    fn node_addresses(&mut self, text: &str) -> Vec<IpAddr> {
        let address: Option<IpAddr> = self.parsed("bindAddress", text, "must be an IP address");
        address.into_iter().filter(|address| !address.is_unspecified()).collect()
    }
}

/// The level of our log that comes nearest to a verbosity of Kubernetes'.
pub(crate) fn log_level(verbosity: u64) -> &'static str {
    match verbosity {
        0..=3 => "info",
        4..=7 => "debug",
        _ => "trace",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings(change: impl FnOnce(&mut Configuration)) -> Result<Settings, Vec<String>> {
        let mut configuration = Configuration::default();
        change(&mut configuration);
        Settings::of(&configuration, "host")
    }

    #[test]
    fn defaults_are_kube_proxys() {
        let settings = settings(|_| {}).unwrap();
        let proxy = &settings.proxy;
        assert_eq!(proxy.node_name, "host");
        assert_eq!(proxy.nodeport_addresses, NodePortAddresses::Primary);
        assert_eq!(proxy.healthz_address, Some("0.0.0.0:10256".parse().unwrap()));
        assert_eq!(proxy.metrics_address, Some("127.0.0.1:10249".parse().unwrap()));
        assert_eq!((proxy.masquerade_bit, proxy.verify_period), (14, Duration::from_secs(30)));
        assert_eq!((settings.oom_score_adj, settings.kubeconfig), (-999, None));
        assert!(proxy.shown.as_ref().unwrap().contains("\"syncPeriod\":\"30s\""));
    }

    #[test]
    fn fields_become_settings() {
        let settings = settings(|c| {
            c.hostname_override = " Node-1 ".into();
            c.cluster_cidr = "10.244.0.0/16, fd00::/56".into();
            c.detect_local_mode = "InterfaceNamePrefix".into();
            c.detect_local.interface_name_prefix = "veth".into();
            c.node_port_addresses = vec!["192.0.2.0/24".into()];
            c.bind_address = "192.0.2.1".into();
            c.client_connection.kubeconfig = "/k".into();
        })
        .unwrap();
        let proxy = settings.proxy;
        assert_eq!(proxy.node_name, "node-1");
        assert_eq!(proxy.cluster_cidrs.len(), 2);
        assert_eq!(proxy.detect_local, DetectLocal::InterfaceNamePrefix("veth".into()));
        assert_eq!(proxy.nodeport_addresses, NodePortAddresses::Cidrs(vec!["192.0.2.0/24".parse().unwrap()]));
        assert_eq!(proxy.node_addresses, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(settings.kubeconfig, Some("/k".into()));
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let problems = settings(|c| {
            c.mode = "kernelspace".into();
            c.detect_local_mode = "ClusterCidrs".into();
            c.cluster_cidr = "10.0.0.0/8,10.1.0.0/16".into();
            c.node_port_addresses = vec!["primary".into(), "x".into()];
            c.healthz_bind_address = "10256".into();
            c.bind_address = "host".into();
            c.oom_score_adj = -1001;
            c.nftables.masquerade_bit = 32;
            c.nftables.sync_period = GoDuration::seconds(1);
            c.nftables.min_sync_period = GoDuration::seconds(2);
            c.conntrack.min = -1;
            c.conntrack.udp_timeout = GoDuration::seconds(-1);
            c.config_sync_period = GoDuration::seconds(-1);
        })
        .unwrap_err();
        for expected in [
            "mode: Invalid value: \"kernelspace\": must be one of nftables, iptables, ipvs",
            "detectLocalMode: Invalid value: \"ClusterCidrs\": did you mean \"ClusterCIDR\"?",
            "clusterCIDR: Invalid value: \"10.0.0.0/8,10.1.0.0/16\"",
            "nodePortAddresses[0]: Invalid value: \"primary\"",
            "nodePortAddresses[1]: Invalid value: \"x\"",
            "healthzBindAddress: Invalid value: \"10256\"",
            "bindAddress: Invalid value: \"host\"",
            "oomScoreAdj: Invalid value: -1001: must be within the range [-1000, 1000]",
            "nftables.masqueradeBit: Invalid value: 32: must be within the range [0, 31]",
            "nftables.syncPeriod: Invalid value: \"1s\": must be greater than or equal to nftables.minSyncPeriod",
            "conntrack.min: Invalid value: -1",
            "conntrack.udpTimeout: Invalid value: \"-1s\"",
            "configSyncPeriod: Invalid value: \"-1s\": must be greater than 0",
        ] {
            assert!(problems.iter().any(|p| p.starts_with(expected)), "{expected}\nis not in {problems:#?}");
        }
        assert_eq!(problems.len(), 13, "{problems:#?}");
    }

    #[test]
    fn interfaces_are_needed_where_the_mode_needs_them() {
        let problems = settings(|c| c.detect_local_mode = "BridgeInterface".into()).unwrap_err();
        assert!(problems[0].starts_with("detectLocal.bridgeInterface: Required value"), "{problems:?}");
        let problems = settings(|c| c.mode = "nftable".into()).unwrap_err();
        assert!(problems[0].contains("did you mean \"nftables\"?"), "{problems:?}");
    }
}

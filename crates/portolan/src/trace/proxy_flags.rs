//! How the proxy of the node is configured, which the API does not say: its own flags, or its configuration file.

#![allow(clippy::doc_markdown, reason = "these comments are what --help prints")]

use std::path::PathBuf;

use clap::Args;
use portolan_proxy::Config;

use crate::proxy::{self, LocalTraffic};

/// The default of `portolan up`.
const CLUSTER_CIDR: &str = "10.244.0.0/16";

/// Named as the proxy's own, so that its command line can be copied.
#[derive(Debug, Default, Args)]
#[group(skip)]
#[command(next_help_heading = "How the proxy is configured")]
pub(crate) struct ProxyFlags {
    /// The proxy's KubeProxyConfiguration file; the flags below count more
    #[arg(long, value_name = "FILE")]
    proxy_config: Option<PathBuf>,
    #[command(flatten)]
    local_traffic: LocalTraffic,
    /// On which of the node's addresses node ports listen: CIDRs, or `primary`
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',')]
    nodeport_addresses: Option<Vec<String>>,
    /// The proxy masquerades everything
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    masquerade_all: Option<bool>,
}

impl ProxyFlags {
    /// Checked as the proxy itself checks it. The node is named later.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        let mut configuration = match &self.proxy_config {
            Some(path) => proxy::file(path)?,
            None => proxy::Configuration { cluster_cidr: CLUSTER_CIDR.into(), ..Default::default() },
        };
        self.local_traffic.apply(&mut configuration);
        if let Some(addresses) = &self.nodeport_addresses {
            configuration.node_port_addresses.clone_from(addresses);
        }
        if let Some(all) = self.masquerade_all {
            configuration.nftables.masquerade_all = all;
        }
        proxy::meant(&configuration)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use portolan_proxy::DetectLocal;

    use super::*;

    fn told_by(mode: &str) -> LocalTraffic {
        LocalTraffic { detect_local_mode: Some(mode.into()), ..LocalTraffic::default() }
    }

    #[test]
    fn the_file_counts_and_flags_count_more() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
                    detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: cni0}\n\
                    clusterCIDR: 10.1.0.0/16\nnftables: {masqueradeAll: true}\n";
        file.write_all(text.as_bytes()).unwrap();
        let flags = ProxyFlags { proxy_config: Some(file.path().into()), ..ProxyFlags::default() };
        let config = flags.config().unwrap();
        assert_eq!(config.detect_local, DetectLocal::BridgeInterface("cni0".into()));
        assert_eq!(config.cluster_cidrs, ["10.1.0.0/16".parse().unwrap()]);
        assert!(config.masquerade_all);
        let local_traffic = told_by("NodeCIDR");
        let flags = ProxyFlags { local_traffic, masquerade_all: Some(false), ..flags };
        let config = flags.config().unwrap();
        assert_eq!((config.detect_local, config.masquerade_all), (DetectLocal::NodeCidr, false));
    }

    #[test]
    fn without_a_word_it_is_as_portolan_up_has_it_and_nonsense_is_refused() {
        let config = ProxyFlags::default().config().unwrap();
        assert_eq!(config.cluster_cidrs, [CLUSTER_CIDR.parse().unwrap()]);
        let flags = ProxyFlags { local_traffic: told_by("BridgeInterface"), ..ProxyFlags::default() };
        let error = flags.config().unwrap_err().to_string();
        assert!(error.contains("detectLocal.bridgeInterface: Required value"), "{error}");
    }
}

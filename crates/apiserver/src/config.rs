//! What the administrator chooses about an API server, and why it may not start.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;

use crate::authn::User;
use crate::tokens::TokenKeys;

/// kubeadm's choice: the name by which pods reach the server.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Settings of one API server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Service address ranges, the primary family first; one or two, of different families.
    pub service_cidrs: Vec<IpNet>,
    /// Node ports that Services may have.
    pub node_ports: RangeInclusive<u16>,
    /// The address at which pods and nodes reach this server: the endpoint of the Service `kubernetes`.
    pub advertise_address: IpAddr,
    /// The port of that endpoint.
    pub secure_port: u16,
    /// Bearer tokens and their owners.
    pub tokens: HashMap<String, User>,
    /// How this server shows itself to node agents, see [`crate::tls::node_client_config`]; without it, logs and sessions
    /// of pods are refused.
    pub node_tls: Option<Arc<rustls::ClientConfig>>,
    /// Keys of service account tokens; without, there are none.
    pub token_keys: Option<Arc<TokenKeys>>,
    /// Who signs them, as the tokens say.
    pub issuer: String,
    /// The certificate of the authority, PEM, for pods; may be empty.
    pub root_ca: String,
}

impl Config {
    /// Kubernetes' usual ranges, for a server reached at `advertise_address`.
    pub fn new(advertise_address: IpAddr, secure_port: u16) -> Self {
        let range = IpNet::new_assert(IpAddr::from([10, 96, 0, 0]), 12);
        Self {
            service_cidrs: vec![range],
            node_ports: 30000..=32767,
            advertise_address,
            secure_port,
            tokens: HashMap::new(),
            node_tls: None,
            token_keys: None,
            issuer: ISSUER.into(),
            root_ca: String::new(),
        }
    }

    /// First address of the primary range: the ClusterIP of the Service `kubernetes`.
    pub fn first_service_address(&self) -> Option<IpAddr> {
        match self.service_cidrs.first()?.network() {
            IpAddr::V4(ip) => Some(IpAddr::from(u32::from(ip).checked_add(1)?.to_be_bytes())),
            IpAddr::V6(ip) => Some(IpAddr::from(u128::from(ip).checked_add(1)?.to_be_bytes())),
        }
    }
}

/// Why an API server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings make no sense.
    #[error("{0}")]
    Config(String),
    /// The store does not answer.
    #[error("store: {0}")]
    Store(#[from] portolan_store::Error),
    /// One of the first objects could not be made.
    #[error("{object} could not be created: {message}")]
    Bootstrap {
        /// Which object.
        object: String,
        /// What the API said.
        message: String,
    },
}

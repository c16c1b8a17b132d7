//! What stands before IPVS: another data plane, which finds the frontend, decides by origin, refuses, drops and
//! masquerades as it always does. Its pools have one endpoint each, the pool's virtual server.

use portolan_forward::Endpoint;
use portolan_netlink::nft::NfTables;

use crate::nftables::{Nftables, object};
use crate::{DataPlane, Objects};

/// A data plane that can leave the choice of the endpoint to IPVS.
pub trait Front: DataPlane {
    /// What it takes for an endpoint of this node that reaches itself to be masqueraded (MASQ-2), though another one
    /// chooses it.
    fn hairpin(&self, endpoint: &Endpoint, out: &mut Objects<Self::Key, Self::Value>);
}

impl<N: NfTables> Front for Nftables<N> {
    fn hairpin(&self, endpoint: &Endpoint, out: &mut Objects<Self::Key, Self::Value>) {
        out.extend([object::hairpin(endpoint.address)]);
    }
}

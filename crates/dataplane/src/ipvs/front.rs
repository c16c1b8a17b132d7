//! What stands before IPVS: another data plane, which finds the frontend, decides by origin, refuses, drops and
//! masquerades as it always does. Its pools have one endpoint each, the pool's virtual server.

use portolan_forward::{Endpoint, NodeView};
use portolan_netlink::nft::NfTables;

use crate::iptables::{self, Iptables};
use crate::nftables::layout::SetId;
use crate::nftables::{Nftables, object};
use crate::{DataPlane, Objects};

/// A data plane that can leave the choice of the endpoint to IPVS.
pub trait Front: DataPlane {
    /// What it takes for an endpoint of this node that reaches itself to be masqueraded (MASQ-2), though another one
    /// chooses it.
    fn hairpin(&self, node: &NodeView, endpoint: &Endpoint, out: &mut Objects<Self::Key, Self::Value>);

    /// Whether an object is there for that: it must stay until IPVS does not choose the endpoint any more.
    fn is_for_hairpin(&self, key: &Self::Key) -> bool;
}

impl<N: NfTables> Front for Nftables<N> {
    fn hairpin(&self, _: &NodeView, endpoint: &Endpoint, out: &mut Objects<Self::Key, Self::Value>) {
        out.extend([object::hairpin(endpoint.address)]);
    }

    fn is_for_hairpin(&self, key: &Self::Key) -> bool {
        matches!(key, object::Key::Element(_, SetId::Hairpins, _))
    }
}

impl<K: iptables::Kernel> Front for Iptables<K> {
    fn hairpin(&self, node: &NodeView, endpoint: &Endpoint, out: &mut Objects<Self::Key, Self::Value>) {
        self.hairpin_objects(node, endpoint, out);
    }

    fn is_for_hairpin(&self, key: &Self::Key) -> bool {
        iptables::is_for_hairpin(key)
    }
}

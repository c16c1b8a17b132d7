//! What a data plane's objects are for, in words for people. Nothing here decides anything.

use portolan_forward::{Family, ServiceTable};

use crate::{Change, DataPlane, Iptables, Nftables, Objects, iptables, nftables};

/// A data plane that can tell people of its objects.
pub trait Words: DataPlane {
    fn family(key: &Self::Key) -> Family;

    /// Whether nothing of ours is there when this is missing.
    fn is_ground(key: &Self::Key) -> bool;

    /// Whether the change is about what the Service needs, or about something that should not be there and acts as the
    /// Service's. `wanted`: every object that the Service and the node need.
    fn concerns(
        change: &Change<Self::Key, Self::Value>,
        wanted: &Objects<Self::Key, Self::Value>,
        service: Option<&ServiceTable>,
    ) -> bool;

    /// Whether the object follows from the proxy's settings rather than from a Service.
    fn depends_on_settings(key: &Self::Key) -> bool;

    /// What the object is, with what it holds.
    fn describe(key: &Self::Key, value: Option<&Self::Value>) -> String;
}

impl<N: portolan_netlink::nft::NfTables> Words for Nftables<N> {
    fn family(key: &nftables::Key) -> Family {
        key.family()
    }

    fn is_ground(key: &nftables::Key) -> bool {
        matches!(key, nftables::Key::Table(_))
    }

    fn concerns(
        change: &Change<nftables::Key, nftables::Object>,
        wanted: &nftables::Objects,
        service: Option<&ServiceTable>,
    ) -> bool {
        nftables::words::concerns(change, wanted, service)
    }

    fn depends_on_settings(key: &nftables::Key) -> bool {
        nftables::words::depends_on_settings(key)
    }

    fn describe(key: &nftables::Key, value: Option<&nftables::Object>) -> String {
        nftables::words::describe(key, value)
    }
}

impl<K: iptables::Kernel> Words for Iptables<K> {
    fn family(key: &iptables::Key) -> Family {
        key.family()
    }

    fn is_ground(key: &iptables::Key) -> bool {
        use iptables::layout::{SERVICES, Table};
        matches!(key, iptables::Key::Chain(_, Table::Nat, name) if name.as_str() == SERVICES)
    }

    fn concerns(
        change: &Change<iptables::Key, iptables::Object>,
        wanted: &iptables::Objects,
        service: Option<&ServiceTable>,
    ) -> bool {
        iptables::words::concerns(change, wanted, service)
    }

    fn depends_on_settings(key: &iptables::Key) -> bool {
        iptables::words::depends_on_settings(key)
    }

    fn describe(key: &iptables::Key, value: Option<&iptables::Object>) -> String {
        iptables::words::describe(key, value)
    }
}

//! Every name we own in the kernel, and how sets, keys and registers are laid out.
//!
//! Two tables, `ip portolan` and `ip6 portolan`, alike in everything but the length of an address. Chains beside the
//! fixed ones here are made by [`super::class`], all of them regular chains of these two tables.

use std::sync::Arc;

use portolan_forward::Family;
use portolan_netlink::nft::{
    self, Base, Chain, ChainKind, FieldType, Hook, KeyType, Policy, Reg, Set, SetFlags, Table, priority,
};

pub const TABLE: &str = "portolan";
pub const IPVS_TABLE: &str = "portolan-ipvs";
/// Never there when a transaction is over.
pub const PROBE_TABLE: &str = "portolan-probe";

/// Called by hooks. All are of type nat, so that only the first packet of a connection passes them.
pub const PREROUTING: &str = "prerouting";
pub const OUTPUT: &str = "output";
pub const POSTROUTING: &str = "postrouting";
/// Where every new connection is looked up.
pub const SERVICES: &str = "services";
/// Rejects, so that the client notices at once. (`reject` itself is a word of the `nft` grammar.)
pub const REFUSE: &str = "refuse";

pub const FIXED_CHAINS: [&str; 5] = [PREROUTING, OUTPUT, POSTROUTING, SERVICES, REFUSE];

/// Clients remembered for session affinity, per family. Further ones are served without being remembered.
pub const AFFINITY_CLIENTS_MAX: u32 = 1 << 18;

/// Set in a backend's index for the endpoints of policy Local, so that both pools share a map.
pub const LOCAL_INDEX: u32 = 1 << 31;

/// The sets and maps of a table, in the order in which they are filled; they are emptied in the opposite one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetId {
    /// Source ranges of local traffic.
    PodCidrs,
    /// Ranges that ClusterIPs come from.
    ServiceCidrs,
    /// Addresses on which node ports listen, unless all do.
    NodeportIps,
    /// pool . index -> endpoint address . port
    Backends,
    /// The same for pools with session affinity: pool . index -> 0 . endpoint address . port. The zero keeps a register
    /// free before the address; see [`Registers`].
    AffinityBackends,
    /// endpoint address . port . pool: who may still be given to a client that remembers it.
    AffinityMembers,
    AffinityLocalMembers,
    /// pool . client -> 0 . endpoint address . port, written by packets.
    Affinity,
    /// frontend . source range: who may use a guarded frontend.
    Sources,
    /// (address . address) of local endpoints: a connection from one to itself.
    Hairpins,
    /// Every ClusterIP.
    ClusterIps,
    /// class number -> what to do
    Classes,
    /// address . protocol . port -> class number . pool
    Frontends,
    /// protocol . port -> class number . pool
    Nodeports,
}

impl SetId {
    pub const ALL: [Self; 14] = [
        Self::PodCidrs,
        Self::ServiceCidrs,
        Self::NodeportIps,
        Self::Backends,
        Self::AffinityBackends,
        Self::AffinityMembers,
        Self::AffinityLocalMembers,
        Self::Affinity,
        Self::Sources,
        Self::Hairpins,
        Self::ClusterIps,
        Self::Classes,
        Self::Frontends,
        Self::Nodeports,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::PodCidrs => "pod-cidrs",
            Self::ServiceCidrs => "service-cidrs",
            Self::NodeportIps => "nodeport-ips",
            Self::Backends => "backends",
            Self::AffinityBackends => "affinity-backends",
            Self::AffinityMembers => "affinity-members",
            Self::AffinityLocalMembers => "affinity-local-members",
            Self::Affinity => "affinity",
            Self::Sources => "sources",
            Self::Hairpins => "hairpins",
            Self::ClusterIps => "cluster-ips",
            Self::Classes => "classes",
            Self::Frontends => "frontends",
            Self::Nodeports => "nodeports",
        }
    }

    /// Filled by packets, not by us.
    pub const fn is_dynamic(self) -> bool {
        matches!(self, Self::Affinity)
    }

    pub fn spec(self, family: Family) -> Set {
        use FieldType::{InetProto, InetService, Mark};
        let addr = address_type(family);
        let table = &table(family);
        let name = self.name();
        match self {
            Self::PodCidrs | Self::ServiceCidrs => Set::new(table, name, addr).with_interval(),
            Self::NodeportIps | Self::ClusterIps => Set::new(table, name, addr),
            Self::Backends => {
                Set::map(table, name, [addr, InetProto, InetService, Mark], [addr, InetService])
            }
            Self::AffinityBackends => {
                Set::map(table, name, [addr, InetProto, InetService, Mark], [Mark, addr, InetService])
            }
            Self::AffinityMembers | Self::AffinityLocalMembers => {
                Set::new(table, name, [addr, InetService, addr, InetProto, InetService])
            }
            Self::Affinity => {
                let mut set =
                    Set::map(table, name, [addr, InetProto, InetService, addr], [Mark, addr, InetService]);
                set.flags = SetFlags { timeout: true, dynamic: true, ..SetFlags::default() };
                set.with_size(AFFINITY_CLIENTS_MAX)
            }
            Self::Sources => Set::new(table, name, [addr, InetProto, InetService, addr]).with_interval(),
            Self::Hairpins => Set::new(table, name, [addr, addr]),
            Self::Classes => Set::vmap(table, name, Mark),
            Self::Frontends => {
                Set::map(table, name, [addr, InetProto, InetService], [Mark, addr, InetProto, InetService])
            }
            Self::Nodeports => {
                Set::map(table, name, [InetProto, InetService], [Mark, addr, InetProto, InetService])
            }
        }
    }
}

fn address_type(family: Family) -> FieldType {
    match family {
        Family::V4 => FieldType::Ipv4Addr,
        Family::V6 => FieldType::Ipv6Addr,
    }
}

pub fn nft_family(family: Family) -> nft::Family {
    match family {
        Family::V4 => nft::Family::Ip,
        Family::V6 => nft::Family::Ip6,
    }
}

pub fn table(family: Family) -> Table {
    static NAME: std::sync::LazyLock<Arc<str>> = std::sync::LazyLock::new(|| TABLE.into());
    Table::new(nft_family(family), NAME.clone())
}

/// Which tables a data plane writes: two of them may be at work side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Place {
    /// [`TABLE`]: the data plane by itself.
    #[default]
    Own,
    /// [`IPVS_TABLE`]: before IPVS, which chooses the endpoints.
    BeforeIpvs,
}

impl Place {
    pub fn table(self, family: Family) -> Table {
        match self {
            Self::Own => table(family),
            Self::BeforeIpvs => Table::new(nft_family(family), Arc::<str>::from(IPVS_TABLE)),
        }
    }
}

/// The chains that hooks call.
pub fn base_chains(family: Family) -> [Chain; 3] {
    let chain = |name, hook, priority| {
        let base = Base { kind: ChainKind::Nat, hook, priority, policy: Policy::Accept };
        Chain::base(&table(family), name, base)
    };
    [
        chain(PREROUTING, Hook::Prerouting, priority::DSTNAT),
        chain(OUTPUT, Hook::Output, priority::DSTNAT),
        chain(POSTROUTING, Hook::Postrouting, priority::SRCNAT),
    ]
}

/// Chains that always exist. Base chains come with the table; the others are objects like any other chain.
pub fn is_fixed_chain(name: &str) -> bool {
    FIXED_CHAINS.contains(&name)
}

pub fn is_base_chain(name: &str) -> bool {
    matches!(name, PREROUTING | OUTPUT | POSTROUTING)
}

/// The same key type, whoever asks: used to compare what the kernel has with what we would make.
pub fn is_as_laid_out(set: &Set, id: SetId, family: Family) -> bool {
    let spec = id.spec(family);
    let lengths = |key: &KeyType| key.len();
    let data = |set: &Set| match &set.data {
        nft::SetData::None => (0, 0),
        nft::SetData::Verdict => (1, 0),
        nft::SetData::Value(data) => (2, lengths(data)),
    };
    lengths(&set.key) == lengths(&spec.key)
        && data(set) == data(&spec)
        && set.flags.interval == spec.flags.interval
        && set.flags.timeout == spec.flags.timeout
        && set.flags.dynamic == spec.flags.dynamic
        && set.size == spec.size
}

/// Where a rule keeps what, sixteen registers of four bytes; `a` is the length of an address in registers (1 or 4).
///
/// ```text
/// 0          free: the mark while it is put aside, the zero of affinity records
/// 1          endpoint address
/// 1+a        class number, later the endpoint's port
/// 2+a        pool: address, protocol, port. First the packet's own destination, which is the key of `frontends`;
///            its data then writes class and pool over it
/// 4+2a       index of the endpoint, or the client's address
/// ```
///
/// Keys and data overlap so that a map's data lands where the next key begins. With IPv6 every register is used.
/// `nft` (seen in 1.0.6) follows only the first register of a map's data and aborts when a later key begins there, so no
/// key does: where one must, the value takes a detour through the packet's mark, or a spare word comes first.
#[derive(Debug, Clone, Copy)]
pub struct Registers {
    address_len: u8,
}

impl Registers {
    pub fn of(family: Family) -> Self {
        Self { address_len: if family == Family::V4 { 1 } else { 4 } }
    }

    pub fn spare(self) -> Reg {
        Reg::new(0)
    }

    pub fn endpoint(self) -> Reg {
        Reg::new(1)
    }

    /// The same register as [`Registers::class`].
    pub fn endpoint_port(self) -> Reg {
        Reg::new(1 + self.address_len)
    }

    pub fn class(self) -> Reg {
        self.endpoint_port()
    }

    pub fn pool(self) -> Reg {
        Reg::new(2 + self.address_len)
    }

    pub fn protocol(self) -> Reg {
        self.pool().plus(self.address_len)
    }

    pub fn port(self) -> Reg {
        self.protocol().plus(1)
    }

    pub fn behind_pool(self) -> Reg {
        self.port().plus(1)
    }
}

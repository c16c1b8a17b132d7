//! What expressions are told: which fact to load, how to compare, where to look. The numbers are the kernel's.

use super::object::Family;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayloadBase {
    Link = 0,
    Network = 1,
    Transport = 2,
    Inner = 3,
}

/// Facts beside the packet's bytes. The numbers are the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetaKey {
    Len = 0,
    Protocol = 1,
    Priority = 2,
    Mark = 3,
    Iif = 4,
    Oif = 5,
    IifName = 6,
    OifName = 7,
    IifType = 8,
    OifType = 9,
    SkUid = 10,
    SkGid = 11,
    Nftrace = 12,
    RtClassId = 13,
    SecMark = 14,
    Nfproto = 15,
    L4proto = 16,
    BriIifName = 17,
    BriOifName = 18,
    PktType = 19,
    Cpu = 20,
    IifGroup = 21,
    OifGroup = 22,
    Cgroup = 23,
    Prandom = 24,
    Secpath = 25,
    IifKind = 26,
    OifKind = 27,
}

impl MetaKey {
    /// Every key, at the position that is its number.
    pub(crate) const ALL: &[Self] = &[
        Self::Len,
        Self::Protocol,
        Self::Priority,
        Self::Mark,
        Self::Iif,
        Self::Oif,
        Self::IifName,
        Self::OifName,
        Self::IifType,
        Self::OifType,
        Self::SkUid,
        Self::SkGid,
        Self::Nftrace,
        Self::RtClassId,
        Self::SecMark,
        Self::Nfproto,
        Self::L4proto,
        Self::BriIifName,
        Self::BriOifName,
        Self::PktType,
        Self::Cpu,
        Self::IifGroup,
        Self::OifGroup,
        Self::Cgroup,
        Self::Prandom,
        Self::Secpath,
        Self::IifKind,
        Self::OifKind,
    ];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CmpOp {
    Eq = 0,
    Neq = 1,
    Lt = 2,
    Lte = 3,
    Gt = 4,
    Gte = 5,
}

/// `NF_NAT_RANGE_*`. That an address or a port is given needs no flag here; the encoder adds what the kernel wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NatFlags {
    pub random: bool,
    pub fully_random: bool,
    pub persistent: bool,
}

impl NatFlags {
    pub const FULLY_RANDOM: Self = Self { random: false, fully_random: true, persistent: false };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reject {
    TcpReset,
    /// `ICMP` (`ip` tables and IPv4 in `inet`) or `ICMPv6` unreachable with this code.
    Icmp(u8),
    /// Either kind of ICMP, whichever fits the packet, with one of the codes below; for `inet` tables.
    Icmpx(u8),
}

impl Reject {
    pub const ICMPX_NO_ROUTE: Self = Self::Icmpx(0);
    pub const ICMPX_PORT_UNREACHABLE: Self = Self::Icmpx(1);
    pub const ICMPX_HOST_UNREACHABLE: Self = Self::Icmpx(2);
    pub const ICMPX_ADMIN_PROHIBITED: Self = Self::Icmpx(3);
    /// For `ip` tables.
    pub const ICMP_PORT_UNREACHABLE: Self = Self::Icmp(3);
    /// For `ip6` tables.
    pub const ICMPV6_PORT_UNREACHABLE: Self = Self::Icmp(4);

    /// Port unreachable in the form that suits a table of this family.
    pub const fn port_unreachable(family: Family) -> Self {
        match family {
            Family::Ip => Self::ICMP_PORT_UNREACHABLE,
            Family::Ip6 => Self::ICMPV6_PORT_UNREACHABLE,
            _ => Self::ICMPX_PORT_UNREACHABLE,
        }
    }
}

/// What a routing lookup takes from the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FibFlags {
    pub saddr: bool,
    pub daddr: bool,
    pub mark: bool,
    pub iif: bool,
    pub oif: bool,
}

impl FibFlags {
    pub const SADDR: Self = Self { saddr: true, daddr: false, mark: false, iif: false, oif: false };
    pub const DADDR: Self = Self { saddr: false, daddr: true, mark: false, iif: false, oif: false };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FibResult {
    Oif = 1,
    OifName = 2,
    /// A route type, host-endian, four bytes: compare with [`FibResult::LOCAL`].
    AddrType = 3,
    /// One byte: whether there is a route at all (an output interface).
    Exists = 0x81,
}

impl FibResult {
    /// `RTN_LOCAL`: the address is one of this host's.
    pub const LOCAL: u32 = 2;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CtKey {
    State = 0,
    Direction = 1,
    Status = 2,
    Mark = 3,
    SecMark = 4,
    Expiration = 5,
    Helper = 6,
    L3Protocol = 7,
    Src = 8,
    Dst = 9,
    Protocol = 10,
    ProtoSrc = 11,
    ProtoDst = 12,
    Labels = 13,
    Pkts = 14,
    Bytes = 15,
    AvgPkt = 16,
    Zone = 17,
    EventMask = 18,
    SrcIp = 19,
    DstIp = 20,
    SrcIp6 = 21,
    DstIp6 = 22,
    Id = 23,
}

impl CtKey {
    /// Every key, at the position that is its number.
    pub(crate) const ALL: &[Self] = &[
        Self::State,
        Self::Direction,
        Self::Status,
        Self::Mark,
        Self::SecMark,
        Self::Expiration,
        Self::Helper,
        Self::L3Protocol,
        Self::Src,
        Self::Dst,
        Self::Protocol,
        Self::ProtoSrc,
        Self::ProtoDst,
        Self::Labels,
        Self::Pkts,
        Self::Bytes,
        Self::AvgPkt,
        Self::Zone,
        Self::EventMask,
        Self::SrcIp,
        Self::DstIp,
        Self::SrcIp6,
        Self::DstIp6,
        Self::Id,
    ];

    /// Bits of [`CtKey::State`].
    pub const INVALID: u32 = 1;
    pub const ESTABLISHED: u32 = 2;
    pub const RELATED: u32 = 4;
    pub const NEW: u32 = 8;
    pub const UNTRACKED: u32 = 64;
    /// Bits of [`CtKey::Status`].
    pub const SNAT: u32 = 1 << 4;
    pub const DNAT: u32 = 1 << 5;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CtDir {
    Original = 0,
    Reply = 1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DynsetOp {
    Add = 0,
    Update = 1,
    Delete = 2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitUnit {
    Second = 1,
    Minute = 60,
    Hour = 3600,
    Day = 86400,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SocketKey {
    Transparent = 0,
    Mark = 1,
    Wildcard = 2,
}

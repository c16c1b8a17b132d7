//! What a rule does to a packet, step by step.
//!
//! Expressions load facts about the packet into registers, compare registers, look them up in sets, and end with a
//! verdict or an action. The kernel (since 6.x) refuses a rule that reads a register which the same rule did not write.

use std::time::Duration;

use super::object::{Family, Name, Verdict};
use super::value::Value;

/// One of the sixteen four-byte registers, or the verdict register. A value longer than four bytes takes the registers
/// that follow, so a concatenated key is built by loading its fields into consecutive registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reg(u8);

impl Reg {
    /// Destination of a lookup in a verdict map.
    pub const VERDICT: Self = Self(u8::MAX);
    pub const COUNT: u8 = 16;

    /// Register `number`, 0 to 15.
    pub const fn new(number: u8) -> Self {
        assert!(number < Self::COUNT, "there are sixteen registers");
        Self(number)
    }

    /// This many registers further on.
    #[must_use]
    pub const fn plus(self, registers: u8) -> Self {
        Self::new(self.0 + registers)
    }

    pub const fn number(self) -> u8 {
        self.0
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// Loads bytes of the packet.
    Payload {
        base: PayloadBase,
        offset: u32,
        len: u32,
        dreg: Reg,
    },
    Meta {
        key: MetaKey,
        dreg: Reg,
    },
    MetaSet {
        key: MetaKey,
        sreg: Reg,
    },
    Cmp {
        sreg: Reg,
        op: CmpOp,
        data: Value,
    },
    /// Matches when the register lies between `from` and `to`, both included.
    Range {
        sreg: Reg,
        invert: bool,
        from: Value,
        to: Value,
    },
    /// `dreg = (sreg & mask) ^ xor`, over `mask.len()` bytes.
    Bitwise {
        sreg: Reg,
        dreg: Reg,
        mask: Value,
        xor: Value,
    },
    /// Swaps between host and network order, `size` bytes at a time.
    Byteorder {
        sreg: Reg,
        dreg: Reg,
        to_network: bool,
        len: u32,
        size: u32,
    },
    /// Without `dreg`: matches when the key is in the set (or is not, with `invert`). With it: loads the element's
    /// data, and does not match when there is no element. [`Reg::VERDICT`] for a verdict map.
    Lookup {
        set: Name,
        sreg: Reg,
        dreg: Option<Reg>,
        invert: bool,
    },
    Immediate {
        dreg: Reg,
        data: Value,
    },
    Verdict(Verdict),
    /// A number from `offset` to `offset + modulus - 1`, host-endian, four bytes.
    NumgenRandom {
        modulus: u32,
        offset: u32,
        dreg: Reg,
    },
    /// As [`Expr::NumgenRandom`], each rule counting by itself.
    NumgenInc {
        modulus: u32,
        offset: u32,
        dreg: Reg,
    },
    /// Jenkins hash of `len` bytes from `sreg`, as a number like [`Expr::NumgenRandom`]'s. Without a seed the kernel
    /// chooses one.
    Jhash {
        sreg: Reg,
        len: u32,
        modulus: u32,
        offset: u32,
        seed: Option<u32>,
        dreg: Reg,
    },
    /// The same number for both directions of a flow.
    Symhash {
        modulus: u32,
        offset: u32,
        dreg: Reg,
    },
    Dnat {
        family: Family,
        addr: Option<Reg>,
        port: Option<Reg>,
        flags: NatFlags,
    },
    Snat {
        family: Family,
        addr: Option<Reg>,
        port: Option<Reg>,
        flags: NatFlags,
    },
    Masquerade {
        flags: NatFlags,
    },
    /// Destination becomes this host.
    Redirect {
        port: Option<Reg>,
        flags: NatFlags,
    },
    Reject(Reject),
    Fib {
        flags: FibFlags,
        result: FibResult,
        dreg: Reg,
    },
    Ct {
        key: CtKey,
        dreg: Reg,
        dir: Option<CtDir>,
    },
    CtSet {
        key: CtKey,
        sreg: Reg,
    },
    /// Adds, refreshes or deletes an element of a set as the packet passes.
    Dynset {
        op: DynsetOp,
        set: Name,
        key: Reg,
        data: Option<Reg>,
        timeout: Option<Duration>,
        invert: bool,
        exprs: Vec<Expr>,
    },
    Counter {
        packets: u64,
        bytes: u64,
    },
    /// Matches up to `rate` packets per `unit`.
    Limit {
        rate: u64,
        unit: LimitUnit,
        burst: u32,
        invert: bool,
    },
    Socket {
        key: SocketKey,
        dreg: Reg,
    },
    Notrack,
    /// An expression this project never makes: its name and its raw attributes.
    Other {
        name: Box<str>,
        attributes: Box<[u8]>,
    },
}

impl Expr {
    pub const COUNTER: Self = Self::Counter { packets: 0, bytes: 0 };

    pub fn accept() -> Self {
        Self::Verdict(Verdict::Accept)
    }

    pub fn drop() -> Self {
        Self::Verdict(Verdict::Drop)
    }

    pub fn ret() -> Self {
        Self::Verdict(Verdict::Return)
    }

    pub fn jump(chain: impl Into<Name>) -> Self {
        Self::Verdict(Verdict::jump(chain))
    }

    pub fn goto(chain: impl Into<Name>) -> Self {
        Self::Verdict(Verdict::goto(chain))
    }

    /// The expression's name in the kernel.
    pub fn kernel_name(&self) -> &str {
        match self {
            Self::Payload { .. } => "payload",
            Self::Meta { .. } | Self::MetaSet { .. } => "meta",
            Self::Cmp { .. } => "cmp",
            Self::Range { .. } => "range",
            Self::Bitwise { .. } => "bitwise",
            Self::Byteorder { .. } => "byteorder",
            Self::Lookup { .. } => "lookup",
            Self::Immediate { .. } | Self::Verdict(_) => "immediate",
            Self::NumgenRandom { .. } | Self::NumgenInc { .. } => "numgen",
            Self::Jhash { .. } | Self::Symhash { .. } => "hash",
            Self::Dnat { .. } | Self::Snat { .. } => "nat",
            Self::Masquerade { .. } => "masq",
            Self::Redirect { .. } => "redir",
            Self::Reject(_) => "reject",
            Self::Fib { .. } => "fib",
            Self::Ct { .. } | Self::CtSet { .. } => "ct",
            Self::Dynset { .. } => "dynset",
            Self::Counter { .. } => "counter",
            Self::Limit { .. } => "limit",
            Self::Socket { .. } => "socket",
            Self::Notrack => "notrack",
            Self::Other { name, .. } => name,
        }
    }

    /// Source address of the packet.
    pub fn saddr(family: Family, dreg: Reg) -> Self {
        let (offset, len) = if family == Family::Ip6 { (8, 16) } else { (12, 4) };
        Self::Payload { base: PayloadBase::Network, offset, len, dreg }
    }

    /// Destination address of the packet.
    pub fn daddr(family: Family, dreg: Reg) -> Self {
        let (offset, len) = if family == Family::Ip6 { (24, 16) } else { (16, 4) };
        Self::Payload { base: PayloadBase::Network, offset, len, dreg }
    }

    /// Source port of TCP, UDP and SCTP.
    pub fn sport(dreg: Reg) -> Self {
        Self::Payload { base: PayloadBase::Transport, offset: 0, len: 2, dreg }
    }

    /// Destination port of TCP, UDP and SCTP.
    pub fn dport(dreg: Reg) -> Self {
        Self::Payload { base: PayloadBase::Transport, offset: 2, len: 2, dreg }
    }

    pub fn l4proto(dreg: Reg) -> Self {
        Self::Meta { key: MetaKey::L4proto, dreg }
    }

    pub fn nfproto(dreg: Reg) -> Self {
        Self::Meta { key: MetaKey::Nfproto, dreg }
    }

    pub fn eq(sreg: Reg, data: impl Into<Value>) -> Self {
        Self::Cmp { sreg, op: CmpOp::Eq, data: data.into() }
    }

    pub fn neq(sreg: Reg, data: impl Into<Value>) -> Self {
        Self::Cmp { sreg, op: CmpOp::Neq, data: data.into() }
    }

    /// Matches when the key in `sreg` is in the set.
    pub fn contains(set: impl Into<Name>, sreg: Reg) -> Self {
        Self::Lookup { set: set.into(), sreg, dreg: None, invert: false }
    }

    /// Loads the data that the map holds for the key in `sreg`.
    pub fn map(set: impl Into<Name>, sreg: Reg, dreg: Reg) -> Self {
        Self::Lookup { set: set.into(), sreg, dreg: Some(dreg), invert: false }
    }

    /// Takes the verdict that the map holds for the key in `sreg`.
    pub fn vmap(set: impl Into<Name>, sreg: Reg) -> Self {
        Self::map(set, sreg, Reg::VERDICT)
    }

    pub fn dnat(family: Family, addr: Reg, port: Reg) -> Self {
        Self::Dnat { family, addr: Some(addr), port: Some(port), flags: NatFlags::default() }
    }
}

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

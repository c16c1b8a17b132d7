//! What a rule does to a packet, step by step.
//!
//! Expressions load facts about the packet into registers, compare registers, look them up in sets, and end with a
//! verdict or an action. The kernel (since 6.x) refuses a rule that reads a register which the same rule did not write.

use std::time::Duration;

use super::object::{Family, Name, Verdict};
use super::operand::{
    CmpOp, CtDir, CtKey, DynsetOp, FibFlags, FibResult, LimitUnit, MetaKey, NatFlags, PayloadBase, Reject,
    SocketKey,
};
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

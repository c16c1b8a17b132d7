//! Whether one rule by itself is one the kernel takes: its references and its registers.

use std::collections::BTreeMap;

use libc::{EINVAL, ENODATA, ENOENT, EOPNOTSUPP, EOVERFLOW, ERANGE};

use super::state::{ChainState, TableState};
use crate::nft::expr::{Expr, Reg};
use crate::nft::object::{Family, Name, Rule, Set, SetData, Verdict};
use crate::nft::operand::{CtKey, DynsetOp, FibResult, MetaKey, SocketKey};

type Result = std::result::Result<(), i32>;

/// A verdict may name only a chain that is there and that no hook calls.
pub(super) fn target(chains: &BTreeMap<Name, ChainState>, verdict: &Verdict) -> Result {
    let Some(name) = verdict.chain() else { return Ok(()) };
    match chains.get(name) {
        None => Err(ENOENT),
        Some(chain) if chain.chain.base.is_some() => Err(EOPNOTSUPP),
        Some(_) => Ok(()),
    }
}

pub(super) fn jumps_to(rule: &Rule, chain: &Name) -> bool {
    rule.exprs.iter().any(|expr| matches!(expr, Expr::Verdict(verdict) if verdict.chain() == Some(chain)))
}

pub(super) fn uses_set(rule: &Rule, name: &Name) -> bool {
    rule.exprs.iter().any(|expr| match expr {
        Expr::Lookup { set, .. } | Expr::Dynset { set, .. } => set == name,
        _ => false,
    })
}

pub(super) fn rule(table: &TableState, rule: &Rule) -> Result {
    let mut registers = Registers::default();
    rule.exprs.iter().try_for_each(|expr| self::expr(table, rule.table.family, expr, &mut registers))
}

/// Which registers the rule has written so far.
#[derive(Default)]
struct Registers(u16);

impl Registers {
    fn bits(reg: Reg, len: usize) -> std::result::Result<u16, i32> {
        if reg == Reg::VERDICT || len == 0 {
            return Err(EINVAL);
        }
        let registers = len.div_ceil(4);
        if usize::from(reg.number()) + registers > usize::from(Reg::COUNT) {
            return Err(ERANGE);
        }
        Ok((((1u32 << registers) - 1) << reg.number()) as u16)
    }

    fn store(&mut self, reg: Reg, len: usize) -> Result {
        self.0 |= Self::bits(reg, len)?;
        Ok(())
    }

    fn load(&self, reg: Reg, len: usize) -> Result {
        let bits = Self::bits(reg, len)?;
        if self.0 & bits == bits { Ok(()) } else { Err(ENODATA) }
    }

    fn load_optional(&self, reg: Option<Reg>, len: usize) -> Result {
        reg.map_or(Ok(()), |reg| self.load(reg, len))
    }
}

fn expr(table: &TableState, family: Family, expr: &Expr, registers: &mut Registers) -> Result {
    match expr {
        Expr::Payload { len, dreg, .. } => registers.store(*dreg, *len as usize),
        Expr::Meta { key, dreg } => registers.store(*dreg, meta_len(*key)),
        Expr::MetaSet { key, sreg } => registers.load(*sreg, meta_len(*key)),
        Expr::Cmp { sreg, data, .. } => registers.load(*sreg, data.len()),
        Expr::Range { sreg, from, .. } => registers.load(*sreg, from.len()),
        Expr::Bitwise { sreg, dreg, mask, xor } => {
            if mask.len() != xor.len() {
                return Err(EINVAL);
            }
            registers.load(*sreg, mask.len())?;
            registers.store(*dreg, mask.len())
        }
        Expr::Byteorder { sreg, dreg, len, .. } => {
            registers.load(*sreg, *len as usize)?;
            registers.store(*dreg, *len as usize)
        }
        Expr::Lookup { set, sreg, dreg, invert } => {
            lookup(&table.sets.get(set).ok_or(ENOENT)?.set, *sreg, *dreg, *invert, registers)
        }
        Expr::Immediate { dreg, data } => registers.store(*dreg, data.len()),
        Expr::Verdict(verdict) => target(&table.chains, verdict),
        Expr::NumgenRandom { modulus, offset, dreg }
        | Expr::NumgenInc { modulus, offset, dreg }
        | Expr::Symhash { modulus, offset, dreg } => number(*modulus, *offset, *dreg, registers),
        Expr::Jhash { sreg, len, modulus, offset, dreg, .. } => {
            registers.load(*sreg, *len as usize)?;
            number(*modulus, *offset, *dreg, registers)
        }
        Expr::Dnat { family: nat, addr, port, .. } | Expr::Snat { family: nat, addr, port, .. } => {
            if family != Family::Inet && family != *nat {
                return Err(EOPNOTSUPP);
            }
            registers.load_optional(*addr, if *nat == Family::Ip6 { 16 } else { 4 })?;
            registers.load_optional(*port, 2)
        }
        Expr::Redirect { port, .. } => registers.load_optional(*port, 2),
        Expr::Fib { result, dreg, .. } => registers.store(*dreg, fib_len(*result)),
        Expr::Ct { key, dreg, .. } => registers.store(*dreg, ct_len(*key)),
        Expr::CtSet { key, sreg } => registers.load(*sreg, ct_len(*key)),
        Expr::Dynset { .. } => dynset(table, expr, registers),
        Expr::Socket { key, dreg } => registers.store(*dreg, if *key == SocketKey::Mark { 4 } else { 1 }),
        Expr::Masquerade { .. }
        | Expr::Reject(_)
        | Expr::Counter { .. }
        | Expr::Limit { .. }
        | Expr::Notrack
        | Expr::Other { .. } => Ok(()),
    }
}

fn lookup(set: &Set, sreg: Reg, dreg: Option<Reg>, invert: bool, registers: &mut Registers) -> Result {
    registers.load(sreg, set.key.len())?;
    match (&set.data, dreg) {
        (SetData::None, None) => Ok(()),
        (SetData::Verdict, Some(Reg::VERDICT)) if !invert => Ok(()),
        (SetData::Value(data), Some(dreg)) if !invert => registers.store(dreg, data.len()),
        _ => Err(EINVAL),
    }
}

fn number(modulus: u32, offset: u32, dreg: Reg, registers: &mut Registers) -> Result {
    if modulus == 0 {
        return Err(ERANGE);
    }
    if offset.checked_add(modulus - 1).is_none() {
        return Err(EOVERFLOW);
    }
    registers.store(dreg, 4)
}

fn dynset(table: &TableState, expr: &Expr, registers: &Registers) -> Result {
    let Expr::Dynset { op, set, key, data, timeout, .. } = expr else { return Ok(()) };
    let set = &table.sets.get(set).ok_or(ENOENT)?.set;
    if !set.flags.dynamic || (timeout.is_some() && !set.flags.timeout) {
        return Err(EOPNOTSUPP);
    }
    registers.load(*key, set.key.len())?;
    match (&set.data, data) {
        (SetData::None, None) => Ok(()),
        (SetData::Value(_), None) if *op == DynsetOp::Delete => Ok(()),
        (SetData::Value(wanted), Some(data)) => registers.load(*data, wanted.len()),
        (SetData::None | SetData::Verdict, Some(_)) => Err(EOPNOTSUPP),
        _ => Err(EINVAL),
    }
}

fn meta_len(key: MetaKey) -> usize {
    use MetaKey::{
        BriIifName, BriOifName, IifKind, IifName, IifType, L4proto, Nfproto, Nftrace, OifKind, OifName,
        OifType, PktType, Protocol, Secpath,
    };
    match key {
        IifName | OifName | IifKind | OifKind | BriIifName | BriOifName => 16,
        Protocol | IifType | OifType => 2,
        Nfproto | L4proto | PktType | Nftrace | Secpath => 1,
        _ => 4,
    }
}

fn ct_len(key: CtKey) -> usize {
    use CtKey::{
        AvgPkt, Bytes, Direction, Dst, DstIp6, Helper, L3Protocol, Labels, Pkts, ProtoDst, ProtoSrc,
        Protocol, Src, SrcIp6, Zone,
    };
    match key {
        Direction | L3Protocol | Protocol => 1,
        ProtoSrc | ProtoDst | Zone => 2,
        Pkts | Bytes | AvgPkt => 8,
        Src | Dst | SrcIp6 | DstIp6 | Helper | Labels => 16,
        _ => 4,
    }
}

fn fib_len(result: FibResult) -> usize {
    match result {
        FibResult::OifName => 16,
        FibResult::Oif | FibResult::AddrType | FibResult::Exists => 4,
    }
}

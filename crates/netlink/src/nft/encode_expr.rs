//! Expressions of a rule, as attributes.

use crate::codec::Writer;

use super::encode::{put_value, put_verdict, register};
use super::expr::{Expr, Reg};
use super::operand::{FibFlags, FibResult, NatFlags, Reject};
use super::wire;

/// Writes a list of expressions as one attribute of this kind.
pub(super) fn put_exprs(w: &mut Writer, kind: u16, exprs: &[Expr]) {
    w.nested(kind, |w| {
        for expr in exprs {
            w.nested(wire::list::ELEM, |w| put_expr(w, expr));
        }
    });
}

fn put_expr(w: &mut Writer, expr: &Expr) {
    w.string(wire::expr::NAME, expr.kernel_name());
    if let Expr::Other { attributes, .. } = expr {
        w.attr(wire::expr::DATA, attributes);
        return;
    }
    w.nested(wire::expr::DATA, |w| match expr {
        Expr::Payload { .. }
        | Expr::Meta { .. }
        | Expr::MetaSet { .. }
        | Expr::Fib { .. }
        | Expr::Ct { .. }
        | Expr::CtSet { .. }
        | Expr::Socket { .. }
        | Expr::NumgenRandom { .. }
        | Expr::NumgenInc { .. }
        | Expr::Jhash { .. }
        | Expr::Symhash { .. }
        | Expr::Immediate { .. } => put_load(w, expr),
        Expr::Cmp { .. }
        | Expr::Range { .. }
        | Expr::Bitwise { .. }
        | Expr::Byteorder { .. }
        | Expr::Lookup { .. }
        | Expr::Limit { .. }
        | Expr::Dynset { .. } => put_test(w, expr),
        _ => put_action(w, expr),
    });
}

/// Expressions that load a register, or store one with the packet.
fn put_load(w: &mut Writer, expr: &Expr) {
    match expr {
        Expr::Payload { base, offset, len, dreg } => {
            put_reg(w, wire::payload::DREG, *dreg);
            w.be32(wire::payload::BASE, *base as u32);
            w.be32(wire::payload::OFFSET, *offset);
            w.be32(wire::payload::LEN, *len);
        }
        Expr::Meta { key, dreg } => {
            put_reg(w, wire::meta::DREG, *dreg);
            w.be32(wire::meta::KEY, *key as u32);
        }
        Expr::MetaSet { key, sreg } => {
            put_reg(w, wire::meta::SREG, *sreg);
            w.be32(wire::meta::KEY, *key as u32);
        }
        Expr::Fib { flags, result, dreg } => put_fib(w, *flags, *result, *dreg),
        Expr::Ct { key, dreg, dir } => {
            put_reg(w, wire::ct::DREG, *dreg);
            w.be32(wire::ct::KEY, *key as u32);
            if let Some(dir) = dir {
                w.u8(wire::ct::DIRECTION, *dir as u8);
            }
        }
        Expr::CtSet { key, sreg } => {
            put_reg(w, wire::ct::SREG, *sreg);
            w.be32(wire::ct::KEY, *key as u32);
        }
        Expr::Socket { key, dreg } => {
            w.be32(wire::socket::KEY, *key as u32);
            put_reg(w, wire::socket::DREG, *dreg);
        }
        Expr::NumgenRandom { modulus, offset, dreg } => put_numgen(w, 1, *modulus, *offset, *dreg),
        Expr::NumgenInc { modulus, offset, dreg } => put_numgen(w, 0, *modulus, *offset, *dreg),
        Expr::Jhash { sreg, len, modulus, offset, seed, dreg } => {
            put_reg(w, wire::hash::SREG, *sreg);
            w.be32(wire::hash::LEN, *len);
            if let Some(seed) = seed {
                w.be32(wire::hash::SEED, *seed);
            }
            put_hash(w, 0, *modulus, *offset, *dreg);
        }
        Expr::Symhash { modulus, offset, dreg } => put_hash(w, 1, *modulus, *offset, *dreg),
        Expr::Immediate { dreg, data } => {
            put_reg(w, wire::immediate::DREG, *dreg);
            put_value(w, wire::immediate::DATA, data);
        }
        _ => {}
    }
}

/// Expressions that compute, compare, and look up.
fn put_test(w: &mut Writer, expr: &Expr) {
    match expr {
        Expr::Cmp { sreg, op, data } => {
            put_reg(w, wire::cmp::SREG, *sreg);
            w.be32(wire::cmp::OP, *op as u32);
            put_value(w, wire::cmp::DATA, data);
        }
        Expr::Range { sreg, invert, from, to } => {
            put_reg(w, wire::range::SREG, *sreg);
            w.be32(wire::range::OP, u32::from(*invert));
            put_value(w, wire::range::FROM, from);
            put_value(w, wire::range::TO, to);
        }
        Expr::Bitwise { sreg, dreg, mask, xor } => {
            put_reg(w, wire::bitwise::SREG, *sreg);
            put_reg(w, wire::bitwise::DREG, *dreg);
            w.be32(wire::bitwise::LEN, mask.len() as u32);
            put_value(w, wire::bitwise::MASK, mask);
            put_value(w, wire::bitwise::XOR, xor);
        }
        Expr::Byteorder { sreg, dreg, to_network, len, size } => {
            put_reg(w, wire::byteorder::SREG, *sreg);
            put_reg(w, wire::byteorder::DREG, *dreg);
            w.be32(wire::byteorder::OP, u32::from(*to_network));
            w.be32(wire::byteorder::LEN, *len);
            w.be32(wire::byteorder::SIZE, *size);
        }
        Expr::Lookup { set, sreg, dreg, invert } => {
            w.string(wire::lookup::SET, set);
            put_reg(w, wire::lookup::SREG, *sreg);
            put_optional_reg(w, wire::lookup::DREG, *dreg);
            if *invert {
                w.be32(wire::lookup::FLAGS, 1);
            }
        }
        Expr::Limit { rate, unit, burst, invert } => {
            w.be64(wire::limit::RATE, *rate);
            w.be64(wire::limit::UNIT, *unit as u64);
            w.be32(wire::limit::BURST, *burst);
            w.be32(wire::limit::TYPE, 0);
            w.be32(wire::limit::FLAGS, u32::from(*invert));
        }
        Expr::Dynset { .. } => put_dynset(w, expr),
        _ => {}
    }
}

/// Expressions that decide or change the packet's fate.
fn put_action(w: &mut Writer, expr: &Expr) {
    match expr {
        Expr::Verdict(verdict) => {
            put_reg(w, wire::immediate::DREG, Reg::VERDICT);
            w.nested(wire::immediate::DATA, |w| put_verdict(w, verdict));
        }
        Expr::Dnat { family, addr, port, flags } => {
            put_nat(w, 1, u32::from(family.number()), *addr, *port, *flags);
        }
        Expr::Snat { family, addr, port, flags } => {
            put_nat(w, 0, u32::from(family.number()), *addr, *port, *flags);
        }
        Expr::Masquerade { flags } => put_nat_flags(w, wire::masq::FLAGS, *flags),
        Expr::Redirect { port, flags } => {
            put_optional_reg(w, wire::redir::PROTO_MIN, *port);
            put_nat_flags(w, wire::redir::FLAGS, *flags);
        }
        Expr::Reject(reject) => put_reject(w, *reject),
        Expr::Counter { packets, bytes } => {
            w.be64(wire::counter::BYTES, *bytes);
            w.be64(wire::counter::PACKETS, *packets);
        }
        // Notrack has no attributes; everything else is written elsewhere.
        _ => {}
    }
}

fn put_reg(w: &mut Writer, kind: u16, reg: Reg) {
    w.be32(kind, register(reg));
}

fn put_optional_reg(w: &mut Writer, kind: u16, reg: Option<Reg>) {
    if let Some(reg) = reg {
        put_reg(w, kind, reg);
    }
}

fn put_numgen(w: &mut Writer, kind: u32, modulus: u32, offset: u32, dreg: Reg) {
    put_reg(w, wire::numgen::DREG, dreg);
    w.be32(wire::numgen::MODULUS, modulus);
    w.be32(wire::numgen::TYPE, kind);
    w.be32(wire::numgen::OFFSET, offset);
}

fn put_hash(w: &mut Writer, kind: u32, modulus: u32, offset: u32, dreg: Reg) {
    put_reg(w, wire::hash::DREG, dreg);
    w.be32(wire::hash::MODULUS, modulus);
    w.be32(wire::hash::OFFSET, offset);
    w.be32(wire::hash::TYPE, kind);
}

fn put_fib(w: &mut Writer, flags: FibFlags, result: FibResult, dreg: Reg) {
    use wire::fib_flag::{DADDR, IIF, MARK, OIF, PRESENT, SADDR};
    let (result, present) = match result {
        FibResult::Exists => (FibResult::Oif as u32, true),
        other => (other as u32, false),
    };
    put_reg(w, wire::fib::DREG, dreg);
    w.be32(wire::fib::RESULT, result);
    let bits = [
        (flags.saddr, SADDR),
        (flags.daddr, DADDR),
        (flags.mark, MARK),
        (flags.iif, IIF),
        (flags.oif, OIF),
        (present, PRESENT),
    ];
    w.be32(wire::fib::FLAGS, bits.into_iter().filter_map(|(set, bit)| set.then_some(bit)).sum());
}

fn put_dynset(w: &mut Writer, expr: &Expr) {
    let Expr::Dynset { op, set, key, data, timeout, invert, exprs } = expr else { return };
    w.string(wire::dynset::SET_NAME, set);
    w.be32(wire::dynset::OP, *op as u32);
    put_reg(w, wire::dynset::SREG_KEY, *key);
    put_optional_reg(w, wire::dynset::SREG_DATA, *data);
    if let Some(timeout) = timeout {
        w.be64(wire::dynset::TIMEOUT, timeout.as_millis() as u64);
    }
    // Kernels before 5.11 know one expression only, and the flag for several is theirs to refuse.
    let mut flags = u32::from(*invert);
    match exprs.as_slice() {
        [] => {}
        [single] => w.nested(wire::dynset::EXPR, |w| put_expr(w, single)),
        several => {
            flags |= 2;
            put_exprs(w, wire::dynset::EXPRESSIONS, several);
        }
    }
    if flags != 0 {
        w.be32(wire::dynset::FLAGS, flags);
    }
}

fn put_nat(w: &mut Writer, kind: u32, family: u32, addr: Option<Reg>, port: Option<Reg>, flags: NatFlags) {
    w.be32(wire::nat::TYPE, kind);
    w.be32(wire::nat::FAMILY, family);
    put_optional_reg(w, wire::nat::ADDR_MIN, addr);
    put_optional_reg(w, wire::nat::PROTO_MIN, port);
    put_nat_flags(w, wire::nat::FLAGS, flags);
}

fn put_nat_flags(w: &mut Writer, kind: u16, flags: NatFlags) {
    use wire::nat_flag::{FULLY_RANDOM, PERSISTENT, RANDOM};
    let bits = [(flags.random, RANDOM), (flags.fully_random, FULLY_RANDOM), (flags.persistent, PERSISTENT)];
    let bits: u32 = bits.into_iter().filter_map(|(set, bit)| set.then_some(bit)).sum();
    if bits != 0 {
        w.be32(kind, bits);
    }
}

fn put_reject(w: &mut Writer, reject: Reject) {
    let (kind, code) = match reject {
        Reject::Icmp(code) => (0, code),
        Reject::TcpReset => (1, 0),
        Reject::Icmpx(code) => (2, code),
    };
    w.be32(wire::reject::TYPE, kind);
    w.u8(wire::reject::ICMP_CODE, code);
}

//! From an expression's attributes back to the expression.
//!
//! What does not fit one of our variants exactly becomes [`Expr::Other`], so that comparing a dumped rule with a wanted
//! one never calls two different rules equal.

use std::time::Duration;

use crate::codec::Attrs;

use super::decode::{value, verdict};
use super::expr::{Expr, Reg};
use super::object::Family;
use super::operand::{
    CmpOp, CtDir, CtKey, DynsetOp, FibFlags, FibResult, LimitUnit, MetaKey, NatFlags, PayloadBase, Reject,
    SocketKey,
};
use super::wire;

pub(super) fn exprs(list: Attrs<'_>) -> Option<Vec<Expr>> {
    list.map(|attr| expr(&attr.nested())).collect()
}

fn expr(attrs: &Attrs<'_>) -> Option<Expr> {
    let name = attrs.get(wire::expr::NAME)?.text()?;
    let data = attrs.get(wire::expr::DATA).map(|data| data.payload).unwrap_or_default();
    let known = Fields(Attrs(data)).decode(name);
    Some(known.unwrap_or_else(|| Expr::Other { name: name.into(), attributes: data.into() }))
}

/// The expression is one that we have no variant for.
struct NotOurs;

struct Fields<'a>(Attrs<'a>);

impl Fields<'_> {
    fn decode(&self, name: &str) -> Option<Expr> {
        match name {
            "payload" => self.payload(),
            "meta" => self.meta(),
            "cmp" => self.cmp(),
            "range" => self.range(),
            "bitwise" => self.bitwise(),
            "byteorder" => self.byteorder(),
            "lookup" => self.lookup(),
            "immediate" => self.immediate(),
            "numgen" => self.numgen(),
            "hash" => self.hash(),
            "nat" => self.nat(),
            "masq" => self.masquerade(),
            "redir" => self.redirect(),
            "reject" => self.reject(),
            "fib" => self.fib(),
            "ct" => self.ct(),
            "dynset" => self.dynset(),
            "counter" => Some(Expr::Counter {
                packets: self.0.get(wire::counter::PACKETS)?.be64()?,
                bytes: self.0.get(wire::counter::BYTES)?.be64()?,
            }),
            "limit" => self.limit(),
            "socket" => {
                let key = self.one_of(
                    wire::socket::KEY,
                    &[SocketKey::Transparent, SocketKey::Mark, SocketKey::Wildcard],
                )?;
                Some(Expr::Socket { key, dreg: self.reg(wire::socket::DREG)? })
            }
            "notrack" => Some(Expr::Notrack),
            _ => None,
        }
    }

    fn number(&self, kind: u16) -> Option<u32> {
        self.0.get(kind)?.be32()
    }

    fn has(&self, kind: u16) -> bool {
        self.0.get(kind).is_some()
    }

    /// A register under either of its names: the kernel dumps those that begin a sixteen-byte one under that name.
    fn reg(&self, kind: u16) -> Option<Reg> {
        match self.number(kind)? {
            0 => Some(Reg::VERDICT),
            number @ 1..=4 => Some(Reg::new(number as u8 * 4 - 4)),
            number @ 8..=23 => Some(Reg::new(number as u8 - 8)),
            _ => None,
        }
    }

    fn optional_reg(&self, kind: u16) -> Result<Option<Reg>, NotOurs> {
        if self.has(kind) { self.reg(kind).map(Some).ok_or(NotOurs) } else { Ok(None) }
    }

    /// The kernel's number as the position in a list of variants that begins at 0.
    fn one_of<T: Copy>(&self, kind: u16, variants: &[T]) -> Option<T> {
        variants.get(self.number(kind)? as usize).copied()
    }

    fn payload(&self) -> Option<Expr> {
        use PayloadBase::{Inner, Link, Network, Transport};
        Some(Expr::Payload {
            base: self.one_of(wire::payload::BASE, &[Link, Network, Transport, Inner])?,
            offset: self.number(wire::payload::OFFSET)?,
            len: self.number(wire::payload::LEN)?,
            dreg: self.reg(wire::payload::DREG)?,
        })
    }

    fn meta(&self) -> Option<Expr> {
        let key = self.one_of(wire::meta::KEY, MetaKey::ALL)?;
        if self.has(wire::meta::SREG) {
            return Some(Expr::MetaSet { key, sreg: self.reg(wire::meta::SREG)? });
        }
        Some(Expr::Meta { key, dreg: self.reg(wire::meta::DREG)? })
    }

    fn cmp(&self) -> Option<Expr> {
        use CmpOp::{Eq, Gt, Gte, Lt, Lte, Neq};
        Some(Expr::Cmp {
            sreg: self.reg(wire::cmp::SREG)?,
            op: self.one_of(wire::cmp::OP, &[Eq, Neq, Lt, Lte, Gt, Gte])?,
            data: value(self.0.get(wire::cmp::DATA)?)?,
        })
    }

    fn range(&self) -> Option<Expr> {
        Some(Expr::Range {
            sreg: self.reg(wire::range::SREG)?,
            invert: self.one_of(wire::range::OP, &[false, true])?,
            from: value(self.0.get(wire::range::FROM)?)?,
            to: value(self.0.get(wire::range::TO)?)?,
        })
    }

    fn bitwise(&self) -> Option<Expr> {
        if self.number(wire::bitwise::OP).unwrap_or(0) != 0 {
            return None;
        }
        Some(Expr::Bitwise {
            sreg: self.reg(wire::bitwise::SREG)?,
            dreg: self.reg(wire::bitwise::DREG)?,
            mask: value(self.0.get(wire::bitwise::MASK)?)?,
            xor: value(self.0.get(wire::bitwise::XOR)?)?,
        })
    }

    fn byteorder(&self) -> Option<Expr> {
        Some(Expr::Byteorder {
            sreg: self.reg(wire::byteorder::SREG)?,
            dreg: self.reg(wire::byteorder::DREG)?,
            to_network: self.one_of(wire::byteorder::OP, &[false, true])?,
            len: self.number(wire::byteorder::LEN)?,
            size: self.number(wire::byteorder::SIZE)?,
        })
    }

    fn lookup(&self) -> Option<Expr> {
        Some(Expr::Lookup {
            set: self.0.get(wire::lookup::SET)?.text()?.into(),
            sreg: self.reg(wire::lookup::SREG)?,
            dreg: self.optional_reg(wire::lookup::DREG).ok()?,
            invert: self.number(wire::lookup::FLAGS).unwrap_or(0) & 1 != 0,
        })
    }

    fn immediate(&self) -> Option<Expr> {
        let dreg = self.reg(wire::immediate::DREG)?;
        let data = self.0.get(wire::immediate::DATA)?;
        if dreg == Reg::VERDICT {
            let inner = data.nested().get(wire::data::VERDICT)?;
            return Some(Expr::Verdict(verdict(&inner.nested())?));
        }
        Some(Expr::Immediate { dreg, data: value(data)? })
    }

    fn numgen(&self) -> Option<Expr> {
        let modulus = self.number(wire::numgen::MODULUS)?;
        let offset = self.number(wire::numgen::OFFSET).unwrap_or(0);
        let dreg = self.reg(wire::numgen::DREG)?;
        match self.number(wire::numgen::TYPE)? {
            0 => Some(Expr::NumgenInc { modulus, offset, dreg }),
            1 => Some(Expr::NumgenRandom { modulus, offset, dreg }),
            _ => None,
        }
    }

    fn hash(&self) -> Option<Expr> {
        let modulus = self.number(wire::hash::MODULUS)?;
        let offset = self.number(wire::hash::OFFSET).unwrap_or(0);
        let dreg = self.reg(wire::hash::DREG)?;
        match self.number(wire::hash::TYPE).unwrap_or(0) {
            0 => Some(Expr::Jhash {
                sreg: self.reg(wire::hash::SREG)?,
                len: self.number(wire::hash::LEN)?,
                modulus,
                offset,
                seed: self.number(wire::hash::SEED),
                dreg,
            }),
            1 => Some(Expr::Symhash { modulus, offset, dreg }),
            _ => None,
        }
    }

    fn nat(&self) -> Option<Expr> {
        use wire::nat::{ADDR_MAX, ADDR_MIN, FAMILY, FLAGS, PROTO_MAX, PROTO_MIN, TYPE};
        let family = Family::from_number(self.number(FAMILY)? as u8);
        let addr = self.single_reg(ADDR_MIN, ADDR_MAX).ok()?;
        let port = self.single_reg(PROTO_MIN, PROTO_MAX).ok()?;
        let flags = self.nat_flags(FLAGS)?;
        match self.number(TYPE)? {
            0 => Some(Expr::Snat { family, addr, port, flags }),
            1 => Some(Expr::Dnat { family, addr, port, flags }),
            _ => None,
        }
    }

    /// The kernel dumps a single register as a range from itself to itself.
    fn single_reg(&self, min: u16, max: u16) -> Result<Option<Reg>, NotOurs> {
        let reg = self.optional_reg(min)?;
        if self.has(max) && self.optional_reg(max)? != reg { Err(NotOurs) } else { Ok(reg) }
    }

    fn nat_flags(&self, kind: u16) -> Option<NatFlags> {
        use wire::nat_flag::{FULLY_RANDOM, PERSISTENT, RANDOM};
        // That there are addresses (1) and ports (2) is seen from the registers.
        const IMPLIED: u32 = 3;
        let bits = self.number(kind).unwrap_or(0);
        if bits & !(IMPLIED | RANDOM | PERSISTENT | FULLY_RANDOM) != 0 {
            return None;
        }
        Some(NatFlags {
            random: bits & RANDOM != 0,
            fully_random: bits & FULLY_RANDOM != 0,
            persistent: bits & PERSISTENT != 0,
        })
    }

    fn masquerade(&self) -> Option<Expr> {
        if self.has(2) || self.has(3) {
            return None;
        }
        Some(Expr::Masquerade { flags: self.nat_flags(wire::masq::FLAGS)? })
    }

    fn redirect(&self) -> Option<Expr> {
        Some(Expr::Redirect {
            port: self.single_reg(wire::redir::PROTO_MIN, wire::redir::PROTO_MAX).ok()?,
            flags: self.nat_flags(wire::redir::FLAGS)?,
        })
    }

    fn reject(&self) -> Option<Expr> {
        let code = self.0.get(wire::reject::ICMP_CODE).and_then(|code| code.u8());
        match self.number(wire::reject::TYPE)? {
            0 => Some(Expr::Reject(Reject::Icmp(code?))),
            1 => Some(Expr::Reject(Reject::TcpReset)),
            2 => Some(Expr::Reject(Reject::Icmpx(code?))),
            _ => None,
        }
    }

    fn fib(&self) -> Option<Expr> {
        use wire::fib_flag::{DADDR, IIF, MARK, OIF, PRESENT, SADDR};
        let bits = self.number(wire::fib::FLAGS)?;
        let result = match (self.number(wire::fib::RESULT)?, bits & PRESENT != 0) {
            (1, true) => FibResult::Exists,
            (1, false) => FibResult::Oif,
            (2, false) => FibResult::OifName,
            (3, false) => FibResult::AddrType,
            _ => return None,
        };
        let flags = FibFlags {
            saddr: bits & SADDR != 0,
            daddr: bits & DADDR != 0,
            mark: bits & MARK != 0,
            iif: bits & IIF != 0,
            oif: bits & OIF != 0,
        };
        Some(Expr::Fib { flags, result, dreg: self.reg(wire::fib::DREG)? })
    }

    fn ct(&self) -> Option<Expr> {
        let key = self.one_of(wire::ct::KEY, CtKey::ALL)?;
        if self.has(wire::ct::SREG) {
            return Some(Expr::CtSet { key, sreg: self.reg(wire::ct::SREG)? });
        }
        let dir = match self.0.get(wire::ct::DIRECTION).and_then(|dir| dir.u8()) {
            None => None,
            Some(0) => Some(CtDir::Original),
            Some(1) => Some(CtDir::Reply),
            Some(_) => return None,
        };
        Some(Expr::Ct { key, dreg: self.reg(wire::ct::DREG)?, dir })
    }

    fn dynset(&self) -> Option<Expr> {
        use wire::dynset;
        let timeout = match self.0.get(dynset::TIMEOUT) {
            None => None,
            Some(timeout) => Some(timeout.be64()?).filter(|ms| *ms != 0).map(Duration::from_millis),
        };
        let inner = if let Some(list) = self.0.get(dynset::EXPRESSIONS) {
            exprs(list.nested())?
        } else if let Some(single) = self.0.get(dynset::EXPR) {
            vec![expr(&single.nested())?]
        } else {
            Vec::new()
        };
        Some(Expr::Dynset {
            op: self.one_of(dynset::OP, &[DynsetOp::Add, DynsetOp::Update, DynsetOp::Delete])?,
            set: self.0.get(dynset::SET_NAME)?.text()?.into(),
            key: self.reg(dynset::SREG_KEY)?,
            data: self.optional_reg(dynset::SREG_DATA).ok()?,
            timeout,
            invert: self.number(dynset::FLAGS).unwrap_or(0) & 1 != 0,
            exprs: inner,
        })
    }

    fn limit(&self) -> Option<Expr> {
        if self.number(wire::limit::TYPE)? != 0 {
            return None;
        }
        let unit = match self.0.get(wire::limit::UNIT)?.be64()? {
            1 => LimitUnit::Second,
            60 => LimitUnit::Minute,
            3600 => LimitUnit::Hour,
            86400 => LimitUnit::Day,
            _ => return None,
        };
        Some(Expr::Limit {
            rate: self.0.get(wire::limit::RATE)?.be64()?,
            unit,
            burst: self.number(wire::limit::BURST).unwrap_or(0),
            invert: self.number(wire::limit::FLAGS).unwrap_or(0) & 1 != 0,
        })
    }
}

//! Whether the chains, as hooks and jumps reach them, hold only what may run there.

use std::collections::HashMap;

use libc::{EMLINK, EOPNOTSUPP};

use super::state::{State, TableState};
use crate::nft::expr::{Expr, Reg};
use crate::nft::object::{Base, ChainKind, Data, Hook, Name, Verdict};
use crate::nft::operand::FibResult;

/// How deep jumps may nest.
const JUMPS_MAX: usize = 16;

type Result = std::result::Result<(), i32>;

pub(super) fn tables(state: &State) -> Result {
    state.tables.values().try_for_each(|table| {
        table.chains.values().try_for_each(|chain| {
            let Some(base) = chain.chain.base else { return Ok(()) };
            let mut walk = Walk { table, base, seen: HashMap::new() };
            walk.chain(&chain.chain.name, 0)
        })
    })
}

struct Walk<'a> {
    table: &'a TableState,
    base: Base,
    /// The greatest depth at which a chain was found good.
    seen: HashMap<&'a Name, usize>,
}

impl<'a> Walk<'a> {
    fn chain(&mut self, name: &'a Name, depth: usize) -> Result {
        if depth == JUMPS_MAX {
            return Err(EMLINK);
        }
        if self.seen.get(name).is_some_and(|seen| *seen >= depth) {
            return Ok(());
        }
        let Some(chain) = self.table.chains.get(name) else { return Ok(()) };
        for expr in chain.rules.iter().flat_map(|rule| &rule.item.exprs) {
            if !may_run(expr, self.base) {
                return Err(EOPNOTSUPP);
            }
            match expr {
                Expr::Verdict(verdict) => self.verdict(verdict, depth)?,
                Expr::Lookup { set, dreg: Some(Reg::VERDICT), .. } => self.map(set, depth)?,
                _ => {}
            }
        }
        self.seen.insert(name, depth);
        Ok(())
    }

    fn verdict(&mut self, verdict: &'a Verdict, depth: usize) -> Result {
        verdict.chain().map_or(Ok(()), |chain| self.chain(chain, depth + 1))
    }

    fn map(&mut self, set: &Name, depth: usize) -> Result {
        let Some(map) = self.table.sets.get(set) else { return Ok(()) };
        map.elements.values().try_for_each(|element| match &element.data {
            Data::Verdict(verdict) => self.verdict(verdict, depth),
            _ => Ok(()),
        })
    }
}

fn may_run(expr: &Expr, base: Base) -> bool {
    use Hook::{Forward, Input, Output, Postrouting, Prerouting};
    let nat_at = |hooks: &[Hook]| base.kind == ChainKind::Nat && hooks.contains(&base.hook);
    match expr {
        Expr::Dnat { .. } | Expr::Redirect { .. } => nat_at(&[Prerouting, Output]),
        Expr::Snat { .. } => nat_at(&[Postrouting, Input]),
        Expr::Masquerade { .. } => nat_at(&[Postrouting]),
        Expr::Reject(_) => base.hook != Postrouting,
        Expr::Socket { .. } => [Prerouting, Input, Output].contains(&base.hook),
        Expr::Fib { flags, result, .. } => match result {
            FibResult::AddrType if flags.iif => [Prerouting, Input, Forward].contains(&base.hook),
            FibResult::AddrType if flags.oif => [Output, Postrouting, Forward].contains(&base.hook),
            FibResult::AddrType => true,
            _ if flags.iif => [Prerouting, Input, Forward].contains(&base.hook),
            _ => base.hook == Prerouting,
        },
        _ => true,
    }
}

//! `nf_tables` as values: what a ruleset is made of, one transaction to change it, dumps to read it back.
//!
//! A [`Batch`] is an ordered list of [`Op`]s and is committed whole or not at all: a packet sees the ruleset before it
//! or after it, never between. [`NfTables`] has two implementations: [`Socket`] speaks to the kernel, [`Fake`] is a
//! small database with the kernel's own rules about what may refer to what.
//!
//! Reading order: [`op`] (operations), [`object`] (tables, chains, rules, sets, elements), [`expr`] (what a rule does
//! to a packet) with [`operand`], [`value`] and [`datatype`] (how keys and data are laid out in registers and set elements).
//! [`trace`] tells which rules a packet met.
//!
//! Not here: object types and hooks this project has no use for (flowtables, quotas, devices). A rule that someone else
//! made decodes anyway, with [`Expr::Other`] in the places we do not know.

pub mod datatype;
pub mod expr;
pub mod object;
pub mod op;
pub mod operand;
pub mod trace;
pub mod value;

mod decode;
mod decode_expr;
mod encode;
mod encode_expr;
mod error;
mod fake;
mod kernel;
mod monitor;
mod userdata;
mod wire;

pub use datatype::{FieldType, KeyType};
pub use error::{CommitError, CommitErrorKind, DumpError};
pub use expr::{Expr, Reg};
pub use fake::{Counts, Fake};
pub use kernel::Socket;
pub use monitor::{Intruder, Monitor, Pause};
pub use object::{
    Base, Chain, ChainKind, Data, Element, Family, Handled, Hook, Name, Policy, Rule, Set, SetData, SetFlags,
    Table, TableInfo, Verdict, priority,
};
pub use op::{Batch, Op};
pub use operand::{
    CmpOp, CtDir, CtKey, DynsetOp, FibFlags, FibResult, LimitUnit, MetaKey, NatFlags, PayloadBase, Reject,
    SocketKey,
};
pub use trace::Tracer;
pub use value::Value;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A place that holds rulesets: the kernel, or a fake of it.
///
/// Dumps are consistent: one that was disturbed by a concurrent change is read again. Reading chains, rules or sets of
/// a table that does not exist gives an empty list; reading elements of a set that does not exist is an error.
pub trait NfTables: Send {
    /// Applies all operations of the batch in order, or none of them. An empty batch does nothing.
    fn commit(&mut self, batch: &Batch) -> Result<(), CommitError>;

    fn tables(&mut self) -> Result<Vec<TableInfo>, DumpError>;
    fn chains(&mut self, table: &Table) -> Result<Vec<Chain>, DumpError>;
    /// Rules in evaluation order; of one chain, or of all chains of the table.
    fn rules(&mut self, table: &Table, chain: Option<&str>) -> Result<Vec<Handled<Rule>>, DumpError>;
    fn sets(&mut self, table: &Table) -> Result<Vec<Set>, DumpError>;
    /// Elements in no particular order, with their remaining lifetimes where they have one.
    fn elements(&mut self, table: &Table, set: &str) -> Result<Vec<Element>, DumpError>;

    /// How many elements a set has, where the kernel says so (6.17 and later).
    fn count(&mut self, _table: &Table, _set: &str) -> Result<Option<u32>, DumpError> {
        Ok(None)
    }

    /// The elements with these keys, asked for one by one: unlike [`NfTables::elements`] that takes time in proportion.
    /// `None` when one of them does not exist.
    fn elements_at(
        &mut self,
        table: &Table,
        set: &str,
        keys: &[Value],
    ) -> Result<Option<Vec<Element>>, DumpError> {
        let all = self.elements(table, set)?;
        let mut by_key: std::collections::HashMap<Value, Element> =
            all.into_iter().map(|element| (element.key.clone(), element)).collect();
        Ok(keys.iter().map(|key| by_key.remove(key)).collect())
    }

    /// Changes with every transaction of anybody in this network namespace: equal generations mean that nothing
    /// changed except what packets changed (counters, dynamic elements) and what timed out.
    fn generation(&mut self) -> Result<u32, DumpError>;
}

impl<T: NfTables + ?Sized> NfTables for Box<T> {
    fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        (**self).commit(batch)
    }
    fn tables(&mut self) -> Result<Vec<TableInfo>, DumpError> {
        (**self).tables()
    }
    fn chains(&mut self, table: &Table) -> Result<Vec<Chain>, DumpError> {
        (**self).chains(table)
    }
    fn rules(&mut self, table: &Table, chain: Option<&str>) -> Result<Vec<Handled<Rule>>, DumpError> {
        (**self).rules(table, chain)
    }
    fn sets(&mut self, table: &Table) -> Result<Vec<Set>, DumpError> {
        (**self).sets(table)
    }
    fn elements(&mut self, table: &Table, set: &str) -> Result<Vec<Element>, DumpError> {
        (**self).elements(table, set)
    }
    fn count(&mut self, table: &Table, set: &str) -> Result<Option<u32>, DumpError> {
        (**self).count(table, set)
    }
    fn elements_at(
        &mut self,
        table: &Table,
        set: &str,
        keys: &[Value],
    ) -> Result<Option<Vec<Element>>, DumpError> {
        (**self).elements_at(table, set, keys)
    }
    fn generation(&mut self) -> Result<u32, DumpError> {
        (**self).generation()
    }
}

/// A ruleset that a test looks into while the code under test changes it.
impl<T: NfTables> NfTables for Arc<Mutex<T>> {
    fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        unpoisoned(self).commit(batch)
    }
    fn tables(&mut self) -> Result<Vec<TableInfo>, DumpError> {
        unpoisoned(self).tables()
    }
    fn chains(&mut self, table: &Table) -> Result<Vec<Chain>, DumpError> {
        unpoisoned(self).chains(table)
    }
    fn rules(&mut self, table: &Table, chain: Option<&str>) -> Result<Vec<Handled<Rule>>, DumpError> {
        unpoisoned(self).rules(table, chain)
    }
    fn sets(&mut self, table: &Table) -> Result<Vec<Set>, DumpError> {
        unpoisoned(self).sets(table)
    }
    fn elements(&mut self, table: &Table, set: &str) -> Result<Vec<Element>, DumpError> {
        unpoisoned(self).elements(table, set)
    }
    fn count(&mut self, table: &Table, set: &str) -> Result<Option<u32>, DumpError> {
        unpoisoned(self).count(table, set)
    }
    fn elements_at(
        &mut self,
        table: &Table,
        set: &str,
        keys: &[Value],
    ) -> Result<Option<Vec<Element>>, DumpError> {
        unpoisoned(self).elements_at(table, set, keys)
    }
    fn generation(&mut self) -> Result<u32, DumpError> {
        unpoisoned(self).generation()
    }
}

/// A commit is all or nothing, so a panic elsewhere leaves nothing half done here.
fn unpoisoned<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

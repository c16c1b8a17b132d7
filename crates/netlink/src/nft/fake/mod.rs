//! A ruleset in memory with the kernel's own rules, for tests that need no kernel and no root.
//!
//! It refuses what the kernel refuses, with the same error numbers: references to chains and sets that are not there,
//! deletion of what is in use, elements that do not fit their set, registers read before they are written, expressions
//! in chains where they make no sense, jumps that go too deep. A batch is all or nothing.
//!
//! Reading order: [`state`] (what is held, and how a step is undone), [`apply`] (operations), [`check`] (one rule by
//! itself), [`validate`] (chains as they reach each other).
//!
//! What it does not do: pass packets; expire elements by itself (see [`Fake::advance`]); notice overlaps of
//! single-field intervals; know hardware offload, objects and flowtables.

mod apply;
mod check;
mod state;
mod validate;

use std::time::Duration;

use super::NfTables;
use super::error::{CommitError, DumpError};
use super::object::{Chain, Data, Element, Handled, Rule, Set, Table, TableInfo};
use super::op::{Batch, Op};
use state::{State, Undo};

/// An operation that the kernel would refuse.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    errno: i32,
    element: Option<usize>,
}

impl From<i32> for Refusal {
    fn from(errno: i32) -> Self {
        Self { errno, element: None }
    }
}

/// What one successful commit did, for tests that assert the cost of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub tables: usize,
    pub chains_added: usize,
    pub chains_deleted: usize,
    /// Added, inserted and replaced.
    pub rules_added: usize,
    pub rules_deleted: usize,
    pub sets_added: usize,
    pub sets_deleted: usize,
    pub elements_added: usize,
    pub elements_deleted: usize,
    /// Chains and sets emptied at one stroke.
    pub flushes: usize,
}

impl Counts {
    pub fn of(batch: &Batch) -> Self {
        let mut counts = Self::default();
        for op in &batch.ops {
            match op {
                Op::AddTable { .. } | Op::AddOwnedTable(_) | Op::DelTable(_) => counts.tables += 1,
                Op::AddChain(_) => counts.chains_added += 1,
                Op::DelChain { .. } => counts.chains_deleted += 1,
                Op::FlushChain { .. } | Op::FlushSet { .. } => counts.flushes += 1,
                Op::AddRule(_) | Op::InsertRule { .. } | Op::ReplaceRule { .. } => counts.rules_added += 1,
                Op::DelRule { .. } => counts.rules_deleted += 1,
                Op::AddSet(_) => counts.sets_added += 1,
                Op::DelSet { .. } => counts.sets_deleted += 1,
                Op::AddElements { elements, .. } => counts.elements_added += elements.len(),
                Op::DelElements { elements, .. } => counts.elements_deleted += elements.len(),
            }
        }
        counts
    }

    pub fn total(&self) -> usize {
        self.tables
            + self.chains_added
            + self.chains_deleted
            + self.rules_added
            + self.rules_deleted
            + self.sets_added
            + self.sets_deleted
            + self.elements_added
            + self.elements_deleted
            + self.flushes
    }
}

#[derive(Debug, Default)]
pub struct Fake {
    state: State,
    generation: u32,
    commits: Vec<Counts>,
    next_failure: Option<(Meant, CommitError)>,
}

/// Which operations are meant.
type Meant = fn(&Op) -> bool;

impl Fake {
    pub fn new() -> Self {
        Self::default()
    }

    /// What each successful commit so far did, oldest first.
    pub fn commits(&self) -> &[Counts] {
        &self.commits
    }

    /// The next commit fails with this error and changes nothing.
    pub fn fail_next(&mut self, error: CommitError) {
        self.fail_next_with(|_| true, error);
    }

    /// The same for the next commit that has such an operation.
    pub fn fail_next_with(&mut self, meant: Meant, error: CommitError) {
        self.next_failure = Some((meant, error));
    }

    /// Lets time pass: elements whose lifetime ends are gone.
    pub fn advance(&mut self, by: Duration) {
        self.state.advance(by);
    }

    fn apply(&mut self, batch: &Batch, validate_each: bool) -> Result<(), (usize, Refusal)> {
        let mut undo = Vec::new();
        let result = self.apply_all(batch, validate_each, &mut undo);
        if result.is_err() {
            undo.into_iter().rev().for_each(|step| self.state.undo(step));
        }
        result
    }

    fn apply_all(
        &mut self,
        batch: &Batch,
        validate_each: bool,
        undo: &mut Vec<Undo>,
    ) -> Result<(), (usize, Refusal)> {
        for (index, op) in batch.ops.iter().enumerate() {
            apply::apply(&mut self.state, op, undo).map_err(|refusal| (index, refusal))?;
            if validate_each {
                validate::tables(&self.state).map_err(|errno| (index, errno.into()))?;
            }
        }
        if !batch.ops.iter().any(adds_a_path) {
            return Ok(());
        }
        let last = batch.len().saturating_sub(1);
        validate::tables(&self.state).map_err(|errno| (last, errno.into()))
    }
}

/// Only these can make a valid ruleset invalid; as in the kernel, others do not pay for looking at all of it.
fn adds_a_path(op: &Op) -> bool {
    match op {
        Op::AddRule(_) | Op::InsertRule { .. } | Op::ReplaceRule { .. } => true,
        Op::AddElements { elements, .. } => elements.iter().any(|e| matches!(e.data, Data::Verdict(_))),
        _ => false,
    }
}

impl NfTables for Fake {
    fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        if let Some((_, error)) = self.next_failure.take_if(|(meant, _)| batch.ops.iter().any(*meant)) {
            return Err(error);
        }
        // The kernel allows a batch to pass through states that are not valid. Only when the last one is not, it goes
        // through the batch again, with more care, to find the operation to blame.
        let result = self.apply(batch, false).or_else(|_| self.apply(batch, true));
        result.map_err(|(index, Refusal { errno, element })| {
            CommitError::of_errno(errno, Some(index), batch.ops[index].describe(element), None)
        })?;
        if batch.weight() > 0 {
            self.generation = self.generation.wrapping_add(1);
        }
        self.commits.push(Counts::of(batch));
        Ok(())
    }

    fn tables(&mut self) -> Result<Vec<TableInfo>, DumpError> {
        let info = |(table, state): (&Table, &state::TableState)| TableInfo {
            table: table.clone(),
            comment: state.comment.clone(),
            handle: state.handle,
        };
        Ok(self.state.tables.iter().map(info).collect())
    }

    fn chains(&mut self, table: &Table) -> Result<Vec<Chain>, DumpError> {
        let Some(state) = self.state.tables.get(table) else { return Ok(Vec::new()) };
        Ok(state.chains.values().map(|chain| chain.chain.clone()).collect())
    }

    fn rules(&mut self, table: &Table, chain: Option<&str>) -> Result<Vec<Handled<Rule>>, DumpError> {
        let Some(state) = self.state.tables.get(table) else { return Ok(Vec::new()) };
        let wanted = state.chains.iter().filter(|(name, _)| chain.is_none_or(|chain| chain == &***name));
        Ok(wanted.flat_map(|(_, chain)| chain.rules.iter().cloned()).collect())
    }

    fn sets(&mut self, table: &Table) -> Result<Vec<Set>, DumpError> {
        let Some(state) = self.state.tables.get(table) else { return Ok(Vec::new()) };
        Ok(state.sets.values().map(|set| set.set.clone()).collect())
    }

    fn elements(&mut self, table: &Table, set: &str) -> Result<Vec<Element>, DumpError> {
        let found = self.state.tables.get(table).and_then(|state| state.sets.get(set));
        let missing = || DumpError::Missing { what: format!("set {table} {set}") };
        Ok(found.ok_or_else(missing)?.elements.values().cloned().collect())
    }

    fn generation(&mut self) -> Result<u32, DumpError> {
        Ok(self.generation)
    }
}

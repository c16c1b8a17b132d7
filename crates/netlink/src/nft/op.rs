//! Operations and the batch that makes them one transaction.

use std::fmt;
use std::sync::Arc;

use super::object::{Chain, Element, Name, Rule, Set, Table};

/// One change. Adding what is there already with the same content is no error, as with `nft add`; an element that is
/// there with *other* data is. Deleting what is missing is an error.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    AddTable {
        table: Table,
        comment: Option<Arc<str>>,
    },
    /// A table that goes when the socket that made it is closed, also by a crash, and that nobody else may change
    /// (Linux 5.12).
    AddOwnedTable(Table),
    /// Deletes the table with everything in it.
    DelTable(Table),
    /// On an existing base chain, changes its policy.
    AddChain(Chain),
    /// The chain must be empty of references; its rules go with it.
    DelChain {
        table: Table,
        chain: Name,
    },
    /// Deletes all rules of a chain.
    FlushChain {
        table: Table,
        chain: Name,
    },
    /// Appends a rule at the end of its chain.
    AddRule(Rule),
    /// Puts a rule before the one with this handle, or first in its chain.
    InsertRule {
        rule: Rule,
        before: Option<u64>,
    },
    /// Puts a rule in the place of the one with this handle.
    ReplaceRule {
        rule: Rule,
        handle: u64,
    },
    DelRule {
        table: Table,
        chain: Name,
        handle: u64,
    },
    AddSet(Set),
    DelSet {
        table: Table,
        set: Name,
    },
    /// Deletes all elements of a set.
    FlushSet {
        table: Table,
        set: Name,
    },
    AddElements {
        table: Table,
        set: Name,
        elements: Vec<Element>,
    },
    /// Deletes elements by key; data is ignored. In a concatenated interval set the kernel deletes the range that
    /// *holds* the first key, and does not compare where the ranges end.
    DelElements {
        table: Table,
        set: Name,
        elements: Vec<Element>,
    },
}

impl Op {
    /// The operation in words, naming the element when one of several is meant.
    pub(crate) fn describe(&self, element: Option<usize>) -> String {
        match (self, element) {
            (Self::AddElements { elements, .. } | Self::DelElements { elements, .. }, Some(index)) => {
                elements
                    .get(index)
                    .map_or_else(|| self.to_string(), |element| format!("{self}: {:?}", element.key))
            }
            _ => self.to_string(),
        }
    }

    /// The table the operation works in, and the name of the object in it.
    pub(crate) fn names(&self) -> (&Table, Option<&Name>) {
        match self {
            Self::AddTable { table, .. } | Self::AddOwnedTable(table) | Self::DelTable(table) => {
                (table, None)
            }
            Self::AddChain(chain) => (&chain.table, Some(&chain.name)),
            Self::AddRule(rule) | Self::InsertRule { rule, .. } | Self::ReplaceRule { rule, .. } => {
                (&rule.table, Some(&rule.chain))
            }
            Self::AddSet(set) => (&set.table, Some(&set.name)),
            Self::DelChain { table, chain: name }
            | Self::FlushChain { table, chain: name }
            | Self::DelRule { table, chain: name, .. }
            | Self::DelSet { table, set: name }
            | Self::FlushSet { table, set: name }
            | Self::AddElements { table, set: name, .. }
            | Self::DelElements { table, set: name, .. } => (table, Some(name)),
        }
    }

    /// The table the operation works in, to be made another.
    pub fn table_mut(&mut self) -> &mut Table {
        match self {
            Self::AddChain(chain) => &mut chain.table,
            Self::AddRule(rule) | Self::InsertRule { rule, .. } | Self::ReplaceRule { rule, .. } => {
                &mut rule.table
            }
            Self::AddSet(set) => &mut set.table,
            Self::AddTable { table, .. }
            | Self::AddOwnedTable(table)
            | Self::DelTable(table)
            | Self::DelChain { table, .. }
            | Self::FlushChain { table, .. }
            | Self::DelRule { table, .. }
            | Self::DelSet { table, .. }
            | Self::FlushSet { table, .. }
            | Self::AddElements { table, .. }
            | Self::DelElements { table, .. } => table,
        }
    }

    /// How many kernel objects the operation touches by itself: elements count one each.
    pub fn weight(&self) -> usize {
        match self {
            Self::AddElements { elements, .. } | Self::DelElements { elements, .. } => elements.len(),
            _ => 1,
        }
    }
}

/// One line for logs and errors, in the words of `nft`.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTable { table, .. } => write!(f, "add table {table}"),
            Self::AddOwnedTable(table) => write!(f, "add table {table} {{ flags owner; }}"),
            Self::DelTable(table) => write!(f, "delete table {table}"),
            Self::AddChain(chain) => write!(f, "add chain {} {}", chain.table, chain.name),
            Self::DelChain { table, chain } => write!(f, "delete chain {table} {chain}"),
            Self::FlushChain { table, chain } => write!(f, "flush chain {table} {chain}"),
            Self::AddRule(rule) => write!(f, "add rule {} {}{}", rule.table, rule.chain, Comment(rule)),
            Self::InsertRule { rule, .. } => {
                write!(f, "insert rule {} {}{}", rule.table, rule.chain, Comment(rule))
            }
            Self::ReplaceRule { rule, handle } => {
                write!(f, "replace rule {} {} handle {handle}{}", rule.table, rule.chain, Comment(rule))
            }
            Self::DelRule { table, chain, handle } => {
                write!(f, "delete rule {table} {chain} handle {handle}")
            }
            Self::AddSet(set) => write!(f, "add set {} {}", set.table, set.name),
            Self::DelSet { table, set } => write!(f, "delete set {table} {set}"),
            Self::FlushSet { table, set } => write!(f, "flush set {table} {set}"),
            Self::AddElements { table, set, elements } => {
                write!(f, "add {} element(s) to {table} {set}", elements.len())
            }
            Self::DelElements { table, set, elements } => {
                write!(f, "delete {} element(s) from {table} {set}", elements.len())
            }
        }
    }
}

struct Comment<'a>(&'a Rule);

impl fmt::Display for Comment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.comment.as_ref().map_or(Ok(()), |comment| write!(f, " ({comment})"))
    }
}

/// Operations that take effect together, in this order, or not at all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    pub ops: Vec<Op>,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Objects touched, elements counted one each: the cost of the batch.
    pub fn weight(&self) -> usize {
        self.ops.iter().map(Op::weight).sum()
    }
}

impl FromIterator<Op> for Batch {
    fn from_iter<I: IntoIterator<Item = Op>>(ops: I) -> Self {
        Self { ops: ops.into_iter().collect() }
    }
}

impl Extend<Op> for Batch {
    fn extend<I: IntoIterator<Item = Op>>(&mut self, ops: I) {
        self.ops.extend(ops);
    }
}

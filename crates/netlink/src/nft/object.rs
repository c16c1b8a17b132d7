//! Tables, chains, rules, sets and elements.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::datatype::KeyType;
use super::expr::Expr;
use super::value::Value;

/// A table's, chain's or set's name. At most 255 bytes, no NUL; a commit refuses others.
pub type Name = Arc<str>;

/// The address family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 and IPv6 in one table.
    Inet,
    Ip,
    Ip6,
    /// A family we make no tables in (arp, bridge, netdev), by its number.
    Other(u8),
}

impl Family {
    pub const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Ip6 => 10,
            Self::Other(number) => number,
        }
    }

    pub(crate) const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Inet,
            2 => Self::Ip,
            10 => Self::Ip6,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet => f.write_str("inet"),
            Self::Ip => f.write_str("ip"),
            Self::Ip6 => f.write_str("ip6"),
            Self::Other(number) => write!(f, "family {number}"),
        }
    }
}

/// Which table: family and name together identify it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table {
    pub family: Family,
    pub name: Name,
}

impl Table {
    pub fn new(family: Family, name: impl Into<Name>) -> Self {
        Self { family, name: name.into() }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

/// A table as a dump gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    pub table: Table,
    pub comment: Option<Arc<str>>,
    pub handle: u64,
}

/// Something a dump found, with the number by which the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handled<T> {
    pub handle: u64,
    pub item: T,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Chain {
    pub table: Table,
    pub name: Name,
    /// Set for a chain that a hook calls; other chains are reached by `jump` and `goto`.
    pub base: Option<Base>,
    pub comment: Option<Arc<str>>,
}

impl Chain {
    /// A chain reached by `jump` and `goto` only.
    pub fn regular(table: &Table, name: impl Into<Name>) -> Self {
        Self { table: table.clone(), name: name.into(), base: None, comment: None }
    }

    /// A chain that a hook calls.
    pub fn base(table: &Table, name: impl Into<Name>, base: Base) -> Self {
        Self { base: Some(base), ..Self::regular(table, name) }
    }

    #[must_use]
    pub fn with_comment(self, comment: impl Into<Arc<str>>) -> Self {
        Self { comment: Some(comment.into()), ..self }
    }
}

/// How a chain is tied to a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Base {
    pub kind: ChainKind,
    pub hook: Hook,
    pub priority: i32,
    pub policy: Policy,
}

/// The usual priorities of base chains; lower runs first.
pub mod priority {
    pub const RAW: i32 = -300;
    pub const MANGLE: i32 = -150;
    pub const DSTNAT: i32 = -100;
    pub const FILTER: i32 = 0;
    pub const SRCNAT: i32 = 100;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChainKind {
    Filter,
    Nat,
    Route,
}

impl ChainKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    Drop = 0,
    Accept = 1,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    pub table: Table,
    pub chain: Name,
    pub exprs: Vec<Expr>,
    /// Shown by `nft list`, at most 128 bytes by its rules (the kernel's limit is 253).
    pub comment: Option<Arc<str>>,
}

impl Rule {
    pub fn new(table: &Table, chain: impl Into<Name>, exprs: Vec<Expr>) -> Self {
        Self { table: table.clone(), chain: chain.into(), exprs, comment: None }
    }

    #[must_use]
    pub fn with_comment(self, comment: impl Into<Arc<str>>) -> Self {
        Self { comment: Some(comment.into()), ..self }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    Accept,
    Drop,
    Continue,
    Return,
    Jump(Name),
    Goto(Name),
    /// A verdict this project never makes (queue, break), by its number.
    Other(i32),
}

impl Verdict {
    pub fn jump(chain: impl Into<Name>) -> Self {
        Self::Jump(chain.into())
    }

    pub fn goto(chain: impl Into<Name>) -> Self {
        Self::Goto(chain.into())
    }

    pub(crate) const fn code(&self) -> i32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Continue => -1,
            Self::Jump(_) => -3,
            Self::Goto(_) => -4,
            Self::Return => -5,
            Self::Other(code) => *code,
        }
    }

    pub(crate) fn from_code(code: i32, chain: Option<&str>) -> Self {
        match (code, chain) {
            (0, _) => Self::Drop,
            (1, _) => Self::Accept,
            (-1, _) => Self::Continue,
            (-3, Some(chain)) => Self::jump(chain),
            (-4, Some(chain)) => Self::goto(chain),
            (-5, _) => Self::Return,
            (code, _) => Self::Other(code),
        }
    }

    /// The chain this verdict refers to.
    pub fn chain(&self) -> Option<&Name> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            _ => None,
        }
    }
}

/// A set (no data), a map (data values) or a verdict map.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Set {
    pub table: Table,
    pub name: Name,
    pub key: KeyType,
    pub data: SetData,
    pub flags: SetFlags,
    /// Lifetime of elements that do not bring their own.
    pub timeout: Option<Duration>,
    /// How often expired elements are collected; the kernel's choice when absent.
    pub gc_interval: Option<Duration>,
    /// Most elements the set may hold. Sets filled by packets should have one.
    pub size: Option<u32>,
    pub comment: Option<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SetData {
    None,
    Verdict,
    Value(KeyType),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SetFlags {
    /// Elements are ranges. With a single field a range is two elements, the second with `interval_end`; with a
    /// concatenation one element with `key_end`.
    pub interval: bool,
    /// Elements may expire.
    pub timeout: bool,
    /// Rules add and delete elements as packets pass.
    pub dynamic: bool,
    pub constant: bool,
    pub anonymous: bool,
}

impl Set {
    pub fn new(table: &Table, name: impl Into<Name>, key: impl Into<KeyType>) -> Self {
        Self {
            table: table.clone(),
            name: name.into(),
            key: key.into(),
            data: SetData::None,
            flags: SetFlags::default(),
            timeout: None,
            gc_interval: None,
            size: None,
            comment: None,
        }
    }

    pub fn map(
        table: &Table,
        name: impl Into<Name>,
        key: impl Into<KeyType>,
        data: impl Into<KeyType>,
    ) -> Self {
        Self { data: SetData::Value(data.into()), ..Self::new(table, name, key) }
    }

    pub fn vmap(table: &Table, name: impl Into<Name>, key: impl Into<KeyType>) -> Self {
        Self { data: SetData::Verdict, ..Self::new(table, name, key) }
    }

    #[must_use]
    pub fn with_interval(mut self) -> Self {
        self.flags.interval = true;
        self
    }

    /// Elements expire after this long unless they bring their own timeout.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.flags.timeout = true;
        self.timeout = Some(timeout);
        self
    }

    #[must_use]
    pub fn with_dynamic(mut self) -> Self {
        self.flags.dynamic = true;
        self
    }

    #[must_use]
    pub fn with_size(mut self, size: u32) -> Self {
        self.size = Some(size);
        self
    }

    #[must_use]
    pub fn with_comment(mut self, comment: impl Into<Arc<str>>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// Ranges over several fields at once: the kernel wants to know the length of each field.
    pub fn is_concat_interval(&self) -> bool {
        self.flags.interval && self.key.is_concat()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Data {
    #[default]
    None,
    Value(Value),
    Verdict(Verdict),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Element {
    pub key: Value,
    /// Last key of a range in a concatenated interval set, inclusive.
    pub key_end: Option<Value>,
    pub data: Data,
    pub timeout: Option<Duration>,
    /// Remaining lifetime. Dumps fill it in; on an added element it sets the first lifetime.
    pub expires: Option<Duration>,
    pub comment: Option<Box<str>>,
    /// First key *behind* a range of a single-field interval set.
    pub interval_end: bool,
    /// Matches every key that no other element matches; its own key is ignored.
    pub catchall: bool,
}

impl Element {
    pub fn new(key: impl Into<Value>) -> Self {
        Self { key: key.into(), ..Self::default() }
    }

    pub fn map(key: impl Into<Value>, data: impl Into<Value>) -> Self {
        Self { data: Data::Value(data.into()), ..Self::new(key) }
    }

    pub fn verdict(key: impl Into<Value>, verdict: Verdict) -> Self {
        Self { data: Data::Verdict(verdict), ..Self::new(key) }
    }

    /// One range of a concatenated interval set; both ends belong to it.
    pub fn range(first: impl Into<Value>, last: impl Into<Value>) -> Self {
        Self { key_end: Some(last.into()), ..Self::new(first) }
    }

    /// The end marker of a single-field interval: the first key behind it.
    pub fn end(key: impl Into<Value>) -> Self {
        Self { interval_end: true, ..Self::new(key) }
    }

    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    #[must_use]
    pub fn with_comment(self, comment: impl Into<Box<str>>) -> Self {
        Self { comment: Some(comment.into()), ..self }
    }
}

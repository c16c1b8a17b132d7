//! Objects as keys and values.

use std::fmt;
use std::sync::Arc;

use portolan_forward::{Family, Protocol};

use super::layout::{Hook, Table, family_name};
use super::rules::{Masked, Match, Name, Rule};

/// What identifies an object of ours.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// The rules of a chain of iptables' own that lead to our chains.
    Hook(Family, Table, Hook),
    /// A chain with all its rules.
    Chain(Family, Table, Name),
    /// Some rules of a chain that many Services share: those that match this.
    Member(Family, Table, Name, Selector),
}

impl Key {
    pub fn family(&self) -> Family {
        match self {
            Self::Hook(family, ..) | Self::Chain(family, ..) | Self::Member(family, ..) => *family,
        }
    }

    pub fn table(&self) -> Table {
        match self {
            Self::Hook(_, table, _) | Self::Chain(_, table, _) | Self::Member(_, table, ..) => *table,
        }
    }
}

/// The rules, in order.
pub type Object = Arc<[Rule]>;

pub type Objects = crate::Objects<Key, Object>;

/// What rules of a shared chain match, and so whose they are. Their order is that of the rules in the chain.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Selector {
    /// An address, protocol and port, or a port alone.
    Frontend {
        destination: Option<Masked>,
        protocol: Protocol,
        first: u16,
        last: u16,
    },
    /// A whole address, behind those with ports.
    Destination(Masked),
    Source(Masked),
    /// Rules that we would never write.
    Foreign(Arc<str>),
}

impl Selector {
    /// By what the rule matches.
    pub fn of(rule: &Rule) -> Self {
        let (mut source, mut destination, mut protocol, mut ports) = (None, None, None, None);
        for found in rule.matches() {
            match found {
                Match::Source { within, invert: false } => source = Some(*within),
                Match::Destination { within, invert: false } => destination = Some(*within),
                Match::Protocol(of_rule) => protocol = Some(*of_rule),
                Match::DestinationPort(first, last) => ports = Some((*first, *last)),
                _ => {}
            }
        }
        match (source, destination, protocol.zip(ports)) {
            (None, destination, Some((protocol, (first, last)))) => {
                Self::Frontend { destination, protocol, first, last }
            }
            (None, Some(destination), None) => Self::Destination(destination),
            (Some(source), _, None) => Self::Source(source),
            _ => Self::Foreign(rule.to_string().into()),
        }
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frontend { destination, protocol, first, last } => {
                if let Some(destination) = destination {
                    write!(f, "-d {destination} ")?;
                }
                write!(f, "-p {} --dport {first}", protocol.as_str().to_ascii_lowercase())?;
                if first == last { Ok(()) } else { write!(f, ":{last}") }
            }
            Self::Destination(within) => write!(f, "-d {within}"),
            Self::Source(within) => write!(f, "-s {within}"),
            Self::Foreign(text) => f.write_str(text),
        }
    }
}

/// In the words of iptables, for people who look for drift.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", family_name(self.family()), self.table().as_str())?;
        match self {
            Self::Hook(_, _, hook) => write!(f, "{} to ours", hook.as_str()),
            Self::Chain(_, _, name) => write!(f, "chain {name}"),
            Self::Member(_, _, name, selector) => write!(f, "{name} {selector:?}"),
        }
    }
}

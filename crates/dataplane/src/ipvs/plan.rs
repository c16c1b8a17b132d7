//! Changes in an order that no packet minds: what the front will lead to exists before it does, and what goes is no
//! longer led to. Within a pool new destinations come before old ones go. What the front needs for an endpoint that
//! reaches itself is there before IPVS may choose the endpoint, and stays until it no longer does.

use std::collections::HashSet;
use std::net::IpAddr;

use portolan_netlink::ipvs::{Destination, Op, Server, ServerKey};

use super::layout::{Setting, WEIGHT};
use super::object::{Key, Value};
use super::terminating::Terminating;
use crate::Change;
use portolan_forward::Family;

/// A destination by its server.
pub type Place = (ServerKey, IpAddr, u16);

/// `B` is the front's batch.
#[derive(Debug)]
pub struct Batch<B> {
    pub settings: Vec<Setting>,
    pub ranges: Vec<Family>,
    /// Before the front changes.
    pub before: Vec<Op>,
    pub front: Option<B>,
    /// After it has.
    pub after: Vec<Op>,
    /// What the front needs no more when all that is done.
    pub last: Option<B>,
    /// Destinations that get no new connections from now on, and that go when they have none.
    pub retired: Vec<Place>,
    /// Such ones that are wanted again.
    pub revived: Vec<Place>,
    /// Virtual servers that go, with all destinations they have.
    pub gone: Vec<ServerKey>,
}

/// Sorts the changes. `front` makes a batch of the front from its own changes.
pub fn plan<K, V, B>(
    changes: Vec<Change<Key<K>, Value<V>>>,
    terminating: &Terminating,
    is_for_hairpin: impl Fn(&K) -> bool,
    front: impl Fn(Vec<Change<K, V>>) -> B,
) -> Batch<B> {
    let gone = servers(&changes, |change| change.to.is_none());
    let new = servers(&changes, |change| change.from.is_none());
    let mut batch = Batch {
        settings: Vec::new(),
        ranges: Vec::new(),
        before: Vec::new(),
        front: None,
        after: Vec::new(),
        last: None,
        retired: Vec::new(),
        revived: Vec::new(),
        gone: Vec::new(),
    };
    let (mut fronts, mut last) = (Vec::new(), Vec::new());
    let mut removals = Vec::new();
    // By key, so servers come before their destinations.
    for change in changes {
        match (change.key, change.from, change.to) {
            (Key::Setting(setting), _, Some(_)) => batch.settings.push(setting),
            (Key::Range(family), _, Some(_)) => batch.ranges.push(family),
            // What belongs to the node goes by cleanup only.
            (Key::Setting(_) | Key::Range(_), _, None) => {}
            (Key::Server(key), from, Some(Value::Server { scheduler, persistence })) => {
                let server = Server { key, scheduler, persistence };
                batch.before.push(if from.is_some() { Op::SetServer(server) } else { Op::NewServer(server) });
            }
            (Key::Server(key), ..) => batch.gone.push(key),
            (Key::Destination(server, ..), _, None) if gone.contains(&server) => {}
            (Key::Destination(server, address, port), from, None) => {
                let waits = matches!(from, Some(Value::Destination { waits: true, .. }));
                removals.extend(batch.leaves((server, address, port), waits, terminating));
            }
            // How it leaves is for us to know.
            (
                Key::Destination(..),
                Some(Value::Destination { weight: from, .. }),
                Some(Value::Destination { weight: to, .. }),
            ) if from == to => {}
            (Key::Destination(server, address, port), from, Some(_)) => {
                let op = batch.comes((server, address, port), from.is_some(), terminating);
                if new.contains(&server) { batch.before.push(op) } else { batch.after.push(op) }
            }
            (Key::Front(key), from, to) => {
                let list = if to.is_none() && is_for_hairpin(&key) { &mut last } else { &mut fronts };
                list.push(Change { key, from: from.and_then(front_value), to: to.and_then(front_value) });
            }
        }
    }
    batch.after.extend(removals);
    batch.after.extend(batch.gone.iter().map(|key| Op::DelServer(*key)));
    let some = |changes: Vec<_>| (!changes.is_empty()).then(|| front(changes));
    (batch.front, batch.last) = (some(fronts), some(last));
    batch
}

/// The virtual servers among the changes of a kind.
fn servers<K, V>(
    changes: &[Change<Key<K>, Value<V>>],
    of: impl Fn(&Change<Key<K>, Value<V>>) -> bool,
) -> HashSet<ServerKey> {
    let key = |change: &Change<Key<K>, Value<V>>| match change.key {
        Key::Server(key) if of(change) => Some(key),
        _ => None,
    };
    changes.iter().filter_map(key).collect()
}

fn front_value<V>(value: Value<V>) -> Option<V> {
    match value {
        Value::Front(value) => Some(value),
        _ => None,
    }
}

impl<B> Batch<B> {
    fn leaves(&mut self, place: Place, waits: bool, terminating: &Terminating) -> Option<Op> {
        let (server, address, port) = place;
        if !waits {
            return Some(Op::DelDestination(server, address, port));
        }
        self.retired.push(place);
        let weightless = Destination { address, port, weight: 0 };
        (!terminating.contains(&place)).then_some(Op::SetDestination(server, weightless))
    }

    fn comes(&mut self, place: Place, was: bool, terminating: &Terminating) -> Op {
        let (server, address, port) = place;
        let destination = Destination { address, port, weight: WEIGHT };
        let revived = terminating.contains(&place);
        if revived {
            self.revived.push(place);
        }
        if was || revived {
            Op::SetDestination(server, destination)
        } else {
            Op::NewDestination(server, destination)
        }
    }

    /// How much it comes to; `front` says that of a batch of the front.
    pub fn weight(&self, front: impl Fn(&B) -> usize) -> usize {
        let own = self.settings.len() + self.ranges.len() + self.before.len() + self.after.len();
        own + self.front.iter().chain(&self.last).map(front).sum::<usize>()
    }
}

//! Changes in an order that no packet minds: what the front will lead to exists before it does, and what goes is no
//! longer led to. Within a pool new destinations come before old ones go.

use std::collections::HashSet;
use std::net::IpAddr;

use portolan_forward::Protocol;
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
    /// Destinations that get no new connections from now on, and that go when they have none.
    pub retired: Vec<Place>,
    /// Such ones that are wanted again.
    pub revived: Vec<Place>,
    /// Virtual servers that go, with all destinations they have.
    pub gone: Vec<ServerKey>,
}

/// Sorts the changes. `front` makes the front's batch from its own.
pub fn plan<K, V, B>(
    changes: Vec<Change<Key<K>, Value<V>>>,
    terminating: &Terminating,
    front: impl FnOnce(Vec<Change<K, V>>) -> B,
) -> Batch<B> {
    let gone: HashSet<ServerKey> = changes.iter().filter_map(going_server).collect();
    let mut batch = Batch {
        settings: Vec::new(),
        ranges: Vec::new(),
        before: Vec::new(),
        front: None,
        after: Vec::new(),
        retired: Vec::new(),
        revived: Vec::new(),
        gone: Vec::new(),
    };
    let mut fronts = Vec::new();
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
            (Key::Destination(server, address, port), from, to) => {
                batch.destination((server, address, port), from.is_some(), to.is_some(), terminating);
            }
            (Key::Front(key), from, to) => {
                fronts.push(Change { key, from: from.and_then(front_value), to: to.and_then(front_value) });
            }
        }
    }
    batch.after.extend(batch.gone.iter().map(|key| Op::DelServer(*key)));
    if !fronts.is_empty() {
        batch.front = Some(front(fronts));
    }
    batch
}

fn going_server<K, V>(change: &Change<Key<K>, Value<V>>) -> Option<ServerKey> {
    match (&change.key, &change.to) {
        (Key::Server(key), None) => Some(*key),
        _ => None,
    }
}

fn front_value<V>(value: Value<V>) -> Option<V> {
    match value {
        Value::Front(value) => Some(value),
        _ => None,
    }
}

impl<B> Batch<B> {
    fn destination(&mut self, place: Place, was: bool, will_be: bool, terminating: &Terminating) {
        let (server, address, port) = place;
        let destination = Destination { address, port, weight: WEIGHT };
        if !will_be {
            if !waits_for_its_connections(&server) {
                // CT-2: its flows are to be given another endpoint at once.
                self.after.push(Op::DelDestination(server, address, port));
                return;
            }
            if !terminating.contains(&place) {
                self.after.push(Op::SetDestination(server, Destination { weight: 0, ..destination }));
            }
            self.retired.push(place);
        } else if terminating.contains(&place) {
            self.revived.push(place);
            self.before.push(Op::SetDestination(server, destination));
        } else if was {
            self.before.push(Op::SetDestination(server, destination));
        } else {
            self.before.push(Op::NewDestination(server, destination));
        }
    }

    pub fn weight(&self, front: impl FnOnce(&B) -> usize) -> usize {
        let own = self.settings.len() + self.ranges.len() + self.before.len() + self.after.len();
        own + self.front.as_ref().map_or(0, front)
    }
}

fn waits_for_its_connections(server: &ServerKey) -> bool {
    match server {
        ServerKey::Address { protocol, .. } => *protocol != Protocol::Udp.number(),
        ServerKey::Mark { .. } => true,
    }
}

//! Destinations of weight 0: they left their pool and keep what connections they have.
//!
//! In the kernel they look like any other, so they are hidden from what is observed, and known by their weight after
//! a restart. Connections themselves do not depend on them: connection tracking carries those. But who looks at IPVS
//! sees where they are, and an endpoint that comes back soon finds its count of connections as it was.

use std::collections::HashMap;
use std::time::Instant;

use portolan_netlink::ipvs::{DestinationState, Op, ServerKey};

use super::layout::{TERMINATING_MAX, TERMINATION_MAX};
use super::plan::Place;

#[derive(Debug, Default)]
pub struct Terminating {
    since: HashMap<Place, Instant>,
}

impl Terminating {
    pub fn contains(&self, place: &Place) -> bool {
        self.since.contains_key(place)
    }

    pub fn len(&self) -> usize {
        self.since.len()
    }

    pub fn is_empty(&self) -> bool {
        self.since.is_empty()
    }

    /// Those that find no place must go at once.
    pub fn add(&mut self, places: Vec<Place>, now: Instant) -> Vec<Op> {
        let mut too_many = Vec::new();
        for place in places {
            if self.since.len() < TERMINATING_MAX || self.since.contains_key(&place) {
                self.since.entry(place).or_insert(now);
            } else {
                too_many.push(delete(&place));
            }
        }
        too_many
    }

    pub fn forget(&mut self, place: &Place) {
        self.since.remove(place);
    }

    pub fn forget_server(&mut self, server: &ServerKey) {
        self.since.retain(|(of, ..), _| of != server);
    }

    pub fn clear(&mut self) {
        self.since.clear();
    }

    /// The virtual servers that have such destinations, those that wait longest first.
    pub fn servers(&self, max: usize) -> Vec<ServerKey> {
        let mut waiting: Vec<_> = self.since.iter().map(|(place, since)| (*since, place.0)).collect();
        waiting.sort_unstable();
        waiting.dedup_by_key(|(_, server)| *server);
        waiting.into_iter().map(|(_, server)| server).take(max).collect()
    }

    /// Which of a virtual server's destinations may go, after a look at it. What is no longer there is forgotten.
    pub fn done(&mut self, server: &ServerKey, states: &[DestinationState], now: Instant) -> Vec<Op> {
        let mut done = Vec::new();
        self.since.retain(|place, since| {
            if place.0 != *server {
                return true;
            }
            let state = states.iter().find(|state| is_at(state, place));
            let Some(state) = state.filter(|state| state.destination.weight == 0) else { return false };
            let over = state.connections() == 0 || now.duration_since(*since) >= TERMINATION_MAX;
            if over {
                done.push(delete(place));
            }
            !over
        });
        done
    }
}

fn is_at(state: &DestinationState, place: &Place) -> bool {
    (state.destination.address, state.destination.port) == (place.1, place.2)
}

fn delete(place: &Place) -> Op {
    Op::DelDestination(place.0, place.1, place.2)
}

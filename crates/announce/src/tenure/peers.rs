//! The other announcers: who was heard when, and who may own an address.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Mac;
use crate::beat::{Beat, Stage};
use crate::claims::Announcer;

/// Beyond this many names somebody makes them up.
const PEERS_MAX: usize = 10_000;

#[derive(Debug)]
struct Peer {
    incarnation: u64,
    sequence: u64,
    heard: Instant,
    alive: bool,
    stage: Stage,
    macs: Vec<Mac>,
    unable: HashSet<IpAddr>,
}

/// How well a node is placed to own an address: others are preferred to those in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Ready,
    Doubtful,
}

impl Standing {
    pub(super) fn of(stage: Stage) -> Option<Self> {
        match stage {
            Stage::Ready => Some(Self::Ready),
            Stage::Doubtful => Some(Self::Doubtful),
            Stage::Joining | Stage::Leaving => None,
        }
    }
}

/// What a beat meant.
#[derive(Debug)]
pub struct Ears {
    pub(super) name: Arc<str>,
    /// It knows nothing of us yet.
    pub(super) new: bool,
    /// It may own more or less than before.
    pub(super) changed: bool,
}

#[derive(Debug)]
pub(super) struct Peers {
    dead_after: Duration,
    heard: HashMap<Arc<str>, Peer>,
    announcers: BTreeMap<Arc<str>, Announcer>,
}

impl Peers {
    pub(super) fn new(dead_after: Duration) -> Self {
        Self { dead_after, heard: HashMap::new(), announcers: BTreeMap::new() }
    }

    pub(super) fn set_announcers(&mut self, announcers: BTreeMap<Arc<str>, Announcer>) {
        self.announcers = announcers;
    }

    pub(super) fn audience(&self, me: &Arc<str>) -> impl Iterator<Item = IpAddr> {
        let others = self.announcers.iter().filter(move |(name, _)| *name != me);
        others.filter_map(|(_, announcer)| announcer.addresses.first().copied())
    }

    /// `None`: heard before, or older than what was heard. A beat that has waited long says what its sender said, and not
    /// that it lives.
    pub(super) fn hear(&mut self, beat: &Beat, arrived: Instant, now: Instant) -> Option<Ears> {
        let name: Arc<str> = Arc::from(beat.node.as_str());
        let fresh = now.saturating_duration_since(arrived) < self.dead_after;
        let Some(peer) = self.heard.get_mut(&name) else {
            if self.heard.len() >= PEERS_MAX {
                return None;
            }
            let peer = Peer {
                incarnation: beat.incarnation,
                sequence: beat.sequence,
                heard: arrived,
                alive: fresh,
                stage: beat.stage,
                macs: beat.macs.clone(),
                unable: HashSet::new(),
            };
            self.heard.insert(Arc::clone(&name), peer);
            return Some(Ears { name, new: true, changed: true });
        };
        if (beat.incarnation, beat.sequence) <= (peer.incarnation, peer.sequence) {
            return None;
        }
        let new = beat.incarnation > peer.incarnation;
        // Back from the dead: it may have forgotten, or missed, what was said.
        let forgot = new || (fresh && !peer.alive);
        if forgot {
            // What it cannot do it says anew, again and again.
            peer.unable.clear();
        }
        let changed = forgot || peer.stage != beat.stage;
        (peer.incarnation, peer.sequence) = (beat.incarnation, beat.sequence);
        (peer.heard, peer.stage) = (peer.heard.max(arrived), beat.stage);
        peer.alive |= fresh;
        peer.macs.clone_from(&beat.macs);
        Some(Ears { name, new: forgot, changed })
    }

    pub(super) fn set_unable(&mut self, name: &Arc<str>, ip: IpAddr, unable: bool) {
        let Some(peer) = self.heard.get_mut(name) else { return };
        if unable {
            peer.unable.insert(ip);
        } else {
            peer.unable.remove(&ip);
        }
    }

    /// Marks those who have been silent for too long; whether there were any.
    pub(super) fn bury(&mut self, now: Instant) -> bool {
        let mut any = false;
        for (name, peer) in &mut self.heard {
            if peer.alive && now.saturating_duration_since(peer.heard) >= self.dead_after {
                tracing::info!(node = %name, "not heard any more");
                peer.alive = false;
                any = true;
            }
        }
        any
    }

    /// When the next one is dead if nothing is heard.
    pub(super) fn next_burial(&self) -> Option<Instant> {
        let alive = self.heard.values().filter(|peer| peer.alive);
        alive.map(|peer| peer.heard + self.dead_after).min()
    }

    /// Whether somebody who seems alive has not been heard since then.
    pub(super) fn any_silent_since(&self, then: Instant) -> bool {
        self.heard.values().any(|peer| peer.alive && peer.heard < then)
    }

    pub(super) fn any_known(&self) -> bool {
        !self.heard.is_empty()
    }

    pub(super) fn any_heard(&self, now: Instant) -> bool {
        self.count_heard(now) > 0
    }

    pub(super) fn count_heard(&self, now: Instant) -> usize {
        self.heard.keys().filter(|name| self.is_heard(name, now)).count()
    }

    pub(super) fn is_heard(&self, name: &Arc<str>, now: Instant) -> bool {
        self.heard
            .get(name)
            .is_some_and(|peer| peer.alive && now.saturating_duration_since(peer.heard) < self.dead_after)
    }

    /// How well it is placed to own the address. Where nobody at all is heard, beats may not get through here, and the
    /// Leases say who lives.
    pub(super) fn standing(&self, name: &Arc<str>, ip: IpAddr, now: Instant) -> Option<Standing> {
        let Some(peer) = self.heard.get(name) else {
            let counts = self.heard.is_empty() && self.announcers.get(name).is_some_and(|other| other.fresh);
            return counts.then_some(Standing::Ready);
        };
        let able = self.is_heard(name, now) && !peer.unable.contains(&ip);
        Standing::of(peer.stage).filter(|_| able)
    }

    pub(super) fn has_mac(&self, mac: Mac) -> bool {
        self.heard.values().any(|peer| peer.macs.contains(&mac))
    }
}

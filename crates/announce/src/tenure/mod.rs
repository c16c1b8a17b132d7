//! Who answers for which address now: one node's part, as a state machine without clock, sockets or threads.
//!
//! Rules, in the order in which they decide:
//!
//! 1. The owner of an address is the first candidate of its claim that is alive. All nodes work that out alike, from the
//!    same claims and their own ears.
//! 2. The owner claims the address with an epoch higher than any it has heard of. Whoever answered before goes on until
//!    it hears that claim: a planned move leaves no gap.
//! 3. Who hears a newer claim for an address stops answering at once, whatever it thinks of the owner. It claims again
//!    only when its own view has changed, so two views that differ do not fight, and an address stays where a partition
//!    has left it. Hence two nodes answer at the same time
//!    for as long as neither hears the other, and when they do, the newer one wins.
//! 4. Who has not run for as long as others take to call it dead (frozen, starved) stops answering before it answers
//!    anything, and listens until it knows what became of its addresses. For some time afterwards it owns only what
//!    nobody else can own: a node that keeps freezing does not keep taking addresses, and where all were frozen, as on
//!    one overloaded machine, somebody answers all the same.
//! 5. An address that no node has held is probed first. A stranger who answers for it keeps it, and an event says so.
//!
//! Start at [`Tenures::tick`]; [`peers`] is who is alive.

mod doubt;
#[cfg(test)]
mod histories;
mod peers;
mod pending;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::beat::{Beat, Stage, Word, words_max};
use crate::claims::{Change, Claim};
use doubt::Doubt;
pub use peers::Ears;
use peers::{Peers, Standing};
use pending::Pending;

#[derive(Debug, Clone)]
pub struct Settings {
    pub beat_every: Duration,
    /// A node that is silent for so long is dead.
    pub dead_after: Duration,
    /// How long a node listens after its start.
    pub join_for: Duration,
    /// How long a node listens at least after it was frozen; until then beats that had waited are read, and at least one
    /// new one of everybody who lives is heard.
    pub rejoin_for: Duration,
    /// How long others are preferred to a node that was frozen; twice as long each time that it happens again soon.
    pub doubt_for: Duration,
    pub probe_every: Duration,
    /// After a stranger was found to answer for an address.
    pub ask_again: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            beat_every: Duration::from_millis(100),
            dead_after: Duration::from_millis(500),
            join_for: Duration::from_millis(300),
            rejoin_for: Duration::from_millis(150),
            doubt_for: Duration::from_secs(1),
            probe_every: Duration::from_millis(60),
            ask_again: Duration::from_secs(5),
        }
    }
}

const PROBES: u8 = 3;
/// Old words that each regular beat repeats.
const REPEATED: usize = 8;
/// Gratuitous announcements after a takeover, at these times after it: some switches and hosts miss the first.
const ANNOUNCED_AT: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
];
/// A stranger who is seen twice within this time is there.
const SUSPECT_FOR: Duration = Duration::from_secs(2);

pub type Mac = [u8; 6];

/// What the surroundings are to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this to all announcers.
    Send(Beat),
    /// Tell the segment that the address is here.
    Announce(IpAddr),
    /// Ask the segment who has the address.
    Probe(IpAddr),
    /// It is answered from now on.
    Take(IpAddr),
    /// It is not answered any more.
    Drop(IpAddr),
    Say(IpAddr, Saying),
}

/// What users should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saying {
    Announcing,
    /// A stranger answers for the address.
    Conflict(Mac),
    NoLink,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Idle,
    Probing {
        next: Instant,
        left: u8,
    },
    Held {
        epoch: u64,
        since: Instant,
        announced: usize,
    },
    /// Ours by our own view, but somebody's newer claim was heard.
    Yielded {
        since: Instant,
    },
    /// A stranger has it.
    Conflict {
        again: Instant,
    },
}

#[derive(Debug)]
struct Tenure {
    claim: Claim,
    owner: Option<Arc<str>>,
    state: State,
    suspect: Option<(Mac, Instant)>,
    /// The last word about it, so that nothing is said twice.
    said: Option<Saying>,
}

impl Tenure {
    fn new() -> Self {
        Self { claim: Claim::default(), owner: None, state: State::Idle, suspect: None, said: None }
    }
}

/// The newest claim that was heard of.
#[derive(Debug, Clone, Default)]
struct Known {
    epoch: u64,
    holder: Option<Arc<str>>,
}

/// One node's part.
#[derive(Debug)]
pub struct Tenures {
    me: Arc<str>,
    settings: Settings,
    incarnation: u64,
    sequence: u64,
    stage: Stage,
    /// While joining: since when it listens, and until when at least.
    listens_since: Instant,
    ready_at: Instant,
    doubt: Doubt,
    last_beat: Instant,
    next_beat: Instant,
    macs: Vec<Mac>,
    peers: Peers,
    by_address: BTreeMap<IpAddr, Tenure>,
    known: HashMap<IpAddr, Known>,
    unable: HashSet<IpAddr>,
    pending: Pending,
    /// Where the repetition of old words stands.
    repeated: Option<IpAddr>,
    /// Addresses with something still to be done at some time.
    busy: BTreeSet<IpAddr>,
    /// When the next of them is.
    next_due: Option<Instant>,
    actions: Vec<Action>,
}

impl Tenures {
    /// `incarnation` is the present in microseconds since 1970.
    pub fn new(me: &str, settings: Settings, incarnation: u64, now: Instant) -> Self {
        Self {
            me: Arc::from(me),
            incarnation,
            sequence: 0,
            stage: Stage::Joining,
            listens_since: now,
            ready_at: now + settings.join_for,
            doubt: Doubt::none(now),
            last_beat: now,
            next_beat: now,
            macs: Vec::new(),
            peers: Peers::new(settings.dead_after),
            settings,
            by_address: BTreeMap::new(),
            known: HashMap::new(),
            unable: HashSet::new(),
            pending: Pending::default(),
            repeated: None,
            busy: BTreeSet::new(),
            next_due: None,
            actions: Vec::new(),
        }
    }

    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Whether this node answers for the address.
    pub fn answers(&self, ip: IpAddr) -> bool {
        self.by_address.get(&ip).is_some_and(|tenure| matches!(tenure.state, State::Held { .. }))
    }

    pub fn claim(&self, ip: IpAddr) -> Option<&Claim> {
        self.by_address.get(&ip).map(|tenure| &tenure.claim)
    }

    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, &Claim)> {
        self.by_address.iter().map(|(ip, tenure)| (*ip, &tenure.claim))
    }

    pub fn held(&self) -> usize {
        self.by_address.values().filter(|tenure| matches!(tenure.state, State::Held { .. })).count()
    }

    /// Whether it has listened for long enough to take addresses.
    pub fn has_joined(&self) -> bool {
        self.stage != Stage::Joining
    }

    /// How many others are heard.
    pub fn heard(&self, now: Instant) -> usize {
        self.peers.count_heard(now)
    }

    /// Where beats go.
    pub fn audience(&self) -> impl Iterator<Item = IpAddr> {
        self.peers.audience(&self.me)
    }

    /// How long nothing needs to be done.
    pub fn idle_for(&self, now: Instant) -> Duration {
        let others = [self.next_due, self.peers.next_burial()].into_iter().flatten();
        others.fold(self.next_beat, Instant::min).saturating_duration_since(now)
    }

    /// Nothing is left to hand over, or nobody to take it.
    pub fn has_left(&self, now: Instant) -> bool {
        let waits = |tenure: &Tenure| {
            let other = tenure.owner.as_ref().is_some_and(|owner| *owner != self.me);
            matches!(tenure.state, State::Held { .. }) && other
        };
        !self.peers.any_heard(now) || !self.by_address.values().any(waits)
    }

    pub fn set_macs(&mut self, macs: Vec<Mac>) {
        self.macs = macs;
    }

    /// The claims, or the announcers, have changed.
    pub fn apply(&mut self, change: Change, now: Instant, wall: u64) {
        for (ip, claim) in change.claims {
            if let Some(claim) = claim {
                self.by_address.entry(ip).or_insert_with(Tenure::new).claim = claim;
                self.evaluate(ip, now, wall);
                continue;
            }
            self.release(ip);
            self.by_address.remove(&ip);
            self.known.remove(&ip);
        }
        if let Some(announcers) = change.announcers {
            self.peers.set_announcers(announcers);
            self.evaluate_all(now, wall);
        }
    }

    /// Addresses for which there is no link that works.
    pub fn set_unable(&mut self, unable: HashSet<IpAddr>, now: Instant, wall: u64) {
        let changed: Vec<IpAddr> = unable.symmetric_difference(&self.unable).copied().collect();
        self.unable = unable;
        for ip in changed {
            let word = if self.unable.contains(&ip) { Word::Unable } else { Word::Able };
            self.say(ip, word);
            self.evaluate(ip, now, wall);
        }
    }

    /// Hands everything over to whoever is alive.
    pub fn leave(&mut self, now: Instant, wall: u64) {
        self.stage = Stage::Leaving;
        self.next_beat = now;
        self.evaluate_all(now, wall);
    }

    /// Called first whenever the node runs again. Says whether it was frozen: then it answers for nothing any more, and
    /// what has come in meanwhile is not to be answered.
    pub fn wake(&mut self, now: Instant) -> bool {
        // As the others reckon it: they have not heard us since then.
        let frozen = now.saturating_duration_since(self.last_beat) >= self.settings.dead_after;
        if frozen {
            self.thaw(now);
        }
        frozen
    }

    /// Called at least as often as [`Tenures::idle_for`] says, when the beats that have come are heard, and before any
    /// frame is answered.
    pub fn tick(&mut self, now: Instant, wall: u64) {
        let look = self.peers.bury(now);
        if self.grow(now) || look {
            self.evaluate_all(now, wall);
        }
        self.advance(now, wall);
        // What was just taken is announced at once.
        self.advance(now, wall);
        self.speak(now);
    }

    /// The next stage, if it is time.
    fn grow(&mut self, now: Instant) -> bool {
        let trusted = self.doubt.is_over(now);
        let stage = match self.stage {
            Stage::Joining if now < self.ready_at || self.peers.any_silent_since(self.listens_since) => {
                return false;
            }
            Stage::Joining if !trusted => Stage::Doubtful,
            Stage::Doubtful if !trusted => return false,
            Stage::Joining | Stage::Doubtful => Stage::Ready,
            Stage::Ready | Stage::Leaving => return false,
        };
        self.stage = stage;
        self.next_beat = now;
        true
    }

    /// Others have called us dead by now, perhaps.
    fn thaw(&mut self, now: Instant) {
        if !self.peers.any_known() {
            return;
        }
        tracing::warn!("this process did not run for a while: others may have taken its addresses");
        for (ip, tenure) in &mut self.by_address {
            if matches!(tenure.state, State::Held { .. }) {
                self.actions.push(Action::Drop(*ip));
            }
            tenure.state = State::Idle;
            tenure.owner = None;
        }
        for known in self.known.values_mut() {
            known.holder.take_if(|holder| *holder == self.me);
        }
        if self.stage != Stage::Leaving {
            self.stage = Stage::Joining;
            self.listens_since = now;
            self.ready_at = now + self.settings.rejoin_for;
            self.doubt.begin(self.settings.doubt_for, now);
        }
        self.next_beat = now;
    }

    /// A beat of another node, and when it came to this host.
    pub fn hear(&mut self, beat: &Beat, arrived: Instant, now: Instant, wall: u64) {
        if *beat.node == *self.me {
            return;
        }
        let Some(heard) = self.peers.hear(beat, arrived, now) else { return };
        let from = heard.name;
        if heard.new {
            self.say_everything();
        }
        for (ip, word) in &beat.words {
            self.word(&from, *ip, *word, now);
        }
        if heard.changed {
            self.evaluate_all(now, wall);
        } else {
            for (ip, _) in &beat.words {
                self.evaluate(*ip, now, wall);
            }
        }
    }

    fn word(&mut self, from: &Arc<str>, ip: IpAddr, word: Word, now: Instant) {
        if matches!(word, Word::Holds(_)) {
            self.peers.set_unable(from, ip, false);
        }
        let known = self.known.entry(ip).or_default();
        match word {
            Word::Holds(epoch) if epoch >= known.epoch => {
                // Two claims of one epoch: names decide, the same way everywhere.
                let wins = epoch > known.epoch || known.holder.as_ref().is_none_or(|holder| from >= holder);
                if wins {
                    *known = Known { epoch, holder: Some(Arc::clone(from)) };
                    self.yield_to_newer(ip, now);
                }
            }
            Word::Holds(_) => {
                // An old claim: if the newer one is ours, say so again.
                if let Some(Tenure { state: State::Held { epoch, .. }, .. }) = self.by_address.get(&ip) {
                    let epoch = *epoch;
                    self.say(ip, Word::Holds(epoch));
                }
            }
            Word::Released(epoch) => {
                if epoch >= known.epoch && known.holder.as_ref() == Some(from) {
                    known.holder = None;
                }
            }
            Word::Unable => self.peers.set_unable(from, ip, true),
            Word::Able => self.peers.set_unable(from, ip, false),
        }
    }

    fn yield_to_newer(&mut self, ip: IpAddr, now: Instant) {
        let Some(tenure) = self.by_address.get_mut(&ip) else { return };
        if matches!(tenure.state, State::Held { .. }) {
            let ours = tenure.owner.as_ref() == Some(&self.me);
            tenure.state = if ours { State::Yielded { since: now } } else { State::Idle };
            self.actions.push(Action::Drop(ip));
        }
    }

    fn standing(&self, name: &Arc<str>, ip: IpAddr, now: Instant) -> Option<Standing> {
        if *name == self.me {
            return Standing::of(self.stage).filter(|_| !self.unable.contains(&ip));
        }
        self.peers.standing(name, ip, now)
    }

    /// The first candidate of the best standing.
    fn owner(&self, candidates: &[Arc<str>], ip: IpAddr, now: Instant) -> Option<Arc<str>> {
        let first = |wanted| candidates.iter().find(|name| self.standing(name, ip, now) == Some(wanted));
        first(Standing::Ready).or_else(|| first(Standing::Doubtful)).cloned()
    }

    fn evaluate_all(&mut self, now: Instant, wall: u64) {
        let all: Vec<IpAddr> = self.by_address.keys().copied().collect();
        for ip in all {
            self.evaluate(ip, now, wall);
        }
    }

    fn evaluate(&mut self, ip: IpAddr, now: Instant, wall: u64) {
        let Some(tenure) = self.by_address.get(&ip) else { return };
        let owner = self.owner(&tenure.claim.candidates, ip, now);
        let changed = owner != tenure.owner;
        let ours = owner.as_ref() == Some(&self.me);
        let candidate = tenure.claim.candidates.contains(&self.me);
        let state = tenure.state.clone();
        let waits = owner.as_ref().is_some_and(|owner| self.peers.is_heard(owner, now));
        let tenure_owner = owner.clone();
        if let Some(tenure) = self.by_address.get_mut(&ip) {
            tenure.owner = tenure_owner;
        }
        match state {
            State::Idle if ours => self.begin(ip, now, wall),
            State::Yielded { since } if ours && (changed || self.may_retake(ip, since, now)) => {
                self.take(ip, now, wall);
            }
            // An owner that is heard will claim it; until then it is answered here.
            State::Held { .. } if !ours && waits => {}
            // Leaving, and nobody is there to take it.
            State::Held { .. } if owner.is_none() && candidate && self.stage == Stage::Leaving => {}
            State::Held { .. } if !ours => self.release(ip),
            State::Probing { .. } | State::Yielded { .. } | State::Conflict { .. } if !ours => {
                self.set_state(ip, State::Idle);
            }
            _ => {}
        }
        let here = Standing::of(self.stage).is_some();
        if self.unable.contains(&ip) && owner.is_none() && candidate && here {
            self.tell(ip, Saying::NoLink);
        }
    }

    /// Whether the address is free for its owner, who has yielded to somebody. Who is alive and claims an address in spite
    /// of our view has another one: then we wait before we say so again, so that views that differ for good cost a move
    /// now and then and not a war.
    fn may_retake(&self, ip: IpAddr, since: Instant, now: Instant) -> bool {
        let Some(holder) = self.known.get(&ip).and_then(|known| known.holder.as_ref()) else { return true };
        if !self.peers.is_heard(holder, now) {
            return true;
        }
        let rested = now.saturating_duration_since(since) >= self.settings.dead_after;
        rested && !self.holder_stays(holder, ip, now)
    }

    fn holder_stays(&self, holder: &Arc<str>, ip: IpAddr, now: Instant) -> bool {
        // One that is to go, while we are not, is no reason to wait.
        let stays = |claim: &Claim| {
            claim.candidates.contains(holder) && (claim.prefers(holder) || !claim.prefers(&self.me))
        };
        let stays = self.by_address.get(&ip).is_some_and(|tenure| stays(&tenure.claim));
        *holder != self.me && stays && self.peers.standing(holder, ip, now).is_some()
    }

    fn begin(&mut self, ip: IpAddr, now: Instant, wall: u64) {
        // One of us has held it: there was no stranger, and time is short.
        if self.known.get(&ip).is_some_and(|known| known.epoch > 0) {
            self.take(ip, now, wall);
        } else {
            self.set_state(ip, State::Probing { next: now, left: PROBES });
        }
    }

    fn set_state(&mut self, ip: IpAddr, state: State) {
        let Some(tenure) = self.by_address.get_mut(&ip) else { return };
        if !matches!(state, State::Idle | State::Yielded { .. }) {
            self.busy.insert(ip);
        }
        tenure.state = state;
    }

    fn take(&mut self, ip: IpAddr, now: Instant, wall: u64) {
        let known = self.known.entry(ip).or_default();
        let epoch = wall.max(known.epoch + 1);
        *known = Known { epoch, holder: Some(Arc::clone(&self.me)) };
        self.set_state(ip, State::Held { epoch, since: now, announced: 0 });
        if let Some(tenure) = self.by_address.get_mut(&ip) {
            tenure.suspect = None;
        }
        self.actions.push(Action::Take(ip));
        self.say(ip, Word::Holds(epoch));
        self.tell(ip, Saying::Announcing);
    }

    fn release(&mut self, ip: IpAddr) {
        let Some(Tenure { state: State::Held { epoch, .. }, .. }) = self.by_address.get(&ip) else { return };
        let epoch = *epoch;
        self.set_state(ip, State::Idle);
        if let Some(known) = self.known.get_mut(&ip) {
            known.holder.take_if(|holder| *holder == self.me);
        }
        self.actions.push(Action::Drop(ip));
        self.say(ip, Word::Released(epoch));
        if let Some(tenure) = self.by_address.get_mut(&ip) {
            tenure.said = None;
        }
    }

    fn tell(&mut self, ip: IpAddr, saying: Saying) {
        let Some(tenure) = self.by_address.get_mut(&ip) else { return };
        if tenure.said.as_ref() != Some(&saying) {
            tenure.said = Some(saying.clone());
            self.actions.push(Action::Say(ip, saying));
        }
    }

    /// A frame of somebody else said that the address is at `mac`.
    pub fn seen(&mut self, ip: IpAddr, mac: Mac, now: Instant, wall: u64) {
        if self.macs.contains(&mac) {
            return;
        }
        let peer = self.peers.has_mac(mac);
        let Some(tenure) = self.by_address.get_mut(&ip) else { return };
        match &tenure.state {
            // One of us answers for it already: it is a move, not a conflict.
            State::Probing { .. } if peer => self.take(ip, now, wall),
            State::Probing { .. } => self.conflict(ip, mac, now),
            State::Held { .. } if !peer => match tenure.suspect {
                Some((known, at)) if known == mac && now.duration_since(at) < SUSPECT_FOR => {
                    self.release(ip);
                    self.conflict(ip, mac, now);
                }
                _ => {
                    tenure.suspect = Some((mac, now));
                    self.actions.push(Action::Probe(ip));
                }
            },
            _ => {}
        }
    }

    fn conflict(&mut self, ip: IpAddr, mac: Mac, now: Instant) {
        self.set_state(ip, State::Conflict { again: now + self.settings.ask_again });
        self.tell(ip, Saying::Conflict(mac));
    }

    /// Probes and announcements whose time has come.
    fn advance(&mut self, now: Instant, wall: u64) {
        let (mut done, mut probed_out) = (Vec::new(), Vec::new());
        self.next_due = None;
        for ip in &self.busy {
            let Some(tenure) = self.by_address.get_mut(ip) else {
                done.push(*ip);
                continue;
            };
            let due = match &mut tenure.state {
                State::Idle | State::Yielded { .. } => None,
                State::Probing { next, left: 0 } if *next <= now => {
                    probed_out.push(*ip);
                    None
                }
                State::Probing { next, left } if *next <= now => {
                    *left -= 1;
                    *next = now + self.settings.probe_every;
                    self.actions.push(Action::Probe(*ip));
                    Some(*next)
                }
                State::Probing { next, .. } => Some(*next),
                State::Held { since, announced, .. } => {
                    while ANNOUNCED_AT.get(*announced).is_some_and(|at| now.duration_since(*since) >= *at) {
                        *announced += 1;
                        self.actions.push(Action::Announce(*ip));
                    }
                    ANNOUNCED_AT.get(*announced).map(|at| *since + *at)
                }
                State::Conflict { again } if *again <= now => {
                    tenure.state = State::Probing { next: now, left: PROBES };
                    Some(now)
                }
                State::Conflict { again } => Some(*again),
            };
            match due {
                Some(due) => self.next_due = Some(self.next_due.map_or(due, |next| next.min(due))),
                None => done.push(*ip),
            }
        }
        for ip in done {
            self.busy.remove(&ip);
        }
        for ip in probed_out {
            self.take(ip, now, wall);
        }
    }

    fn say(&mut self, ip: IpAddr, word: Word) {
        self.pending.say(ip, word);
    }

    /// Somebody new should know all of it soon.
    fn say_everything(&mut self) {
        for (ip, word) in self.words(None) {
            self.pending.say_once(ip, word);
        }
    }

    /// What is true now about our own part, after an address or from the beginning.
    fn words(&self, after: Option<IpAddr>) -> Vec<(IpAddr, Word)> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let word = |(ip, tenure): (&IpAddr, &Tenure)| match tenure.state {
            State::Held { epoch, .. } => Some((*ip, Word::Holds(epoch))),
            _ if self.unable.contains(ip) => Some((*ip, Word::Unable)),
            _ => None,
        };
        let all = self.by_address.range((from, std::ops::Bound::Unbounded)).filter_map(word);
        if after.is_some() { all.take(REPEATED).collect() } else { all.collect() }
    }

    /// New words at once; otherwise one beat at its time, with a few old words.
    fn speak(&mut self, now: Instant) {
        let due = now >= self.next_beat;
        let most = words_max(&self.me);
        while self.pending.has_fresh() {
            let words = self.pending.take(most);
            if words.len() < most || !self.pending.has_fresh() {
                self.send(words, now);
                return;
            }
            self.send(words, now);
        }
        if due {
            self.next_beat = now + self.settings.beat_every;
            let mut words = self.pending.take(most);
            words.extend(self.repetition(most - words.len()));
            self.send(words, now);
        }
    }

    fn repetition(&mut self, most: usize) -> Vec<(IpAddr, Word)> {
        let start = self.repeated.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        let mut words = self.words(Some(start));
        words.truncate(most);
        self.repeated = words.last().map(|(ip, _)| *ip);
        words
    }

    fn send(&mut self, words: Vec<(IpAddr, Word)>, now: Instant) {
        self.sequence += 1;
        self.last_beat = now;
        self.actions.push(Action::Send(Beat {
            node: self.me.to_string(),
            incarnation: self.incarnation,
            sequence: self.sequence,
            stage: self.stage,
            macs: self.macs.clone(),
            words,
        }));
    }
}

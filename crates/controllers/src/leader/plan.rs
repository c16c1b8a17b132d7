//! The election as one candidate sees it. No clock, no I/O: times are arguments.

use std::time::Duration;

use portolan_api::MicroTime;
use tokio::time::Instant;

/// What a Lease says of its holder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Empty: nobody.
    pub holder: String,
    pub duration_seconds: i32,
    pub acquired: Option<MicroTime>,
    pub renewed: Option<MicroTime>,
    pub transitions: i32,
}

/// What to do with a Lease just read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Write this, on the condition that the Lease is as it was read (or, with no version, that there is none).
    Write { record: Record, version: Option<String> },
    /// Somebody else holds it.
    Wait,
}

#[derive(Debug, Clone)]
struct Seen {
    record: Record,
    version: String,
    /// When it was first seen so, by our clock: the holder's is not to be trusted.
    at: Instant,
}

/// One candidate.
#[derive(Debug, Clone)]
pub struct Election {
    identity: String,
    lease_duration: Duration,
    renew_deadline: Duration,
    seen: Option<Seen>,
    /// When the last renewal that succeeded was *sent*: others may count from then.
    renewed: Option<Instant>,
}

impl Election {
    pub fn new(identity: impl Into<String>, lease_duration: Duration, renew_deadline: Duration) -> Self {
        Self { identity: identity.into(), lease_duration, renew_deadline, seen: None, renewed: None }
    }

    /// Takes what was read: the record and its resource version, or that there is no Lease.
    pub fn observe(&mut self, found: Option<(Record, String)>, now: Instant) {
        let Some((record, version)) = found else {
            self.seen = None;
            return;
        };
        if self.seen.as_ref().is_none_or(|seen| seen.version != version) {
            if record.holder != self.identity {
                self.renewed = None;
            }
            self.seen = Some(Seen { record, version, at: now });
        }
    }

    /// What to do now. `wall` is what the Lease will say; nothing is decided by it.
    pub fn plan(&self, now: Instant, wall: MicroTime) -> Act {
        let Some(seen) = &self.seen else {
            return Act::Write { record: self.record(wall, wall, 0), version: None };
        };
        let old = &seen.record;
        let version = Some(seen.version.clone());
        if old.holder == self.identity {
            let acquired = old.acquired.unwrap_or(wall);
            return Act::Write { record: self.record(acquired, wall, old.transitions), version };
        }
        let lasts = Duration::from_secs(u64::try_from(old.duration_seconds).unwrap_or(0));
        if !old.holder.is_empty() && now < seen.at + lasts {
            return Act::Wait;
        }
        Act::Write { record: self.record(wall, wall, old.transitions.saturating_add(1)), version }
    }

    fn record(&self, acquired: MicroTime, renewed: MicroTime, transitions: i32) -> Record {
        Record {
            holder: self.identity.clone(),
            duration_seconds: i32::try_from(self.lease_duration.as_secs()).unwrap_or(i32::MAX),
            acquired: Some(acquired),
            renewed: Some(renewed),
            transitions,
        }
    }

    /// A write of ours, sent at `sent`, succeeded.
    pub fn written(&mut self, record: Record, version: String, sent: Instant) {
        self.renewed = Some(sent);
        self.seen = Some(Seen { record, version, at: sent });
    }

    /// Until when this candidate leads; it must have stopped by then.
    pub fn leads_until(&self) -> Option<Instant> {
        self.renewed.map(|sent| sent + self.renew_deadline)
    }

    /// What a leader that goes writes, so that nobody has to wait for its Lease to run out; `None` for others.
    pub fn release(&self, wall: MicroTime) -> Option<(Record, String)> {
        let seen = self.seen.as_ref().filter(|seen| seen.record.holder == self.identity)?;
        let record = Record {
            holder: String::new(),
            duration_seconds: 1,
            acquired: Some(wall),
            renewed: Some(wall),
            transitions: seen.record.transitions,
        };
        Some((record, seen.version.clone()))
    }

    pub fn holder(&self) -> &str {
        self.seen.as_ref().map_or("", |seen| &seen.record.holder)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LEASE_DURATION, RENEW_DEADLINE};
    use super::*;
    use proptest::prelude::*;

    fn candidate(name: &str) -> Election {
        Election::new(name, LEASE_DURATION, RENEW_DEADLINE)
    }

    fn wall() -> MicroTime {
        MicroTime::default()
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn write(act: Act) -> (Record, Option<String>) {
        match act {
            Act::Write { record, version } => (record, version),
            Act::Wait => panic!("waits"),
        }
    }

    #[test]
    fn a_lease_that_nobody_made_is_made() {
        let now = Instant::now();
        let mut one = candidate("one");
        one.observe(None, now);
        let (record, version) = write(one.plan(now, wall()));
        assert_eq!((record.holder.as_str(), record.duration_seconds, record.transitions), ("one", 15, 0));
        assert_eq!(version, None);
        assert_eq!(one.leads_until(), None, "nothing is written yet");
        one.written(record, "1".into(), now);
        assert_eq!(one.leads_until(), Some(now + seconds(10)));
    }

    #[test]
    fn another_waits_from_when_it_saw_the_last_renewal() {
        let start = Instant::now();
        let mut two = candidate("two");
        let held = |version: &str| {
            let record =
                Record { holder: "one".into(), duration_seconds: 15, transitions: 3, ..Record::default() };
            Some((record, version.to_owned()))
        };
        two.observe(held("1"), start);
        assert_eq!(two.plan(start + seconds(14), wall()), Act::Wait);
        two.observe(held("2"), start + seconds(14));
        assert_eq!(two.plan(start + seconds(28), wall()), Act::Wait, "it was renewed");
        two.observe(held("2"), start + seconds(29));
        let (record, version) = write(two.plan(start + seconds(29), wall()));
        assert_eq!((record.holder.as_str(), record.transitions, version.as_deref()), ("two", 4, Some("2")));
    }

    #[test]
    fn a_lease_that_was_released_is_taken_at_once() {
        let now = Instant::now();
        let (mut one, mut two) = (candidate("one"), candidate("two"));
        let record = write(one.plan(now, wall())).0;
        one.written(record, "1".into(), now);
        let (released, on) = one.release(wall()).unwrap();
        assert_eq!((released.holder.as_str(), on.as_str()), ("", "1"));
        two.observe(Some((released, "2".into())), now);
        assert_eq!(write(two.plan(now, wall())).0.holder, "two");
        assert_eq!(two.release(wall()), None, "it does not hold it yet");
    }

    #[test]
    fn a_holder_keeps_its_time_of_acquisition_and_may_come_back_after_a_restart() {
        let now = Instant::now();
        let mut one = candidate("one");
        let acquired = Some(MicroTime::now());
        let record = Record {
            holder: "one".into(),
            duration_seconds: 15,
            acquired,
            transitions: 2,
            ..Record::default()
        };
        one.observe(Some((record, "7".into())), now);
        let (renewed, _) = write(one.plan(now, wall()));
        assert_eq!((renewed.acquired, renewed.transitions), (acquired, 2));
    }

    #[test]
    fn seeing_another_holder_ends_the_lead() {
        let now = Instant::now();
        let mut one = candidate("one");
        one.written(write(one.plan(now, wall())).0, "1".into(), now);
        let other = Record { holder: "two".into(), duration_seconds: 15, ..Record::default() };
        one.observe(Some((other, "2".into())), now + seconds(1));
        assert_eq!(one.leads_until(), None);
    }

    #[derive(Debug, Clone, Copy)]
    struct Turn {
        who: usize,
        pause: u64,
        reads: bool,
        /// The write gets through; and the answer to it, `delay` seconds later.
        writes: bool,
        hears: bool,
        delay: u64,
    }

    fn turn() -> impl Strategy<Value = Turn> {
        let flags = (any::<bool>(), any::<bool>(), any::<bool>());
        (0..3usize, 0..9u64, flags, 0..4u64).prop_map(|(who, pause, (reads, writes, hears), delay)| Turn {
            who,
            pause,
            reads,
            writes,
            hears,
            delay,
        })
    }

    proptest! {
        /// However slow candidates are and whatever gets lost, two never lead at once. The Lease is a
        /// compare-and-swap register; candidates read the same clock but at their own times.
        #[test]
        fn two_never_lead_at_the_same_time(turns in prop::collection::vec(turn(), 1..200)) {
            let mut now = Instant::now();
            let mut lease: Option<(Record, u64)> = None;
            let mut candidates = [candidate("a"), candidate("b"), candidate("c")];
            for turn in turns {
                now += seconds(turn.pause);
                let candidate = &mut candidates[turn.who];
                if turn.reads {
                    candidate.observe(lease.clone().map(|(r, v)| (r, v.to_string())), now);
                }
                let sent = now;
                if let Act::Write { record, version } = candidate.plan(now, wall()) {
                    now += seconds(turn.delay);
                    let current = lease.as_ref().map(|(_, v)| v.to_string());
                    if turn.writes && current == version {
                        let next = lease.as_ref().map_or(1, |(_, v)| v + 1);
                        lease = Some((record.clone(), next));
                        if turn.hears {
                            candidate.written(record, next.to_string(), sent);
                        }
                    }
                }
                let leading = candidates.iter().filter(|c| c.leads_until().is_some_and(|until| now < until)).count();
                prop_assert!(leading <= 1);
            }
        }
    }
}

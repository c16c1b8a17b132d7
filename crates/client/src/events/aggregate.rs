//! Which reports become events. No I/O and no clock: `now` is an argument.

use std::collections::HashMap;
use std::time::Instant;

use jiff::Timestamp;

use super::{EventType, ObjectRef, Report};
use crate::limits::{EVENT_BURST, EVENT_CACHE_MAX, EVENT_REFILL};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The first of its kind.
    Create { name: String },
    /// Seen before: raise its count to this.
    Update { name: String, count: u32, first: Timestamp },
    /// One object is said too much about.
    Drop,
}

/// What makes two reports the same event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Identity {
    about: ObjectRef,
    kind: EventType,
    reason: String,
    message: String,
}

#[derive(Debug)]
struct Seen {
    name: String,
    count: u32,
    first: Timestamp,
    last: Instant,
}

/// A bucket of tokens: full at first, one more each [`EVENT_REFILL`].
#[derive(Debug)]
struct Bucket {
    tokens: u32,
    refilled: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Aggregator {
    seen: HashMap<Identity, Seen>,
    buckets: HashMap<ObjectRef, Bucket>,
}

impl Aggregator {
    pub(super) fn decide(&mut self, report: &Report, now: Instant) -> Outcome {
        self.make_room(now);
        if !self.take_token(object(&report.about), now) {
            return Outcome::Drop;
        }
        if let Some(seen) = self.seen.get_mut(&identity(report)) {
            seen.count = seen.count.saturating_add(1);
            seen.last = now;
            return Outcome::Update { name: seen.name.clone(), count: seen.count, first: seen.first };
        }
        // As client-go names them: the object, and a time to tell them apart.
        let name = format!("{}.{:x}", report.about.name, report.at.as_nanosecond());
        let seen = Seen { name: name.clone(), count: 1, first: report.at, last: now };
        self.seen.insert(identity(report), seen);
        Outcome::Create { name }
    }

    /// The event was not written: the next of its kind starts over.
    pub(super) fn forget(&mut self, report: &Report) {
        self.seen.remove(&identity(report));
    }

    fn take_token(&mut self, about: ObjectRef, now: Instant) -> bool {
        let full = Bucket { tokens: EVENT_BURST, refilled: now };
        let bucket = self.buckets.entry(about).or_insert(full);
        let new = now.duration_since(bucket.refilled).as_secs() / EVENT_REFILL.as_secs();
        if new > 0 {
            let new = u32::try_from(new).unwrap_or(EVENT_BURST);
            bucket.tokens = bucket.tokens.saturating_add(new).min(EVENT_BURST);
            bucket.refilled = now;
        }
        let allowed = bucket.tokens > 0;
        bucket.tokens = bucket.tokens.saturating_sub(1);
        allowed
    }

    /// Forget the half that has been silent longest, rarely, instead of one each time.
    fn make_room(&mut self, now: Instant) {
        if self.seen.len() >= EVENT_CACHE_MAX {
            let mut times: Vec<Instant> = self.seen.values().map(|s| s.last).collect();
            let (_, median, _) = times.select_nth_unstable(EVENT_CACHE_MAX / 2);
            let median = *median;
            self.seen.retain(|_, seen| seen.last > median);
        }
        if self.buckets.len() >= EVENT_CACHE_MAX {
            // A bucket that has had time to fill is as good as a new one.
            let idle = EVENT_REFILL * EVENT_BURST;
            self.buckets.retain(|_, b| b.tokens < EVENT_BURST && now.duration_since(b.refilled) < idle);
            if self.buckets.len() >= EVENT_CACHE_MAX {
                self.buckets.clear();
            }
        }
    }
}

/// The object itself, whatever its version and whichever part of it.
fn object(about: &ObjectRef) -> ObjectRef {
    ObjectRef { resource_version: String::new(), field_path: String::new(), ..about.clone() }
}

fn identity(report: &Report) -> Identity {
    Identity {
        about: ObjectRef { field_path: report.about.field_path.clone(), ..object(&report.about) },
        kind: report.kind,
        reason: report.reason.clone(),
        message: report.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &str, message: &str) -> Report {
        Report {
            about: ObjectRef { name: name.into(), ..ObjectRef::default() },
            kind: EventType::Normal,
            reason: "R".into(),
            message: message.into(),
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn one_object_has_a_burst_and_then_a_trickle() {
        let mut aggregator = Aggregator::default();
        let start = Instant::now();
        for n in 0..EVENT_BURST {
            assert_ne!(aggregator.decide(&report("a", &n.to_string()), start), Outcome::Drop);
        }
        assert_eq!(aggregator.decide(&report("a", "x"), start), Outcome::Drop);
        assert_ne!(aggregator.decide(&report("b", "x"), start), Outcome::Drop, "others are not held back");
        let later = start + EVENT_REFILL;
        assert_ne!(aggregator.decide(&report("a", "x"), later), Outcome::Drop);
        assert_eq!(aggregator.decide(&report("a", "x"), later), Outcome::Drop);
    }

    #[test]
    fn a_new_version_of_the_object_is_the_same_event() {
        let mut aggregator = Aggregator::default();
        let now = Instant::now();
        let mut again = report("a", "x");
        assert!(matches!(aggregator.decide(&again, now), Outcome::Create { .. }));
        again.about.resource_version = "9".into();
        assert!(matches!(aggregator.decide(&again, now), Outcome::Update { count: 2, .. }));
        aggregator.forget(&again);
        assert!(matches!(aggregator.decide(&again, now), Outcome::Create { .. }));
    }

    #[test]
    fn memory_is_bounded() {
        let mut aggregator = Aggregator::default();
        let start = Instant::now();
        for n in 0..3 * EVENT_CACHE_MAX {
            let now = start + std::time::Duration::from_millis(n as u64);
            aggregator.decide(&report(&n.to_string(), "x"), now);
            assert!(aggregator.seen.len() <= EVENT_CACHE_MAX && aggregator.buckets.len() <= EVENT_CACHE_MAX);
        }
    }
}

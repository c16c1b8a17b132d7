//! When the kernel is written, and when it is read back. Pure: `now` is an argument.
//!
//! After a write changes gather for as long as the data plane asks for, or as the user does.
//!
//! Reading back costs time in proportion to the table, and changes wait meanwhile. So it is done the less often the
//! longer it takes, and less often still while we hear of others' transactions as they happen.

use std::time::{Duration, Instant};

/// Reading back takes at most one part in so many of one core's time.
const SHARE: u32 = 100;
/// After an alarm more is allowed: the rules may be wrong. Still, who keeps fighting us must not occupy a core.
const ALARM_SHARE: u32 = 4;
/// While the kernel tells us what others do, a look is only a safeguard.
const LISTENING_FACTOR: u32 = 10;

/// Keeps writes apart.
#[derive(Debug)]
pub(crate) struct Gathering {
    period_min: Duration,
    not_before: Instant,
}

impl Gathering {
    pub(crate) fn new(period_min: Duration, now: Instant) -> Self {
        Self { period_min, not_before: now }
    }

    /// Until when changes gather, if not until now.
    pub(crate) fn until(&self, now: Instant) -> Option<Instant> {
        (now < self.not_before).then_some(self.not_before)
    }

    /// A write ended, after which the data plane asks for some rest.
    pub(crate) fn wrote(&mut self, ended: Instant, rest: Duration) {
        self.not_before = ended + rest.max(self.period_min);
    }

    /// A write failed, and is tried again after so long.
    pub(crate) fn failed(&mut self, ended: Instant, retry: Duration) -> Instant {
        self.not_before = ended + retry;
        self.not_before
    }
}

#[derive(Debug)]
pub(crate) struct Pace {
    period: Duration,
    next: Instant,
    ended: Instant,
    cost: Duration,
}

impl Pace {
    pub(crate) fn new(period: Duration, now: Instant) -> Self {
        Self { period, next: now + period, ended: now, cost: Duration::ZERO }
    }

    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Somebody else changed our rules.
    pub(crate) fn alarmed(&mut self, now: Instant) {
        let earliest = self.ended + self.cost * ALARM_SHARE;
        self.next = self.next.min(earliest.max(now));
    }

    /// A look, and the mending that it led to, took from `started` to `ended`.
    pub(crate) fn looked(&mut self, started: Instant, ended: Instant, listening: bool) {
        self.cost = ended.saturating_duration_since(started);
        self.ended = ended;
        let period = if listening { self.period * LISTENING_FACTOR } else { self.period };
        self.next = ended + period.max(self.cost * SHARE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_mins(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A minute of changes, so many a second, each write costing what it costs with 10,000 Services: how many writes
    /// there are, and how long the last change of each waited at most.
    fn minute(changes_per_second: u64, cost: Duration) -> (u32, Duration) {
        let start = Instant::now();
        let period = Duration::from_secs(1) / changes_per_second as u32;
        let mut gathering = Gathering::new(Duration::ZERO, start);
        let (mut now, mut writes, mut waited, mut written) = (start, 0, Duration::ZERO, 0);
        while now < start + Duration::from_mins(1) {
            let came = ((now - start).as_nanos() / period.as_nanos()) as u32;
            if let Some(until) = gathering.until(now) {
                now = until;
            } else if came == written {
                now = start + period * (came + 1);
            } else {
                now += cost;
                waited = waited.max(now - (start + period * (written + 1)));
                gathering.wrote(now, cost);
                (written, writes) = (came, writes + 1);
            }
        }
        (writes, waited)
    }

    #[test]
    fn however_fast_changes_come_writing_leaves_half_of_the_time_and_no_change_waits_for_long() {
        let cost = ms(400);
        let (slow, waited) = minute(1, cost);
        assert!((58..=60).contains(&slow) && waited == cost, "{slow} writes, {waited:?}");
        let mut per_change = cost;
        for rate in [10, 100, 10_000] {
            let (writes, waited) = minute(rate, cost);
            assert!(cost * writes <= Duration::from_secs(30) + cost, "{rate} a second: {writes} writes");
            assert!(waited <= cost * 3, "{rate} a second: {waited:?}");
            let now_per_change = cost * writes / (60 * rate) as u32;
            assert!(now_per_change < per_change, "{rate} a second: {now_per_change:?} a change");
            per_change = now_per_change;
        }
        assert!(per_change < Duration::from_micros(51), "{per_change:?} a change");
    }

    #[test]
    fn the_longer_of_rest_and_period_counts_and_a_failure_has_its_own() {
        let start = Instant::now();
        let mut gathering = Gathering::new(ms(100), start);
        assert_eq!(gathering.until(start), None);
        gathering.wrote(start, ms(5));
        assert_eq!(gathering.until(start), Some(start + ms(100)));
        gathering.wrote(start, ms(400));
        assert_eq!(gathering.until(start + ms(399)), Some(start + ms(400)));
        assert_eq!(gathering.until(start + ms(400)), None);
        assert_eq!(gathering.failed(start, ms(50)), start + ms(50));
    }

    #[test]
    fn a_small_table_is_looked_at_each_period_and_a_large_one_at_its_price() {
        let start = Instant::now();
        let mut pace = Pace::new(PERIOD, start);
        assert_eq!(pace.next(), start + PERIOD);
        pace.looked(start, start + ms(5), false);
        assert_eq!(pace.next(), start + ms(5) + PERIOD);
        pace.looked(start, start + ms(5), true);
        assert_eq!(pace.next(), start + ms(5) + PERIOD * 10);
        for listening in [false, true] {
            pace.looked(start, start + ms(20_000), listening);
            assert_eq!(pace.next(), start + ms(20_000) + ms(2_000_000), "one percent of the time");
        }
    }

    #[test]
    fn an_alarm_is_answered_at_once_but_not_for_ever() {
        let start = Instant::now();
        let mut pace = Pace::new(PERIOD, start);
        pace.alarmed(start + ms(1));
        assert_eq!(pace.next(), start + ms(1));
        pace.looked(start + ms(1), start + ms(101), true);
        pace.alarmed(start + ms(102));
        assert_eq!(pace.next(), start + ms(501), "who fights us gets a fifth of a core at most");
        pace.alarmed(start + ms(103));
        assert_eq!(pace.next(), start + ms(501));
    }
}

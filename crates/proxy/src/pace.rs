//! When the kernel is read back. Pure: `now` is an argument.
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

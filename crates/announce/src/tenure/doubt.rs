//! Whether a node that was frozen is to be trusted with addresses again.

use std::time::{Duration, Instant};

/// A node that was not frozen for so long is trusted as before.
const FORGIVEN_AFTER: Duration = Duration::from_mins(1);
const DOUBT_MAX: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(super) struct Doubt {
    until: Instant,
    lasts: Duration,
    last_thaw: Option<Instant>,
}

impl Doubt {
    pub(super) fn none(now: Instant) -> Self {
        Self { until: now, lasts: Duration::ZERO, last_thaw: None }
    }

    /// It was frozen: the doubt lasts as long as the first time, or twice as long as the last time.
    pub(super) fn begin(&mut self, first: Duration, now: Instant) {
        let again = self.last_thaw.is_some_and(|at| now.saturating_duration_since(at) < FORGIVEN_AFTER);
        self.lasts = if again { (self.lasts * 2).min(DOUBT_MAX) } else { first };
        self.until = now + self.lasts;
        self.last_thaw = Some(now);
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_grows_with_each_freeze_and_is_forgotten() {
        let second = Duration::from_secs(1);
        let mut now = Instant::now();
        let mut doubt = Doubt::none(now);
        assert!(doubt.is_over(now));
        for seconds in [1, 2, 4, 8] {
            doubt.begin(second, now);
            now += second * (seconds - 1);
            assert!(!doubt.is_over(now));
            now += second;
            assert!(doubt.is_over(now));
        }
        now += FORGIVEN_AFTER;
        doubt.begin(second, now);
        assert!(doubt.is_over(now + second));
    }
}

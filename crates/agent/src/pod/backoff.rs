//! How long a container that keeps ending waits for its next start.

use std::time::{Duration, Instant};

use crate::config::BackoffLimits;

/// The waits of one container: none before the first restart, then `initial`, doubled up to `max`. A container that
/// ran for twice `max` starts over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    limits: BackoffLimits,
    /// The wait in force, and when it came into force.
    last: Option<(Duration, Instant)>,
}

impl Backoff {
    pub(crate) fn new(limits: BackoffLimits) -> Self {
        Self { limits, last: None }
    }

    fn current(&self, ended: Instant) -> Option<Duration> {
        let (wait, since) = self.last?;
        (ended.saturating_duration_since(since) <= self.limits.max * 2).then_some(wait)
    }

    /// How long a container that ended at `ended` must wait from then on.
    pub(crate) fn wait(&self, ended: Instant) -> Duration {
        self.current(ended).unwrap_or_default()
    }

    /// Notes a restart after an end at `ended`: the next wait is longer.
    pub(crate) fn restarted(&mut self, ended: Instant, now: Instant) {
        let wait = self.current(ended).map_or(self.limits.initial, |wait| (wait * 2).min(self.limits.max));
        self.last = Some((wait, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_five_minutes() {
        let mut backoff = Backoff::new(BackoffLimits::default());
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = backoff.wait(now);
            waits.push(wait.as_secs());
            backoff.restarted(now, now + wait);
            now += wait + Duration::from_secs(1);
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_long_run_starts_over() {
        let mut backoff = Backoff::new(BackoffLimits::default());
        let start = Instant::now();
        backoff.restarted(start, start);
        backoff.restarted(start, start);
        assert_eq!(backoff.wait(start + Duration::from_mins(10)).as_secs(), 20);
        assert_eq!(backoff.wait(start + Duration::from_secs(601)).as_secs(), 0);
        backoff.restarted(start + Duration::from_secs(601), start + Duration::from_secs(601));
        assert_eq!(backoff.wait(start + Duration::from_secs(602)).as_secs(), 10);
    }
}

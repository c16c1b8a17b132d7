//! How long to wait after a failure: doubling, with a random part, so that watchers of one failed server do not
//! come back together.

use std::time::Duration;

use crate::limits::{BACKOFF_MAX, BACKOFF_MIN};

#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure. `random` is from 0 to 1 and moves it between half and the whole.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let whole = BACKOFF_MIN.saturating_mul(1 << doublings).min(BACKOFF_MAX);
        whole.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_bound_and_start_over() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..40).map(|_| backoff.next(1.0)).collect();
        assert_eq!(waits[..3], [BACKOFF_MIN, BACKOFF_MIN * 2, BACKOFF_MIN * 4]);
        assert_eq!(waits[39], BACKOFF_MAX);
        backoff.reset();
        assert_eq!(backoff.next(0.0), BACKOFF_MIN / 2);
    }
}

//! A distribution of durations, in milliseconds.

use std::fmt;
use std::time::Duration;

pub(crate) const HEADER: &str = "  median      p90      p99      max ms";

#[derive(Debug, Default)]
pub(crate) struct Distribution {
    samples: Vec<Duration>,
}

impl Distribution {
    pub(crate) fn add(&mut self, sample: Duration) {
        self.samples.push(sample);
    }

    /// The sample that so large a part of all is not above, by nearest rank.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_unstable();
        let rank = (part * sorted.len() as f64).ceil().max(1.0) as usize;
        sorted.get(rank - 1).map_or(f64::NAN, |sample| sample.as_secs_f64() * 1e3)
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|part| self.quantile(part));
        write!(f, "{median:>8.2} {p90:>8.2} {p99:>8.2} {max:>8.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    pub(crate) fn quantiles_are_samples() {
        let mut distribution = Distribution::default();
        for ms in (1..=100).rev() {
            distribution.add(Duration::from_millis(ms));
        }
        let quantiles = [0.5, 0.99, 1.0].map(|part| format!("{:.1}", distribution.quantile(part)));
        assert_eq!(quantiles, ["50.0", "99.0", "100.0"]);
    }
}

//! How an endpoint is chosen among those that a route allows, where a Service asks for more than chance.
//!
//! The choice is a wish: which endpoints are possible does not depend on it, so [`crate::trace`] does not look at it. A
//! data plane that cannot do what is asked says so and chooses as it does for everybody else.

use std::fmt;
use std::str::FromStr;

/// The annotation by which a Service asks.
pub const ALGORITHM_ANNOTATION: &str = "portolan.dev/lb-algorithm";

/// An algorithm by the name that users write; the short ones are IPVS's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    Random,
    /// One after the other.
    RoundRobin,
    WeightedRoundRobin,
    /// By the client's address, so that a client meets the same endpoint as long as the endpoints stay the same.
    SourceHash,
    /// The one with the fewest connections.
    LeastConnection,
    WeightedLeastConnection,
    LocalityLeastConnection,
    LocalityLeastConnectionReplicated,
    DestinationHash,
    /// By a consistent hash of the client's address: few clients move when endpoints come and go.
    Maglev,
    ShortestExpectedDelay,
    NeverQueue,
    /// The one with the highest weight.
    Failover,
    /// The same, and the next one when it is full.
    Overflow,
}

impl Algorithm {
    pub const ALL: [Self; 14] = [
        Self::Random,
        Self::RoundRobin,
        Self::WeightedRoundRobin,
        Self::SourceHash,
        Self::LeastConnection,
        Self::WeightedLeastConnection,
        Self::LocalityLeastConnection,
        Self::LocalityLeastConnectionReplicated,
        Self::DestinationHash,
        Self::Maglev,
        Self::ShortestExpectedDelay,
        Self::NeverQueue,
        Self::Failover,
        Self::Overflow,
    ];

    /// As users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::RoundRobin => "round-robin",
            Self::SourceHash => "source-hash",
            other => other.scheduler().unwrap_or_default(),
        }
    }

    /// IPVS's name for it; `None` for what IPVS does not have.
    pub fn scheduler(self) -> Option<&'static str> {
        Some(match self {
            Self::Random => return None,
            Self::RoundRobin => "rr",
            Self::WeightedRoundRobin => "wrr",
            Self::SourceHash => "sh",
            Self::LeastConnection => "lc",
            Self::WeightedLeastConnection => "wlc",
            Self::LocalityLeastConnection => "lblc",
            Self::LocalityLeastConnectionReplicated => "lblcr",
            Self::DestinationHash => "dh",
            Self::Maglev => "mh",
            Self::ShortestExpectedDelay => "sed",
            Self::NeverQueue => "nq",
            Self::Failover => "fo",
            Self::Overflow => "ovf",
        })
    }

    /// Every name that is understood, for messages.
    pub fn names() -> String {
        let plain = Self::ALL.map(Self::as_str).into_iter();
        let short = [Self::RoundRobin, Self::SourceHash].into_iter().filter_map(Self::scheduler);
        plain.chain(short).collect::<Vec<_>>().join(", ")
    }
}

impl FromStr for Algorithm {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is = |algorithm: &Self| algorithm.as_str() == text || algorithm.scheduler() == Some(text);
        Self::ALL.into_iter().find(is).ok_or(())
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_understood_and_no_other() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
            if let Some(scheduler) = algorithm.scheduler() {
                assert_eq!(scheduler.parse(), Ok(algorithm));
            }
            assert!(Algorithm::names().contains(algorithm.as_str()));
        }
        for text in ["", "RR", "roundrobin", "twos", "random "] {
            assert_eq!(text.parse::<Algorithm>(), Err(()), "{text:?}");
        }
    }
}

//! The upstreams of one zone: which is asked first, and which is down. No I/O.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use super::config::Policy;
use crate::metrics::UpstreamTimes;

/// One upstream's state.
#[derive(Debug)]
pub(super) struct Upstream {
    pub address: SocketAddr,
    fails: AtomicU32,
    checking: AtomicBool,
    /// It asks us: it is never used.
    looped: AtomicBool,
    pub times: UpstreamTimes,
}

impl Upstream {
    fn new(address: SocketAddr) -> Upstream {
        Upstream {
            address,
            fails: AtomicU32::new(0),
            checking: AtomicBool::new(false),
            looped: AtomicBool::new(false),
            times: UpstreamTimes::default(),
        }
    }

    pub(super) fn succeeded(&self) {
        // Nothing is written in the usual case, so that nobody waits for this line.
        if self.fails.load(Ordering::Relaxed) != 0 {
            self.fails.store(0, Ordering::Relaxed);
        }
    }

    /// Counts a failure. `true`: nobody checks its health yet, and the caller should start to.
    pub(super) fn failed(&self) -> bool {
        let more = |fails: u32| Some(fails.saturating_add(1));
        _ = self.fails.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        !self.checking.swap(true, Ordering::Relaxed)
    }

    pub(super) fn checked(&self, healthy: bool) {
        if healthy {
            self.fails.store(0, Ordering::Relaxed);
            self.checking.store(false, Ordering::Relaxed);
        } else {
            let more = |fails: u32| Some(fails.saturating_add(1));
            _ = self.fails.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        }
    }

    pub(super) fn is_down(&self, max_fails: u32) -> bool {
        max_fails != 0 && self.fails.load(Ordering::Relaxed) > max_fails
    }

    pub(super) fn set_looped(&self) -> bool {
        !self.looped.swap(true, Ordering::Relaxed)
    }

    pub(super) fn is_looped(&self) -> bool {
        self.looped.load(Ordering::Relaxed)
    }
}

/// The upstreams of one zone.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) upstreams: Vec<std::sync::Arc<Upstream>>,
    policy: Policy,
    turn: AtomicUsize,
}

impl Group {
    pub(super) fn new(addresses: &[SocketAddr], policy: Policy) -> Group {
        let upstreams = addresses.iter().map(|a| std::sync::Arc::new(Upstream::new(*a))).collect();
        Group { upstreams, policy, turn: AtomicUsize::new(0) }
    }

    /// In which order to try. Those that are down come only if all are, and then one of them, unless `fail_fast`.
    /// `random` is any number.
    pub(super) fn order(
        &self,
        max_fails: u32,
        fail_fast: bool,
        random: usize,
    ) -> Vec<std::sync::Arc<Upstream>> {
        let usable: Vec<_> = self.upstreams.iter().filter(|u| !u.is_looped()).cloned().collect();
        if usable.is_empty() {
            return usable;
        }
        let first = match self.policy {
            Policy::Sequential => 0,
            Policy::Random => random,
            Policy::RoundRobin => self.turn.fetch_add(1, Ordering::Relaxed),
        } % usable.len();
        let turned = usable[first..].iter().chain(&usable[..first]);
        let healthy: Vec<_> = turned.filter(|u| !u.is_down(max_fails)).cloned().collect();
        if !healthy.is_empty() || fail_fast {
            return healthy;
        }
        vec![usable[random % usable.len()].clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(policy: Policy) -> Group {
        Group::new(&["192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53"].map(|a| a.parse().unwrap()), policy)
    }

    fn order(group: &Group, random: usize) -> Vec<u8> {
        let last = |u: &std::sync::Arc<Upstream>| match u.address.ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        };
        group.order(2, false, random).iter().map(last).collect()
    }

    #[test]
    fn policies_choose_who_is_first() {
        let sequential = group(Policy::Sequential);
        assert_eq!([order(&sequential, 5), order(&sequential, 7)], [[1, 2, 3], [1, 2, 3]]);
        let turns = group(Policy::RoundRobin);
        assert_eq!([order(&turns, 0), order(&turns, 0), order(&turns, 0)], [[1, 2, 3], [2, 3, 1], [3, 1, 2]]);
        assert_eq!(order(&group(Policy::Random), 4), [2, 3, 1]);
    }

    #[test]
    fn who_fails_is_left_out_until_it_is_well() {
        let group = group(Policy::Sequential);
        let first = &group.upstreams[0];
        assert!(first.failed(), "the first failure starts the check");
        assert!(!first.failed());
        assert_eq!(order(&group, 0), [1, 2, 3], "two failures are forgiven");
        first.failed();
        assert_eq!(order(&group, 0), [2, 3]);
        first.checked(true);
        assert_eq!(order(&group, 0), [1, 2, 3]);
        assert!(first.failed(), "and the next failure starts the check again");
    }

    #[test]
    fn when_all_are_down_one_is_tried() {
        let group = group(Policy::Sequential);
        for upstream in &group.upstreams {
            (0..3).for_each(|_| _ = upstream.failed());
        }
        assert_eq!(order(&group, 1), [2]);
        assert!(group.order(2, true, 1).is_empty(), "unless it should fail fast");
        assert_eq!(group.order(0, false, 0).len(), 3, "and nobody is down where no failure counts");
    }

    #[test]
    fn a_loop_is_never_asked_again() {
        let group = group(Policy::Sequential);
        assert!(group.upstreams[1].set_looped());
        group.upstreams[1].checked(true);
        assert_eq!(order(&group, 0), [1, 3]);
    }
}

//! Holding back answers to strangers: a resolver that anybody may ask is a weapon, since UDP sources are easily forged and
//! answers are larger than questions.
//!
//! Sources in trusted ranges are never limited. Others share a budget per network (/24, /56). Beyond it, every second
//! question gets a truncated answer, which a real client follows up by TCP, and the rest get none ("slip", as in BIND's
//! and knot's response-rate limiting). The table's size is fixed: two networks may share a slot, then also the budget.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::DefaultHashBuilder;
use ipnet::IpNet;

/// 16,384 networks in 128 KiB.
const SLOTS: usize = 1 << 14;

/// What a source may have now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Answer,
    /// An empty answer that says "ask by TCP".
    Truncate,
    Drop,
}

#[derive(Debug)]
pub struct Limiter {
    trusted: Box<[IpNet]>,
    /// Answers per second and network; the burst is one second's worth.
    rate: u32,
    /// Milliseconds of the last visit in the upper half, thousandths of answers left in the lower.
    slots: Box<[AtomicU64]>,
    hasher: DefaultHashBuilder,
}

impl Limiter {
    /// A rate of 0 answers everybody.
    pub fn new(trusted: &[IpNet], rate: u32) -> Limiter {
        let full = u64::from(rate) * 1_000;
        Limiter {
            trusted: trusted.into(),
            // The budget in thousandths must fit half a slot.
            rate: rate.min(1_000_000),
            slots: (0..SLOTS).map(|_| AtomicU64::new(full.min(1_000_000_000))).collect(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Takes one answer off the source's budget. `now_ms` counts from any moment.
    pub fn check(&self, source: IpAddr, now_ms: u32) -> Verdict {
        if self.rate == 0 || self.trusted.iter().any(|net| net.contains(&source)) {
            return Verdict::Answer;
        }
        let slot = &self.slots[self.hasher.hash_one(network(source)) as usize % SLOTS];
        let mut verdict = Verdict::Answer;
        let update = |old: u64| {
            let (last, left) = ((old >> 32) as u32, old as u32);
            let elapsed = u64::from(now_ms.wrapping_sub(last));
            let full = u64::from(self.rate) * 1_000;
            let left = (u64::from(left) + elapsed * u64::from(self.rate)).min(full) as u32;
            verdict = match left {
                1_000.. => Verdict::Answer,
                // Below one answer, the lowest bit takes turns.
                left if left & 1 == 0 => Verdict::Truncate,
                _ => Verdict::Drop,
            };
            let left = if left >= 1_000 { left - 1_000 } else { left ^ 1 };
            Some(u64::from(now_ms) << 32 | u64::from(left))
        };
        // The closure always gives a value, so this cannot fail.
        _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        verdict
    }
}

/// What a source is held to: an attacker has a network, not an address.
fn network(source: IpAddr) -> u64 {
    match source {
        IpAddr::V4(ip) => u64::from(ip.to_bits() >> 8),
        IpAddr::V6(ip) => (ip.to_bits() >> 72) as u64 | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(limiter: &Limiter, source: &str, now_ms: u32, times: usize) -> Vec<Verdict> {
        (0..times).map(|_| limiter.check(source.parse().unwrap(), now_ms)).collect()
    }

    fn count(verdicts: &[Verdict], wanted: Verdict) -> usize {
        verdicts.iter().filter(|v| **v == wanted).count()
    }

    #[test]
    fn strangers_have_a_budget_and_then_slip() {
        let limiter = Limiter::new(&[], 10);
        let first = ask(&limiter, "192.0.2.1", 0, 30);
        assert_eq!(count(&first, Verdict::Answer), 10);
        assert_eq!(count(&first, Verdict::Truncate), 10);
        assert_eq!(count(&first, Verdict::Drop), 10);
        assert!(
            !ask(&limiter, "192.0.2.77", 0, 4).contains(&Verdict::Answer),
            "the network shares the budget"
        );
        let later = ask(&limiter, "192.0.2.1", 500, 30);
        assert_eq!(count(&later, Verdict::Answer), 5, "half a second fills half of it");
        assert_eq!(
            count(&ask(&limiter, "192.0.2.1", 60_000, 30), Verdict::Answer),
            10,
            "and never more than it all"
        );
    }

    #[test]
    fn trusted_sources_and_a_rate_of_zero_are_free() {
        let limiter = Limiter::new(&["10.0.0.0/8".parse().unwrap()], 1);
        assert_eq!(count(&ask(&limiter, "10.1.2.3", 0, 100), Verdict::Answer), 100);
        assert_eq!(count(&ask(&limiter, "2001:db8::1", 0, 100), Verdict::Answer), 1);
        assert_eq!(count(&ask(&Limiter::new(&[], 0), "192.0.2.1", 0, 100), Verdict::Answer), 100);
    }
}

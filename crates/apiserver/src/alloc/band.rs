//! Bands: which part of a range is left for explicit requests, and how a free place is picked at random.
//!
//! Dynamic allocation uses the upper band first, so that numbers people choose by hand, who start low, stay free. Pure.

use rand::Rng;

/// How large the lower band of a range is.
#[derive(Debug, Clone, Copy)]
pub struct BandRule {
    pub min: u128,
    pub step: u128,
    pub max: u128,
}

/// Cluster IPs: min(max(16, size/16), 256).
pub const CLUSTER_IPS: BandRule = BandRule { min: 16, step: 16, max: 256 };
/// Node ports: min(max(16, size/32), 128).
pub const NODE_PORTS: BandRule = BandRule { min: 16, step: 32, max: 128 };

impl BandRule {
    /// Places in the lower band of a range of `size`; none in a range so small that nothing can be spared.
    pub fn lower(self, size: u128) -> u128 {
        if size <= self.min { 0 } else { (size / self.step).clamp(self.min, self.max) }
    }
}

/// Picks a free place in `0..size`: random start in the upper band and on from there, wrapping, then the same in the
/// lower band. None: all are taken.
pub fn pick(size: u128, lower: u128, rng: &mut impl Rng, taken: impl Fn(u128) -> bool) -> Option<u128> {
    let lower = lower.min(size);
    scan(lower, size, rng, &taken).or_else(|| scan(0, lower, rng, &taken))
}

fn scan(from: u128, to: u128, rng: &mut impl Rng, taken: &impl Fn(u128) -> bool) -> Option<u128> {
    if from >= to {
        return None;
    }
    let start = rng.random_range(from..to);
    (start..to).chain(from..start).find(|place| !taken(*place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn lower_bands_are_those_of_kubernetes() {
        for (bits, lower) in [(4, 0), (5, 16), (6, 16), (8, 16), (10, 64), (12, 256), (20, 256), (64, 256)] {
            assert_eq!(CLUSTER_IPS.lower(1 << bits), lower, "2^{bits} addresses");
        }
        for (size, lower) in [(16, 0), (100, 16), (2768, 86), (10_000, 128)] {
            assert_eq!(NODE_PORTS.lower(size), lower, "{size} ports");
        }
    }

    #[test]
    fn the_upper_band_is_used_up_before_the_lower() {
        let mut rng = rand::rng();
        let mut taken = HashSet::new();
        let mut order = Vec::new();
        while let Some(place) = pick(100, 16, &mut rng, |place| taken.contains(&place)) {
            taken.insert(place);
            order.push(place);
        }
        assert_eq!(taken.len(), 100);
        assert!(order[..84].iter().all(|place| *place >= 16), "{order:?}");
        assert!(order[84..].iter().all(|place| *place < 16), "{order:?}");
    }

    #[test]
    fn an_empty_range_has_no_place() {
        assert_eq!(pick(0, 0, &mut rand::rng(), |_| false), None);
    }
}

//! Which range of pod addresses each node gets.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use ipnet::IpNet;

/// Hands out parts of the cluster's ranges, one of each family to a node, lowest first.
#[derive(Debug)]
pub struct Ranges {
    /// The cluster's range and the prefix length of a node's part.
    pools: Vec<(IpNet, u8)>,
    taken: HashSet<IpNet>,
    by_node: HashMap<Arc<str>, Vec<IpNet>>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the cluster's pod range {pool} has no /{part} left for another node; use a larger cluster CIDR")]
    Full { pool: IpNet, part: u8 },
    #[error("podCIDR {range} of node {node} is not from the cluster's ranges")]
    Foreign { node: Arc<str>, range: IpNet },
}

impl Ranges {
    /// The prefix length of a part is that of the pool at least; the default is /24 and /64.
    pub fn new(pools: &[IpNet]) -> Self {
        let part = |pool: &IpNet| if pool.addr().is_ipv4() { 24u8 } else { 64 };
        let pools = pools.iter().map(|pool| (pool.trunc(), part(pool).max(pool.prefix_len()))).collect();
        Self { pools, taken: HashSet::new(), by_node: HashMap::new() }
    }

    /// Records what a node already has, as its object says.
    pub fn occupy(&mut self, node: &Arc<str>, ranges: &[IpNet]) -> Result<(), Error> {
        self.release(node);
        self.taken.extend(ranges.iter().map(IpNet::trunc));
        self.by_node.insert(Arc::clone(node), ranges.iter().map(IpNet::trunc).collect());
        let foreign = ranges.iter().find(|range| !self.pools.iter().any(|(pool, _)| pool.contains(*range)));
        match foreign {
            Some(range) => Err(Error::Foreign { node: Arc::clone(node), range: *range }),
            None => Ok(()),
        }
    }

    /// The ranges of a node that has none yet: one from every pool. Asking again gives the same.
    pub fn assign(&mut self, node: &Arc<str>) -> Result<Vec<IpNet>, Error> {
        if let Some(ranges) = self.by_node.get(node) {
            return Ok(ranges.clone());
        }
        let mut ranges = Vec::with_capacity(self.pools.len());
        for (pool, part) in &self.pools {
            let free = |range: &IpNet| {
                !self.taken.contains(range) && !self.taken.iter().any(|taken| overlaps(taken, range))
            };
            let mut parts = pool.subnets(*part).map_err(|_| Error::Full { pool: *pool, part: *part })?;
            ranges.push(parts.find(free).ok_or(Error::Full { pool: *pool, part: *part })?);
        }
        self.taken.extend(&ranges);
        self.by_node.insert(Arc::clone(node), ranges.clone());
        Ok(ranges)
    }

    /// The node is gone: its ranges are free again.
    pub fn release(&mut self, node: &str) {
        for range in self.by_node.remove(node).into_iter().flatten() {
            self.taken.remove(&range);
        }
    }

    /// Who has what, for people.
    pub fn assigned(&self) -> BTreeMap<&str, &[IpNet]> {
        self.by_node.iter().map(|(node, ranges)| (&**node, ranges.as_slice())).collect()
    }
}

fn overlaps(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn lowest_first_and_free_after_release() {
        let mut ranges = Ranges::new(&nets(&["10.244.0.0/16"]));
        let name = |name: &str| -> Arc<str> { name.into() };
        assert_eq!(ranges.assign(&name("a")).unwrap(), nets(&["10.244.0.0/24"]));
        assert_eq!(ranges.assign(&name("b")).unwrap(), nets(&["10.244.1.0/24"]));
        assert_eq!(ranges.assign(&name("a")).unwrap(), nets(&["10.244.0.0/24"]), "the same again");
        ranges.release("a");
        assert_eq!(ranges.assign(&name("c")).unwrap(), nets(&["10.244.0.0/24"]));
        assert_eq!(ranges.assigned().len(), 2);
    }

    #[test]
    fn what_nodes_have_is_not_given_again() {
        let mut ranges = Ranges::new(&nets(&["10.244.0.0/16", "fd00::/48"]));
        ranges.occupy(&"a".into(), &nets(&["10.244.0.0/23"])).unwrap();
        assert_eq!(ranges.assign(&"b".into()).unwrap(), nets(&["10.244.2.0/24", "fd00::/64"]));
        assert!(matches!(ranges.occupy(&"c".into(), &nets(&["10.9.0.0/24"])), Err(Error::Foreign { .. })));
    }

    #[test]
    fn a_full_pool_says_so() {
        let mut ranges = Ranges::new(&nets(&["10.0.0.0/24"]));
        ranges.assign(&"a".into()).unwrap();
        let full = ranges.assign(&"b".into());
        assert_eq!(full, Err(Error::Full { pool: nets(&["10.0.0.0/24"])[0], part: 24 }));
    }
}

//! Who may announce which address, in which order. Pure: what the API says, and nothing about the moment.
//!
//! Every node computes the same [`Claim`] from the same objects. The order of the candidates is rendezvous hashing: each
//! node has a weight for each address, so addresses spread evenly, and a node that comes or goes moves only addresses
//! of its own. [`Planner`] keeps what it needs indexed, so that a change costs what it touches.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use portolan_client::Key;

use crate::objects::{NodeView, PoolView, ServiceView, SliceView};

/// Who may announce one address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// The first one that is alive announces.
    pub candidates: Vec<Arc<str>>,
    /// So many of them come first because they are well; the others, cordoned or not ready, are asked after them.
    pub preferred: usize,
    /// On these links; none named: the links of the address's network.
    pub interfaces: Vec<String>,
    /// For events.
    pub services: Vec<Holder>,
}

/// A Service that has the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub key: Key,
    pub uid: String,
}

/// Nodes that run an announcer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announcer {
    pub addresses: Vec<IpAddr>,
    /// Its Lease is being renewed: what counts where its beats cannot be heard.
    pub fresh: bool,
}

/// What is new.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// `None`: not to be announced any more.
    pub claims: Vec<(IpAddr, Option<Claim>)>,
    /// All of them, if any changed.
    pub announcers: Option<BTreeMap<Arc<str>, Announcer>>,
}

impl Claim {
    /// Whether a node is among those who come first.
    pub fn prefers(&self, node: &Arc<str>) -> bool {
        self.candidates.iter().take(self.preferred).any(|candidate| candidate == node)
    }
}

impl Change {
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty() && self.announcers.is_none()
    }
}

/// How much a node wants an address: the highest wins. Part of the protocol: all nodes must agree on it.
pub fn weight(node: &str, ip: IpAddr) -> u64 {
    // FNV-1a, and a finalizer that spreads its weak high bits (splitmix64).
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = node.as_bytes().iter().chain(b"#").fold(0xcbf2_9ce4_8422_2325, fnv);
    let hash = match ip {
        IpAddr::V4(ip) => ip.octets().iter().fold(hash, fnv),
        IpAddr::V6(ip) => ip.octets().iter().fold(hash, fnv),
    };
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Everything that claims are made of.
#[derive(Debug, Default)]
pub struct Planner {
    services: HashMap<Key, Arc<ServiceView>>,
    by_address: HashMap<IpAddr, BTreeSet<Key>>,
    slices: HashMap<Key, HashMap<Key, Arc<SliceView>>>,
    slice_of: HashMap<Key, Key>,
    nodes: BTreeMap<Arc<str>, Arc<NodeView>>,
    pools: BTreeMap<Arc<str>, Arc<PoolView>>,
    /// Nodes with an announcer's Lease, and whether it is fresh.
    leases: BTreeMap<Arc<str>, bool>,
    dirty: HashSet<IpAddr>,
    all_dirty: bool,
    last: HashMap<IpAddr, Claim>,
    last_announcers: BTreeMap<Arc<str>, Announcer>,
}

impl Planner {
    pub fn service(&mut self, key: &Key, service: Option<Arc<ServiceView>>) {
        if let Some(old) = self.services.remove(key) {
            for ip in &old.addresses {
                self.dirty.insert(*ip);
                if let Some(keys) = self.by_address.get_mut(ip) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.by_address.remove(ip);
                    }
                }
            }
        }
        if let Some(service) = service.filter(|service| !service.addresses.is_empty()) {
            for ip in &service.addresses {
                self.dirty.insert(*ip);
                self.by_address.entry(*ip).or_default().insert(key.clone());
            }
            self.services.insert(key.clone(), service);
        }
    }

    pub fn slice(&mut self, key: &Key, slice: Option<Arc<SliceView>>) {
        if let Some(service) = self.slice_of.remove(key) {
            if let Some(slices) = self.slices.get_mut(&service) {
                slices.remove(key);
                if slices.is_empty() {
                    self.slices.remove(&service);
                }
            }
            self.endpoints_changed(&service);
        }
        if let Some(slice) = slice
            && let Some(service) = slice.service.clone()
        {
            self.slice_of.insert(key.clone(), service.clone());
            self.slices.entry(service.clone()).or_default().insert(key.clone(), slice);
            self.endpoints_changed(&service);
        }
    }

    fn endpoints_changed(&mut self, service: &Key) {
        if let Some(service) = self.services.get(service).filter(|service| service.local) {
            self.dirty.extend(service.addresses.iter().copied());
        }
    }

    pub fn node(&mut self, name: &Arc<str>, node: Option<Arc<NodeView>>) {
        let old = match node {
            Some(node) => self.nodes.insert(Arc::clone(name), node),
            None => self.nodes.remove(name),
        };
        self.all_dirty |= old.as_ref() != self.nodes.get(name);
    }

    pub fn pool(&mut self, name: &Arc<str>, pool: Option<Arc<PoolView>>) {
        match pool {
            Some(pool) => drop(self.pools.insert(Arc::clone(name), pool)),
            None => drop(self.pools.remove(name)),
        }
        self.all_dirty = true;
    }

    pub fn leases(&mut self, leases: BTreeMap<Arc<str>, bool>) {
        self.all_dirty |= !self.leases.keys().eq(leases.keys());
        self.leases = leases;
    }

    /// What has changed since the last call.
    pub fn take(&mut self) -> Change {
        let mut dirty = std::mem::take(&mut self.dirty);
        if std::mem::take(&mut self.all_dirty) {
            dirty.extend(self.by_address.keys().copied());
        }
        let mut change = Change::default();
        for ip in dirty {
            let claim = self.claim(ip);
            if claim.as_ref() == self.last.get(&ip) {
                continue;
            }
            match &claim {
                Some(claim) => drop(self.last.insert(ip, claim.clone())),
                None => drop(self.last.remove(&ip)),
            }
            change.claims.push((ip, claim));
        }
        change.claims.sort_by_key(|(ip, _)| *ip);
        let announcers = self.announcers();
        if announcers != self.last_announcers {
            self.last_announcers.clone_from(&announcers);
            change.announcers = Some(announcers);
        }
        change
    }

    fn announcers(&self) -> BTreeMap<Arc<str>, Announcer> {
        let of = |(name, fresh): (&Arc<str>, &bool)| {
            let addresses = self.nodes.get(name)?.addresses.clone();
            Some((Arc::clone(name), Announcer { addresses, fresh: *fresh }))
        };
        self.leases.iter().filter_map(of).collect()
    }

    fn claim(&self, ip: IpAddr) -> Option<Claim> {
        let keys = self.by_address.get(&ip)?;
        let services: Vec<(&Key, &Arc<ServiceView>)> =
            keys.iter().filter_map(|key| Some((key, self.services.get(key)?))).collect();
        let pool = self.pools.values().find(|pool| pool.ranges.iter().any(|range| range.contains(ip)));
        let local: Vec<HashSet<&Arc<str>>> = services
            .iter()
            .filter(|(_, service)| service.local)
            .map(|(key, _)| self.endpoint_nodes(key))
            .collect();
        let mut candidates: Vec<(bool, u64, &Arc<str>)> = Vec::new();
        for name in self.leases.keys() {
            let Some(node) = self.nodes.get(name) else { continue };
            let chosen =
                pool.and_then(|pool| pool.nodes.as_ref()).is_none_or(|query| query.matches(&node.labels));
            // Services that share an address with policy Local have the same selector: one stands for all.
            let has_endpoints = local.is_empty() || local.iter().any(|nodes| nodes.contains(name));
            if !node.excluded && chosen && has_endpoints {
                candidates.push((node.preferred, weight(name, ip), name));
            }
        }
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        let holder =
            |(key, service): (&Key, &Arc<ServiceView>)| Holder { key: key.clone(), uid: service.uid.clone() };
        Some(Claim {
            preferred: candidates.iter().filter(|(preferred, _, _)| *preferred).count(),
            candidates: candidates.into_iter().map(|(_, _, name)| Arc::clone(name)).collect(),
            interfaces: pool.map(|pool| pool.interfaces.clone()).unwrap_or_default(),
            services: services.into_iter().map(holder).collect(),
        })
    }

    /// Nodes with a ready endpoint; where there is none at all, those whose endpoints still serve while they end.
    fn endpoint_nodes(&self, service: &Key) -> HashSet<&Arc<str>> {
        let Some(slices) = self.slices.get(service) else { return HashSet::new() };
        let ready: HashSet<&Arc<str>> = slices.values().flat_map(|slice| &slice.ready).collect();
        if ready.is_empty() { slices.values().flat_map(|slice| &slice.serving).collect() } else { ready }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn node(more: impl FnOnce(&mut NodeView)) -> Arc<NodeView> {
        let mut node = NodeView { preferred: true, ..NodeView::default() };
        more(&mut node);
        Arc::new(node)
    }

    fn planner(nodes: &[&str]) -> Planner {
        let mut planner = Planner::default();
        for name in nodes {
            planner.node(&Arc::from(*name), Some(node(|_| ())));
        }
        planner.leases(nodes.iter().map(|name| (Arc::from(*name), true)).collect());
        planner
    }

    fn service(ips: &[IpAddr], local: bool) -> Arc<ServiceView> {
        Arc::new(ServiceView { uid: String::new(), addresses: ips.to_vec(), local })
    }

    fn candidates(change: &Change, ip: IpAddr) -> Vec<&str> {
        let (_, claim) = change.claims.iter().find(|(other, _)| *other == ip).unwrap();
        claim.as_ref().unwrap().candidates.iter().map(AsRef::as_ref).collect()
    }

    #[test]
    fn weights_are_part_of_the_protocol() {
        assert_eq!(weight("node-1", ip(1)), 15_500_009_625_785_470_602);
        assert_eq!(weight("node-1", "fd00::1".parse().unwrap()), 11_525_715_360_807_597_782);
    }

    #[test]
    fn a_change_touches_what_it_concerns() {
        let mut planner = planner(&["a", "b", "c"]);
        planner.service(&Key::new("d", "one"), Some(service(&[ip(1)], false)));
        planner.service(&Key::new("d", "two"), Some(service(&[ip(2)], false)));
        let change = planner.take();
        assert_eq!((change.claims.len(), change.announcers.as_ref().unwrap().len()), (2, 3));
        assert_eq!(candidates(&change, ip(1)).len(), 3);
        assert!(planner.take().is_empty());
        planner.service(&Key::new("d", "two"), None);
        assert_eq!(planner.take().claims, [(ip(2), None)]);
        planner.node(&Arc::from("a"), Some(node(|_| ())));
        assert!(planner.take().is_empty(), "the same node again");
    }

    #[test]
    fn local_services_are_announced_where_their_endpoints_are() {
        let mut planner = planner(&["a", "b", "c"]);
        let key = Key::new("d", "one");
        planner.service(&key, Some(service(&[ip(1)], true)));
        assert_eq!(candidates(&planner.take(), ip(1)), [""; 0]);
        let slice = |ready: &[&str], serving: &[&str]| {
            let nodes = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
            let service = Some(key.clone());
            Some(Arc::new(SliceView { service, ready: nodes(ready), serving: nodes(serving) }))
        };
        planner.slice(&Key::new("d", "one-x"), slice(&["b"], &["a"]));
        assert_eq!(candidates(&planner.take(), ip(1)), ["b"]);
        planner.slice(&Key::new("d", "one-x"), slice(&[], &["a"]));
        assert_eq!(candidates(&planner.take(), ip(1)), ["a"]);
        planner.slice(&Key::new("d", "one-x"), None);
        assert_eq!(candidates(&planner.take(), ip(1)), [""; 0]);
    }

    #[test]
    fn excluded_and_unselected_nodes_do_not_announce_and_cordoned_ones_come_last() {
        let mut planner = planner(&["a", "b", "c", "d"]);
        planner.node(&Arc::from("a"), Some(node(|node| node.excluded = true)));
        planner.service(&Key::new("d", "one"), Some(service(&[ip(1)], false)));
        let change = planner.take();
        assert_eq!(candidates(&change, ip(1)).len(), 3);
        let first: Arc<str> = Arc::from(candidates(&change, ip(1))[0]);
        planner.node(&first, Some(node(|node| node.preferred = false)));
        assert_eq!(candidates(&planner.take(), ip(1))[2], &*first);
        let pool =
            br#"{"metadata": {"name": "p"}, "spec": {"addresses": ["192.0.2.0/24"], "interfaces": ["eth1"],
            "nodeSelector": {"matchLabels": {"edge": "yes"}}}}"#;
        planner.pool(&Arc::from("p"), Some(Arc::new(PoolView::project(pool).unwrap())));
        planner.node(&Arc::from("d"), Some(node(|node| _ = node.labels.insert("edge".into(), "yes".into()))));
        let change = planner.take();
        assert_eq!(candidates(&change, ip(1)), ["d"]);
        assert_eq!(change.claims[0].1.as_ref().unwrap().interfaces, ["eth1"]);
    }

    #[test]
    fn addresses_spread_over_the_nodes() {
        let nodes = ["node-1", "node-2", "node-3"];
        let mut counts = [0; 3];
        for n in 0..3000_u32 {
            let ip = IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n));
            let first = (0..3).max_by_key(|i| weight(nodes[*i], ip)).unwrap();
            counts[first] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn a_node_that_goes_moves_only_its_own_addresses(
            names in proptest::collection::btree_set("[a-z]{1,8}", 2..8),
            gone in any::<prop::sample::Index>(),
        ) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let ips: Vec<IpAddr> = (0..100).map(ip).collect();
            let mut planner = planner(&names);
            planner.service(&Key::new("d", "one"), Some(service(&ips, false)));
            let before = planner.take();
            let gone = names[gone.index(names.len())];
            planner.node(&Arc::from(gone), None);
            let after = planner.take();
            for ip in ips {
                let (old, new) = (candidates(&before, ip), candidates(&after, ip));
                let rest: Vec<&str> = old.into_iter().filter(|name| *name != gone).collect();
                prop_assert_eq!(rest, new, "the order of the others stays");
            }
        }
    }
}

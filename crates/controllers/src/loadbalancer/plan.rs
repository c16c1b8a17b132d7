//! Who gets which address. Pure: no clock, no I/O.
//!
//! [`Allocator`] is what is held now, indexed so that each question costs a few map operations. Every method takes the
//! newest state of one object; [`Allocator::plan`] decides about one Service and remembers the decision. Its order of
//! preference: what the Service holds already; what it asks for by name; an address it may share; the lowest free one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use portolan_client::Key;

use super::objects::Service;
use super::pool::{Pool, Pools, names};
use super::problem::Problem;
use super::wish::{Tenancy, Wish};
use crate::objects::Labels;

/// So many of those who wait for any address are looked at when one becomes free.
const WOKEN_MAX: usize = 16;

/// What a Service is to have, and what there is to say about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Primary family first.
    pub addresses: Vec<IpAddr>,
    /// Where they are from, or why the wish is not granted.
    pub note: Note,
    /// Addresses it held before, each with the reason why no more.
    pub lost: Vec<(IpAddr, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// All that was asked for.
    Assigned { pools: String },
    /// Works, and should be known: a family is missing, or no pool offers the address any more.
    Remark { reason: &'static str, message: String },
    /// Not what was asked for; addresses held before are kept.
    Problem(Problem),
}

impl Default for Note {
    fn default() -> Self {
        Self::Assigned { pools: String::new() }
    }
}

/// One Service that holds addresses.
#[derive(Debug, Default)]
struct Holding {
    addresses: Vec<IpAddr>,
    tenancy: Tenancy,
}

/// One address that is held.
#[derive(Debug, Default)]
struct Tenants {
    holders: BTreeSet<Key>,
    ports: HashMap<(String, i32), Key>,
}

/// What is held now.
#[derive(Debug, Default)]
pub struct Allocator {
    pools: Pools,
    held: HashMap<Key, Holding>,
    addresses: HashMap<IpAddr, Tenants>,
    /// Addresses by the sharing key of those who hold them.
    shared: HashMap<String, BTreeSet<IpAddr>>,
    waiting: Waiting,
}

/// Services whose wish could not be granted.
#[derive(Debug, Default)]
struct Waiting {
    /// By age, the oldest first.
    order: BTreeSet<(String, Key)>,
    entries: HashMap<Key, (String, Option<IpAddr>)>,
    by_address: HashMap<IpAddr, HashSet<Key>>,
}

impl Waiting {
    fn add(&mut self, key: &Key, created: &str, address: Option<IpAddr>) {
        self.remove(key);
        self.order.insert((created.to_owned(), key.clone()));
        self.entries.insert(key.clone(), (created.to_owned(), address));
        if let Some(ip) = address {
            self.by_address.entry(ip).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &Key) {
        let Some((created, address)) = self.entries.remove(key) else { return };
        self.order.remove(&(created, key.clone()));
        if let Some(ip) = address
            && let Some(keys) = self.by_address.get_mut(&ip)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.by_address.remove(&ip);
            }
        }
    }

    /// Whom the release of an address may help.
    fn woken_by(&self, ip: IpAddr) -> Vec<Key> {
        let named = self.by_address.get(&ip).into_iter().flatten().cloned();
        let any = self.order.iter().take(WOKEN_MAX).map(|(_, key)| key.clone());
        named.chain(any).collect()
    }
}

impl Allocator {
    /// Takes in all pools anew. Nobody loses an address by it.
    pub fn set_pools(&mut self, pools: Vec<Pool>) {
        self.pools = Pools::new(pools);
        for ip in self.addresses.keys() {
            self.pools.take(*ip);
        }
    }

    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.pools.iter()
    }

    /// Pools that offer some of the addresses of an older one.
    pub fn overlaps(&self) -> HashMap<String, String> {
        let said = |(pool, other, range)| {
            let message = format!(
                "some of {range} is offered by pool {other} too: take it out of one of them; no address is given twice"
            );
            (String::from(pool), message)
        };
        self.pools.overlaps().into_iter().map(said).collect()
    }

    pub fn selects_by_namespace(&self) -> bool {
        self.pools.iter().any(Pool::selects_by_namespace)
    }

    pub fn holds(&self, key: &Key) -> bool {
        self.held.contains_key(key)
    }

    pub fn waiting_count(&self) -> usize {
        self.waiting.order.len()
    }

    /// Everyone whose wish is not granted.
    pub fn waiting(&self) -> Vec<Key> {
        self.waiting.order.iter().map(|(_, key)| key.clone()).collect()
    }

    /// Takes over what a Service's status says it has, as far as nobody known holds it: called for the oldest Service
    /// first, before anything is planned.
    pub fn adopt(&mut self, key: &Key, service: &Service) {
        if self.held.contains_key(key) {
            return;
        }
        let tenancy = Tenancy::of(service);
        let mut kept = Vec::new();
        for ip in service.addresses() {
            if !kept.contains(&ip) && self.may_hold(ip, key, &tenancy).is_ok() {
                kept.push(ip);
            }
        }
        self.hold(key, kept, tenancy);
    }

    /// The Service is gone, or is none of ours any more. Gives those whom that may help.
    pub fn release(&mut self, key: &Key) -> Vec<Key> {
        self.waiting.remove(key);
        self.let_go(key).into_iter().flat_map(|ip| self.waiting.woken_by(ip)).collect()
    }

    /// Decides about one Service, and remembers it. Gives those whom it may help as well.
    pub fn plan(&mut self, key: &Key, service: &Service, namespace: &Labels) -> (Verdict, Vec<Key>) {
        let (wish, flaw) = match Wish::of(service) {
            Ok(wish) => (wish, None),
            // What it has is judged as if it asked for nothing.
            Err(problem) => (Wish::nothing(service), Some(problem)),
        };
        let held = self.held.get(key).map(|holding| holding.addresses.clone()).unwrap_or_default();
        let same_tenancy = self.held.get(key).is_some_and(|holding| holding.tenancy == wish.tenancy);
        let choice =
            Choice { allocator: self, key, wish: &wish, labels: (namespace, &service.metadata.labels) };
        let mut verdict = choice.decide(&held);
        if let Some(problem) = flaw {
            verdict.note = Note::Problem(problem);
            // A wish that cannot be read is not taken for none.
            verdict.addresses.retain(|ip| held.contains(ip));
        }
        self.hold(key, verdict.addresses.clone(), wish.tenancy.clone());
        match &verdict.note {
            Note::Problem(problem) => {
                let created = service.metadata.creation_timestamp.as_deref().unwrap_or_default();
                self.waiting.add(key, created, problem.waits_for());
            }
            _ => self.waiting.remove(key),
        }
        // A port that is given up may be what another sharer waits for.
        let released = held.iter().filter(|ip| !same_tenancy || !verdict.addresses.contains(ip));
        let woken = released.flat_map(|ip| self.waiting.woken_by(*ip)).filter(|other| other != key).collect();
        (verdict, woken)
    }

    /// Whether the Service may have the address beside those who hold it.
    fn may_hold(&self, ip: IpAddr, key: &Key, tenancy: &Tenancy) -> Result<(), Problem> {
        let Some(tenants) = self.addresses.get(&ip) else { return Ok(()) };
        let Some(holder) = tenants.holders.iter().find(|holder| *holder != key) else { return Ok(()) };
        let Some(other) = self.held.get(holder).map(|holding| &holding.tenancy) else { return Ok(()) };
        let holder = holder.clone();
        match (&other.sharing, &tenancy.sharing) {
            (Some(theirs), Some(ours)) if theirs == ours => {}
            (Some(_), Some(_)) => return Err(Problem::OtherKey { ip, holder }),
            _ => return Err(Problem::Taken { ip, holder }),
        }
        if other.backends != tenancy.backends {
            return Err(Problem::OtherBackends { ip, holder });
        }
        for port in &tenancy.ports {
            if let Some(holder) = tenants.ports.get(port).filter(|holder| *holder != key) {
                let port = format!("{}/{}", port.1, port.0);
                return Err(Problem::PortInUse { ip, port, holder: holder.clone() });
            }
        }
        Ok(())
    }

    fn hold(&mut self, key: &Key, addresses: Vec<IpAddr>, tenancy: Tenancy) {
        if self.held.get(key).is_some_and(|now| now.addresses == addresses && now.tenancy == tenancy) {
            return;
        }
        self.let_go(key);
        if addresses.is_empty() {
            return;
        }
        for ip in &addresses {
            let tenants = self.addresses.entry(*ip).or_default();
            if tenants.holders.is_empty() {
                self.pools.take(*ip);
            }
            tenants.holders.insert(key.clone());
            tenants.ports.extend(tenancy.ports.iter().map(|port| (port.clone(), key.clone())));
            if let Some(sharing) = &tenancy.sharing {
                self.shared.entry(sharing.clone()).or_default().insert(*ip);
            }
        }
        self.held.insert(key.clone(), Holding { addresses, tenancy });
    }

    /// Takes everything from the Service; gives the addresses it held.
    fn let_go(&mut self, key: &Key) -> Vec<IpAddr> {
        let Some(holding) = self.held.remove(key) else { return Vec::new() };
        for ip in &holding.addresses {
            let Some(tenants) = self.addresses.get_mut(ip) else { continue };
            tenants.holders.remove(key);
            tenants.ports.retain(|_, holder| holder != key);
            if !tenants.holders.is_empty() {
                continue;
            }
            self.addresses.remove(ip);
            self.pools.put(*ip);
            if let Some(sharing) = &holding.tenancy.sharing
                && let Some(addresses) = self.shared.get_mut(sharing)
            {
                addresses.remove(ip);
                if addresses.is_empty() {
                    self.shared.remove(sharing);
                }
            }
        }
        holding.addresses
    }

    /// Who holds what, for checks.
    #[cfg(test)]
    pub(super) fn holdings(&self) -> impl Iterator<Item = (&Key, &[IpAddr])> {
        self.held.iter().map(|(key, holding)| (key, holding.addresses.as_slice()))
    }
}

fn family(ipv4: bool) -> &'static str {
    if ipv4 { "IPv4" } else { "IPv6" }
}

/// One decision about one Service.
struct Choice<'a> {
    allocator: &'a Allocator,
    key: &'a Key,
    wish: &'a Wish,
    /// Of the namespace, of the Service.
    labels: (&'a Labels, &'a Labels),
}

impl Choice<'_> {
    fn pools(&self) -> &Pools {
        &self.allocator.pools
    }

    fn decide(&self, held: &[IpAddr]) -> Verdict {
        let mut verdict = Verdict::default();
        let mut problems = Vec::new();
        let mut given: HashMap<bool, IpAddr> = HashMap::new();
        for ipv4 in &self.wish.families {
            let now = held.iter().copied().find(|ip| ip.is_ipv4() == *ipv4);
            match self.named_or_held(*ipv4, now) {
                Ok(Some(ip)) => _ = given.insert(*ipv4, ip),
                Ok(None) => {}
                Err(problem) => {
                    // The wish fails; what it has stays, if it may.
                    let kept = now.filter(|ip| self.may_hold(*ip).is_ok());
                    given.extend(kept.map(|ip| (*ipv4, ip)));
                    problems.push(problem);
                }
            }
        }
        let missing: Vec<bool> =
            self.wish.families.iter().copied().filter(|ipv4| !given.contains_key(ipv4)).collect();
        if problems.is_empty() && !missing.is_empty() {
            match self.pick(&missing, given.values().next().copied()) {
                Ok(found) => given.extend(found),
                Err((found, problem)) => {
                    given.extend(found);
                    problems.push(problem);
                }
            }
        }
        verdict.addresses = self.wish.families.iter().filter_map(|ipv4| given.get(ipv4).copied()).collect();
        // Two families and an address of one: a Service that needs both has its wish not granted.
        if !problems.is_empty() && !self.wish.any_family {
            verdict.addresses.retain(|ip| held.contains(ip));
        }
        verdict.note = self.note(&verdict.addresses, problems.into_iter().next());
        verdict.lost = self.lost(held, &verdict.addresses);
        verdict
    }

    /// The address that is asked for in this family, else the one that is held, if it may be kept.
    fn named_or_held(&self, ipv4: bool, now: Option<IpAddr>) -> Result<Option<IpAddr>, Problem> {
        if let Some(ip) = self.wish.addresses.iter().copied().find(|ip| ip.is_ipv4() == ipv4) {
            if now != Some(ip) {
                self.may_ask_for(ip)?;
            }
            self.may_hold(ip)?;
            return Ok(Some(ip));
        }
        let Some(ip) = now.filter(|ip| self.may_hold(*ip).is_ok()) else { return Ok(None) };
        let Some(asked) = &self.wish.pool else { return Ok(Some(ip)) };
        let at_home = self.pools().named(asked).is_some_and(|pool| pool.contains(ip));
        let elsewhere = self.pools().iter().any(|pool| pool.contains(ip));
        if at_home || !elsewhere {
            return Ok(Some(ip));
        }
        // It asks for another pool than its address is from: it moves if there is somewhere to go.
        match self.pick(&[ipv4], None) {
            Ok(found) => Ok(found.into_iter().next().map(|(_, ip)| ip)),
            Err((_, problem)) => Err(problem),
        }
    }

    fn may_hold(&self, ip: IpAddr) -> Result<(), Problem> {
        self.allocator.may_hold(ip, self.key, &self.wish.tenancy)
    }

    fn selected(&self, pool: &Pool) -> bool {
        pool.selects(self.labels.0, self.labels.1)
    }

    fn may_ask_for(&self, ip: IpAddr) -> Result<(), Problem> {
        if self.pools().is_empty() {
            return Err(Problem::NoPools);
        }
        let mut offering = self.pools().iter().filter(|pool| pool.contains(ip)).peekable();
        let Some(first) = offering.peek() else {
            return Err(Problem::Outside { ip, pools: self.pools().names() });
        };
        let first = first.name.clone();
        if offering.any(|pool| self.selected(pool)) { Ok(()) } else { Err(Problem::Refused { name: first }) }
    }

    fn eligible(&self) -> Result<Vec<&Pool>, Problem> {
        let pools = self.pools();
        if pools.is_empty() {
            return Err(Problem::NoPools);
        }
        if let Some(name) = &self.wish.pool {
            let missing = || Problem::NoSuchPool { name: name.clone(), pools: pools.names() };
            let pool = pools.named(name).ok_or_else(missing)?;
            return if self.selected(pool) {
                Ok(vec![pool])
            } else {
                Err(Problem::Refused { name: name.clone() })
            };
        }
        let fits: Vec<&Pool> =
            pools.iter().filter(|pool| pool.auto_assign() && self.selected(pool)).collect();
        if fits.is_empty() { Err(Problem::NoPoolFits { pools: pools.names() }) } else { Ok(fits) }
    }

    /// Addresses of the missing families: all from one pool if possible, best from the one of `beside`.
    #[allow(clippy::type_complexity, reason = "what was found, and what was not")]
    fn pick(
        &self,
        missing: &[bool],
        beside: Option<IpAddr>,
    ) -> Result<Vec<(bool, IpAddr)>, (Vec<(bool, IpAddr)>, Problem)> {
        let mut pools = self.eligible().map_err(|problem| (Vec::new(), problem))?;
        if let Some(ip) = beside {
            // Stable: the others keep their order.
            pools.sort_by_key(|pool| !pool.contains(ip));
        }
        let all_of = |pool: &&Pool| -> Option<Vec<(bool, IpAddr)>> {
            missing.iter().map(|ipv4| Some((*ipv4, self.in_pool(pool, *ipv4)?))).collect()
        };
        if let Some(found) = pools.iter().find_map(all_of) {
            return Ok(found);
        }
        let (mut found, mut problem) = (Vec::new(), None);
        for ipv4 in missing {
            match pools.iter().find_map(|pool| self.in_pool(pool, *ipv4)) {
                Some(ip) => found.push((*ipv4, ip)),
                None => problem = problem.or_else(|| Some(Self::none_left(&pools, *ipv4))),
            }
        }
        match problem {
            None => Ok(found),
            Some(problem) => Err((found, problem)),
        }
    }

    fn none_left(pools: &[&Pool], ipv4: bool) -> Problem {
        let (family, pools_named) = (family(ipv4), names(pools.iter().copied()));
        if pools.iter().any(|pool| pool.has_family(ipv4)) {
            Problem::Exhausted { family, pools: pools_named }
        } else {
            Problem::NoFamily { family, pools: pools_named }
        }
    }

    /// An address that the Service may share, else the lowest free one.
    fn in_pool(&self, pool: &Pool, ipv4: bool) -> Option<IpAddr> {
        let sharing = self.wish.tenancy.sharing.as_ref();
        let shared = sharing.and_then(|sharing| self.allocator.shared.get(sharing)).into_iter().flatten();
        let mut fits =
            shared.filter(|ip| ip.is_ipv4() == ipv4 && pool.contains(**ip) && self.may_hold(**ip).is_ok());
        fits.next().copied().or_else(|| pool.lowest_free(ipv4))
    }

    fn note(&self, addresses: &[IpAddr], problem: Option<Problem>) -> Note {
        if let Some(problem) = problem {
            if self.wish.any_family && !addresses.is_empty() && self.wish.addresses.is_empty() {
                return Note::Remark { reason: "FamilyMissing", message: problem.to_string() };
            }
            return Note::Problem(problem);
        }
        let mut homes = Vec::new();
        for ip in addresses {
            let Some(pool) = self.pools().iter().find(|pool| pool.contains(*ip)) else {
                return outside(*ip);
            };
            if !self.pools().iter().any(|pool| pool.contains(*ip) && self.selected(pool)) {
                let message = format!(
                    "keeps {ip}, although the selectors of pool {} do not match this Service any more: change them, or \
                     delete the Service",
                    pool.name
                );
                return Note::Remark { reason: "NotSelected", message };
            }
            if !homes.contains(&pool.name) {
                homes.push(pool.name.clone());
            }
        }
        Note::Assigned { pools: homes.join(", ") }
    }

    fn lost(&self, held: &[IpAddr], now: &[IpAddr]) -> Vec<(IpAddr, String)> {
        let gone = held.iter().filter(|ip| !now.contains(ip));
        gone.map(|ip| {
            let why = match self.may_hold(*ip) {
                Err(problem) => problem.to_string(),
                Ok(()) if !self.wish.families.contains(&ip.is_ipv4()) => {
                    "spec.ipFamilies does not have its family any more".to_owned()
                }
                Ok(()) => "the Service asks for another".to_owned(),
            };
            (*ip, why)
        })
        .collect()
    }
}

fn outside(ip: IpAddr) -> Note {
    let message = format!(
        "keeps {ip}, although no pool offers it any more: put it back into a pool, or ask for another address with the \
         annotation metallb.io/loadBalancerIPs"
    );
    Note::Remark { reason: "OutsidePools", message }
}

impl Wish {
    /// No wish at all, beyond being what it is.
    fn nothing(service: &Service) -> Self {
        let mut plain = service.clone();
        plain.spec.load_balancer_ip.clear();
        let sharing =
            service.metadata.annotations.iter().filter(|(name, _)| name.ends_with("/allow-shared-ip"));
        plain.metadata.annotations = sharing.collect();
        Self::of(&plain).unwrap_or_else(|_| Self {
            families: vec![true],
            any_family: false,
            addresses: Vec::new(),
            pool: None,
            tenancy: Tenancy::of(service),
        })
    }
}

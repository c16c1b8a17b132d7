//! From a Service's table to the rules it needs. There is no open choice to remember: which chain an endpoint's rule is
//! in follows from the endpoint.
//!
//! In table `nat` each frontend has a rule or two in the shared chain where its [`Way`] ends, which mark the packet if
//! it is to be masqueraded and lead to a *pick* chain. A frontend with source ranges has a *guard* chain before that,
//! one whose traffic goes different ways by origin an *origin* chain. In table `filter` there is only what must be
//! refused though nobody translated it.

use portolan_forward::table::Claim;
use portolan_forward::{
    Affinity, Algorithm, Endpoint, Family, Frontend, FrontendKind, Guard, LocalTraffic, NodePortAddresses,
    NodeView, PoolScope, PortTable, Protocol, Route, Routes, ServiceTable,
};

use super::layout::{
    ADDRESSES, HAIRPINS, Hook, MARK_OTHERS, MASQUERADE, NODEPORTS, PICK_LEVELS_MAX, PICKS_MAX, POSTROUTING,
    PREFIX, REFUSE, SERVICES, Table, Way, chain, digest, family_name, hash,
};
use super::object::{Key, Objects, Selector};
use super::rules::{CERTAIN, Masked, Match, Name, Recent, Rule, Target};
use crate::pools::{primary, uses};

/// Makes the objects of one family of one node.
pub struct Builder<'a> {
    pub family: Family,
    pub node: &'a NodeView,
    /// The bit of the packet's mark that asks for masquerading.
    pub mark: u32,
    /// Whether the kernel can count whose turn it is.
    pub takes_turns: bool,
    pub out: &'a mut Objects,
}

/// What happens to packets that `nat` left as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Refuse,
    Drop,
}

impl Verdict {
    fn of(route: Route) -> Option<Self> {
        match route {
            Route::Forward { .. } => None,
            Route::Reject => Some(Self::Refuse),
            Route::Drop => Some(Self::Drop),
        }
    }

    fn target(self) -> Target {
        match self {
            Self::Refuse => Target::Goto(chain(REFUSE)),
            Self::Drop => Target::Drop,
        }
    }
}

/// How a frontend's traffic divides.
enum Body {
    Same(Route),
    /// All to one pool, masqueraded unless it comes from a pod.
    MarkOthers(PoolScope),
    ByOrigin(Routes),
}

impl Body {
    /// Where local traffic cannot be told, no packet comes from a pod. A pool is never empty where the table leads to
    /// it; if it were, there would be nobody to forward to.
    fn of(port: &PortTable, routes: Routes, detects: bool) -> Self {
        let route = |route| match route {
            Route::Forward { pool, .. } if port.pool(pool).is_empty() => Route::Drop,
            route => route,
        };
        let (pod, node, outside) = (route(routes.pod), route(routes.node), route(routes.outside));
        let pod = if detects { pod } else { node };
        match (pod, node) {
            _ if pod == node && node == outside => Self::Same(pod),
            (Route::Forward { pool, masquerade: false }, Route::Forward { pool: same, masquerade: true })
                if pool == same && node == outside =>
            {
                Self::MarkOthers(pool)
            }
            _ => Self::ByOrigin(Routes { pod, node, outside }),
        }
    }

    fn routes(&self) -> [Route; 3] {
        match self {
            Self::Same(route) => [*route; 3],
            Self::MarkOthers(pool) => [Route::Forward { pool: *pool, masquerade: true }; 3],
            Self::ByOrigin(Routes { pod, node, outside }) => [*pod, *node, *outside],
        }
    }

    /// What becomes of the packets that are not forwarded, if that is one and the same.
    fn leftover(&self) -> Leftover {
        let mut verdicts = self.routes().into_iter().filter_map(Verdict::of);
        match verdicts.next() {
            None => Leftover::Nothing,
            Some(first) if verdicts.all(|verdict| verdict == first) => Leftover::All(first),
            Some(_) => Leftover::ByOrigin,
        }
    }
}

enum Leftover {
    Nothing,
    All(Verdict),
    ByOrigin,
}

/// The port whose pools are used, with the digest that names them.
struct Pools<'a> {
    port: &'a PortTable,
    digest: String,
}

impl Pools<'_> {
    fn chain(&self, scope: PoolScope) -> Name {
        let letter = match scope {
            PoolScope::Cluster => 'C',
            PoolScope::Local => 'L',
        };
        chain(&format!("{PREFIX}{letter}-{}", self.digest))
    }

    /// The list of clients that an endpoint was given to, for the port.
    fn list(&self, endpoint: &Endpoint) -> Name {
        let name = format!("{} {} {}", self.digest, endpoint.address, endpoint.port);
        chain(&format!("{PREFIX}{}", digest(&name)))
    }
}

fn claim_digest(claim: &Claim) -> String {
    let address = claim.address.map(|address| address.to_string()).unwrap_or_default();
    digest(&format!("{} {address} {} {}", family_name(claim.family), claim.protocol, claim.port))
}

impl Builder<'_> {
    /// The objects of the node, whatever its Services.
    pub fn base(&mut self) {
        for (name, rules) in self.nat_chains() {
            self.put_chain(Table::Nat, chain(name), rules);
        }
        for (name, rules) in self.filter_chains() {
            self.put_chain(Table::Filter, chain(name), rules);
        }
        for table in Table::ALL {
            for hook in table.hooks() {
                let rule = hook_rule(table, *hook);
                self.out.insert(Key::Hook(self.family, table, *hook), [rule].into());
            }
        }
    }

    fn nat_chains(&self) -> [(&'static str, Vec<Rule>); 7] {
        let jump = |matches, name| Rule::new(matches, Target::Jump(chain(name)));
        let mut services = vec![jump(Vec::new(), ADDRESSES)];
        services.extend(self.nodeport_matches().into_iter().map(|matches| jump(matches, NODEPORTS)));
        let pods = self.pod_matches().into_iter().map(|matches| Rule::new([matches], Target::Return));
        let mark = Rule::new([], Target::SetBit(self.mark));
        let masquerade =
            vec![Rule::new([], Target::FlipBit(self.mark)), Rule::new([], Target::MasqueradeFullyRandom)];
        let postrouting =
            vec![jump(vec![Match::Marked(self.mark)], MASQUERADE), jump(vec![Match::Translated], HAIRPINS)];
        [
            (SERVICES, services),
            (ADDRESSES, Vec::new()),
            (NODEPORTS, Vec::new()),
            (MARK_OTHERS, pods.chain([mark]).collect()),
            (POSTROUTING, postrouting),
            (MASQUERADE, masquerade),
            (HAIRPINS, Vec::new()),
        ]
    }

    fn filter_chains(&self) -> [(&'static str, Vec<Rule>); 4] {
        let jump = |matches, name| Rule::new(matches, Target::Jump(chain(name)));
        let mut services = vec![Rule::new([Match::Translated], Target::Return), jump(Vec::new(), ADDRESSES)];
        services.extend(self.nodeport_matches().into_iter().map(|matches| jump(matches, NODEPORTS)));
        let cidrs = self.node.service_cidrs.iter().filter(|cidr| Family::of(cidr.addr()) == self.family);
        services.extend(cidrs.map(|cidr| Rule::new([to(Masked::range(*cidr))], Target::Drop)));
        let refuse = vec![
            Rule::new([Match::Protocol(Protocol::Tcp)], Target::RejectWithReset),
            Rule::new([], Target::RejectWithUnreachable(self.family)),
        ];
        [(SERVICES, services), (ADDRESSES, Vec::new()), (NODEPORTS, Vec::new()), (REFUSE, refuse)]
    }

    /// The addresses on which node ports listen.
    fn nodeport_matches(&self) -> Vec<Vec<Match>> {
        match &self.node.node_port_addresses {
            NodePortAddresses::Addresses(addresses) => {
                let own = addresses.iter().filter(|address| Family::of(**address) == self.family);
                own.map(|address| vec![to(Masked::one(*address))]).collect()
            }
            NodePortAddresses::All => {
                let loopback = match self.family {
                    Family::V4 => "127.0.0.0/8",
                    Family::V6 => "::1/128",
                };
                let within = Masked::range(loopback.parse().expect("a range"));
                vec![vec![Match::Destination { within, invert: true }, Match::DestinationIsLocal]]
            }
        }
    }

    /// How local traffic is told. A name that iptables could take for something else tells nothing.
    fn pod_matches(&self) -> Vec<Match> {
        match &self.node.local_traffic {
            LocalTraffic::Unknown => Vec::new(),
            LocalTraffic::Cidrs(cidrs) => {
                let own = cidrs.iter().filter(|cidr| Family::of(cidr.addr()) == self.family);
                own.map(|cidr| from(Masked::range(*cidr))).collect()
            }
            LocalTraffic::Interface(name) => Name::new(name).map(Match::Interface).into_iter().collect(),
            LocalTraffic::InterfacePrefix(prefix) => {
                Name::new(&format!("{prefix}+")).map(Match::Interface).into_iter().collect()
            }
        }
    }

    /// Every object that the Service needs in this family.
    pub fn service(&mut self, table: &ServiceTable) {
        let family = self.family;
        for port in table.ports.iter().filter(|port| port.key.family == family) {
            let Some(first) = primary(port) else { continue };
            let pools = Pools { port, digest: claim_digest(&Claim::of(port, first)) };
            for scope in [PoolScope::Cluster, PoolScope::Local] {
                if uses(port, scope) {
                    self.pool(&pools, scope);
                }
            }
            for frontend in &port.frontends {
                self.frontend(&pools, frontend);
            }
        }
    }

    fn frontend(&mut self, pools: &Pools<'_>, frontend: &Frontend) {
        let port = pools.port;
        let claim = Claim::of(port, frontend);
        let body = Body::of(port, frontend.routes, self.node.local_traffic.detects(self.family));
        let matches = claim_matches(&claim);
        let way = match claim.address {
            Some(address) => Way::to_address(address),
            None => Way::to_port(claim.protocol, claim.port),
        };
        let comment = port.key.to_string();
        let guard = frontend.guard.as_ref();
        let rules = self.translation(pools, &claim, &matches, guard, &body);
        self.put_member(Table::Nat, &way, comment_last(rules, &comment));
        if let Some(rule) = self.refusal(&claim, &matches, frontend, &body) {
            self.put_member(Table::Filter, &way, vec![rule.with_comment(&comment)]);
        }
        if let FrontendKind::ClusterIp(address) = frontend.kind {
            let any_port = Rule::new([to(Masked::one(address))], Target::Goto(chain(REFUSE)));
            self.put_member(Table::Filter, &way, vec![any_port]);
        }
    }

    /// The rules of the frontend in table `nat`.
    fn translation(
        &mut self,
        pools: &Pools<'_>,
        claim: &Claim,
        matches: &[Match],
        guard: Option<&Guard>,
        body: &Body,
    ) -> Vec<Rule> {
        let rest = |then: Target| Rule::new(matches.iter().cloned(), then);
        let digest = claim_digest(claim);
        let origin = chain(&format!("{PREFIX}O-{digest}"));
        if guard.is_none() && !matches!(body, Body::ByOrigin(_)) {
            return self.ways(pools, matches, body);
        }
        let rules = self.ways(pools, &[], body);
        self.put_chain(Table::Nat, origin.clone(), rules);
        let Some(guard) = guard else { return vec![rest(Target::Goto(origin))] };
        let name = chain(&format!("{PREFIX}G-{digest}"));
        // Who is outside goes on as it is, to be dropped by `filter`.
        let rules = self.admission(guard, &Target::Goto(origin), Target::Accept);
        self.put_chain(Table::Nat, name.clone(), rules);
        vec![rest(Target::Goto(name))]
    }

    fn admission(&self, guard: &Guard, inside: &Target, outside: Target) -> Vec<Rule> {
        let ranges = guard.allowed.iter().filter(|range| Family::of(range.addr()) == self.family);
        let admit = |range: &ipnet::IpNet| Rule::new([from(Masked::range(*range))], inside.clone());
        ranges.map(admit).chain([Rule::new([], outside)]).collect()
    }

    fn ways(&self, pools: &Pools<'_>, matches: &[Match], body: &Body) -> Vec<Rule> {
        match body {
            Body::Same(route) => self.follow(pools, matches, *route),
            Body::MarkOthers(pool) => {
                let rule = |target| Rule::new(matches.iter().cloned(), target);
                vec![rule(Target::Jump(chain(MARK_OTHERS))), rule(Target::Goto(pools.chain(*pool)))]
            }
            Body::ByOrigin(Routes { pod, node, outside }) => {
                let with = |more| matches.iter().cloned().chain([more]).collect::<Vec<_>>();
                let mut rules = Vec::new();
                for is_pod in self.pod_matches() {
                    rules.extend(self.follow(pools, &with(is_pod), *pod));
                }
                if node != outside {
                    rules.extend(self.follow(pools, &with(Match::SourceIsLocal), *node));
                }
                rules.extend(self.follow(pools, matches, *outside));
                rules
            }
        }
    }

    /// What is not forwarded leaves the table as it is, and no rule of others translates it.
    fn follow(&self, pools: &Pools<'_>, matches: &[Match], route: Route) -> Vec<Rule> {
        let rule = |target| Rule::new(matches.iter().cloned(), target);
        match route {
            Route::Reject | Route::Drop => vec![rule(Target::Accept)],
            Route::Forward { pool, masquerade } => {
                let mark = masquerade.then(|| rule(Target::SetBit(self.mark)));
                mark.into_iter().chain([rule(Target::Goto(pools.chain(pool)))]).collect()
            }
        }
    }

    /// The rule of the frontend in table `filter`, if it needs one. The rule for all ports of a ClusterIP refuses
    /// anyway.
    fn refusal(
        &mut self,
        claim: &Claim,
        matches: &[Match],
        frontend: &Frontend,
        body: &Body,
    ) -> Option<Rule> {
        let digest = claim_digest(claim);
        let refuses_anyway = matches!(frontend.kind, FrontendKind::ClusterIp(_));
        let inside = match (body.leftover(), body) {
            (Leftover::ByOrigin, Body::ByOrigin(routes)) => {
                let name = chain(&format!("{PREFIX}O-{digest}"));
                let rules = self.refusals(*routes);
                self.put_chain(Table::Filter, name.clone(), rules);
                Some(Target::Goto(name))
            }
            (Leftover::All(verdict), _) => Some(verdict.target()),
            _ => None,
        };
        let target = match &frontend.guard {
            None => inside.filter(|target| !refuses_anyway || *target != Verdict::Refuse.target())?,
            Some(guard) => match inside.filter(|target| *target != Target::Drop) {
                None => Target::Drop,
                Some(inside) => {
                    let name = chain(&format!("{PREFIX}G-{digest}"));
                    let rules = self.admission(guard, &inside, Target::Drop);
                    self.put_chain(Table::Filter, name.clone(), rules);
                    Target::Goto(name)
                }
            },
        };
        Some(Rule::new(matches.iter().cloned(), target))
    }

    fn refusals(&self, routes: Routes) -> Vec<Rule> {
        let then = |route| Verdict::of(route).map_or(Target::Return, Verdict::target);
        let pods = self.pod_matches().into_iter().map(|is_pod| Rule::new([is_pod], then(routes.pod)));
        let rest =
            [Rule::new([Match::SourceIsLocal], then(routes.node)), Rule::new([], then(routes.outside))];
        pods.chain(rest).collect()
    }

    /// MASQ-2.
    pub fn hairpin(&mut self, endpoint: &Endpoint) {
        let itself = Masked::one(endpoint.address);
        let rule = Rule::new([from(itself), to(itself)], Target::MasqueradeFullyRandom);
        self.put_member(Table::Nat, &Way::to_hairpin(endpoint.address), vec![rule]);
    }

    /// The chains that pick an endpoint, and the rules for endpoints that reach themselves.
    fn pool(&mut self, pools: &Pools<'_>, scope: PoolScope) {
        let endpoints = pools.port.pool(scope);
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.local) {
            self.hairpin(endpoint);
        }
        let mut first = Vec::new();
        if let Some(affinity) = pools.port.affinity {
            first = remembered(pools, scope, affinity);
        }
        let hashed: Vec<_> = endpoints
            .iter()
            .map(|endpoint| (hash(&format!("{} {}", endpoint.address, endpoint.port)), endpoint))
            .collect();
        self.picks(pools, pools.chain(scope).as_str(), 0, first, &hashed);
    }

    /// A chain that picks one of the endpoints; of many, it picks a part, by the hashes, and that part's chain goes on.
    fn picks(
        &mut self,
        pools: &Pools<'_>,
        name: &str,
        level: usize,
        mut rules: Vec<Rule>,
        endpoints: &[(u64, &Endpoint)],
    ) {
        if endpoints.len() <= PICKS_MAX || level >= PICK_LEVELS_MAX {
            let which = if self.takes_turns && asks_for_turns(pools.port) {
                turns(endpoints.len())
            } else {
                chances(endpoints.iter().map(|_| 1))
            };
            for (which, (_, endpoint)) in which.into_iter().zip(endpoints) {
                rules.push(pick(pools, which, endpoint));
            }
        } else {
            let mut parts: [Vec<(u64, &Endpoint)>; 4] = Default::default();
            for (hash, endpoint) in endpoints {
                parts[(hash & 3) as usize].push((hash >> 2, endpoint));
            }
            let parts: Vec<_> = (0..4).zip(parts).filter(|(_, part)| !part.is_empty()).collect();
            let separator = if level == 0 { "-" } else { "" };
            for (chance, (number, part)) in
                chances(parts.iter().map(|(_, p)| p.len())).into_iter().zip(&parts)
            {
                let child = format!("{name}{separator}{number}");
                rules.push(Rule::new(chance, Target::Goto(chain(&child))));
                self.picks(pools, &child, level + 1, Vec::new(), part);
            }
        }
        self.put_chain(Table::Nat, chain(name), rules);
    }

    fn put_chain(&mut self, table: Table, name: Name, rules: Vec<Rule>) {
        self.out.insert(Key::Chain(self.family, table, name), rules.into());
    }

    /// Rules at the end of a way, and the way itself.
    fn put_member(&mut self, table: Table, way: &Way, rules: Vec<Rule>) {
        for step in &way.steps {
            let rule = Rule::new(step.matches.iter().cloned(), Target::Goto(step.child.clone()));
            let key = Key::Member(self.family, table, step.chain.clone(), Selector::of(&rule));
            self.out.entry(key).or_insert_with(|| [rule].into());
        }
        let Some(first) = rules.first() else { return };
        let key = Key::Member(self.family, table, way.last.clone(), Selector::of(first));
        self.out.insert(key, rules.into());
    }
}

/// Endpoints that the client was given before, each asked for its list of clients; then whoever remembers the client
/// though it may not be chosen here forgets it, as there is one memory for all frontends (AFF-2).
fn remembered(pools: &Pools<'_>, scope: PoolScope, affinity: Affinity) -> Vec<Rule> {
    let port = pools.port;
    let update = Recent::Update { seconds: affinity.timeout_seconds };
    let known = port.pool(scope).iter().map(|endpoint| {
        let matches = [Match::Protocol(port.key.protocol), Match::Recent(update, pools.list(endpoint))];
        Rule::new(matches, Target::Dnat(endpoint.address, endpoint.port))
    });
    let mut rules: Vec<_> = known.collect();
    let other = match scope {
        PoolScope::Cluster => PoolScope::Local,
        PoolScope::Local => PoolScope::Cluster,
    };
    if uses(port, other) {
        let strangers =
            port.pool(other).iter().filter(|endpoint| port.pool(scope).binary_search(endpoint).is_err());
        let forget =
            |endpoint| Rule::new([Match::Recent(Recent::Remove, pools.list(endpoint))], Target::Nothing);
        rules.extend(strangers.map(forget));
    }
    rules
}

fn pick(pools: &Pools<'_>, which: Option<Match>, endpoint: &Endpoint) -> Rule {
    let remember = pools.port.affinity.map(|_| Match::Recent(Recent::Set, pools.list(endpoint)));
    let matches = [Match::Protocol(pools.port.key.protocol)].into_iter().chain(which).chain(remember);
    Rule::new(matches, Target::Dnat(endpoint.address, endpoint.port))
}

/// With which chance each of several rules in a row must match for each to be chosen by its weight; the last one always.
fn chances(weights: impl Iterator<Item = usize> + Clone) -> Vec<Option<Match>> {
    let mut left: usize = weights.clone().sum();
    let chance = |weight: usize| {
        let part = (weight as u64 * u64::from(CERTAIN) / left.max(1) as u64) as u32;
        left -= weight;
        (left > 0).then_some(Match::Random(part))
    };
    weights.map(chance).collect()
}

/// Each of several rules in a row has its turn: the first takes one of all packets, the second one of those that are left.
fn turns(rules: usize) -> Vec<Option<Match>> {
    (1..=rules as u32).rev().map(|left| (left > 1).then_some(Match::FirstOf(left))).collect()
}

fn asks_for_turns(port: &PortTable) -> bool {
    port.algorithm == Some(Algorithm::RoundRobin) && is_small(port)
}

/// Whether one chain holds all endpoints of either pool.
pub fn is_small(port: &PortTable) -> bool {
    [PoolScope::Cluster, PoolScope::Local].iter().all(|scope| port.pool(*scope).len() <= PICKS_MAX)
}

/// The rule in a chain of iptables' own that leads to ours.
pub fn hook_rule(table: Table, hook: Hook) -> Rule {
    match (table, hook) {
        (Table::Filter, _) => Rule::new([Match::New], Target::Jump(chain(SERVICES))),
        (Table::Nat, Hook::Postrouting) => Rule::new([], Target::Jump(chain(POSTROUTING))),
        (Table::Nat, _) => Rule::new([], Target::Jump(chain(SERVICES))),
    }
}

fn claim_matches(claim: &Claim) -> Vec<Match> {
    let address = claim.address.map(|address| to(Masked::one(address)));
    let port = [Match::Protocol(claim.protocol), Match::DestinationPort(claim.port, claim.port)];
    address.into_iter().chain(port).collect()
}

fn comment_last(mut rules: Vec<Rule>, comment: &str) -> Vec<Rule> {
    let last = rules.pop().map(|last| last.with_comment(comment));
    rules.extend(last);
    rules
}

fn from(within: Masked) -> Match {
    Match::Source { within, invert: false }
}

fn to(within: Masked) -> Match {
    Match::Destination { within, invert: false }
}

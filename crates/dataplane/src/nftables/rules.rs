//! The rules of the fixed chains and of the chains of classes.
//!
//! Above every rule stands what `nft list ruleset` shows of it. Where that differs from what the rule does, because a
//! map's data feeds the next lookup and `nft` has no words for that, the comment says what happens.

use std::sync::Arc;
use std::time::Duration;

use portolan_forward::{Affinity, Family, LocalTraffic, NodePortAddresses, NodeView, PoolScope, Protocol};
use portolan_netlink::nft::{
    self, CmpOp, CtKey, DynsetOp, Expr, FibFlags, FibResult, MetaKey, NatFlags, PayloadBase, Reg, Reject,
    Value,
};

use super::class::{Body, Choice, Class, Entrance, Masquerade, Pick, Target};
use super::layout::{
    LOCAL_INDEX, OUTPUT, POSTROUTING, PREROUTING, REFUSE, Registers, SERVICES, SetId, nft_family,
};

/// The same on every node and in every chain, so that all of them give a client the same endpoint.
const HASH_SEED: u32 = 0x706f_7274;

/// A rule without its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    pub exprs: Vec<Expr>,
    pub comment: Option<Arc<str>>,
}

impl Rule {
    fn new(exprs: Vec<Expr>) -> Self {
        Self { exprs, comment: None }
    }

    fn with_comment(self, comment: &str) -> Self {
        Self { comment: Some(comment.into()), ..self }
    }
}

/// Makes rules for one family of one node.
#[derive(Debug, Clone, Copy)]
pub struct Builder<'a> {
    pub family: Family,
    pub node: &'a NodeView,
    /// The bit of the packet's mark that asks for masquerading.
    pub mark: u32,
}

impl Builder<'_> {
    /// The chains that exist whatever the Services.
    pub fn fixed_chains(&self) -> [(&'static str, Vec<Rule>); 5] {
        let jump = || vec![Rule::new(vec![Expr::jump(SERVICES)])];
        [
            (PREROUTING, jump()),
            (OUTPUT, jump()),
            (POSTROUTING, self.postrouting()),
            (SERVICES, self.services()),
            (REFUSE, self.reject()),
        ]
    }

    /// The chain of a class that is not a mere drop.
    pub fn chain(&self, class: &Class) -> Vec<Rule> {
        match class.body {
            _ if class.guarded => self.guard(class),
            Body::ByOrigin { pod, node, outside } => self.by_origin(class, pod, node, outside),
            Body::Same(Target::Pick(pick)) => self.pick(class.entrance, pick),
            Body::Same(Target::Reject) => self.reject(),
            Body::Same(Target::Drop) => vec![Rule::new(vec![Expr::drop()])],
        }
    }

    fn regs(&self) -> Registers {
        Registers::of(self.family)
    }

    fn nft(&self) -> nft::Family {
        nft_family(self.family)
    }

    fn services(&self) -> Vec<Rule> {
        let regs = self.regs();
        // ip daddr @cluster-ips goto refuse
        let unknown_port = vec![
            Expr::daddr(self.nft(), regs.pool()),
            Expr::contains(SetId::ClusterIps.name(), regs.pool()),
            Expr::goto(REFUSE),
        ];
        // ip daddr @service-cidrs drop
        let unallocated = vec![
            Expr::daddr(self.nft(), regs.pool()),
            Expr::contains(SetId::ServiceCidrs.name(), regs.pool()),
            Expr::drop(),
        ];
        let mut nodeports = self.match_nodeport_address();
        nodeports.extend(self.classify(Entrance::NodePort));
        let address = Rule::new(self.classify(Entrance::Address));
        let nodeport = Rule::new(nodeports);
        // Before Linux 6.17 a lookup may miss an element that a transaction replaces at that moment.
        let again =
            [&address, &nodeport].map(|rule| rule.clone().with_comment("once more, for older kernels"));
        let [again_address, again_nodeport] = again;
        vec![
            address.with_comment("the class passes through the mark, which is put back before the verdict"),
            nodeport.with_comment("likewise"),
            again_address,
            again_nodeport,
            Rule::new(unknown_port).with_comment("a port that the Service does not have"),
            Rule::new(unallocated).with_comment("an address that no Service has"),
        ]
    }

    /// `meta mark set ip daddr . meta l4proto . th dport map @frontends meta mark set meta mark meta mark vmap @classes`
    fn classify(&self, entrance: Entrance) -> Vec<Expr> {
        let regs = self.regs();
        let mut exprs = vec![Expr::Meta { key: MetaKey::Mark, dreg: regs.spare() }];
        exprs.extend(self.find(entrance));
        exprs.extend([
            Expr::MetaSet { key: MetaKey::Mark, sreg: regs.class() },
            Expr::Meta { key: MetaKey::Mark, dreg: regs.class() },
            Expr::MetaSet { key: MetaKey::Mark, sreg: regs.spare() },
            Expr::vmap(SetId::Classes.name(), regs.class()),
        ]);
        exprs
    }

    /// Loads class and pool of the packet's frontend; does not match when there is none.
    fn find(&self, entrance: Entrance) -> [Expr; 4] {
        let regs = self.regs();
        let (map, key) = match entrance {
            Entrance::Address => (SetId::Frontends, regs.pool()),
            Entrance::NodePort => (SetId::Nodeports, regs.protocol()),
        };
        [
            Expr::daddr(self.nft(), regs.pool()),
            Expr::l4proto(regs.protocol()),
            Expr::dport(regs.port()),
            Expr::map(map.name(), key, regs.class()),
        ]
    }

    /// `ip daddr @nodeport-ips`, or `ip daddr != 127.0.0.0/8 fib daddr type local`
    fn match_nodeport_address(&self) -> Vec<Expr> {
        let reg = self.regs().pool();
        match (&self.node.node_port_addresses, self.family) {
            (NodePortAddresses::Addresses(_), _) => {
                vec![Expr::daddr(self.nft(), reg), Expr::contains(SetId::NodeportIps.name(), reg)]
            }
            (NodePortAddresses::All, Family::V4) => {
                let first_byte = Expr::Payload { base: PayloadBase::Network, offset: 16, len: 1, dreg: reg };
                let mut exprs = vec![first_byte, Expr::neq(reg, Value::from_slice(&[127]))];
                exprs.extend(is_local(FibFlags::DADDR, reg));
                exprs
            }
            (NodePortAddresses::All, Family::V6) => {
                let loopback = Value::from(std::net::Ipv6Addr::LOCALHOST);
                let mut exprs = vec![Expr::daddr(self.nft(), reg), Expr::neq(reg, loopback)];
                exprs.extend(is_local(FibFlags::DADDR, reg));
                exprs
            }
        }
    }

    fn reject(&self) -> Vec<Rule> {
        let reg = self.regs().spare();
        let tcp = Value::proto_only(Protocol::Tcp.number());
        vec![
            // meta l4proto tcp reject with tcp reset
            Rule::new(vec![Expr::l4proto(reg), Expr::eq(reg, tcp), Expr::Reject(Reject::TcpReset)]),
            // reject with icmp port-unreachable
            Rule::new(vec![Expr::Reject(Reject::port_unreachable(self.nft()))]),
        ]
    }

    fn postrouting(&self) -> Vec<Rule> {
        let regs = self.regs();
        let (mark, saddr) = (regs.spare(), regs.pool());
        let daddr = regs.protocol();
        let masquerade = Expr::Masquerade { flags: NatFlags::FULLY_RANDOM };
        // meta mark & 0x4000 != 0 meta mark set meta mark ^ 0x4000 masquerade fully-random
        let marked = vec![
            Expr::Meta { key: MetaKey::Mark, dreg: mark },
            and(mark, self.mark),
            Expr::neq(mark, Value::host32(0)),
            Expr::Meta { key: MetaKey::Mark, dreg: mark },
            Expr::Bitwise {
                sreg: mark,
                dreg: mark,
                mask: Value::host32(u32::MAX),
                xor: Value::host32(self.mark),
            },
            Expr::MetaSet { key: MetaKey::Mark, sreg: mark },
            masquerade.clone(),
        ];
        // ct status dnat ip saddr . ip daddr @hairpins masquerade fully-random
        let hairpin = vec![
            Expr::Ct { key: CtKey::Status, dreg: mark, dir: None },
            and(mark, CtKey::DNAT),
            Expr::neq(mark, Value::host32(0)),
            Expr::saddr(self.nft(), saddr),
            Expr::daddr(self.nft(), daddr),
            Expr::contains(SetId::Hairpins.name(), saddr),
            masquerade,
        ];
        vec![
            Rule::new(marked).with_comment("what was marked for it"),
            Rule::new(hairpin).with_comment("an endpoint that reaches itself"),
        ]
    }

    fn guard(&self, class: &Class) -> Vec<Rule> {
        let regs = self.regs();
        let (address, source) = (regs.pool(), regs.behind_pool());
        let destination = match class.entrance {
            Entrance::Address => Expr::daddr(self.nft(), address),
            Entrance::NodePort => Expr::Immediate { dreg: address, data: unspecified(self.family) },
        };
        // ip daddr . meta l4proto . th dport . ip saddr != @sources drop
        let outsiders = vec![
            destination,
            Expr::l4proto(regs.protocol()),
            Expr::dport(regs.port()),
            Expr::saddr(self.nft(), source),
            Expr::Lookup { set: SetId::Sources.name().into(), sreg: address, dreg: None, invert: true },
            Expr::drop(),
        ];
        let then = Expr::Verdict(class.unguarded().verdict());
        vec![Rule::new(outsiders).with_comment("outside loadBalancerSourceRanges"), Rule::new(vec![then])]
    }

    fn by_origin(&self, class: &Class, pod: Target, node: Target, outside: Target) -> Vec<Rule> {
        let to = |target| Expr::Verdict(class.only(target).verdict());
        let mut rules = Vec::with_capacity(3);
        if self.node.local_traffic.detects(self.family) {
            // ip saddr @pod-cidrs goto pick-3
            rules.push(Rule::new(self.match_pod(false).into_iter().chain([to(pod)]).collect()));
        }
        if node != outside {
            // fib saddr type local goto pick-3-masquerade
            let local = is_local(FibFlags::SADDR, self.regs().pool());
            rules.push(Rule::new(local.into_iter().chain([to(node)]).collect()));
        }
        rules.push(Rule::new(vec![to(outside)]));
        rules
    }

    /// Matches local traffic, or everything else with `invert`.
    fn match_pod(&self, invert: bool) -> Vec<Expr> {
        let reg = self.regs().pool();
        let op = if invert { CmpOp::Neq } else { CmpOp::Eq };
        let iif = Expr::Meta { key: MetaKey::IifName, dreg: reg };
        match &self.node.local_traffic {
            LocalTraffic::Unknown => Vec::new(),
            LocalTraffic::Cidrs(_) => vec![
                Expr::saddr(self.nft(), reg),
                Expr::Lookup { set: SetId::PodCidrs.name().into(), sreg: reg, dreg: None, invert },
            ],
            LocalTraffic::Interface(name) => {
                vec![iif, Expr::Cmp { sreg: reg, op, data: Value::ifname(name) }]
            }
            LocalTraffic::InterfacePrefix(prefix) => {
                vec![iif, Expr::Cmp { sreg: reg, op, data: Value::from_slice(prefix.as_bytes()) }]
            }
        }
    }

    /// Marks if need be, then picks an endpoint. Nothing passes the last rule, whatever happens to the maps between
    /// two lookups of one packet.
    fn pick(&self, entrance: Entrance, pick: Pick) -> Vec<Rule> {
        let mut rules = Vec::with_capacity(6);
        match pick.masquerade {
            Masquerade::Never => {}
            Masquerade::Always => rules.push(Rule::new(self.set_mark().into())),
            Masquerade::UnlessPod => {
                // ip saddr != @pod-cidrs meta mark set meta mark | 0x4000
                rules.push(Rule::new(self.match_pod(true).into_iter().chain(self.set_mark()).collect()));
            }
        }
        if let Some(affinity) = pick.affinity {
            rules.push(self.remembered(entrance, pick.scope, affinity));
            rules.push(self.pick_and_remember(entrance, pick, affinity));
        }
        let random = self.pick_one(entrance, pick, pick.count);
        rules.push(if pick.affinity.is_some() {
            random.with_comment("a random endpoint; as many clients are remembered as can be")
        } else {
            random
        });
        if pick.count > 1 {
            let first = self.pick_one(entrance, pick, 1);
            rules.push(first.with_comment("the pool has just become smaller"));
        }
        rules.push(Rule::new(vec![Expr::drop()]).with_comment("the Service has just gone"));
        rules
    }

    /// `meta mark set meta mark | 0x4000`
    fn set_mark(&self) -> [Expr; 3] {
        let reg = self.regs().spare();
        let (mask, xor) = (Value::host32(!self.mark), Value::host32(self.mark));
        [
            Expr::Meta { key: MetaKey::Mark, dreg: reg },
            Expr::Bitwise { sreg: reg, dreg: reg, mask, xor },
            Expr::MetaSet { key: MetaKey::Mark, sreg: reg },
        ]
    }

    /// `dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @backends`, where address, protocol and
    /// port are no longer the packet's own but the pool's, from `frontends`.
    fn pick_one(&self, entrance: Entrance, pick: Pick, modulus: u32) -> Rule {
        let regs = self.regs();
        let mut exprs: Vec<_> = self.find(entrance).into();
        exprs.extend(self.choose(pick, modulus));
        if pick.affinity.is_some() {
            exprs.extend(self.fill_endpoint());
            exprs.push(Expr::map(SetId::AffinityBackends.name(), regs.pool(), regs.spare()));
        } else {
            exprs.push(Expr::map(SetId::Backends.name(), regs.pool(), regs.endpoint()));
        }
        exprs.push(self.dnat());
        Rule::new(exprs)
    }

    /// The endpoint that the client was given before, if it may still be given, and the client's time starts anew:
    /// `ip saddr . th dport . ip daddr . meta l4proto . th dport @affinity-members update @affinity { ... } dnat ...`,
    /// where source address and destination port stand for the endpoint's.
    fn remembered(&self, entrance: Entrance, scope: PoolScope, affinity: Affinity) -> Rule {
        let regs = self.regs();
        let members = match scope {
            PoolScope::Cluster => SetId::AffinityMembers,
            PoolScope::Local => SetId::AffinityLocalMembers,
        };
        let mut exprs: Vec<_> = self.find(entrance).into();
        exprs.push(Expr::saddr(self.nft(), regs.behind_pool()));
        exprs.extend(self.fill_endpoint());
        exprs.extend([
            Expr::map(SetId::Affinity.name(), regs.pool(), regs.spare()),
            zero(regs.spare()),
            Expr::contains(members.name(), regs.endpoint()),
            self.affinity_record(DynsetOp::Update, Some(affinity)),
            self.dnat(),
        ]);
        Rule::new(exprs).with_comment("the endpoint this client had before")
    }

    /// Another endpoint, recorded. `update` would keep the data of a record that exists, so it is deleted first.
    fn pick_and_remember(&self, entrance: Entrance, pick: Pick, affinity: Affinity) -> Rule {
        let regs = self.regs();
        let mut exprs: Vec<_> = self.find(entrance).into();
        exprs.extend(self.choose(pick, pick.count));
        exprs.extend(self.fill_endpoint());
        exprs.extend([
            Expr::map(SetId::AffinityBackends.name(), regs.pool(), regs.spare()),
            zero(regs.spare()),
            Expr::saddr(self.nft(), regs.behind_pool()),
            self.affinity_record(DynsetOp::Delete, None),
            self.affinity_record(DynsetOp::Update, Some(affinity)),
            self.dnat(),
        ]);
        Rule::new(exprs).with_comment("a random endpoint, remembered")
    }

    /// An index below `modulus`, behind the pool: `numgen random mod 3`, `numgen inc mod 3` or
    /// `jhash ip saddr mod 3 seed 0x706f7274`.
    fn choose(&self, pick: Pick, modulus: u32) -> Vec<Expr> {
        let dreg = self.regs().behind_pool();
        let offset = if pick.scope == PoolScope::Local { LOCAL_INDEX } else { 0 };
        // One of one takes no choice.
        match if modulus == 1 { Choice::Random } else { pick.choice } {
            Choice::Random => vec![Expr::NumgenRandom { modulus, offset, dreg }],
            Choice::RoundRobin => vec![Expr::NumgenInc { modulus, offset, dreg }],
            Choice::SourceHash => {
                let len = if self.family == Family::V4 { 4 } else { 16 };
                let hash = Expr::Jhash { sreg: dreg, len, dreg, modulus, seed: Some(HASH_SEED), offset };
                vec![Expr::saddr(self.nft(), dreg), hash]
            }
        }
    }

    fn affinity_record(&self, op: DynsetOp, affinity: Option<Affinity>) -> Expr {
        let regs = self.regs();
        Expr::Dynset {
            op,
            set: SetId::Affinity.name().into(),
            key: regs.pool(),
            data: Some(regs.spare()),
            timeout: affinity.map(|affinity| Duration::from_secs(affinity.timeout_seconds.into())),
            invert: false,
            exprs: Vec::new(),
        }
    }

    /// Without effect on the packet: gives `nft` something to print where a map's data is about to be written.
    fn fill_endpoint(&self) -> [Expr; 2] {
        let regs = self.regs();
        [Expr::saddr(self.nft(), regs.endpoint()), Expr::dport(regs.endpoint_port())]
    }

    fn dnat(&self) -> Expr {
        let regs = self.regs();
        Expr::dnat(self.nft(), regs.endpoint(), regs.endpoint_port())
    }
}

fn zero(dreg: Reg) -> Expr {
    Expr::Immediate { dreg, data: Value::host32(0) }
}

fn and(reg: Reg, mask: u32) -> Expr {
    Expr::Bitwise { sreg: reg, dreg: reg, mask: Value::host32(mask), xor: Value::host32(0) }
}

fn is_local(flags: FibFlags, reg: Reg) -> [Expr; 2] {
    [
        Expr::Fib { flags, result: FibResult::AddrType, dreg: reg },
        Expr::eq(reg, Value::host32(FibResult::LOCAL)),
    ]
}

pub(super) fn unspecified(family: Family) -> Value {
    match family {
        Family::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

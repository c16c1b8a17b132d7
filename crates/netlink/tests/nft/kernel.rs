//! What only the kernel can show: that a whole ruleset is taken, atomicity, size, errors with their reasons.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use portolan_netlink::nft::{
    Base, Batch, Chain, ChainKind, CommitErrorKind, Data, DumpError, Element, Expr, Family, FieldType, Hook,
    NatFlags, NfTables, Op, Policy, Reg, Rule, Set, Socket, Table, Value, Verdict, priority,
};

use crate::support::{add_table, assert_lists, batch, commit, nft_list, table, with_kernel};

fn nat_chain(name: &str, hook: Hook, priority: i32) -> Op {
    Op::AddChain(Chain::base(
        &table(),
        name,
        Base { kind: ChainKind::Nat, hook, priority, policy: Policy::Accept },
    ))
}

fn frontend_key() -> [FieldType; 3] {
    [FieldType::Ipv4Addr, FieldType::InetProto, FieldType::InetService]
}

fn key(address: u32, port: u16) -> Value {
    Value::new().addr(Ipv4Addr::from(address).into()).proto(6).port(port)
}

const VIP: u32 = 0x0a60_0001;

/// A service with two endpoints, as a data plane would make it.
fn service() -> Vec<Op> {
    let t = table();
    let reg = Reg::new;
    let load_key = || {
        vec![
            Expr::nfproto(reg(0)),
            Expr::eq(reg(0), Value::from_slice(&[2])),
            Expr::daddr(Family::Ip, reg(0)),
            Expr::l4proto(reg(1)),
            Expr::dport(reg(2)),
        ]
    };
    let mut dispatch = load_key();
    dispatch.push(Expr::vmap("frontends", reg(0)));
    let mut pick = load_key();
    pick.extend([
        Expr::NumgenRandom { modulus: 2, offset: 0, dreg: reg(3) },
        Expr::map("backends", reg(0), reg(4)),
        Expr::dnat(Family::Ip, reg(4), reg(5)),
    ]);
    let [a, p, s] = frontend_key();
    let backend = |slot, address: [u8; 4]| {
        Element::map(key(VIP, 80).mark(slot), Value::new().addr(address.into()).port(8080))
    };
    vec![
        Op::AddTable { table: t.clone(), comment: Some("layout 1".into()) },
        nat_chain("prerouting", Hook::Prerouting, priority::DSTNAT),
        nat_chain("output", Hook::Output, priority::DSTNAT),
        nat_chain("postrouting", Hook::Postrouting, priority::SRCNAT),
        Op::AddChain(Chain::regular(&t, "pick-2").with_comment("two endpoints")),
        Op::AddSet(Set::vmap(&t, "frontends", frontend_key()).with_comment("virtual addresses")),
        Op::AddSet(Set::map(
            &t,
            "backends",
            [a, p, s, FieldType::Mark],
            [FieldType::Ipv4Addr, FieldType::InetService],
        )),
        Op::AddRule(Rule::new(&t, "prerouting", dispatch.clone()).with_comment("dispatch")),
        Op::AddRule(Rule::new(&t, "output", dispatch)),
        Op::AddRule(Rule::new(&t, "pick-2", pick)),
        Op::AddRule(Rule::new(
            &t,
            "postrouting",
            vec![Expr::COUNTER, Expr::Masquerade { flags: NatFlags::FULLY_RANDOM }],
        )),
        Op::AddElements {
            table: t.clone(),
            set: "frontends".into(),
            elements: vec![
                Element::verdict(key(VIP, 80), Verdict::goto("pick-2")).with_comment("default/web"),
            ],
        },
        Op::AddElements {
            table: t,
            set: "backends".into(),
            elements: vec![backend(0, [10, 1, 0, 1]), backend(1, [10, 1, 0, 2])],
        },
    ]
}

/// Everything that a set of operations adds, in the form dumps give it.
fn assert_holds(nft: &mut dyn NfTables, ops: &[Op]) {
    let t = table();
    let (chains, rules) = (nft.chains(&t).unwrap(), nft.rules(&t, None).unwrap());
    let sets = nft.sets(&t).unwrap();
    for op in ops {
        match op {
            Op::AddTable { table, comment } => {
                let found = nft.tables().unwrap();
                assert!(found.iter().any(|info| info.table == *table && info.comment == *comment));
            }
            Op::AddChain(chain) => assert!(chains.contains(chain), "{chain:?} not in {chains:#?}"),
            Op::AddRule(rule) => {
                assert!(rules.iter().any(|found| found.item == *rule), "{rule:#?} not in {rules:#?}");
            }
            Op::AddSet(set) => assert!(sets.contains(set), "{set:?} not in {sets:#?}"),
            Op::AddElements { table, set, elements } => {
                let found = nft.elements(table, set).unwrap();
                assert_eq!(found.len(), elements.len());
                elements.iter().for_each(|e| assert!(found.contains(e), "{e:?} not in {found:#?}"));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_service_is_committed_dumped_and_listed() {
    with_kernel(|nft| {
        let before = nft.generation().unwrap();
        commit(nft, service());
        assert_ne!(nft.generation().unwrap(), before);
        assert_holds(nft, &service());
        assert_lists(&[
            "comment \"layout 1\"",
            "type nat hook prerouting priority dstnat; policy accept;",
            "comment \"two endpoints\"",
            "comment \"virtual addresses\"",
            "type ipv4_addr . inet_proto . inet_service : verdict",
            "10.96.0.1 . tcp . 80 comment \"default/web\" : goto pick-2",
            "type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service",
            "10.96.0.1 . tcp . 80 . 0x00000001 : 10.1.0.2 . 8080",
            "ip daddr . meta l4proto . th dport vmap @frontends comment \"dispatch\"",
            "dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @backends",
            "masquerade fully-random",
        ]);
        commit(nft, [Op::DelTable(table())]);
        assert!(nft.tables().unwrap().is_empty());
        assert!(nft.chains(&table()).unwrap().is_empty() && nft.rules(&table(), None).unwrap().is_empty());
        assert!(nft.sets(&table()).unwrap().is_empty());
        assert!(matches!(nft.elements(&table(), "frontends"), Err(DumpError::Missing { .. })));
    });
}

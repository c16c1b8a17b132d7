//! Cases that run on the fake and on the kernel. Each says what it expects of both, and both must end up holding the
//! same ruleset.

use std::net::Ipv4Addr;
use std::time::Duration;

use libc::{EBUSY, EEXIST, EINVAL, EMLINK, ENFILE, ENODATA, ENOENT, EOPNOTSUPP, ERANGE};
use portolan_netlink::nft::{
    Base, Chain, ChainKind, DynsetOp, Element, Expr, Fake, Family, FieldType, Handled, Hook, NatFlags,
    NfTables, Op, Policy, Reg, Reject, Rule, Set, Socket, Table, Value, Verdict,
};

use crate::support::{add_table, batch, in_new_netns, table};

/// One place under test.
struct Script<'a> {
    nft: &'a mut dyn NfTables,
    place: &'static str,
}

impl Script<'_> {
    fn ok(&mut self, ops: impl IntoIterator<Item = Op>) {
        if let Err(error) = self.nft.commit(&batch(ops)) {
            panic!("{}: {error}", self.place);
        }
    }

    /// The batch fails with this error at this operation, and leaves nothing behind.
    fn refused(&mut self, errno: i32, index: usize, ops: impl IntoIterator<Item = Op>) {
        let before = dump(self.nft);
        match self.nft.commit(&batch(ops)) {
            Ok(()) => panic!("{}: accepted what should be refused with {errno}", self.place),
            Err(error) => {
                assert_eq!((error.errno, error.op_index), (errno, Some(index)), "{}: {error}", self.place);
            }
        }
        assert_eq!(dump(self.nft), before, "{}: something was left behind", self.place);
    }

    fn handle(&mut self, chain: &str, index: usize) -> u64 {
        self.nft.rules(&table(), Some(chain)).unwrap()[index].handle
    }
}

/// Everything there is, in an order and a form that does not depend on the place.
fn dump(nft: &mut dyn NfTables) -> Vec<String> {
    let mut lines = Vec::new();
    let mut tables = nft.tables().unwrap();
    tables.sort_by(|a, b| a.table.cmp(&b.table));
    for info in tables {
        let t = info.table;
        lines.push(format!("{t} {:?}", info.comment));
        let mut chains = nft.chains(&t).unwrap();
        chains.sort_by(|a, b| a.name.cmp(&b.name));
        for chain in chains {
            lines.push(format!("{chain:?}"));
            let rules = nft.rules(&t, Some(&chain.name)).unwrap();
            lines.extend(rules.iter().map(|Handled { item, .. }| format!("{item:?}")));
        }
        let mut sets = nft.sets(&t).unwrap();
        sets.sort_by(|a, b| a.name.cmp(&b.name));
        for set in sets {
            lines.push(format!("{set:?}"));
            let mut elements = nft.elements(&t, &set.name).unwrap();
            elements.sort_by(|a, b| {
                (&a.key, &a.key_end, a.interval_end).cmp(&(&b.key, &b.key_end, b.interval_end))
            });
            // Remaining lifetimes run; that there is one must agree.
            for element in &mut elements {
                element.expires = element.expires.map(|_| Duration::ZERO);
            }
            lines.extend(elements.iter().map(|element| format!("{element:?}")));
        }
    }
    lines
}

fn both(case: fn(&mut Script<'_>)) {
    let mut fake = Fake::new();
    case(&mut Script { nft: &mut fake, place: "fake" });
    let in_fake = dump(&mut fake);
    let in_kernel = in_new_netns(move || {
        let mut kernel = Socket::open().unwrap();
        case(&mut Script { nft: &mut kernel, place: "kernel" });
        dump(&mut kernel)
    });
    assert_eq!(in_fake, in_kernel, "left: fake, right: kernel");
}

fn regular(name: &str) -> Op {
    Op::AddChain(Chain::regular(&table(), name))
}

fn base_chain(name: &str, kind: ChainKind, hook: Hook) -> Op {
    let priority = if kind == ChainKind::Nat { -100 } else { 0 };
    Op::AddChain(Chain::base(&table(), name, Base { kind, hook, priority, policy: Policy::Accept }))
}

fn rule(chain: &str, exprs: Vec<Expr>) -> Op {
    Op::AddRule(Rule::new(&table(), chain, exprs))
}

fn del_chain(name: &str) -> Op {
    Op::DelChain { table: table(), chain: name.into() }
}

fn del_set(name: &str) -> Op {
    Op::DelSet { table: table(), set: name.into() }
}

fn add(set: &str, elements: Vec<Element>) -> Op {
    Op::AddElements { table: table(), set: set.into(), elements }
}

fn del(set: &str, elements: Vec<Element>) -> Op {
    Op::DelElements { table: table(), set: set.into(), elements }
}

fn ip(last: u8) -> Value {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn set() -> Op {
    Op::AddSet(Set::new(&table(), "s", FieldType::Ipv4Addr))
}

fn map() -> Op {
    Op::AddSet(Set::map(&table(), "m", FieldType::Ipv4Addr, FieldType::Ipv4Addr))
}

fn vmap() -> Op {
    Op::AddSet(Set::vmap(&table(), "v", FieldType::Ipv4Addr))
}

fn to(last: u8, chain: &str) -> Element {
    Element::verdict(ip(last), Verdict::goto(chain))
}

const R0: Reg = Reg::new(0);
const R1: Reg = Reg::new(1);

#[test]
fn everything_needs_its_table() {
    both(|s| {
        s.refused(ENOENT, 0, [regular("c")]);
        s.refused(ENOENT, 0, [set()]);
        s.refused(ENOENT, 0, [Op::DelTable(table())]);
        s.refused(ENOENT, 0, [add("s", vec![Element::new(ip(1))])]);
        s.refused(ENOENT, 1, [add_table(), rule("c", vec![])]);
        s.refused(
            ENOENT,
            1,
            [Op::AddTable { table: Table::new(Family::Ip, "portolan-test"), comment: None }, set()],
        );
    });
}

#[test]
fn adding_again_is_no_error() {
    both(|s| {
        let ops = || {
            [
                Op::AddTable { table: table(), comment: Some("first".into()) },
                regular("c"),
                base_chain("b", ChainKind::Filter, Hook::Input),
                set(),
                map(),
                vmap(),
                add("s", vec![Element::new(ip(1))]),
                add("m", vec![Element::map(ip(1), ip(2))]),
                add("v", vec![to(1, "c")]),
            ]
        };
        s.ok(ops());
        s.ok(ops());
        s.ok([Op::AddTable { table: table(), comment: Some("second".into()) }]);
        s.refused(EEXIST, 0, [Op::AddSet(Set::new(&table(), "s", FieldType::Mark))]);
        s.refused(EEXIST, 0, [Op::AddSet(Set::map(&table(), "s", FieldType::Ipv4Addr, FieldType::Mark))]);
        s.refused(EOPNOTSUPP, 0, [base_chain("b", ChainKind::Filter, Hook::Output)]);
        let other_kind =
            Base { kind: ChainKind::Nat, hook: Hook::Input, priority: 0, policy: Policy::Accept };
        s.refused(EEXIST, 0, [Op::AddChain(Chain::base(&table(), "b", other_kind))]);
        s.refused(EOPNOTSUPP, 0, [base_chain("c", ChainKind::Filter, Hook::Output)]);
    });
}

#[test]
fn the_policy_of_a_base_chain_can_change() {
    both(|s| {
        let chain = |policy| {
            let base = Base { kind: ChainKind::Filter, hook: Hook::Forward, priority: 5, policy };
            Op::AddChain(Chain::base(&table(), "b", base))
        };
        s.ok([add_table(), chain(Policy::Accept), rule("b", vec![Expr::COUNTER])]);
        s.ok([chain(Policy::Drop)]);
    });
}

#[test]
fn jumps_need_a_target_that_no_hook_calls() {
    both(|s| {
        s.ok([add_table(), regular("a"), base_chain("b", ChainKind::Filter, Hook::Input), vmap()]);
        s.refused(ENOENT, 0, [rule("a", vec![Expr::jump("missing")])]);
        s.refused(EOPNOTSUPP, 0, [rule("a", vec![Expr::goto("b")])]);
        s.refused(ENOENT, 0, [add("v", vec![to(1, "missing")])]);
        s.refused(EOPNOTSUPP, 1, [add("v", vec![to(1, "a")]), add("v", vec![to(2, "a"), to(3, "b")])]);
        s.ok([regular("c"), rule("a", vec![Expr::jump("c")]), add("v", vec![to(1, "c")])]);
    });
}

#[test]
fn what_is_used_cannot_be_deleted() {
    both(|s| {
        s.ok([add_table(), regular("a"), regular("b"), regular("c"), set(), vmap()]);
        s.ok([
            rule("a", vec![Expr::jump("b")]),
            rule("a", vec![Expr::daddr(Family::Ip, R0), Expr::contains("s", R0)]),
            rule("a", vec![Expr::daddr(Family::Ip, R0), Expr::vmap("v", R0)]),
            add("v", vec![to(1, "c")]),
        ]);
        s.refused(EBUSY, 0, [del_chain("b")]);
        s.refused(EBUSY, 0, [del_chain("c")]);
        s.refused(EBUSY, 0, [del_set("s")]);
        s.refused(EBUSY, 0, [del_set("v")]);
        s.refused(ENOENT, 0, [del_chain("missing")]);
        s.refused(ENOENT, 0, [del_set("missing")]);
        // In the right order all of it goes in one batch; a chain's rules go with it.
        s.refused(EBUSY, 0, [del_chain("c"), del("v", vec![to(1, "c")])]);
        s.ok([del("v", vec![to(1, "c")]), del_chain("c")]);
        s.ok([del_chain("a"), del_chain("b"), del_set("s"), del_set("v")]);
    });
}

#[test]
fn a_flushed_chain_lets_go_of_what_it_used() {
    both(|s| {
        s.ok([add_table(), regular("a"), regular("b"), set()]);
        s.ok([
            rule("a", vec![Expr::jump("b")]),
            rule("a", vec![Expr::daddr(Family::Ip, R0), Expr::contains("s", R0)]),
        ]);
        let flush = || Op::FlushChain { table: table(), chain: "a".into() };
        s.ok([flush(), del_chain("b"), del_set("s"), rule("a", vec![Expr::accept()])]);
        s.refused(ENOENT, 0, [Op::FlushChain { table: table(), chain: "missing".into() }]);
        s.refused(ENOENT, 0, [Op::FlushSet { table: table(), set: "missing".into() }]);
    });
}

#[test]
fn elements_are_told_apart_by_key() {
    both(|s| {
        s.ok([add_table(), regular("a"), regular("b"), set(), map(), vmap()]);
        s.ok([
            add("s", vec![Element::new(ip(1)), Element::new(ip(1)), Element::new(ip(2)).with_comment("two")]),
            add("m", vec![Element::map(ip(1), ip(11)), Element::map(ip(2), ip(12))]),
            add("v", vec![to(1, "a"), to(2, "b")]),
        ]);
        s.refused(EEXIST, 0, [add("m", vec![Element::map(ip(1), ip(99))])]);
        s.refused(EEXIST, 0, [add("v", vec![to(1, "b")])]);
        s.refused(ENOENT, 0, [del("s", vec![Element::new(ip(3))])]);
        s.refused(ENOENT, 1, [del("s", vec![Element::new(ip(1))]), del("s", vec![Element::new(ip(1))])]);
        s.ok([del("m", vec![Element::new(ip(2))]), add("s", vec![]), del("s", vec![])]);
    });
}

#[test]
fn one_batch_can_put_other_data_under_a_key() {
    both(|s| {
        s.ok([add_table(), regular("a"), regular("b"), map(), vmap()]);
        s.ok([add("m", vec![Element::map(ip(1), ip(11))]), add("v", vec![to(1, "a")])]);
        s.ok([
            del("m", vec![Element::new(ip(1))]),
            add("m", vec![Element::map(ip(1), ip(12))]),
            del("v", vec![Element::new(ip(1))]),
            add("v", vec![to(1, "b")]),
            del_chain("a"),
        ]);
        s.refused(
            EEXIST,
            0,
            [add("m", vec![Element::map(ip(1), ip(11))]), del("m", vec![Element::new(ip(1))])],
        );
        // Added and deleted within one batch: as if it had never been.
        s.ok([add("m", vec![Element::map(ip(2), ip(2))]), del("m", vec![Element::new(ip(2))])]);
        s.ok([Op::FlushSet { table: table(), set: "m".into() }, add("m", vec![Element::map(ip(1), ip(13))])]);
    });
}

#[test]
fn a_batch_is_all_or_nothing() {
    both(|s| {
        s.ok([add_table(), regular("a"), set(), add("s", vec![Element::new(ip(1)), Element::new(ip(2))])]);
        s.refused(
            ENOENT,
            5,
            [
                del("s", vec![Element::new(ip(1))]),
                add("s", vec![Element::new(ip(3))]),
                regular("b"),
                rule("a", vec![Expr::jump("b")]),
                map(),
                rule("missing", vec![]),
                Op::FlushSet { table: table(), set: "s".into() },
            ],
        );
        s.refused(ENOENT, 1, [Op::DelTable(table()), regular("a")]);
        s.ok([Op::DelTable(table()), add_table(), regular("again")]);
    });
}

#[test]
fn elements_must_fit_their_set() {
    both(|s| {
        s.ok([add_table(), regular("a"), set(), map(), vmap()]);
        s.refused(EINVAL, 0, [add("s", vec![Element::new(Value::port_only(1))])]);
        s.refused(EINVAL, 0, [add("s", vec![Element::map(ip(1), ip(1))])]);
        s.refused(EINVAL, 0, [add("m", vec![Element::new(ip(1))])]);
        s.refused(EINVAL, 0, [add("m", vec![Element::map(ip(1), Value::port_only(1))])]);
        s.refused(EINVAL, 0, [add("v", vec![Element::map(ip(1), ip(1))])]);
        s.refused(EINVAL, 0, [add("m", vec![to(1, "a")])]);
        s.refused(EINVAL, 0, [add("s", vec![Element::new(ip(1)).with_timeout(Duration::from_secs(9))])]);
        s.refused(EINVAL, 0, [add("s", vec![Element::range(ip(1), ip(2))])]);
        s.refused(EINVAL, 0, [add("s", vec![Element::end(ip(1))])]);
    });
}

#[test]
fn a_full_set_takes_no_more() {
    both(|s| {
        s.ok([add_table(), Op::AddSet(Set::new(&table(), "s", FieldType::Ipv4Addr).with_size(2))]);
        s.refused(ENFILE, 0, [add("s", vec![Element::new(ip(1)), Element::new(ip(2)), Element::new(ip(3))])]);
        s.ok([add("s", vec![Element::new(ip(1)), Element::new(ip(2))])]);
    });
}

#[test]
fn timeouts_are_kept_where_they_differ_from_the_sets() {
    both(|s| {
        let hour = Duration::from_hours(1);
        s.ok([
            add_table(),
            Op::AddSet(
                Set::new(&table(), "s", FieldType::Ipv4Addr).with_timeout(hour).with_dynamic().with_size(9),
            ),
            add(
                "s",
                vec![
                    Element::new(ip(1)),
                    Element::new(ip(2)).with_timeout(hour),
                    Element::new(ip(3)).with_timeout(2 * hour),
                ],
            ),
        ]);
        let mut none = Set::new(&table(), "t", FieldType::Ipv4Addr);
        none.timeout = Some(hour);
        s.refused(EINVAL, 0, [Op::AddSet(none.clone())]);
        none.timeout = None;
        none.flags.timeout = true;
        s.ok([Op::AddSet(none), add("t", vec![Element::new(ip(1)), Element::new(ip(2)).with_timeout(hour)])]);
    });
}

#[test]
fn ranges_of_one_field_are_two_elements() {
    both(|s| {
        s.ok([
            add_table(),
            Op::AddSet(Set::new(&table(), "s", FieldType::Ipv4Addr).with_interval()),
            Op::AddSet(Set::map(&table(), "m", FieldType::Ipv4Addr, FieldType::Mark).with_interval()),
            add(
                "s",
                vec![Element::new(ip(10)), Element::end(ip(20)), Element::new(ip(30)), Element::end(ip(31))],
            ),
            add("m", vec![Element::map(ip(10), Value::host32(7)), Element::end(ip(20))]),
        ]);
        s.ok([del("s", vec![Element::new(ip(10)), Element::end(ip(20))])]);
    });
}

#[test]
fn ranges_of_several_fields_may_not_overlap() {
    both(|s| {
        let key =
            |address: u8, port: u16| Value::new().addr(Ipv4Addr::new(10, 0, 0, address).into()).port(port);
        let range = |first, last, port| Element::range(key(first, port), key(last, port));
        s.ok([
            add_table(),
            Op::AddSet(
                Set::new(&table(), "s", [FieldType::Ipv4Addr, FieldType::InetService]).with_interval(),
            ),
            add("s", vec![range(10, 20, 80), range(10, 20, 443), range(30, 30, 80)]),
        ]);
        s.ok([add("s", vec![range(10, 20, 80)])]);
        s.refused(EEXIST, 0, [add("s", vec![range(15, 25, 80)])]);
        s.refused(EEXIST, 0, [add("s", vec![range(12, 13, 80)])]);
        s.refused(ENOENT, 0, [del("s", vec![range(9, 20, 80)])]);
        s.ok([del("s", vec![range(10, 20, 80)]), add("s", vec![range(15, 25, 80)])]);
        // What is deleted is the range around the first key.
        s.ok([del("s", vec![range(12, 12, 443)])]);
    });
}

#[test]
fn a_catchall_element_is_one_of_a_kind() {
    both(|s| {
        let any = |data| Element { catchall: true, ..Element::map(Value::new(), ip(data)) };
        s.ok([add_table(), map(), add("m", vec![any(1), Element::map(ip(1), ip(2))])]);
        s.refused(EEXIST, 0, [add("m", vec![any(2)])]);
        s.ok([del("m", vec![any(1)])]);
    });
}

#[test]
fn registers_are_written_before_they_are_read() {
    both(|s| {
        s.ok([add_table(), regular("a"), set(), map(), vmap()]);
        s.refused(ENODATA, 0, [rule("a", vec![Expr::eq(R0, ip(1))])]);
        s.refused(ENODATA, 0, [rule("a", vec![Expr::contains("s", R0)])]);
        s.refused(ENODATA, 0, [rule("a", vec![Expr::daddr(Family::Ip, R0), Expr::contains("s", R1)])]);
        s.refused(ENODATA, 0, [rule("a", vec![Expr::dnat(Family::Ip, R0, R1)])]);
        s.refused(
            ENODATA,
            0,
            [rule("a", vec![Expr::daddr(Family::Ip, R0), Expr::eq(R0, Value::from_slice(&[0; 8]))])],
        );
        s.refused(ERANGE, 0, [rule("a", vec![Expr::daddr(Family::Ip6, Reg::new(13))])]);
        s.refused(ERANGE, 0, [rule("a", vec![Expr::NumgenRandom { modulus: 0, offset: 0, dreg: R0 }])]);
        let load = || Expr::daddr(Family::Ip, R0);
        s.refused(ENOENT, 0, [rule("a", vec![load(), Expr::contains("missing", R0)])]);
        s.refused(EINVAL, 0, [rule("a", vec![load(), Expr::map("s", R0, R1)])]);
        s.refused(EINVAL, 0, [rule("a", vec![load(), Expr::map("v", R0, R1)])]);
        s.refused(EINVAL, 0, [rule("a", vec![load(), Expr::vmap("m", R0)])]);
        s.ok([rule("a", vec![load(), Expr::map("m", R0, R1), Expr::contains("s", R1)])]);
    });
}

#[test]
fn packets_fill_only_sets_made_for_it() {
    both(|s| {
        let minute = Duration::from_mins(1);
        s.ok([
            add_table(),
            regular("a"),
            map(),
            Op::AddSet(Set::new(&table(), "d", FieldType::Ipv4Addr).with_dynamic().with_size(100)),
            Op::AddSet(
                Set::map(
                    &table(),
                    "affinity",
                    FieldType::Ipv4Addr,
                    [FieldType::Ipv4Addr, FieldType::InetService],
                )
                .with_timeout(minute)
                .with_dynamic()
                .with_size(100),
            ),
        ]);
        let dynset = |set: &str, data, timeout| Expr::Dynset {
            op: DynsetOp::Update,
            set: set.into(),
            key: R0,
            data,
            timeout,
            invert: false,
            exprs: vec![],
        };
        let load = || Expr::saddr(Family::Ip, R0);
        s.refused(ENODATA, 0, [rule("a", vec![dynset("d", None, None)])]);
        s.refused(EOPNOTSUPP, 0, [rule("a", vec![load(), dynset("d", None, Some(minute))])]);
        s.refused(EOPNOTSUPP, 0, [rule("a", vec![load(), dynset("d", Some(R0), None)])]);
        s.refused(EINVAL, 0, [rule("a", vec![load(), dynset("affinity", None, None)])]);
        s.refused(ENODATA, 0, [rule("a", vec![load(), dynset("affinity", Some(R1), None)])]);
        s.ok([
            rule("a", vec![load(), dynset("d", None, None)]),
            rule(
                "a",
                vec![
                    load(),
                    Expr::daddr(Family::Ip, R1),
                    Expr::dport(Reg::new(2)),
                    dynset("affinity", Some(R1), None),
                ],
            ),
        ]);
        s.refused(EBUSY, 0, [del_set("affinity")]);
    });
}

#[test]
fn rules_are_addressed_by_handle() {
    both(|s| {
        let counted = |n| Expr::Counter { packets: n, bytes: 0 };
        s.ok([
            add_table(),
            regular("a"),
            regular("b"),
            rule("a", vec![counted(1)]),
            rule("a", vec![counted(3)]),
        ]);
        let last = s.handle("a", 1);
        let new = |n| Rule::new(&table(), "a", vec![counted(n)]);
        s.ok([
            Op::InsertRule { rule: new(2), before: Some(last) },
            Op::InsertRule { rule: new(0), before: None },
        ]);
        s.ok([Op::ReplaceRule { rule: new(33), handle: last }]);
        let first = s.handle("a", 0);
        s.ok([Op::DelRule { table: table(), chain: "a".into(), handle: first }]);
        s.refused(ENOENT, 0, [Op::DelRule { table: table(), chain: "a".into(), handle: first }]);
        let second = s.handle("a", 1);
        s.refused(ENOENT, 0, [Op::DelRule { table: table(), chain: "b".into(), handle: second }]);
    });
}

#[test]
fn actions_run_only_where_they_make_sense() {
    both(|s| {
        let load = || {
            vec![
                Expr::Immediate { dreg: R0, data: ip(1) },
                Expr::Immediate { dreg: R1, data: Value::port_only(1) },
            ]
        };
        let dnat = || [load(), vec![Expr::dnat(Family::Ip, R0, R1)]].concat();
        s.ok([
            add_table(),
            base_chain("nat-pre", ChainKind::Nat, Hook::Prerouting),
            base_chain("nat-post", ChainKind::Nat, Hook::Postrouting),
            base_chain("filter-in", ChainKind::Filter, Hook::Input),
            base_chain("filter-post", ChainKind::Filter, Hook::Postrouting),
            regular("a"),
            vmap(),
        ]);
        let masquerade = || vec![Expr::Masquerade { flags: NatFlags::default() }];
        let reject = || vec![Expr::Reject(Reject::ICMPX_PORT_UNREACHABLE)];
        s.refused(EOPNOTSUPP, 0, [rule("filter-in", dnat())]);
        s.refused(EOPNOTSUPP, 0, [rule("nat-post", dnat())]);
        s.refused(EOPNOTSUPP, 0, [rule("nat-pre", masquerade())]);
        s.refused(EOPNOTSUPP, 0, [rule("filter-post", reject())]);
        s.refused(EOPNOTSUPP, 1, [rule("a", dnat()), rule("filter-in", vec![Expr::jump("a")])]);
        s.ok([rule("a", dnat()), rule("nat-pre", vec![Expr::daddr(Family::Ip, R0), Expr::vmap("v", R0)])]);
        s.ok([rule("nat-post", masquerade()), rule("filter-in", reject()), add("v", vec![to(1, "a")])]);
        s.ok([regular("b"), rule("b", masquerade())]);
        s.refused(EOPNOTSUPP, 0, [add("v", vec![to(2, "b")])]);
        // On the way through a batch the ruleset may be wrong, as long as it is right in the end.
        s.ok([regular("c"), rule("c", masquerade()), add("v", vec![to(3, "c")]), del("v", vec![to(3, "c")])]);
    });
}

#[test]
fn base_chains_hang_only_where_their_kind_exists() {
    both(|s| {
        s.ok([add_table()]);
        s.refused(EOPNOTSUPP, 0, [base_chain("x", ChainKind::Nat, Hook::Forward)]);
        s.refused(EOPNOTSUPP, 0, [base_chain("x", ChainKind::Route, Hook::Input)]);
        let early =
            Base { kind: ChainKind::Nat, hook: Hook::Prerouting, priority: -200, policy: Policy::Accept };
        s.refused(EOPNOTSUPP, 0, [Op::AddChain(Chain::base(&table(), "x", early))]);
        s.ok([base_chain("x", ChainKind::Route, Hook::Output)]);
    });
}

#[test]
fn jumps_nest_only_so_deep() {
    both(|s| {
        let chain = |depth: usize| format!("c{depth}");
        s.ok([add_table(), base_chain("b", ChainKind::Filter, Hook::Input)]);
        s.ok((0..20).map(|depth| regular(&chain(depth))));
        s.ok((0..14).map(|depth| rule(&chain(depth), vec![Expr::jump(chain(depth + 1))])));
        s.ok([rule("b", vec![Expr::jump("c0")])]);
        s.refused(EMLINK, 0, [rule("c14", vec![Expr::jump("c15")])]);
        s.refused(EMLINK, 0, [rule("c14", vec![Expr::goto("c0")])]);
    });
}

#[test]
fn the_two_families_of_a_name_are_two_tables() {
    both(|s| {
        let other = Table::new(Family::Ip, "portolan-test");
        s.ok([
            add_table(),
            Op::AddTable { table: other.clone(), comment: None },
            regular("a"),
            Op::AddChain(Chain::regular(&other, "b")),
            Op::AddSet(Set::new(&other, "only-here", FieldType::Ipv4Addr)),
        ]);
        s.refused(ENOENT, 0, [rule("b", vec![])]);
        s.refused(
            EOPNOTSUPP,
            0,
            [Op::AddRule(Rule::new(
                &other,
                "b",
                vec![
                    Expr::Immediate { dreg: R0, data: Value::from_slice(&[0; 16]) },
                    Expr::Dnat {
                        family: Family::Ip6,
                        addr: Some(R0),
                        port: None,
                        flags: NatFlags::default(),
                    },
                ],
            ))],
        );
    });
}

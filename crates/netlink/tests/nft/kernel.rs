//! What only the kernel can show: that a whole ruleset is taken, atomicity, size, errors with their reasons.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use portolan_netlink::nft::{
    Base, Chain, ChainKind, CommitErrorKind, DumpError, Element, Expr, Family, FieldType, Hook, NatFlags,
    NfTables, Op, Policy, Reg, Rule, Set, Value, Verdict, priority,
};

use crate::support::{add_table, assert_lists, batch, commit, table, with_kernel};

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
                for element in elements {
                    assert!(found.contains(element), "{element:?} not in {found:#?}");
                }
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

fn many(count: u32) -> Vec<Element> {
    let backend = |n: u32| Value::new().addr(Ipv4Addr::from(0x0a80_0000 + n).into()).port(8080);
    (0..count).map(|n| Element::map(key(VIP + n / 4, (n % 4) as u16).mark(n), backend(n))).collect()
}

fn add_many(elements: Vec<Element>) -> [Op; 3] {
    let [a, p, s] = frontend_key();
    [
        add_table(),
        Op::AddSet(Set::map(
            &table(),
            "backends",
            [a, p, s, FieldType::Mark],
            [FieldType::Ipv4Addr, FieldType::InetService],
        )),
        Op::AddElements { table: table(), set: "backends".into(), elements },
    ]
}

/// Not a timed test: the limits are far above what it takes, and only catch work that grows with the square.
#[test]
fn fifty_thousand_elements_are_one_batch() {
    with_kernel(|nft| {
        let elements = many(50_000);
        let added = add_many(elements.clone());
        let start = Instant::now();
        commit(nft, added);
        let committed = Instant::now();
        let mut found = nft.elements(&table(), "backends").unwrap();
        eprintln!("committed in {:?}, dumped in {:?}", committed.duration_since(start), committed.elapsed());
        found.sort_by(|a, b| a.key.cmp(&b.key));
        let mut wanted = elements;
        wanted.sort_by(|a, b| a.key.cmp(&b.key));
        assert!(found == wanted, "{} found, {} wanted", found.len(), wanted.len());
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    });
}

#[test]
fn a_bad_element_among_many_is_named_and_nothing_stays() {
    with_kernel(|nft| {
        let mut elements = many(5_000);
        elements.push(Element::map(
            elements[10].key.clone(),
            Value::new().addr(Ipv4Addr::LOCALHOST.into()).port(1),
        ));
        elements.extend(many(5_000));
        let bad = format!("{:?}", elements[5_000].key);
        let error = nft.commit(&batch(add_many(elements))).unwrap_err();
        assert_eq!((error.kind, error.op_index), (CommitErrorKind::Exists, Some(2)), "{error}");
        assert!(error.op.ends_with(&bad), "{} does not name {bad}", error.op);
        assert!(nft.tables().unwrap().is_empty());
    });
}

#[test]
fn thousands_of_errors_do_not_hide_the_first() {
    with_kernel(|nft| {
        let missing = |n: u32| Op::DelChain { table: table(), chain: format!("missing-{n}").into() };
        let ops = std::iter::once(add_table()).chain((0..20_000).map(missing));
        let error = nft.commit(&batch(ops)).unwrap_err();
        assert_eq!((error.kind, error.op_index), (CommitErrorKind::Missing, Some(1)), "{error}");
        assert!(nft.tables().unwrap().is_empty());
        commit(nft, [add_table()]);
        assert_eq!(nft.tables().unwrap().len(), 1, "the socket is usable after a flood of errors");
    });
}

#[test]
fn the_kernels_own_explanation_is_passed_on() {
    with_kernel(|nft| {
        let base = Base {
            kind: ChainKind::Nat,
            hook: Hook::Prerouting,
            priority: priority::DSTNAT,
            policy: Policy::Accept,
        };
        let long = "x".repeat(300);
        let error =
            nft.commit(&batch([add_table(), Op::AddChain(Chain::regular(&table(), &*long))])).unwrap_err();
        assert_eq!((error.kind, error.op_index), (CommitErrorKind::Invalid, Some(1)), "our own check");
        commit(nft, [add_table(), Op::AddChain(Chain::base(&table(), "c", base))]);
        let error = nft
            .commit(&batch([Op::AddRule(Rule::new(&table(), "c", vec![Expr::jump("nowhere")]))]))
            .unwrap_err();
        assert_eq!(error.kind, CommitErrorKind::Missing);
        let text = error.to_string();
        assert!(text.contains("operation 0 (add rule inet portolan-test c)"), "{text}");
        assert!(text.contains("No such file or directory"), "{text}");
    });
}

#[test]
fn an_empty_batch_does_nothing() {
    with_kernel(|nft| {
        let before = nft.generation().unwrap();
        commit(nft, []);
        commit(nft, [Op::AddElements { table: table(), set: "s".into(), elements: vec![] }]);
        assert_eq!(nft.generation().unwrap(), before);
    });
}

/// Keys and data of every type we have, so that `nft` shows what they mean.
#[test]
fn nft_prints_every_type() {
    with_kernel(|nft| {
        let t = table();
        let set = |name: &str, key: FieldType, value: Value| {
            [
                Op::AddSet(Set::new(&table(), name, key)),
                Op::AddElements { table: table(), set: name.into(), elements: vec![Element::new(value)] },
            ]
        };
        let v6 = "2001:db8::1".parse().unwrap();
        commit(nft, [add_table()]);
        commit(nft, set("a", FieldType::Ipv6Addr, Value::new().addr(v6)));
        commit(nft, set("b", FieldType::InetService, Value::port_only(8080)));
        commit(nft, set("c", FieldType::InetProto, Value::proto_only(17)));
        commit(nft, set("d", FieldType::Mark, Value::host32(0x4000)));
        commit(nft, set("e", FieldType::IfName, Value::ifname("eth0")));
        commit(
            nft,
            [
                Op::AddSet(
                    Set::new(
                        &t,
                        "ranges",
                        [FieldType::Ipv6Addr, FieldType::InetProto, FieldType::InetService],
                    )
                    .with_interval(),
                ),
                Op::AddElements {
                    table: t.clone(),
                    set: "ranges".into(),
                    elements: vec![Element::range(
                        Value::new().addr(v6).proto(6).port(80),
                        Value::new().addr("2001:db8::ff".parse().unwrap()).proto(6).port(90),
                    )],
                },
                Op::AddSet(Set::map(&t, "marks", FieldType::Mark, FieldType::Mark)),
                Op::AddElements {
                    table: t.clone(),
                    set: "marks".into(),
                    elements: vec![Element::map(Value::host32(1), Value::host32(2))],
                },
                Op::AddSet(
                    Set::new(&t, "affinity", [FieldType::Ipv4Addr, FieldType::Mark])
                        .with_timeout(Duration::from_hours(3))
                        .with_dynamic()
                        .with_size(65535),
                ),
                Op::AddElements {
                    table: t,
                    set: "affinity".into(),
                    elements: vec![Element::new(Value::new().addr(Ipv4Addr::LOCALHOST.into()).mark(9))],
                },
            ],
        );
        assert_lists(&[
            "elements = { 2001:db8::1 }",
            "elements = { 8080 }",
            "elements = { udp }",
            "elements = { 0x00004000 }",
            "elements = { \"eth0\" }",
            "elements = { 2001:db8::1-2001:db8::ff . tcp . 80-90 }",
            "elements = { 0x00000001 : 0x00000002 }",
            "type ipv4_addr . mark",
            "size 65535",
            "timeout 3h",
            "127.0.0.1 . 0x00000009 expires",
        ]);
        let held = &nft.elements(&table(), "affinity").unwrap()[0];
        assert!(held.expires.is_some_and(|left| left <= Duration::from_hours(3)), "{held:?}");
    });
}

#[test]
fn several_threads_change_the_ruleset_while_one_reads() {
    with_kernel(|nft| {
        commit(nft, add_many(many(3_000)));
        let backends = |elements| (table(), "backends".into(), elements);
        let mut writer = portolan_netlink::nft::Socket::open().unwrap();
        let writing = std::thread::spawn(move || {
            for n in 0..200 {
                let (table, set, elements) = backends(many(3_001 + n).split_off(3_000));
                commit(&mut writer, [Op::AddElements { table, set, elements }]);
            }
        });
        let mut seen = 0;
        while !writing.is_finished() {
            let found = match nft.elements(&table(), "backends") {
                Ok(found) => found.len(),
                // On a busy machine every attempt may fall into a rehash: then it says so, and gives nothing.
                Err(DumpError::Io { source, .. }) if source.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("{error}"),
            };
            assert!((3_000..=3_200).contains(&found) && found >= seen, "{found} after {seen}");
            seen = found;
        }
        writing.join().unwrap();
        assert_eq!(nft.elements(&table(), "backends").unwrap().len(), 3_200);
    });
}

#[test]
fn without_the_capability_nothing_is_changed_and_the_error_says_so() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    with_kernel(|nft| {
        commit(nft, [add_table()]);
        // Of this thread only, which ends with the test.
        let mut mine = capabilities(None).unwrap();
        mine.effective.remove(CapabilitySet::NET_ADMIN);
        set_capabilities(None, mine).unwrap();
        let mut without = portolan_netlink::nft::Socket::open().unwrap();
        let error = without.commit(&batch([Op::DelTable(table())])).unwrap_err();
        assert_eq!((error.kind, error.op_index), (CommitErrorKind::Denied, None), "{error}");
        mine.effective.insert(CapabilitySet::NET_ADMIN);
        set_capabilities(None, mine).unwrap();
        assert_eq!(nft.tables().unwrap().len(), 1);
    });
}

#[test]
fn an_owned_table_goes_with_its_socket_and_the_tracer_hears_what_it_marks() {
    use portolan_netlink::nft::trace::Cause;
    use portolan_netlink::nft::{MetaKey, Socket, Table, Tracer};
    with_kernel(|nft| {
        portolan_netlink::rt::Rt::open().unwrap().set_up("lo").unwrap();
        let table = Table::new(Family::Ip, "owned");
        let reg = Reg::new(0);
        let mark = [
            Expr::dport(reg),
            Expr::eq(reg, Value::from_slice(&9u16.to_be_bytes())),
            Expr::Immediate { dreg: reg, data: Value::from_slice(&[1]) },
            Expr::MetaSet { key: MetaKey::Nftrace, sreg: reg },
            Expr::drop(),
        ];
        let base =
            Base { kind: ChainKind::Filter, hook: Hook::Output, priority: -300, policy: Policy::Accept };
        let mut owner = Socket::open().unwrap();
        let mut tracer = Tracer::open().unwrap();
        commit(
            &mut owner,
            [
                Op::AddOwnedTable(table.clone()),
                Op::AddChain(Chain::base(&table, "output", base)),
                Op::AddRule(Rule::new(&table, "output", mark.to_vec())),
            ],
        );
        assert!(nft.commit(&batch([Op::DelTable(table.clone())])).is_err(), "it is somebody else's");
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let _ = socket.send_to(b"x", "127.0.0.1:9");
        let event = tracer.next(std::time::Duration::from_secs(5)).unwrap().expect("an event");
        assert_eq!((&event.table, &*event.chain, &event.verdict), (&table, "output", &Verdict::Drop));
        assert!(matches!(event.cause, Cause::Rule(_)), "{event:?}");
        let local = std::net::IpAddr::from([127, 0, 0, 1]);
        assert_eq!(event.addresses, Some((local, local)));
        drop(owner);
        assert!(nft.tables().unwrap().iter().all(|info| info.table != table));
    });
}

//! Two ways to read endpoints back from the kernel, which must agree: dumping the map, and asking for each place.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::path::PathBuf;

use common::planes::{Nftables, Plane as _};
use common::{Case, World, synthetic};
use portolan_dataplane::Driver;
use portolan_dataplane::nftables::layout::{self, Place, SetId};
use portolan_dataplane::nftables::observe::observe_asking_from;
use portolan_dataplane::nftables::{Objects, object};
use portolan_forward::{Family, PoolScope, Protocol};
use portolan_netlink::netns::{IP_NETNS_DIR, Netns};
use portolan_netlink::nft::{
    Batch, Chain, CommitError, Data, DumpError, Element, Handled, NfTables, Op, Rule, Set, Socket, Table,
    TableInfo, Value,
};

/// The kernel, with what was dumped of it.
struct Watched {
    inner: Socket,
    dumped: Vec<String>,
}

impl NfTables for Watched {
    fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        self.inner.commit(batch)
    }
    fn tables(&mut self) -> Result<Vec<TableInfo>, DumpError> {
        self.inner.tables()
    }
    fn chains(&mut self, table: &Table) -> Result<Vec<Chain>, DumpError> {
        self.inner.chains(table)
    }
    fn rules(&mut self, table: &Table, chain: Option<&str>) -> Result<Vec<Handled<Rule>>, DumpError> {
        self.inner.rules(table, chain)
    }
    fn sets(&mut self, table: &Table) -> Result<Vec<Set>, DumpError> {
        self.inner.sets(table)
    }
    fn elements(&mut self, table: &Table, set: &str) -> Result<Vec<Element>, DumpError> {
        self.dumped.push(set.to_owned());
        self.inner.elements(table, set)
    }
    fn count(&mut self, table: &Table, set: &str) -> Result<Option<u32>, DumpError> {
        self.inner.count(table, set)
    }
    fn elements_at(
        &mut self,
        table: &Table,
        set: &str,
        keys: &[Value],
    ) -> Result<Option<Vec<Element>>, DumpError> {
        self.inner.elements_at(table, set, keys)
    }
    fn generation(&mut self) -> Result<u32, DumpError> {
        self.inner.generation()
    }
}

/// Services of every kind that gives pools of its own.
fn cases() -> Vec<Case> {
    let many = (0..300).map(|n| synthetic(n, n % 7));
    let both = Case::new("both", &["172.30.0.1", "fd00:30::1"])
        .node_port(30001)
        .load_balancer("203.0.113.1")
        .sources(&["198.51.100.0/24"])
        .external_local()
        .local_endpoint("10.1.0.1", 8080)
        .endpoint("10.2.0.1", 8080)
        .local_endpoint("fd00:10:1::1", 8080);
    let internal = Case::new("internal", &["172.30.0.2"]).internal_local().local_endpoint("10.1.0.2", 8080);
    let elsewhere = Case::new("elsewhere", &["172.30.0.3"]).internal_local().endpoint("10.2.0.2", 8080);
    let sticky = Case::new("sticky", &["172.30.0.4"]).affinity(60).endpoint("10.2.0.3", 8080);
    let udp = Case::new("udp", &["172.30.0.5"]).port(Protocol::Udp, 53).endpoint("10.2.0.4", 53);
    many.chain([both, internal, elsewhere, sticky, udp]).collect()
}

/// What there is, and whether the endpoints were dumped.
fn read(nft: &mut Watched, from: u32) -> (Objects, bool) {
    nft.dumped.clear();
    let objects = observe_asking_from(from, nft, Place::Own).unwrap();
    // The table of the other family has few.
    (objects, nft.dumped.iter().filter(|set| *set == "backends").count() > 0)
}

fn place(last: u8, index: u32) -> Element {
    let pool = object::Pool { address: [172, 30, 0, last].into(), protocol: Protocol::Udp, port: 53 };
    let endpoint = portolan_forward::Endpoint { address: [10, 2, 0, 4].into(), port: 53, local: false };
    let (key, object) = object::backend(pool, PoolScope::Cluster, index, false, &endpoint);
    let object::Key::Element(_, _, key) = key else { unreachable!() };
    key.into_element(Some(object))
}

#[test]
fn endpoints_that_are_asked_for_are_those_of_a_dump() {
    let path = PathBuf::from(IP_NETNS_DIR).join(format!("ptdp-observe-{}", std::process::id()));
    let netns = Netns::create(&path).expect("making a network namespace needs root");
    let socket = || netns.run(Socket::open).unwrap().unwrap();
    Driver::new(netns.run(Nftables::open).unwrap()).sync(&World::with(cases()).table).unwrap();
    let mut nft = Watched { inner: socket(), dumped: Vec::new() };
    if nft.count(&layout::table(Family::V4), "backends").unwrap().is_none() {
        // This kernel does not say how many elements there are: everything is dumped, and there is nothing to compare.
        assert!(read(&mut nft, 0).1);
        return Netns::delete(&path).unwrap();
    }
    let (dumped, was_dumped) = read(&mut nft, u32::MAX);
    assert!(was_dumped && dumped.len() > 1_000, "{}", dumped.len());
    let (asked, was_dumped) = read(&mut nft, 0);
    assert!(!was_dumped, "everything was where it should be");
    assert!(asked == dumped, "asked and dumped differ");

    // What others did to the map is seen all the same: one endpoint too many, then one in the wrong place.
    let table = layout::table(Family::V4);
    let set = || SetId::Backends.name().into();
    let steps = [
        Op::AddElements { table: table.clone(), set: set(), elements: vec![place(99, 7)] },
        Op::DelElements { table, set: set(), elements: vec![Element { data: Data::None, ..place(5, 0) }] },
    ];
    for step in steps {
        nft.commit(&Batch { ops: vec![step] }).unwrap();
        let (asked, was_dumped) = read(&mut nft, 0);
        assert!(was_dumped && asked == read(&mut nft, u32::MAX).0);
    }
    Netns::delete(&path).unwrap();
}

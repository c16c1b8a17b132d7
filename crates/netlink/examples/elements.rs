//! How long a large map takes: commit, one change in it, and reading it back.
//!
//! Runs in a network namespace of its own, as root: `cargo run --release -p portolan-netlink --example elements 100000`.

use std::net::Ipv4Addr;
use std::time::Instant;

use portolan_netlink::nft::{Batch, Element, Family, FieldType, NfTables, Op, Set, Socket, Table, Value};
use rustix::thread::UnshareFlags;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: u32 = std::env::args().nth(1).map_or(Ok(100_000), |count| count.parse())?;
    // SAFETY: the process has one thread yet; only its network namespace changes.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    let mut nft = Socket::open()?;
    let table = Table::new(Family::Inet, "example");
    let element = |n: u32, data: u32| {
        let key = Value::new().addr(Ipv4Addr::from(n).into()).proto(6).port(80).mark(0);
        Element::map(key, Value::new().addr(Ipv4Addr::from(data).into()).port(8080))
    };
    let add = |elements| Op::AddElements { table: table.clone(), set: "m".into(), elements };
    let key = [FieldType::Ipv4Addr, FieldType::InetProto, FieldType::InetService, FieldType::Mark];
    let set = Set::map(&table, "m", key, [FieldType::Ipv4Addr, FieldType::InetService]);
    let whole = Batch::from_iter([
        Op::AddTable { table: table.clone(), comment: None },
        Op::AddSet(set),
        add((0..count).map(|n| element(n, n)).collect()),
    ]);
    let delete = Op::DelElements { table: table.clone(), set: "m".into(), elements: vec![element(7, 7)] };
    let change = Batch::from_iter([delete, add(vec![element(7, 8)])]);
    let timed = |what: &str, start: Instant| println!("{what:>10}: {:?}", start.elapsed());

    let start = Instant::now();
    nft.commit(&whole)?;
    timed("commit", start);
    let start = Instant::now();
    nft.commit(&change)?;
    timed("change", start);
    // The first follows a large change and may have to be read again, see `nft::Socket`.
    for what in ["dump", "dump again"] {
        let start = Instant::now();
        let found = nft.elements(&table, "m")?.len();
        timed(what, start);
        assert_eq!(found, count as usize);
    }
    Ok(())
}

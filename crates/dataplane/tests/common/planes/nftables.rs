//! The nftables data plane under test.

use std::collections::BTreeSet;
use std::net::IpAddr;

use portolan_dataplane::nftables::layout::{SetId, table};
use portolan_dataplane::nftables::{self, Config, Key, Object};
use portolan_forward::Family;
use portolan_netlink::nft::{Batch, CommitError, CommitErrorKind, Fake, NfTables, Op, Socket};

use super::{Plane, Sabotage};

pub enum Nftables {}

type Faked = portolan_dataplane::Nftables<Fake>;

impl Plane for Nftables {
    type Real = portolan_dataplane::Nftables<Socket>;
    type Fake = Faked;

    // Removing: the frontend, the hole and the last place. Adding: the frontend and the new place. A place or a
    // frontend that changes is deleted and added.
    const CHANGE_COSTS: (usize, usize, usize) = (5, 3, 2);

    fn open() -> Self::Real {
        nftables::Nftables::new(Socket::open().unwrap(), Config::default())
    }

    fn fake() -> Faked {
        nftables::Nftables::new(Fake::new(), Config::default())
    }

    fn restart(before: &mut Faked) -> Faked {
        nftables::Nftables::new(std::mem::take(before.nft()), Config::default())
    }

    fn fail_next(plane: &mut Faked) {
        plane.nft().fail_next(CommitError {
            kind: CommitErrorKind::Unknown,
            op_index: None,
            op: String::new(),
            errno: 105,
            extack: None,
        });
    }

    fn sabotages() -> Vec<Sabotage<Faked>> {
        fn commit(plane: &mut Faked, op: Op) {
            plane.nft().commit(&Batch { ops: vec![op] }).unwrap();
        }
        fn table() -> portolan_netlink::nft::Table {
            nftables::layout::table(Family::V4)
        }
        vec![
            ("flush frontends", |plane| {
                commit(plane, Op::FlushSet { table: table(), set: "frontends".into() });
            }),
            ("flush sources", |plane| commit(plane, Op::FlushSet { table: table(), set: "sources".into() })),
            ("flush services", |plane| {
                commit(plane, Op::FlushChain { table: table(), chain: "services".into() });
            }),
            ("delete the table", |plane| commit(plane, Op::DelTable(table()))),
        ]
    }

    /// Without the places of endpoints within their pools.
    fn content(key: &Key, object: &Object) -> String {
        let is_place = matches!(key, Key::Element(_, SetId::Backends | SetId::AffinityBackends, _));
        let name = format!("{key:?}");
        match name.rsplit_once(" . 0x").filter(|_| is_place) {
            // What remains of the index says which pool.
            Some((pool, index)) => {
                format!("{pool} . {} = {object:?}", if index < "8" { "any" } else { "local" })
            }
            None => format!("{name} = {object:?}"),
        }
    }

    fn endpoints(family: Family) -> usize {
        Socket::open().unwrap().elements(&table(family), "backends").unwrap().len()
    }

    fn remembered(family: Family) -> BTreeSet<IpAddr> {
        let records = Socket::open().unwrap().elements(&table(family), "affinity").unwrap();
        records.iter().map(|record| client(record.key.as_slice(), family)).collect()
    }
}

/// The last field of an affinity record's key.
fn client(key: &[u8], family: Family) -> IpAddr {
    match family {
        Family::V4 => <[u8; 4]>::try_from(&key[key.len() - 4..]).unwrap().into(),
        Family::V6 => <[u8; 16]>::try_from(&key[key.len() - 16..]).unwrap().into(),
    }
}

//! Traffic of pods to the world beyond the cluster carries the node's address: nobody out there knows a way to a pod.
//!
//! One small table of the agent's own, written whole in one transaction. What pods send to each other, and what
//! Services do, is not its matter.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use portolan_netlink::nft::{
    self, Base, Batch, Chain, ChainKind, CmpOp, Expr, Family, Hook, NatFlags, NfTables as _, Op, Policy, Reg,
    Rule, Table, Value, priority,
};

use crate::Error;

const TABLE: &str = "portolan-pods";
const CHAIN: &str = "postrouting";
/// Multicast (RFC 5771) is not for one receiver, who might answer.
const MULTICAST: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(224, 0, 0, 0), 4);

/// Masquerades what the node's pods send outside the cluster's ranges. Without any range, nothing.
pub(crate) fn masquerade(pods: Ipv4Net, cluster: &[IpNet]) -> Result<(), Error> {
    let cluster: Vec<Ipv4Net> =
        cluster.iter().filter_map(|net| if let IpNet::V4(net) = net { Some(*net) } else { None }).collect();
    if cluster.is_empty() {
        return remove();
    }
    commit(&batch(pods, &cluster))
}

/// Takes the table away; one that is not there is no error.
pub(crate) fn remove() -> Result<(), Error> {
    let mut batch = Batch::new();
    batch.push(add_table());
    batch.push(Op::DelTable(table()));
    commit(&batch)
}

fn commit(batch: &Batch) -> Result<(), Error> {
    let mut socket = nft::Socket::open().map_err(Error::PacketFilter)?;
    socket.commit(batch).map_err(|e| Error::Masquerade(e.to_string()))
}

fn table() -> Table {
    Table::new(Family::Ip, TABLE)
}

fn add_table() -> Op {
    Op::AddTable { table: table(), comment: Some("pods to the outside; Portolan's agent replaces it".into()) }
}

/// Adding, deleting and adding again replaces whatever was there.
fn batch(pods: Ipv4Net, cluster: &[Ipv4Net]) -> Batch {
    let table = table();
    let base = Base {
        kind: ChainKind::Nat,
        hook: Hook::Postrouting,
        priority: priority::SRCNAT,
        policy: Policy::Accept,
    };
    let rule = |exprs| Op::AddRule(Rule::new(&table, CHAIN, exprs));
    let mut batch = Batch::new();
    batch.push(add_table());
    batch.push(Op::DelTable(table.clone()));
    batch.push(add_table());
    batch.push(Op::AddChain(Chain::base(&table, CHAIN, base)));
    // ip saddr != PODS return
    batch.push(rule(matches(Expr::saddr, CmpOp::Neq, pods).into_iter().chain([Expr::ret()]).collect()));
    for net in cluster.iter().chain([&MULTICAST]) {
        // ip daddr CLUSTER return
        batch.push(rule(matches(Expr::daddr, CmpOp::Eq, *net).into_iter().chain([Expr::ret()]).collect()));
    }
    // masquerade fully-random
    batch.push(rule(vec![Expr::Masquerade { flags: NatFlags::FULLY_RANDOM }]));
    batch
}

fn matches(load: impl Fn(Family, Reg) -> Expr, op: CmpOp, net: Ipv4Net) -> [Expr; 3] {
    let reg = Reg::new(0);
    let address = |ip: std::net::Ipv4Addr| Value::from(IpAddr::V4(ip));
    [
        load(Family::Ip, reg),
        Expr::Bitwise { sreg: reg, dreg: reg, mask: address(net.netmask()), xor: Value::host32(0) },
        Expr::Cmp { sreg: reg, op, data: address(net.network()) },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_replaced_whole_and_removed_whole() {
        let pods = "10.244.1.0/24".parse().unwrap();
        let mut fake = nft::Fake::new();
        fake.commit(&batch(pods, &["10.244.0.0/16".parse().unwrap()])).unwrap();
        fake.commit(&batch(pods, &[])).unwrap();
        assert_eq!(fake.rules(&table(), None).unwrap().len(), 3, "not ours, multicast, masquerade");
        let mut gone = Batch::new();
        gone.push(add_table());
        gone.push(Op::DelTable(table()));
        fake.commit(&gone).unwrap();
        assert!(fake.tables().unwrap().is_empty());
    }
}

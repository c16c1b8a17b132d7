//! The store on real etcd clusters: the contract of all stores, and what is its own. Needs `etcd` and `etcdctl`.

#[path = "../contract/mod.rs"]
mod contract;
mod faults;
mod own;
mod proxy;
mod server;

use std::sync::Arc;

use contract::contract;
use portolan_store::etcd::Etcd;
use server::Cluster;

async fn fresh() -> (Cluster, Arc<Etcd>) {
    let cluster = Cluster::start(1);
    let store = cluster.store("one").await;
    (cluster, store)
}

contract!(fresh);

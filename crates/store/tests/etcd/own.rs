//! What the etcd store adds to the contract: TLS, several servers, prefixes, leases, compaction.

use std::time::Duration;

use portolan_store::etcd::{Config, Etcd, TlsFiles};
use portolan_store::{Commit, Error, Leases as _, Store, Txn};

use crate::contract::{collect, keys, put};
use crate::server::{Cluster, connect};

#[tokio::test]
async fn a_client_certificate_opens_the_door_and_none_does_not() {
    let cluster = Cluster::start_tls(1);
    let store = cluster.store("one").await;
    put(&*store, "/a", "x").await;
    assert_eq!(keys(&*store, "/", None).await, ["/a"]);
    let mut config = cluster.config("two");
    config.tls = TlsFiles { certificate: None, key: None, ..config.tls };
    let error = Etcd::connect(config).await.expect_err("no certificate");
    assert!(error.to_string().contains("--etcd-servers"), "{error}");
}

#[tokio::test]
async fn no_etcd_is_an_error_that_says_where_it_was_looked_for() {
    let config = Config::new(vec!["http://127.0.0.1:1".into()], "one");
    let Err(Error::Unavailable(text)) = Etcd::connect(config).await else { panic!("connected to nothing") };
    assert!(text.contains("http://127.0.0.1:1") && text.contains("refused"), "{text}");
}

#[tokio::test]
async fn two_servers_see_each_others_writes_and_conflict() {
    let cluster = Cluster::start(1);
    let (one, two) = (cluster.store("one").await, cluster.store("two").await);
    let mut watch = two.watch("/", 1).await.expect("watches");
    let revision = put(&*one, "/a", "1").await;
    assert_eq!(two.get("/a").await.expect("reads").0.expect("is there").mod_revision, revision);
    assert_eq!(collect(&mut watch, 1).await[0].revision, revision);
    let update = || Txn::new().if_revision("/a", revision).put("/a", "2");
    let (first, second) = tokio::join!(one.commit(update()), two.commit(update()));
    let done = [first, second].into_iter().filter(|o| matches!(o, Ok(Commit::Done(_)))).count();
    assert_eq!(done, 1);
}

#[tokio::test]
async fn a_server_that_starts_later_serves_watches_from_before_its_time() {
    let cluster = Cluster::start(1);
    let one = cluster.store("one").await;
    for _ in 0..5 {
        put(&*one, "/a", "x").await;
        put(&*one, "/b", "x").await;
    }
    let late = cluster.store("late").await;
    let mut watch = late.watch("/a", 3).await.expect("watches");
    put(&*one, "/a", "last").await;
    let revisions: Vec<_> = collect(&mut watch, 5).await.iter().map(|e| e.revision).collect();
    assert_eq!(revisions, [4, 6, 8, 10, 12]);
    one.compact(9).await.expect("compacts");
    assert_eq!(late.watch("/a", 8).await.map(drop), Err(Error::Compacted { oldest: 9 }));
}

#[tokio::test]
async fn prefixes_keep_clusters_apart() {
    let cluster = Cluster::start(1);
    let config =
        |prefix: &str| Config { prefix: prefix.into(), base: "/registry".into(), ..cluster.config(prefix) };
    let one = connect(config("/registry")).await;
    let two = connect(config("/other")).await;
    put(&*one, "/registry/pods/a/b", "one").await;
    put(&*two, "/registry/pods/a/b", "two").await;
    assert_eq!(two.get("/registry/pods/a/b").await.expect("reads").0.expect("is there").value, "two");
    assert_eq!(keys(&*one, "/", None).await, ["/registry/pods/a/b"]);
    assert_eq!(cluster.etcdctl(&["get", "/other/pods/a/b", "--print-value-only"]).trim(), "two");
    assert!(matches!(two.commit(Txn::new().put("/elsewhere", "x")).await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn leased_keys_go_by_themselves_and_the_watch_says_so() {
    let cluster = Cluster::start(1);
    let store = cluster.store("one").await;
    let mut watch = store.watch("/lease", 1).await.expect("watches");
    store.put_for("/lease/1", "x".into(), 1).await.expect("writes");
    store.put_for("/lease/2", "x".into(), 600).await.expect("writes");
    let events =
        tokio::time::timeout(Duration::from_secs(20), collect(&mut watch, 3)).await.expect("it expires");
    assert_eq!((&*events[2].key, &events[2].value), ("/lease/1", &None));
    assert_eq!(events[2].previous.as_ref().expect("what it held").value, "x");
    store.remove("/lease/2").await.expect("removes");
    assert_eq!(keys(&*store, "/lease/", None).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_object_too_large_for_etcd_is_the_callers_mistake() {
    let cluster = Cluster::start(1);
    let store = cluster.store("one").await;
    let large = vec![b'x'; portolan_store::limits::VALUE_SIZE_MAX];
    let outcome = store.commit(Txn::new().put("/a", large)).await;
    assert!(matches!(outcome, Err(Error::Invalid(_))), "{outcome:?}");
    assert_eq!(put(&*store, "/a", "x").await, 2, "nothing was written");
}

/// Slow enough to be given up by its caller, the transaction still happens or not; the marker it used is good again.
#[tokio::test]
async fn transactions_given_up_by_their_callers_do_no_harm() {
    let cluster = Cluster::start(1);
    let store = cluster.store("one").await;
    for n in 0..400u32 {
        let commit = store.commit(Txn::new().put("/given-up", n.to_string()));
        let _ = tokio::time::timeout(Duration::from_micros(u64::from(n) * 10), commit).await;
    }
    for _ in 0..200 {
        put(&*store, "/after", "x").await;
    }
}

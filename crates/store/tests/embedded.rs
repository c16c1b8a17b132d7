//! The embedded store: the contract of all stores, and what is its own.

mod contract;

use std::sync::Arc;

use contract::{contract, done, keys, put};
use portolan_store::embedded::{Embedded, RingLimits};
use portolan_store::{Error, Store, Txn, limits};

fn open(dir: &tempfile::TempDir) -> Embedded {
    Embedded::open(dir.path()).expect("opens")
}

fn small(dir: &tempfile::TempDir, events: usize) -> Embedded {
    Embedded::open_with(dir.path(), RingLimits { events, bytes: 1 << 20 }).expect("opens")
}

#[allow(clippy::unused_async)] // other stores take time to start
async fn fresh() -> (tempfile::TempDir, Arc<Embedded>) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(open(&dir));
    (dir, store)
}

contract!(fresh);

#[tokio::test]
async fn a_transaction_that_changes_nothing_takes_no_revision() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    assert_eq!(done(&store, Txn::new().delete("/nothing")).await, 1);
    assert_eq!(done(&store, Txn::new().if_absent("/nothing")).await, 1);
}

#[tokio::test]
async fn old_and_future_revisions_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(&dir, 2);
    for _ in 0..5 {
        put(&store, "/a", "x").await;
    }
    assert_eq!(store.list("/", None, 0, Some(3)).await, Err(Error::Compacted { oldest: 4 }));
    assert_eq!(store.list("/", None, 0, Some(7)).await, Err(Error::TooNew { current: 6 }));
    assert_eq!(store.watch("/", 3).await.map(|_| ()), Err(Error::Compacted { oldest: 4 }));
    assert!(store.watch("/", 4).await.is_ok());
}

#[tokio::test]
async fn content_history_and_revision_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, "/a", "1").await;
    put(&store, "/b", "1").await;
    put(&store, "/a", "2").await;
    done(&store, Txn::new().delete("/b")).await;
    let before = store.watch("/", 1).await.unwrap().next().await.unwrap().unwrap();
    drop(store);
    let store = open(&dir);
    assert_eq!(store.revision().await, Ok(5));
    assert_eq!(keys(&store, "/", None).await, ["/a"]);
    assert_eq!(keys(&store, "/", Some(3)).await, ["/a", "/b"]);
    let after = store.watch("/", 1).await.unwrap().next().await.unwrap().unwrap();
    assert_eq!(before, after);
}

#[tokio::test]
async fn compaction_keeps_content_and_create_revisions_and_the_revision() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, "/a", "1").await;
    put(&store, "/a", "2").await;
    put(&store, "/b", "1").await;
    done(&store, Txn::new().delete("/b")).await;
    store.compact(5).await.unwrap();
    assert_eq!(store.compact(4).await, Err(Error::Compacted { oldest: 5 }));
    assert_eq!(store.compact(6).await, Err(Error::TooNew { current: 5 }));
    for _ in 0..2 {
        assert!(store.watch("/", 4).await.is_err());
        assert!(store.watch("/", 5).await.is_ok());
    }
    drop(store);
    let store = open(&dir);
    assert_eq!(store.revision().await, Ok(5), "the newest record, a deletion, is gone from the log");
    assert_eq!(store.list("/", None, 0, Some(4)).await, Err(Error::Compacted { oldest: 5 }));
    let kv = store.get("/a").await.unwrap().0.unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision), (2, 3));
    assert_eq!(put(&store, "/c", "1").await, 6);
}

#[tokio::test]
async fn a_second_store_in_one_directory_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let error = Embedded::open(dir.path()).unwrap_err();
    let expected =
        format!("data directory {} is in use by process {}", dir.path().display(), std::process::id());
    assert_eq!(error.to_string(), expected);
    drop(store);
    open(&dir);
}

#[tokio::test]
async fn what_is_over_a_limit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let over = [
        Txn::new().put("", "x"),
        Txn::new().put("k".repeat(limits::KEY_SIZE_MAX + 1), "x"),
        Txn::new().put("/a", vec![0; limits::VALUE_SIZE_MAX + 1]),
        Txn::new().put("/a", "x").delete("/a"),
        (0..=limits::TXN_OPS_MAX).fold(Txn::new(), |txn, n| txn.put(format!("/{n}"), "x")),
    ];
    for txn in over {
        assert!(matches!(store.commit(txn).await, Err(Error::Invalid(_))));
    }
    let most = Txn::new().put("k".repeat(limits::KEY_SIZE_MAX), vec![7; limits::VALUE_SIZE_MAX]);
    assert_eq!(done(&store, most).await, 2);
    drop(store);
    assert_eq!(
        open(&dir).list("", None, 0, None).await.unwrap().items[0].value.len(),
        limits::VALUE_SIZE_MAX
    );
}

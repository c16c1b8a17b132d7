//! The embedded store against its contract, one behaviour a test.

use std::time::Duration;

use bytes::Bytes;
use portolan_store::embedded::{Embedded, RingLimits};
use portolan_store::{Commit, Error, Event, KeyValue, Revision, Store, Txn, Watch, limits};

fn open(dir: &tempfile::TempDir) -> Embedded {
    Embedded::open(dir.path()).expect("opens")
}

fn small(dir: &tempfile::TempDir, events: usize) -> Embedded {
    Embedded::open_with(dir.path(), RingLimits { events, bytes: 1 << 20 }).expect("opens")
}

async fn done(store: &Embedded, txn: Txn) -> Revision {
    match store.commit(txn).await.expect("commits") {
        Commit::Done(revision) => revision,
        Commit::Conflict { current } => panic!("conflict: {current:?}"),
    }
}

async fn put(store: &Embedded, key: &str, value: &'static str) -> Revision {
    done(store, Txn::new().put(key, value)).await
}

async fn keys(store: &Embedded, prefix: &str, at: Option<Revision>) -> Vec<String> {
    let page = store.list(prefix, None, 0, at).await.expect("lists");
    page.items.iter().map(|kv| kv.key.to_string()).collect()
}

async fn next(watch: &mut Watch) -> Result<Vec<Event>, Error> {
    let next = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
    next.expect("something within 10 s").expect("not ended").map(|events| events.to_vec())
}

/// As many events as asked for, however they are grouped.
async fn collect(watch: &mut Watch, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        events.extend(next(watch).await.expect("events"));
    }
    events
}

#[tokio::test]
async fn a_fresh_store_is_empty_at_revision_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    assert_eq!(store.revision().await, Ok(1));
    assert_eq!(store.get("/a").await, Ok((None, 1)));
    assert!(keys(&store, "/", None).await.is_empty());
    assert_eq!(put(&store, "/a", "x").await, 2);
}

#[tokio::test]
async fn all_ops_of_a_transaction_share_one_revision() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, "/c", "old").await;
    let mut watch = store.watch("/", 2).await.unwrap();
    let revision = done(&store, Txn::new().put("/a", "1").put("/b", "2").delete("/c")).await;
    assert_eq!(revision, 3);
    let events = collect(&mut watch, 3).await;
    assert!(events.iter().all(|e| e.revision == 3), "{events:?}");
    assert_eq!(events[2].value, None);
    assert_eq!(events[2].previous.as_ref().unwrap().value, "old");
    assert_eq!(events[2].previous.as_ref().unwrap().mod_revision, 2);
}

#[tokio::test]
async fn create_and_mod_revisions_follow_the_life_of_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, "/a", "1").await;
    put(&store, "/a", "2").await;
    let kv = store.get("/a").await.unwrap().0.unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision), (2, 3));
    done(&store, Txn::new().delete("/a")).await;
    put(&store, "/a", "3").await;
    let kv = store.get("/a").await.unwrap().0.unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision), (5, 5));
}

#[tokio::test]
async fn a_failed_compare_writes_nothing_and_shows_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, "/a", "1").await;
    let txn = Txn::new().if_absent("/a").if_revision("/b", 7).put("/a", "2").put("/b", "2");
    let Commit::Conflict { current } = store.commit(txn).await.unwrap() else { panic!("must conflict") };
    let here =
        KeyValue { key: "/a".into(), value: Bytes::from_static(b"1"), create_revision: 2, mod_revision: 2 };
    assert_eq!(current, [("/a".into(), Some(here)), ("/b".into(), None)]);
    assert_eq!(store.revision().await, Ok(2));
    assert_eq!(done(&store, Txn::new().if_revision("/a", 2).put("/a", "2")).await, 3);
}

#[tokio::test]
async fn of_many_creates_of_one_key_exactly_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let creates = (0..64).map(|_| store.commit(Txn::new().if_absent("/a").put("/a", "x")));
    let outcomes = futures_util::future::join_all(creates).await;
    let won = outcomes.iter().filter(|o| matches!(o, Ok(Commit::Done(_)))).count();
    assert_eq!(won, 1);
    assert_eq!(store.revision().await, Ok(2));
}

#[tokio::test]
async fn a_transaction_that_changes_nothing_takes_no_revision() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    assert_eq!(done(&store, Txn::new().delete("/nothing")).await, 1);
    assert_eq!(done(&store, Txn::new().if_absent("/nothing")).await, 1);
}

#[tokio::test]
async fn lists_page_in_key_order_and_count_what_remains() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    for key in ["/b/3", "/b/1", "/a/1", "/b/2", "/c/1"] {
        put(&store, key, "x").await;
    }
    let first = store.list("/b/", None, 2, None).await.unwrap();
    assert_eq!(first.items.iter().map(|kv| &*kv.key).collect::<Vec<_>>(), ["/b/1", "/b/2"]);
    assert_eq!((first.remaining, first.revision), (1, 6));
    done(&store, Txn::new().delete("/b/3").put("/b/4", "x")).await;
    let second = store.list("/b/", Some("/b/2"), 2, Some(first.revision)).await.unwrap();
    assert_eq!(second.items.iter().map(|kv| &*kv.key).collect::<Vec<_>>(), ["/b/3"]);
    assert_eq!((second.remaining, second.revision), (0, 6));
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
async fn a_watch_replays_then_goes_live() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    for key in ["/a/1", "/b/1", "/a/2"] {
        put(&store, key, "x").await;
    }
    let mut watch = store.watch("/a/", 2).await.unwrap();
    put(&store, "/b/2", "x").await;
    put(&store, "/a/3", "x").await;
    let events = collect(&mut watch, 2).await;
    assert_eq!(events.iter().map(|e| (&*e.key, e.revision)).collect::<Vec<_>>(), [("/a/2", 4), ("/a/3", 6)]);
}

#[tokio::test]
async fn progress_moves_on_without_events_and_never_ahead_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut watch = store.watch("/a/", 1).await.unwrap();
    assert_eq!(watch.progress(), Some(1));
    put(&store, "/b/1", "x").await;
    assert_eq!(watch.progress(), Some(2));
    put(&store, "/a/1", "x").await;
    assert_eq!(watch.progress(), None, "an event waits");
    collect(&mut watch, 1).await;
    assert_eq!(watch.progress(), Some(3));
}

#[tokio::test]
async fn a_slow_watcher_is_cut_off_and_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut slow = store.watch("/", 1).await.unwrap();
    let mut written = 0;
    while written <= limits::WATCH_EVENTS_MAX {
        let txn = (0..limits::TXN_OPS_MAX).fold(Txn::new(), |txn, n| txn.put(format!("/{n}"), "x"));
        done(&store, txn).await;
        written += limits::TXN_OPS_MAX;
    }
    assert!(matches!(next(&mut slow).await, Err(Error::SlowWatcher { .. })));
    assert!(slow.next().await.is_none());
}

#[tokio::test]
async fn a_watch_may_start_with_more_history_than_may_wait_live() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut written = 0;
    while written <= limits::WATCH_EVENTS_MAX {
        let txn = (0..limits::TXN_OPS_MAX).fold(Txn::new(), |txn, n| txn.put(format!("/{n}"), "x"));
        done(&store, txn).await;
        written += limits::TXN_OPS_MAX;
    }
    let mut watch = store.watch("/", 1).await.unwrap();
    put(&store, "/last", "x").await;
    let events = collect(&mut watch, written + 1).await;
    assert_eq!(&*events[written].key, "/last");
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

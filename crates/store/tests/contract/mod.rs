//! What every store must do, one behaviour a function. Each test file of a store runs all of them with [`contract!`].

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use portolan_store::{Commit, Error, Event, KeyValue, Revision, Store, Txn, Watch, limits};

/// One test for each behaviour, each on a fresh store of the kind that `$make` gives: something to keep alive, and
/// the store.
macro_rules! contract {
    ($make:path) => {
        contract!($make: a_fresh_store_is_empty_at_revision_one,
            all_ops_of_a_transaction_share_one_revision,
            create_and_mod_revisions_follow_the_life_of_a_key,
            a_failed_compare_writes_nothing_and_shows_what_is_there,
            of_many_creates_of_one_key_exactly_one_wins,
            lists_page_in_key_order_and_count_what_remains,
            a_watch_replays_then_goes_live,
            progress_moves_on_without_events_and_never_ahead_of_them,
            a_slow_watcher_is_cut_off_and_holds_nobody_up,
            a_watch_may_start_with_more_history_than_may_wait_live,
            revisions_of_the_past_and_the_future_are_told_apart,
            compaction_keeps_content_and_the_revision,
            a_long_list_is_one_revision,
            what_no_store_takes_is_refused,
            absence_is_not_a_revision);
    };
    ($make:path: $($name:ident),+) => { $(
        #[tokio::test]
        async fn $name() {
            let (_keep, store) = $make().await;
            contract::$name(&*store).await;
        }
    )+ };
}
pub(crate) use contract;

pub(crate) async fn done(store: &dyn Store, txn: Txn) -> Revision {
    match store.commit(txn).await.expect("commits") {
        Commit::Done(revision) => revision,
        Commit::Conflict { current } => panic!("conflict: {current:?}"),
    }
}

pub(crate) async fn put(store: &dyn Store, key: &str, value: &'static str) -> Revision {
    done(store, Txn::new().put(key, value)).await
}

pub(crate) async fn keys(store: &dyn Store, prefix: &str, at: Option<Revision>) -> Vec<String> {
    let page = store.list(prefix, None, 0, at).await.expect("lists");
    page.items.iter().map(|kv| kv.key.to_string()).collect()
}

pub(crate) async fn next(watch: &mut Watch) -> Result<Vec<Event>, Error> {
    let next = tokio::time::timeout(Duration::from_secs(20), watch.next()).await;
    next.expect("something within 20 s").expect("not ended").map(|events| events.to_vec())
}

/// As many events as asked for, however they are grouped.
pub(crate) async fn collect(watch: &mut Watch, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        events.extend(next(watch).await.expect("events"));
    }
    events
}

/// Waits until a watch says what is expected of it.
async fn until_progress(watch: &Watch, expected: Option<Revision>) {
    let all = async {
        while watch.progress() != expected {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), all).await;
    assert!(waited.is_ok(), "progress is {:?}, not {expected:?}", watch.progress());
}

pub(crate) async fn a_fresh_store_is_empty_at_revision_one(store: &dyn Store) {
    assert_eq!(store.revision().await, Ok(1));
    assert_eq!(store.get("/a").await, Ok((None, 1)));
    assert!(keys(store, "/", None).await.is_empty());
    assert_eq!(put(store, "/a", "x").await, 2);
}

pub(crate) async fn all_ops_of_a_transaction_share_one_revision(store: &dyn Store) {
    put(store, "/c", "old").await;
    let mut watch = store.watch("/", 2).await.unwrap();
    let revision = done(store, Txn::new().put("/a", "1").put("/b", "2").delete("/c")).await;
    assert_eq!(revision, 3);
    let events = collect(&mut watch, 3).await;
    assert!(events.iter().all(|e| e.revision == 3), "{events:?}");
    assert_eq!(events[2].value, None);
    assert_eq!(events[2].previous.as_ref().unwrap().value, "old");
    assert_eq!(events[2].previous.as_ref().unwrap().mod_revision, 2);
}

pub(crate) async fn create_and_mod_revisions_follow_the_life_of_a_key(store: &dyn Store) {
    put(store, "/a", "1").await;
    put(store, "/a", "2").await;
    let kv = store.get("/a").await.unwrap().0.unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision), (2, 3));
    done(store, Txn::new().delete("/a")).await;
    put(store, "/a", "3").await;
    let kv = store.get("/a").await.unwrap().0.unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision), (5, 5));
}

pub(crate) async fn a_failed_compare_writes_nothing_and_shows_what_is_there(store: &dyn Store) {
    put(store, "/a", "1").await;
    let txn = Txn::new().if_absent("/a").if_revision("/b", 7).put("/a", "2").put("/b", "2");
    let Commit::Conflict { current } = store.commit(txn).await.unwrap() else { panic!("must conflict") };
    let here =
        KeyValue { key: "/a".into(), value: Bytes::from_static(b"1"), create_revision: 2, mod_revision: 2 };
    assert_eq!(current, [("/a".into(), Some(here)), ("/b".into(), None)]);
    assert_eq!(store.revision().await, Ok(2));
    assert_eq!(done(store, Txn::new().if_revision("/a", 2).put("/a", "2")).await, 3);
}

pub(crate) async fn of_many_creates_of_one_key_exactly_one_wins(store: &dyn Store) {
    let creates = (0..64).map(|_| store.commit(Txn::new().if_absent("/a").put("/a", "x")));
    let outcomes = futures_util::future::join_all(creates).await;
    let won = outcomes.iter().filter(|o| matches!(o, Ok(Commit::Done(_)))).count();
    assert_eq!(won, 1);
    assert_eq!(store.revision().await, Ok(2));
}

pub(crate) async fn lists_page_in_key_order_and_count_what_remains(store: &dyn Store) {
    for key in ["/b/3", "/b/1", "/a/1", "/b/2", "/c/1"] {
        put(store, key, "x").await;
    }
    let first = store.list("/b/", None, 2, None).await.unwrap();
    assert_eq!(first.items.iter().map(|kv| &*kv.key).collect::<Vec<_>>(), ["/b/1", "/b/2"]);
    assert_eq!((first.remaining, first.revision), (1, 6));
    done(store, Txn::new().delete("/b/3").put("/b/4", "x")).await;
    let second = store.list("/b/", Some("/b/2"), 2, Some(first.revision)).await.unwrap();
    assert_eq!(second.items.iter().map(|kv| &*kv.key).collect::<Vec<_>>(), ["/b/3"]);
    assert_eq!((second.remaining, second.revision), (0, 6));
}

pub(crate) async fn a_watch_replays_then_goes_live(store: &dyn Store) {
    for key in ["/a/1", "/b/1", "/a/2"] {
        put(store, key, "x").await;
    }
    let mut watch = store.watch("/a/", 2).await.unwrap();
    put(store, "/b/2", "x").await;
    put(store, "/a/3", "x").await;
    let events = collect(&mut watch, 2).await;
    assert_eq!(events.iter().map(|e| (&*e.key, e.revision)).collect::<Vec<_>>(), [("/a/2", 4), ("/a/3", 6)]);
}

pub(crate) async fn progress_moves_on_without_events_and_never_ahead_of_them(store: &dyn Store) {
    let mut watch = store.watch("/a/", 1).await.unwrap();
    assert_eq!(watch.progress(), Some(1));
    put(store, "/b/1", "x").await;
    until_progress(&watch, Some(2)).await;
    put(store, "/a/1", "x").await;
    // An event waits.
    until_progress(&watch, None).await;
    collect(&mut watch, 1).await;
    until_progress(&watch, Some(3)).await;
}

pub(crate) async fn a_slow_watcher_is_cut_off_and_holds_nobody_up(store: &dyn Store) {
    let mut slow = store.watch("/", 1).await.unwrap();
    let mut quick = store.watch("/", 1).await.unwrap();
    let mut written = 0;
    while written <= limits::WATCH_EVENTS_MAX {
        let txn = (0..limits::TXN_OPS_MAX).fold(Txn::new(), |txn, n| txn.put(format!("/{n}"), "x"));
        done(store, txn).await;
        collect(&mut quick, limits::TXN_OPS_MAX).await;
        written += limits::TXN_OPS_MAX;
    }
    assert!(matches!(next(&mut slow).await, Err(Error::SlowWatcher { .. })));
    assert!(slow.next().await.is_none());
}

pub(crate) async fn a_watch_may_start_with_more_history_than_may_wait_live(store: &dyn Store) {
    let mut written = 0;
    while written <= limits::WATCH_EVENTS_MAX {
        let txn = (0..limits::TXN_OPS_MAX).fold(Txn::new(), |txn, n| txn.put(format!("/{n}"), "x"));
        done(store, txn).await;
        written += limits::TXN_OPS_MAX;
    }
    let mut watch = store.watch("/", 1).await.unwrap();
    put(store, "/last", "x").await;
    let events = collect(&mut watch, written + 1).await;
    assert_eq!(&*events[written].key, "/last");
}

pub(crate) async fn revisions_of_the_past_and_the_future_are_told_apart(store: &dyn Store) {
    for value in ["1", "2", "3", "4"] {
        put(store, "/a", value).await;
    }
    done(store, Txn::new().delete("/a")).await;
    store.compact(4).await.expect("compacts");
    assert_eq!(store.list("/", None, 0, Some(3)).await, Err(Error::Compacted { oldest: 4 }));
    assert_eq!(store.list("/", None, 0, Some(7)).await, Err(Error::TooNew { current: 6 }));
    assert_eq!(keys(store, "/", Some(4)).await, ["/a"]);
    assert_eq!(store.watch("/", 7).await.map(|_| ()), Err(Error::TooNew { current: 6 }));
    let mut watch = store.watch("/", 4).await.expect("watches");
    let events = collect(&mut watch, 2).await;
    let values: Vec<_> = events.iter().map(|e| e.previous.as_ref().map(|p| p.value.clone())).collect();
    assert_eq!(values, [Some(Bytes::from_static(b"3")), Some(Bytes::from_static(b"4"))]);
    assert_eq!(store.compact(3).await, Err(Error::Compacted { oldest: 4 }));
    assert_eq!(store.compact(7).await, Err(Error::TooNew { current: 6 }));
    store.compact(4).await.expect("compacting twice changes nothing");
}

pub(crate) async fn compaction_keeps_content_and_the_revision(store: &dyn Store) {
    put(store, "/a", "1").await;
    put(store, "/a", "2").await;
    put(store, "/b", "1").await;
    done(store, Txn::new().delete("/b")).await;
    store.compact(5).await.expect("compacts");
    let kv = store.get("/a").await.expect("reads").0.expect("is there");
    assert_eq!((kv.create_revision, kv.mod_revision), (2, 3));
    assert_eq!(store.revision().await, Ok(5));
    assert!(store.watch("/", 5).await.is_ok());
    assert_eq!(put(store, "/c", "1").await, 6);
}

/// Larger than one step of a list takes, with values large enough that the steps change their size.
pub(crate) async fn a_long_list_is_one_revision(store: &dyn Store) {
    let names: Vec<String> = (0..1_500).map(|n| format!("/a/{n:04}")).collect();
    for part in names.chunks(limits::TXN_OPS_MAX) {
        done(store, part.iter().fold(Txn::new(), |txn, key| txn.put(key.as_str(), vec![b'x'; 900]))).await;
    }
    put(store, "/b", "x").await;
    assert_eq!(keys(store, "/a/", None).await, names);
    let page = store.list("/a/", Some("/a/0999"), 300, None).await.expect("lists");
    assert_eq!((&*page.items[0].key, page.items.len(), page.remaining), ("/a/1000", 300, 200));
    let before = page.revision;
    done(store, Txn::new().delete("/a/0000")).await;
    assert_eq!(keys(store, "/a/", Some(before)).await.len(), 1_500);
    assert_eq!(keys(store, "", None).await.len(), 1_500);
}

pub(crate) async fn what_no_store_takes_is_refused(store: &dyn Store) {
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
}

/// A condition on a revision that no key ever had must fail, absent key or not.
pub(crate) async fn absence_is_not_a_revision(store: &dyn Store) {
    let outcome = store.commit(Txn::new().if_revision("/a", 0).put("/a", "x")).await.expect("answers");
    assert!(matches!(outcome, Commit::Conflict { .. }), "{outcome:?}");
}

//! Members die, freeze and lose their connections while writers write. The rules: what was acknowledged is there, what
//! was not acknowledged happened at most once, and a watch sees each change once and in order.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portolan_store::etcd::{Config, Etcd};
use portolan_store::{Commit, Error, Event, Revision, Store, Txn};
use tokio::sync::mpsc;

use crate::proxy::Proxy;
use crate::server::{Cluster, connect};

const WRITERS: usize = 8;

/// What one writer can prove.
#[derive(Debug, Default)]
struct Report {
    acknowledged: u64,
    /// The store could not say.
    unknown: u64,
    /// The newest acknowledged write: number and revision.
    last: (u64, Revision),
}

/// Counts up in a key of its own, each step on the condition that the last one is what is there. Nobody else writes
/// it, so a conflict is a write that happened twice, or one that was reported as failed and happened.
async fn count(store: Arc<Etcd>, key: String, stop: Arc<AtomicBool>) -> Report {
    let mut report = Report::default();
    let (mut number, mut revision) = (0u64, 0);
    while !stop.load(Ordering::SeqCst) {
        let txn =
            if revision == 0 { Txn::new().if_absent(&*key) } else { Txn::new().if_revision(&*key, revision) };
        match store.commit(txn.put(&*key, (number + 1).to_string())).await {
            Ok(Commit::Done(at)) => {
                number += 1;
                revision = at;
                report.acknowledged += 1;
                report.last = (number, at);
            }
            Ok(Commit::Conflict { current }) => {
                panic!("{key}: {number} at {revision}, but found {current:?}")
            }
            Err(Error::Unknown(_)) => {
                report.unknown += 1;
                (number, revision) = settled(&store, &key, (number, revision)).await;
            }
            Err(Error::Unavailable(_)) => {}
            Err(error) => panic!("{key}: {error}"),
        }
    }
    report
}

/// After an unknown outcome: one step further, or as it was; nothing else.
async fn settled(store: &Etcd, key: &str, (number, revision): (u64, Revision)) -> (u64, Revision) {
    loop {
        match store.get(key).await {
            Ok((Some(kv), _)) => {
                let found: u64 = std::str::from_utf8(&kv.value).expect("text").parse().expect("a number");
                assert!(found == number || found == number + 1, "{key}: {number} became {found}");
                return (found, kv.mod_revision);
            }
            Ok((None, _)) => return (number, revision),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

type Recorded = mpsc::UnboundedReceiver<Arc<[Event]>>;

/// Takes all that a watch brings, so that it is never slow.
async fn record(store: &Etcd) -> Recorded {
    let mut watch = store.watch("/count/", 1).await.expect("watches");
    let (sender, recorded) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(events) = watch.next().await {
            let _ = sender.send(events.expect("events"));
        }
    });
    recorded
}

/// Reads a watch until it has seen every key's last acknowledged write. Each number comes once and in order.
async fn check_watch(watch: &mut Recorded, reports: &HashMap<String, Report>) {
    let mut seen: HashMap<String, u64> = HashMap::new();
    let mut newest = 0;
    let behind = |seen: &HashMap<String, u64>| {
        reports.iter().any(|(key, r)| seen.get(key).copied().unwrap_or(0) < r.last.0)
    };
    while behind(&seen) {
        let events = tokio::time::timeout(Duration::from_secs(30), watch.recv()).await.expect("more events");
        for event in events.expect("not ended").iter() {
            assert!(event.revision > newest, "revision {} after {newest}", event.revision);
            newest = event.revision;
            let value = event.value.as_ref().expect("nothing is deleted");
            let number: u64 = std::str::from_utf8(value).expect("text").parse().expect("a number");
            let before = seen.insert(event.key.to_string(), number).unwrap_or(0);
            assert_eq!(number, before + 1, "{} at {}", event.key, event.revision);
            if reports.get(&*event.key).is_some_and(|r| r.last.0 == number) {
                assert_eq!(reports[&*event.key].last.1, event.revision, "the revision acknowledged");
            }
        }
    }
}

struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<(String, tokio::task::JoinHandle<Report>)>,
}

impl Load {
    fn start(stores: &[Arc<Etcd>]) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..WRITERS).map(|n| {
            let key = format!("/count/{n}");
            (key.clone(), tokio::spawn(count(stores[n % stores.len()].clone(), key, stop.clone())))
        });
        Load { tasks: tasks.collect(), stop }
    }

    async fn end(self) -> HashMap<String, Report> {
        self.stop.store(true, Ordering::SeqCst);
        let mut reports = HashMap::new();
        for (key, task) in self.tasks {
            reports.insert(key, task.await.expect("no writer found a contradiction"));
        }
        reports
    }
}

fn total(reports: &HashMap<String, Report>) -> (u64, u64) {
    (reports.values().map(|r| r.acknowledged).sum(), reports.values().map(|r| r.unknown).sum())
}

/// Waits until a store has written again: until a fault is dealt with, however long that takes.
async fn works(store: &Etcd) {
    let written =
        async { while !matches!(store.commit(Txn::new().put("/works", "x")).await, Ok(Commit::Done(_))) {} };
    tokio::time::timeout(Duration::from_mins(1), written).await.expect("writes again within a minute");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_lost_neither_lose_nor_double_a_write() {
    let cluster = Cluster::start(1);
    let direct = cluster.store("direct").await;
    let proxy = Proxy::to(&cluster.members[0].url).await;
    let config = Config { endpoints: vec![proxy.url.clone()], ..cluster.config("shaken") };
    let shaken = connect(config).await;
    let mut watches = [record(&direct).await, record(&shaken).await];
    let load = Load::start(std::slice::from_ref(&shaken));
    for round in 0..40u64 {
        tokio::time::sleep(Duration::from_millis(20 + round % 7)).await;
        // Requests go through and are carried out; nobody hears of it.
        proxy.mute(true);
        tokio::time::sleep(Duration::from_millis(5)).await;
        proxy.cut();
        proxy.mute(false);
        works(&shaken).await;
    }
    let reports = load.end().await;
    for watch in &mut watches {
        check_watch(watch, &reports).await;
    }
    let (acknowledged, unknown) = total(&reports);
    assert!(acknowledged > 200, "{acknowledged} writes in 40 rounds");
    assert_eq!(unknown, 0, "the marker tells in every case, since etcd itself was there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_die_and_come_back_under_load() {
    let mut cluster = Cluster::start(3);
    let stores = [cluster.store("one").await, cluster.store("two").await];
    let mut watches = Vec::new();
    for store in &stores {
        watches.push(record(store).await);
    }
    let load = Load::start(&stores);
    for round in 0..6 {
        works(&stores[round % 2]).await;
        cluster.members[round % 3].kill();
        works(&stores[0]).await;
        works(&stores[1]).await;
        cluster.members[round % 3].start();
    }
    works(&stores[0]).await;
    let reports = load.end().await;
    for watch in &mut watches {
        check_watch(watch, &reports).await;
    }
    let (acknowledged, _) = total(&reports);
    assert!(acknowledged > 100, "{acknowledged}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_hangs_is_left_for_another() {
    let cluster = Cluster::start(3);
    let store = cluster.store("one").await;
    let mut watch = record(&store).await;
    let load = Load::start(std::slice::from_ref(&store));
    for member in &cluster.members {
        works(&store).await;
        member.freeze(true);
        works(&store).await;
        member.freeze(false);
    }
    works(&store).await;
    let reports = load.end().await;
    check_watch(&mut watch, &reports).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_etcd_calls_fail_in_time_and_work_again_with_it() {
    let mut cluster = Cluster::start(1);
    let store = cluster.store("one").await;
    works(&store).await;
    let mut watch = store.watch("/after", store.revision().await.expect("reads")).await.expect("watches");
    cluster.members[0].kill();
    let within = Duration::from_secs(20);
    let read = tokio::time::timeout(within, store.get("/works")).await.expect("an answer in time");
    assert!(matches!(&read, Err(Error::Unavailable(why)) if why.contains("127.0.0.1")), "{read:?}");
    let write = tokio::time::timeout(within, store.commit(Txn::new().put("/works", "y"))).await;
    let write = write.expect("an answer in time");
    assert!(matches!(write, Err(Error::Unavailable(_) | Error::Unknown(_))), "{write:?}");
    cluster.members[0].start();
    works(&store).await;
    let revision = crate::contract::put(&*store, "/after", "x").await;
    let events = crate::contract::next(&mut watch).await.expect("goes on");
    assert_eq!(events[0].revision, revision);
}

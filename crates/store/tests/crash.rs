//! An acknowledged write is on disk: a writer is killed with SIGKILL again and again, and every write that it had
//! acknowledged must be there when the store is opened again.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use portolan_store::embedded::{Embedded, RingLimits};
use portolan_store::{Commit, Error, Store, Txn};

const DIR: &str = "PORTOLAN_STORE_TEST_DIR";
const ROUNDS: usize = 10;
const WRITERS: usize = 8;
/// Far fewer than a round writes, so that the kill also lands in the middle of removing old records.
const LIMITS: RingLimits = RingLimits { events: 50, bytes: 1 << 20 };

fn start_writer(dir: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this test's own file"))
        .args(["--exact", "writer_process", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts")
}

/// Not a test: the process that gets killed. Writes until then, and says so after each acknowledged write.
#[test]
#[ignore = "started by the other tests as a process of its own"]
fn writer_process() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = Arc::new(Embedded::open_with(dir, LIMITS).expect("opens"));
        // The harness may have left its own words on this line.
        println!("\nopen");
        let writers = (0..WRITERS).map(|writer| write_forever(store.clone(), writer));
        futures_util::future::join_all(writers).await;
    });
}

async fn write_forever(store: Arc<Embedded>, writer: usize) {
    for n in 0u64.. {
        let key = format!("/{writer}/{}", n % 7);
        let delete = n % 5 == 4;
        let txn = if delete {
            Txn::new().delete(key.clone())
        } else {
            Txn::new().put(key.clone(), format!("{n}").repeat(1 + n as usize % 300))
        };
        let Commit::Done(revision) = store.commit(txn).await.expect("commits") else { panic!("no compares") };
        println!("ack {key} {} {revision}", if delete { "-".to_owned() } else { n.to_string() });
    }
}

/// Reads acknowledgements, kills the writer after `count` of them, and reads what it still managed to say.
/// Returns the last acknowledged state of each key (`None`: deleted) and the highest revision.
fn kill_after(mut child: Child, count: usize) -> (HashMap<String, Option<String>>, u64) {
    let mut acknowledged = HashMap::new();
    let (mut seen, mut newest) = (0, 0);
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let line = line.expect("text");
        let words: Vec<&str> = line.split(' ').collect();
        // The last line may be cut short by the kill; a newline is the acknowledgement.
        let ["ack", key, value, revision] = words[..] else { continue };
        let value = (value != "-").then(|| value.to_owned());
        acknowledged.insert(key.to_owned(), value);
        newest = newest.max(revision.parse().unwrap_or(0));
        seen += 1;
        if seen == count {
            child.kill().expect("SIGKILL");
        }
    }
    child.wait().expect("ends");
    assert!(seen >= count, "the writer ended early, after {seen} writes");
    (acknowledged, newest)
}

#[test]
fn acknowledged_writes_survive_kill_9() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut last_revision = 1;
    for round in 0..ROUNDS {
        let (acknowledged, newest) = kill_after(start_writer(dir.path()), 100 + 37 * round);
        let store = Embedded::open_with(dir.path(), LIMITS).expect("opens after a kill");
        let revision = runtime.block_on(store.revision()).expect("a revision");
        assert!(revision >= newest && newest > last_revision, "{last_revision} {newest} {revision}");
        last_revision = revision;
        for (key, value) in acknowledged {
            check_key(&runtime, &store, &key, value.as_deref(), newest);
        }
    }
}

/// A writer's next write may have become durable without being acknowledged; no older one may be what is there.
fn check_key(
    runtime: &tokio::runtime::Runtime,
    store: &Embedded,
    key: &str,
    acknowledged: Option<&str>,
    newest: u64,
) {
    let found = runtime.block_on(store.get(key)).expect("reads").0;
    let unacknowledged = found.as_ref().is_some_and(|kv| kv.mod_revision > newest);
    if unacknowledged {
        return;
    }
    match (acknowledged, found) {
        (Some(n), Some(kv)) => {
            let times = 1 + n.parse::<usize>().expect("a number") % 300;
            assert_eq!(kv.value, n.repeat(times), "{key}");
        }
        (None, None) => {}
        // Deleted by a write that came after the last acknowledgement: only a newer write of this writer's can
        // do that, and it took a revision.
        (Some(_), None) => {
            let revision = runtime.block_on(store.revision()).expect("a revision");
            assert!(revision > newest, "{key} was acknowledged and is gone");
        }
        (None, Some(kv)) => panic!("{key} is back from the dead: {kv:?}"),
    }
}

#[test]
fn a_directory_in_use_names_the_process() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut child = start_writer(dir.path());
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    assert!(lines.by_ref().any(|line| line.expect("text") == "open"));
    let outcome = Embedded::open(dir.path());
    child.kill().expect("SIGKILL");
    child.wait().expect("ends");
    let expected = Error::InUse { path: dir.path().to_owned(), pid: child.id().to_string() };
    assert_eq!(outcome.map(|_| ()), Err(expected));
    Embedded::open(dir.path()).expect("opens once the holder is dead");
}

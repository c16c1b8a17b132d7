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

/// The n-th write of a writer: key, and value or `None` for a deletion.
fn write(writer: usize, n: u64) -> (String, Option<String>) {
    let value = (n % 5 != 4).then(|| format!("{n}").repeat(1 + n as usize % 300));
    (format!("/{writer}/{}", n % 7), value)
}

async fn write_forever(store: Arc<Embedded>, writer: usize) {
    for n in 0u64.. {
        let (key, value) = write(writer, n);
        let txn = match value {
            Some(value) => Txn::new().put(key, value),
            None => Txn::new().delete(key),
        };
        let Commit::Done(revision) = store.commit(txn).await.expect("commits") else { panic!("no compares") };
        println!("ack {writer} {revision}");
    }
}

/// Reads acknowledgements, kills the writer after `count` of them, and reads what it still managed to say.
/// Returns how many writes of each writer were acknowledged, and the highest revision.
fn kill_after(mut child: Child, count: usize) -> ([u64; WRITERS], u64) {
    let mut acknowledged = [0; WRITERS];
    let (mut seen, mut newest) = (0, 0);
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let line = line.expect("text");
        let words: Vec<&str> = line.split(' ').collect();
        // The last line may be cut short by the kill: its revision is then too low, which asks less, not more.
        let ["ack", writer, revision] = words[..] else { continue };
        acknowledged[writer.parse::<usize>().expect("a number")] += 1;
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
    let mut before: HashMap<String, String> = HashMap::new();
    for round in 0..ROUNDS {
        let (acknowledged, newest) = kill_after(start_writer(dir.path()), 100 + 37 * round);
        let store = Embedded::open_with(dir.path(), LIMITS).expect("opens after a kill");
        let revision = runtime.block_on(store.revision()).expect("a revision");
        assert!(revision >= newest && newest > last_revision, "{last_revision} {newest} {revision}");
        last_revision = revision;
        let items = runtime.block_on(store.list("/", None, 0, None)).expect("reads").items;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let found: HashMap<String, String> =
            items.iter().map(|kv| (kv.key.to_string(), text(&kv.value))).collect();
        for (writer, count) in acknowledged.into_iter().enumerate() {
            check(&before, &found, writer, count);
        }
        before = found;
    }
}

/// A writer's keys are as its acknowledged writes left them; or its next write, the only one under way, is there too.
fn check(before: &HashMap<String, String>, found: &HashMap<String, String>, writer: usize, count: u64) {
    let own = format!("/{writer}/");
    let of_writer = |content: &HashMap<String, String>| -> HashMap<String, String> {
        content.iter().filter(|(key, _)| key.starts_with(&own)).map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let mut expected = of_writer(before);
    let apply = |content: &mut HashMap<String, String>, n: u64| match write(writer, n) {
        (key, Some(value)) => _ = content.insert(key, value),
        (key, None) => _ = content.remove(&key),
    };
    for n in 0..count {
        apply(&mut expected, n);
    }
    let mut one_more = expected.clone();
    apply(&mut one_more, count);
    let found = of_writer(found);
    assert!(found == expected || found == one_more, "writer {writer}, {count} acknowledged: {found:?}");
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

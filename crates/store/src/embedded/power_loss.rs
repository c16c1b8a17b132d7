//! Tests on a disk that loses power and runs full.
//!
//! Between two syncs the disk may do with writes what it likes: when the power fails, each sector of each write since
//! the last sync is kept or not, whatever became of earlier ones. After it, the store must open, and hold the content of
//! one revision: the last acknowledged, or one of those under way.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use redb::StorageBackend;

use super::medium::Medium;
use super::*;

const SECTOR: usize = 512;
/// Few enough that old records are removed all the time.
const LIMITS: RingLimits = RingLimits { events: 12, bytes: 1 << 20 };

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

#[derive(Debug)]
struct Platter {
    /// What is there after a power cut, whatever happens.
    durable: Vec<u8>,
    /// What is read back while the power is on.
    current: Vec<u8>,
    /// From the one to the other.
    unsynced: Vec<Change>,
    /// Calls until the power fails.
    calls_left: Option<u64>,
    off: bool,
    capacity: usize,
    rng: StdRng,
}

#[derive(Debug, Clone)]
struct TestDisk(Arc<Mutex<Platter>>);

impl TestDisk {
    fn new(seed: u64) -> TestDisk {
        TestDisk(Arc::new(Mutex::new(Platter {
            durable: Vec::new(),
            current: Vec::new(),
            unsynced: Vec::new(),
            calls_left: None,
            off: false,
            capacity: usize::MAX,
            rng: StdRng::seed_from_u64(seed),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<Embedded, Error> {
        Embedded::start(Disk::on(Arc::new(self.clone()))?, LIMITS, None)
    }

    fn fail_after(&self, calls: u64) {
        self.lock().calls_left = Some(calls);
    }

    /// The power comes back.
    fn power_on(&self) {
        let mut platter = self.lock();
        if !platter.off {
            platter.cut();
        }
        platter.off = false;
        platter.calls_left = None;
        platter.current = platter.durable.clone();
    }
}

impl Platter {
    /// One call; the power may fail at it.
    fn call(&mut self) -> io::Result<()> {
        match &mut self.calls_left {
            Some(0) if !self.off => self.cut(),
            Some(left) if *left > 0 => *left -= 1,
            _ => {}
        }
        if self.off { Err(io::Error::other("no power")) } else { Ok(()) }
    }

    /// The power fails: of what was not synced, some sectors are kept.
    fn cut(&mut self) {
        self.off = true;
        let kept = [0.0, 0.1, 0.5, 0.9, 1.0][self.rng.random_range(0..5)];
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::SetLen(len) if self.rng.random_bool(kept) => self.durable.resize(len, 0),
                Change::SetLen(_) => {}
                Change::Write(offset, data) => {
                    for (index, sector) in data.chunks(SECTOR).enumerate() {
                        if self.rng.random_bool(kept) {
                            put(&mut self.durable, offset + index * SECTOR, sector);
                        }
                    }
                }
            }
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if bytes.len() < offset + data.len() {
        bytes.resize(offset + data.len(), 0);
    }
    bytes[offset..offset + data.len()].copy_from_slice(data);
}

impl StorageBackend for TestDisk {
    fn len(&self) -> io::Result<u64> {
        let mut platter = self.lock();
        platter.call()?;
        Ok(platter.current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut platter = self.lock();
        platter.call()?;
        let offset = usize::try_from(offset).expect("fits");
        let found = platter.current.get(offset..offset + out.len());
        out.copy_from_slice(found.ok_or_else(|| io::Error::other("beyond the end"))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.lock();
        platter.call()?;
        let len = usize::try_from(len).expect("fits");
        if len > platter.capacity && len > platter.current.len() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        platter.current.resize(len, 0);
        platter.unsynced.push(Change::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.lock();
        platter.call()?;
        for change in std::mem::take(&mut platter.unsynced) {
            match change {
                Change::SetLen(len) => platter.durable.resize(len, 0),
                Change::Write(offset, data) => put(&mut platter.durable, offset, &data),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.lock();
        // A write at which the power fails may be there in part.
        let offset = usize::try_from(offset).expect("fits");
        if platter.calls_left == Some(0) && !platter.off {
            platter.unsynced.push(Change::Write(offset, data.to_vec()));
        }
        platter.call()?;
        put(&mut platter.current, offset, data);
        platter.unsynced.push(Change::Write(offset, data.to_vec()));
        Ok(())
    }
}

impl Medium for TestDisk {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(self.clone()))
    }

    fn name(&self) -> String {
        "the test's disk".into()
    }
}

/// (value, create revision, mod revision) by key.
type Content = BTreeMap<String, (Bytes, Revision, Revision)>;

/// The content after each revision, the first at revision 1.
struct Model(Vec<Content>);

impl Model {
    fn apply(&mut self, txn: &Txn) {
        let mut content = self.0.last().cloned().unwrap_or_default();
        let revision = self.0.len() as Revision + 1;
        let mut changed = false;
        for op in &txn.ops {
            match op {
                crate::Op::Put(key, value) => {
                    let created = content.get(&**key).map_or(revision, |c| c.1);
                    content.insert(key.to_string(), (value.clone(), created, revision));
                    changed = true;
                }
                crate::Op::Delete(key) => changed |= content.remove(&**key).is_some(),
            }
        }
        if changed {
            self.0.push(content);
        }
    }

    fn revision(&self) -> Revision {
        self.0.len() as Revision
    }
}

fn transaction(rng: &mut StdRng) -> Txn {
    let mut txn = Txn::new();
    let first = rng.random_range(0..9);
    for n in first..first + rng.random_range(1..4) {
        let key = format!("/k/{n}");
        if rng.random_bool(0.3) {
            txn = txn.delete(key);
        } else {
            let len = if rng.random_bool(0.05) { 20_000 } else { rng.random_range(0..400) };
            txn = txn.put(key, vec![rng.random::<u8>(); len]);
        }
    }
    txn
}

async fn content(store: &Embedded) -> Content {
    let page = store.list("", None, 0, None).await.expect("reads from memory");
    page.items
        .into_iter()
        .map(|kv| (kv.key.to_string(), (kv.value, kv.create_revision, kv.mod_revision)))
        .collect()
}

/// Writes in groups until the power fails or there have been enough. Returns the newest acknowledged revision.
async fn write(store: &Embedded, model: &mut Model, rng: &mut StdRng) -> Revision {
    let mut acknowledged = model.revision();
    for _ in 0..rng.random_range(1..25) {
        let group: Vec<Txn> = (0..rng.random_range(1..6)).map(|_| transaction(rng)).collect();
        for txn in &group {
            model.apply(txn);
        }
        // Polled in this order, so decided in this order.
        let outcomes = futures_util::future::join_all(group.into_iter().map(|txn| store.commit(txn))).await;
        for outcome in outcomes {
            match outcome {
                Ok(Commit::Done(revision)) => acknowledged = acknowledged.max(revision),
                Ok(Commit::Conflict { .. }) => panic!("no conditions were made"),
                Err(_) => return acknowledged,
            }
        }
    }
    acknowledged
}

async fn lose_power(seed: u64) {
    let disk = TestDisk::new(seed);
    let mut rng = StdRng::seed_from_u64(!seed);
    let mut model = Model(vec![Content::new()]);
    let mut acknowledged = 1;
    // It gets its name when it is whole: see `Disk::open_file`.
    drop(disk.open().expect("is made"));
    for round in 0..4 {
        // Also while it is opened or repaired.
        let calls = if rng.random_bool(0.2) { rng.random_range(0..60) } else { rng.random_range(0..900) };
        disk.fail_after(calls);
        if let Ok(store) = disk.open() {
            acknowledged = write(&store, &mut model, &mut rng).await;
        }
        disk.power_on();
        let store = disk.open().unwrap_or_else(|e| panic!("seed {seed}, round {round}: {e}"));
        let revision = store.revision().await.expect("reads from memory");
        assert!(
            (acknowledged..=model.revision()).contains(&revision),
            "seed {seed}, round {round}: {acknowledged} was acknowledged, {revision} is there"
        );
        model.0.truncate(usize::try_from(revision).expect("small"));
        assert_eq!(content(&store).await, model.0[model.0.len() - 1], "seed {seed}, round {round}");
    }
}

/// `PORTOLAN_STORE_SEEDS` asks for more.
#[test]
fn every_acknowledged_write_is_there_after_the_power_fails() {
    let seeds: u64 = std::env::var("PORTOLAN_STORE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3_000);
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                for seed in (half..seeds).step_by(2) {
                    runtime.block_on(lose_power(seed));
                }
            });
        }
    });
}

/// Waits until a write succeeds.
async fn recovers(store: &Embedded) -> Revision {
    let begin = std::time::Instant::now();
    loop {
        match store.commit(Txn::new().put("/after", "x")).await {
            Ok(Commit::Done(revision)) => return revision,
            outcome => assert!(begin.elapsed().as_secs() < 20, "{outcome:?}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_full_disk_is_named_and_writes_go_on_when_it_has_room() {
    let disk = TestDisk::new(1);
    let store = disk.open().unwrap();
    store.commit(Txn::new().put("/before", "x")).await.unwrap();
    let mut watch = store.watch("/", store.revision().await.unwrap()).await.unwrap();
    let capacity = disk.lock().current.len() + 200_000;
    disk.lock().capacity = capacity;
    let mut kept: Vec<Revision> = Vec::new();
    let error = loop {
        let key = format!("/fill/{}", kept.len());
        match store.commit(Txn::new().put(key, vec![7; 100_000])).await {
            Ok(Commit::Done(revision)) => kept.push(revision),
            Ok(conflict) => panic!("{conflict:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Full(_)) && error.is_retryable(), "{error}");
    assert_eq!(store.list("/fill/", None, 0, None).await.unwrap().items.len(), kept.len(), "reads go on");
    let again = store.commit(Txn::new().put("/fill/more", vec![7; 100_000])).await;
    assert!(matches!(again, Err(Error::Full(_))), "{again:?}");
    disk.lock().capacity = usize::MAX;
    let revision = recovers(&store).await;
    let expected = kept.last().copied().unwrap_or(2) + 1;
    assert_eq!(revision, expected, "what was refused took no revision");
    let mut seen = Vec::new();
    while seen.last() != Some(&revision) {
        seen.extend(watch.next().await.unwrap().unwrap().iter().map(|e| e.revision));
    }
    assert_eq!(seen, kept.iter().copied().chain([revision]).collect::<Vec<_>>(), "no gap and nothing twice");
    let before = content(&store).await;
    drop(store);
    disk.power_on();
    assert_eq!(content(&disk.open().unwrap()).await, before);
}

#[tokio::test]
async fn a_disk_that_fails_is_not_written_to_any_more() {
    let disk = TestDisk::new(1);
    let store = disk.open().unwrap();
    let revision = recovers(&store).await;
    disk.fail_after(0);
    let outcome = store.commit(Txn::new().put("/a", "x")).await;
    assert!(matches!(outcome, Err(Error::Unknown(_) | Error::Unavailable(_))), "{outcome:?}");
    for _ in 0..3 {
        let outcome = store.commit(Txn::new().put("/a", "x")).await;
        assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
    }
    disk.power_on();
    let outcome = store.commit(Txn::new().put("/a", "x")).await;
    assert!(matches!(outcome, Err(Error::Unavailable(_))), "nobody knows what it holds: {outcome:?}");
    drop(store);
    disk.power_on();
    assert_eq!(disk.open().unwrap().revision().await, Ok(revision));
}

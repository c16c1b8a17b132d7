//! How long a durable write takes: `cargo run --release -p portolan-store --example durable [DIR]`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portolan_store::embedded::Embedded;
use portolan_store::{Store, Txn};

const RUN: Duration = Duration::from_secs(4);
const VALUE_BYTES: usize = 1_024;
const KEYS: u64 = 20_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    for writers in [1, 64] {
        let dir = root.join(format!("portolan-store-bench-{}-{writers}", std::process::id()));
        let outcome = run(&dir, writers).await;
        std::fs::remove_dir_all(&dir)?;
        outcome?;
    }
    Ok(())
}

async fn run(dir: &Path, writers: usize) -> Result<(), Box<dyn std::error::Error>> {
    let store = Arc::new(Embedded::open(dir)?);
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let tasks: Vec<_> =
        (0..writers).map(|_| tokio::spawn(write(store.clone(), next.clone(), start))).collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await?.map_err(|e| e.to_string())?);
    }
    let elapsed = start.elapsed();
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    let rate = latencies.len() as f64 / elapsed.as_secs_f64();
    drop(store);
    let size = std::fs::metadata(dir.join("store.redb"))?.len();
    let reopen = Instant::now();
    let store = Embedded::open(dir)?;
    let reopen = reopen.elapsed();
    let keys = store.list("", None, 1, None).await?.remaining + 1;
    println!(
        "{writers:>3} writers: {rate:>8.0} writes/s, p50 {:?}, p99 {:?}, max {:?}; {keys} keys in {} MiB, opened in {reopen:?}",
        at(0.5),
        at(0.99),
        at(1.0),
        size >> 20,
    );
    Ok(())
}

async fn write(
    store: Arc<Embedded>,
    next: Arc<AtomicU64>,
    start: Instant,
) -> Result<Vec<Duration>, portolan_store::Error> {
    let mut latencies = Vec::new();
    while start.elapsed() < RUN {
        let n = next.fetch_add(1, Ordering::Relaxed);
        let key = format!("/registry/services/specs/bench/s{}", n.wrapping_mul(7_919) % KEYS);
        let begin = Instant::now();
        store.commit(Txn::new().put(key, vec![n as u8; VALUE_BYTES])).await?;
        latencies.push(begin.elapsed());
    }
    Ok(latencies)
}

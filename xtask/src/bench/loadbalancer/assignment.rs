//! From the creation of a Service to the watch that shows its address.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use portolan_client::{Cache, Client, Dirty, Key, Selectors, cache, paths};
use serde_json::{Value, json};

use super::{Bench, Group, Measured, PATIENCE};

const NAMESPACE: &str = "default";
const WRITERS: usize = 16;

pub(super) fn measure(bench: &Bench, assignments: usize, services: usize) -> anyhow::Result<Vec<Measured>> {
    bench.runtime.block_on(async {
        let mut watch = Watch::start(&bench.client).await;
        let mut measured = Vec::from(one_by_one(&bench.client, &mut watch, "first", assignments, 0).await?);
        measured.push(together(&bench.client, &mut watch, services).await?);
        measured.extend(one_by_one(&bench.client, &mut watch, "then", assignments, services).await?);
        Ok(measured)
    })
}

struct Watch {
    services: Cache<Value>,
    dirty: Dirty,
}

impl Watch {
    async fn start(client: &Client) -> Self {
        let services = Cache::start(client.clone(), paths::SERVICES, Selectors::default(), cache::json);
        services.synced().await;
        let dirty = services.subscribe();
        Self { services, dirty }
    }

    /// Waits for the next changes; gives the Services among them that have an address.
    async fn next(&mut self) -> anyhow::Result<Vec<Key>> {
        tokio::time::timeout(PATIENCE, self.dirty.wait()).await.context("no Service gets an address")?;
        let has = |key: &Key| {
            let service = self.services.get(key);
            service.is_some_and(|service| service["status"]["loadBalancer"]["ingress"][0]["ip"].is_string())
        };
        Ok(self.dirty.take().into_iter().filter(has).collect())
    }
}

async fn create(client: &Client, name: &str, labels: Value) -> anyhow::Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": labels},
        "spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]},
    });
    let _: Value = client.create(&paths::SERVICES, Some(NAMESPACE), &service).await?;
    Ok(())
}

/// A pool for the Services of one label.
async fn create_pool(client: &Client, name: &str, addresses: &str) -> anyhow::Result<()> {
    let pool = json!({
        "apiVersion": "portolan.dev/v1alpha1", "kind": "LoadBalancerPool", "metadata": {"name": name},
        "spec": {"addresses": [addresses], "serviceSelector": {"matchLabels": {"bench": name}}},
    });
    let _: Value = client.create(&paths::LOAD_BALANCER_POOLS, None, &pool).await?;
    Ok(())
}

async fn one_by_one(
    client: &Client,
    watch: &mut Watch,
    pool: &str,
    count: usize,
    others: usize,
) -> anyhow::Result<[Measured; 2]> {
    let range = if others == 0 { "10.1.0.0/17" } else { "10.1.128.0/17" };
    create_pool(client, pool, range).await?;
    let (mut whole, mut after): (Vec<Duration>, Vec<Duration>) = (Vec::new(), Vec::new());
    let warm_up = count / 10;
    for i in 0..warm_up + count {
        let key = Key::new(NAMESPACE, format!("{pool}-{i}"));
        let begin = Instant::now();
        create(client, &key.name, json!({"bench": pool})).await?;
        let answered = Instant::now();
        while !watch.next().await?.contains(&key) {}
        if i >= warm_up {
            whole.push(begin.elapsed());
            after.push(answered.elapsed());
        }
    }
    let name = |what: &str| format!("address, {what}, {others} others");
    Ok([
        Measured::new(Group::Assignment, &name("from the request"), &whole),
        Measured::new(Group::Assignment, &name("from the API's answer"), &after),
    ])
}

/// Many Services that wait; then there is a pool.
async fn together(client: &Client, watch: &mut Watch, count: usize) -> anyhow::Result<Measured> {
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let client = client.clone();
        tasks.spawn(async move {
            for i in (writer..count).step_by(WRITERS) {
                create(&client, &format!("waits-{i}"), json!({"bench": "late"})).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    let begin = Instant::now();
    create_pool(client, "late", "10.2.0.0/16").await?;
    let mut waited = Vec::new();
    while waited.len() < count {
        let all = watch.next().await?;
        let came = all.iter().filter(|key| key.name.starts_with("waits-")).count();
        waited.extend(std::iter::repeat_n(begin.elapsed(), came.min(count - waited.len())));
    }
    Ok(Measured::new(
        Group::Assignment,
        &format!("{count} Services wait for one pool, from its creation"),
        &waited,
    ))
}

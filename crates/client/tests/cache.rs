//! Watch caches against the fake API, in one process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use portolan_client::testing::FakeApi;
use portolan_client::{Body, Cache, Client, Error, Key, Selectors, Transport, Versions, cache, paths};
use serde_json::{Value, json};

fn service(name: &str, n: u64) -> Value {
    json!({ "metadata": { "name": name, "namespace": "shop", "labels": { "n": n.to_string() } }, "n": n })
}

fn number(bytes: &[u8]) -> Result<u64, portolan_client::BoxError> {
    let object: Value = cache::json(bytes)?;
    object["n"].as_u64().ok_or_else(|| "n is not a number".into())
}

fn start(api: &Arc<FakeApi>, selectors: Selectors) -> Cache<u64> {
    Cache::start(api.client(), paths::SERVICES, selectors, number)
}

fn key(name: &str) -> Key {
    Key::new("shop", name)
}

/// Let the other tasks run until something holds. Bounded by turns, not time: some tests stop the clock.
async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if holds() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never came: {what}");
}

/// Lists: requests that are no watches.
fn lists(api: &FakeApi) -> usize {
    api.requests().iter().filter(|r| !r.contains("watch=1")).count()
}

#[tokio::test]
async fn objects_come_by_list_and_change_by_watch() {
    let api = FakeApi::new();
    api.put(&paths::SERVICES, service("a", 1));
    let cache = start(&api, Selectors::default());
    assert!(!cache.is_synced());
    cache.synced().await;
    assert_eq!(cache.all(), [(key("a"), Arc::new(1))]);

    let mut dirty = cache.subscribe();
    assert_eq!(dirty.take().len(), 1, "what is there starts dirty");
    api.put(&paths::SERVICES, service("a", 2));
    api.put(&paths::SERVICES, service("b", 3));
    until("both", || cache.get(&key("b")).is_some()).await;
    dirty.wait().await;
    assert_eq!(cache.get(&key("a")).as_deref(), Some(&2));
    assert_eq!(dirty.take(), [key("a"), key("b")].into());
    api.remove(&paths::SERVICES, "shop", "a");
    dirty.wait().await;
    assert_eq!(dirty.take(), [key("a")].into());
    assert_eq!(cache.get(&key("a")), None);
}

#[tokio::test]
async fn long_lists_come_in_pages_and_are_swapped_in_when_complete() {
    let api = FakeApi::new();
    for n in 0..2_500 {
        api.put(&paths::SERVICES, service(&format!("s{n}"), n));
    }
    let cache = Cache::start(stepwise(&api, 0), paths::SERVICES, Selectors::default(), number);
    let mut between_pages = 0;
    while !cache.is_synced() {
        between_pages += usize::from((1..3).contains(&lists(&api)));
        assert_eq!(cache.len(), 0, "half a list is never shown");
        tokio::task::yield_now().await;
    }
    assert_eq!((cache.len(), lists(&api)), (2_500, 3));
    assert!(between_pages >= 2, "the test must have looked between the pages");
}

#[tokio::test]
async fn a_list_whose_pages_expire_is_taken_whole() {
    let api = FakeApi::new();
    for n in 0..1_500 {
        api.put(&paths::SERVICES, service(&format!("s{n}"), n));
    }
    let cache = Cache::start(stepwise(&api, 1), paths::SERVICES, Selectors::default(), number);
    cache.synced().await;
    assert_eq!(cache.len(), 1_500);
    assert_eq!(lists(&api), 3, "a page, a refused page, everything: {:?}", api.requests());
}

/// A client whose requests each let other tasks run first. The history is forgotten after so many; 0: never.
fn stepwise(api: &Arc<FakeApi>, expire_after: usize) -> Client {
    let transport = Stepwise { api: api.clone(), calls: AtomicUsize::new(0), expire_after };
    Client::from_transport(Arc::new(transport), "test")
}

struct Stepwise {
    api: Arc<FakeApi>,
    calls: AtomicUsize,
    expire_after: usize,
}

impl Transport for Stepwise {
    fn call(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>, Error>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let response = self.api.respond(&request);
            if self.calls.fetch_add(1, Ordering::SeqCst) + 1 == self.expire_after {
                self.api.expire();
            }
            Ok(response)
        })
    }
}

/// An API server that is exchanged for a newer one: the old one has slices of `v1beta1` and selects Services by no field.
struct Aging {
    api: Arc<FakeApi>,
    old: AtomicBool,
}

impl Transport for Aging {
    fn call(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>, Error>> {
        let asked = request.uri().to_string();
        let old = self.old.load(Ordering::SeqCst);
        let missing = if old { "/discovery.k8s.io/v1/" } else { "/discovery.k8s.io/v1beta1/" };
        if asked.contains(missing) {
            self.api.fail_next(1, 404, "NotFound");
        } else if old && asked.contains("fieldSelector=spec.") {
            self.api.fail_next(1, 400, "BadRequest");
        }
        let response = self.api.respond(&request);
        Box::pin(async move { Ok(response) })
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_server_is_read_in_the_way_it_can_until_a_newer_one_takes_its_place() {
    let api = FakeApi::new();
    let Versions { newest, older } = paths::ENDPOINT_SLICES_OF_ANY_AGE;
    api.put(&older.unwrap(), service("slice", 1));
    api.put(&newest, service("slice", 2));
    api.put(&paths::SERVICES, service("a", 3));
    let aging = Arc::new(Aging { api: Arc::clone(&api), old: true.into() });
    let client = Client::from_transport(Arc::clone(&aging) as Arc<dyn Transport>, "test");
    let of_any_age = paths::ENDPOINT_SLICES_OF_ANY_AGE;
    let slices = Cache::start(client.clone(), of_any_age, Selectors::default(), number);
    let spared = Selectors { spared: Some("spec.clusterIP!=None".into()), ..Selectors::default() };
    let services = Cache::start(client, paths::SERVICES, spared, number);
    slices.synced().await;
    services.synced().await;
    assert_eq!(slices.get(&key("slice")).as_deref(), Some(&1));
    assert_eq!(services.get(&key("a")).as_deref(), Some(&3));
    // Followed in the same way.
    until("the watches", || api.watches() == 2).await;
    api.put(&older.unwrap(), service("slice", 4));
    api.put(&paths::SERVICES, service("a", 5));
    until("the changes", || {
        slices.get(&key("slice")).as_deref() == Some(&4) && services.get(&key("a")).as_deref() == Some(&5)
    })
    .await;
    aging.old.store(false, Ordering::SeqCst);
    api.drop_watches();
    let mut dirty = slices.subscribe();
    dirty.take();
    dirty.wait().await;
    assert_eq!(slices.get(&key("slice")).as_deref(), Some(&2), "{:?}", api.requests());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_watch_is_resumed_and_brings_what_was_missed() {
    let api = FakeApi::new();
    let cache = start(&api, Selectors::default());
    cache.synced().await;
    let mut dirty = cache.subscribe();
    for n in 0..5 {
        api.drop_watches();
        api.put(&paths::SERVICES, service("a", n));
        dirty.wait().await;
        dirty.take();
        assert_eq!(cache.get(&key("a")).as_deref(), Some(&n));
    }
    assert_eq!(lists(&api), 1, "{:?}", api.requests());
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_moves_on_where_a_watch_is_resumed() {
    let api = FakeApi::new();
    let cache = start(&api, Selectors::default());
    cache.synced().await;
    let watches = || api.requests().into_iter().filter(|r| r.contains("watch=1")).collect::<Vec<_>>();
    until("a watch", || api.watches() == 1).await;
    assert!(watches()[0].contains("resourceVersion=1&"), "{:?}", watches());
    api.put(&paths::NODES, json!({ "metadata": { "name": "something-else" } }));
    api.bookmark();
    api.drop_watches();
    until("another watch", || watches().len() == 2).await;
    assert!(watches()[1].contains("resourceVersion=2&"), "{:?}", watches());
}

#[tokio::test(start_paused = true)]
async fn an_expired_watch_lists_again() {
    let api = FakeApi::new();
    api.put(&paths::SERVICES, service("a", 1));
    api.put(&paths::SERVICES, service("b", 1));
    let cache = start(&api, Selectors::default());
    cache.synced().await;
    let mut dirty = cache.subscribe();
    dirty.take();
    api.remove(&paths::SERVICES, "shop", "b");
    api.expire();
    dirty.wait().await;
    assert_eq!((dirty.take(), lists(&api)), ([key("b")].into(), 2));
    assert_eq!(cache.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn trouble_at_the_start_is_retried_ever_more_slowly() {
    let api = FakeApi::new();
    api.put(&paths::SERVICES, service("a", 1));
    api.fail_next(6, 503, "ServiceUnavailable");
    let begin = tokio::time::Instant::now();
    let cache = start(&api, Selectors::default());
    cache.synced().await;
    assert_eq!(cache.len(), 1);
    // 100 + 200 + ... + 3,200 ms, each at least half.
    let waited = begin.elapsed();
    assert!((Duration::from_millis(3_150)..=Duration::from_millis(6_400)).contains(&waited), "{waited:?}");
}

#[tokio::test]
async fn an_object_that_cannot_be_decoded_is_left_out() {
    let api = FakeApi::new();
    api.put(&paths::SERVICES, service("good", 1));
    api.put(&paths::SERVICES, json!({ "metadata": { "name": "bad", "namespace": "shop" }, "n": "text" }));
    let cache = start(&api, Selectors::default());
    cache.synced().await;
    assert_eq!((cache.len(), cache.decode_failures()), (1, 1));
    let mut bad = service("good", 1);
    bad["n"] = "text".into();
    api.put(&paths::SERVICES, bad);
    api.put(&paths::SERVICES, service("other", 2));
    until("the watch goes on", || cache.get(&key("other")).is_some()).await;
    assert_eq!((cache.get(&key("good")), cache.decode_failures()), (None, 2));
    api.put(&paths::SERVICES, service("bad", 5));
    until("repaired", || cache.get(&key("bad")).as_deref() == Some(&5)).await;
}

#[tokio::test]
async fn selectors_go_to_the_server() {
    let api = FakeApi::new();
    api.put(&paths::SERVICES, service("a", 1));
    api.put(&paths::SERVICES, service("b", 2));
    api.put(&paths::SERVICES, json!({ "metadata": { "name": "a", "namespace": "other" }, "n": 9 }));
    let labels = start(&api, Selectors { labels: Some("n=1".into()), ..Selectors::default() });
    let fields = start(&api, Selectors { fields: Some("metadata.name=b".into()), ..Selectors::default() });
    let namespace = start(&api, Selectors { namespace: Some("other".into()), ..Selectors::default() });
    labels.synced().await;
    fields.synced().await;
    namespace.synced().await;
    assert_eq!(labels.all(), [(key("a"), Arc::new(1))]);
    assert_eq!(fields.all(), [(key("b"), Arc::new(2))]);
    assert_eq!(namespace.all(), [(Key::new("other", "a"), Arc::new(9))]);
    // Out of one selection and into another.
    api.put(&paths::SERVICES, service("a", 3));
    until("gone", || labels.is_empty()).await;
}

#[tokio::test]
async fn the_last_clone_ends_the_watch() {
    let api = FakeApi::new();
    let cache = start(&api, Selectors::default());
    cache.synced().await;
    until("a watch", || api.watches() == 1).await;
    let clone = cache.clone();
    drop(cache);
    api.put(&paths::SERVICES, service("a", 1));
    until("the clone is alive", || clone.len() == 1).await;
    drop(clone);
    until("no watch", || api.watches() == 0).await;
}

//! Watchers and reflectors: nothing is missed and nothing comes twice, whatever happens to the server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, reflector, wait, watcher as start_watcher};
use serde_json::json;

use crate::cluster::{Cluster, PATIENCE, create, until};

/// What a watcher has told, in its words.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn has(&self, word: &str) -> bool {
        self.all().iter().any(|told| told == word)
    }
}

/// Follows with a watcher in a task of its own.
fn follow(api: Api<ConfigMap>, config: watcher::Config) -> (Told, tokio::task::JoinHandle<()>) {
    let told = Told::default();
    let sink = told.clone();
    let task = tokio::spawn(async move {
        let mut stream = start_watcher(api, config).default_backoff().boxed();
        while let Some(event) = stream.next().await {
            let name = |object: &ConfigMap| {
                let value = object.data.as_ref().and_then(|data| data.get("value")).cloned();
                format!("{}={}", object.metadata.name.clone().unwrap(), value.unwrap_or_default())
            };
            let word = match event {
                Ok(Event::Init) => "init".into(),
                Ok(Event::InitApply(object)) => format!("present {}", name(&object)),
                Ok(Event::InitDone) => "done".into(),
                Ok(Event::Apply(object)) => format!("apply {}", name(&object)),
                Ok(Event::Delete(object)) => format!("delete {}", name(&object)),
                Err(error) => format!("error {error}"),
            };
            sink.0.lock().unwrap().push(word);
        }
    });
    (told, task)
}

async fn patch(api: &Api<ConfigMap>, name: &str, value: &str) {
    let patch = Patch::Merge(json!({"data": {"value": value}}));
    api.patch(name, &PatchParams::default(), &patch).await.unwrap();
}

/// Both ways of kube-rs to begin: a list and then a watch, or one watch that lists.
fn both() -> [(&'static str, watcher::Config); 2] {
    let config = || watcher::Config::default().labels("app=test").timeout(20);
    [("list and watch", config()), ("streaming list", config().streaming_lists())]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_sees_what_is_there_and_then_every_change_once() {
    let cluster = Cluster::start().await;
    for (how, config) in both() {
        let api = cluster.config_maps().await;
        create(&api, "one", "1").await;
        let (told, task) = follow(api.clone(), config);
        until(how, || told.has("done")).await;
        create(&api, "two", "1").await;
        patch(&api, "one", "2").await;
        api.delete("two", &DeleteParams::default()).await.unwrap();
        until(how, || told.has("delete two=1")).await;
        let expected =
            ["init", "present one=1", "done", "apply two=1", "apply one=2", "delete two=1"].map(String::from);
        assert_eq!(told.all(), expected, "{how}");
        task.abort();
        api.delete("one", &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_goes_on_where_it_was_after_a_restart() {
    let mut cluster = Cluster::start().await;
    for (how, config) in both() {
        let api = cluster.config_maps().await;
        create(&api, "one", "1").await;
        let (told, task) = follow(api.clone(), config);
        until(how, || told.has("done")).await;
        patch(&api, "one", "2").await;
        until(how, || told.has("apply one=2")).await;
        cluster.restart().await;
        let api = cluster.config_maps().await;
        patch(&api, "one", "3").await;
        until(how, || told.has("apply one=3")).await;
        let said: Vec<String> = told.all().into_iter().filter(|word| !word.starts_with("error")).collect();
        let expected = ["init", "present one=1", "done", "apply one=2", "apply one=3"].map(String::from);
        assert_eq!(said, expected, "{how}: no second list");
        task.abort();
        api.delete("one", &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_whose_past_is_forgotten_lists_again() {
    let mut cluster = Cluster::start().await;
    let api = cluster.config_maps().await;
    create(&api, "one", "1").await;
    create(&api, "gone", "1").await;
    let config = watcher::Config::default().labels("app=test").timeout(20);
    let (told, task) = follow(api.clone(), config);
    until("it has listed", || told.has("done")).await;
    cluster.stop().await;
    // While it cannot reach the server, much happens and is forgotten.
    let mut other = cluster;
    other.restart_with_gap("gone").await;
    until("it has listed again", || told.all().iter().filter(|word| *word == "done").count() == 2).await;
    let api = other.config_maps().await;
    patch(&api, "one", "9").await;
    until("it follows", || told.has("apply one=9")).await;
    let all = told.all();
    let second = all.iter().rposition(|word| word == "init").unwrap();
    assert!(!all[second..].iter().any(|word| word.contains("gone=")), "what went is not there: {all:?}");
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reflector_holds_what_the_server_holds() {
    let cluster = Cluster::start().await;
    for (how, config) in both() {
        let api = cluster.config_maps().await;
        let writer = Writer::<ConfigMap>::default();
        let store = writer.as_reader();
        let stream = reflector(writer, start_watcher(api.clone(), config).default_backoff());
        let task = tokio::spawn(stream.for_each(|_| async {}));
        store.wait_until_ready().await.unwrap();
        for number in 0..40 {
            create(&api, &format!("c{number}"), "1").await;
        }
        for number in 0..40 {
            match number % 3 {
                0 => patch(&api, &format!("c{number}"), "2").await,
                1 => drop(api.delete(&format!("c{number}"), &DeleteParams::default()).await.unwrap()),
                _ => {}
            }
        }
        let list = api.list(&ListParams::default().labels("app=test")).await.unwrap();
        let truth: BTreeMap<_, _> =
            list.items.into_iter().map(|o| (o.metadata.name.unwrap(), o.data)).collect();
        assert_eq!(truth.len(), 27);
        until(how, || {
            let held = store.state();
            let held: BTreeMap<_, _> =
                held.iter().map(|o| (o.metadata.name.clone().unwrap(), o.data.clone())).collect();
            held == truth
        })
        .await;
        task.abort();
        let all = ListParams::default().labels("app=test");
        api.delete_collection(&DeleteParams::default(), &all).await.unwrap();
        assert_eq!(api.list(&all).await.unwrap().items.len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_can_be_waited_for() {
    let cluster = Cluster::start().await;
    let api = cluster.config_maps().await;
    let full = |object: Option<&ConfigMap>| {
        object
            .and_then(|o| o.data.as_ref())
            .is_some_and(|data| data.get("value").is_some_and(|v| v == "full"))
    };
    let waiting = tokio::spawn(wait::await_condition(api.clone(), "glass", full));
    let uid = create(&api, "glass", "empty").await.metadata.uid.unwrap();
    patch(&api, "glass", "full").await;
    let seen = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(seen.unwrap().metadata.uid.as_deref(), Some(uid.as_str()));
    let gone = {
        let (api, uid) = (api.clone(), uid.clone());
        tokio::spawn(async move {
            wait::await_condition(api, "glass", wait::conditions::is_deleted(&uid)).await.map(drop)
        })
    };
    api.delete("glass", &DeleteParams::default()).await.unwrap();
    tokio::time::timeout(PATIENCE, gone).await.unwrap().unwrap().unwrap();
}

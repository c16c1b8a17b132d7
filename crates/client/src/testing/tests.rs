use serde_json::json;

use super::*;
use crate::{DeleteOptions, ListOptions, Patch, Subresource, paths};

fn service(name: &str) -> Value {
    json!({ "metadata": { "name": name }, "spec": { "type": "ClusterIP" } })
}

#[tokio::test]
async fn verbs_do_what_they_say() {
    let api = FakeApi::new();
    let client = api.client();
    let (kind, ns) = (&paths::SERVICES, Some("default"));
    let created: Value = client.create(kind, ns, &service("a")).await.unwrap();
    assert_eq!(created["metadata"]["resourceVersion"], "2");
    assert!(client.create(kind, ns, &service("a")).await.unwrap_err().is_already_exists());
    let got: Value = client.get(kind, ns, "a").await.unwrap();
    assert_eq!(got, created);
    assert!(client.get::<Value>(kind, ns, "b").await.unwrap_err().is_not_found());

    let mut changed = got.clone();
    changed["spec"]["type"] = "NodePort".into();
    let updated: Value = client.update(kind, ns, "a", &changed).await.unwrap();
    assert_eq!(updated["metadata"]["resourceVersion"], "3");
    changed["spec"]["type"] = "LoadBalancer".into();
    let stale = client.update(kind, ns, "a", &changed).await.unwrap_err();
    assert!(stale.is_conflict() && !stale.is_retryable());

    let patch = json!({ "metadata": { "labels": { "x": "y" } }, "spec": { "type": null } });
    let patched: Value = client.patch(kind, ns, "a", Subresource::None, Patch::Merge(&patch)).await.unwrap();
    assert_eq!(patched["spec"], json!({}));
    client.delete(kind, ns, "a", &DeleteOptions::default()).await.unwrap();
    assert!(api.all(kind).is_empty());
    assert_eq!(api.writes().len(), 4, "{:?}", api.writes());
}

#[tokio::test]
async fn status_is_written_through_its_own_subresource_only() {
    let api = FakeApi::new();
    let client = api.client();
    api.put(&paths::NODES, json!({ "metadata": { "name": "n" }, "status": { "phase": "old" } }));
    let sent = json!({ "metadata": { "name": "n" }, "spec": { "x": 1 }, "status": { "phase": "new" } });
    let main: Value = client.update(&paths::NODES, None, "n", &sent).await.unwrap();
    assert_eq!((&main["status"]["phase"], &main["spec"]["x"]), (&json!("old"), &json!(1)));
    let sent = json!({ "metadata": { "name": "n" }, "spec": { "x": 2 }, "status": { "phase": "new" } });
    let status: Value = client.update_status(&paths::NODES, None, "n", &sent).await.unwrap();
    assert_eq!((&status["status"]["phase"], &status["spec"]["x"]), (&json!("new"), &json!(1)));
}

#[tokio::test]
async fn lists_page_and_select() {
    let api = FakeApi::new();
    for n in 0..5 {
        let labels = json!({ "odd": (n % 2 == 1).to_string() });
        api.put(&paths::SERVICES, json!({ "metadata": { "name": format!("s{n}"), "labels": labels } }));
    }
    let client = api.client();
    let mut options = ListOptions { limit: 2, ..ListOptions::default() };
    let mut names = Vec::new();
    loop {
        let page: crate::List<Value> = client.list(&paths::SERVICES, None, &options).await.unwrap();
        names.extend(page.items.iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()));
        if page.metadata.continue_token.is_empty() {
            break;
        }
        options.continue_token = Some(page.metadata.continue_token);
    }
    assert_eq!(names, ["s0", "s1", "s2", "s3", "s4"]);
    let options = ListOptions { label_selector: Some("odd=true".into()), ..ListOptions::default() };
    let odd: crate::List<Value> = client.list(&paths::SERVICES, Some("default"), &options).await.unwrap();
    assert_eq!(odd.items.len(), 2);
    let none: crate::List<Value> = client.list(&paths::SERVICES, Some("other"), &options).await.unwrap();
    assert!(none.items.is_empty());
}

#[tokio::test]
async fn deletion_waits_for_finalizers_and_for_pods_on_a_node() {
    let api = FakeApi::new();
    let client = api.client();
    api.put(&paths::SERVICES, json!({ "metadata": { "name": "f", "finalizers": ["x"] } }));
    let (kind, ns) = (&paths::SERVICES, Some("default"));
    client.delete(kind, ns, "f", &DeleteOptions::default()).await.unwrap();
    assert!(api.get(kind, "default", "f").unwrap()["metadata"]["deletionTimestamp"].is_string());
    let patch = json!({ "metadata": { "finalizers": null } });
    client.patch::<Value>(kind, ns, "f", Subresource::None, Patch::Merge(&patch)).await.unwrap();
    assert!(api.get(kind, "default", "f").is_none());

    api.put(&paths::PODS, json!({ "metadata": { "name": "p" }, "spec": { "nodeName": "n" } }));
    client.delete(&paths::PODS, ns, "p", &DeleteOptions::default()).await.unwrap();
    assert_eq!(api.get(&paths::PODS, "default", "p").unwrap()["metadata"]["deletionGracePeriodSeconds"], 30);
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    client.delete(&paths::PODS, ns, "p", &now).await.unwrap();
    assert!(api.get(&paths::PODS, "default", "p").is_none());
}

#[tokio::test]
async fn failures_come_when_asked_for() {
    let api = FakeApi::new();
    api.fail_next(1, 503, "ServiceUnavailable");
    let client = api.client();
    let error = client.get::<Value>(&paths::NODES, None, "n").await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("ServiceUnavailable"));
    assert!(client.get::<Value>(&paths::NODES, None, "n").await.unwrap_err().is_not_found());
}

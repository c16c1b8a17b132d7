//! Watches.

use serde_json::json;

use crate::common::{CONFIG_MAPS, PATIENCE, SERVICES, Server, config_map, service, text};

#[tokio::test]
async fn a_watch_shows_the_present_and_then_each_change() {
    let server = Server::start().await;
    server.post(CONFIG_MAPS, &config_map("a", &json!({}))).await.ok();
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    assert_eq!(watch.word().await, "ADDED a");
    server.post(CONFIG_MAPS, &config_map("b", &json!({}))).await.ok();
    let changed =
        server.patch(&format!("{CONFIG_MAPS}/a"), "merge", &json!({ "data": { "x": "y" } })).await.ok();
    server.delete(&format!("{CONFIG_MAPS}/b")).await.ok();
    assert_eq!(watch.word().await, "ADDED b");
    let event = watch.next().await.unwrap();
    assert_eq!((text(&event["type"]), &event["object"]), ("MODIFIED".into(), &changed));
    let event = watch.next().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["data"]["a"], "b");
    let at = |value: &serde_json::Value| text(&value["metadata"]["resourceVersion"]).parse::<u64>().unwrap();
    assert!(at(&event["object"]) > at(&changed));
}

#[tokio::test]
async fn a_watch_resumes_where_another_stopped() {
    let server = Server::start().await;
    let a = server.post(CONFIG_MAPS, &config_map("a", &json!({}))).await.ok();
    server.post(CONFIG_MAPS, &config_map("b", &json!({}))).await.ok();
    server.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    let version = text(&a["metadata"]["resourceVersion"]);
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={version}")).await;
    assert_eq!(watch.word().await, "ADDED b");
    assert_eq!(watch.word().await, "DELETED a");
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let server = Server::start().await;
    server.post(CONFIG_MAPS, &config_map("a", &json!({ "app": "web" }))).await.ok();
    server.post(CONFIG_MAPS, &config_map("b", &json!({ "app": "db" }))).await.ok();
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=true&labelSelector=app%3Dweb")).await;
    assert_eq!(watch.word().await, "ADDED a");
    let label = |app: &str| json!({ "metadata": { "labels": { "app": app } } });
    server.patch(&format!("{CONFIG_MAPS}/b"), "merge", &label("web")).await.ok();
    let left = server.patch(&format!("{CONFIG_MAPS}/a"), "merge", &label("db")).await.ok();
    server.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    server.delete(&format!("{CONFIG_MAPS}/b")).await.ok();
    assert_eq!(watch.word().await, "ADDED b");
    let event = watch.next().await.unwrap();
    assert_eq!(
        (text(&event["type"]), text(&event["object"]["metadata"]["name"])),
        ("DELETED".into(), "a".into())
    );
    assert_eq!(event["object"]["metadata"]["labels"]["app"], "web");
    assert_eq!(event["object"]["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"]);
    assert_eq!(watch.word().await, "DELETED b");
}

#[tokio::test]
async fn one_object_can_be_watched_by_name() {
    let server = Server::start().await;
    for name in ["a", "ab", "b"] {
        server.post(CONFIG_MAPS, &config_map(name, &json!({}))).await.ok();
    }
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=true&fieldSelector=metadata.name%3Da")).await;
    assert_eq!(watch.word().await, "ADDED a");
    server.delete(&format!("{CONFIG_MAPS}/ab")).await.ok();
    server.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    assert_eq!(watch.word().await, "DELETED a");
    let mut old = server.watch("/api/v1/watch/namespaces/default/configmaps/b").await;
    assert_eq!(old.word().await, "ADDED b");
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let server = Server::start().await;
    server.post(CONFIG_MAPS, &config_map("a", &json!({}))).await.ok();
    let query =
        "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(watch.word().await, "ADDED a");
    let mark = watch.next().await.unwrap();
    assert_eq!((text(&mark["type"]), text(&mark["object"]["kind"])), ("BOOKMARK".into(), "ConfigMap".into()));
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let version = text(&mark["object"]["metadata"]["resourceVersion"]);
    let list = server.get(CONFIG_MAPS).await.ok();
    assert_eq!(list["metadata"]["resourceVersion"], version.as_str());
    let query = "watch=true&sendInitialEvents=false&resourceVersionMatch=NotOlderThan";
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    server.post(CONFIG_MAPS, &config_map("b", &json!({}))).await.ok();
    assert_eq!(watch.word().await, "ADDED b");
}

#[tokio::test]
async fn a_watch_ends_in_time_with_a_bookmark_before() {
    let server = Server::start().await;
    let version = text(&server.get(CONFIG_MAPS).await.ok()["metadata"]["resourceVersion"]);
    tokio::time::pause();
    let query = format!("watch=true&timeoutSeconds=10&allowWatchBookmarks=true&resourceVersion={version}");
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    let mark = watch.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn a_table_watch_sends_its_columns_once() {
    let server = Server::start().await;
    server.post(SERVICES, &service("web")).await.ok();
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let mut watch = server.watch_with(&format!("{SERVICES}?watch=true"), &accept).await;
    let (one, two) = (watch.next().await.unwrap(), watch.next().await.unwrap());
    assert_eq!(one["object"]["kind"], "Table");
    assert!(one["object"]["columnDefinitions"].is_array());
    assert!(two["object"]["columnDefinitions"].is_null(), "{two}");
    assert_eq!(two["object"]["rows"][0]["cells"][0], "web");
}

#[tokio::test]
async fn trouble_is_told_in_the_stream() {
    let server = Server::start().await;
    tokio::time::pause();
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion=999999")).await;
    let event = watch.next().await.unwrap();
    assert_eq!((text(&event["type"]), &event["object"]["code"]), ("ERROR".into(), &json!(504)));
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn watches_end_when_the_server_stops() {
    let server = Server::start().await;
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    server.api.stop();
    assert_eq!(tokio::time::timeout(PATIENCE, watch.next()).await.expect("an end in time"), None);
}

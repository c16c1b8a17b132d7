//! Lists: selectors, pages, versions, tables.

use std::collections::BTreeSet;

use flate2::read::GzDecoder;
use http::Method;
use serde_json::{Value, json};

use crate::common::{CONFIG_MAPS, Reply, SERVICES, Server, config_map, service, text};

fn names(reply: &Reply) -> Vec<String> {
    reply.ok()["items"].as_array().unwrap().iter().map(|item| text(&item["metadata"]["name"])).collect()
}

async fn many(server: &Server, count: usize) {
    for index in 0..count {
        let labels = json!({ "parity": if index % 2 == 0 { "even" } else { "odd" } });
        server.post(CONFIG_MAPS, &config_map(&format!("m{index:03}"), &labels)).await.ok();
    }
}

#[tokio::test]
async fn selectors_choose() {
    let server = Server::start().await;
    many(&server, 6).await;
    let list = |query: &'static str| {
        let server = &server;
        async move { names(&server.get(&format!("{CONFIG_MAPS}?{query}")).await) }
    };
    assert_eq!(list("labelSelector=parity%3Deven").await, ["m000", "m002", "m004"]);
    assert_eq!(list("labelSelector=parity%20notin%20(even)").await, ["m001", "m003", "m005"]);
    assert_eq!(list("fieldSelector=metadata.name%3Dm003").await, ["m003"]);
    assert_eq!(list("fieldSelector=metadata.name!%3Dm003,metadata.namespace%3Ddefault").await.len(), 5);
    assert_eq!(list("fieldSelector=metadata.name%3Dm00").await.len(), 0);
    let everywhere = server.get("/api/v1/configmaps?fieldSelector=metadata.name%3Dm003").await;
    assert_eq!(names(&everywhere), ["m003"]);
    server.post(SERVICES, &service("web")).await.ok();
    let by_type =
        server.get("/api/v1/services?fieldSelector=spec.type%3DClusterIP,metadata.name%3Dweb").await;
    assert_eq!(names(&by_type), ["web"]);
    let (code, _, message) = server.get(&format!("{CONFIG_MAPS}?fieldSelector=data.a%3Db")).await.refusal();
    assert_eq!(code, 400, "{message}");
    assert!(message.contains("\"data.a\" is not a known field selector"), "{message}");
    assert_eq!(server.get(&format!("{CONFIG_MAPS}?labelSelector=a%3D%3D%3Db")).await.refusal().0, 400);
}

#[tokio::test]
async fn pages_show_one_state_whatever_happens_meanwhile() {
    let server = Server::start().await;
    many(&server, 10).await;
    let first = server.get(&format!("{CONFIG_MAPS}?limit=4")).await;
    let meta = first.ok()["metadata"].clone();
    assert_eq!(meta["remainingItemCount"], 6);
    server.delete(&format!("{CONFIG_MAPS}/m005")).await.ok();
    server.post(CONFIG_MAPS, &config_map("m0045", &json!({}))).await.ok();
    let (mut seen, mut token) = (names(&first), text(&meta["continue"]));
    while !token.is_empty() {
        let page = server.get(&format!("{CONFIG_MAPS}?limit=4&continue={token}")).await;
        assert_eq!(page.ok()["metadata"]["resourceVersion"], meta["resourceVersion"]);
        seen.extend(names(&page));
        token = text(&page.json()["metadata"]["continue"]);
    }
    let wanted: Vec<String> = (0..10).map(|i| format!("m{i:03}")).collect();
    assert_eq!(seen, wanted);
}

#[tokio::test]
async fn pages_with_a_selector_are_full() {
    let server = Server::start().await;
    many(&server, 9).await;
    let path = format!("{CONFIG_MAPS}?labelSelector=parity%3Deven&limit=2");
    let (mut seen, mut token, mut pages) = (BTreeSet::new(), String::new(), 0);
    loop {
        let page = server.get(&format!("{path}&continue={token}")).await;
        assert_eq!(page.ok()["metadata"].get("remainingItemCount"), None);
        seen.extend(names(&page));
        token = text(&page.json()["metadata"]["continue"]);
        pages += 1;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((seen.len(), pages), (5, 3));
}

#[tokio::test]
async fn versions_of_the_past_and_future() {
    let server = Server::start().await;
    many(&server, 2).await;
    let then = text(&server.get(CONFIG_MAPS).await.ok()["metadata"]["resourceVersion"]);
    server.delete(&format!("{CONFIG_MAPS}/m000")).await.ok();
    let exact = format!("{CONFIG_MAPS}?resourceVersion={then}&resourceVersionMatch=Exact");
    assert_eq!(names(&server.get(&exact).await), ["m000", "m001"]);
    let newer = format!("{CONFIG_MAPS}?resourceVersion={then}&resourceVersionMatch=NotOlderThan");
    assert_eq!(names(&server.get(&newer).await), ["m001"]);
    tokio::time::pause();
    let (code, reason, message) =
        server.get(&format!("{CONFIG_MAPS}?resourceVersion=999999")).await.refusal();
    assert_eq!((code, reason.as_str()), (504, "Timeout"));
    assert!(message.starts_with("Timeout: Too large resource version: 999999, current: "), "{message}");
    let (code, _, message) = server.get(&format!("{CONFIG_MAPS}?resourceVersion=x")).await.refusal();
    assert_eq!(code, 400);
    assert!(message.starts_with("invalid resource version: "), "{message}");
    let token = server.get(&format!("{CONFIG_MAPS}?continue=x")).await.refusal();
    assert_eq!((token.0, token.2.as_str()), (400, "invalid continue token: continue key is not valid"));
}

#[tokio::test]
async fn tables_and_metadata() {
    let server = Server::start().await;
    server.post(SERVICES, &service("web")).await.ok();
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let got = server.send(Method::GET, SERVICES, &table, "").await.ok();
    assert_eq!(got["kind"], "Table");
    let columns: Vec<String> =
        got["columnDefinitions"].as_array().unwrap().iter().map(|c| text(&c["name"])).collect();
    assert_eq!(columns, ["Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "Selector"]);
    assert_eq!(got["rows"][1]["cells"][0], "web");
    assert_eq!(got["rows"][1]["object"]["kind"], "PartialObjectMetadata");
    let one = server.send(Method::GET, &format!("{SERVICES}/web"), &table, "").await.ok();
    assert_eq!(one["rows"].as_array().unwrap().len(), 1);
    let beta = [("accept", "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json")];
    assert_eq!(server.send(Method::GET, SERVICES, &beta, "").await.ok()["apiVersion"], "meta.k8s.io/v1beta1");
    let partial = [("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")];
    let got = server.send(Method::GET, SERVICES, &partial, "").await.ok();
    assert_eq!(got["kind"], "PartialObjectMetadataList");
    assert_eq!(got["items"][1].get("spec"), None);
    let partial = [("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")];
    let got = server.send(Method::GET, &format!("{SERVICES}/web"), &partial, "").await.ok();
    assert_eq!(
        (text(&got["kind"]), text(&got["metadata"]["name"])),
        ("PartialObjectMetadata".into(), "web".into())
    );
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_ask() {
    let server = Server::start().await;
    let big = json!({ "metadata": { "name": "big" }, "data": { "text": "abcdefgh".repeat(40_000) } });
    server.post(CONFIG_MAPS, &big).await.ok();
    let zipped = server.send(Method::GET, CONFIG_MAPS, &[("accept-encoding", "gzip")], "").await;
    assert_eq!(zipped.headers["content-encoding"], "gzip");
    let list: Value = serde_json::from_reader(GzDecoder::new(&zipped.body[..])).unwrap();
    let plain = server.get(CONFIG_MAPS).await;
    assert!(!plain.headers.contains_key("content-encoding") && plain.body.len() > 10 * zipped.body.len());
    assert_eq!(list, plain.json());
}

//! Events in both groups: the same objects.

use serde_json::json;

use crate::common::{Server, text};

const CORE: &str = "/api/v1/namespaces/default/events";
const NEW: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

#[tokio::test]
async fn both_groups_show_and_change_the_same_events() {
    let server = Server::start().await;
    let mut watch = server.watch(&format!("{NEW}?watch=1&fieldSelector=regarding.name%3Dweb")).await;
    let made = server
        .post(
            CORE,
            &json!({
                "metadata": {"name": "web.1"}, "reason": "Started", "message": "it started", "type": "Normal",
                "involvedObject": {"kind": "Pod", "namespace": "default", "name": "web"}, "count": 3,
                "source": {"component": "agent"}, "firstTimestamp": "2026-01-02T03:04:05Z",
            }),
        )
        .await
        .ok();
    let seen = server.get(&format!("{NEW}/web.1")).await.ok();
    assert_eq!(text(&seen["apiVersion"]), "events.k8s.io/v1");
    assert_eq!(seen["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    assert_eq!(seen["regarding"], made["involvedObject"]);
    assert_eq!((text(&seen["note"]), seen["deprecatedCount"].as_i64()), ("it started".into(), Some(3)));
    assert!(seen.get("message").is_none() && seen.get("count").is_none(), "{seen}");
    let event = watch.next().await.unwrap();
    assert_eq!((text(&event["type"]), &event["object"]), ("ADDED".into(), &seen));
    let none = server.get(&format!("{NEW}?fieldSelector=regarding.name%3Ddb")).await.ok();
    assert_eq!(none["items"].as_array().map(Vec::len), Some(0));

    let patched = server.patch(&format!("{NEW}/web.1"), "merge", &json!({"note": "changed"})).await.ok();
    assert_eq!(text(&patched["note"]), "changed");
    assert_eq!(text(&watch.next().await.unwrap()["object"]["note"]), "changed");
    let core = server.get(&format!("{CORE}/web.1")).await.ok();
    assert_eq!((text(&core["message"]), text(&core["apiVersion"])), ("changed".into(), "v1".into()));
    assert!(core.get("note").is_none(), "{core}");
    server.delete(&format!("{NEW}/web.1")).await.ok();
    assert_eq!(server.get(&format!("{CORE}/web.1")).await.code, 404);
    assert_eq!(text(&watch.next().await.unwrap()["type"]), "DELETED");
}

#[tokio::test]
async fn the_newer_group_is_stricter() {
    let server = Server::start().await;
    let bad = json!({
        "metadata": {"name": "bad.1"}, "eventTime": null, "deprecatedCount": 2,
        "regarding": {"kind": "Pod", "namespace": "default", "name": "web"},
    });
    let (code, reason, message) = server.post(NEW, &bad).await.refusal();
    assert_eq!((code, reason.as_str()), (422, "Invalid"));
    for part in ["eventTime: Required value", "reportingController: Required value", "count: Invalid value"] {
        assert!(message.contains(part), "{message}");
    }
    let good = json!({
        "metadata": {"name": "good.1"}, "eventTime": "2026-01-02T03:04:05.000006Z", "type": "Normal", "action": "Act",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "web"}, "reason": "R", "note": "n",
        "reportingController": "example.com/test", "reportingInstance": "me",
    });
    server.post(NEW, &good).await.ok();
    let core = server.get(&format!("{CORE}/good.1")).await.ok();
    assert_eq!(
        (text(&core["reportingComponent"]), text(&core["message"])),
        ("example.com/test".into(), "n".into())
    );
}

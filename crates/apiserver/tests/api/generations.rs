//! `metadata.generation`: who counts what, and who counts nothing.

use serde_json::{Value, json};

use crate::common::{PODS, Server, service};

/// Merges `patch` into the object at `path`; the generation afterwards.
async fn after(server: &Server, path: &str, patch: Value) -> Option<i64> {
    server.patch(path, "merge", &patch).await.ok()["metadata"]["generation"].as_i64()
}

#[tokio::test]
async fn kinds_without_a_count_never_change_it() {
    let server = Server::start().await;
    let names = json!({ "name": "x" });
    let address = json!({ "metadata": { "name": "192.0.2.7" }, "spec": { "parentRef":
        { "resource": "services", "namespace": "default", "name": "x" } } });
    let cases = [
        (
            "/api/v1/namespaces/default/services",
            service("x"),
            json!({ "spec": { "sessionAffinity": "ClientIP" } }),
        ),
        (
            "/api/v1/namespaces/default/endpoints",
            json!({ "metadata": names }),
            json!({ "subsets": [{ "addresses": [{ "ip": "10.0.0.1" }] }] }),
        ),
        ("/api/v1/nodes", json!({ "metadata": names }), json!({ "spec": { "unschedulable": true } })),
        (
            "/api/v1/namespaces",
            json!({ "metadata": names }),
            json!({ "metadata": { "labels": { "a": "b" } } }),
        ),
        (
            "/apis/networking.k8s.io/v1/servicecidrs",
            json!({ "metadata": names, "spec": { "cidrs": ["192.168.0.0/24"] } }),
            json!({ "spec": { "cidrs": ["192.168.0.0/24", "fd00:1::/112"] } }),
        ),
        (
            "/apis/networking.k8s.io/v1/ipaddresses",
            address,
            json!({ "metadata": { "labels": { "a": "b" } } }),
        ),
    ];
    for (list, mut object, patch) in cases {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let path = format!("{list}/{name}");
        let made = server.post(list, &object).await.ok();
        assert_eq!(made["metadata"].get("generation"), None, "{path}");
        assert_eq!(after(&server, &path, patch.clone()).await, None, "{path}");
        let said = json!({ "metadata": { "generation": 5 } });
        assert_eq!(after(&server, &path, said).await, None, "{path}: a client may not begin to count");

        // What a client says at first is kept, and then stays.
        if list.ends_with("/services") || list.ends_with("/endpoints") {
            server.delete(&path).await.ok();
            object["metadata"]["generation"] = 7.into();
            assert_eq!(server.post(list, &object).await.ok()["metadata"]["generation"], 7, "{path}");
            let mut said = patch;
            said["metadata"] = json!({ "generation": 9 });
            assert_eq!(after(&server, &path, said).await, Some(7), "{path}");
        }
    }
    let mut negative = service("y");
    negative["metadata"]["generation"] = (-1).into();
    let (code, _, message) = server.post("/api/v1/namespaces/default/services", &negative).await.refusal();
    assert_eq!(code, 422);
    assert_eq!(
        message,
        "Service \"y\" is invalid: metadata.generation: Invalid value: -1: must be greater than or equal to 0"
    );
}

#[tokio::test]
async fn slices_deployments_and_pods_count_what_is_wanted_of_them() {
    let server = Server::start().await;
    let template = json!({ "metadata": { "labels": { "a": "b" } },
        "spec": { "containers": [{ "name": "c", "image": "i:1" }] } });
    let pod = json!({ "metadata": { "name": "x", "generation": 6 }, "spec": template["spec"] });
    let cases = [
        (
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
            json!({ "metadata": { "name": "x", "generation": 6 }, "addressType": "IPv4", "endpoints": [], "ports": [] }),
            vec![
                (json!({ "metadata": { "annotations": { "a": "b" } } }), 1),
                (json!({ "metadata": { "generation": 9 } }), 1),
                (json!({ "metadata": { "labels": { "a": "b" } } }), 2),
                (json!({ "endpoints": [{ "addresses": ["10.0.0.1"] }] }), 3),
                (json!({ "ports": [{ "port": 80 }] }), 4),
                (json!({ "ports": [{ "port": 80 }] }), 4),
            ],
        ),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            json!({ "metadata": { "name": "x", "generation": 6 },
                    "spec": { "selector": { "matchLabels": { "a": "b" } }, "template": template } }),
            vec![
                (json!({ "metadata": { "labels": { "a": "b" } } }), 1),
                (json!({ "metadata": { "annotations": { "a": "b" } } }), 2),
                (json!({ "spec": { "replicas": 2 } }), 3),
                (json!({ "spec": { "replicas": 2 } }), 3),
            ],
        ),
        (
            PODS,
            pod,
            vec![
                (json!({ "metadata": { "labels": { "a": "b" }, "annotations": { "a": "b" } } }), 1),
                (json!({ "spec": { "containers": [{ "name": "c", "image": "i:2" }] } }), 2),
                (json!({ "spec": { "activeDeadlineSeconds": 60 } }), 3),
            ],
        ),
    ];
    for (list, object, changes) in cases {
        assert_eq!(server.post(list, &object).await.ok()["metadata"]["generation"], 1, "{list}");
        for (patch, wanted) in changes {
            let path = format!("{list}/x");
            // A merge patch replaces lists: what a container got by default would seem to be taken away.
            let kind = if list == PODS { "strategic" } else { "merge" };
            let changed = server.patch(&path, kind, &patch).await.ok();
            assert_eq!(changed["metadata"]["generation"], wanted, "{path} {patch}");
        }
    }
}

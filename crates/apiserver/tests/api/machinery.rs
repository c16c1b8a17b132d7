//! What holds for every kind: how new an answer is, pages, options and their refusals, names, deletion. The order is that of
//! the API's own documentation: reading, paging, watching, writing, deleting.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use portolan_store::Store as _;
use serde_json::{Value, json};

use crate::common::{CONFIG_MAPS, Reply, SERVICES, Server, config_map, service, text};

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn version(object: &Value) -> String {
    text(&object["metadata"]["resourceVersion"])
}

fn names(reply: &Reply) -> Vec<String> {
    reply.ok()["items"].as_array().unwrap().iter().map(|item| text(&item["metadata"]["name"])).collect()
}

/// A refusal of options: 422, its reason, the kind of options and what is wrong with them.
#[track_caller]
fn assert_options(reply: &Reply, kind: &str, why: &str) {
    let want = format!("{kind}.meta.k8s.io \"\" is invalid: {why}");
    assert_eq!(reply.refusal(), (422, "Invalid".into(), want));
    assert_eq!(reply.json()["details"]["group"], "meta.k8s.io");
}

async fn maps(server: &Server, names: &[&str]) {
    for name in names {
        server.post(CONFIG_MAPS, &config_map(name, &json!({ "app": "web" }))).await.ok();
    }
}

#[tokio::test]
async fn an_object_is_read_as_new_as_it_is_asked_for() {
    let server = Server::start().await;
    let first = server.post(CONFIG_MAPS, &config_map("a", &json!({}))).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let second = server.patch(&path, "merge", &json!({ "data": { "a": "c" } })).await.ok();
    for asked in ["", "0", &version(&first), &version(&second)] {
        assert_eq!(server.get(&format!("{path}?resourceVersion={asked}")).await.ok(), second, "{asked:?}");
    }
    let (code, _, message) = server.get(&format!("{path}?resourceVersion=x")).await.refusal();
    let want = "invalid resource version: resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax";
    assert_eq!((code, message.as_str()), (400, want));
}

#[tokio::test]
async fn a_version_of_the_future_is_waited_for_and_then_refused() {
    let server = Server::start().await;
    maps(&server, &["a"]).await;
    let current = version(&server.get(CONFIG_MAPS).await.ok());
    tokio::time::pause();
    for path in [format!("{CONFIG_MAPS}/a?"), format!("{CONFIG_MAPS}?"), format!("{CONFIG_MAPS}?limit=5&")] {
        let begun = tokio::time::Instant::now();
        let reply = server.get(&format!("{path}resourceVersion=999999")).await;
        assert_eq!(begun.elapsed().as_secs(), 3, "{path}");
        let message = format!("Timeout: Too large resource version: 999999, current: {current}");
        assert_eq!(reply.refusal(), (504, "Timeout".into(), message));
        let details = &reply.json()["details"];
        assert_eq!(details["retryAfterSeconds"], 1);
        let cause = json!({ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" });
        assert_eq!(details["causes"], json!([cause]));
        assert_eq!(reply.headers["retry-after"], "1");
    }
}

#[tokio::test]
async fn a_version_means_at_least_or_exactly_by_what_is_beside_it() {
    let server = Server::start().await;
    maps(&server, &["a", "b"]).await;
    let then = version(&server.get(CONFIG_MAPS).await.ok());
    server.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    let now = version(&server.get(CONFIG_MAPS).await.ok());
    for (query, want, at) in [
        (String::new(), vec!["b"], &now),
        ("?resourceVersion=0".into(), vec!["b"], &now),
        ("?resourceVersion=0&limit=1".into(), vec!["b"], &now),
        (format!("?resourceVersion={then}"), vec!["b"], &now),
        (format!("?resourceVersion={then}&limit=5"), vec!["a", "b"], &then),
        (format!("?resourceVersion={then}&resourceVersionMatch=Exact"), vec!["a", "b"], &then),
        (format!("?resourceVersion={then}&resourceVersionMatch=NotOlderThan&limit=5"), vec!["b"], &now),
        ("?resourceVersion=0&resourceVersionMatch=NotOlderThan".into(), vec!["b"], &now),
    ] {
        let list = server.get(&format!("{CONFIG_MAPS}{query}")).await;
        assert_eq!(
            (names(&list), &version(&list.json())),
            (want.into_iter().map(str::to_owned).collect(), at),
            "{query}"
        );
    }
    let empty = server.get(&format!("{CONFIG_MAPS}?labelSelector=none")).await.ok();
    assert_eq!((&empty["items"], version(&empty)), (&json!([]), now));
}

#[tokio::test]
async fn options_of_lists_that_contradict_each_other() {
    let server = Server::start().await;
    maps(&server, &["a", "b"]).await;
    let token = text(&server.get(&format!("{CONFIG_MAPS}?limit=1")).await.ok()["metadata"]["continue"]);
    let word = "resourceVersionMatch: Forbidden: resourceVersionMatch";
    for (query, why) in [
        (
            "resourceVersionMatch=Exact".into(),
            format!("{word} is forbidden unless resourceVersion is provided"),
        ),
        (
            format!("resourceVersionMatch=Exact&resourceVersion=1&continue={token}"),
            format!("{word} is forbidden when continue is provided"),
        ),
        (
            "resourceVersionMatch=Exact&resourceVersion=0".into(),
            format!("{word} \"exact\" is forbidden for resourceVersion \"0\""),
        ),
        (
            "sendInitialEvents=true".into(),
            "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list".to_owned(),
        ),
    ] {
        let query: String = query;
        assert_options(&server.get(&format!("{CONFIG_MAPS}?{query}")).await, "ListOptions", &why);
    }
    let path = format!("{CONFIG_MAPS}?continue={token}");
    let (code, reason, message) = server.get(&format!("{path}&resourceVersion=5")).await.refusal();
    assert_eq!((code, &*reason), (400, "BadRequest"));
    assert_eq!(message, "specifying resource version is not allowed when using continue");
    assert_eq!(names(&server.get(&format!("{path}&resourceVersion=0")).await), ["b"]);
}

#[tokio::test]
async fn a_token_says_where_a_list_goes_on() {
    let server = Server::start().await;
    maps(&server, &["a", "b", "c"]).await;
    let first = server.get(&format!("{CONFIG_MAPS}?limit=2")).await.ok();
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    let token = text(&first["metadata"]["continue"]);
    let plain = String::from_utf8(URL_SAFE_NO_PAD.decode(&token).unwrap()).unwrap();
    let at = version(&first);
    assert_eq!(plain, format!(r#"{{"v":"meta.k8s.io/v1","rv":{at},"start":"b\u0000"}}"#));
    server.post(CONFIG_MAPS, &config_map("d", &json!({}))).await.ok();
    let last = server.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await;
    assert_eq!((names(&last), version(&last.json())), (vec!["c".to_owned()], at));
    let metadata = &last.json()["metadata"];
    assert!(metadata.get("remainingItemCount").is_none() && metadata.get("continue").is_none(), "{metadata}");
    // Over all namespaces it names the namespace.
    let all = server.get("/api/v1/configmaps?limit=1&fieldSelector=metadata.namespace%3Ddefault").await.ok();
    assert_eq!(all["metadata"].get("remainingItemCount"), None);
    let plain = URL_SAFE_NO_PAD.decode(text(&all["metadata"]["continue"])).unwrap();
    assert!(String::from_utf8(plain).unwrap().contains(r#""start":"default/a\u0000""#));

    let going = |v: &str, rv: i64, start: &str| {
        let token = json!({ "v": v, "rv": rv, "start": start }).to_string();
        format!("{CONFIG_MAPS}?limit=9&continue={}", URL_SAFE_NO_PAD.encode(token))
    };
    // Minus one is the newest.
    assert_eq!(names(&server.get(&going("meta.k8s.io/v1", -1, "b\0")).await), ["c", "d"]);
    let bad = "invalid continue token: continue key is not valid";
    for (path, message) in [
        (format!("{CONFIG_MAPS}?continue=%21"), bad.to_owned()),
        (
            going("meta.k8s.io/v1", 0, "b"),
            format!("{bad}: incorrect encoded start resourceVersion (version meta.k8s.io/v1)"),
        ),
        (going("meta.k8s.io/v1", 1, ""), format!("{bad}: encoded start key empty (version meta.k8s.io/v1)")),
        (going("v9", 1, "b"), format!("{bad}: server does not recognize this encoded version v9")),
        (going("meta.k8s.io/v1", 1, "../secrets/x"), bad.to_owned()),
    ] {
        assert_eq!(server.get(&path).await.refusal(), (400, "BadRequest".into(), message), "{path}");
    }
}

#[tokio::test]
async fn what_is_forgotten_is_410_and_paging_can_go_on() {
    let (server, store) = Server::start_with_store().await;
    maps(&server, &["a", "b", "c"]).await;
    let first = server.get(&format!("{CONFIG_MAPS}?limit=1")).await.ok();
    let (then, token) = (version(&first), text(&first["metadata"]["continue"]));
    server.delete(&format!("{CONFIG_MAPS}/b")).await.ok();
    store.compact(store.revision().await.unwrap()).await.unwrap();
    let exact = format!("{CONFIG_MAPS}?resourceVersion={then}&resourceVersionMatch=Exact");
    let message = "The resourceVersion for the provided list is too old.";
    assert_eq!(server.get(&exact).await.refusal(), (410, "Expired".into(), message.into()));
    let page = server.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await;
    let (code, reason, message) = page.refusal();
    assert_eq!((code, &*reason), (410, "Expired"));
    let beginning = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list";
    assert!(message.starts_with(beginning), "{message}");
    let token = text(&page.json()["metadata"]["continue"]);
    assert_eq!(names(&server.get(&format!("{CONFIG_MAPS}?limit=9&continue={token}")).await), ["c"]);
    // A watch says so in its stream, and ends.
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={then}")).await;
    let event = watch.next().await.unwrap();
    let (status, kind) = (&event["object"], text(&event["type"]));
    assert_eq!(
        (kind.as_str(), &status["code"], &status["reason"]),
        ("ERROR", &json!(410), &json!("Expired"))
    );
    let message = text(&status["message"]);
    assert!(message.starts_with(&format!("too old resource version: {then} (")), "{message}");
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn a_watch_begins_as_its_options_say() {
    let server = Server::start().await;
    maps(&server, &["a"]).await;
    let at = version(&server.get(CONFIG_MAPS).await.ok());
    let word = "resourceVersionMatch: Forbidden:";
    for (query, why) in [
        (
            "sendInitialEvents=true",
            format!("{word} sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
        ),
        (
            "resourceVersionMatch=NotOlderThan&resourceVersion=1",
            format!(
                "{word} resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            ),
        ),
    ] {
        assert_options(&server.get(&format!("{CONFIG_MAPS}?watch=true&{query}")).await, "ListOptions", &why);
    }
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let mut marked =
        server.watch(&format!("{CONFIG_MAPS}?{query}&allowWatchBookmarks=true&resourceVersion={at}")).await;
    assert_eq!(marked.word().await, "ADDED a");
    let bookmark = json!({ "type": "BOOKMARK", "object": {
        "kind": "ConfigMap", "apiVersion": "v1", "metadata": {
            "resourceVersion": at, "creationTimestamp": null, "annotations": { "k8s.io/initial-events-end": "true" },
        },
    } });
    assert_eq!(marked.next().await.unwrap(), bookmark);
    // Who did not ask for bookmarks gets none; and "0" begins with what is there, as nothing does.
    let mut unmarked = server.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    let mut any = server.watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion=0")).await;
    let mut now = server
        .watch(&format!("{CONFIG_MAPS}?watch=true&sendInitialEvents=false&resourceVersionMatch=NotOlderThan&resourceVersion=0"))
        .await;
    maps(&server, &["b"]).await;
    for watch in [&mut unmarked, &mut any] {
        assert_eq!((watch.word().await, watch.word().await), ("ADDED a".into(), "ADDED b".into()));
    }
    assert_eq!(now.word().await, "ADDED b");
}

#[tokio::test]
async fn bookmarks_come_every_minute_and_before_the_end() {
    let server = Server::start().await;
    let at = version(&server.get(CONFIG_MAPS).await.ok());
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let query = format!("watch=true&timeoutSeconds=100&allowWatchBookmarks=true&resourceVersion={at}");
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    for seconds in [60, 98] {
        let event = watch.next_within(Duration::from_secs(200)).await.unwrap();
        assert_eq!((text(&event["type"]).as_str(), begun.elapsed().as_secs()), ("BOOKMARK", seconds));
        assert_eq!(event["object"]["metadata"].get("annotations"), None);
    }
    assert_eq!(watch.next_within(Duration::from_secs(200)).await, None);
    assert!(begun.elapsed() < Duration::from_secs(101));
}

#[tokio::test]
async fn a_dry_run_is_all_or_an_error() {
    let server = Server::start().await;
    maps(&server, &["a"]).await;
    let (path, map) = (format!("{CONFIG_MAPS}/a"), config_map("a", &json!({})));
    let why = "dryRun: Unsupported value: [\"x\"]: supported values: \"All\"";
    assert_options(&server.post(&format!("{CONFIG_MAPS}?dryRun=x"), &map).await, "CreateOptions", why);
    assert_options(&server.put(&format!("{path}?dryRun=x"), &map).await, "UpdateOptions", why);
    assert_options(
        &server.patch(&format!("{path}?dryRun=x"), "merge", &json!({})).await,
        "PatchOptions",
        why,
    );
    assert_options(&server.delete(&format!("{path}?dryRun=x")).await, "DeleteOptions", why);
    let body = json!({ "dryRun": ["x"] }).to_string();
    assert_options(&server.send(Method::DELETE, &path, &[], body).await, "DeleteOptions", why);
    // The whole way: what validation refuses is refused.
    let mut wrong = service("b");
    wrong["spec"]["type"] = "Balancer".into();
    assert_eq!(server.post(&format!("{SERVICES}?dryRun=All"), &wrong).await.refusal().0, 422);
    assert_eq!(server.post(&format!("{CONFIG_MAPS}?dryRun=All"), &map).await.refusal().1, "AlreadyExists");
    let body = json!({ "dryRun": ["All"] }).to_string();
    server.send(Method::DELETE, &path, &[], body).await.ok();
    assert_eq!(server.get(&path).await.code, 200);
}

#[tokio::test]
async fn who_writes_is_the_manager_that_is_named_or_the_program() {
    let server = Server::start().await;
    let made = |query: &'static str, agent: &'static str, name: &'static str| {
        let server = &server;
        async move {
            let headers = [("content-type", "application/json"), ("user-agent", agent)];
            let body = config_map(name, &json!({})).to_string();
            server.send(Method::POST, &format!("{CONFIG_MAPS}{query}"), &headers, body).await
        }
    };
    let manager = |reply: Reply| text(&reply.ok()["metadata"]["managedFields"][0]["manager"]);
    assert_eq!(manager(made("", "kubectl/v1.36 (linux/amd64)", "a").await), "kubectl");
    assert_eq!(manager(made("?fieldManager=me%20%C3%A4", "kubectl/v1.36", "b").await), "me \u{e4}");
    let long = format!("{CONFIG_MAPS}?fieldManager={}", "m".repeat(129));
    let why = "fieldManager: Too long: may not be more than 128 bytes";
    assert_options(&server.post(&long, &config_map("c", &json!({}))).await, "CreateOptions", why);
    let why = "fieldManager: Invalid value: \"a\\nb\": invalid character U+000A (at position 1)";
    assert_options(&made("?fieldManager=a%0Ab", "x", "c").await, "CreateOptions", why);
    let path = format!("{CONFIG_MAPS}/a");
    let config = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } });
    let why = "fieldManager: Required value: is required for apply patch";
    assert_options(&server.patch(&path, "apply", &config).await, "PatchOptions", why);
    let why = "force: Forbidden: may not be specified for non-apply patch";
    assert_options(
        &server.patch(&format!("{path}?force=true"), "merge", &json!({})).await,
        "PatchOptions",
        why,
    );
}

#[tokio::test]
async fn names_are_parts_of_paths_and_generated_ones_fit() {
    let server = Server::start().await;
    let role = |name: &str| json!({ "metadata": { "name": name }, "rules": [] });
    for (name, why) in [
        (".", "may not be '.'"),
        ("..", "may not be '..'"),
        ("a/b", "may not contain '/'"),
        ("a%b", "may not contain '%'"),
    ] {
        let (code, _, message) = server.post(ROLES, &role(name)).await.refusal();
        assert_eq!(code, 422);
        let want = format!(
            "Role.rbac.authorization.k8s.io \"{name}\" is invalid: metadata.name: Invalid value: \"{name}\": {why}"
        );
        assert_eq!(message, want);
    }
    server.post(ROLES, &role("system:a b")).await.ok();
    let object = json!({ "metadata": { "generateName": format!("{}-", "x".repeat(70)) } });
    let name = text(&server.post(CONFIG_MAPS, &object).await.ok()["metadata"]["name"]);
    let (base, tail) = name.split_at(58);
    assert_eq!((base, tail.len()), ("x".repeat(58).as_str(), 5));
    assert!(tail.chars().all(|c| "bcdfghjklmnpqrstvwxz2456789".contains(c)), "{name}");
}

#[tokio::test]
async fn a_write_that_changes_nothing_is_none() {
    let server = Server::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let config =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": { "k": "v" } });
    let made = server.patch(&format!("{path}?fieldManager=m"), "apply", &config).await.ok();
    // In another second, the time of the manager's entry alone would differ.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(server.patch(&format!("{path}?fieldManager=m"), "apply", &config).await.ok(), made);
    assert_eq!(server.patch(&path, "merge", &json!({ "data": { "k": "v" } })).await.ok(), made);
    assert_eq!(server.put(&path, &made).await.ok(), made);
    assert_eq!(server.get(&path).await.ok(), made);
}

#[tokio::test]
async fn options_of_deletions_are_in_the_body_or_the_query() {
    let server = Server::start().await;
    let held = |name: &str| {
        let mut map = config_map(name, &json!({}));
        map["metadata"]["finalizers"] = json!(["example.com/hold"]);
        map
    };
    server.post(CONFIG_MAPS, &held("a")).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let both = "propagationPolicy: Invalid value: \"Orphan\": orphanDependents and deletionPropagation cannot be both set";
    let body = json!({ "orphanDependents": true, "propagationPolicy": "Orphan" }).to_string();
    assert_options(&server.send(Method::DELETE, &path, &[], body).await, "DeleteOptions", both);
    let query = format!("{path}?orphanDependents=true&propagationPolicy=Orphan");
    assert_options(&server.delete(&query).await, "DeleteOptions", both);
    let why = "propagationPolicy: Unsupported value: \"None\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"";
    assert_options(&server.delete(&format!("{path}?propagationPolicy=None")).await, "DeleteOptions", why);
    // What stays for a while is 200, but for those who ask in the oldest way.
    for (name, query, code, finalizers) in [
        ("a", "", 200, json!(["example.com/hold"])),
        ("b", "?orphanDependents=false", 202, json!(["example.com/hold"])),
        ("c", "?orphanDependents=true", 200, json!(["example.com/hold", "orphan"])),
        ("d", "?propagationPolicy=Background", 200, json!(["example.com/hold"])),
        ("e", "?propagationPolicy=Foreground", 200, json!(["example.com/hold", "foregroundDeletion"])),
    ] {
        if name != "a" {
            server.post(CONFIG_MAPS, &held(name)).await.ok();
        }
        let reply = server.delete(&format!("{CONFIG_MAPS}/{name}{query}")).await;
        assert_eq!(reply.code, code, "{name}");
        let metadata = &reply.ok()["metadata"];
        assert_eq!(metadata["finalizers"], finalizers, "{name}");
        assert_eq!(metadata["deletionGracePeriodSeconds"], 0);
        assert_eq!(metadata.get("generation"), None);
    }
    let (code, _, message) = server
        .patch(&path, "merge", &json!({ "metadata": { "finalizers": ["example.com/hold", "x.y/z"] } }))
        .await
        .refusal();
    assert_eq!(code, 422);
    let want = "ConfigMap \"a\" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x.y/z\"}";
    assert_eq!(message, want);
    let mut torn = config_map("f", &json!({}));
    torn["metadata"]["finalizers"] = json!(["orphan", "foregroundDeletion"]);
    let (code, _, message) = server.post(CONFIG_MAPS, &torn).await.refusal();
    assert_eq!(code, 422);
    assert!(message.ends_with("finalizer orphan and foregroundDeletion cannot be both set"), "{message}");
}

#[tokio::test]
async fn a_deletion_counts_as_a_generation_where_there_are_any() {
    let server = Server::start().await;
    let deployment = json!({
        "metadata": { "name": "a", "finalizers": ["example.com/hold"] },
        "spec": {
            "selector": { "matchLabels": { "app": "a" } },
            "template": { "metadata": { "labels": { "app": "a" } }, "spec": { "containers": [{ "name": "c", "image": "i" }] } },
        },
    });
    assert_eq!(server.post(DEPLOYMENTS, &deployment).await.ok()["metadata"]["generation"], 1);
    let going = server.delete(&format!("{DEPLOYMENTS}/a")).await.ok();
    assert_eq!((text(&going["kind"]), &going["metadata"]["generation"]), ("Deployment".into(), &json!(2)));
    let again = server.delete(&format!("{DEPLOYMENTS}/a")).await.ok();
    assert_eq!(again["metadata"]["generation"], 2);
}

#[tokio::test]
async fn preconditions_name_what_was_asked_and_what_is() {
    let server = Server::start().await;
    let made = server.post(SERVICES, &service("x")).await.ok();
    let with = |preconditions: Value| json!({ "preconditions": preconditions }).to_string();
    let path = format!("{SERVICES}/x");
    let (uid, at) = (text(&made["metadata"]["uid"]), version(&made));
    for (preconditions, why) in [
        (
            json!({ "uid": "other" }),
            format!(
                "the UID in the precondition (other) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
            ),
        ),
        (
            json!({ "uid": uid, "resourceVersion": "1" }),
            format!(
                "the ResourceVersion in the precondition (1) does not match the ResourceVersion in record ({at}). The object might have been modified"
            ),
        ),
    ] {
        let reply = server.send(Method::DELETE, &path, &[], with(preconditions)).await;
        let message = format!("Operation cannot be fulfilled on Service \"x\": {why}");
        assert_eq!(reply.refusal(), (409, "Conflict".into(), message));
    }
    server.send(Method::DELETE, &path, &[], with(json!({ "uid": uid, "resourceVersion": at }))).await.ok();
}

#[tokio::test]
async fn the_answer_to_a_deletion_is_the_object_of_some_kinds_and_a_status_of_others() {
    let server = Server::start().await;
    let pod = json!({ "containers": [{ "name": "c", "image": "i" }] });
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let template = json!({ "metadata": { "labels": { "app": "a" } }, "spec": pod });
    let workload = json!({ "selector": { "matchLabels": { "app": "a" } }, "template": template });
    for (collection, more, kind, group) in [
        (SERVICES, json!({ "spec": { "ports": [{ "port": 80 }] } }), "Service", ""),
        (crate::common::PODS, json!({ "spec": pod }), "Pod", ""),
        ("/api/v1/namespaces/default/serviceaccounts", json!({}), "ServiceAccount", ""),
        ("/api/v1/namespaces/default/endpoints", json!({}), "", ""),
        ("/api/v1/namespaces/default/secrets", json!({}), "", ""),
        ("/api/v1/nodes", json!({}), "", ""),
        (slices, json!({ "addressType": "IPv4", "endpoints": [] }), "", "discovery.k8s.io"),
        (leases, json!({}), "", "coordination.k8s.io"),
        (DEPLOYMENTS, json!({ "spec": workload }), "", "apps"),
    ] {
        let mut object = more;
        object["metadata"] = json!({ "name": "some" });
        let made = server.post(collection, &object).await.ok();
        let answer = server.delete(&format!("{collection}/some")).await.ok();
        let plural = collection.rsplit('/').next().unwrap();
        if kind.is_empty() {
            let mut details = json!({ "name": "some", "kind": plural, "uid": made["metadata"]["uid"] });
            if !group.is_empty() {
                details["group"] = group.into();
            }
            let want = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details });
            assert_eq!(answer, want);
        } else {
            assert_eq!(
                (text(&answer["kind"]), &answer["metadata"]["uid"]),
                (kind.into(), &made["metadata"]["uid"])
            );
        }
        assert_eq!(server.delete(&format!("{collection}/some")).await.refusal().0, 404, "{collection}");
    }
}

#[tokio::test]
async fn services_go_as_a_collection_too() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        let mut object = service(name);
        object["metadata"]["labels"] = json!({ "app": name });
        server.post(SERVICES, &object).await.ok();
    }
    let gone = server.delete(&format!("{SERVICES}?labelSelector=app%20in%20(a,b)")).await;
    assert_eq!(
        (text(&gone.ok()["kind"]), names(&gone)),
        ("ServiceList".into(), vec!["a".into(), "b".into()])
    );
    assert_eq!(names(&server.get(SERVICES).await), ["c", "kubernetes"]);
}

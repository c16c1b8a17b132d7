//! Which families and addresses a Service gets, keeps and gives back.

use http::Method;
use serde_json::{Value, json};

use crate::common::{SERVICES, Server, reopen_dual_stack, service_with, text};
use crate::service_validation::difference;

const PATH: &str = "/api/v1/namespaces/default/services/x";
const POLICY: &str = "spec.ipFamilyPolicy: Invalid value:";

/// Policy and families, and the families of the addresses as they are.
fn families(service: &Value) -> (String, Vec<String>, Vec<String>) {
    let list = |field: &str| -> Vec<String> {
        service["spec"][field].as_array().into_iter().flatten().map(text).collect()
    };
    let of_address = |address: &String| match address.as_str() {
        "None" => "None".to_owned(),
        address if address.contains(':') => "IPv6".to_owned(),
        _ => "IPv4".to_owned(),
    };
    let addresses = list("clusterIPs");
    assert_eq!(addresses.first().map_or("", String::as_str), text(&service["spec"]["clusterIP"]));
    (text(&service["spec"]["ipFamilyPolicy"]), list("ipFamilies"), addresses.iter().map(of_address).collect())
}

async fn has_object(server: &Server, address: &Value) -> bool {
    server.get(&format!("/apis/networking.k8s.io/v1/ipaddresses/{}", text(address))).await.code == 200
}

#[tokio::test]
async fn a_new_service_gets_what_it_asks_for() {
    let two = Server::start_dual_stack().await;
    let single = Server::start().await;
    let cases = [
        (&two, json!({}), "SingleStack", vec!["IPv4"], vec!["IPv4"]),
        (&two, json!({ "ipFamilies": ["IPv6"] }), "SingleStack", vec!["IPv6"], vec!["IPv6"]),
        (&two, json!({ "clusterIP": "fd00:10:96::50" }), "SingleStack", vec!["IPv6"], vec!["IPv6"]),
        (
            &two,
            json!({ "ipFamilyPolicy": "PreferDualStack" }),
            "PreferDualStack",
            vec!["IPv4", "IPv6"],
            vec!["IPv4", "IPv6"],
        ),
        (
            &single,
            json!({ "ipFamilyPolicy": "PreferDualStack" }),
            "PreferDualStack",
            vec!["IPv4"],
            vec!["IPv4"],
        ),
        (
            &two,
            json!({ "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"] }),
            "RequireDualStack",
            vec!["IPv6", "IPv4"],
            vec!["IPv6", "IPv4"],
        ),
        (
            &two,
            json!({ "ipFamilyPolicy": "PreferDualStack", "clusterIP": "fd00:10:96::51" }),
            "PreferDualStack",
            vec!["IPv6", "IPv4"],
            vec!["IPv6", "IPv4"],
        ),
        (&two, json!({ "clusterIP": "None" }), "SingleStack", vec!["IPv4"], vec!["None"]),
        (
            &two,
            json!({ "clusterIP": "None", "ipFamilyPolicy": "RequireDualStack" }),
            "RequireDualStack",
            vec!["IPv4", "IPv6"],
            vec!["None"],
        ),
        // Whose endpoints are the user's own may have both families anywhere.
        (
            &single,
            json!({ "clusterIP": "None", "selector": null }),
            "RequireDualStack",
            vec!["IPv4", "IPv6"],
            vec!["None"],
        ),
        (
            &single,
            json!({ "clusterIP": "None", "selector": null, "ipFamilies": ["IPv6"] }),
            "RequireDualStack",
            vec!["IPv6", "IPv4"],
            vec!["None"],
        ),
        (
            &two,
            json!({ "clusterIP": "None", "selector": null, "ipFamilyPolicy": "SingleStack" }),
            "SingleStack",
            vec!["IPv4"],
            vec!["None"],
        ),
        (
            &single,
            json!({ "clusterIP": "None", "selector": null, "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"] }),
            "SingleStack",
            vec!["IPv6"],
            vec!["None"],
        ),
        (&two, json!({ "type": "ExternalName", "externalName": "a.b" }), "", vec![], vec![]),
    ];
    for (server, spec, policy, wanted, addresses) in cases {
        let made = server.post(SERVICES, &service_with("x", &spec)).await.ok();
        let strings = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(families(&made), (policy.to_owned(), strings(wanted), strings(addresses)), "{spec}");
        assert_eq!(server.get(PATH).await.ok(), made);
        server.delete(PATH).await.ok();
    }
}

#[tokio::test]
#[allow(clippy::too_many_lines)] // A table, a few rows per text.
async fn what_families_cannot_be_is_said_before_anything_else() {
    let two = Server::start_dual_stack().await;
    let single = Server::start().await;
    let ips = |first: &str, all: &[&str]| json!({ "clusterIP": first, "clusterIPs": all });
    let needs_two = "must be 'RequireDualStack' or 'PreferDualStack' when multiple";
    let not_ip = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
    let cases = [
        (
            &two,
            ips("10.96.0.60", &["10.96.0.60", "fd00:10:96::60"]),
            vec![format!("{POLICY} \"SingleStack\": {needs_two} cluster IPs are specified")],
        ),
        (
            &two,
            json!({ "ipFamilies": ["IPv4", "IPv6"] }),
            vec![format!("{POLICY} \"SingleStack\": {needs_two} IP families are specified")],
        ),
        (
            &two,
            json!({ "clusterIPs": ["10.96.0.60"] }),
            vec!["spec.clusterIPs: Invalid value: [\"10.96.0.60\"]: must be empty when `clusterIP` is not specified".into()],
        ),
        (
            &two,
            ips("10.96.0.61", &["10.96.0.60"]),
            vec!["spec.clusterIPs: Invalid value: [\"10.96.0.60\"]: first value must match `clusterIP`".into()],
        ),
        (
            &two,
            ips("None", &["None", "10.96.0.60"]),
            vec!["spec.clusterIPs: Invalid value: [\"None\",\"10.96.0.60\"]: 'None' must be the first and only value".into()],
        ),
        (
            &two,
            ips("10.96.0.60", &["10.96.0.60", "fd00:10:96::60", "10.96.0.61"]),
            vec![
                "spec.clusterIPs: Invalid value: [\"10.96.0.60\",\"fd00:10:96::60\",\"10.96.0.61\"]: may only hold up to 2 \
                 values"
                    .into(),
            ],
        ),
        (
            &two,
            ips("10.96.0.60", &["10.96.0.60", "10.96.0.61"]),
            vec![
                "spec.clusterIPs: Invalid value: [\"10.96.0.60\",\"10.96.0.61\"]: may specify no more than one IP for \
                 each IP family"
                    .into(),
            ],
        ),
        (
            &two,
            json!({ "clusterIP": "10.96.0.60", "ipFamilies": ["IPv6"] }),
            vec![
                "spec.clusterIPs[0]: Invalid value: \"10.96.0.60\": expected an IPv6 value as indicated by `ipFamilies[0]`"
                    .into(),
            ],
        ),
        (
            &two,
            json!({ "clusterIP": "fd00:10:96::60", "ipFamilies": ["IPv4"] }),
            vec![
                "spec.clusterIPs[0]: Invalid value: \"fd00:10:96::60\": expected an IPv4 value as indicated by \
                 `ipFamilies[0]`"
                    .into(),
            ],
        ),
        (
            &two,
            json!({ "ipFamilies": ["Four"] }),
            vec!["spec.ipFamilies[0]: Unsupported value: \"Four\": supported values: \"IPv4\", \"IPv6\"".into()],
        ),
        (
            &two,
            json!({ "ipFamilies": ["IPv4", "IPv4"] }),
            vec!["spec.ipFamilies[1]: Duplicate value: \"IPv4\"".into()],
        ),
        (
            &two,
            json!({ "ipFamilyPolicy": "Both" }),
            vec![
                "spec.ipFamilyPolicy: Unsupported value: \"Both\": supported values: \"PreferDualStack\", \
                 \"RequireDualStack\", \"SingleStack\""
                    .into(),
            ],
        ),
        (
            &two,
            json!({ "clusterIP": "10.96.0.300" }),
            vec![format!("spec.clusterIPs[0]: Invalid value: \"10.96.0.300\": {not_ip}")],
        ),
        (
            &two,
            json!({ "clusterIP": "10.96.0.060" }),
            vec!["spec.clusterIPs[0]: Invalid value: \"10.96.0.060\": must not have leading 0s".into()],
        ),
        (
            &two,
            json!({ "clusterIP": "::ffff:10.96.0.60" }),
            vec![
                "spec.clusterIPs[0]: Invalid value: \"::ffff:10.96.0.60\": must not be an IPv4-mapped IPv6 address".into(),
            ],
        ),
        (
            &single,
            json!({ "ipFamilyPolicy": "RequireDualStack" }),
            vec![format!("{POLICY} \"RequireDualStack\": this cluster is not configured for dual-stack services")],
        ),
        (
            &single,
            json!({ "ipFamilies": ["IPv6"] }),
            vec!["spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster".into()],
        ),
        (
            &single,
            json!({ "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"] }),
            vec![
                format!("{POLICY} \"RequireDualStack\": this cluster is not configured for dual-stack services"),
                "spec.ipFamilies[1]: Invalid value: \"IPv6\": not configured on this cluster".into(),
            ],
        ),
        (
            &single,
            json!({ "clusterIP": "fd00:10:96::60" }),
            vec![
                "spec.clusterIPs[0]: Invalid value: [\"fd00:10:96::60\"]: IPv6 is not configured on this cluster".into(),
            ],
        ),
    ];
    let mut wrong = Vec::new();
    for (server, mut spec, errors) in cases {
        // Wrong as well, and not mentioned.
        spec["sessionAffinity"] = "Sticky".into();
        let reply = server.post(SERVICES, &service_with("x", &spec)).await;
        wrong.extend(difference(&reply, &errors).map(|difference| format!("{spec}\n{difference}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[tokio::test]
async fn a_second_family_comes_and_goes() {
    let server = Server::start_dual_stack().await;
    let change = async |spec: Value| server.patch(PATH, "merge", &json!({ "spec": spec })).await;
    let made = server.post(SERVICES, &service_with("x", &json!({}))).await.ok();
    let first = made["spec"]["clusterIP"].clone();
    let both = change(json!({ "ipFamilyPolicy": "RequireDualStack" })).await.ok();
    assert_eq!(families(&both).1, ["IPv4", "IPv6"]);
    assert_eq!(both["spec"]["clusterIP"], first);
    let second = both["spec"]["clusterIPs"][1].clone();
    assert!(has_object(&server, &second).await);

    // A shorter list does not say what is meant, unless the policy does.
    let release = |what: &str| {
        format!("{POLICY} \"RequireDualStack\": must be 'SingleStack' to release the secondary {what}")
    };
    for (spec, errors) in [
        (json!({ "clusterIPs": [first] }), vec![release("cluster IP")]),
        (json!({ "ipFamilies": ["IPv4"] }), vec![release("IP family")]),
        (
            json!({ "clusterIPs": [first], "ipFamilies": ["IPv4"] }),
            vec![release("cluster IP"), release("IP family")],
        ),
    ] {
        assert_eq!(difference(&change(spec.clone()).await, &errors), None, "{spec}");
    }

    // What is there already cannot become another.
    let swapped = change(json!({ "ipFamilies": ["IPv6", "IPv4"] })).await;
    let expected = |index: usize, address: &Value, family: &str| {
        format!(
            "spec.clusterIPs[{index}]: Invalid value: {address}: expected an {family} value as indicated by `ipFamilies[{index}]`"
        )
    };
    assert_eq!(difference(&swapped, &[expected(0, &first, "IPv6"), expected(1, &second, "IPv4")]), None);
    let swapped = change(json!({
        "ipFamilies": ["IPv6", "IPv4"], "clusterIP": second, "clusterIPs": [second, first],
    }))
    .await;
    let frozen = |index: usize| {
        format!("spec.clusterIPs[{index}]: Invalid value: [{second},{first}]: may not change once set")
    };
    let family = "spec.ipFamilies[0]: Invalid value: [\"IPv6\",\"IPv4\"]: may not change once set".to_owned();
    assert_eq!(difference(&swapped, &[frozen(0), frozen(1), family.clone(), family]), None);
    let other = change(json!({ "clusterIPs": [first, "fd00:10:96::77"] })).await;
    let frozen =
        format!("spec.clusterIPs[1]: Invalid value: [{first},\"fd00:10:96::77\"]: may not change once set");
    assert_eq!(difference(&other, &[frozen]), None);

    // A PUT without a policy keeps the one that is there, and with it both addresses.
    let put = server.put(PATH, &service_with("x", &json!({ "sessionAffinity": "ClientIP" }))).await.ok();
    assert_eq!(put["spec"]["clusterIPs"], both["spec"]["clusterIPs"]);
    assert_eq!(put["spec"]["ipFamilyPolicy"], "RequireDualStack");

    let one = change(json!({ "ipFamilyPolicy": "SingleStack" })).await.ok();
    assert_eq!(families(&one), ("SingleStack".into(), vec!["IPv4".into()], vec!["IPv4".into()]));
    assert!(!has_object(&server, &second).await, "the second address was not given back");
    let named =
        change(json!({ "ipFamilyPolicy": "PreferDualStack", "clusterIPs": [first, "fd00:10:96::77"] }));
    assert_eq!(named.await.ok()["spec"]["clusterIPs"][1], "fd00:10:96::77");
    let short = change(json!({ "ipFamilyPolicy": "SingleStack", "clusterIPs": [first] })).await.ok();
    assert_eq!(families(&short).1, ["IPv4"]);

    let taken = json!({ "clusterIP": "fd00:10:96::78" });
    server.post(SERVICES, &service_with("y", &taken)).await.ok();
    let refused =
        change(json!({ "ipFamilyPolicy": "PreferDualStack", "clusterIPs": [first, "fd00:10:96::78"] })).await;
    let error = format!(
        "spec.clusterIPs: Invalid value: [{first},\"fd00:10:96::78\"]: failed to allocate IP fd00:10:96::78: provided IP is \
         already allocated"
    );
    assert_eq!(difference(&refused, &[error]), None);
}

#[tokio::test]
async fn a_name_elsewhere_has_no_address_and_may_get_any() {
    let server = Server::start_dual_stack().await;
    let external = json!({ "type": "ExternalName", "externalName": "a.b" });
    let made =
        server.post(SERVICES, &service_with("x", &json!({ "ipFamilyPolicy": "PreferDualStack" }))).await.ok();
    let change = async |spec: Value| server.patch(PATH, "merge", &json!({ "spec": spec })).await.ok();
    assert_eq!(families(&change(external.clone()).await), (String::new(), vec![], vec![]));
    for address in made["spec"]["clusterIPs"].as_array().unwrap() {
        assert!(!has_object(&server, address).await, "{address} was not given back");
    }
    let back =
        change(json!({ "type": "ClusterIP", "clusterIP": "fd00:10:96::99", "externalName": null })).await;
    assert_eq!(families(&back), ("SingleStack".into(), vec!["IPv6".into()], vec!["IPv6".into()]));
    change(external).await;
    let back =
        change(json!({ "type": "NodePort", "ipFamilyPolicy": "RequireDualStack", "externalName": null }))
            .await;
    assert_eq!(families(&back).2, ["IPv4", "IPv6"]);
    for address in back["spec"]["clusterIPs"].as_array().unwrap() {
        assert!(has_object(&server, address).await, "{address} has no object");
    }
}

#[tokio::test]
async fn headless_services_choose_their_families_freely() {
    let server = Server::start_dual_stack().await;
    server.post(SERVICES, &service_with("x", &json!({ "clusterIP": "None" }))).await.ok();
    for (spec, wanted) in [
        (json!({ "ipFamilies": ["IPv6"] }), vec!["IPv6"]),
        (json!({ "ipFamilyPolicy": "PreferDualStack" }), vec!["IPv6", "IPv4"]),
        (json!({ "ipFamilies": ["IPv4", "IPv6"] }), vec!["IPv4", "IPv6"]),
        (json!({ "ipFamilyPolicy": "SingleStack" }), vec!["IPv4"]),
    ] {
        let changed = server.patch(PATH, "merge", &json!({ "spec": spec })).await.ok();
        assert_eq!(families(&changed).1, wanted, "{spec}");
        assert_eq!(changed["spec"]["clusterIPs"], json!(["None"]));
    }
    // A PUT that does not mention it stays headless.
    let put = server.put(PATH, &service_with("x", &json!({}))).await.ok();
    assert_eq!(put["spec"]["clusterIP"], "None");
}

/// No Service gets a second address because the cluster could give it one by now: somebody has to ask for it, if only by
/// a PUT that does not repeat the families.
#[tokio::test]
async fn a_cluster_that_gains_a_family_changes_no_service() {
    let Server { api, dir } = Server::start().await;
    let server = Server { api, dir };
    let prefers = json!({ "ipFamilyPolicy": "PreferDualStack" });
    let before = server.post(SERVICES, &service_with("x", &prefers)).await.ok();
    server.api.stop();
    let Server { api, dir } = server;
    drop(api);
    let server = Server { api: reopen_dual_stack(dir.path()).await, dir };
    let patch = json!({ "spec": { "publishNotReadyAddresses": true } });
    let mut patched = server.patch(PATH, "merge", &patch).await.ok();
    assert_eq!((families(&before).1, families(&patched).1), (vec!["IPv4".into()], vec!["IPv4".into()]));
    patched["spec"]["sessionAffinity"] = "ClientIP".into();
    assert_eq!(families(&server.put(PATH, &patched).await.ok()).2, ["IPv4"]);
    let asked = server.put(PATH, &service_with("x", &prefers)).await.ok();
    assert_eq!(families(&asked).2, ["IPv4", "IPv6"]);
    assert_eq!(asked["spec"]["clusterIP"], before["spec"]["clusterIP"]);
}

/// An address goes with the last finalizer, also when that is taken away through the status.
#[tokio::test]
async fn addresses_and_endpoints_go_with_the_last_finalizer() {
    let server = Server::start().await;
    for path in [PATH.to_owned(), format!("{PATH}/status")] {
        let mut held =
            service_with("x", &json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": 32100 }] }));
        held["metadata"]["finalizers"] = json!(["example.com/hold"]);
        let made = server.post(SERVICES, &held).await.ok();
        let endpoints = json!({ "metadata": { "name": "x" } });
        server.post("/api/v1/namespaces/default/endpoints", &endpoints).await.ok();
        server.send(Method::DELETE, PATH, &[], "").await.ok();
        assert!(has_object(&server, &made["spec"]["clusterIP"]).await);
        let free = json!({ "metadata": { "finalizers": null } });
        server.patch(&path, "merge", &free).await.ok();
        assert_eq!(server.get(PATH).await.code, 404, "{path}");
        assert!(!has_object(&server, &made["spec"]["clusterIP"]).await, "{path}");
        assert_eq!(server.get("/api/v1/namespaces/default/endpoints/x").await.code, 404, "{path}");
    }
}

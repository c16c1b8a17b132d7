//! ServiceCIDRs and IPAddresses: which addresses there are, and what is done when somebody meddles with them.

use portolan_store::{Store as _, Txn};
use serde_json::{Value, json};

use crate::common::{SERVICES, Server, service, text};

const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

fn range(name: &str, cidrs: &[&str]) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": { "name": name }, "spec": { "cidrs": cidrs },
    })
}

fn at(name: &str, address: &str) -> Value {
    let mut object = service(name);
    object["spec"]["clusterIP"] = address.into();
    object
}

fn ready(status: &str) -> Value {
    let condition = json!({
        "type": "Ready", "status": status, "reason": "Test", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    json!({ "status": { "conditions": [condition] } })
}

/// Waits for an event with this reason.
async fn event(server: &Server, reason: &str) -> Value {
    let path = format!("{EVENTS}?fieldSelector=reason%3D{reason}");
    let list = server.eventually(&path, |reply| reply.json()["items"].get(0).is_some()).await.ok();
    list["items"][0].clone()
}

#[tokio::test]
async fn the_default_range_is_ready_and_says_who_said_so() {
    let server = Server::start_with_ranges(&["10.96.0.0/24", "fd00::/112"]).await;
    let made = server.get(&format!("{RANGES}/kubernetes")).await.ok();
    assert_eq!(made["spec"]["cidrs"], json!(["10.96.0.0/24", "fd00::/112"]));
    let says = &made["status"]["conditions"][0];
    assert_eq!(
        (text(&says["type"]), text(&says["status"]), &says["reason"]),
        ("Ready".into(), "True".into(), &json!(""))
    );
    assert_eq!(says["message"], "Kubernetes default Service CIDR is ready");
    let managers: Vec<(String, String, String)> = made["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (text(&entry["manager"]), text(&entry["operation"]), text(&entry["subresource"])))
        .collect();
    let own = |manager: &str, operation: &str, part: &str| (manager.into(), operation.into(), part.into());
    assert_eq!(
        managers,
        [own("kubernetes-service-cidr-controller", "Apply", "status"), own("kube-apiserver", "Update", "")]
    );
}

#[tokio::test]
async fn what_every_cluster_has_comes_back() {
    let server = Server::start().await;
    let endpoints = "/api/v1/namespaces/default/endpoints/kubernetes";
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let (range, own) = (format!("{RANGES}/kubernetes"), format!("{SERVICES}/kubernetes"));
    let before = server.get(&own).await.ok();
    let port = json!({ "name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443 });
    assert_eq!(
        before["spec"],
        json!({
            "type": "ClusterIP", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "ports": [port],
        })
    );
    for path in [&own, &range, endpoints, slice] {
        server.delete(path).await;
        assert_eq!(server.get(path).await.code, 404, "{path}");
    }
    for path in [&own, &range, endpoints, slice] {
        server.eventually(path, |reply| reply.code == 200).await;
    }
    let after = server.get(&own).await.ok();
    assert_eq!(after["spec"], before["spec"]);
    assert_eq!(after["metadata"]["labels"], json!({ "component": "apiserver", "provider": "kubernetes" }));
    let made = server.eventually(&range, |reply| reply.json()["status"]["conditions"].get(0).is_some()).await;
    assert_eq!(made.json()["status"]["conditions"][0]["status"], "True");
    let made = server.get(endpoints).await.ok();
    assert_eq!(made["metadata"]["labels"], json!({ "endpointslice.kubernetes.io/skip-mirror": "true" }));
    let secure = json!({ "name": "https", "port": 6443, "protocol": "TCP" });
    assert_eq!(made["subsets"], json!([{ "addresses": [{ "ip": "192.0.2.1" }], "ports": [secure] }]));
    let sliced = server.get(slice).await.ok();
    assert_eq!(sliced["metadata"]["labels"], json!({ "kubernetes.io/service-name": "kubernetes" }));
    let extra = ["ownerReferences", "generateName"].map(|field| sliced["metadata"].get(field));
    assert_eq!(
        (extra, &sliced["addressType"], &sliced["ports"]),
        ([None, None], &json!("IPv4"), &json!([secure]))
    );
    let endpoint = json!({ "addresses": ["192.0.2.1"], "conditions": { "ready": true } });
    assert_eq!(sliced["endpoints"], json!([endpoint]));
    // The Service may be changed by whoever wants to; where it leads to may not.
    server.patch(&own, "merge", &json!({ "metadata": { "labels": { "mine": "too" } } })).await.ok();
    let elsewhere = json!({ "subsets": null, "metadata": { "labels": { "endpointslice.kubernetes.io/skip-mirror": null } } });
    server.patch(endpoints, "merge", &elsewhere).await.ok();
    let mended = server.eventually(endpoints, |reply| reply.json().get("subsets").is_some()).await.ok();
    assert_eq!(
        (&mended["subsets"], &mended["metadata"]["labels"]),
        (&made["subsets"], &made["metadata"]["labels"])
    );
    assert_eq!(server.get(&own).await.ok()["metadata"]["labels"]["mine"], "too");
}

#[tokio::test]
async fn the_default_range_gains_a_second_family_and_is_otherwise_kept() {
    let server = Server::start_with_ranges(&["10.96.0.0/24"]).await;
    let path = format!("{RANGES}/kubernetes");
    let server = server.restart_with_ranges(&["10.96.0.0/24", "fd00::/112"]).await;
    assert_eq!(server.get(&path).await.ok()["spec"]["cidrs"], json!(["10.96.0.0/24", "fd00::/112"]));
    let mut six = service("six");
    six["spec"]["ipFamilies"] = json!(["IPv6"]);
    assert!(text(&server.post(SERVICES, &six).await.ok()["spec"]["clusterIP"]).starts_with("fd00::"));
    let server = server.restart_with_ranges(&["10.99.0.0/24"]).await;
    assert_eq!(server.get(&path).await.ok()["spec"]["cidrs"], json!(["10.96.0.0/24", "fd00::/112"]));
    let told = event(&server, "KubernetesDefaultServiceCIDRInconsistent").await;
    assert_eq!(
        told["note"],
        "The default ServiceCIDR [10.96.0.0/24 fd00::/112] does not match the controller flag configurations [10.99.0.0/24]"
    );
    assert_eq!(
        (text(&told["type"]), text(&told["regarding"]["kind"])),
        ("Warning".into(), "ServiceCIDR".into())
    );
    assert_eq!(told["deprecatedSource"]["component"], "kubernetes-service-cidr-controller");
    // No second start says what somebody else decided, nor decides otherwise.
    server.patch(&format!("{path}/status"), "merge", &ready("False")).await.ok();
    let server = server.restart_with_ranges(&["10.96.0.0/24", "fd00::/112"]).await;
    assert_eq!(server.get(&path).await.ok()["status"]["conditions"][0]["status"], "False");
    assert_eq!(event(&server, "Test").await["note"], "Configuration matches, but ");
}

#[tokio::test]
async fn a_range_is_used_from_its_creation_to_its_deletion() {
    let server = Server::start_with_ranges(&["10.96.0.0/30"]).await;
    let refused = async |name: &str, address: &str| {
        let (code, _, message) = server.post(SERVICES, &at(name, address)).await.refusal();
        assert_eq!(code, 422, "{message}");
        let why = "the provided network does not match the current range";
        let expected = format!(
            "Service \"{name}\" is invalid: spec.clusterIPs: Invalid value: [\"{address}\"]: failed to allocate IP {address}: {why}"
        );
        assert_eq!(message, expected);
    };
    refused("early", "10.97.0.9").await;
    let mut more = range("more", &["10.97.0.0/24"]);
    more["metadata"]["finalizers"] = json!(["example.org/held"]);
    // A client may say what it likes about the state of what it makes: nobody listens.
    more["status"] = ready("False")["status"].clone();
    let made = server.post(RANGES, &more).await.ok();
    assert_eq!(made.get("status"), Some(&json!({})));
    server.post(SERVICES, &at("asked", "10.97.0.9")).await.ok();
    // The first range has one address left, the Service `kubernetes` has the other.
    for name in ["a", "b", "c"] {
        server.post(SERVICES, &service(name)).await.ok();
    }

    let path = format!("{RANGES}/more");
    for (status, usable) in [("False", false), ("Unknown", false), ("True", true)] {
        server.patch(&format!("{path}/status"), "merge", &ready(status)).await.ok();
        if usable {
            server.post(SERVICES, &at("ready", "10.97.0.10")).await.ok();
        } else {
            refused("unready", "10.97.0.10").await;
        }
    }

    server.delete(&path).await.ok();
    refused("late", "10.97.0.11").await;
    // Another object with the same range makes it usable again.
    server.post(RANGES, &range("same", &["10.97.0.0/24"])).await.ok();
    server.post(SERVICES, &at("late", "10.97.0.11")).await.ok();
    server.delete(&format!("{RANGES}/same")).await.ok();
    let mut left = 0;
    let full = loop {
        let reply = server.post(SERVICES, &service(&format!("more{left}"))).await;
        if !reply.code.is_success() {
            break reply.refusal();
        }
        left += 1;
    };
    assert!(left <= 1, "{left} addresses out of a range that is gone");
    let name = format!("more{left}");
    let message = format!(
        "Internal error occurred: failed to allocate a serviceIP for Service {name:?}: range is full"
    );
    assert_eq!(full, (500, "InternalError".into(), message));
    // What was given out is given back all the same.
    server.delete(&format!("{SERVICES}/asked")).await.ok();
    assert_eq!(server.get(&format!("{ADDRESSES}/10.97.0.9")).await.code, 404);
}

#[tokio::test]
async fn a_dry_run_says_which_addresses_there_are() {
    let server = Server::start().await;
    let path = format!("{SERVICES}?dryRun=All");
    let (code, _, message) = server.post(&path, &at("web", "10.200.0.1")).await.refusal();
    assert_eq!(code, 422);
    let why = "failed to allocate IP 10.200.0.1: provided IP is not in the valid range. The range of valid IPs is 10.96.0.0/12";
    assert!(message.ends_with(why), "{message}");
    server.post(&path, &at("web", "10.96.0.9")).await.ok();
    assert_eq!(server.get(&format!("{ADDRESSES}/10.96.0.9")).await.code, 404);
}

#[tokio::test]
async fn ranges_are_refused_in_kubernetes_words() {
    let server = Server::start().await;
    let refused = async |cidrs: &[&str]| server.post(RANGES, &range("bad", cidrs)).await.refusal().2;
    let families = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
    for (cidrs, why) in [
        (&[][..], "spec.cidrs: Required value: at least one CIDR required".to_owned()),
        (
            &["10.0.0.0/24", "fd00::/112", "10.1.0.0/24"],
            "spec.cidrs: Invalid value: [\"10.0.0.0/24\",\"fd00::/112\",\"10.1.0.0/24\"]: may only hold up to 2 values".into(),
        ),
        (
            &["10.0.0.0/24", "10.1.0.0/24"],
            format!("spec.cidrs: Invalid value: [\"10.0.0.0/24\",\"10.1.0.0/24\"]: {families}"),
        ),
    ] {
        assert_eq!(refused(cidrs).await, format!("ServiceCIDR.networking.k8s.io \"bad\" is invalid: {why}"));
    }
    for text in ["10.0.0.1/24", "10.0.0.00/24", "fd00:0::/112", "10.0.0.0"] {
        assert!(refused(&[text]).await.contains("spec.cidrs[0]: Invalid value"), "{text}");
    }

    let path = format!("{RANGES}/more");
    let created = server.put(&path, &range("more", &["10.97.0.0/24"])).await;
    assert_eq!(created.code, 404, "a range is made by POST alone");
    server.post(RANGES, &range("more", &["10.97.0.0/24"])).await.ok();
    let dual = ["10.97.0.0/24", "fd01::/112"];
    for cidrs in [&["10.98.0.0/24"][..], &["fd01::/112", "10.97.0.0/24"]] {
        let (code, _, message) = server.put(&path, &range("more", cidrs)).await.refusal();
        assert_eq!(code, 422);
        assert!(message.ends_with(": field is immutable"), "{message}");
    }
    let mut appended = range("more", &dual);
    appended["status"] = ready("False")["status"].clone();
    assert_eq!(server.put(&path, &appended).await.ok().get("status"), Some(&json!({})), "not by this way");
    assert!(
        server.put(&path, &range("more", &dual[..1])).await.refusal().2.ends_with(": field is immutable")
    );

    let mut other = range("more", &["10.98.0.0/24"]);
    other["status"] = ready("True")["status"].clone();
    let said = server.put(&format!("{path}/status"), &other).await.ok();
    assert_eq!((&said["spec"]["cidrs"], &said["status"]), (&json!(dual), &other["status"]));
}

/// The operations that Kubernetes' conformance tests go through.
#[tokio::test]
async fn a_range_has_all_verbs_and_a_status() {
    let server = Server::start().await;
    let listed = server.get("/apis/networking.k8s.io/v1").await.ok();
    let verbs = |name: &str| {
        let resources = listed["resources"].as_array().unwrap();
        resources.iter().find(|resource| resource["name"] == name).unwrap()["verbs"].clone()
    };
    let all = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    assert_eq!(
        (verbs("servicecidrs"), verbs("servicecidrs/status")),
        (json!(all), json!(["get", "patch", "update"]))
    );

    let labelled = format!("{RANGES}?labelSelector=test%3Dranges");
    let mut watch = server.watch(&format!("{labelled}&watch=1")).await;
    for (name, cidr) in [("one", "10.201.0.0/24"), ("two", "10.202.0.0/24")] {
        let mut object = range(name, &[cidr]);
        object["metadata"]["labels"] = json!({ "test": "ranges" });
        server.post(RANGES, &object).await.ok();
        assert_eq!(watch.word().await, format!("ADDED {name}"));
    }
    let path = format!("{RANGES}/one");
    let patch = json!({ "metadata": { "annotations": { "patched": "true" } } });
    let mut object = server.patch(&path, "merge", &patch).await.ok();
    object["metadata"]["annotations"]["updated"] = "true".into();
    let updated = server.put(&path, &object).await.ok();
    assert_eq!(updated["metadata"]["annotations"], json!({ "patched": "true", "updated": "true" }));
    assert_eq!((watch.word().await, watch.word().await), ("MODIFIED one".into(), "MODIFIED one".into()));

    let mut object = server.get(&format!("{path}/status")).await.ok();
    assert_eq!(object, updated);
    object["status"] = ready("True")["status"].clone();
    object["metadata"]["annotations"]["updated"] = "by status".into();
    let said = server.put(&format!("{path}/status"), &object).await.ok();
    assert_eq!(said["status"], object["status"]);
    let patched = server.patch(&format!("{path}/status"), "merge", &ready("False")).await.ok();
    assert_eq!(patched["status"]["conditions"][0]["status"], "False");
    assert_eq!(patched["spec"], updated["spec"]);

    server.delete(&path).await.ok();
    let names = async |path: &str| -> Vec<String> {
        let list = server.get(path).await.ok();
        list["items"].as_array().unwrap().iter().map(|item| text(&item["metadata"]["name"])).collect()
    };
    assert_eq!(names(&labelled).await, ["two"]);
    server.delete(&labelled).await.ok();
    assert_eq!((names(&labelled).await, names(RANGES).await), (vec![], vec!["kubernetes".to_owned()]));
}

#[tokio::test]
async fn an_address_object_has_its_address_for_a_name_and_a_parent_for_good() {
    let server = Server::start().await;
    let object = |name: &str, parent: &Value| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
            "metadata": { "name": name }, "spec": { "parentRef": parent },
        })
    };
    let parent = json!({ "group": "gateway.networking.k8s.io", "resource": "gateways", "namespace": "default", "name": "gw" });
    for name in ["fd00:0::1", "010.0.0.1", "::ffff:10.0.0.1", "web"] {
        let message = server.post(ADDRESSES, &object(name, &parent)).await.refusal().2;
        assert!(message.contains("metadata.name: Invalid value"), "{name}: {message}");
    }
    let mut grouped = parent.clone();
    grouped["group"] = "Not_A_Group".into();
    let message = server.post(ADDRESSES, &object("10.0.0.1", &grouped)).await.refusal().2;
    assert!(
        message.contains("spec.parentRef.group: Invalid value: \"Not_A_Group\": a lowercase RFC 1123"),
        "{message}"
    );
    let mut nameless = parent.clone();
    nameless["name"] = "".into();
    assert!(
        server
            .post(ADDRESSES, &object("10.0.0.1", &nameless))
            .await
            .refusal()
            .2
            .contains("spec.parentRef.name: Required value")
    );
    let path = format!("{ADDRESSES}/10.0.0.1");
    assert_eq!(server.put(&path, &object("10.0.0.1", &parent)).await.code, 404);
    server.post(ADDRESSES, &object("10.0.0.1", &parent)).await.ok();
    let message = server
        .patch(&path, "merge", &json!({ "spec": { "parentRef": { "name": "other" } } }))
        .await
        .refusal()
        .2;
    assert!(message.ends_with(": field is immutable"), "{message}");
    // It is a gateway's, and stays so: whoever made it looks after it.
    server.post(RANGES, &range("more", &["10.0.0.0/24"])).await.ok();
    assert!(
        server
            .post(SERVICES, &at("web", "10.0.0.1"))
            .await
            .refusal()
            .2
            .contains("provided IP is already allocated")
    );

    let made = server.post(SERVICES, &at("web", "10.0.0.2")).await.ok();
    let own = server.get(&format!("{ADDRESSES}/10.0.0.2")).await.ok();
    assert_eq!(
        own["metadata"]["labels"],
        json!({ "ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io" })
    );
    assert_eq!(
        own["spec"]["parentRef"],
        json!({ "resource": "services", "namespace": "default", "name": "web" })
    );
    assert_eq!((own["metadata"].get("ownerReferences"), own["metadata"].get("finalizers")), (None, None));
    assert_eq!(made["spec"]["clusterIP"], "10.0.0.2");
}

#[tokio::test]
async fn an_address_given_back_is_given_again() {
    let server = Server::start_with_ranges(&["10.96.0.0/29"]).await;
    for turn in 0..20 {
        let made = server.post(SERVICES, &service("web")).await;
        assert!(made.code.is_success(), "turn {turn}: {:?}", made.refusal());
        server.delete(&format!("{SERVICES}/web")).await.ok();
    }
}

#[tokio::test]
async fn addresses_that_somebody_meddles_with_are_put_right_at_once_and_told_of() {
    let server = Server::start().await;
    server.post(SERVICES, &at("web", "10.96.0.9")).await.ok();
    let path = format!("{ADDRESSES}/10.96.0.9");
    let before = server.get(&path).await.ok();
    server.delete(&path).await.ok();
    let again = server.eventually(&path, |reply| reply.code == 200).await.ok();
    assert_ne!(again["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(
        (&again["spec"], &again["metadata"]["labels"]),
        (&before["spec"], &before["metadata"]["labels"])
    );
    let told = event(&server, "ClusterIPNotAllocated").await;
    assert_eq!(told["note"], "Cluster IP [IPv4]: 10.96.0.9 is not allocated; repairing");
    let said = ["type", "reportingController", "action"].map(|field| text(&told[field]));
    assert_eq!(said, ["Warning", "ipallocator-repair-controller", "ClusterIPAllocation"]);
    let about = ["kind", "namespace", "name"].map(|field| text(&told["regarding"][field]));
    assert_eq!(about, ["Service", "default", "web"]);

    server.patch(&path, "merge", &json!({ "metadata": { "labels": null } })).await.ok();
    server
        .eventually(&path, |reply| reply.json()["metadata"]["labels"] == before["metadata"]["labels"])
        .await;

    let stray = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": { "name": "10.96.0.20", "labels": before["metadata"]["labels"] },
        "spec": { "parentRef": { "resource": "gateways", "name": "gw" } },
    });
    server.post(ADDRESSES, &stray).await.ok();
    server.eventually(&format!("{ADDRESSES}/10.96.0.20"), |reply| reply.code == 404).await;
    let told = event(&server, "IPAddressNotAllocated").await;
    assert_eq!(
        told["note"],
        "IPAddress 10.96.0.20 appears to have been modified, not referencing a Service &ParentReference{Group:,Resource:gateways,Namespace:,Name:gw,}: cleaning up"
    );
    assert_eq!(
        (text(&told["regarding"]["kind"]), text(&told["action"])),
        ("IPAddress".into(), "IPAddressAllocation".into())
    );

    let metrics = metrics(&server).await;
    for (line, count) in [
        ("apiserver_clusterip_repair_ip_errors_total{type=\"repair\"}", "2"),
        ("apiserver_clusterip_repair_ip_errors_total{type=\"leak\"}", "1"),
        ("apiserver_clusterip_repair_reconcile_errors_total", "0"),
        ("apiserver_nodeport_repair_reconcile_errors_total", "0"),
    ] {
        assert_eq!(value(&metrics, line), Some(count), "{line} in\n{metrics}");
    }
}

/// What no server of ours would write, but a restored backup, an edit by hand or an older version may have.
#[tokio::test]
async fn what_was_wrong_before_the_start_is_told_of() {
    let server = Server::start_with_ranges(&["10.96.0.0/24"]).await;
    for (name, address, port) in
        [("one", "10.96.0.9", 30080), ("two", "10.96.0.10", 30081), ("three", "10.96.0.11", 30082)]
    {
        let mut object = at(name, address);
        object["spec"]["type"] = "NodePort".into();
        object["spec"]["ports"][0]["nodePort"] = port.into();
        server.post(SERVICES, &object).await.ok();
    }
    let server = server
        .restart_after(&["10.96.0.0/24"], |store| async move {
            let key = |name: &str| format!("/registry/services/specs/default/{name}");
            let read = async |name: &str| -> Value {
                serde_json::from_slice(&store.get(&key(name)).await.unwrap().0.unwrap().value).unwrap()
            };
            let (mut two, mut three) = (read("two").await, read("three").await);
            two["spec"]["clusterIP"] = "10.96.0.9".into();
            two["spec"]["clusterIPs"] = json!(["10.96.0.9"]);
            two["spec"]["ports"][0]["nodePort"] = 30080.into();
            three["spec"]["clusterIP"] = "172.30.0.9".into();
            three["spec"]["clusterIPs"] = json!(["172.30.0.9"]);
            three["spec"]["ports"][0]["nodePort"] = 80.into();
            let txn = Txn::new().put(key("two"), two.to_string()).put(key("three"), three.to_string());
            let none =
                json!({ "kind": "RangeAllocation", "apiVersion": "v1", "range": "30000-32767", "data": "" });
            let txn = txn.put("/registry/ranges/servicenodeports", none.to_string());
            store.commit(txn).await.unwrap();
        })
        .await;
    let (ip, port) = (("ipallocator", "ClusterIPAllocation"), ("portallocator", "PortAllocation"));
    for (reason, service, by, note) in [
        (
            "ClusterIPAlreadyAllocated",
            "two",
            ip,
            "Cluster IP [IPv4]:10.96.0.9 was assigned to multiple services; please recreate service",
        ),
        (
            "ClusterIPOutOfRange",
            "three",
            ip,
            "Cluster IP [IPv4]: 172.30.0.9 is not within any configured Service CIDR; please recreate service",
        ),
        ("PortNotAllocated", "one", port, "Port 30080 is not allocated; repairing"),
        (
            "PortAlreadyAllocated",
            "two",
            port,
            "Port 30080 was assigned to multiple services; please recreate service",
        ),
        (
            "PortOutOfRange",
            "three",
            port,
            "Port 80 is not within the port range 30000-32767; please recreate service",
        ),
    ] {
        let told = event(&server, reason).await;
        assert_eq!((text(&told["note"]), text(&told["regarding"]["name"])), (note.into(), service.into()));
        let (reporter, action) = (format!("{}-repair-controller", by.0), by.1.to_owned());
        assert_eq!(
            (text(&told["reportingController"]), text(&told["action"])),
            (reporter, action),
            "{reason}"
        );
    }
    let metrics = metrics(&server).await;
    for line in [
        "apiserver_clusterip_repair_ip_errors_total{type=\"duplicate\"}",
        "apiserver_clusterip_repair_ip_errors_total{type=\"outOfRange\"}",
        "apiserver_nodeport_repair_port_errors_total{type=\"repair\"}",
        "apiserver_nodeport_repair_port_errors_total{type=\"duplicate\"}",
        "apiserver_nodeport_repair_port_errors_total{type=\"outOfRange\"}",
    ] {
        assert_eq!(value(&metrics, line), Some("1"), "{line} in\n{metrics}");
    }
}

async fn metrics(server: &Server) -> String {
    String::from_utf8(server.get("/metrics").await.body.to_vec()).unwrap()
}

fn value<'a>(metrics: &'a str, line: &str) -> Option<&'a str> {
    metrics.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(' '))
}

#[tokio::test]
async fn the_allocators_count_what_they_give_and_refuse() {
    let server = Server::start_with_ranges(&["10.96.0.0/29"]).await;
    server.post(SERVICES, &at("asked", "10.96.0.5")).await.ok();
    server.post(SERVICES, &at("twice", "10.96.0.5")).await.refusal();
    server.post(SERVICES, &at("outside", "10.97.0.5")).await.refusal();
    let mut made = 0;
    while server.post(SERVICES, &service(&format!("any{made}"))).await.code.is_success() {
        made += 1;
    }
    // Six less the Service `kubernetes` and the one asked for.
    assert_eq!(made, 4);
    for name in ["any0", "any1"] {
        server.delete(&format!("{SERVICES}/{name}")).await.ok();
    }
    for (name, port) in [("in", 30080), ("out", 80)] {
        let mut object = service(name);
        object["spec"]["type"] = "NodePort".into();
        object["spec"]["ports"][0]["nodePort"] = port.into();
        server.post(SERVICES, &object).await;
    }
    let metrics = metrics(&server).await;
    let range = |name: &str, scope: &str| {
        format!("kube_apiserver_clusterip_allocator_{name}_total{{cidr=\"10.96.0.0/29\",scope=\"{scope}\"}}")
    };
    let port = |name: &str, scope: &str| {
        format!("kube_apiserver_nodeport_allocator_{name}_total{{scope=\"{scope}\"}}")
    };
    for (line, count) in [
        // With the Service `kubernetes`, which asks for the first.
        (range("allocation", "static"), Some("2")),
        (range("allocation", "dynamic"), Some("5")),
        (range("allocation_errors", "static"), Some("1")),
        (range("allocation_errors", "dynamic"), Some("1")),
        (port("allocation", "static"), Some("1")),
        (port("allocation", "dynamic"), None),
        (port("allocation_errors", "static"), Some("1")),
        (
            "kube_apiserver_clusterip_allocator_allocation_duration_seconds_count{cidr=\"10.96.0.0/29\"}"
                .into(),
            Some("7"),
        ),
        ("kube_apiserver_clusterip_allocator_allocated_ips{cidr=\"10.96.0.0/29\"}".into(), Some("5")),
        ("kube_apiserver_clusterip_allocator_available_ips{cidr=\"10.96.0.0/29\"}".into(), Some("1")),
        ("kube_apiserver_nodeport_allocator_allocated_ports".into(), Some("1")),
    ] {
        assert_eq!(value(&metrics, &line), count, "{line} in\n{metrics}");
    }
}

//! Typed requests: every kind that the server has, and what controllers do with objects.

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, Namespace, Node, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event as NewEvent;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::serde::Serialize;
use k8s_openapi::serde::de::DeserializeOwned;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};

use crate::cluster::{Cluster, config_map, create};

/// Create, get, list, patch, update and delete of one object of a kind.
async fn round<K>(api: Api<K>, object: Value)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let kind = K::kind(&()).into_owned();
    let object: K = serde_json::from_value(object).unwrap_or_else(|e| panic!("{kind}: {e}"));
    let name = object.name_any();
    let made = api.create(&PostParams::default(), &object).await.unwrap_or_else(|e| panic!("{kind}: {e}"));
    assert!(made.uid().is_some() && made.resource_version().is_some(), "{kind}");
    assert_eq!(api.get(&name).await.unwrap().uid(), made.uid(), "{kind}");
    let selected = ListParams::default().fields(&format!("metadata.name={name}"));
    assert_eq!(api.list(&selected).await.unwrap().items.len(), 1, "{kind}");
    let patch = Patch::Merge(json!({"metadata": {"labels": {"seen": "yes"}}}));
    let mut changed = api.patch(&name, &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(changed.labels().get("seen").map(String::as_str), Some("yes"), "{kind}");
    changed.annotations_mut().insert("note".into(), "by update".into());
    let updated = api.replace(&name, &PostParams::default(), &changed).await.unwrap();
    assert_ne!(updated.resource_version(), changed.resource_version(), "{kind}");
    let stale = api.replace(&name, &PostParams::default(), &changed).await.unwrap_err();
    assert!(matches!(&stale, kube::Error::Api(status) if status.code == 409), "{kind}: {stale}");
    let wrong = Preconditions { uid: Some("other".into()), resource_version: None };
    let refused =
        api.delete(&name, &DeleteParams { preconditions: Some(wrong), ..DeleteParams::default() }).await;
    assert!(matches!(refused.unwrap_err(), kube::Error::Api(status) if status.code == 409), "{kind}");
    api.delete(&name, &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() })
        .await
        .unwrap();
    assert!(api.get_opt(&name).await.unwrap().is_none(), "{kind}");
}

fn local<K>(client: &Client) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::default_namespaced(client.clone())
}

fn global<K>(client: &Client) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope>,
{
    Api::all(client.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_is_created_read_changed_and_deleted() {
    let cluster = Cluster::start().await;
    let c = &cluster.client().await;
    let named = |name: &str| json!({"metadata": {"name": name}});
    let pod_spec = json!({"containers": [{"name": "c", "image": "portolan.dev/echo"}]});
    let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": pod_spec});
    let workload = json!({
        "metadata": {"name": "a"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "a"}}, "template": template},
    });
    round::<ConfigMap>(local(c), json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await;
    round::<Secret>(local(c), json!({"metadata": {"name": "a"}, "stringData": {"k": "v"}})).await;
    round::<ServiceAccount>(local(c), named("robot")).await;
    let ports = json!([{"port": 80}]);
    round::<Service>(local(c), json!({"metadata": {"name": "a"}, "spec": {"ports": ports}})).await;
    let subsets = json!([{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]);
    round::<Endpoints>(local(c), json!({"metadata": {"name": "a"}, "subsets": subsets})).await;
    round::<EndpointSlice>(
        local(c),
        json!({"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}], "ports": []}),
    )
    .await;
    round::<Pod>(local(c), json!({"metadata": {"name": "a"}, "spec": pod_spec})).await;
    round::<Deployment>(local(c), workload.clone()).await;
    round::<ReplicaSet>(local(c), workload).await;
    round::<Lease>(local(c), json!({"metadata": {"name": "a"}, "spec": {"holderIdentity": "me"}})).await;
    let about = json!({"kind": "Pod", "namespace": "default", "name": "a"});
    round::<Event>(local(c), json!({"metadata": {"name": "a.1"}, "involvedObject": about, "reason": "R"}))
        .await;
    round::<NewEvent>(
        local(c),
        json!({
            "metadata": {"name": "a.2"}, "regarding": about, "reason": "R", "note": "n", "type": "Normal",
            "action": "Act", "reportingController": "test", "reportingInstance": "me",
            "eventTime": "2026-01-02T03:04:05.000006Z",
        }),
    )
    .await;
    round::<Role>(local(c), json!({"metadata": {"name": "a"}, "rules": []})).await;
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"});
    round::<RoleBinding>(local(c), json!({"metadata": {"name": "a"}, "roleRef": role})).await;
    round::<ClusterRole>(global(c), json!({"metadata": {"name": "a"}, "rules": []})).await;
    round::<ClusterRoleBinding>(global(c), json!({"metadata": {"name": "a"}, "roleRef": role})).await;
    round::<Node>(global(c), named("node-x")).await;
    let parent = json!({"group": "", "resource": "services", "namespace": "default", "name": "a"});
    round::<IPAddress>(global(c), json!({"metadata": {"name": "10.96.3.4"}, "spec": {"parentRef": parent}}))
        .await;
    let range: ServiceCIDR =
        serde_json::from_value(json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.200.0.0/24"]}}))
            .unwrap();
    let made = global::<ServiceCIDR>(c).create(&PostParams::default(), &range).await.unwrap();
    assert_eq!(made.spec.unwrap().cidrs, Some(vec!["10.200.0.0/24".to_owned()]));
    let made: Namespace = serde_json::from_value(named("shop")).unwrap();
    let made = global::<Namespace>(c).create(&PostParams::default(), &made).await.unwrap();
    assert_eq!(made.status.unwrap().phase.as_deref(), Some("Active"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_groups_show_the_same_events() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let (old, new): (Api<Event>, Api<NewEvent>) = (local(&client), local(&client));
    let event: Event = serde_json::from_value(json!({
        "metadata": {"name": "web.1"}, "reason": "Started", "message": "it started", "type": "Normal", "count": 3,
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "web"},
        "source": {"component": "agent"}, "firstTimestamp": "2026-01-02T03:04:05Z",
    }))
    .unwrap();
    let made = old.create(&PostParams::default(), &event).await.unwrap();
    let seen = new.get("web.1").await.unwrap();
    assert_eq!((seen.uid(), seen.resource_version()), (made.uid(), made.resource_version()));
    assert_eq!((seen.note.as_deref(), seen.deprecated_count), (Some("it started"), Some(3)));
    assert_eq!(seen.regarding.as_ref().unwrap().name.as_deref(), Some("web"));
    let by_field = ListParams::default().fields("regarding.name=web,reason=Started");
    assert_eq!(new.list(&by_field).await.unwrap().items.len(), 1);
    assert_eq!(new.list(&ListParams::default().fields("regarding.name=db")).await.unwrap().items.len(), 0);
    let patch = Patch::Merge(json!({"note": "changed"}));
    new.patch("web.1", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(old.get("web.1").await.unwrap().message.as_deref(), Some("changed"));
    let bad: NewEvent = serde_json::from_value(json!({
        "metadata": {"name": "bad.1"}, "eventTime": null,
        "regarding": {"kind": "Pod", "namespace": "default", "name": "web"},
    }))
    .unwrap();
    let refused = new.create(&PostParams::default(), &bad).await.unwrap_err().to_string();
    assert!(refused.contains("eventTime") && refused.contains("reportingController"), "{refused}");
    new.delete("web.1", &DeleteParams::default()).await.unwrap();
    assert!(old.get_opt("web.1").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appliers_own_their_fields() {
    let cluster = Cluster::start().await;
    let api = cluster.config_maps().await;
    let apply = |data: Value| {
        Patch::Apply(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, "data": data}),
        )
    };
    let by = |name: &str| PatchParams::apply(name);
    api.patch("shared", &by("one"), &apply(json!({"a": "1", "b": "1"}))).await.unwrap();
    api.patch("shared", &by("two"), &apply(json!({"c": "2"}))).await.unwrap();
    let conflict = api.patch("shared", &by("two"), &apply(json!({"a": "2", "c": "2"}))).await.unwrap_err();
    assert!(matches!(&conflict, kube::Error::Api(status) if status.code == 409), "{conflict}");
    assert!(conflict.to_string().contains("conflict with \"one\""), "{conflict}");
    let forced = api.patch("shared", &by("two").force(), &apply(json!({"a": "2", "c": "2"}))).await.unwrap();
    assert_eq!(forced.data.unwrap().get("a").map(String::as_str), Some("2"));
    let dropped = api.patch("shared", &by("one"), &apply(json!({"b": "1"}))).await.unwrap();
    let keys: Vec<String> = dropped.data.unwrap().into_keys().collect();
    assert_eq!(keys, ["a", "b", "c"], "what another took over stays");
    let managers = dropped.metadata.managed_fields.unwrap();
    let names: Vec<_> = managers.iter().map(|entry| entry.manager.clone().unwrap()).collect();
    assert_eq!(names, ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_lists_come_in_pages_of_one_moment() {
    let cluster = Cluster::start().await;
    let api = cluster.config_maps().await;
    for number in 0..25 {
        create(&api, &format!("c{number:02}"), "1").await;
    }
    let mut params = ListParams::default().labels("app=test").limit(10);
    let (mut names, mut revisions) = (Vec::new(), Vec::new());
    loop {
        let page = api.list(&params).await.unwrap();
        revisions.push(page.metadata.resource_version.clone());
        names.extend(page.items.iter().map(ResourceExt::name_any));
        // Comes too late for this list.
        let _ = api.create(&PostParams::default(), &config_map("c99", "1")).await;
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names, (0..25).map(|number| format!("c{number:02}")).collect::<Vec<_>>());
    revisions.dedup();
    assert_eq!(revisions.len(), 1);
}

use portolan_api::core::v1::Service;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: i64 = 1_700_000_000;

fn manager(name: &str, operation: Operation) -> Manager {
    Manager { name: name.into(), operation, api_version: "v1".into(), subresource: String::new() }
}

fn applied(name: &str, live: &Value, config: &Value, force: bool) -> Result<Value, Box<Status>> {
    let manager = manager(name, Operation::Apply);
    let how = Apply {
        schema: Service::schema(),
        scope: Scope::NotStatus,
        manager: &manager,
        force,
        about: "default/web; /v1, Kind=Service",
        now: Time::from_second(NOW),
    };
    apply(how, live, config)
}

/// The object after an ordinary write.
fn updated(name: &str, live: Option<&Value>, mut new: Value) -> Value {
    let sent = new.get_mut("metadata").and_then(Value::as_object_mut).and_then(|m| m.remove("managedFields"));
    let manager = manager(name, Operation::Update);
    let at = Time::from_second(NOW);
    let list = track(Service::schema(), Scope::NotStatus, &manager, live, &new, sent.as_ref(), at);
    if let Some(list) = list {
        new["metadata"]["managedFields"] = list;
    }
    new
}

fn fields<'a>(object: &'a Value, name: &str) -> &'a Value {
    static NONE: Value = Value::Null;
    let entries = object["metadata"]["managedFields"].as_array();
    entries
        .and_then(|list| list.iter().find(|entry| entry["manager"] == name))
        .map_or(&NONE, |entry| &entry["fieldsV1"])
}

fn service(spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})
}

fn empty() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}})
}

#[test]
fn what_is_no_longer_applied_goes() {
    let both =
        service(&json!({"ports": [{"port": 80}, {"port": 81}], "selector": {"a": "b"}, "type": "NodePort"}));
    let mut live = applied("a", &empty(), &both, false).unwrap();
    // As the server does: defaults, which nobody owns, and an address.
    live["spec"]["ports"][0]["protocol"] = "TCP".into();
    live["spec"]["ports"][1]["protocol"] = "TCP".into();
    live["spec"]["ports"][1]["nodePort"] = 30081.into();
    live["spec"]["clusterIP"] = "10.0.0.1".into();
    let one = service(&json!({"ports": [{"port": 80}]}));
    let live = applied("a", &live, &one, false).unwrap();
    assert_eq!(live["spec"], json!({"ports": [{"port": 80, "protocol": "TCP"}], "clusterIP": "10.0.0.1"}));
    assert_eq!(
        fields(&live, "a"),
        &json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}})
    );
}

#[test]
fn what_others_own_is_a_conflict_until_forced() {
    let live = updated(
        "kubectl-edit",
        None,
        service(
            &json!({"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]}),
        ),
    );
    let config = service(&json!({"type": "ClusterIP"}));
    let refused = applied("b", &live, &config, false).unwrap_err();
    assert_eq!(
        refused.message,
        "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using v1: .spec.type"
    );
    assert_eq!((refused.code, refused.reason.as_str()), (409, "Conflict"));
    let cause = &refused.details.as_ref().unwrap().causes[0];
    assert_eq!((cause.reason.as_str(), cause.field.as_str()), ("FieldManagerConflict", ".spec.type"));
    assert_eq!(cause.message, "conflict with \"kubectl-edit\" using v1");

    let config = service(&json!({"type": "ClusterIP", "ports": [{"port": 80, "targetPort": 8080}]}));
    let refused = applied("b", &live, &config, false).unwrap_err();
    assert_eq!(
        refused.message,
        "Apply failed with 2 conflicts: conflicts with \"kubectl-edit\" using v1:\n- .spec.type\n\
         - .spec.ports[port=80,protocol=\"TCP\"].targetPort"
    );
    let live = applied("b", &live, &config, true).unwrap();
    assert_eq!(live["spec"]["type"], "ClusterIP");
    assert_eq!(fields(&live, "kubectl-edit")["f:spec"].get("f:type"), None);
    assert_eq!(fields(&live, "b")["f:spec"]["f:type"], json!({}));
    // The same value is no conflict: both own it.
    let both = applied("c", &live, &service(&json!({"type": "ClusterIP"})), false).unwrap();
    assert_eq!(fields(&both, "c")["f:spec"]["f:type"], json!({}));
    assert_eq!(fields(&both, "b")["f:spec"]["f:type"], json!({}));
    let refused = applied("d", &both, &service(&json!({"type": "NodePort"})), false).unwrap_err();
    assert!(
        refused.message.contains("conflicts with \"b\":\n- .spec.type\nconflicts with \"c\":\n- .spec.type"),
        "{}",
        refused.message
    );
}

#[test]
fn untracked_objects_are_credited_to_the_time_before() {
    let live = service(&json!({"type": "NodePort"}));
    let live = applied("a", &live, &service(&json!({"sessionAffinity": "None"})), false).unwrap();
    assert_eq!(fields(&live, "before-first-apply"), &json!({"f:spec": {"f:type": {}}}));
    let refused = applied("a", &live, &service(&json!({"type": "ClusterIP"})), false).unwrap_err();
    assert!(refused.message.contains("conflict with \"before-first-apply\" using v1: .spec.type"));
}

#[test]
fn kubectl_takes_over_what_it_applied_on_the_client() {
    let last = r#"{"metadata":{"name":"web"},"spec":{"type":"NodePort"}}"#;
    let mut live = service(&json!({"type": "NodePort", "sessionAffinity": "None"}));
    live["metadata"]["annotations"][LAST_APPLIED] = last.into();
    let live = updated("kubectl-client-side-apply", None, live);
    let config = service(&json!({"type": "ClusterIP"}));
    assert!(applied("other", &live, &config, false).is_err());
    let taken = applied("kubectl", &live, &config, false).unwrap();
    assert_eq!(taken["spec"]["type"], "ClusterIP");
    let text = taken["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap()["spec"]["type"], "ClusterIP");
    let config = service(&json!({"sessionAffinity": "ClientIP"}));
    assert!(applied("kubectl", &live, &config, false).is_err());
}

#[test]
fn updates_take_fields_and_removals_free_them() {
    let live = updated("a", None, service(&json!({"type": "NodePort", "sessionAffinity": "None"})));
    let mut new = live.clone();
    new["spec"]["type"] = "ClusterIP".into();
    let live = updated("b", Some(&live), new);
    assert_eq!(fields(&live, "a"), &json!({"f:spec": {"f:sessionAffinity": {}}}));
    assert_eq!(fields(&live, "b"), &json!({"f:spec": {"f:type": {}}}));
    let mut new = live.clone();
    new["spec"].as_object_mut().unwrap().remove("sessionAffinity");
    let live = updated("b", Some(&live), new);
    assert_eq!(fields(&live, "a"), &Value::Null);
    let mut new = live.clone();
    new["metadata"]["managedFields"] = json!([{}]);
    assert_eq!(updated("c", Some(&live), new)["metadata"].get("managedFields"), None);
    let untracked = service(&json!({}));
    assert_eq!(
        updated("c", Some(&untracked), service(&json!({"type": "NodePort"})))["metadata"]
            .get("managedFields"),
        None
    );
}

#[test]
fn unknown_fields_cannot_be_applied() {
    let refused = applied("a", &empty(), &service(&json!({"foo": 1})), false).unwrap_err();
    assert_eq!(
        refused.message,
        "failed to create typed patch object (default/web; /v1, Kind=Service): .spec.foo: field not declared in schema"
    );
    assert_eq!(refused.code, 500);
}

fn any_config() -> impl Strategy<Value = Value> {
    let label = prop::sample::select(vec!["a", "b", "c"]);
    let labels = prop::collection::btree_map(label, "[xy]", 0..3);
    let port =
        (80u16..83, prop::option::of(1u16..3), prop::option::of(prop::sample::select(vec!["TCP", "UDP"])));
    let ports = prop::collection::vec(port, 0..4);
    let finalizers = prop::collection::btree_set("[pq]", 0..3);
    let kind = prop::option::of(prop::sample::select(vec!["ClusterIP", "NodePort"]));
    (labels, ports, finalizers, kind).prop_map(|(labels, ports, finalizers, kind)| {
        let mut spec = Map::new();
        let mut list: Vec<Value> = Vec::new();
        for (port, target, protocol) in ports {
            let item = json!({"port": port, "protocol": protocol.unwrap_or("TCP")});
            let taken =
                |other: &Value| other["port"] == item["port"] && other["protocol"] == item["protocol"];
            if !list.iter().any(taken) {
                let mut item = item;
                if let Some(target) = target {
                    item["targetPort"] = target.into();
                }
                list.push(item);
            }
        }
        if !list.is_empty() {
            spec.insert("ports".into(), list.into());
        }
        if let Some(kind) = kind {
            spec.insert("type".into(), kind.into());
        }
        let mut object = empty();
        if !spec.is_empty() {
            object["spec"] = Value::Object(spec);
        }
        if !labels.is_empty() {
            object["metadata"]["labels"] = json!(labels);
        }
        if !finalizers.is_empty() {
            object["metadata"]["finalizers"] = json!(finalizers);
        }
        object
    })
}

/// Whether every field of `set` is in the object.
fn all_there(object: &Value, set: &Value) -> bool {
    let have = with_parents(fields_of(object, root(Service::schema())), root(Service::schema()));
    Set::from_fields_v1(set).unwrap_or_default().difference(&have).is_empty()
}

proptest! {
    #[test]
    fn applying_twice_is_applying_once(first in any_config(), config in any_config()) {
        let live = applied("b", &empty(), &first, true).unwrap();
        let once = applied("a", &live, &config, true).unwrap();
        let twice = applied("a", &once, &config, false).unwrap();
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn what_is_applied_is_there_and_owned(first in any_config(), second in any_config(), config in any_config()) {
        let live = applied("a", &empty(), &first, true).unwrap();
        let live = updated("b", Some(&live), { let mut new = second.clone(); new["metadata"]["managedFields"] = live["metadata"]["managedFields"].clone(); new });
        let live = applied("a", &live, &config, true).unwrap();
        let wanted = Scope::NotStatus.limit(fields_of(&config, root(Service::schema()))).to_fields_v1();
        if wanted != json!({}) {
            prop_assert_eq!(fields(&live, "a"), &wanted);
        }
        prop_assert!(all_there(&live, &wanted), "{} {}", live, wanted);
        // Merged once more, nothing changes.
        prop_assert_eq!(merge(Some(&live), Some(&config), root(Service::schema())).unwrap(), live);
    }

    #[test]
    fn fields_of_others_stay(theirs in any_config(), mine in any_config(), less in any_config()) {
        let live = applied("them", &empty(), &theirs, false).unwrap();
        if let Ok(live) = applied("me", &live, &mine, false) {
            prop_assert!(all_there(&live, fields(&live, "them")));
            let owned = fields(&live, "them").clone();
            if let Ok(live) = applied("me", &live, &less, false) {
                prop_assert_eq!(fields(&live, "them"), &owned);
                let still = merge(Some(&live), Some(&theirs), root(Service::schema())).unwrap();
                prop_assert_eq!(still["spec"]["type"].clone(), live["spec"]["type"].clone());
                prop_assert!(all_there(&live, &owned), "{} {}", live, owned);
            }
        }
    }

    #[test]
    fn the_record_of_a_new_object_is_a_comparison_with_nothing(mut object in any_config(), odd in "[a\"\\\\ \u{1}é]{0,3}") {
        object["metadata"]["annotations"] = json!({ odd: "x" });
        object["metadata"]["uid"] = "u".into();
        object["status"] = json!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}});
        object["spec"]["clusterIPs"] = json!([]);
        for scope in [Scope::All, Scope::NotStatus, Scope::Status] {
            let (manager, now) = (manager("a", Operation::Update), Time::from_second(NOW));
            let wanted = track(Service::schema(), scope, &manager, None, &object, None, now);
            let text = begin(Service::schema(), scope, &manager, &object, None, now);
            // To the byte: a write that changes nothing is known by its bytes.
            prop_assert_eq!(text, wanted.map(|list| list.to_string()));
        }
    }

    #[test]
    fn nothing_stays_of_who_applies_nothing(config in any_config()) {
        let live = applied("a", &empty(), &config, false).unwrap();
        let bare = applied("a", &live, &empty(), false).unwrap();
        prop_assert_eq!(bare["metadata"].get("managedFields"), None);
        prop_assert_eq!(fields_of(&bare, root(Service::schema())).intersection(&Scope::NotStatus.limit(fields_of(&config, root(Service::schema())))), Set::default());
    }
}

//! Who may do what: roles and bindings at work, questions about them, nodes, and acting as somebody else.

use http::Method;
use portolan_apiserver::User;
use serde_json::{Value, json};

use crate::common::{CONFIG_MAPS, PODS, Reply, SERVICES, Server, service, text};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const AUTHORIZATION: &str = "/apis/authorization.k8s.io/v1";

fn ann() -> User {
    User::new("ann", ["dev"])
}

fn node(name: &str) -> User {
    User::new(format!("system:node:{name}"), ["system:nodes"])
}

fn role(name: &str, rules: &Value) -> Value {
    json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": name }, "rules": rules })
}

fn binding(name: &str, kind: &str, role: &str, subject: &Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role }, "subjects": [subject],
    })
}

fn roles() -> String {
    format!("{RBAC}/namespaces/default/roles")
}

fn bindings() -> String {
    format!("{RBAC}/namespaces/default/rolebindings")
}

impl Server {
    async fn read_as(&self, user: &User, path: &str) -> Reply {
        self.send_as(user, Method::GET, path, &Value::Null).await
    }

    async fn ask(&self, user: &User, kind: &str, spec: &Value) -> Value {
        let path = format!("{AUTHORIZATION}/{}s", kind.to_lowercase());
        let review = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec });
        let reply = self.send_as(user, Method::POST, &path, &review).await;
        assert_eq!(reply.code, 201);
        reply.ok()["status"].clone()
    }
}

#[tokio::test]
async fn nobody_does_what_no_rule_grants() {
    let server = Server::start().await;
    let (code, reason, message) = server.read_as(&ann(), SERVICES).await.refusal();
    assert_eq!((code, reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        message,
        "services is forbidden: User \"ann\" cannot list resource \"services\" in API group \"\" in the namespace \"default\""
    );
    // The answer to a grant says that it holds, and so does the answer to its end.
    let subject = json!({ "kind": "Group", "name": "dev" });
    server.post(&bindings(), &binding("look", "ClusterRole", "view", &subject)).await.ok();
    server.read_as(&ann(), SERVICES).await.ok();
    assert_eq!(server.send_as(&ann(), Method::POST, SERVICES, &service("a")).await.code, 403);
    assert_eq!(server.read_as(&ann(), "/api/v1/namespaces/kube-system/services").await.code, 403);
    assert_eq!(server.read_as(&ann(), "/api/v1/services").await.code, 403);
    server.delete(&format!("{}/look", bindings())).await.ok();
    assert_eq!(server.read_as(&ann(), SERVICES).await.code, 403);
    // A role that is not there grants nothing, and is named.
    server.post(&bindings(), &binding("lost", "Role", "gone", &subject)).await.ok();
    let (_, _, message) = server.read_as(&ann(), SERVICES).await.refusal();
    assert!(message.ends_with(": RBAC: role.rbac.authorization.k8s.io \"gone\" not found"), "{message}");
}

#[tokio::test]
async fn rules_for_one_name_allow_lists_of_it() {
    let server = Server::start().await;
    let rules = json!([{ "verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"] }]);
    server.post(&roles(), &role("one", &rules)).await.ok();
    let subject = json!({ "kind": "User", "name": "ann" });
    server.post(&bindings(), &binding("one", "Role", "one", &subject)).await.ok();
    assert_eq!(server.read_as(&ann(), &format!("{CONFIG_MAPS}/a")).await.code, 404);
    assert_eq!(server.read_as(&ann(), &format!("{CONFIG_MAPS}/b")).await.code, 403);
    assert_eq!(server.read_as(&ann(), CONFIG_MAPS).await.code, 403);
    server.read_as(&ann(), &format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Da")).await.ok();
    let other = format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Db");
    assert_eq!(server.read_as(&ann(), &other).await.code, 403);
}

#[tokio::test]
async fn nobody_hands_out_more_than_they_have() {
    let server = Server::start().await;
    let subject = json!({ "kind": "User", "name": "ann" });
    server.post(&bindings(), &binding("own", "ClusterRole", "admin", &subject)).await.ok();
    let nodes = json!([{ "verbs": ["get", "list"], "apiGroups": [""], "resources": ["nodes"] }]);
    let reply = server.send_as(&ann(), Method::POST, &roles(), &role("more", &nodes)).await;
    let (code, _, message) = reply.refusal();
    assert_eq!(code, 403);
    assert_eq!(
        message,
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"ann\" (groups=[\"dev\" \"system:authenticated\"]) \
         is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\" \"list\"]}"
    );
    let pods = json!([{ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }]);
    server.send_as(&ann(), Method::POST, &roles(), &role("less", &pods)).await.ok();
    for (name, code) in [("view", 201), ("cluster-admin", 403), ("none", 404)] {
        let bind = binding(name, "ClusterRole", name, &json!({ "kind": "User", "name": "bob" }));
        let reply = server.send_as(&ann(), Method::POST, &bindings(), &bind).await;
        assert_eq!(reply.code, code, "{name}");
    }
    // By every way of writing: a patch and an apply as well as a create.
    let patch = json!({ "rules": nodes }).to_string();
    let mut request = http::Request::patch(format!("{}/less", roles()))
        .header("content-type", "application/merge-patch+json")
        .body(bytes::Bytes::from(patch))
        .unwrap();
    request.extensions_mut().insert(ann());
    assert_eq!(server.request(request).await.status(), 403);
    let mut request = http::Request::patch(format!("{}/applied?fieldManager=x", roles()))
        .header("content-type", "application/apply-patch+yaml")
        .body(bytes::Bytes::from(role("applied", &nodes).to_string()))
        .unwrap();
    request.extensions_mut().insert(ann());
    assert_eq!(server.request(request).await.status(), 403);
    // `escalate` and `bind` are the permission to do so.
    let lift = json!([
        { "verbs": ["escalate"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"] },
        { "verbs": ["bind"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "resourceNames": ["cluster-admin"] },
    ]);
    server.post(&roles(), &role("lift", &lift)).await.ok();
    server.post(&bindings(), &binding("lift", "Role", "lift", &subject)).await.ok();
    server.send_as(&ann(), Method::POST, &roles(), &role("more", &nodes)).await.ok();
    let bind = binding("top", "ClusterRole", "cluster-admin", &json!({ "kind": "User", "name": "bob" }));
    server.send_as(&ann(), Method::POST, &bindings(), &bind).await.ok();
}

#[tokio::test]
async fn aggregated_roles_take_up_new_parts() {
    let server = Server::start().await;
    let subject = json!({ "kind": "User", "name": "ann" });
    server.post(&bindings(), &binding("look", "ClusterRole", "view", &subject)).await.ok();
    let secrets = "/api/v1/namespaces/default/secrets";
    assert_eq!(server.read_as(&ann(), secrets).await.code, 403);
    let part = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": { "name": "part", "labels": { "rbac.authorization.k8s.io/aggregate-to-view": "true" } },
        "rules": [{ "verbs": ["list"], "apiGroups": [""], "resources": ["secrets"] }],
    });
    server.post(&format!("{RBAC}/clusterroles"), &part).await.ok();
    let view = format!("{RBAC}/clusterroles/view");
    server.eventually(&view, |reply| reply.ok()["rules"].to_string().contains("secrets")).await;
    let deadline = std::time::Instant::now() + crate::common::PATIENCE;
    while server.read_as(&ann(), secrets).await.code != 200 {
        assert!(std::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn questions_about_permission_are_answered_with_the_reason() {
    let server = Server::start().await;
    let subject = json!({ "kind": "User", "name": "ann" });
    server.post(&bindings(), &binding("look", "ClusterRole", "view", &subject)).await.ok();
    let pods = json!({ "resourceAttributes": { "namespace": "default", "verb": "get", "resource": "pods" } });
    let answer = server.ask(&ann(), "SelfSubjectAccessReview", &pods).await;
    assert_eq!(
        answer,
        json!({ "allowed": true, "reason": "RBAC: allowed by RoleBinding \"look/default\" of ClusterRole \"view\" to User \"ann\"" })
    );
    let delete =
        json!({ "resourceAttributes": { "namespace": "default", "verb": "delete", "resource": "pods" } });
    assert_eq!(server.ask(&ann(), "SelfSubjectAccessReview", &delete).await, json!({ "allowed": false }));
    let admin = User::new("admin", ["system:masters"]);
    for (path, allowed) in [("/healthz", true), ("/metrics", false)] {
        let spec = json!({ "user": "ann", "groups": ["system:authenticated"], "nonResourceAttributes": { "path": path, "verb": "get" } });
        assert_eq!(server.ask(&admin, "SubjectAccessReview", &spec).await["allowed"], allowed, "{path}");
    }
    // Who may not ask about others, and questions that are none.
    let review = json!({ "kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": { "user": "ann" } });
    let path = format!("{AUTHORIZATION}/subjectaccessreviews");
    assert_eq!(server.send_as(&ann(), Method::POST, &path, &review).await.code, 403);
    let (code, _, message) = server.post(&path, &review).await.refusal();
    assert_eq!(code, 422);
    assert!(message.contains("exactly one of nonResourceAttributes or resourceAttributes"), "{message}");
    assert_eq!(server.get(&path).await.code, 405);
    let local = format!("{AUTHORIZATION}/namespaces/default/localsubjectaccessreviews");
    let mut review = json!({ "spec": { "user": "ann", "resourceAttributes": { "namespace": "other", "verb": "get", "resource": "pods" } } });
    assert_eq!(server.post(&local, &review).await.code, 422);
    review["spec"]["resourceAttributes"]["namespace"] = "default".into();
    assert_eq!(server.post(&local, &review).await.ok()["status"]["allowed"], true);
}

#[tokio::test]
async fn a_user_learns_who_they_are_and_what_they_may() {
    let server = Server::start().await;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
    let who = server.send_as(&ann(), Method::POST, path, &review).await.ok();
    assert_eq!(
        who["status"]["userInfo"],
        json!({ "username": "ann", "groups": ["dev", "system:authenticated"] })
    );
    let rules = server.ask(&ann(), "SelfSubjectRulesReview", &json!({ "namespace": "default" })).await;
    assert_eq!(rules["incomplete"], false);
    assert!(rules["nonResourceRules"].to_string().contains("/openapi"), "{rules}");
    assert!(rules["resourceRules"].to_string().contains("selfsubjectaccessreviews"), "{rules}");
    let rules = server.ask(&node("n1"), "SelfSubjectRulesReview", &json!({ "namespace": "default" })).await;
    assert_eq!(rules["incomplete"], true);
}

#[tokio::test]
async fn strangers_get_health_and_version_and_nothing_else() {
    let server = Server::start().await;
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(server.read_as(&User::anonymous(), path).await.code, 200, "{path}");
    }
    for path in
        ["/api", "/apis", "/metrics", "/openapi/v2", SERVICES, "/portolan/snapshot", "/openid/v1/jwks"]
    {
        assert_eq!(server.read_as(&User::anonymous(), path).await.code, 403, "{path}");
    }
}

#[tokio::test]
async fn a_node_has_its_own_objects_and_no_others() {
    let server = Server::start().await;
    let (n1, n2) = (node("n1"), node("n2"));
    let new = |name: &str| json!({ "metadata": { "name": name } });
    let nodes = "/api/v1/nodes";
    server.send_as(&n1, Method::POST, nodes, &new("n1")).await.ok();
    let (_, _, message) = server.send_as(&n1, Method::POST, nodes, &new("n2")).await.refusal();
    assert_eq!(message, "nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\"");
    let pod = json!({
        "metadata": { "name": "a" },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c", "image": "i", "envFrom": [{ "secretRef": { "name": "used" } }] }] },
    });
    let pod = server.post(PODS, &pod).await.ok();
    let path = format!("{PODS}/a");
    server.read_as(&n1, &path).await.ok();
    let (_, _, message) = server.read_as(&n2, &path).await.refusal();
    assert!(message.ends_with(": no relationship found between node 'n2' and this object"), "{message}");
    server.read_as(&n1, "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await.ok();
    for other in ["/api/v1/pods", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2"] {
        assert_eq!(server.read_as(&n1, other).await.code, 403, "{other}");
    }
    let status = format!("{path}/status");
    server.send_as(&n1, Method::PUT, &status, &pod).await.ok();
    let (_, _, message) = server.send_as(&n2, Method::PUT, &status, &pod).await.refusal();
    assert_eq!(
        message,
        "pods \"a\" is forbidden: node \"n2\" can only update pod status for pods with spec.nodeName set to itself"
    );
    let (_, _, message) = server.send_as(&n2, Method::DELETE, &path, &Value::Null).await.refusal();
    assert_eq!(
        message,
        "pods \"a\" is forbidden: node \"n2\" can only delete pods with spec.nodeName set to itself"
    );
    // Secrets of its pods, one by one; leases of its name.
    for (user, name, code) in [(&n1, "used", 404), (&n2, "used", 403), (&n1, "other", 403)] {
        let secret = format!("/api/v1/namespaces/default/secrets/{name}");
        assert_eq!(server.read_as(user, &secret).await.code, code, "{} {name}", user.name);
    }
    assert_eq!(server.read_as(&n1, "/api/v1/namespaces/default/secrets").await.code, 403);
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    server.send_as(&n1, Method::POST, leases, &new("n1")).await.ok();
    for (method, path, object) in
        [(Method::POST, leases.to_string(), new("n3")), (Method::GET, format!("{leases}/n1"), Value::Null)]
    {
        let (_, _, message) = server.send_as(&n2, method, &path, &object).await.refusal();
        assert!(
            message.ends_with("can only access node lease with the same name as the requesting node"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn acting_as_somebody_else_takes_permission_and_has_only_theirs() {
    let server = Server::start().await;
    let subject = json!({ "kind": "User", "name": "bob" });
    server.post(&bindings(), &binding("look", "ClusterRole", "view", &subject)).await.ok();
    let ask = |user: User, headers: Vec<(&'static str, &'static str)>, path: &'static str| {
        let mut request = http::Request::get(path);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut request = request.body(bytes::Bytes::new()).unwrap();
        request.extensions_mut().insert(user);
        server.request(request)
    };
    let admin = || User::new("admin", ["system:masters"]);
    assert_eq!(ask(admin(), vec![("impersonate-user", "bob")], SERVICES).await.status(), 200);
    assert_eq!(ask(admin(), vec![("impersonate-user", "bob")], "/api/v1/nodes").await.status(), 403);
    assert_eq!(ask(admin(), vec![("impersonate-group", "dev")], SERVICES).await.status(), 500);
    let refused = crate::common::reply(ask(ann(), vec![("impersonate-user", "bob")], SERVICES).await).await;
    let (code, _, message) = refused.refusal();
    assert_eq!(code, 403);
    assert_eq!(
        message,
        "users \"bob\" is forbidden: User \"ann\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
    );
    let edit = binding("edit", "ClusterRole", "edit", &json!({ "kind": "User", "name": "ann" }));
    server.post(&bindings(), &edit).await.ok();
    let account = vec![("impersonate-user", "system:serviceaccount:default:default")];
    let reply = crate::common::reply(ask(ann(), account, SERVICES).await).await;
    assert!(
        text(&reply.json()["message"]).contains("User \"system:serviceaccount:default:default\" cannot list")
    );
}

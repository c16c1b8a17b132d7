//! The subresource `proxy`, as far as it goes without anybody to talk to: who may, who is meant, and every refusal.
//! Real traffic is in the program's system tests.

use http::Method;
use portolan_apiserver::User;
use serde_json::{Value, json};

use crate::common::{PODS, SERVICES, Server, service};

const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints";

async fn pod(server: &Server, name: &str, ip: &str) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "containers": [{ "name": "c", "image": "i", "ports": [{ "containerPort": 8080 }] }] },
    });
    server.post(PODS, &pod).await.ok();
    let status = json!({ "status": { "podIP": ip, "podIPs": [{ "ip": ip }] } });
    server.patch(&format!("{PODS}/{name}/status"), "merge", &status).await.ok();
}

/// Addresses behind the Service `name`, each with the pod that it says it is.
async fn endpoints(server: &Server, name: &str, addresses: &[(&str, Option<&str>, &str)]) {
    let addresses: Vec<Value> = addresses
        .iter()
        .map(|(ip, pod, namespace)| match pod {
            Some(pod) => {
                json!({ "ip": ip, "targetRef": { "kind": "Pod", "name": pod, "namespace": namespace } })
            }
            None => json!({ "ip": ip }),
        })
        .collect();
    let object = json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": name },
        "subsets": [{ "addresses": addresses, "ports": [{ "name": "", "port": 8080 }] }],
    });
    server.post(ENDPOINTS, &object).await.ok();
}

#[tokio::test]
async fn who_is_meant_is_told_apart_and_refused_in_kubernetes_words() {
    let server = Server::start().await;
    for name in ["web", "empty", "strange"] {
        server.post(SERVICES, &service(name)).await.ok();
    }
    pod(&server, "web-1", "10.1.0.1").await;
    pod(&server, "odd", "127.0.0.1").await;
    let none = json!({ "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": "empty" } });
    server.post(ENDPOINTS, &none).await.ok();
    // Nobody's, another namespace's, another pod's, and one that is gone.
    let strange = [
        ("10.1.0.7", None, ""),
        ("10.1.0.1", Some("web-1"), "kube-system"),
        ("10.1.0.2", Some("web-1"), "default"),
        ("10.1.0.3", Some("gone"), "default"),
    ];
    endpoints(&server, "strange", &strange).await;
    for (path, code, message) in [
        ("services/a:b:c:d/proxy/", 400, "invalid service request \"a:b:c:d\""),
        ("services/ftp:web:80/proxy/", 400, "invalid service request \"ftp:web:80\""),
        ("pods/:80/proxy/", 400, "invalid pod request \":80\""),
        ("services/none:80/proxy/", 404, "services \"none\" not found"),
        ("services/none/proxy/", 404, "endpoints \"none\" not found"),
        ("services/web:81/proxy/", 503, "no service port 81 found for service \"web\""),
        ("services/empty/proxy/", 503, "no endpoints available for service \"empty\""),
        ("services/https:empty:80/proxy/", 503, "no endpoints available for service \"empty\""),
        ("services/strange:80/proxy/", 503, "no endpoints available for service \"strange:80\""),
        ("services/strange:other/proxy/", 503, "no endpoints available for service \"strange:other\""),
        ("pods/none/proxy/", 404, "pods \"none\" not found"),
        ("pods/odd/proxy/", 400, "address not allowed"),
        (
            "pods/web-1:web/proxy/",
            503,
            "error trying to reach service: dial tcp: lookup tcp/web: unknown port",
        ),
        (
            "pods/web-1:70000/proxy/",
            503,
            "error trying to reach service: dial tcp: address 70000: invalid port",
        ),
        ("pods/web-1/proxy/%zz", 400, "the path of the request has broken escapes"),
    ] {
        let reply = server.get(&format!("/api/v1/namespaces/default/{path}")).await;
        let (got, _, text) = reply.refusal();
        assert_eq!((got, text.as_str()), (code, message), "{path}");
    }
    let (code, _, message) = server.get("/api/v1/nodes/n1/proxy/").await.refusal();
    assert_eq!((code, message.as_str()), (404, "nodes \"n1\" not found"));
    let path = format!("{PODS}/web-1/proxy/");
    let (code, _, message) = server.send(Method::TRACE, &path, &[], "").await.refusal();
    assert_eq!((code, message.as_str()), (405, "TRACE is not supported on resources of kind \"pods\""));
    let missing = server.get("/api/v1/namespaces/default/configmaps/a/proxy/").await;
    assert_eq!(missing.refusal().0, 404);
    assert_eq!(server.get("/api/v1/namespaces/default/pods/web-1/status/proxy").await.code, 404);
}

#[tokio::test]
async fn a_page_gets_the_slash_that_its_links_need() {
    let server = Server::start().await;
    pod(&server, "web-1", "10.1.0.1").await;
    for (method, path, want) in [
        (
            Method::GET,
            "/api/v1/namespaces/default/pods/web-1:80/proxy",
            "/api/v1/namespaces/default/pods/web-1:80/proxy/",
        ),
        (
            Method::HEAD,
            "//api/v1/namespaces/default/pods/web-1/proxy?method=HEAD",
            "/api/v1/namespaces/default/pods/web-1/proxy/?method=HEAD",
        ),
    ] {
        // Whatever the client accepts: what is behind the proxy is nobody's kind.
        let reply = server.send(method, path, &[("accept", "text/html")], "").await;
        assert_eq!(reply.code, 301);
        assert_eq!(reply.headers["location"], want);
    }
}

#[tokio::test]
async fn permission_is_by_the_method_and_the_name_as_it_is_written() {
    let server = Server::start().await;
    pod(&server, "odd", "127.0.0.1").await;
    let rules = json!([
        { "verbs": ["get"], "apiGroups": [""], "resources": ["pods/proxy"] },
        { "verbs": ["create", "update", "patch", "delete"], "apiGroups": [""], "resources": ["pods/proxy"], "resourceNames": ["odd:80"] },
    ]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "r" }, "rules": rules });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "r" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r" },
        "subjects": [{ "kind": "User", "name": "ann" }],
    });
    server.post(&format!("{rbac}/roles"), &role).await.ok();
    server.post(&format!("{rbac}/rolebindings"), &binding).await.ok();
    let ann = User::new("ann", ["dev"]);
    for (method, name, verb) in [
        ("GET", "odd", None),
        ("HEAD", "odd", None),
        ("GET", "odd:80", None),
        ("POST", "odd:80", None),
        ("PUT", "odd:80", None),
        ("PATCH", "odd:80", None),
        ("DELETE", "odd:80", None),
        ("POST", "odd", Some("create")),
        ("PUT", "http:odd:80", Some("update")),
        ("PATCH", "odd", Some("patch")),
        ("DELETE", "odd", Some("delete")),
        ("OPTIONS", "odd:80", Some("")),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let path = format!("{PODS}/{name}/proxy/any/thing");
        let (code, _, message) = server.send_as(&ann, method.clone(), &path, &Value::Null).await.refusal();
        match verb {
            None => assert_eq!((code, message.as_str()), (400, "address not allowed"), "{method} {name}"),
            Some(verb) => {
                let want = format!(
                    "pods {name:?} is forbidden: User \"ann\" cannot {verb} resource \"pods/proxy\" in API group \"\" in the namespace \"default\""
                );
                assert_eq!((code, message), (403, want), "{method} {name}");
            }
        }
    }
}

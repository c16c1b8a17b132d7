//! Service accounts: in every namespace and pod, and tokens that end with what they are bound to.

use http::Method;
use portolan_apiserver::User;
use serde_json::{Value, json};

use crate::common::{PODS, Server, text};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

fn pod(name: &str, spec: &Value) -> Value {
    let mut pod = json!({
        "metadata": { "name": name },
        "spec": { "containers": [{ "name": "c", "image": "portolan.dev/echo" }] },
    });
    pod["spec"].as_object_mut().unwrap().extend(spec.as_object().cloned().unwrap_or_default());
    pod
}

impl Server {
    /// A token of the account `default`, or why there is none.
    async fn token(&self, user: &User, spec: &Value) -> Result<String, (u16, String)> {
        let request =
            json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec });
        let reply = self.send_as(user, Method::POST, &format!("{ACCOUNTS}/default/token"), &request).await;
        if reply.code != 201 {
            let (code, _, message) = reply.refusal();
            return Err((code, message));
        }
        Ok(text(&reply.ok()["status"]["token"]))
    }

    async fn review(&self, token: &str, audiences: &[&str]) -> Value {
        let review = json!({ "spec": { "token": token, "audiences": audiences } });
        self.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.ok()["status"].clone()
    }
}

fn admin() -> User {
    User::new("admin", ["system:masters"])
}

#[tokio::test]
async fn every_namespace_has_an_account_and_gets_it_back() {
    let server = Server::start_with_authority().await;
    server.post("/api/v1/namespaces", &json!({ "metadata": { "name": "shop" } })).await.ok();
    for namespace in ["default", "kube-system", "shop"] {
        let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
        server.eventually(&account, |reply| reply.code == 200).await;
        let map = format!("/api/v1/namespaces/{namespace}/configmaps/kube-root-ca.crt");
        let map = server.eventually(&map, |reply| reply.code == 200).await.ok();
        assert!(text(&map["data"]["ca.crt"]).starts_with("-----BEGIN CERTIFICATE"));
    }
    let account = "/api/v1/namespaces/shop/serviceaccounts/default";
    let uid = server.get(account).await.ok()["metadata"]["uid"].clone();
    server.delete(account).await.ok();
    server.eventually(account, |reply| reply.code == 200 && reply.json()["metadata"]["uid"] != uid).await;
    server.delete("/api/v1/namespaces/shop").await.ok();
    server.eventually("/api/v1/namespaces/shop", |reply| reply.code == 404).await;
}

#[tokio::test]
async fn a_pod_gets_its_account_and_a_place_for_the_token() {
    let server = Server::start().await;
    let made = server.post(PODS, &pod("a", &json!({}))).await.ok();
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    let volume = &made["spec"]["volumes"][0];
    assert!(text(&volume["name"]).starts_with("kube-api-access-"));
    assert_eq!(volume["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3607);
    let mount = &made["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    let made = server.post(PODS, &pod("b", &json!({ "automountServiceAccountToken": false }))).await.ok();
    assert_eq!(made["spec"].get("volumes"), None);
    let (code, _, message) =
        server.post(PODS, &pod("c", &json!({ "serviceAccountName": "robot" }))).await.refusal();
    assert_eq!(code, 403);
    assert_eq!(
        message,
        "pods \"c\" is forbidden: error looking up service account default/robot: serviceaccount \"robot\" not found"
    );
    let robot = json!({ "metadata": { "name": "robot" }, "automountServiceAccountToken": false });
    server.post(ACCOUNTS, &robot).await.ok();
    let made = server.post(PODS, &pod("c", &json!({ "serviceAccountName": "robot" }))).await.ok();
    assert_eq!((&made["spec"]["serviceAccount"], made["spec"].get("volumes")), (&json!("robot"), None));
}

#[tokio::test]
async fn a_token_says_who_and_for_whom() {
    let server = Server::start().await;
    server.eventually(&format!("{ACCOUNTS}/default"), |reply| reply.code == 200).await;
    let token = server.token(&admin(), &json!({})).await.unwrap();
    let review = server.review(&token, &[]).await;
    assert_eq!(review["authenticated"], true, "{review}");
    assert_eq!(review["user"]["username"], "system:serviceaccount:default:default");
    let groups = json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]);
    assert_eq!(review["user"]["groups"], groups);
    assert_eq!(review["audiences"], json!(["https://kubernetes.default.svc.cluster.local"]));
    let vault = server.token(&admin(), &json!({ "audiences": ["vault"] })).await.unwrap();
    assert_eq!(server.review(&vault, &[]).await.get("authenticated"), None);
    assert_eq!(server.review(&vault, &["vault", "other"]).await["audiences"], json!(["vault"]));
    assert_eq!(server.review("nonsense", &[]).await.get("authenticated"), None);
    let (code, message) = server.token(&admin(), &json!({ "expirationSeconds": 60 })).await.unwrap_err();
    assert_eq!(code, 422);
    assert!(message.contains("may not specify a duration less than 10 minutes"), "{message}");
    // The keys that check it are published, to accounts.
    let account = User::account("default", "default");
    let keys = server.send_as(&account, Method::GET, "/openid/v1/jwks", &Value::Null).await;
    assert_eq!(keys.ok()["keys"][0]["alg"], "ES256");
    let about =
        server.send_as(&account, Method::GET, "/.well-known/openid-configuration", &Value::Null).await;
    assert_eq!(about.ok()["jwks_uri"], "https://192.0.2.1:6443/openid/v1/jwks");
}

#[tokio::test]
async fn a_token_ends_with_its_account_and_its_pod() {
    let server = Server::start().await;
    server.post("/api/v1/nodes", &json!({ "metadata": { "name": "n1" } })).await.ok();
    let made = server
        .post(PODS, &pod("a", &json!({ "nodeName": "n1", "terminationGracePeriodSeconds": 0 })))
        .await
        .ok();
    let uid = text(&made["metadata"]["uid"]);
    let bound = |uid: &str| json!({ "boundObjectRef": { "kind": "Pod", "apiVersion": "v1", "name": "a", "uid": uid } });
    assert_eq!(server.token(&admin(), &bound("other")).await.unwrap_err().0, 409);
    // A node gets tokens for its own pods only.
    let node = |name: &str| User::new(format!("system:node:{name}"), ["system:nodes"]);
    let token = server.token(&node("n1"), &bound(&uid)).await.unwrap();
    let (code, message) = server.token(&node("n2"), &bound(&uid)).await.unwrap_err();
    assert!(code == 403 && message.ends_with("pod scheduled on a different node"), "{message}");
    assert_eq!(server.token(&node("n1"), &json!({})).await.unwrap_err().0, 403);
    let review = server.review(&token, &[]).await;
    assert_eq!(review["user"]["extra"]["authentication.kubernetes.io/pod-uid"], json!([uid]));
    assert_eq!(review["user"]["extra"]["authentication.kubernetes.io/node-name"], json!(["n1"]));
    server.delete(&format!("{PODS}/a?gracePeriodSeconds=0")).await.ok();
    let review = server.review(&token, &[]).await;
    assert_eq!(review.get("authenticated"), None);
    assert!(text(&review["error"]).contains("pod \"a\" is gone"), "{review}");
    // Another account of the same name is another.
    let token = server.token(&admin(), &json!({})).await.unwrap();
    assert_eq!(server.review(&token, &[]).await["authenticated"], true);
    let account = format!("{ACCOUNTS}/default");
    let uid = server.get(&account).await.ok()["metadata"]["uid"].clone();
    server.delete(&account).await.ok();
    server.eventually(&account, |reply| reply.code == 200 && reply.json()["metadata"]["uid"] != uid).await;
    assert_eq!(server.review(&token, &[]).await.get("authenticated"), None);
}

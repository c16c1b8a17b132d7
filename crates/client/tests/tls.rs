//! The client against a real TLS server: who it trusts, what it shows, and what it does when connections break.

mod server;

use std::path::Path;
use std::time::Duration;

use portolan_client::{Cache, Client, Error, Key, Selectors, cache, paths};
use serde::Deserialize;
use serde_json::{Value, json};
use server::{Server, TOKEN};

const H2: &[&str] = &["h2", "http/1.1"];
const H1: &[&str] = &["http/1.1"];
const CERTIFICATE: &str = "client-certificate: client.pem, client-key: client.key";
const CA: &str = "certificate-authority: ca.pem";

fn client(kubeconfig: &Path) -> Client {
    Client::from_kubeconfig(kubeconfig, "test/1").expect("a good kubeconfig")
}

fn put(server: &Server, name: &str, value: u64) {
    server.api.put(&paths::NODES, json!({ "metadata": { "name": name }, "spec": { "n": value } }));
}

async fn get(client: &Client) -> Result<Value, Error> {
    client.get(&paths::NODES, None, "n").await
}

#[tokio::test]
async fn client_certificates_and_tokens_are_shown() {
    for protocols in [H2, H1] {
        let server = Server::start("127.0.0.1", protocols).await;
        put(&server, "n", 1);
        std::fs::write(server.dir.path().join("token"), format!("{TOKEN}\n")).unwrap();
        for user in [CERTIFICATE, &format!("token: {TOKEN}"), "tokenFile: token"] {
            let node = get(&client(&server.kubeconfig(CA, user))).await.unwrap();
            assert_eq!(node["spec"]["n"], 1, "{user}");
        }
        let error = get(&client(&server.kubeconfig(CA, "token: wrong"))).await.unwrap_err();
        let status = error.status().unwrap();
        assert_eq!((status.code, status.message.as_str()), (401, "a proxy says: who are you?"));
    }
}

#[tokio::test]
async fn only_the_right_server_is_trusted() {
    let server = Server::start("api.example", H2).await;
    put(&server, "n", 1);
    let wrong_name = get(&client(&server.kubeconfig(CA, CERTIFICATE))).await.unwrap_err();
    let text = wrong_name.to_string();
    assert!(wrong_name.is_retryable() && text.contains("certificate"), "{text}");
    assert!(text.contains(&server.address.to_string()), "{text}");
    let named = format!("{CA}, tls-server-name: api.example");
    assert!(get(&client(&server.kubeconfig(&named, CERTIFICATE))).await.is_ok());
    let other = Server::start("127.0.0.1", H2).await;
    std::fs::copy(other.dir.path().join("ca.pem"), server.dir.path().join("other.pem")).unwrap();
    let other_ca = "certificate-authority: other.pem, tls-server-name: api.example";
    assert!(matches!(
        get(&client(&server.kubeconfig(other_ca, CERTIFICATE))).await,
        Err(Error::Transport(_))
    ));
    let insecure = "insecure-skip-tls-verify: true";
    assert!(get(&client(&server.kubeconfig(insecure, CERTIFICATE))).await.is_ok());
}

#[tokio::test]
async fn connections_are_reused() {
    for (protocols, connections) in [(H2, 1), (H1, 1)] {
        let server = Server::start("127.0.0.1", protocols).await;
        put(&server, "n", 1);
        let client = client(&server.kubeconfig(CA, CERTIFICATE));
        for _ in 0..10 {
            get(&client).await.unwrap();
        }
        assert_eq!(server.connection_count(), connections, "{protocols:?}");
    }
    let server = Server::start("127.0.0.1", H2).await;
    put(&server, "n", 1);
    let client = client(&server.kubeconfig(CA, CERTIFICATE));
    get(&client).await.unwrap();
    let caches: Vec<_> = (0..20).map(|_| nodes(&client)).collect();
    for cache in &caches {
        cache.synced().await;
    }
    assert_eq!(server.connection_count(), 1, "20 watches share the connection");
}

#[tokio::test]
async fn nobody_there_is_a_transport_error() {
    let server = Server::start("127.0.0.1", H2).await;
    let client = client(&server.kubeconfig(CA, CERTIFICATE));
    server.stop();
    let error = loop {
        // The listener closes when its task is dropped.
        match get(&client).await {
            Err(Error::Transport(text)) if text.contains("refused") => break text,
            _ => tokio::task::yield_now().await,
        }
    };
    assert!(error.contains(&server.address.to_string()), "{error}");
}

#[derive(Debug, Deserialize)]
struct Node {
    spec: Spec,
}

#[derive(Debug, Deserialize)]
struct Spec {
    n: u64,
}

fn nodes(client: &Client) -> Cache<Node> {
    Cache::start(client.clone(), paths::NODES, Selectors::default(), cache::json)
}

/// Wait until the cache holds this value for this name.
async fn until(cache: &Cache<Node>, name: &str, value: u64) {
    let mut dirty = cache.subscribe();
    let wait = async {
        while cache.get(&Key::new("", name)).is_none_or(|node| node.spec.n != value) {
            dirty.wait().await;
            dirty.take();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("arrives within 20 s");
}

#[tokio::test]
async fn a_cache_resumes_its_watch_after_the_server_has_been_away() {
    for protocols in [H2, H1] {
        let mut server = Server::start("127.0.0.1", protocols).await;
        put(&server, "a", 1);
        let cache = nodes(&client(&server.kubeconfig(CA, CERTIFICATE)));
        cache.synced().await;
        put(&server, "b", 1);
        until(&cache, "b", 1).await;
        server.stop();
        put(&server, "b", 2);
        assert_eq!(cache.len(), 2, "the old content is served meanwhile");
        server.restart().await;
        until(&cache, "b", 2).await;
        let lists = server.api.requests().iter().filter(|r| !r.contains("watch=1")).count();
        assert_eq!(lists, 1, "resumed, not listed again: {:?}", server.api.requests());
    }
}

#[tokio::test]
async fn a_cache_lists_again_when_its_version_is_too_old() {
    let mut server = Server::start("127.0.0.1", H2).await;
    put(&server, "kept", 1);
    put(&server, "gone", 1);
    let cache = nodes(&client(&server.kubeconfig(CA, CERTIFICATE)));
    cache.synced().await;
    let mut dirty = cache.subscribe();
    dirty.take();
    server.stop();
    server.api.remove(&paths::NODES, "", "gone");
    put(&server, "new", 1);
    server.api.expire();
    server.restart().await;
    until(&cache, "new", 1).await;
    let mut changed: Vec<_> = dirty.take().iter().map(|k| k.name.to_string()).collect();
    changed.sort();
    assert_eq!(changed, ["gone", "new"], "only real differences");
    assert_eq!(cache.len(), 2);
}

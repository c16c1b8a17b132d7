//! From binding to removal.

use std::time::{Duration, Instant};

use portolan_client::paths;
use serde_json::json;

use crate::node::{Node, eventually, http, until};

#[test]
fn a_pod_runs_in_its_namespace_and_answers() {
    let node = Node::start();
    node.run(
        "web",
        json!({"containers": [{"name": "web", "image": "portolan.dev/echo:v1", "args": ["--http", "80"]}]}),
    );
    let ip = node.wait_ready("web");
    assert!(ip.starts_with("10.88.1."), "{ip}");
    let (code, body) = eventually("an answer", || http(&node.ns.netns, "GET", &ip, 80, "/x").ok());
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(code, 200);
    assert_eq!((&body["name"], &body["namespace"], &body["ip"]), (&json!("web"), &json!("shop"), &json!(ip)));
    assert_eq!(body["node"], "node-a");
    assert!(body["peer"].as_str().unwrap().starts_with("192.0.2.1:"), "the node's own address: {body}");

    let status = node.status("web");
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["hostIP"], "192.0.2.1");
    assert_eq!(status["podIPs"], json!([{ "ip": ip }]));
    let container = node.container("web");
    assert!(container["state"]["running"]["startedAt"].is_string());
    assert!(container["containerID"].as_str().unwrap().starts_with("portolan://"));
    for type_ in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert_eq!(node.condition("web", type_)["status"], "True", "{type_}");
    }
    for reason in ["Pulled", "Created", "Started"] {
        until(reason, || node.events("web", reason).len() == 1);
    }
}

#[test]
fn a_deleted_pod_ends_gracefully_and_leaves_nothing() {
    let node = Node::start();
    let script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done";
    node.run(
        "job",
        json!({"containers": [{"name": "c", "image": "portolan.dev/host", "command": ["sh", "-c", script]}]}),
    );
    node.wait_ready("job");
    until("the trap is set", || node.log("job", "c", 0).contains("up"));
    assert_eq!(node.links().len(), 1);
    let dir = node.pod_dir("job");
    assert!(dir.join("netns").exists());
    node.delete("job", 30);
    let start = Instant::now();
    until("the pod is gone", || node.pod("job").is_none());
    assert!(start.elapsed() < Duration::from_secs(10), "it stopped by itself");
    until("its directory is gone", || !dir.exists());
    assert_eq!(node.links(), Vec::<String>::new());
    until("the event", || node.events("job", "Killing") == ["Stopping container c"]);
    let delete = "DELETE /api/v1/namespaces/shop/pods/job";
    assert!(node.api.writes().iter().any(|w| w == delete), "{:?}", node.api.writes());
}

#[test]
fn a_pod_that_does_not_stop_is_killed_after_its_grace_period() {
    let node = Node::start();
    let script = "trap '' TERM; echo up; while :; do sleep 0.01; done";
    node.run(
        "deaf",
        json!({"containers": [{"name": "c", "image": "portolan.dev/host", "command": ["sh", "-c", script]}]}),
    );
    node.wait_ready("deaf");
    until("the trap is set", || node.log("deaf", "c", 0).contains("up"));
    let start = Instant::now();
    node.delete("deaf", 1);
    let mut codes = Vec::new();
    until("the pod is gone", || {
        codes.extend(node.container("deaf")["state"]["terminated"]["exitCode"].as_i64());
        node.pod("deaf").is_none()
    });
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert!(codes.iter().all(|code| *code == 137), "{codes:?}");
}

#[test]
fn a_pod_whose_object_vanishes_is_ended() {
    let node = Node::start();
    node.run("web", json!({"containers": [{"name": "c", "image": "portolan.dev/echo"}]}));
    node.wait_ready("web");
    node.api.remove(&paths::PODS, "shop", "web");
    until("it is gone", || !node.pod_dir("web").exists());
    assert_eq!(node.links(), Vec::<String>::new());
    // One of the same name is another pod.
    let spec = json!({"nodeName": "node-a", "containers": [{"name": "c", "image": "portolan.dev/echo"}]});
    let metadata = json!({"name": "web", "namespace": "shop", "uid": "second"});
    node.api.put(&paths::PODS, json!({ "metadata": metadata, "spec": spec }));
    node.wait_ready("web");
}

#[test]
fn an_image_that_is_not_built_in_is_refused_with_the_reason() {
    let node = Node::start();
    node.run("web", json!({"containers": [{"name": "c", "image": "nginx:1.27"}]}));
    let message = "image \"nginx:1.27\" cannot be run: this node has no image store; only portolan.dev/echo is built in";
    until("the state", || {
        let waiting = &node.container("web")["state"]["waiting"];
        waiting["reason"] == "ErrImageNeverPull"
            && waiting["message"].as_str().unwrap_or_default().starts_with(message)
    });
    assert_eq!(node.status("web")["phase"], "Pending");
    until("the event", || node.events("web", "ErrImageNeverPull").iter().any(|m| m.starts_with(message)));
    node.delete("web", 30);
    until("it is deleted at once: there is nothing to stop", || node.pod("web").is_none());
}

#[test]
fn a_changed_image_restarts_the_container() {
    let node = Node::start();
    node.run("web", json!({"containers": [{"name": "c", "image": "nginx"}]}));
    until("it is refused", || node.container("web")["state"]["waiting"]["reason"] == "ErrImageNeverPull");
    let change = |image: &str| {
        let mut pod = node.pod("web").unwrap();
        pod["spec"]["containers"][0]["image"] = image.into();
        node.api.put(&paths::PODS, pod);
    };
    change("portolan.dev/echo:1");
    node.wait_ready("web");
    assert_eq!(node.container("web")["restartCount"].as_i64().unwrap_or(0), 0);
    change("portolan.dev/echo:2");
    until("it runs the new one", || {
        let container = node.container("web");
        container["image"] == "portolan.dev/echo:2" && container["restartCount"] == 1
    });
    node.wait_ready("web");
}

#[test]
fn a_hook_runs_before_the_container_is_asked_to_stop() {
    let node = Node::start();
    let said = node.data.path().join("said");
    let said = said.display();
    let script = format!("trap 'cat {said}; echo term; exit 0' TERM; echo up; while :; do sleep 0.01; done");
    let hook = json!({"preStop": {"exec": {"command": ["sh", "-c", format!("echo hook > {said}")]}}});
    node.run(
        "web",
        json!({"containers": [
        {"name": "c", "image": "portolan.dev/host", "command": ["sh", "-c", script], "lifecycle": hook}]}),
    );
    until("the trap is set", || node.log("web", "c", 0).contains("up"));
    node.delete("web", 30);
    let mut seen = String::new();
    until("it is gone", || {
        let log = node.log("web", "c", 0);
        if !log.is_empty() {
            seen = log;
        }
        node.pod("web").is_none()
    });
    assert!(seen.starts_with("up\nhook"), "{seen}");
}

#[test]
fn sidecars_start_first_and_stop_last() {
    let node = Node::start();
    let file = node.data.path().join("order");
    let script = |name: &str| {
        let file = file.display();
        format!(
            "echo {name} up >> {file}; trap 'sleep 0.05; echo {name} down >> {file}; exit 0' TERM; while :; do sleep 0.01; done"
        )
    };
    let container = |name: &str| json!({"name": name, "image": "portolan.dev/host", "command": ["sh", "-c", script(name)]});
    let mut side = container("side");
    side["restartPolicy"] = "Always".into();
    // It has started when it says so.
    side["startupProbe"] = json!({"exec": {"command": ["grep", "side", file]}});
    node.run("duo", json!({"initContainers": [side], "containers": [container("main")]}));
    node.wait_ready("duo");
    let order = || std::fs::read_to_string(&file).unwrap_or_default();
    until("both are up", || order().lines().count() == 2);
    node.delete("duo", 30);
    until("it is gone", || node.pod("duo").is_none());
    assert_eq!(order(), "side up\nmain up\nmain down\nside down\n");
}

#[test]
fn containers_share_the_network_and_know_their_pod() {
    let node = Node::start();
    let script = "echo $NAME $IP $NODE $HOSTNAME; hostname; ls /sys/class/net >/dev/null; \
                  exec 3<>/dev/tcp/127.0.0.1/8080; cat /proc/sys/kernel/hostname; exec sleep 1000";
    let env = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    node.run("duo", json!({"containers": [
        {"name": "web", "image": "portolan.dev/echo"},
        {"name": "client", "image": "portolan.dev/host", "command": ["bash", "-c"], "args": [script], "workingDir": "/",
         "env": [env("NAME", "metadata.name"), env("IP", "status.podIP"), env("NODE", "spec.nodeName")]},
    ]}));
    let ip = node.wait_ready("duo");
    until("the output", || node.log("duo", "client", 0).lines().count() >= 2);
    let log = node.log("duo", "client", 0);
    assert!(log.starts_with(&format!("duo {ip} node-a duo\nduo\n")), "{log}");
}

#[test]
fn init_containers_run_first() {
    let node = Node::start();
    let file = node.data.path().join("made-by-init");
    let write = format!("echo ready > {}", file.display());
    let read = format!("cat {}; exec sleep 1000", file.display());
    node.run("app", json!({
        "initContainers": [{"name": "init", "image": "portolan.dev/host", "command": ["sh", "-c", write]}],
        "containers": [{"name": "c", "image": "portolan.dev/host", "command": ["sh", "-c", read]}],
    }));
    node.wait_ready("app");
    until("the file is read", || node.log("app", "c", 0) == "ready\n");
    assert_eq!(node.status("app")["initContainerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
}

#[test]
fn jobs_end_by_their_exit_code() {
    let node = Node::start();
    let job = |code: u8| {
        json!({"restartPolicy": "Never", "containers": [
        {"name": "c", "image": "portolan.dev/host", "command": ["sh", "-c", format!("exit {code}")]}]})
    };
    node.run("good", job(0));
    node.run("bad", job(3));
    until("the good one", || node.status("good")["phase"] == "Succeeded");
    until("the bad one", || node.status("bad")["phase"] == "Failed");
    assert_eq!(node.container("bad")["state"]["terminated"]["exitCode"], 3);
    assert_eq!(node.condition("bad", "Ready")["reason"], "PodFailed");
    until("their networks are gone", || node.links().is_empty());
    assert!(node.pod("bad").is_some(), "the object stays until it is deleted");
    node.delete("bad", 0);
    until("it is deleted", || node.pod("bad").is_none());
}

#[test]
fn a_pod_on_the_nodes_network_has_the_nodes_address() {
    let node = Node::start();
    node.run(
        "host",
        json!({"hostNetwork": true, "containers": [
        {"name": "c", "image": "portolan.dev/echo", "args": ["--http", "7070"],
         "readinessProbe": {"httpGet": {"port": 7070}}}]}),
    );
    assert_eq!(node.wait_ready("host"), "192.0.2.1");
    assert!(http(&node.ns.netns, "GET", "192.0.2.1", 7070, "/").is_ok());
    assert_eq!(node.links(), Vec::<String>::new());
    node.delete("host", 5);
    until("it is gone", || node.pod("host").is_none());
    assert!(http(&node.ns.netns, "GET", "192.0.2.1", 7070, "/").is_err());
}

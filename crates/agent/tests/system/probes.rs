//! Readiness, liveness and startup.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::node::{Node, condition_of, http, until};

#[test]
fn readiness_turns_with_the_probe() {
    let node = Node::start();
    let probe =
        json!({"httpGet": {"path": "/ready", "port": "web"}, "periodSeconds": 1, "failureThreshold": 1});
    node.run(
        "web",
        json!({"containers": [
        {"name": "web", "image": "portolan.dev/echo", "ports": [{"name": "web", "containerPort": 8080}],
         "readinessProbe": probe}]}),
    );
    let start = Instant::now();
    let ip = node.wait_ready("web");
    assert!(start.elapsed() < Duration::from_secs(5), "long before a second period");

    http(&node.ns.netns, "POST", &ip, 8080, "/ready?value=false").unwrap();
    until("it is unready", || !node.is_ready("web"));
    let condition = node.condition("web", "Ready");
    assert_eq!(condition["reason"], "ContainersNotReady");
    assert_eq!(condition["message"], "containers with unready status: [web]");
    assert_eq!(node.status("web")["phase"], "Running");
    let text = "Readiness probe failed: HTTP probe failed with statuscode: 503";
    until("the event", || node.events("web", "Unhealthy").iter().any(|m| m == text));

    http(&node.ns.netns, "POST", &ip, 8080, "/ready?value=true").unwrap();
    node.wait_ready("web");
    assert_eq!(node.container("web")["restartCount"].as_i64().unwrap_or(0), 0);
}

#[test]
fn a_connection_or_a_command_can_be_the_probe() {
    let node = Node::start();
    let file = node.data.path().join("ok");
    let tcp = json!({"tcpSocket": {"port": 9000}, "periodSeconds": 1});
    let command = ["sh", "-c", &format!("test -e {} && ip addr show eth0", file.display())];
    let exec = json!({"exec": {"command": command}, "periodSeconds": 1});
    let pod = |probe| {
        json!({"containers": [
        {"name": "c", "image": "portolan.dev/echo", "args": ["--tcp", "9000"], "readinessProbe": probe}]})
    };
    node.run("tcp", pod(tcp));
    node.run("exec", pod(exec));
    node.wait_ready("tcp");
    until("the failed command is told", || !node.events("exec", "Unhealthy").is_empty());
    assert!(!node.is_ready("exec"));
    std::fs::write(&file, "").unwrap();
    node.wait_ready("exec");
}

#[test]
fn a_failed_liveness_probe_restarts_the_container() {
    let node = Node::start();
    let probe = json!({"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1, "failureThreshold": 2,
                       "initialDelaySeconds": 1});
    node.run(
        "web",
        json!({"containers": [{"name": "c", "image": "portolan.dev/echo", "livenessProbe": probe}]}),
    );
    let ip = node.wait_ready("web");
    until("it serves", || http(&node.ns.netns, "POST", &ip, 8080, "/ready?value=false").is_ok());
    until("it is restarted", || node.container("web")["restartCount"] == 1);
    node.wait_ready("web");
    let text = "Container c failed liveness probe, will be restarted";
    until("the event", || node.events("web", "Killing").iter().any(|m| m == text));
    assert_eq!(node.status("web")["podIP"], ip, "the pod keeps its address");
}

#[test]
fn startup_holds_the_others_back() {
    let node = Node::start();
    let file = node.data.path().join("started");
    let startup =
        json!({"exec": {"command": ["test", "-e", file]}, "periodSeconds": 1, "failureThreshold": 60});
    let never = json!({"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1});
    let ready = json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1});
    node.run(
        "slow",
        json!({"containers": [
        {"name": "c", "image": "portolan.dev/echo", "startupProbe": startup, "readinessProbe": ready,
         "livenessProbe": {"exec": never["exec"], "initialDelaySeconds": 3600}}]}),
    );
    until("the startup probe has failed", || !node.events("slow", "Unhealthy").is_empty());
    assert_eq!(node.container("slow")["started"], false);
    assert_ne!(node.container("slow")["ready"], true);
    std::fs::write(&file, "").unwrap();
    node.wait_ready("slow");
    assert_eq!(node.container("slow")["started"], true);
}

#[test]
fn a_deleted_pod_stays_ready_while_its_probe_passes() {
    let node = Node::start();
    let script = "trap '' TERM; echo up; while :; do sleep 0.01; done";
    node.run(
        "web",
        json!({"containers": [
        {"name": "c", "image": "portolan.dev/host", "command": ["sh", "-c", script],
         "readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1}}]}),
    );
    node.wait_ready("web");
    until("the trap is set", || node.log("web", "c", 0).contains("up"));
    node.delete("web", 2);
    let mut seen = Vec::new();
    until("it is gone", || {
        let status = node.status("web");
        if status["phase"] == "Running" {
            seen.push(condition_of(&status, "Ready")["status"] == "True");
        }
        node.pod("web").is_none()
    });
    assert!(seen.len() > 10 && seen.iter().all(|ready| *ready), "{seen:?}");
}

//! Containers that end, and agents that end.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use portolan_client::paths;
use portolan_netlink::netns::Netns;
use serde_json::json;

use crate::node::{Agent, Node, http, until};

#[test]
fn a_container_that_ends_is_restarted_with_growing_waits() {
    let node = Node::start();
    let start = Instant::now();
    node.run(
        "crash",
        json!({"containers": [
        {"name": "c", "image": "portolan.dev/host", "command": ["sh", "-c", "echo run; exit 7"]}]}),
    );
    until("it waits", || node.container("crash")["state"]["waiting"]["reason"] == "CrashLoopBackOff");
    let last = node.container("crash")["lastState"]["terminated"].clone();
    assert_eq!((&last["exitCode"], &last["reason"]), (&json!(7), &json!("Error")));
    until("the third restart", || node.container("crash")["restartCount"] == 3);
    // At once, then after 300 ms and 600 ms.
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    let text = "Back-off restarting failed container c in pod crash_shop(uid-crash)";
    until("the event", || node.events("crash", "BackOff").iter().any(|m| m == text));
    assert_eq!(node.status("crash")["phase"], "Running");
    assert_eq!(node.log("crash", "c", 3), "run\n");
    assert_eq!(node.log("crash", "c", 0), "", "old logs go");
}

#[test]
fn a_program_that_is_not_there_says_so() {
    let node = Node::start();
    node.run(
        "typo",
        json!({"restartPolicy": "Never", "containers": [
        {"name": "c", "image": "portolan.dev/host", "command": ["no-such-program"]}]}),
    );
    until("it has failed", || node.status("typo")["phase"] == "Failed");
    let terminated = node.container("typo")["state"]["terminated"].clone();
    assert_eq!((&terminated["exitCode"], &terminated["reason"]), (&json!(128), &json!("StartError")));
    let message =
        "failed to start container \"c\": exec: \"no-such-program\": executable file not found in $PATH";
    assert_eq!(terminated["message"], message);
}

#[test]
fn a_stopped_agent_leaves_no_process_and_its_pods_run_again() {
    let mut node = Node::start();
    node.run("web", json!({"containers": [{"name": "c", "image": "portolan.dev/echo"}]}));
    let ip = node.wait_ready("web");
    node.agent.stop();
    assert_eq!(node.ns.netns.processes(), Vec::<u32>::new());
    assert_eq!(node.links(), Vec::<String>::new());
    assert!(!node.is_ready("web"), "nobody serves any more");
    assert_eq!(node.status("web")["phase"], "Running", "but it is not over");

    node.agent = Agent::start(&node.ns.netns, &node.api, node.config.clone());
    until("it runs again", || node.container("web")["restartCount"] == 1);
    assert_eq!(node.wait_ready("web"), ip, "with its address");
    until("it answers", || http(&node.ns.netns, "GET", &ip, 8080, "/").is_ok());
}

#[test]
fn what_a_crashed_agent_left_is_removed() {
    let mut node = Node::start();
    node.agent.stop();
    // As a crash leaves it: a namespace with a process in it, and one outside noted by its number.
    let dir = node.pod_dir("ghost");
    std::fs::create_dir_all(dir.join("pids")).unwrap();
    let netns = Netns::create(&dir.join("netns")).unwrap();
    let mut inside = netns.run(|| Command::new("sleep").arg("1000").spawn().unwrap()).unwrap();
    let mut noted = std::os::unix::process::CommandExt::process_group(Command::new("sleep").arg("1000"), 0)
        .spawn()
        .unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", noted.id())).unwrap();
    let started = stat[stat.rfind(')').unwrap() + 1..].split_whitespace().nth(19).unwrap().to_owned();
    std::fs::write(dir.join("pids").join("c"), format!("{} {started}", noted.id())).unwrap();
    // Another process has the number by now: not ours to kill.
    std::fs::write(dir.join("pids").join("d"), format!("{} 1", std::process::id())).unwrap();
    assert_eq!(std::fs::metadata(format!("/proc/{}/ns/net", inside.id())).unwrap().ino(), {
        std::fs::metadata(dir.join("netns")).unwrap().ino()
    });

    node.agent = Agent::start(&node.ns.netns, &node.api, node.config.clone());
    assert!(!inside.wait().unwrap().success());
    assert!(!noted.wait().unwrap().success());
    until("the directory is gone", || !dir.exists());
}

#[test]
fn processes_die_with_a_killed_agent() {
    // The agent's spawner thread ends with its process; here, with its agent.
    let node = Node::start();
    node.run("web", json!({"containers": [{"name": "c", "image": "portolan.dev/echo"}]}));
    node.wait_ready("web");
    let netns = Netns::open(&node.pod_dir("web").join("netns")).unwrap();
    let [pid] = netns.processes()[..] else { panic!("one process") };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Name:\tportolan-echo"), "{status}");
    drop(node);
    until("its process is gone", || netns.processes().is_empty());
}

#[test]
fn a_second_agent_on_the_directory_is_refused() {
    let node = Node::start();
    until("the first one works", || node.data.path().join("agent.lock").exists());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    node.run("x", json!({"containers": []}));
    until("it is running", || !node.api.all(&paths::LEASES).is_empty());
    let second = portolan_agent::run(node.api.client(), node.config.clone(), std::future::pending());
    let error = runtime.block_on(second).unwrap_err().to_string();
    assert!(error.contains("another agent is running on this data directory"), "{error}");
}

//! Containers that end, and agents that end.

use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use portolan_agent::Config;
use portolan_client::paths;
use portolan_client::testing::FakeApi;
use portolan_netlink::netns::Netns;
use portolan_netlink::rt::Rt;
use serde_json::json;

use crate::node::{Agent, Namespace, Node, eventually, http, until};

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
    until("the output of that run", || node.log("crash", "c", 3) == "run\n");
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

/// Name the directory and the namespace of [`the_agent_to_be_killed`].
const VICTIM: &str = "PORTOLAN_TEST_VICTIM";
const VICTIM_NODE: &str = "PORTOLAN_TEST_VICTIM_NODE";

/// Killed also when its test fails before that.
struct Victim(Child);

impl Victim {
    fn kill(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Not a test of its own: the process that the next one kills.
#[test]
#[ignore = "run by processes_die_with_a_killed_agent"]
fn the_agent_to_be_killed() {
    let Ok(dir) = std::env::var(VICTIM) else { return };
    let netns = Netns::open(std::env::var(VICTIM_NODE).unwrap().as_ref()).unwrap();
    let api = FakeApi::new();
    Node::give_range(&api, "node-a", 1);
    let mut config = Config::new("node-a", [192, 0, 2, 1].into(), dir, env!("CARGO_BIN_EXE_portolan-echo"));
    config.labels.insert("victim".into(), "true".into());
    let _agent = Agent::start(&netns, &api, config);
    let containers =
        json!([{"name": "c", "image": "portolan.dev/host", "command": ["sh", "-c", "sleep 1000 & wait"]}]);
    let metadata = json!({"name": "web", "namespace": "shop", "uid": "1"});
    let spec = json!({"nodeName": "node-a", "containers": containers});
    api.put(&paths::PODS, json!({ "metadata": metadata, "spec": spec }));
    loop {
        std::thread::park();
    }
}

#[test]
fn processes_die_with_a_killed_agent() {
    let dir = tempfile::tempdir().unwrap();
    let ns = Namespace::new();
    let victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "restart::the_agent_to_be_killed", "--ignored"])
        .env(VICTIM, dir.path())
        .env(VICTIM_NODE, ns.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut victim = Victim(victim);
    let pod = dir.path().join("pods").join("shop_web");
    let netns = eventually("the pod's namespace", || Netns::open(&pod.join("netns")).ok());
    until("a shell and its child run", || netns.processes().len() == 2);
    let shell = eventually("the process is noted", || {
        let noted = std::fs::read_to_string(pod.join("pids").join("c")).ok()?;
        noted.split_once(' ')?.0.parse::<u32>().ok()
    });
    victim.kill();
    until("the container's first process is gone", || !netns.processes().contains(&shell));

    // What that one had started is found by the next agent, which knows no pods at all.
    let api = FakeApi::new();
    let config =
        Config::new("node-a", [192, 0, 2, 1].into(), dir.path(), env!("CARGO_BIN_EXE_portolan-echo"));
    let mut agent = Agent::start(&ns.netns, &api, config);
    until("nothing of the pod is left", || netns.processes().is_empty() && !pod.exists());
    agent.stop();
    let links = Rt::open_in(&ns.netns).unwrap().links().unwrap();
    assert!(links.iter().all(|link| link.name == "lo"), "{links:?}");
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

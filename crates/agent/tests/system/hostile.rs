//! Containers and probes that misbehave: they print without end, hang, flap, and leave processes behind.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::node::{Node, until};

fn shell(script: &str) -> Value {
    json!({"name": "c", "image": "portolan.dev/host", "command": ["sh", "-c", script]})
}

fn pod(container: &Value) -> Value {
    json!({"containers": [container]})
}

/// A pod that behaves, which must not notice the others.
fn bystander(node: &Node) {
    let probe = json!({"exec": {"command": ["true"]}, "periodSeconds": 1});
    node.run("good", pod(&json!({"name": "c", "image": "portolan.dev/echo", "readinessProbe": probe})));
    node.wait_ready("good");
}

fn command_lines(marker: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(marker)).count()
}

#[test]
fn output_without_end_stays_within_its_bounds() {
    const KEPT: u64 = 2 * (10 << 20);
    let node = Node::start();
    node.run("lines", pod(&shell("yes a line that never ends >&2")));
    // One line of any length, out of nothing but zeros.
    node.run("line", pod(&shell("cat /dev/zero")));
    for name in ["lines", "line"] {
        let (log, full) = (node.log_path(name, "c", 0), node.log_path(name, "c", 0).with_extension("log.1"));
        until(&format!("the first file of {name} is full"), || full.exists());
        if name == "line" {
            let first = std::fs::metadata(&full).unwrap().ino();
            until("and the second", || std::fs::metadata(&full).is_ok_and(|meta| meta.ino() != first));
        }
        let len = |path| std::fs::metadata(path).map(|meta| meta.len()).unwrap_or_default();
        assert!(len(&log) + len(&full) <= KEPT);
    }
    bystander(&node);
    for name in ["lines", "line"] {
        node.delete(name, 1);
        until("it ends all the same", || node.pod(name).is_none());
    }
}

#[test]
fn the_last_words_of_a_container_are_in_its_log() {
    let node = Node::start();
    let mut spec =
        pod(&shell("head -c 200000 /dev/zero | tr '\\0' x; echo; echo the end; printf 'no newline'"));
    spec["restartPolicy"] = "Never".into();
    node.run("job", spec);
    until("it is over", || node.status("job")["phase"] == "Succeeded");
    let log = node.log("job", "c", 0);
    assert!(log.ends_with("x\nthe end\nno newline"), "{:?}", &log[log.len().saturating_sub(50)..]);
    assert_eq!(log.len(), 200_000 + "\nthe end\nno newline".len());
}

#[test]
fn a_probe_that_prints_megabytes_is_judged_by_its_exit_code() {
    let node = Node::start();
    let script = "head -c 3000000 /dev/zero | tr '\\0' x; exit 1";
    let probe =
        |script| json!({"exec": {"command": ["sh", "-c", script]}, "periodSeconds": 1, "timeoutSeconds": 20});
    let mut bad = shell("exec sleep 1000");
    bad["readinessProbe"] = probe(script);
    node.run("bad", pod(&bad));
    until("its failure is told", || !node.events("bad", "Unhealthy").is_empty());
    let longest = node.events("bad", "Unhealthy").iter().map(String::len).max().unwrap();
    assert!((1000..11 << 10).contains(&longest), "an event of {longest} bytes");

    let mut good = shell("exec sleep 1000");
    good["readinessProbe"] = probe(&script.replace("exit 1", "exit 0"));
    node.run("loud", pod(&good));
    node.wait_ready("loud");
}

#[test]
fn what_a_probe_leaves_behind_neither_holds_it_up_nor_outlives_the_container() {
    let node = Node::start();
    let marker = format!("1000.{}", std::process::id());
    let probe = json!({"exec": {"command": ["sh", "-c", format!("setsid sleep {marker} & sleep 0.1; exit 0")]},
                       "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 1});
    let stop = node.data.path().join("stop");
    let mut container = shell(&format!("until test -e {}; do sleep 0.02; done; exit 1", stop.display()));
    container["readinessProbe"] = probe;
    let mut spec = pod(&container);
    spec["restartPolicy"] = "Never".into();
    node.run("web", spec);
    node.wait_ready("web");
    until("probes leave processes", || command_lines(&marker) >= 2);
    assert!(node.is_ready("web") && node.events("web", "Unhealthy").is_empty());
    std::fs::write(&stop, "").unwrap();
    until("it is over", || node.status("web")["phase"] == "Failed");
    assert_eq!(command_lines(&marker), 0);
}

#[test]
fn processes_that_left_the_session_end_with_their_container() {
    let node = Node::start();
    let marker = format!("2000.{}", std::process::id());
    // Each leaves a daemon of its own session; on the node's network, where no namespace of the network tells it.
    let mut spec = pod(&shell(&format!("setsid sleep {marker} & sleep 0.1; exit 0")));
    (spec["hostNetwork"], spec["restartPolicy"]) = (true.into(), "Never".into());
    node.run("daemon", spec);
    until("it is over", || node.status("daemon")["phase"] == "Succeeded");
    assert_eq!(command_lines(&marker), 0);
}

/// Two chains of processes, each link in a session of its own that starts the next one and ends.
#[test]
fn a_container_that_forks_without_end_is_ended() {
    let node = Node::start();
    let marker = format!("fork{}", std::process::id());
    let link = "sleep 0.05; setsid sh -c \"$1\" $2 \"$1\" $2 & :";
    let mut container = shell("");
    container["command"] = json!(["sh", "-c", format!("{link}; {link}; sleep 1000"), &marker, link, &marker]);
    node.run("bomb", pod(&container));
    until("it forks", || command_lines(&marker) > 3);
    node.delete("bomb", 1);
    until("it is gone", || node.pod("bomb").is_none());
    assert_eq!(command_lines(&marker), 0);
}

#[test]
fn probes_that_hang_hold_up_nobody() {
    let node = Node::start();
    let hangs = json!({"exec": {"command": ["sh", "-c", "trap '' TERM; sleep 1000"]}, "periodSeconds": 1});
    for n in 0..20 {
        let mut container = shell("exec sleep 1000");
        container["readinessProbe"] = hangs.clone();
        node.run(&format!("hangs-{n}"), pod(&container));
    }
    until("all are told of", || (0..20).all(|n| !node.events(&format!("hangs-{n}"), "Unhealthy").is_empty()));
    let said = node.events("hangs-7", "Unhealthy");
    assert!(said[0].contains("timed out after 1s"), "{said:?}");
    bystander(&node);
}

#[test]
fn a_probe_that_flaps_is_followed() {
    let node = Node::start();
    let file = node.data.path().join("turn");
    let script = format!("test -e {0} && rm {0} && exit 1; touch {0}", file.display());
    let probe = json!({"exec": {"command": ["sh", "-c", script]}, "periodSeconds": 1, "failureThreshold": 1});
    let mut container = shell("exec sleep 1000");
    container["readinessProbe"] = probe;
    node.run("flaps", pod(&container));
    for _ in 0..2 {
        until("ready", || node.is_ready("flaps"));
        until("unready", || !node.is_ready("flaps"));
    }
    // Its writes do not pile up: the pod goes at once.
    node.delete("flaps", 1);
    let begin = std::time::Instant::now();
    until("it is gone", || node.pod("flaps").is_none());
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_fork_bomb_meets_the_pods_limit_and_nobody_else_notices() {
    const MOST: usize = 40;
    let node = Node::start_limited(MOST as u32);
    bystander(&node);
    let marker = "a-bomb-of-its-own";
    let bomb =
        format!("bomb() {{ bomb {marker} & bomb {marker} & wait; }}; while :; do (bomb {marker}); done");
    node.run(
        "bomb",
        pod(&json!({"name": "c", "image": "portolan.dev/host", "command": ["sh", "-c", bomb, marker]})),
    );
    let told = || node.events("bomb", "PidsLimitReached");
    until("the user is told", || !told().is_empty());
    assert!(told()[0].contains("as it may, 40"), "{:?}", told());
    for _ in 0..100 {
        let count = command_lines(marker);
        assert!(count <= MOST, "{count} processes");
    }
    // A second container of its size has all the room that it wants: the limit is each pod's own.
    node.run("other", pod(&shell("for n in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done; wait")));
    node.wait_ready("other");
    assert!(node.is_ready("good") && node.events("other", "PidsLimitReached").is_empty());
    node.delete("bomb", 1);
    until("the bomb ends", || node.pod("bomb").is_none() && command_lines(marker) == 0);
    assert_eq!(told().len(), 1, "once is enough");
}

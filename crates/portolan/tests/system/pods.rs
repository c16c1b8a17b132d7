//! What people ask of a pod by name: its logs, and a command beside it. By the real kubectl, through the API server, to
//! the agent of another host.

use std::io::{BufRead, BufReader, Read as _};
use std::process::{Command, Output, Stdio};

use portolan_lab::Host;

use crate::bed::{Bed, PATIENCE};
use crate::gate::{Gate, WEBSOCKET};

/// Says this and that, then what it is told to.
fn talker(name: &str, end: &str) -> String {
    format!(
        r#"---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: talk}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: portolan.dev/host
    command: [sh, -c, "echo one; echo two >&2; echo three; {end}"]
  - {{name: side, image: portolan.dev/host, command: [sh, -c, "echo aside; echo b-side; exec sleep 1000"]}}
"#
    )
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn fails(bed: &Bed, args: &[&str]) -> String {
    let output = bed.kubectl().output(args, "").unwrap();
    assert!(!output.status.success(), "{args:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

/// Waits until the logs of a container are so.
fn until_logs(bed: &Bed, args: &[&str], so: impl Fn(&str) -> bool) -> String {
    let begin = std::time::Instant::now();
    loop {
        let output = bed.kubectl().output(args, "").unwrap();
        let seen = text(&output.stdout);
        if so(&seen) {
            return seen;
        }
        assert!(begin.elapsed() < PATIENCE, "{args:?} says {seen:?} {}", text(&output.stderr));
    }
}

#[test]
fn logs_are_shown_as_they_are_asked_for() {
    let bed = Bed::up(1);
    bed.apply(&talker("talk", "exec sleep 1000"));
    bed.wait_ready("app=talk");
    let logs = |more: &[&str]| bed.run(&[&["logs", "talk", "-c", "main"], more].concat());
    until_logs(&bed, &["logs", "talk", "-c", "main"], |seen| seen.lines().count() == 3);
    // Between the two streams there is no order, within one there is.
    let side = |more: &[&str]| bed.run(&[&["logs", "talk", "-c", "side"], more].concat());
    until_logs(&bed, &["logs", "talk", "-c", "side"], |seen| seen.lines().count() == 2);
    assert_eq!(side(&["--tail=1"]), "b-side\n");
    assert_eq!(side(&["--tail=1", "--limit-bytes=3"]), "b-s");
    let stamped = logs(&["--timestamps"]);
    assert!(stamped.lines().all(|line| line.split_once(' ').unwrap().0.ends_with('Z')), "{stamped}");
    for word in ["one", "two", "three"] {
        assert!(stamped.contains(&format!("Z {word}\n")), "{stamped}");
    }
    let first = stamped.lines().map(|line| line.split(' ').next().unwrap()).min().unwrap().to_owned();
    assert_eq!(logs(&[&format!("--since-time={first}")]).lines().count(), 3);
    assert_eq!(logs(&["--since-time=2100-01-01T00:00:00Z"]), "");
    let all = bed.run(&["logs", "-l", "app=talk", "--all-containers", "--prefix"]);
    assert!(all.contains("[pod/talk/main] one") && all.contains("[pod/talk/side] aside"), "{all}");

    let missing = fails(&bed, &["logs", "talk", "-c", "none"]);
    assert!(missing.contains("container none is not valid for pod talk"), "{missing}");
    let raw = fails(&bed, &["get", "--raw", "/api/v1/namespaces/default/pods/talk/log"]);
    let want = "a container name must be specified for pod talk, choose one of: [main side]";
    assert!(raw.contains(want), "{raw}");
    let raw = fails(
        &bed,
        &["get", "--raw", "/api/v1/namespaces/default/pods/talk/log?container=main&tailLines=-1"],
    );
    assert!(raw.contains("tailLines: Invalid value: -1: must be greater than or equal to 0"), "{raw}");
    let previous = fails(&bed, &["logs", "talk", "-c", "main", "--previous"]);
    assert!(
        previous.contains("previous terminated container \"main\" in pod \"talk\" not found"),
        "{previous}"
    );
    bed.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: alien}, spec: {containers: [{name: c, image: nginx}]}}",
    );
    bed.until_field("pod alien", "{.status.containerStatuses[0].state.waiting.reason}", |reason| {
        reason == "ErrImageNeverPull"
    });
    let waiting = fails(&bed, &["logs", "alien"]);
    assert!(waiting.contains("is waiting to start: ErrImageNeverPull"), "{waiting}");
}

#[test]
fn logs_are_followed_to_the_end_and_kept_of_the_run_before() {
    let bed = Bed::up(1);
    let kubectl = bed.kubectl();
    let host = bed.lab.host(Host::ControlPlane).unwrap();
    bed.apply(&talker("talk", "while [ ! -e /tmp/$HOSTNAME.go ]; do sleep 0.1; done; echo last"));
    bed.wait_ready("app=talk");
    let mut command = kubectl.command(&["logs", "-f", "talk", "-c", "main"]);
    command.stdout(Stdio::piped());
    let mut child = host.run(|| command.spawn()).unwrap().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(["one", "two"].contains(&lines.next().unwrap().as_str()));
    let flag = std::path::Path::new("/tmp/talk.go");
    std::fs::write(flag, "").unwrap();
    let rest: Vec<String> = lines.collect();
    assert!(child.wait().unwrap().success());
    assert_eq!(rest.last().map(String::as_str), Some("last"), "{rest:?}");
    bed.until_field("pod talk", "{.status.containerStatuses[?(@.name==\"main\")].restartCount}", |count| {
        count != "0"
    });
    std::fs::remove_file(flag).unwrap();
    let before = bed.run(&["logs", "talk", "-c", "main", "--previous"]);
    assert!(before.ends_with("last\n"), "{before}");
}

/// What carries a session. Old kubectls speak SPDY whatever they are told; new ones websockets, unless told otherwise.
const CARRIERS: [(&str, &str); 2] =
    [("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "true"), ("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false")];

fn exec(bed: &Bed, carrier: (&str, &str), args: &[&str], input: &str) -> Output {
    let kubectl = bed.kubectl();
    let mut command = kubectl.command(&[&["exec"], args].concat());
    command.env(carrier.0, carrier.1);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let host = bed.lab.host(Host::ControlPlane).unwrap();
    let mut child = host.run(|| command.spawn()).unwrap().unwrap();
    let input = input.to_owned();
    let mut stdin = child.stdin.take().unwrap();
    let writing = std::thread::spawn(move || drop(std::io::Write::write_all(&mut stdin, input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    output
}

#[test]
fn commands_run_beside_a_container() {
    let bed = Bed::up(1);
    bed.apply(&talker("talk", "exec sleep 1000"));
    bed.wait_ready("app=talk");
    for carrier in CARRIERS {
        commands_run(&bed, carrier);
    }
}

fn commands_run(bed: &Bed, carrier: (&str, &str)) {
    let side = |args: &[&str], input: &str| {
        exec(bed, carrier, &[&["-i", "talk", "-c", "side", "--"], args].concat(), input)
    };
    let both = side(&["sh", "-c", "echo out; echo err >&2; exit 3"], "");
    assert_eq!((both.status.code(), text(&both.stdout)), (Some(3), "out\n".into()), "{}", text(&both.stderr));
    assert!(text(&both.stderr).starts_with("err\n"), "{}", text(&both.stderr));
    let hostname = side(&["sh", "-c", "hostname; ls /sys/class/net | tr '\\n' ' '"], "");
    let seen = text(&hostname.stdout);
    assert!(seen.starts_with("talk\n"), "it is in the pod's namespaces: {seen}");
    // More than any buffer on the way holds, both ways.
    let much = "0123456789abcdef".repeat(200_000);
    let echoed = side(&["cat"], &much);
    assert!(echoed.status.success() && echoed.stdout == much.as_bytes(), "{}", text(&echoed.stderr));
    let none = side(&["nosuch"], "");
    assert!(text(&none.stderr).contains("executable file not found in $PATH"), "{}", text(&none.stderr));
    let none = exec(bed, carrier, &["talk", "-c", "none", "--", "true"], "");
    let said = text(&none.stderr);
    assert!(said.contains("container none is not valid for pod talk"), "{said}");
}

#[test]
fn a_refused_session_is_answered_as_the_node_answers() {
    let bed = Bed::up(1);
    bed.apply(&talker("talk", "exec sleep 1000"));
    bed.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: alien}, spec: {containers: [{name: c, image: nginx}]}}",
    );
    bed.wait_ready("app=talk");
    bed.until_field("pod alien", "{.status.containerStatuses[0].state.waiting.reason}", |reason| {
        reason == "ErrImageNeverPull"
    });
    for carrier in CARRIERS {
        let said = text(&exec(&bed, carrier, &["alien", "--", "true"], "").stderr);
        let want = "unable to upgrade connection: container \"c\" in pod \"alien\" is not running";
        assert!(said.contains(want), "{said}");
    }
    let gate = Gate::open(&bed, &["--disable-filter"]);
    let at = |pod: &str, rest: &str| format!("/api/v1/namespaces/default/pods/{pod}/{rest}");
    let strange = [WEBSOCKET, &[("sec-websocket-protocol", "v9.channel.k8s.io")]].concat();
    for (path, code, want) in [
        (at("talk", "exec?container=side&command=true&stdout=1"), 403, "unable to negotiate protocol"),
        (at("talk", "attach?container=side&stdout=1"), 403, "unable to negotiate protocol"),
        (at("talk", "portforward?ports=80"), 403, "unable to negotiate protocol"),
        (at("talk", "exec?container=side&stdout=1"), 400, "you must specify at least 1 command"),
        (at("alien", "attach?stdout=1"), 400, "is waiting to start: ErrImageNeverPull"),
    ] {
        let reply = gate.ask("GET", &path, &strange, "");
        assert_eq!(reply.code, code, "{path}");
        assert!(text(&reply.body).contains(want), "{path}: {:?}", reply.body);
    }
    let plain = gate.ask("POST", &at("talk", "exec?container=side&command=true&stdout=1"), &[], "");
    assert_eq!(plain.refusal(), (400, "Upgrade request required".to_owned()));
    // The node is there no more, but its object is.
    let node = bed.lab.host(Host::Node(1)).unwrap();
    let begin = std::time::Instant::now();
    while let [process, ..] = node.processes()[..] {
        let _ = Command::new("kill").args(["-9", &process.to_string()]).output();
        assert!(begin.elapsed() < PATIENCE, "{process} stays");
    }
    // A socket closes a moment after the process that held it has gone.
    let (code, message) = loop {
        let path = at("talk", "exec?container=side&command=true&stdout=1");
        let refusal = gate.ask("GET", &path, WEBSOCKET, "").refusal();
        if refusal.1.contains("refused") {
            break refusal;
        }
        assert!(begin.elapsed() < PATIENCE, "{refusal:?}");
    };
    assert_eq!(
        (code, &*message),
        (500, "error dialing backend: dial tcp 10.0.0.11:10250: connect: connection refused")
    );
    let (code, message) = gate.get(&at("talk", "log?container=side")).refusal();
    let want = "Get \"https://10.0.0.11:10250/containerLogs/default/talk/side\": dial tcp 10.0.0.11:10250: connect: connection refused";
    assert_eq!((code, &*message), (500, want));
}

#[test]
fn a_terminal_has_a_size_and_is_the_process_own() {
    let bed = Bed::up(1);
    bed.apply(&talker("talk", "exec sleep 1000"));
    bed.wait_ready("app=talk");
    for carrier in CARRIERS {
        has_a_terminal(&bed, carrier);
    }
}

fn has_a_terminal(bed: &Bed, carrier: (&str, &str)) {
    let kubectl = bed.kubectl();
    let wanted = kubectl.command(&[]);
    let mut command = Command::new("script");
    // The size comes after the start.
    let ask =
        r#"tty; for i in $(seq 300); do [ "$(stty size)" = "37 91" ] && break; sleep 0.1; done; stty size"#;
    let inside = format!("stty cols 91 rows 37; kubectl exec -it talk -c side -- sh -c '{ask}; exit 4'");
    command.args(["-qec", &inside]);
    command.arg("/dev/null").stdin(Stdio::null()).stdout(Stdio::piped());
    command.env(carrier.0, carrier.1);
    command.envs(wanted.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let host = bed.lab.host(Host::ControlPlane).unwrap();
    let mut child = host.run(|| command.spawn()).unwrap().unwrap();
    let mut seen = String::new();
    child.stdout.take().unwrap().read_to_string(&mut seen).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(4), "{seen}");
    assert!(seen.contains("/dev/pts/") && !seen.contains("not a tty"), "{seen}");
    assert!(seen.contains("37 91"), "{seen}");
}

/// Asks an agent over TLS, with or without a certificate; says what came of it.
const ASK: &str = r#"
import http.client, ssl, sys
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
if len(sys.argv) > 2:
    context.load_cert_chain(sys.argv[2], sys.argv[3])
try:
    connection = http.client.HTTPSConnection(sys.argv[1], 10250, context=context, timeout=20)
    connection.request("GET", "/containerLogs/default/talk/main")
    response = connection.getresponse()
    print(response.status, response.read().decode())
except (ssl.SSLError, ConnectionError) as error:
    print("refused", error)
"#;

#[test]
fn only_api_servers_may_ask_an_agent() {
    let bed = Bed::up(1);
    bed.apply(&talker("talk", "exec sleep 1000"));
    bed.wait_ready("app=talk");
    let address = bed.field("node node-1", "{.status.addresses[?(@.type==\"InternalIP\")].address}");
    assert_eq!(bed.field("node node-1", "{.status.daemonEndpoints.kubeletEndpoint.Port}"), "10250");
    let host = bed.lab.host(Host::ControlPlane).unwrap();
    let ask = |certificate: Option<&str>| {
        let mut command = Command::new("python3");
        command.args(["-c", ASK, &address]);
        if let Some(name) = certificate {
            let pki = bed.lab.layout.data_dir(Host::ControlPlane).join("pki");
            command.arg(pki.join(format!("{name}.crt"))).arg(pki.join(format!("{name}.key")));
        }
        text(&host.run(|| command.output()).unwrap().unwrap().stdout)
    };
    assert!(ask(None).starts_with("refused"), "{}", ask(None));
    let admin = ask(Some("admin"));
    assert!(admin.starts_with("403 only API servers may ask"), "{admin}");
    let server = ask(Some("apiserver-kubelet-client"));
    assert!(server.starts_with("200 ") && server.contains("one\n"), "{server}");
}

//! What a system test stands on: a lab of its own, words to ask for things, and what to print when it fails.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use portolan_lab::probe::{self, Answer};
use portolan_lab::{Host, Kubectl, Lab, Options};

/// The longest a machine with two busy cores may take for anything a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// When everything has been said and done, what stays true is asked so often.
const STAYS_TRUE: u32 = 20;

static COUNT: AtomicU32 = AtomicU32::new(0);

pub(crate) fn exe() -> PathBuf {
    env!("CARGO_BIN_EXE_portolan").into()
}

pub(crate) fn unique(prefix: &str) -> String {
    format!("{prefix}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) struct Bed {
    pub(crate) lab: Lab,
}

impl Bed {
    pub(crate) fn up(nodes: u8) -> Self {
        Self::with(nodes, false, None)
    }

    /// With the nodes' proxies in this mode.
    pub(crate) fn up_in(nodes: u8, mode: Option<&str>) -> Self {
        Self::with(nodes, false, mode)
    }

    /// On a segment with addresses of both families.
    pub(crate) fn up_with_ipv6(nodes: u8) -> Self {
        Self::with(nodes, true, None)
    }

    fn with(nodes: u8, ipv6: bool, mode: Option<&str>) -> Self {
        let proxy_mode = mode.map(ToOwned::to_owned);
        let options = Options { name: unique("t"), nodes, ipv6, exe: exe(), proxy_mode };
        Self { lab: Lab::up(&options).unwrap_or_else(|e| panic!("{e}")) }
    }

    pub(crate) fn kubectl(&self) -> Kubectl {
        self.lab.kubectl()
    }

    pub(crate) fn run(&self, args: &[&str]) -> String {
        self.kubectl().run(args).unwrap_or_else(|e| panic!("{e}"))
    }

    pub(crate) fn apply(&self, manifest: &str) -> String {
        self.kubectl().apply(&yaml(manifest)).unwrap_or_else(|e| panic!("{e}"))
    }

    /// One field, by kubectl's jsonpath.
    pub(crate) fn field(&self, what: &str, path: &str) -> String {
        let mut args: Vec<&str> = vec!["get"];
        args.extend(what.split(' '));
        let template = format!("jsonpath={path}");
        args.extend(["-o", &template]);
        self.run(&args)
    }

    pub(crate) fn wait_ready(&self, selector: &str) {
        self.run(&["wait", "--for=condition=Ready", "pod", "-l", selector, "--timeout=30s"]);
    }

    pub(crate) fn until_field(&self, what: &str, path: &str, satisfies: impl Fn(&str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            let value = self.field(what, path);
            if satisfies(&value) {
                return value;
            }
            assert!(begin.elapsed() < PATIENCE, "{what} {path} stays {value:?}");
        }
    }

    pub(crate) fn http(&self, from: &str, to: SocketAddr) -> Answer {
        probe::http_get(&self.lab.place(from).unwrap().netns, to, "/").unwrap()
    }

    pub(crate) fn udp(&self, from: &str, to: SocketAddr) -> Answer {
        probe::udp_ask(&self.lab.place(from).unwrap().netns, to).unwrap()
    }

    pub(crate) fn line(&self, from: &str, to: SocketAddr) -> Answer {
        probe::tcp_line(&self.lab.place(from).unwrap().netns, to).unwrap()
    }

    pub(crate) fn post(&self, from: &str, to: SocketAddr, path: &str) -> Answer {
        probe::http_post(&self.lab.place(from).unwrap().netns, to, path).unwrap()
    }

    /// Who answers at `to`, over so many requests; every one must be answered.
    pub(crate) fn answerers(&self, from: &str, to: SocketAddr, times: u32) -> Vec<String> {
        let mut names: Vec<String> = (0..times).map(|_| who(&self.http(from, to))).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Waits until exactly these pods answer.
    pub(crate) fn until_answerers(&self, from: &str, to: SocketAddr, pods: &[&str]) {
        let begin = Instant::now();
        loop {
            let answers: Vec<Answer> = (0..30).map(|_| self.http(from, to)).collect();
            if answers.iter().all(|answer| answer.text().is_some()) {
                let mut names: Vec<String> = answers.iter().map(who).collect();
                names.sort();
                names.dedup();
                if names == pods {
                    return;
                }
            }
            assert!(begin.elapsed() < PATIENCE, "{pods:?} should answer at {to}; last: {answers:?}");
        }
    }

    pub(crate) fn pod_ip(&self, pod: &str) -> IpAddr {
        self.field(&format!("pod {pod}"), "{.status.podIP}").parse().unwrap()
    }

    pub(crate) fn cluster_ip(&self, service: &str) -> IpAddr {
        self.field(&format!("service {service}"), "{.spec.clusterIP}").parse().unwrap()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let name = &self.lab.layout.name;
        if std::thread::panicking() {
            for host in [Host::ControlPlane].into_iter().chain(self.lab.layout.node_hosts()) {
                let text = std::fs::read_to_string(self.lab.layout.log(host)).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                eprintln!(
                    "--- the end of {host}'s log\n{}",
                    lines[lines.len().saturating_sub(15)..].join("\n")
                );
            }
            if std::env::var_os("PORTOLAN_LAB_KEEP").is_some() {
                eprintln!("--- kept; enter it with:");
                eprintln!("portolan lab exec --name {name} control-plane -- kubectl get all -A");
                eprintln!("portolan lab exec --name {name} node-1 -- nft list ruleset");
                eprintln!("portolan lab down --name {name}");
                return;
            }
        }
        if let Err(error) = Lab::down(name) {
            eprintln!("{error}");
        }
    }
}

/// The pod that gave the answer.
pub(crate) fn who(answer: &Answer) -> String {
    let Answer::Text(text) = answer else { panic!("no answer: {answer:?}") };
    let value: serde_json::Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    value["name"].as_str().unwrap().to_owned()
}

/// What the pod saw as its peer.
pub(crate) fn peer(answer: &Answer) -> IpAddr {
    let Answer::Text(text) = answer else { panic!("no answer: {answer:?}") };
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    let peer: SocketAddr = value["peer"].as_str().unwrap().parse().unwrap();
    peer.ip()
}

pub(crate) fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

/// A pod of the built-in image on port 80 with a readiness probe, also TCP on 9000 and UDP on 9001.
pub(crate) fn web_pod(name: &str, labels: &str, node: Option<&str>) -> String {
    let node = node.map(|node| format!("  nodeName: {node}\n")).unwrap_or_default();
    format!(
        r#"---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  labels: {{{labels}}}
spec:
{node}  containers:
  - name: web
    image: portolan.dev/echo
    args: ["--http", "80", "--tcp", "9000", "--udp", "9001"]
    ports:
    - {{name: http, containerPort: 80}}
    - {{name: line, containerPort: 9000}}
    - {{name: datagram, containerPort: 9001, protocol: UDP}}
    readinessProbe:
      httpGet: {{path: /ready, port: http}}
      periodSeconds: 1
      failureThreshold: 1
"#
    )
}

/// kubectl takes what begins with a brace for JSON; YAML in one line begins so as well.
pub(crate) fn yaml(manifest: &str) -> String {
    format!("---\n{manifest}")
}

/// Asks until the answer satisfies; then it must go on doing so.
pub(crate) fn settles(mut ask: impl FnMut() -> Answer, satisfies: impl Fn(&Answer) -> bool) {
    let (answer, _) = probe::until(|| Ok(ask()), &satisfies, PATIENCE).unwrap();
    assert!(satisfies(&answer), "it came to {answer:?}");
    for _ in 0..STAYS_TRUE {
        let answer = ask();
        assert!(satisfies(&answer), "it did not stay so: {answer:?}");
    }
}

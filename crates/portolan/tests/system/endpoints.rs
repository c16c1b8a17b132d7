//! What stands between a Service and its pods: endpoints that follow probes, names and rollouts.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use portolan_lab::probe::{self, Answer};

use crate::bed::{Bed, PATIENCE, at, settles, web_pod, who};

/// The pods of a slice's endpoints with a condition, sorted.
fn in_slices(bed: &Bed, service: &str, condition: &str) -> Vec<String> {
    let what = format!("endpointslices -l kubernetes.io/service-name={service}");
    let path = format!(
        "{{range .items[*].endpoints[?(@.conditions.{condition}==true)]}}{{.targetRef.name}} {{end}}"
    );
    let mut names: Vec<String> = bed.field(&what, &path).split_whitespace().map(str::to_owned).collect();
    names.sort();
    names
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
    }
}

#[test]
fn fact_19_not_ready_addresses_are_published_where_asked_for() {
    let bed = Bed::up(1);
    bed.apply(&(web_pod("web-1", "app: web", None) + &web_pod("shell", "app: shell", None)));
    bed.wait_ready("app");
    let pod = at(bed.pod_ip("web-1"), 80);
    let service = |name: &str, publish: bool| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{selector: {{app: web}}, \
             ports: [{{port: 80}}], publishNotReadyAddresses: {publish}}}}}"
        )
    };
    bed.apply(&format!("{}\n---\n{}", service("all", true), service("ready", false)));
    bed.post("node-1", pod, "/ready?value=false");
    bed.until_field("pod web-1", "{.status.conditions[?(@.type=='Ready')].status}", |s| s == "False");
    let (all, ready) = (at(bed.cluster_ip("all"), 80), at(bed.cluster_ip("ready"), 80));
    settles(|| bed.http("shell", ready), |answer| *answer == Answer::Refused);
    settles(|| bed.http("shell", all), |answer| answer.text().is_some());
    assert_eq!(bed.field("endpoints all", "{.subsets[*].addresses[*].targetRef.name}"), "web-1");
    assert_eq!(bed.field("endpoints ready", "{.subsets[*].notReadyAddresses[*].targetRef.name}"), "web-1");
    // Published is not serving: who looks closer can tell.
    assert_eq!(in_slices(&bed, "all", "ready"), ["web-1"]);
    assert!(in_slices(&bed, "all", "serving").is_empty());
}

#[test]
fn fact_12_an_external_name_has_neither_address_nor_endpoints() {
    let bed = Bed::up(1);
    bed.apply("{apiVersion: v1, kind: Service, metadata: {name: out}, spec: {type: ExternalName, externalName: db.example.com, selector: {app: web}}}");
    bed.apply(&web_pod("web-1", "app: web", None));
    bed.wait_ready("app=web");
    assert_eq!(bed.field("service out", "{.spec.clusterIP}{.spec.ports}"), "");
    let names = bed.field("endpointslices,endpoints", "{.items[*].metadata.name}");
    assert!(names.split_whitespace().all(|name| !name.starts_with("out")), "{names}");
}

#[test]
fn a_terminating_pod_serves_as_long_as_its_probe_passes() {
    let bed = Bed::up(1);
    let lasting = web_pod("web-1", "app: web", None).replace(
        "    readinessProbe",
        "    lifecycle: {preStop: {sleep: {seconds: 600}}}\n    readinessProbe",
    );
    bed.apply(&(lasting + &web_pod("shell", "app: shell", None)));
    bed.apply("{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}");
    bed.wait_ready("app");
    let service = at(bed.cluster_ip("web"), 80);
    let pod = at(bed.pod_ip("web-1"), 80);
    bed.until_answerers("shell", service, &["web-1"]);
    bed.run(&["delete", "pod", "web-1", "--wait=false", "--grace-period=600"]);
    until("the endpoint is terminating and serving", || {
        in_slices(&bed, "web", "terminating") == ["web-1"] && in_slices(&bed, "web", "serving") == ["web-1"]
    });
    assert!(in_slices(&bed, "web", "ready").is_empty());
    assert_eq!(bed.field("endpoints web", "{.subsets}"), "", "it has left the older object");
    // No other endpoint is left: this one goes on.
    settles(|| bed.http("shell", service), |answer| answer.text().is_some());
    bed.post("node-1", pod, "/ready?value=false");
    until("it no longer serves", || in_slices(&bed, "web", "serving").is_empty());
    settles(|| bed.http("shell", service), |answer| *answer == Answer::Refused);
    bed.run(&["delete", "pod", "web-1", "--grace-period=0", "--force"]);
}

#[test]
fn named_ports_are_resolved_pod_by_pod() {
    let bed = Bed::up(2);
    let moved = web_pod("web-2", "app: web", Some("node-2"))
        .replace("\"--http\", \"80\"", "\"--http\", \"8081\"")
        .replace("containerPort: 80}", "containerPort: 8081}");
    let without = web_pod("web-3", "app: web", Some("node-1"))
        .replace("    - {name: http, containerPort: 80}\n", "")
        .replace("port: http", "port: 80");
    let shell = web_pod("shell", "app: shell", Some("node-1"));
    bed.apply(&(web_pod("web-1", "app: web", Some("node-1")) + &moved + &without + &shell));
    bed.apply("{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}}");
    bed.wait_ready("app");
    let service = at(bed.cluster_ip("web"), 80);
    for from in ["shell", "node-2"] {
        bed.until_answerers(from, service, &["web-1", "web-2"]);
    }
    let ports = bed.field("endpoints web", "{.subsets[*].ports[*].port}");
    let mut ports: Vec<&str> = ports.split_whitespace().collect();
    ports.sort_unstable();
    assert_eq!(ports, ["80", "8081"], "a subset for each number");
    assert_eq!(in_slices(&bed, "web", "ready"), ["web-1", "web-2", "web-3"]);
}

#[test]
fn a_pod_knows_its_names_and_its_services() {
    let bed = Bed::up(1);
    bed.apply("{apiVersion: v1, kind: Service, metadata: {name: my-db}, spec: {ports: [{port: 5432}]}}");
    bed.run(&["create", "configmap", "settings", "--from-literal=mode=fast"]);
    let pod = web_pod("db-0", "app: db", None).replace(
        "spec:\n",
        "spec:\n  hostname: primary\n  subdomain: db\n  hostAliases: [{ip: 192.0.2.9, hostnames: [legacy]}]\n",
    );
    let pod = pod.replace(
        "    image:",
        "    env: [{name: MODE, valueFrom: {configMapKeyRef: {name: settings, key: mode}}}]\n    image:",
    );
    bed.apply(&pod);
    bed.wait_ready("app=db");
    // What the process itself sees, from outside.
    let root = std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let environ = std::fs::read_to_string(entry.path().join("environ")).unwrap_or_default();
        let mine = environ.split('\0').any(|line| line == "POD_NAME=db-0")
            && environ.contains(&format!("POD_IP={}", bed.pod_ip("db-0")))
            && environ.contains(&format!("MY_DB_SERVICE_HOST={}", bed.cluster_ip("my-db")));
        mine.then(|| (entry.path(), environ))
    });
    let (process, environ) = root.expect("a process with the pod's environment");
    for line in
        ["MODE=fast", "MY_DB_SERVICE_PORT=5432", "KUBERNETES_SERVICE_HOST=10.96.0.1", "HOSTNAME=primary"]
    {
        assert!(environ.split('\0').any(|found| found == line), "{line}: {environ}");
    }
    let file = |name: &str| std::fs::read_to_string(process.join("root/etc").join(name)).unwrap();
    let resolv = file("resolv.conf");
    assert!(
        resolv.starts_with("search default.svc.cluster.local svc.cluster.local cluster.local"),
        "{resolv}"
    );
    assert!(resolv.contains("\nnameserver 10.96.0.10\noptions ndots:5\n"), "{resolv}");
    let hosts = file("hosts");
    let own = format!("{}\tprimary.db.default.svc.cluster.local\tprimary\n", bed.pod_ip("db-0"));
    assert!(hosts.contains(&own) && hosts.ends_with("192.0.2.9\tlegacy\n"), "{hosts}");
}

/// How many pods the rolling restart has; `PORTOLAN_ROLLING_PODS` for another number.
fn replicas() -> u32 {
    std::env::var("PORTOLAN_ROLLING_PODS").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
}

/// What a restart of so many pods may take on two cores that have other things to do.
const RESTART_PATIENCE: Duration = Duration::from_mins(5);

/// Ends the load however the test ends: a scope waits for its threads, also when it panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

const CLIENTS: usize = 3;

fn deployment() -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {}
  selector: {{matchLabels: {{app: web}}}}
  strategy: {{rollingUpdate: {{maxSurge: 10%, maxUnavailable: 0}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
      - name: web
        image: portolan.dev/echo
        args: [\"--http\", \"80\"]
        # Until every node has heard that this pod is going.
        lifecycle: {{preStop: {{sleep: {{seconds: 10}}}}}}
        readinessProbe: {{httpGet: {{path: /ready, port: 80}}, periodSeconds: 5}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{type: NodePort, selector: {{app: web}}, ports: [{{port: 80, nodePort: 32080}}]}}
",
        replicas()
    )
}

/// What clients were told while something went on.
#[derive(Debug, Default)]
struct Tally {
    answered: AtomicU32,
    failed: AtomicU32,
}

impl Tally {
    /// Asks from one place, one connection after the other, until told to stop.
    fn ask(&self, bed: &Bed, from: &str, to: SocketAddr, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            match bed.http(from, to) {
                Answer::Text(_) => self.answered.fetch_add(1, Ordering::Relaxed),
                other => {
                    eprintln!("{from} was told {other:?}");
                    self.failed.fetch_add(1, Ordering::Relaxed)
                }
            };
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn a_rolling_restart_fails_no_request() {
    let bed = Bed::up(3);
    bed.apply(&(web_pod("shell", "app: shell", Some("node-1")) + "---\n" + &deployment()));
    bed.run(&["rollout", "status", "deployment/web", "--timeout=300s"]);
    bed.wait_ready("app=shell");
    let service = at(bed.cluster_ip("web"), 80);
    let node_port = at(portolan_lab::Host::Node(2).ip(), 32080);
    settles(|| bed.http("shell", service), |answer| answer.text().is_some());
    settles(|| bed.http("client", node_port), |answer| answer.text().is_some());
    let before = bed.field("pods -l app=web", "{.items[*].metadata.name}");

    let (tally, stop) = (Tally::default(), AtomicBool::new(false));
    let places: [(&str, SocketAddr); CLIENTS] =
        [("shell", service), ("node-3", service), ("client", node_port)];
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for (from, to) in places {
            let (tally, stop, bed) = (&tally, &stop, &bed);
            scope.spawn(move || tally.ask(bed, from, to, stop));
        }
        bed.run(&["rollout", "restart", "deployment/web"]);
        bed.run(&["rollout", "status", "deployment/web", "--timeout=300s"]);
        // Those that are on their way out too.
        let begin = Instant::now();
        while bed.field("pods -l app=web", "{.items[*].metadata.name}").split_whitespace().count()
            != replicas() as usize
        {
            assert!(begin.elapsed() < RESTART_PATIENCE, "the old pods are gone");
        }
    });
    let (answered, failed) = (tally.answered.into_inner(), tally.failed.into_inner());
    assert!(answered > 300, "{answered} requests are no load");
    assert_eq!(failed, 0, "of {}", answered + failed);
    let after = bed.field("pods -l app=web", "{.items[*].metadata.name}");
    assert!(before.split_whitespace().all(|pod| !after.contains(pod)), "every pod was replaced");
    // A few writes of what is wanted (the generation counts them), and then rest: controllers do not undo each other's.
    let settled: u32 = bed.field("deployment web", "{.metadata.generation}").parse().unwrap();
    assert!(settled < 10, "the Deployment was changed {settled} times");

    bed.run(&["rollout", "undo", "deployment/web", "--dry-run=server"]);
    bed.run(&["scale", "deployment/web", "--replicas=2"]);
    let begin = Instant::now();
    while bed.field("pods -l app=web", "{.items[*].metadata.name}").split_whitespace().count() != 2 {
        assert!(begin.elapsed() < RESTART_PATIENCE, "the rest is gone");
    }
    let left = bed.field("pods -l app=web", "{.items[*].metadata.name}");
    let (answer, _) =
        probe::until(|| Ok(bed.http("shell", service)), |a| a.text().is_some(), PATIENCE).unwrap();
    assert!(left.contains(&who(&answer)), "{answer:?}");
    bed.run(&["delete", "deployment", "web"]);
    until("its pods go with it", || bed.field("replicasets,pods -l app=web", "{.items}") == "[]");
}

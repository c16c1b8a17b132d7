//! Several control planes on one etcd cluster: `portolan up --etcd-servers`. Members and control planes are killed while
//! clients write through both.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use portolan_client::{Client, Error, paths};
use portolan_netlink::netns::Netns;
use serde_json::{Value, json};

use crate::place::{Place, Server, ip, portolan, until};

const MEMBERS: u8 = 3;
/// The addresses of the control planes.
const PLANES: [u8; 2] = [11, 12];
const PATIENCE: Duration = Duration::from_mins(1);
const WRITERS: usize = 4;
/// More than the writers come to.
const PORTS: &str = "10000-32767";

struct Shared {
    members: Vec<Server>,
    planes: Vec<Server>,
    place: Place,
}

fn servers() -> String {
    (1..=MEMBERS).map(|n| format!("http://{}:2379", ip(n))).collect::<Vec<_>>().join(",")
}

impl Shared {
    fn up() -> Self {
        let place = Place::new(PLANES[1]);
        let mut members: Vec<Server> = (1..=MEMBERS).map(|n| Server::etcd(&place, n, MEMBERS)).collect();
        for member in &mut members {
            member.start(&place);
        }
        let servers = servers();
        let mut planes: Vec<Server> = PLANES
            .iter()
            .map(|n| {
                Server::control_plane(
                    &place,
                    *n,
                    &["--etcd-servers", &servers, "--service-node-port-range", PORTS],
                )
            })
            .collect();
        let data = PLANES.map(|n| place.path(&format!("plane-{n}")));
        planes[0].start(&place);
        // One authority for both, as an administrator would see to.
        std::fs::create_dir_all(data[1].join("pki")).unwrap();
        for file in ["ca.crt", "ca.key"] {
            std::fs::copy(data[0].join("pki").join(file), data[1].join("pki").join(file)).unwrap();
        }
        planes[1].start(&place);
        Self { members, planes, place }
    }

    fn data(&self, plane: usize) -> PathBuf {
        self.place.path(&format!("plane-{}", PLANES[plane]))
    }

    fn kubectl(&self, plane: usize, args: &[&str]) -> String {
        self.place.says(self.place.kubectl(&self.data(plane)).args(args))
    }

    fn masters(&self, plane: usize) -> String {
        let path = "jsonpath={.subsets[0].addresses[*].ip}";
        self.kubectl(plane, &["get", "endpoints", "kubernetes", "-o", path])
    }

    fn leader(&self, plane: usize) -> Option<String> {
        let path = "jsonpath={.spec.holderIdentity}";
        let mut command = self.place.kubectl(&self.data(plane));
        command.args(["get", "lease", "-n", "kube-system", "portolan-controllers", "-o", path]);
        let output = self.place.output(&mut command);
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }
}

/// What came of a create.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// As the answer had it.
    Done(Box<Value>),
    /// An error, or no answer at all.
    Unclear,
}

struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<HashMap<String, Outcome>>>,
}

impl Load {
    /// Writers that create Services, each by both control planes in turn.
    fn start(shared: &Shared) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..WRITERS).map(|writer| {
            let (stop, done) = (stop.clone(), done.clone());
            let netns = shared.place.netns.try_clone().unwrap();
            let kubeconfigs = [0, 1].map(|plane| shared.data(plane).join("kubeconfig"));
            std::thread::spawn(move || write(&netns, &kubeconfigs, writer, &stop, &done))
        });
        Self { threads: threads.collect(), stop, done }
    }

    /// Waits for so many more acknowledged writes.
    fn goes_on(&self) {
        let goal = self.done.load(Ordering::SeqCst) + 25;
        until("more writes", PATIENCE, || (self.done.load(Ordering::SeqCst) >= goal).then_some(()));
    }

    fn end(self) -> HashMap<String, Outcome> {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

fn write(
    netns: &Netns,
    kubeconfigs: &[PathBuf; 2],
    writer: usize,
    stop: &AtomicBool,
    done: &AtomicU64,
) -> HashMap<String, Outcome> {
    let work = async {
        let clients = kubeconfigs.each_ref().map(|path| Client::from_kubeconfig(path, "writer").unwrap());
        let mut outcomes = HashMap::new();
        for n in 0.. {
            if stop.load(Ordering::SeqCst) {
                break;
            }
            // Not as fast as can be: the answers of minutes are compared one by one.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let name = format!("w{writer}-{n}");
            let kind = if n % 4 < 2 { "NodePort" } else { "ClusterIP" };
            let service = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
                "spec": { "type": kind, "ports": [{ "port": 80 }] },
            });
            let create = clients[n % 2].create::<Value>(&paths::SERVICES, Some("default"), &service);
            let outcome = match tokio::time::timeout(Duration::from_secs(40), create).await {
                Ok(Ok(made)) => {
                    done.fetch_add(1, Ordering::SeqCst);
                    Outcome::Done(Box::new(made))
                }
                Ok(Err(Error::Api(status))) => {
                    // Nobody else makes this name, and it was asked for once.
                    assert_ne!(status.code, 409, "{name}: {}", status.message);
                    Outcome::Unclear
                }
                Ok(Err(_)) | Err(_) => Outcome::Unclear,
            };
            outcomes.insert(name, outcome);
        }
        outcomes
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    netns.run(|| runtime.block_on(work)).unwrap()
}

fn services(shared: &Shared, plane: usize) -> BTreeMap<String, Value> {
    let list = shared.kubectl(plane, &["get", "services", "-o", "json"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    let items = list["items"].as_array().unwrap().iter();
    items.map(|item| (item["metadata"]["name"].as_str().unwrap().to_owned(), item.clone())).collect()
}

/// What was acknowledged is there as it was acknowledged; what is there was asked for; nothing is given twice.
fn check(stored: &BTreeMap<String, Value>, outcomes: &HashMap<String, Outcome>) {
    for (name, outcome) in outcomes {
        let Outcome::Done(made) = outcome else { continue };
        let found = stored.get(name).unwrap_or_else(|| panic!("{name} was acknowledged and is not there"));
        assert_eq!(found["metadata"]["uid"], made["metadata"]["uid"], "{name}");
        assert_eq!(found["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"], "{name}");
        assert_eq!(found["spec"], made["spec"], "{name}");
    }
    let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for (name, service) in stored {
        assert!(name == "kubernetes" || outcomes.contains_key(name), "{name} was never asked for");
        assert!(
            addresses.insert(service["spec"]["clusterIP"].to_string()),
            "{name}: its address is given twice"
        );
        if let Some(port) = service["spec"]["ports"][0]["nodePort"].as_u64() {
            assert!(ports.insert(port), "{name}: port {port} is given twice");
        }
    }
}

#[test]
fn two_control_planes_on_one_etcd_lose_and_double_nothing_when_parts_are_killed() {
    let mut shared = Shared::up();
    for plane in [0, 1] {
        until("both are endpoints", PATIENCE, || {
            (shared.masters(plane) == "10.9.0.11 10.9.0.12").then_some(())
        });
    }
    shared.kubectl(0, &["create", "namespace", "one"]);
    assert_eq!(shared.kubectl(1, &["get", "namespace", "one", "-o", "name"]), "namespace/one\n");

    let load = Load::start(&shared);
    load.goes_on();
    for n in 0..usize::from(MEMBERS) {
        shared.members[n].kill();
        load.goes_on();
        shared.members[n].start(&shared.place);
        load.goes_on();
    }
    for n in [1, 0] {
        let other = 1 - n;
        shared.planes[n].kill();
        load.goes_on();
        let only = ip(PLANES[other]);
        until("the dead one is no endpoint", PATIENCE, || (shared.masters(other) == only).then_some(()));
        shared.planes[n].start(&shared.place);
        load.goes_on();
    }
    let outcomes = load.end();
    let stored = services(&shared, 0);
    assert_eq!(stored, services(&shared, 1), "both control planes show the same");
    check(&stored, &outcomes);
    let done = outcomes.values().filter(|outcome| matches!(outcome, Outcome::Done(_))).count();
    assert!(done > 200, "{done} of {} writes", outcomes.len());
}

#[test]
fn controllers_go_on_at_another_control_plane() {
    let mut shared = Shared::up();
    let first = until("a leader", PATIENCE, || shared.leader(1).filter(|holder| !holder.is_empty()));
    let slices = |shared: &Shared, name: &str| {
        let selector = format!("kubernetes.io/service-name={name}");
        let args = ["get", "endpointslices", "-l", &selector, "-o", "name"];
        until("the slice of a Service", PATIENCE, || {
            Some(shared.kubectl(1, &args)).filter(|text| !text.is_empty())
        })
    };
    let create = |shared: &Shared, name: &str| {
        let service = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{selector: {{a: b}}, ports: [{{port: 80}}]}}}}"
        );
        let file = shared.place.path("service.yaml");
        std::fs::write(&file, format!("---\n{service}\n")).unwrap();
        shared.kubectl(1, &["apply", "-f", &file.display().to_string()]);
    };
    create(&shared, "before");
    slices(&shared, "before");
    shared.planes[0].kill();
    create(&shared, "after");
    slices(&shared, "after");
    let second = until("a leader", PATIENCE, || shared.leader(1));
    assert_ne!(second, first);
    // A leader that is stopped, and not killed, gives way at once, and is no endpoint any more.
    shared.planes[0].start(&shared.place);
    shared.planes[1].stop();
    until("the first leads again", PATIENCE, || {
        shared.leader(0).filter(|holder| *holder != second && !holder.is_empty())
    });
    assert_eq!(shared.masters(0), "10.9.0.11");
}

#[test]
fn without_etcd_requests_fail_in_time_and_say_why() {
    let mut shared = Shared::up();
    for member in &mut shared.members {
        member.kill();
    }
    let text =
        shared.place.fails(shared.place.kubectl(&shared.data(0)).args(["create", "namespace", "never"]));
    assert!(text.contains("store") || text.contains("did not answer"), "{text}");
    let text = shared.place.fails(shared.place.kubectl(&shared.data(0)).args(["get", "--raw", "/readyz"]));
    assert!(text.contains("[-]store failed") || text.contains("InternalError"), "{text}");
    for member in &mut shared.members {
        member.start(&shared.place);
    }
    until("it works again", PATIENCE, || {
        let mut command = shared.place.kubectl(&shared.data(0));
        shared.place.output(command.args(["create", "namespace", "again"])).status.success().then_some(())
    });
}

#[test]
fn an_etcd_that_is_not_there_is_named_before_anything_starts() {
    let place = Place::new(1);
    let data = place.path("data").display().to_string();
    let text = place.fails(&mut portolan(&[
        "up",
        "--control-plane",
        "--node-ip",
        "10.9.0.1",
        "--data-dir",
        &data,
        "--etcd-servers",
        "http://10.9.0.1:2379",
    ]));
    let last = text.trim().lines().last().unwrap_or_default();
    assert!(last.contains("http://10.9.0.1:2379") && last.contains("--etcd-servers"), "{text}");
    let text = place.fails(&mut portolan(&[
        "up",
        "--control-plane",
        "--node-ip",
        "10.9.0.1",
        "--data-dir",
        &data,
        "--etcd-servers",
        "https://10.9.0.1:2379",
    ]));
    assert!(text.contains("--etcd-cafile"), "{text}");
}

fn etcdctl(place: &Place, args: &[&str]) -> String {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", &format!("http://{}:2379", ip(1))]).args(args);
    place.says(&mut command)
}

/// The lease of the control plane on host 2.
const LEASE: &str = "/registry/masterleases/10.9.0.2";

/// It is of Kubernetes' form, goes by itself, and is renewed.
fn says_who_it_is(place: &Place) {
    let key: Value = serde_json::from_str(&etcdctl(place, &["get", LEASE, "-w", "json"])).unwrap();
    assert!(key["kvs"][0]["lease"].as_u64().is_some_and(|id| id != 0), "it goes by itself: {key}");
    let read =
        || -> Value { serde_json::from_str(&etcdctl(place, &["get", LEASE, "--print-value-only"])).unwrap() };
    let first = read();
    assert_eq!(first["kind"], "Endpoints", "{first}");
    assert_eq!(first["subsets"], serde_json::json!([{ "addresses": [{ "ip": "10.9.0.2" }] }]));
    let generation = |lease: &Value| lease["metadata"]["generation"].as_i64().unwrap();
    until("it is renewed", PATIENCE, || (generation(&read()) > generation(&first)).then_some(()));
}

/// From the data directory into etcd: the keys and values that Kubernetes' own server would read, seen with etcd's own
/// tool; and a control plane goes on from them.
#[test]
fn a_cluster_moves_into_etcd_in_kubernetes_own_layout() {
    let place = Place::new(2);
    let mut plane = Server::control_plane(&place, 2, &[]);
    plane.start(&place);
    let data = place.path("plane-2");
    place.says(place.kubectl(&data).args(["create", "service", "nodeport", "web", "--tcp=80"]));
    place.says(place.kubectl(&data).args(["create", "namespace", "one"]));
    let ports = [
        "get",
        "service",
        "web",
        "-o",
        "jsonpath={.spec.clusterIP} {.spec.ports[0].nodePort} {.metadata.uid}",
    ];
    let before = place.says(place.kubectl(&data).args(ports));
    plane.stop();

    let mut member = Server::etcd(&place, 1, 1);
    member.start(&place);
    let url = format!("http://{}:2379", ip(1));
    let move_it = || {
        let mut command = portolan(&["migrate", "--etcd-servers", &url]);
        command.arg("--data-dir").arg(&data);
        command
    };
    let text = until("etcd is there", PATIENCE, || {
        let output = place.output(&mut move_it());
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    });
    assert!(text.contains("keys are in etcd"), "{text}");
    assert!(place.says(&mut move_it()).contains("of them were there before"), "it may be repeated");

    let keys = etcdctl(&place, &["get", "--prefix", "/registry/", "--keys-only"]);
    let keys: BTreeSet<&str> = keys.lines().filter(|line| !line.is_empty()).collect();
    let address = before.split(' ').next().unwrap();
    for key in [
        "/registry/namespaces/default",
        "/registry/namespaces/kube-system",
        "/registry/namespaces/one",
        "/registry/services/specs/default/kubernetes",
        "/registry/services/specs/default/web",
        "/registry/services/endpoints/default/kubernetes",
        "/registry/endpointslices/default/kubernetes",
        "/registry/servicecidrs/kubernetes",
        "/registry/ranges/servicenodeports",
        &format!("/registry/ipaddresses/{address}"),
    ] {
        assert!(keys.contains(key), "{key} is not among {keys:#?}");
    }
    for key in &keys {
        let value = etcdctl(&place, &["get", key, "--print-value-only"]);
        let value: Value = serde_json::from_str(&value).unwrap_or_else(|e| panic!("{key}: {e}: {value}"));
        assert!(value["kind"].is_string() && value["apiVersion"].is_string(), "{key}: {value}");
        assert_eq!(value["metadata"]["resourceVersion"], Value::Null, "{key}");
        assert_eq!(value["metadata"]["selfLink"], Value::Null, "{key}");
        if *key == "/registry/ranges/servicenodeports" {
            continue;
        }
        let name = key.rsplit('/').next().unwrap();
        assert_eq!(value["metadata"]["name"], name, "{key}");
        assert!(
            value["metadata"]["uid"].is_string() && value["metadata"]["creationTimestamp"].is_string(),
            "{key}"
        );
    }

    let mut plane = Server::control_plane(&place, 2, &["--etcd-servers", &url]);
    plane.start(&place);
    assert_eq!(place.says(place.kubectl(&data).args(ports)), before);
    place.says(place.kubectl(&data).args(["create", "service", "nodeport", "next", "--tcp=80"]));
    says_who_it_is(&place);
    plane.stop();
    assert_eq!(etcdctl(&place, &["get", LEASE]), "", "who goes takes its lease along");
    // Into a prefix that is in use: refused, with one of the keys that are in the way.
    place.says(&mut {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &url, "put", "/registry/pods/a/b", "x"]);
        command
    });
    assert!(place.fails(&mut move_it()).contains("other keys"));
}

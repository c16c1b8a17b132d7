//! Kubernetes' own API server on the same etcd: `scripts/kube-apiserver` builds one, version 1.20, and these tests run it.
//! It keeps its values in protobuf, as it does unless told otherwise, and Secrets under the same keys as the control plane.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use portolan_netlink::netns::Netns;
use serde_json::{Value, json};

use crate::place::{Place, Server, ip, until};

pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// Where the two servers and etcd are.
const ETCD: u8 = 1;
const PORTOLAN: u8 = 2;
const KUBERNETES: u8 = 3;

const KINDS: &[&str] = &[
    "namespaces",
    "nodes",
    "pods",
    "services",
    "endpoints",
    "configmaps",
    "secrets",
    "serviceaccounts",
    "deployments.apps",
    "replicasets.apps",
    "roles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
    "clusterroles.rbac.authorization.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
];

/// What 1.20 does not know yet.
const NEWER: &[&str] = &["/spec/internalTrafficPolicy", "/status/terminatingReplicas"];
/// What Go writes of objects that nobody has filled in.
const EMPTY: &[&str] = &["/status/nodeInfo", "/status/daemonEndpoints"];

/// One of each kind.
fn objects(namespace: &str, port: u16) -> String {
    let mut items = vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }),
        json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": format!("node-{namespace}") } }),
    ];
    let mut add = |version: &str, kind: &str, name: &str, content: Value| {
        let mut object = json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name, "namespace": namespace } });
        object.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
        items.push(object);
    };
    let service = |kind: &str, more: Value| {
        let mut spec = json!({ "type": kind, "selector": { "app": "web" }, "ports": [{ "name": "http", "port": 80, "targetPort": "http" }] });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "spec": spec })
    };
    add("v1", "Service", "plain", service("ClusterIP", json!({ "sessionAffinity": "ClientIP" })));
    let ports = json!({ "ports": [{ "port": 80, "nodePort": port }] });
    add("v1", "Service", "node-port", service("NodePort", ports));
    add("v1", "Service", "balancer", service("LoadBalancer", json!({ "externalTrafficPolicy": "Local" })));
    add("v1", "Service", "headless", service("ClusterIP", json!({ "clusterIP": "None" })));
    let name = json!({ "spec": { "type": "ExternalName", "externalName": "example.com" } });
    add("v1", "Service", "name", name);
    let addresses = json!([{ "addresses": [{ "ip": "192.0.2.5" }], "ports": [{ "port": 3306 }] }]);
    add("v1", "Endpoints", "custom", json!({ "subsets": addresses }));
    add("v1", "ConfigMap", "map", json!({ "data": { "a": "b" }, "binaryData": { "x": "AAEC" } }));
    add("v1", "Secret", "hush", json!({ "data": { "a": "Yg==" } }));
    add("v1", "ServiceAccount", "robot", json!({}));
    let container = json!({
        "name": "c", "image": "portolan.dev/echo", "ports": [{ "name": "http", "containerPort": 80 }],
        "readinessProbe": { "httpGet": { "path": "/", "port": "http" } },
        "env": [{ "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }],
        "resources": { "limits": { "memory": "64Mi" } },
    });
    let pod = json!({ "automountServiceAccountToken": false, "schedulerName": "nobody", "containers": [container] });
    add("v1", "Pod", "pod", json!({ "spec": pod }));
    let template = json!({ "metadata": { "labels": { "app": "d" } }, "spec": pod });
    let selector = json!({ "matchLabels": { "app": "d" } });
    let set = json!({ "spec": { "replicas": 0, "selector": selector, "template": template } });
    add("apps/v1", "Deployment", "deployment", set.clone());
    add("apps/v1", "ReplicaSet", "set", set);
    let rbac = "rbac.authorization.k8s.io/v1";
    let rules = json!([{ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }]);
    add(rbac, "Role", "role", json!({ "rules": rules }));
    let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "role" });
    let subjects = json!([{ "kind": "ServiceAccount", "name": "robot", "namespace": namespace }]);
    add(rbac, "RoleBinding", "binding", json!({ "roleRef": role, "subjects": subjects }));
    json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()
}

/// A running kube-apiserver.
pub(crate) struct Kubernetes(Child);

/// Where it runs, and beside what.
pub(crate) struct Setup<'a> {
    pub(crate) netns: &'a Netns,
    pub(crate) address: &'a str,
    /// For its log and certificates.
    pub(crate) dir: &'a Path,
    /// A directory of a control plane's keys.
    pub(crate) pki: &'a Path,
    pub(crate) etcd: &'a str,
    pub(crate) more: &'a [String],
}

/// A program that `scripts/kube-apiserver` builds.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target").join(name);
    path.canonicalize()
        .unwrap_or_else(|error| panic!("target/{name}: {error}: scripts/kube-apiserver builds it"))
}

impl Kubernetes {
    pub(crate) fn start(setup: &Setup<'_>) -> Self {
        let Setup { netns, address, dir, pki, etcd, more } = setup;
        let (ca, keys, public) = (pki.join("ca.crt"), pki.join("sa.key"), dir.join("sa.pub"));
        let mut convert = Command::new("openssl");
        convert.args(["pkey", "-pubout", "-in"]).arg(&keys).arg("-out").arg(&public);
        assert!(convert.status().unwrap().success(), "{convert:?}");
        let mut command = Command::new(program("kube-apiserver"));
        command.arg(format!("--etcd-servers={etcd}"));
        command.arg(format!("--client-ca-file={}", ca.display()));
        command.arg(format!("--service-account-key-file={}", public.display()));
        command.arg(format!("--service-account-signing-key-file={}", keys.display()));
        command.arg(format!("--cert-dir={}", dir.join("kube-certs").display()));
        command.arg(format!("--bind-address={address}")).arg(format!("--advertise-address={address}"));
        command.args([
            "--service-cluster-ip-range=10.96.0.0/12",
            "--service-node-port-range=30000-32767",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            "--authorization-mode=Node,RBAC",
        ]);
        let log = std::fs::File::create(dir.join("kube-apiserver.log")).unwrap();
        command.args(*more).stdout(Stdio::null()).stderr(log);
        Self(netns.run(|| command.spawn()).unwrap().unwrap())
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Both {
    place: Place,
    _etcd: Server,
    portolan: Server,
    _kubernetes: Kubernetes,
}

impl Both {
    /// `first` is written while Portolan is alone. All keys begin with `prefix`.
    fn up(first: &str, prefix: &str) -> Self {
        let place = Place::new(KUBERNETES);
        let mut etcd = Server::etcd(&place, ETCD, 1);
        etcd.start(&place);
        let encryption = place.path("encryption.yaml");
        let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let providers =
            json!([{ "aesgcm": { "keys": [{ "name": "k", "secret": key }] } }, { "identity": {} }]);
        let resources = json!([{ "resources": ["secrets"], "providers": providers }]);
        let version = "apiserver.config.k8s.io/v1";
        let file =
            json!({ "apiVersion": version, "kind": "EncryptionConfiguration", "resources": resources });
        std::fs::write(&encryption, file.to_string()).unwrap();
        let servers = format!("http://{}:2379", ip(ETCD));
        let encrypted = encryption.to_str().unwrap();
        let more =
            ["--etcd-servers", &servers, "--etcd-prefix", prefix, "--encryption-provider-config", encrypted];
        let mut portolan = Server::control_plane(&place, PORTOLAN, &more);
        portolan.start(&place);
        apply(&place, PORTOLAN, first);
        let more = [
            format!("--etcd-prefix={prefix}"),
            format!("--encryption-provider-config={encrypted}"),
            // The slices of 1.20 are of another version than anything since.
            "--runtime-config=discovery.k8s.io/v1beta1=false".to_owned(),
            // It waits for tokens that no controller of today makes.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ];
        let kubernetes = Kubernetes::start(&Setup {
            netns: &place.netns,
            address: &ip(KUBERNETES),
            dir: place.dir.path(),
            pki: &place.path(&format!("plane-{PORTOLAN}")).join("pki"),
            etcd: &servers,
            more: &more,
        });
        until("kube-apiserver is ready", PATIENCE, || {
            let mut command = kubectl(&place, KUBERNETES);
            place.output(command.args(["get", "--raw", "/readyz"])).status.success().then_some(())
        });
        Self { place, _etcd: etcd, portolan, _kubernetes: kubernetes }
    }

    fn says(&self, server: u8, args: &[&str]) -> String {
        self.place.says(kubectl(&self.place, server).args(args))
    }

    /// Waits until both show the same objects of every kind.
    fn agree(&self) {
        for kind in KINDS {
            let both = [PORTOLAN, KUBERNETES]
                .map(|server| move || comparable(&self.says(server, &["get", kind, "-A", "-o", "json"])));
            until(&format!("both show the same {kind}"), PATIENCE, || {
                let (ours, theirs) = (both[0](), both[1]());
                if ours != theirs {
                    let differs = ours.iter().zip(&theirs).find(|(a, b)| a != b);
                    eprintln!("{kind}: {} and {}; {differs:?}", ours.len(), theirs.len());
                }
                (ours == theirs && !ours.is_empty()).then_some(())
            });
        }
    }
}

fn kubectl(place: &Place, server: u8) -> Command {
    let mut command = place.kubectl(&place.path(&format!("plane-{PORTOLAN}")));
    // Each has a certificate of its own; who asks is told by the same authority.
    command.arg(format!("--server=https://{}:6443", ip(server))).arg("--insecure-skip-tls-verify");
    command.env("KUBECACHEDIR", place.path(&format!("cache-{server}")));
    command
}

fn apply(place: &Place, server: u8, objects: &str) {
    let file = place.path("objects.json");
    std::fs::write(&file, objects).unwrap();
    place.says(kubectl(place, server).arg("create").arg("-f").arg(&file));
}

/// The objects of a list without what a version or Go itself adds.
fn comparable(list: &str) -> Vec<Value> {
    let mut list: Value = serde_json::from_str(list).unwrap();
    let items = list["items"].as_array_mut().unwrap();
    for item in items.iter_mut() {
        item["metadata"].as_object_mut().unwrap().remove("managedFields");
        for pointer in [NEWER, EMPTY].concat() {
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            if let Some(parent) = item.pointer_mut(parent).and_then(Value::as_object_mut) {
                parent.remove(field);
            }
        }
        drop_empty(item);
    }
    std::mem::take(items)
}

fn drop_empty(value: &mut Value) {
    if let Value::Object(map) = value {
        map.values_mut().for_each(drop_empty);
        map.retain(|_, value| !value.is_null() && *value != json!([]) && *value != json!({}));
    } else if let Value::Array(items) = value {
        items.iter_mut().for_each(drop_empty);
    }
}

#[test]
#[ignore = "needs target/kube-apiserver: scripts/kube-apiserver builds it in some 20 minutes"]
fn a_kube_apiserver_serves_what_portolan_wrote_and_the_other_way_round() {
    let mut both = Both::up(&objects("ours", 32001), "/registry");
    both.agree();
    apply(&both.place, KUBERNETES, &objects("theirs", 32002));
    both.agree();
    // Written by one, changed by the other.
    both.says(PORTOLAN, &["label", "service", "node-port", "-n", "theirs", "changed=ours"]);
    both.says(KUBERNETES, &["label", "service", "node-port", "-n", "ours", "changed=theirs"]);
    both.says(KUBERNETES, &["delete", "configmap", "map", "-n", "ours"]);
    both.agree();
    let masters = both
        .says(PORTOLAN, &["get", "endpoints", "kubernetes", "-o", "jsonpath={.subsets[0].addresses[*].ip}"]);
    assert_eq!(masters, format!("{} {}", ip(PORTOLAN), ip(KUBERNETES)));
    // A node port is given once, whoever gives it: what is taken is in one set.
    for (server, port) in [(PORTOLAN, 32002), (KUBERNETES, 32001)] {
        let port = format!("--node-port={port}");
        let args = ["create", "service", "nodeport", "again", "--tcp=80", &port];
        let text = both.place.fails(kubectl(&both.place, server).args(args));
        assert!(text.contains("provided port is already allocated"), "{text}");
    }
    // The way on: Kubernetes alone.
    both.portolan.stop();
    both.says(KUBERNETES, &["create", "service", "nodeport", "next", "--tcp=80", "-n", "ours"]);
    let secret = both.says(KUBERNETES, &["get", "secret", "hush", "-n", "ours", "-o", "jsonpath={.data.a}"]);
    assert_eq!(secret, "Yg==");
    // And the way back.
    both.portolan.start(&both.place);
    both.agree();
}

#[test]
#[ignore = "needs target/kube-apiserver: scripts/kube-apiserver builds it in some 20 minutes"]
fn secrets_are_bound_to_their_keys_under_another_prefix_too() {
    let both = Both::up(&objects("ours", 32001), "/elsewhere");
    both.agree();
    apply(&both.place, KUBERNETES, &objects("theirs", 32002));
    let secret = both.says(PORTOLAN, &["get", "secret", "hush", "-n", "theirs", "-o", "jsonpath={.data.a}"]);
    assert_eq!(secret, "Yg==");
}

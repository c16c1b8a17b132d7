//! A cluster of Kubernetes' own in the network of a lab: etcd, kube-apiserver and kube-controller-manager 1.20. There is no
//! kubelet: pods are namespaces that the test makes, with statuses that it writes; containers of `deploy/` are started
//! as a kubelet would, from what the API server holds: the same arguments, environment, files, account and capabilities.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use portolan_apiserver::pki::{Identity, Pki};
use portolan_lab::probe;
use portolan_lab::{Host, Lab, Options};
use portolan_netlink::netns::Netns;
use portolan_netlink::rt::{Route, Rt, Veth, VethPeer};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::bed::{Bed, at, exe, unique};
use crate::kube_apiserver::{Kubernetes, PATIENCE, Setup, program};
use crate::place::until;

const ETCD: &str = "http://127.0.0.1:2379";
/// Without those that take pods and nodes away which no kubelet speaks for.
const CONTROLLERS: &str = "endpoint,endpointslice,endpointslicemirroring,serviceaccount,serviceaccount-token,root-ca-cert-publisher,namespace";
/// Where a container finds its account.
const ACCOUNT: &str = "run/secrets/kubernetes.io/serviceaccount";

/// A program that ends with its handle.
pub(super) struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) struct Cluster {
    /// The test's own programs, and containers by the names of their logs.
    programs: Vec<Program>,
    containers: Vec<(String, Program)>,
    kubernetes: Option<Kubernetes>,
    pub(super) bed: Bed,
}

impl Cluster {
    /// With two nodes that are ready as far as their Node objects go.
    pub(super) fn up() -> Self {
        let options = Options { name: unique("k"), nodes: 2, ipv6: false, exe: exe(), proxy_mode: None };
        let bed = Bed { lab: Lab::network(&options).unwrap() };
        let layout = &bed.lab.layout;
        let (dir, address) = (layout.data_dir(Host::ControlPlane), Host::ControlPlane.ip());
        let control = bed.lab.host(Host::ControlPlane).unwrap();
        let pki = Pki::open(&dir.join("pki")).unwrap();
        pki.token_keys().unwrap();
        let server = pki.server(&[], &[address, "10.96.0.1".parse().unwrap()]).unwrap();
        fs::write(dir.join("server.crt"), &server.cert_pem).unwrap();
        fs::write(dir.join("server.key"), &server.key_pem).unwrap();
        let url = format!("https://{address}:6443");
        pki.write_kubeconfig(&layout.kubeconfig(), &url, &Identity::admin()).unwrap();
        let run = |log: &str, command: &mut Command| {
            let log = File::create(dir.join(log)).unwrap();
            command.stdout(Stdio::null()).stderr(log);
            Program(control.run(|| command.spawn()).unwrap().unwrap())
        };
        let mut etcd = Command::new("etcd");
        etcd.arg("--data-dir").arg(dir.join("etcd"));
        etcd.args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD]);
        etcd.args(["--listen-peer-urls", "http://127.0.0.1:2380"]);
        let mut programs = vec![run("etcd.log", &mut etcd)];
        let kubernetes = start_api_server(&bed);
        let mut manager = Command::new(program("kube-controller-manager"));
        manager.arg("--kubeconfig").arg(layout.kubeconfig());
        manager.arg(format!("--controllers={CONTROLLERS}"));
        manager.arg("--root-ca-file").arg(dir.join("pki/ca.crt"));
        manager.arg("--service-account-private-key-file").arg(dir.join("pki/sa.key"));
        manager.args(["--leader-elect=false", "--secure-port=0", "--port=0"]);
        programs.push(run("kube-controller-manager.log", &mut manager));
        let cluster = Self { programs, containers: Vec::new(), kubernetes: Some(kubernetes), bed };
        cluster.make_nodes();
        until("there are accounts", PATIENCE, || cluster.token("default", "default"));
        cluster
    }

    /// The API server dies.
    pub(super) fn kill_api_server(&mut self) {
        self.kubernetes = None;
    }

    pub(super) fn start_api_server(&mut self) {
        self.kubernetes = Some(start_api_server(&self.bed));
    }

    fn make_nodes(&self) {
        let control = self.bed.lab.host(Host::ControlPlane).unwrap();
        for n in [1, 2] {
            let host = Host::Node(n);
            let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": host.to_string() },
                               "spec": { "podCIDR": format!("10.244.{n}.0/24") } });
            self.bed.kubectl().apply(&node.to_string()).unwrap();
            let status = json!({ "addresses": [{ "type": "InternalIP", "address": host.ip() }],
                                 "conditions": [{ "type": "Ready", "status": "True" }] });
            self.set_status(&["node", &host.to_string()], &status);
            let netns = self.bed.lab.host(host).unwrap();
            netns.set_sysctl("net/ipv4/ip_forward", "1").unwrap();
            let route = Route::via(format!("10.244.{n}.0/24").parse().unwrap(), host.ip());
            Rt::open_in(&control).unwrap().add_route(&route).unwrap();
            let other = self.bed.lab.host(Host::Node(3 - n)).unwrap();
            Rt::open_in(&other).unwrap().add_route(&route).unwrap();
        }
    }

    fn set_status(&self, object: &[&str], status: &Value) {
        let patch = json!({ "status": status }).to_string();
        let patch = ["--subresource=status", "--type=merge", "-p", &patch];
        self.bed.run(&[&["patch"], object, &patch].concat());
    }

    /// Makes a pod, and its network: `NAMESPACE/NAME` at 10.244.`node`.`last`. `spec` are more fields of it.
    pub(super) fn pod(&self, pod: &str, (node, last): (u8, u8), labels: &Value, spec: &Value) {
        let (namespace, name) = pod.split_once('/').unwrap();
        let mut object = json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": namespace, "labels": labels },
            "spec": { "nodeName": format!("node-{node}"), "containers": [{ "name": "c", "image": "any",
                      "ports": [{ "name": "http", "containerPort": 80 }] }] } });
        object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        self.bed.kubectl().apply(&object.to_string()).unwrap();
        let layout = &self.bed.lab.layout;
        let path = layout.data_dir(Host::Node(node)).join("pods").join(format!("{namespace}_{name}/netns"));
        let netns = Netns::create(&path).unwrap();
        let (link, gateway) = (format!("pod{last}"), IpAddr::from([10, 244, node, 1]));
        let address = IpAddr::from([10, 244, node, last]);
        let mut host = Rt::open_in(&self.bed.lab.host(Host::Node(node)).unwrap()).unwrap();
        let peer = VethPeer { name: "eth0", mac: None, netns: Some(&netns) };
        host.add_veth(&Veth { name: &link, mac: None, mtu: None, peer }).unwrap();
        host.set_up(&link).unwrap();
        host.add_address(&link, gateway.into()).unwrap();
        let index = host.link(&link).unwrap().index;
        host.add_route(&Route::on_link(address.into(), index)).unwrap();
        let mut inside = Rt::open_in(&netns).unwrap();
        inside.set_up("lo").unwrap();
        inside.set_up("eth0").unwrap();
        inside.add_address("eth0", address.into()).unwrap();
        let index = inside.link("eth0").unwrap().index;
        inside.add_route(&Route::on_link(gateway.into(), index)).unwrap();
        inside.add_route(&Route::via("0.0.0.0/0".parse().unwrap(), gateway)).unwrap();
        self.set_ready(pod, true);
    }

    /// What the pod's kubelet would say of it.
    pub(super) fn set_ready(&self, pod: &str, ready: bool) {
        let (namespace, name) = pod.split_once('/').unwrap();
        let path = "{.spec.nodeName}";
        let node = self.bed.field(&format!("pod -n {namespace} {name}"), path);
        let address = self.address(pod);
        let host: Host = node.parse().unwrap();
        let status = if ready { "True" } else { "False" };
        let status = json!({ "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
            "hostIP": host.ip(), "conditions": [{ "type": "Ready", "status": status }] });
        self.set_status(&["pod", "-n", namespace, name], &status);
    }

    fn address(&self, pod: &str) -> IpAddr {
        let place = self.bed.lab.place(pod).unwrap();
        let addresses = Rt::open_in(&place.netns).unwrap().addresses().unwrap();
        addresses
            .iter()
            .map(|address| address.net.addr())
            .find(|ip| ip.is_ipv4() && !ip.is_loopback())
            .unwrap()
    }

    /// A pod of the built-in image: it answers with its name on port 80, and keeps connections on 9000.
    pub(super) fn echo(&mut self, name: &str, at: (u8, u8), labels: &Value, spec: &Value) {
        self.pod(&format!("default/{name}"), at, labels, spec);
        let place = self.bed.lab.place(name).unwrap();
        let mut command = Command::new(exe());
        command.args(["echo", "--http", "80", "--tcp", "9000"]).env("POD_NAME", name).stderr(Stdio::null());
        self.programs.push(Program(place.spawn(&mut command).unwrap()));
    }

    /// Applies a file of `deploy/`, as far as 1.20 knows its fields.
    pub(super) fn deploy(&self, text: &str) {
        let output = self.bed.kubectl().output(&["apply", "--validate=false", "-f", "-"], text).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The token and authority of an account, from the Secret that 1.20 makes for it.
    fn token(&self, namespace: &str, account: &str) -> Option<Value> {
        let get = |kind: &str, name: &str| -> Option<Value> {
            let text = self.bed.kubectl().run(&["get", kind, name, "-n", namespace, "-o", "json"]).ok()?;
            serde_json::from_str(&text).ok()
        };
        let account = get("serviceaccount", account)?;
        let secret = get("secret", account["secrets"][0]["name"].as_str()?)?;
        secret["data"]["token"].is_string().then(|| secret["data"].clone())
    }

    /// Runs what a workload of kube-system says, init containers first, on a node, or in a pod of it. Returns when its
    /// probes are content.
    pub(super) fn run(&mut self, workload: &str, place: &str, node: u8) {
        let main = self.begin(workload, place, node);
        self.until_probed(&main, place);
    }

    fn until_probed(&self, main: &Value, place: &str) {
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let get = &main[probe]["httpGet"];
            if let Some(port) = get["port"].as_u64() {
                self.until_answered(place, get, port as u16);
            }
        }
    }

    /// As `run`, without waiting for probes.
    pub(super) fn begin(&mut self, workload: &str, place: &str, node: u8) -> Value {
        let text = self.bed.run(&["get", workload, "-n", "kube-system", "-o", "json"]);
        let workload: Value = serde_json::from_str(&text).unwrap();
        let spec = &workload["spec"]["template"]["spec"];
        let name = format!("{}-{}", workload["metadata"]["name"].as_str().unwrap(), place.replace('/', "-"));
        let root = self.files(&name, spec);
        for init in spec["initContainers"].as_array().into_iter().flatten() {
            let mut command = container(init, &root, node);
            let place = self.bed.lab.place(place).unwrap();
            let output = place.output(&mut command).unwrap();
            assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let main = &spec["containers"][0];
        let log = File::create(root.with_extension("log")).unwrap();
        let mut command = container(main, &root, node);
        command.stdout(Stdio::null()).stderr(log);
        let program = Program(self.bed.lab.place(place).unwrap().spawn(&mut command).unwrap());
        self.containers.push((name, program));
        main.clone()
    }

    /// Kubernetes' own proxy of a node, in its mode iptables.
    pub(super) fn kube_proxy(&self, node: u8) -> Program {
        let layout = &self.bed.lab.layout;
        let host = Host::Node(node);
        let mut command = Command::new(program("kube-proxy"));
        command.arg("--kubeconfig").arg(layout.kubeconfig()).arg(format!("--hostname-override={host}"));
        command.args(["--proxy-mode=iptables", "--cluster-cidr=10.244.0.0/16"]);
        // A network namespace has no say in these.
        command.args(["--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0"]);
        command.arg("--conntrack-tcp-timeout-close-wait=0");
        let log = File::create(layout.dir().join(format!("kube-proxy-{host}.log"))).unwrap();
        let netns = self.bed.lab.host(host).unwrap();
        Program(netns.run(|| command.stdout(Stdio::null()).stderr(log).spawn()).unwrap().unwrap())
    }

    /// A kubelet asks from the node, the host that is named or the pod.
    fn until_answered(&self, place: &str, get: &Value, port: u16) {
        let ip = match get["host"].as_str() {
            Some(host) => host.parse().unwrap(),
            None => self.address(place),
        };
        let path = get["path"].as_str().unwrap();
        until(&format!("{place}: {path} on {port}"), PATIENCE, || {
            let netns = self.bed.lab.place(place).unwrap().netns;
            let answer = probe::http_get(&netns, SocketAddr::new(ip, port), path).unwrap();
            answer.text().map(drop)
        });
    }

    /// The directories that a container sees in place of `/etc` and `/run`.
    fn files(&self, name: &str, spec: &Value) -> PathBuf {
        let root = self.bed.lab.layout.dir().join(name);
        let account = spec["serviceAccountName"].as_str().unwrap();
        let token = until("the account has a token", PATIENCE, || self.token("kube-system", account));
        let decode =
            |text: &Value| base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap()).unwrap();
        fs::create_dir_all(root.join(ACCOUNT)).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        for file in ["token", "ca.crt", "namespace"] {
            fs::write(root.join(ACCOUNT).join(file), decode(&token[file])).unwrap();
        }
        // The node's resolver; nobody is there.
        fs::write(root.join("etc/resolv.conf"), format!("nameserver {}\n", Host::Server.ip())).unwrap();
        for volume in spec["volumes"].as_array().into_iter().flatten() {
            let Some(map) = volume["configMap"]["name"].as_str() else { continue };
            let text = self.bed.run(&["get", "configmap", map, "-n", "kube-system", "-o", "json"]);
            let map: Value = serde_json::from_str(&text).unwrap();
            let mut mounts = spec["containers"][0]["volumeMounts"].as_array().into_iter().flatten();
            let mount = mounts.find(|mount| mount["name"] == volume["name"]).unwrap();
            let dir = root.join(mount["mountPath"].as_str().unwrap().trim_start_matches('/'));
            fs::create_dir_all(&dir).unwrap();
            for (file, text) in map["data"].as_object().unwrap() {
                fs::write(dir.join(file), text.as_str().unwrap()).unwrap();
            }
        }
        root
    }

    /// Tells a container to end, and waits until it has.
    pub(super) fn stop(&mut self, name: &str) {
        let index = self.containers.iter().position(|(other, _)| other == name).unwrap();
        let (_, mut program) = self.containers.remove(index);
        kill_process(Pid::from_child(&program.0), Signal::TERM).unwrap();
        assert!(program.0.wait().unwrap().success());
    }

    /// What a container has logged so far.
    pub(super) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.bed.lab.layout.dir().join(format!("{name}.log"))).unwrap()
    }

    /// Nobody was refused anything that is there: what `deploy/` grants is enough.
    pub(super) fn nobody_was_refused(&self) {
        for (name, _) in &self.containers {
            let log = self.log(name);
            let refused = |line: &&str| line.contains("forbidden") && !line.contains("servicecidrs");
            let lines: Vec<&str> = log.lines().filter(refused).collect();
            assert!(lines.is_empty(), "{name}: {lines:?}");
            // ServiceCIDRs are of 1.29 and later; whoever has no right to them is told that first, once.
            let told = log.lines().filter(|line| line.contains("servicecidrs"));
            assert!(told.count() <= 1, "{name}: {log}");
        }
    }

    /// What a container answers on one of its own addresses.
    pub(super) fn get(&self, place: &str, ip: IpAddr, port: u16, path: &str) -> String {
        let netns = self.bed.lab.place(place).unwrap().netns;
        let answer = probe::http_get(&netns, at(ip, port), path).unwrap();
        answer.text().unwrap_or_else(|| panic!("{path}: {answer:?}")).to_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (name, _) in &self.containers {
                let log = self.log(name);
                let lines: Vec<&str> = log.lines().collect();
                eprintln!(
                    "--- the end of {name}'s log\n{}",
                    lines[lines.len().saturating_sub(15)..].join("\n")
                );
            }
        }
    }
}

/// Returns when it is ready.
fn start_api_server(bed: &Bed) -> Kubernetes {
    let dir = bed.lab.layout.data_dir(Host::ControlPlane);
    let more = [
        // As every cluster with a kube-proxy has it.
        "--allow-privileged=true".to_owned(),
        format!("--tls-cert-file={}", dir.join("server.crt").display()),
        format!("--tls-private-key-file={}", dir.join("server.key").display()),
    ];
    let kubernetes = Kubernetes::start(&Setup {
        netns: &bed.lab.host(Host::ControlPlane).unwrap(),
        address: &Host::ControlPlane.ip().to_string(),
        dir: &dir,
        pki: &dir.join("pki"),
        etcd: ETCD,
        more: &more,
    });
    until("kube-apiserver is ready", PATIENCE, || bed.kubectl().run(&["get", "--raw", "/readyz"]).ok());
    kubernetes
}

/// The command of a container, with its files below `root`.
fn container(container: &Value, root: &Path, node: u8) -> Command {
    let words = |field: &str| -> Vec<String> {
        let words = container[field].as_array().into_iter().flatten();
        words.map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let mut environment = vec![
        ("KUBERNETES_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned()),
        ("KUBERNETES_SERVICE_PORT".to_owned(), "443".to_owned()),
    ];
    for variable in container["env"].as_array().into_iter().flatten() {
        let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("spec.nodeName") => Host::Node(node).to_string(),
            Some("status.hostIP") => Host::Node(node).ip().to_string(),
            other => panic!("{other:?} is not known here"),
        };
        environment.push((variable["name"].as_str().unwrap().to_owned(), value));
    }
    let mut argv = words("command");
    if argv.is_empty() {
        // The image's entry point.
        argv.push("portolan".into());
    }
    argv[0] = exe().display().to_string();
    argv.extend(words("args"));
    for word in &mut argv {
        for (name, value) in &environment {
            *word = word.replace(&format!("$({name})"), value);
        }
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec"]);
    command.arg("mount --bind $0/etc /etc; mount --bind $0/run /run; exec \"$@\"").arg(root);
    let security = &container["securityContext"];
    if security["privileged"] != true {
        assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
        let mut bounds = vec!["-all".to_owned()];
        let added = security["capabilities"]["add"].as_array().unwrap().iter();
        bounds.extend(added.map(|name| format!("+{}", name.as_str().unwrap().to_lowercase())));
        command.args(["setpriv", "--inh-caps=-all", "--bounding-set", &bounds.join(",")]);
        if security["allowPrivilegeEscalation"] == false {
            command.arg("--no-new-privs");
        }
    }
    command.args(argv).env_clear().env("PATH", std::env::var_os("PATH").unwrap()).envs(environment);
    command.stdin(Stdio::null());
    command
}

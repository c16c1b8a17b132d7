//! `portolan proxy` by itself, against the API server of a lab, on a host that has no other proxy: the control plane's.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portolan_lab::Host;
use portolan_lab::probe::{self, Answer};
use portolan_netlink::netns::Netns;

use crate::bed::{Bed, PATIENCE, at, exe, settles, web_pod};

/// Without a route to it a packet to a ClusterIP would not even begin; the address is in the lab's Service range.
const SERVICE: &str = "---\n{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{name: http, port: 80}, {name: line, port: 9000}]}}";

pub(crate) struct Place {
    bed: Bed,
    netns: Netns,
    dir: tempfile::TempDir,
}

impl Place {
    /// A lab with two ready pods, and the control plane's host, which reaches them straight but no Service.
    pub(crate) fn new() -> Self {
        let bed = Bed::up(1);
        let pods = web_pod("web-1", "app: web", None) + &web_pod("web-2", "app: web", None);
        bed.apply(&(pods + SERVICE));
        bed.wait_ready("app=web");
        let netns = bed.lab.host(Host::ControlPlane).unwrap();
        Self { bed, netns, dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn output(&self, mut command: Command) -> Output {
        self.netns.run(|| command.output()).unwrap().unwrap()
    }

    pub(crate) fn tool(&self, program: &str, args: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(args);
        let output = self.output(command);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn portolan(&self, args: &[&str]) -> (bool, String) {
        let mut command = Command::new(exe());
        command.arg("proxy").args(args);
        let output = self.output(command);
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text.into_owned())
    }

    /// A configuration file for this place; `more` are further lines.
    pub(crate) fn configuration(&self, more: &str) -> PathBuf {
        self.configuration_in("nftables", more)
    }

    pub(crate) fn configuration_in(&self, mode: &str, more: &str) -> PathBuf {
        let path = self.path("config.yaml");
        let kubeconfig = self.bed.lab.layout.kubeconfig();
        let text = format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: {mode}\n\
             clusterCIDR: 10.244.0.0/16\nclientConnection: {{kubeconfig: {}}}\n{more}",
            kubeconfig.display()
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn proxy(&self, args: &[&str]) -> Proxy {
        self.start(Command::new(exe()), args)
    }

    fn start(&self, mut command: Command, args: &[&str]) -> Proxy {
        let log = self.path("log");
        command.arg("proxy").args(args).stdout(Stdio::piped()).stderr(std::fs::File::create(&log).unwrap());
        let child = self.netns.run(|| command.spawn()).unwrap().unwrap();
        let mut proxy = Proxy { child, log };
        proxy.wait_ready();
        proxy
    }

    /// The proxy for node-1's Node object; there is none for the control plane's host.
    fn with_file(&self, more: &str) -> Proxy {
        self.in_mode("nftables", more)
    }

    pub(crate) fn in_mode(&self, mode: &str, more: &str) -> Proxy {
        let path = self.configuration_in(mode, more);
        self.proxy(&["--config", &path.display().to_string(), "--hostname-override=node-1"])
    }

    /// Starts a proxy without waiting for it.
    pub(crate) fn begin_in(&self, mode: &str, more: &str) -> Child {
        let path = self.configuration_in(mode, more);
        let mut command = Command::new(exe());
        command.args(["proxy", "--hostname-override=node-1", "--config"]).arg(path);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.netns.run(|| command.spawn()).unwrap().unwrap()
    }

    fn ask(&self) -> Answer {
        probe::http_get(&self.netns, self.web(80), "/").unwrap()
    }

    pub(crate) fn web(&self, port: u16) -> SocketAddr {
        at(self.bed.cluster_ip("web"), port)
    }

    pub(crate) fn get(&self, port: u16, path: &str) -> Answer {
        probe::http_get(&self.netns, at([127, 0, 0, 1].into(), port), path).unwrap()
    }

    pub(crate) fn tables(&self) -> String {
        self.tool("nft", &["list", "tables"])
    }

    fn until_tables(&self, satisfies: impl Fn(&str) -> bool) {
        let begin = Instant::now();
        loop {
            let tables = self.tables();
            if satisfies(&tables) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{tables}");
        }
    }

    /// A connection that stays open.
    pub(crate) fn connect(&self) -> Line {
        Line::connect(&self.netns, self.web(9000))
    }
}

/// A connection on which everything comes back as it was sent.
pub(crate) struct Line {
    stream: BufReader<TcpStream>,
}

impl Line {
    pub(crate) fn connect(from: &Netns, to: SocketAddr) -> Self {
        let stream = from.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut line = Self { stream: BufReader::new(stream) };
        assert!(line.read().starts_with("name=web-"));
        line
    }

    fn read(&mut self) -> String {
        let mut text = String::new();
        self.stream.read_line(&mut text).unwrap();
        text
    }

    pub(crate) fn still_works(&mut self) {
        self.stream.get_mut().write_all(b"are you there?\n").unwrap();
        assert_eq!(self.read(), "are you there?\n");
    }
}

pub(crate) struct Proxy {
    pub(crate) child: Child,
    log: PathBuf,
}

impl Proxy {
    pub(crate) fn wait_ready(&mut self) {
        let mut line = String::new();
        BufReader::new(self.child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("serves node"), "{line}{}", self.log());
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn until_log(&self, what: &str) {
        let begin = Instant::now();
        while !self.log().contains(what) {
            assert!(begin.elapsed() < PATIENCE, "{what} is not in:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success(), "{}", self.log());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the proxy's log\n{}", self.log());
        }
    }
}

#[test]
fn it_serves_by_flags_tells_how_it_stands_and_cleans_up() {
    let place = Place::new();
    assert_ne!(place.ask().text(), Some(""), "no Service without a proxy");
    assert!(place.ask().text().is_none());
    let kubeconfig = place.bed.lab.layout.kubeconfig().display().to_string();
    let proxy = place.proxy(&[
        "--kubeconfig",
        &kubeconfig,
        "--hostname-override=Node-1",
        "--cluster-cidr=10.244.0.0/16",
        "--conntrack-tcp-timeout-established=2h",
        "--feature-gates=A=true",
        "--v=4",
    ]);
    assert!(place.ask().text().is_some());
    assert!(proxy.log().contains("flags that mean nothing here: --feature-gates"), "{}", proxy.log());
    let established = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";
    assert_eq!(place.tool("cat", &[established]), "7200\n");

    assert_eq!(place.get(10249, "/proxyMode").text(), Some("nftables"));
    let configz: serde_json::Value =
        serde_json::from_str(place.get(10249, "/configz").text().unwrap()).unwrap();
    assert_eq!(configz["kubeproxy.config.k8s.io"]["conntrack"]["tcpEstablishedTimeout"], "2h0m0s");
    assert!(place.get(10256, "/livez").text().unwrap().contains("\"healthy\":true"));
    place.bed.until_field("events", "{.items[*].reason}", |reasons| reasons.contains("Starting"));

    let (ok, text) = place.portolan(&["status"]);
    assert!(ok && text.contains("mode            nftables"), "{text}");
    assert!(text.contains("ip portolan, ip6 portolan"), "{text}");
    let (ok, text) = place.portolan(&["status", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(
        ok && status["proxy"]["services"].as_u64() >= Some(2) && status["proxy"]["mended_objects"] == 0,
        "{text}"
    );

    let (ok, text) = place.portolan(&["cleanup"]);
    assert!(!ok && text.contains("a portolan proxy runs here"), "{text}");
    let (ok, text) = place.portolan(&["--kubeconfig", &kubeconfig, "--hostname-override=node-1"]);
    assert!(!ok && text.contains("another portolan proxy runs here"), "{text}");

    place.tool("nft", &["flush", "ruleset"]);
    settles(|| place.ask(), |answer| answer.text().is_some());
    proxy.until_log("nft (process ");

    proxy.stop();
    assert!(place.ask().text().is_some(), "rules outlive the proxy");
    let (ok, text) = place.portolan(&["status"]);
    assert!(!ok && text.contains("no portolan proxy answers"), "{text}");
    let (ok, text) = place.portolan(&["cleanup"]);
    assert!(ok && text.contains("removed nftables table ip portolan"), "{text}");
    assert_eq!(place.tables(), "");
    assert_eq!(place.portolan(&["cleanup", "--kube-proxy"]), (true, "nothing to remove\n".into()));
}

#[test]
fn the_capability_to_administer_networks_is_enough() {
    let place = Place::new();
    let path = place.configuration("conntrack: {maxPerCore: 0}\n");
    let args = ["--config", path.to_str().unwrap(), "--hostname-override=node-1"];
    let (ok, text) = place.portolan(&[&args[..], &["--init-only"]].concat());
    assert!(ok, "{text}");
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all,+net_admin", "--inh-caps=-all"]).arg(exe());
    let proxy = place.start(command, &args);
    assert!(place.ask().text().is_some());
    place.tool("nft", &["delete", "table", "ip", "portolan"]);
    settles(|| place.ask(), |answer| answer.text().is_some());
    assert!(!proxy.log().contains("cannot listen for others' changes"), "{}", proxy.log());
    proxy.stop();
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_before_anything_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
    let run = |body: &str, more: &[&str]| {
        std::fs::write(&path, format!("{head}{body}")).unwrap();
        let output = Command::new(exe()).args(["proxy", "--config"]).arg(&path).args(more).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let text = run("nftables: {syncPerod: 1s}\n", &[]);
    assert!(text.contains("unknown field \"nftables.syncPerod\" (did you mean \"syncPeriod\"?)"), "{text}");
    assert!(text.contains("config.yaml"), "{text}");
    let text = run("mode: kernelspace\noomScoreAdj: 2000\n", &[]);
    assert!(text.contains("mode: Invalid value: \"kernelspace\": must be one of nftables"), "{text}");
    assert!(text.contains("oomScoreAdj: Invalid value: 2000"), "{text}");
    let written = dir.path().join("written.yaml");
    let output = Command::new(exe())
        .args(["proxy", "--cluster-cidr=10.1.0.0/16", "--write-config-to"])
        .arg(&written)
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = std::fs::read_to_string(&written).unwrap();
    assert!(text.contains("clusterCIDR: 10.1.0.0/16") && text.contains("syncPeriod: 30s"), "{text}");
}

#[test]
fn a_new_configuration_starts_the_process_anew_without_losing_a_connection() {
    let place = Place::new();
    let mut proxy = place.with_file("conntrack: {maxPerCore: 0}\nportRange: 1-2\n");
    assert!(proxy.log().contains("fields that mean nothing here: portRange"), "{}", proxy.log());
    let mut line = place.connect();
    let pid = proxy.child.id();
    place.configuration("mode: [\n");
    proxy.until_log("cannot be used; the old one stays in force");
    place.configuration("conntrack: {maxPerCore: 0}\nmetricsBindAddress: 127.0.0.1:10299\n");
    proxy.wait_ready();
    assert!(proxy.log().contains("content of the proxy server's configuration file was updated"));
    assert_eq!(proxy.child.id(), pid);
    settles(|| place.get(10299, "/proxyMode"), |answer| answer.text() == Some("nftables"));
    line.still_works();
    proxy.stop();
    line.still_works();
}

/// kube-proxy's rules for one Service of two endpoints, in the shape in which it writes them.
fn kube_proxys_rules(service: IpAddr, pods: [IpAddr; 2]) -> String {
    let [a, b] = pods;
    let chain = |name: &str, port: u16, to: u16| {
        format!(
            "add chain ip kube-proxy {name}\n\
             add rule ip kube-proxy {name} ip daddr {service} tcp dport {port} ip saddr != 10.244.0.0/16 jump mark-for-masquerade\n\
             add rule ip kube-proxy {name} meta l4proto tcp dnat ip to numgen random mod 2 map {{ 0 : {a} . {to}, 1 : {b} . {to} }}\n\
             add element ip kube-proxy service-ips {{ {service} . tcp . {port} : goto {name} }}\n"
        )
    };
    format!(
        "add table ip kube-proxy {{ comment \"rules for kube-proxy\"; }}\n\
         add map ip kube-proxy service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}\n\
         add set ip kube-proxy cluster-ips {{ type ipv4_addr; }}\n\
         add element ip kube-proxy cluster-ips {{ {service} }}\n\
         add chain ip kube-proxy nat-prerouting {{ type nat hook prerouting priority dstnat; }}\n\
         add chain ip kube-proxy nat-output {{ type nat hook output priority -100; }}\n\
         add chain ip kube-proxy nat-postrouting {{ type nat hook postrouting priority srcnat; }}\n\
         add chain ip kube-proxy filter-output {{ type filter hook output priority 0; }}\n\
         add chain ip kube-proxy mark-for-masquerade\n\
         add rule ip kube-proxy mark-for-masquerade meta mark set meta mark or 0x4000\n\
         add chain ip kube-proxy masquerading\n\
         add rule ip kube-proxy masquerading meta mark and 0x4000 == 0 return\n\
         add rule ip kube-proxy masquerading meta mark set meta mark xor 0x4000\n\
         add rule ip kube-proxy masquerading masquerade fully-random\n\
         add chain ip kube-proxy services\n\
         {}{}\
         add rule ip kube-proxy services ip daddr . meta l4proto . th dport vmap @service-ips\n\
         add chain ip kube-proxy reject-chain\n\
         add rule ip kube-proxy reject-chain reject\n\
         add chain ip kube-proxy cluster-ips-check\n\
         add rule ip kube-proxy cluster-ips-check ip daddr @cluster-ips goto reject-chain\n\
         add rule ip kube-proxy filter-output ct state new jump cluster-ips-check\n\
         add rule ip kube-proxy nat-prerouting jump services\n\
         add rule ip kube-proxy nat-output jump services\n\
         add rule ip kube-proxy nat-postrouting jump masquerading\n",
        chain("service-AAAAAAAA-default/web/tcp/http", 80, 80),
        chain("service-BBBBBBBB-default/web/tcp/line", 9000, 9000),
    )
}

/// New connections, one after another, for as long as it lives; the first that fails is a panic at the end.
pub(crate) fn keep_connecting<T>(place: &Place, during: impl FnOnce(&dyn Fn()) -> T) -> T {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let web = place.web(80);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let answer = probe::http_get(&place.netns, web, "/").unwrap();
                if answer.text().is_none() {
                    return Some(answer);
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
            None
        });
        let some_more = || {
            let wanted = count.load(Ordering::Relaxed) + 20;
            while count.load(Ordering::Relaxed) < wanted && !asking.is_finished() {
                std::thread::yield_now();
            }
        };
        let result = during(&some_more);
        some_more();
        stop.store(true, Ordering::Relaxed);
        let failed = asking.join().unwrap();
        assert_eq!(failed, None, "after {} connections", count.load(Ordering::Relaxed));
        result
    })
}

#[test]
fn it_takes_over_from_kube_proxy_and_hands_back_without_losing_a_connection() {
    let place = Place::new();
    let pods = ["web-1", "web-2"].map(|pod| place.bed.pod_ip(pod));
    let rules = place.path("kube-proxy.nft");
    std::fs::write(&rules, kube_proxys_rules(place.web(80).ip(), pods)).unwrap();
    let rules = rules.display().to_string();
    place.tool("nft", &["-f", &rules]);
    let mut old = place.connect();

    // Over: both side by side, then kube-proxy's rules go.
    let (mut new, proxy) = keep_connecting(&place, |some_more| {
        some_more();
        let proxy = place.with_file("conntrack: {maxPerCore: 0}\n");
        assert!(proxy.log().contains("kube-proxy's nftables rules are here too"), "{}", proxy.log());
        some_more();
        let (ok, text) = place.portolan(&["cleanup", "--only-kube-proxy"]);
        assert!(ok && text.contains("removed nftables table ip kube-proxy"), "{text}");
        some_more();
        (place.connect(), proxy)
    });
    assert!(!place.tables().contains("kube-proxy"));
    old.still_works();
    new.still_works();

    // Back: kube-proxy's rules come, then ours go.
    keep_connecting(&place, |some_more| {
        place.tool("nft", &["-f", &rules]);
        some_more();
        proxy.stop();
        some_more();
        let (ok, text) = place.portolan(&["cleanup"]);
        assert!(ok && text.contains("removed nftables table ip portolan"), "{text}");
    });
    place.until_tables(|tables| tables == "table ip kube-proxy\n");
    old.still_works();
    new.still_works();
}

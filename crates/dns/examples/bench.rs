//! How fast names of Services are answered, against Debian's knot, unbound and dnsmasq, by dnsperf:
//! `cargo run --release -p portolan-dns --example bench`.
//!
//! Needs root, and the packages knot, unbound, dnsmasq-base and dnsperf. Everything happens in a network namespace of its
//! own that has a loopback and nothing else. Each server runs alone on one core, dnsperf on the other; what counts is
//! questions answered for each second of the server's processor time, as a ratio to the best of the others.
//!
//! With `change` as argument: what one change of a Service costs, and what a zone holds in memory, without any server.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan_client::Key;
use portolan_dns::metrics::Tally;
use portolan_dns::server::limit::Limiter;
use portolan_dns::server::udp::{Shared, Workers};
use portolan_dns::server::{Handler, Snapshot};
use portolan_dns::zone::view::{EndpointView, PortView, Protocol, ServiceKind, ServiceView, SliceView};
use portolan_dns::zone::{Catalogue, Options};

const SERVICES: u32 = 10_000;
const PORT: u16 = 5300;
const SECONDS: u32 = 5;
const ROUNDS: usize = 3;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("serve") => serve(),
        Some("inside") => inside(),
        Some("change") => change(),
        _ => {
            // A namespace first, so that nothing can leave this machine.
            let me = std::env::current_exe().expect("this program has a path");
            let status = Command::new("unshare").arg("--net").arg(me).arg("inside").status();
            assert!(status.expect("unshare is installed").success(), "the benchmark failed");
        }
    }
}

fn address(n: u32) -> [u8; 4] {
    (0x0a60_0000 + n + 1).to_be_bytes()
}

fn dotted(n: u32) -> String {
    std::net::Ipv4Addr::from(address(n)).to_string()
}

/// The server under test, until it is killed.
fn serve() {
    let mut catalogue = Catalogue::new(Options::new("cluster.local").expect("a name")).expect("options");
    catalogue.set_namespace("default", true);
    for n in 0..SERVICES {
        let port = PortView { name: "http".into(), protocol: Protocol::Tcp, port: 80 };
        let kind = ServiceKind::Cluster(vec![address(n).into()]);
        let view = ServiceView { kind, ports: vec![port] };
        catalogue.set_service(&Key::new("default", format!("service-{n}")), Some(&Arc::new(view)));
    }
    let zone = catalogue.commit(1).expect("there are Services");
    let handler = Arc::new(Handler::new(zone.clone(), None, 1232));
    handler.set_snapshot(Snapshot { zone, synced: true });
    let limiter = Arc::new(Limiter::new(&["127.0.0.0/8".parse().expect("a range")], 100));
    let shared = Shared { handler, limiter, later: Arc::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listen: SocketAddr = ([127, 0, 0, 1], PORT).into();
        let _workers = Workers::start(listen, &shared, &[Arc::new(Tally::default())]).expect("a socket");
        std::future::pending::<()>().await;
    });
}

/// From a changed slice to a zone that has it.
fn change() {
    for services in [1_000, 10_000, 100_000u32] {
        let before = resident_kib();
        let begin = Instant::now();
        let mut catalogue = Catalogue::new(Options::new("cluster.local").expect("a name")).expect("options");
        catalogue.set_namespace("default", true);
        let key = |n: u32| Key::new("default", format!("service-{n}"));
        let slice = |n: u32, round: u32| {
            let endpoint = |e: u32| EndpointView {
                addresses: vec![(0x0af4_0000 + n * 16 + e).to_be_bytes().into()],
                ready: true,
                hostname: None,
                target: None,
            };
            let ports = vec![PortView { name: "http".into(), protocol: Protocol::Tcp, port: 80 }].into();
            let endpoints = (0..10 - round % 2).map(endpoint).collect();
            Arc::new(SliceView { service: Some(key(n)), endpoints, ports, trigger_ns: None })
        };
        for n in 0..services {
            let view = ServiceView { kind: ServiceKind::Headless, ports: Vec::new() };
            catalogue.set_service(&key(n), Some(&Arc::new(view)));
            catalogue.set_slice(&key(n), Some(&slice(n, 0)));
        }
        let mut zone = catalogue.commit(1);
        let (filled, memory) = (begin.elapsed(), resident_kib() - before);
        let mut each: Vec<Duration> = (0..1_000)
            .map(|round| {
                let view = slice(round * 7_919 % services, 1);
                let begin = Instant::now();
                catalogue.set_slice(&key(round * 7_919 % services), Some(&view));
                // The old zone is still being answered from, as in the server.
                zone = catalogue.commit(1);
                begin.elapsed()
            })
            .collect();
        each.sort();
        println!(
            "{services:>7} headless Services of 10 endpoints: first zone {:.0} ms, {} MiB; one change {:.0} us median",
            filled.as_secs_f64() * 1e3,
            memory / 1_024,
            each[each.len() / 2].as_secs_f64() * 1e6,
        );
    }
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

struct Server {
    name: &'static str,
    command: Vec<String>,
}

struct Workload {
    name: &'static str,
    /// Sockets that the questions come from.
    clients: u32,
    questions: String,
}

fn workloads() -> Vec<Workload> {
    let (mut plain, mut mixed) = (String::new(), String::new());
    for n in 0..SERVICES {
        // Not in order, as real questions are not.
        let n = n * 7_919 % SERVICES;
        _ = writeln!(plain, "service-{n}.default.svc.cluster.local A");
        _ = match n % 10 {
            0..=5 => writeln!(mixed, "service-{n}.default.svc.cluster.local A"),
            6 | 7 => writeln!(mixed, "service-{n}.default.svc.cluster.local AAAA"),
            8 => writeln!(mixed, "_http._tcp.service-{n}.default.svc.cluster.local SRV"),
            _ => writeln!(mixed, "service-{n}.default.default.svc.cluster.local A"),
        };
    }
    let all_types = "60% A, 20% AAAA (NODATA), 10% SRV, 10% NXDOMAIN";
    vec![
        Workload { name: "A of a Service", clients: 8, questions: plain.clone() },
        Workload { name: all_types, clients: 8, questions: mixed.clone() },
        Workload { name: "A of a Service", clients: 200, questions: plain },
        Workload { name: all_types, clients: 200, questions: mixed },
    ]
}

fn inside() {
    assert!(
        Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip is installed").success()
    );
    let directory = tempfile::tempdir().expect("a directory");
    let servers = servers(directory.path());
    for workload in workloads() {
        let file = directory.path().join("questions");
        std::fs::write(&file, &workload.questions).expect("a file");
        let Workload { name, clients, .. } = &workload;
        println!("\n{name}; {clients} clients, {SERVICES} Services, best of {ROUNDS} rounds");
        println!(
            "{:10} {:>16} {:>22} {:>18}",
            "", "questions/s", "questions/CPU second", "of the best other"
        );
        let results: Vec<_> =
            servers.iter().map(|server| (server.name, best(server, &file, workload.clients))).collect();
        let others = results.iter().filter(|(name, _)| *name != "portolan").map(|(_, r)| r.1);
        let reference = others.fold(f64::NAN, f64::max);
        for (name, (per_second, per_cpu)) in &results {
            println!("{name:10} {per_second:>16.0} {per_cpu:>22.0} {:>18.2}", per_cpu / reference);
        }
    }
}

/// Configures every server with the same records.
fn servers(directory: &Path) -> Vec<Server> {
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let zone = |n: u32| (format!("service-{n}.default.svc.cluster.local"), dotted(n));
    let mut knot_zone = String::from(
        "$ORIGIN cluster.local.\n$TTL 5\n@ SOA ns.dns hostmaster 1 7200 1800 86400 5\n@ NS ns.dns\nns.dns A 127.0.0.1\n",
    );
    let (mut unbound, mut hosts, mut dnsmasq) = (String::new(), String::new(), String::new());
    for n in 0..SERVICES {
        let (name, ip) = zone(n);
        _ = writeln!(knot_zone, "{name}. A {ip}\n_http._tcp.{name}. SRV 0 100 80 {name}.");
        _ = writeln!(unbound, "local-data: \"{name}. 5 A {ip}\"");
        _ = writeln!(unbound, "local-data: \"_http._tcp.{name}. 5 SRV 0 100 80 {name}.\"");
        _ = writeln!(hosts, "{ip} {name}");
        _ = writeln!(dnsmasq, "srv-host=_http._tcp.{name},{name},80,0,100");
    }
    let knot_zone = write("cluster.zone", &knot_zone);
    let storage = directory.display();
    let knot = write(
        "knot.conf",
        &format!(
            "server:\n  rundir: {storage}\n  listen: 127.0.0.1@{PORT}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
             database:\n  storage: {storage}\nzone:\n  - domain: cluster.local\n    file: {knot_zone}\n"
        ),
    );
    let unbound = write(
        "unbound.conf",
        &format!(
            "server:\n interface: 127.0.0.1@{PORT}\n num-threads: 1\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n directory: \"{storage}\"\n \
             pidfile: \"\"\n use-syslog: no\n access-control: 127.0.0.0/8 allow\n module-config: \"iterator\"\n so-rcvbuf: 4m\n \
             local-zone: \"cluster.local.\" static\n local-data: \"cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5\"\n{unbound}\
             remote-control:\n control-enable: no\n"
        ),
    );
    let hosts = write("hosts", &hosts);
    let dnsmasq = write(
        "dnsmasq.conf",
        &format!(
            "keep-in-foreground\nport={PORT}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\naddn-hosts={hosts}\n\
             local=/cluster.local/\nlocal-ttl=5\ncache-size=20000\nuser=root\npid-file=\n{dnsmasq}"
        ),
    );
    let me = std::env::current_exe().expect("this program has a path").display().to_string();
    let server =
        |name, command: &[&str]| Server { name, command: command.iter().map(ToString::to_string).collect() };
    vec![
        server("portolan", &[&me, "serve"]),
        server("knot", &["knotd", "--config", &knot]),
        server("unbound", &["unbound", "-c", &unbound]),
        server("dnsmasq", &["dnsmasq", "-C", &dnsmasq]),
    ]
}

/// Questions per second, and per second of the server's processor time.
fn best(server: &Server, questions: &Path, clients: u32) -> (f64, f64) {
    let mut child = start(server);
    let mut best = (0.0, 0.0);
    for _ in 0..ROUNDS {
        let before = cpu_seconds(child.id());
        let (completed, per_second) = dnsperf(questions, clients);
        let per_cpu = completed / (cpu_seconds(child.id()) - before).max(0.01);
        if per_cpu > best.1 {
            best = (per_second, per_cpu);
        }
    }
    _ = child.kill();
    _ = child.wait();
    best
}

fn start(server: &Server) -> Child {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).args(&server.command).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("taskset and the server are installed");
    for _ in 0..200 {
        let dig = [
            "+short",
            "+time=1",
            "+tries=1",
            "-p",
            "5300",
            "@127.0.0.1",
            "service-1.default.svc.cluster.local",
        ];
        let answer = Command::new("dig").args(dig).output().expect("dig is installed");
        if String::from_utf8_lossy(&answer.stdout).trim() == dotted(1) {
            return child;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    _ = child.kill();
    _ = child.wait();
    panic!("{} does not answer", server.name);
}

fn dnsperf(questions: &Path, clients: u32) -> (f64, f64) {
    let output = Command::new("taskset")
        .args([
            "-c",
            "1",
            "dnsperf",
            "-s",
            "127.0.0.1",
            "-p",
            &PORT.to_string(),
            "-c",
            &clients.to_string(),
            "-q",
            "500",
        ])
        .args(["-l", &SECONDS.to_string(), "-d"])
        .arg(questions)
        .output()
        .expect("dnsperf is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    let number = |label: &str| -> f64 {
        let line = text.lines().find(|line| line.trim_start().starts_with(label)).unwrap_or_default();
        line.split(':').nth(1).and_then(|v| v.split_whitespace().next()?.parse().ok()).unwrap_or(f64::NAN)
    };
    let (sent, completed) = (number("Queries sent"), number("Queries completed"));
    if completed < sent * 0.999 {
        println!("  lost {:.1} %", 100.0 * (1.0 - completed / sent));
    }
    (completed, number("Queries per second"))
}

/// User and system time of a process with all its threads.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the server runs");
    // After the command's name in parentheses: utime and stime are fields 14 and 15 of all.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().filter_map(|f| f.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

//! How fast names of Services are answered, against Debian's knot, unbound and dnsmasq, by dnsperf:
//! `cargo run --release -p portolan-dns --example bench`.
//!
//! Needs root, and the packages knot, unbound, dnsmasq-base and dnsperf. Everything happens in a network namespace of its
//! own that has a loopback and nothing else. Each server runs alone on one core, dnsperf on the other; what counts is
//! questions answered for each second of the server's processor time. The servers take turns, so that what else the
//! machine does falls on all of them; each round gives one ratio to the best of the others.
//!
//! "echo" looks nothing up at all: what the kernel lets any server of this kind reach.
//!
//! With `change` as argument: what one change of a Service costs, and what a zone holds in memory, without any server.

mod change;
mod echo;
mod servers;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use servers::Server;

const SERVICES: u32 = 10_000;
const PORT: u16 = 5300;
const SECONDS: u32 = 3;
const ROUNDS: usize = 5;
/// Questions that wait for an answer at once.
const OUTSTANDING: u32 = 500;
/// Sockets that the questions come from, unless others are named: `bench 200`.
const SOCKETS: [u32; 4] = [1, 8, 32, 200];

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("serve") => servers::serve(),
        Some("echo") => echo::serve(PORT),
        Some("inside") => inside(&named_sockets(2)),
        Some("change") => change::run(),
        _ => {
            // A namespace first, so that nothing can leave this machine.
            let me = std::env::current_exe().expect("this program has a path");
            let status = Command::new("unshare")
                .arg("--net")
                .arg(me)
                .arg("inside")
                .args(std::env::args().skip(1))
                .status();
            assert!(status.expect("unshare is installed").success(), "the benchmark failed");
        }
    }
}

fn named_sockets(skip: usize) -> Vec<u32> {
    let named: Vec<u32> =
        std::env::args().skip(skip).map(|word| word.parse().expect("a number of sockets")).collect();
    if named.is_empty() { SOCKETS.to_vec() } else { named }
}

fn dotted(n: u32) -> String {
    std::net::Ipv4Addr::from(0x0a60_0000 + n + 1).to_string()
}

struct Workload {
    name: &'static str,
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
    let types = "60% A, 20% AAAA (NODATA), 10% SRV, 10% NXDOMAIN";
    vec![Workload { name: "A of a Service", questions: plain }, Workload { name: types, questions: mixed }]
}

fn inside(sockets: &[u32]) {
    assert!(
        Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip is installed").success()
    );
    let directory = tempfile::tempdir().expect("a directory");
    let servers = servers::all(directory.path());
    for workload in workloads() {
        let file = directory.path().join("questions");
        std::fs::write(&file, &workload.questions).expect("a file");
        for sockets in sockets.iter().copied() {
            println!("\n{}; {sockets} sockets, {SERVICES} Services, {ROUNDS} rounds", workload.name);
            let round = |_| servers.iter().map(|server| measure(server, &file, sockets)).collect();
            report(&servers, &(0..ROUNDS).map(round).collect::<Vec<_>>());
        }
    }
}

/// Thousands of questions per second of processor time, and how each round's compare with the best other's.
fn report(servers: &[Server], rounds: &[Vec<f64>]) {
    println!("{:10} {:>22} {:>30}", "", "1,000 per CPU second", "of the best other: median, range");
    let others: Vec<usize> =
        (0..servers.len()).filter(|n| !matches!(servers[*n].name, "portolan" | "echo")).collect();
    let best = |round: &Vec<f64>| others.iter().map(|n| round[*n]).fold(f64::NAN, f64::max);
    for (n, server) in servers.iter().enumerate() {
        let sorted = |value: &dyn Fn(&Vec<f64>) -> f64| {
            let mut all: Vec<f64> = rounds.iter().map(value).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let (each, ratios) = (sorted(&|round| round[n]), sorted(&|round| round[n] / best(round)));
        println!(
            "{:10} {:>22.0} {:>14.2} {:>7.2} to {:.2}",
            server.name,
            each[each.len() / 2] / 1e3,
            ratios[ratios.len() / 2],
            ratios[0],
            ratios[ratios.len() - 1],
        );
    }
}

/// Questions answered per second of the server's processor time, in a round of a process of its own.
fn measure(server: &Server, questions: &Path, sockets: u32) -> f64 {
    let mut child = start(server);
    let before = cpu_seconds(child.id());
    let completed = dnsperf(questions, sockets);
    let per_cpu = completed / (cpu_seconds(child.id()) - before).max(0.01);
    _ = child.kill();
    _ = child.wait();
    per_cpu
}

fn start(server: &Server) -> Child {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).args(&server.command).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("taskset and the server are installed");
    for _ in 0..200 {
        let dig = [
            "+short",
            "+noedns",
            "+time=1",
            "+tries=1",
            "-p",
            "5300",
            "@127.0.0.1",
            "service-1.default.svc.cluster.local",
        ];
        let answer = Command::new("dig").args(dig).output().expect("dig is installed");
        let expected = if server.name == "echo" { echo::ADDRESS.to_string() } else { dotted(1) };
        if String::from_utf8_lossy(&answer.stdout).trim() == expected {
            return child;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    _ = child.kill();
    _ = child.wait();
    panic!("{} does not answer", server.name);
}

/// How many answers came.
fn dnsperf(questions: &Path, sockets: u32) -> f64 {
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
            &sockets.to_string(),
            "-q",
            &OUTSTANDING.to_string(),
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
    // What is under way at the end counts as lost.
    if sent - completed > f64::from(OUTSTANDING) {
        println!("  lost {:.1} %", 100.0 * (1.0 - completed / sent));
    }
    completed
}

/// User and system time of a process with all its threads.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the server runs");
    // After the command's name in parentheses: utime and stime are fields 14 and 15 of all.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().filter_map(|f| f.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

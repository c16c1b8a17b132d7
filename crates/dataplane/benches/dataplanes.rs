//! Every data plane beside the others and beside no data plane, on the real kernel, in network namespaces made here
//! (root is needed): first sync, restart, one endpoint's change, a hundred changes a second, memory, new connections and
//! how long one takes. `cpu` is time of processors, of the programs that were started too.
//!
//! `cargo bench -p portolan-dataplane` measures 10, 1,000 and 10,000 Services; other numbers and names of data planes are
//! arguments: `cargo bench -p portolan-dataplane -- iptables 1000`. Each Service has ten endpoints. A data plane that
//! this machine has not is left out, with a word. What was measured also goes to `target/bench/dataplanes.json` (or where
//! `PORTOLAN_BENCH_JSON` says), one row per data plane and size, beside the rows of data planes that were not asked for.
//! Nothing is asserted: machines differ.
//!
//! `cargo bench -p portolan-dataplane -- uml iptables-legacy ipvs 10 1000` measures in User-Mode Linux, which has IPVS (and
//! no `nf_tables` of IP), `... -- debian 10 1000` in Debian's own kernel on emulated processors, which has everything.
//! Figures from there compare with each other only, and go to files of their own.

#![allow(clippy::unwrap_used, reason = "a step that fails ends the benchmark")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/net.rs"]
mod net;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::planes::{Iptables, IptablesLegacy, IpvsBehindIptables, IpvsBehindNftables, Nftables, Plane};
use common::{Case, World, synthetic};
use net::{Net, Took};
use portolan_dataplane::{DataPlane as _, Driver};
use portolan_guest::Kernel;
use portolan_netlink::netns::{IP_NETNS_DIR, Netns};
use portolan_netlink::rt::Rt;

const SIZES: [u32; 3] = [10, 1_000, 10_000];
const ENDPOINTS: u32 = 10;
const CHANGES: u32 = 100;
/// Changes stop after so long: at large sizes some data planes take their time.
const CHANGES_TIME: Duration = Duration::from_secs(20);
/// How long changes come faster than some data planes can write them, and how many a second.
const STREAM_TIME: Duration = Duration::from_secs(5);
const STREAM_RATE: u32 = 100;
const ROUNDS: usize = 8;
const CONNECTIONS: usize = 500;

type Measure = fn(&str, u32) -> Row;

/// Data planes by name. A new one is one more line.
const PLANES: [(&str, Measure); 5] = [
    ("nftables", measure::<Nftables>),
    ("iptables", measure::<Iptables>),
    ("iptables-legacy", measure::<IptablesLegacy>),
    ("ipvs", measure::<IpvsBehindIptables>),
    ("ipvs-nftables", measure::<IpvsBehindNftables>),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    for kernel in [Kernel::UserMode, Kernel::Debian] {
        if arguments.iter().any(|argument| argument == kernel.name()) {
            let rest: Vec<_> = arguments.iter().filter(|it| *it != kernel.name()).cloned().collect();
            return print!("{}", portolan_guest::run_self(kernel, &rest.join(" ")));
        }
    }
    let sizes: Vec<u32> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if sizes.is_empty() { SIZES.to_vec() } else { sizes };
    let named = |name: &str| arguments.iter().any(|argument| argument == name);
    let asked = PLANES.iter().filter(|(name, _)| named(name)).count();
    let planes: Vec<_> = PLANES.into_iter().filter(|(name, _)| asked == 0 || named(name)).collect();
    println!("{}", HEAD.map(|word| format!("{word:>15}")).concat());
    let mut rows = Vec::new();
    for services in sizes {
        for (name, measure) in &planes {
            match std::panic::catch_unwind(|| measure(name, services)) {
                Ok(row) => {
                    println!("{}", row.text());
                    rows.push(row);
                }
                Err(_) => println!("{name:>15}{services:>15}  not measured; the reason is above"),
            }
        }
    }
    save(&rows);
}

const HEAD: [&str; 18] = [
    "data plane",
    "services",
    "sync ms",
    "sync cpu ms",
    "restart ms",
    "change p50 ms",
    "change p99 ms",
    "change cpu ms",
    "stream cpu %",
    "stream cpu ms",
    "stream late ms",
    "straight/s",
    "through/s",
    "ratio",
    "first us",
    "straight us",
    "peak MiB",
    "now MiB",
];

/// Durations in milliseconds, unless they say otherwise.
struct Row {
    plane: String,
    services: u32,
    values: [f64; 16],
}

impl Row {
    fn text(&self) -> String {
        let mut text = format!("{:>15}{:>15}", self.plane, self.services);
        for value in self.values {
            _ = write!(text, "{value:>15.2}");
        }
        text
    }

    fn json(&self) -> String {
        let mut text = format!("{{\"plane\": \"{}\", \"services\": {}", self.plane, self.services);
        for (name, value) in HEAD[2..].iter().zip(self.values) {
            _ = write!(text, ", \"{name}\": {value:.3}");
        }
        text + "}"
    }
}

/// One row a line, so that rows of an earlier run stay without understanding them.
fn save(rows: &[Row]) {
    let kernel = std::env::var(portolan_guest::INSIDE).map(|name| format!("-{name}")).unwrap_or_default();
    let default =
        format!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/bench/dataplanes{}.json"), kernel);
    let path = std::env::var_os("PORTOLAN_BENCH_JSON").map_or_else(|| default.into(), PathBuf::from);
    let before = fs::read_to_string(&path).unwrap_or_default();
    let mut lines: Vec<String> = rows.iter().map(Row::json).collect();
    let is_new = |line: &str| {
        rows.iter().any(|row| line.starts_with(&row.json()[..row.json().find(", \"sync").unwrap()]))
    };
    let old = before.lines().map(|line| line.trim_end_matches(',')).filter(|line| line.starts_with('{'));
    lines.extend(old.filter(|line| !is_new(line)).map(ToOwned::to_owned));
    lines.sort();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
    println!("\nwritten to {}", path.display());
}

fn measure<P: Plane>(name: &str, services: u32) -> Row {
    let Writing { sync, restart, changes, stream, peak, now } = writing::<P>(services);
    let (straight, through) = connecting::<P>(services);
    let at = |durations: &[Duration], percent: usize| durations[durations.len() * percent / 100];
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    // Rounds during which the machine did something else do not count.
    let rates = |times: &[Took]| -> Vec<f64> {
        let whole = |round: &[Took]| round.iter().map(|took| took.answer).sum::<Duration>().as_secs_f64();
        times.chunks(CONNECTIONS).map(|round| round.len() as f64 / whole(round)).collect()
    };
    let (rates_straight, rates_through) = (rates(&straight), rates(&through));
    let ratios =
        rates_through.iter().zip(&rates_straight).map(|(through, straight)| through / straight).collect();
    let first = |times: &[Took]| {
        let mut times: Vec<_> = times.iter().map(|took| took.connect).collect();
        times.sort_unstable();
        ms(at(&times, 50)) * 1e3
    };
    let values = [
        ms(sync.wall),
        ms(sync.cpu),
        ms(restart),
        ms(at(&changes.walls, 50)),
        ms(at(&changes.walls, 99)),
        ms(changes.cpu),
        stream.share * 100.0,
        ms(stream.cpu),
        ms(stream.late),
        median(rates_straight),
        median(rates_through),
        median(ratios),
        first(&through),
        first(&straight),
        peak,
        now,
    ];
    Row { plane: name.to_owned(), services, values }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// In turns, so that what else the machine does touches both alike: straight to the pod, and through a ClusterIP.
fn connecting<P: Plane>(services: u32) -> (Vec<Took>, Vec<Took>) {
    let pods = [("10.1.0.11", "fd00:10:1::11"), ("10.1.0.12", "fd00:10:1::12")];
    let net = Net::new(&[("pod-1", [pods[0].0, pods[0].1]), ("pod-2", [pods[1].0, pods[1].1])]);
    net.serve("pod-2", 8080);
    // Another port, so that translated connections do not meet the remains of the others.
    net.serve("pod-2", 8081);
    let mut world = World::with((0..services).map(|n| synthetic(n, ENDPOINTS)));
    world.put([Case::new("measured", &["172.30.0.1"]).local_endpoint(pods[1].0, 8080)]);
    Driver::new(net.within("node", P::open)).sync(&world.table).unwrap();
    let (mut straight, mut through) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        straight.extend(net.times("pod-1", "10.1.0.12:8081".parse().unwrap(), CONNECTIONS));
        through.extend(net.times("pod-1", "172.30.0.1:80".parse().unwrap(), CONNECTIONS));
    }
    (straight, through)
}

/// Everything but connections; memory is what the first sync needs at its peak and keeps, in MiB.
struct Writing {
    sync: Cost,
    restart: Duration,
    changes: Changes,
    stream: Stream,
    peak: f64,
    now: f64,
}

struct Cost {
    wall: Duration,
    cpu: Duration,
}

struct Changes {
    /// Sorted.
    walls: Vec<Duration>,
    /// Of one change.
    cpu: Duration,
}

/// Many changes, each to be written as soon as the data plane may.
struct Stream {
    /// Of one processor.
    share: f64,
    /// Of one change.
    cpu: Duration,
    /// Until a change is in the kernel, on average.
    late: Duration,
}

fn writing<P: Plane>(services: u32) -> Writing {
    let space = Space::new();
    let open = || space.netns.run(P::open).unwrap();
    let mut world = World::with((0..services).map(|n| synthetic(n, ENDPOINTS)));
    let before = memory("VmRSS");
    reset_peak();
    let mut driver = Driver::new(open());
    let cpu_before = cpu();
    let (wall, _) = timed(|| driver.sync(&world.table).unwrap());
    let sync = Cost { wall, cpu: cpu().saturating_sub(cpu_before) };
    let (peak, now) = (memory("VmHWM") - before, memory("VmRSS") - before);
    let mut restarted = Driver::new(open());
    let (restart, report) = timed(|| restarted.sync(&world.table).unwrap());
    assert!(report.is_noop());
    let changes = change_endpoints::<P>(&mut world, &mut driver, services);
    let stream = stream::<P>(&mut world, &mut driver, services);
    Writing { sync, restart, changes, stream, peak, now }
}

/// A namespace that goes whatever happens.
struct Space {
    netns: Netns,
    path: PathBuf,
}

impl Space {
    fn new() -> Self {
        let path = PathBuf::from(IP_NETNS_DIR).join(format!("ptdp-bench-{}", std::process::id()));
        let netns = Netns::create(&path).unwrap();
        // As on any node; mode ipvs has a route to it.
        Rt::open_in(&netns).unwrap().set_up("lo").unwrap();
        Self { netns, path }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        drop(Netns::delete(&self.path));
    }
}

/// The Service of a change, with one endpoint that goes, or comes back.
fn changed(change: u32, services: u32) -> Case {
    let case = synthetic(change / 2 * 7919 % services, ENDPOINTS);
    if change.is_multiple_of(2) { case.without_endpoint(3) } else { case }
}

fn change_endpoints<P: Plane>(world: &mut World, driver: &mut Driver<P::Real>, services: u32) -> Changes {
    let (begin, before, mut walls) = (Instant::now(), cpu(), Vec::new());
    for change in 0..CHANGES {
        if begin.elapsed() > CHANGES_TIME && change % 2 == 0 {
            break;
        }
        let delta = world.put([changed(change, services)]);
        let (wall, _) = timed(|| driver.apply(&delta).unwrap());
        walls.push(wall);
    }
    let cpu = cpu().saturating_sub(before) / walls.len() as u32;
    walls.sort_unstable();
    Changes { walls, cpu }
}

/// Changes come at their times, whatever the data plane does; what has gathered is one delta, as in the proxy.
fn stream<P: Plane>(world: &mut World, driver: &mut Driver<P::Real>, services: u32) -> Stream {
    let period = Duration::from_secs(1) / STREAM_RATE;
    let (begin, before) = (Instant::now(), cpu());
    let (mut written, mut late) = (0, Duration::ZERO);
    while begin.elapsed() < STREAM_TIME {
        let due = (begin.elapsed().as_nanos() / period.as_nanos()) as u32;
        if due == written {
            std::thread::sleep((period * (due + 1)).saturating_sub(begin.elapsed()));
            continue;
        }
        let delta = world.put((written..due).map(|change| changed(change, services)));
        let (took, _) = timed(|| driver.apply(&delta).unwrap());
        let waited = |change| begin.elapsed().saturating_sub(period * (change + 1));
        late += (written..due).map(waited).sum::<Duration>();
        written = due;
        std::thread::sleep(driver.plane().rest(took));
    }
    let (cpu, share) = (cpu().saturating_sub(before), begin.elapsed());
    Stream { share: cpu.div_duration_f64(share), cpu: cpu / written, late: late / written }
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}

/// What this process and those it has waited for have used of processors so far, in steps of 10 ms.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks: u64 = fields.skip(11).take(4).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// A field of `/proc/self/status`, in MiB.
fn memory(field: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024.0
}

/// The peak starts anew from what is used now.
fn reset_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

//! An outside client that connects again and again, and what it saw.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portolan_netlink::netns::Netns;

/// A connect that takes longer has failed: the next one asks anew.
const CONNECT_PATIENCE: Duration = Duration::from_millis(50);
/// One who waits, as most do: what gets lost is sent again after a second, and counted by the kernel.
const LONG_PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(2);

/// A client under way.
pub(crate) struct Client {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(Instant, Result<(), String>)>>,
}

/// When each connect ended, and whether it succeeded.
pub(crate) struct Seen(Vec<(Instant, Result<(), String>)>);

impl Client {
    pub(crate) fn start(from: Netns, to: SocketAddr) -> Self {
        Self::with(from, to, CONNECT_PATIENCE)
    }

    pub(crate) fn patient(from: Netns, to: SocketAddr) -> Self {
        Self::with(from, to, LONG_PATIENCE)
    }

    fn with(from: Netns, to: SocketAddr, patience: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || from.run(|| connects(to, patience, &flag)).unwrap());
        Self { stop, thread }
    }

    pub(crate) fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        Seen(self.thread.join().unwrap())
    }
}

fn connects(to: SocketAddr, patience: Duration, stop: &AtomicBool) -> Vec<(Instant, Result<(), String>)> {
    let mut seen = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let outcome = TcpStream::connect_timeout(&to, patience).map(drop).map_err(|e| e.to_string());
        let connected = outcome.is_ok();
        seen.push((Instant::now(), outcome));
        if connected {
            std::thread::sleep(PAUSE);
        }
    }
    seen
}

impl Seen {
    /// The longest time after `from` in which nothing succeeded.
    pub(crate) fn longest_gap(&self, from: Instant) -> Duration {
        let mut last = from;
        let mut gap = Duration::ZERO;
        for (at, connected) in &self.0 {
            if *at > from && connected.is_ok() {
                gap = gap.max(*at - last);
                last = *at;
            }
        }
        gap.max(self.0.last().map_or(Duration::ZERO, |(at, _)| at.saturating_duration_since(last)))
    }

    /// For a planned move. A first packet that meets nobody is sent again after a second, and the kernel counts it:
    /// whatever the machine's load, there must have been none. Only the one connect that was under way at the moment of the
    /// move may be reset, when its answer came by the old node and its second packet goes to the new one.
    #[track_caller]
    pub(crate) fn lost_nothing(&self, repeated_syns: u64) {
        let failures: Vec<&String> =
            self.0.iter().filter_map(|(_, outcome)| outcome.as_ref().err()).collect();
        let reset = failures.iter().all(|failure| failure.contains("reset by peer"));
        assert!(failures.len() <= 1 && reset, "{failures:?} of {}", self.count());
        assert_eq!(repeated_syns, 0, "of {} connects", self.count());
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

/// How often the kernel of a host has sent a first packet again because nothing came back.
pub(crate) fn repeated_syns(host: &Netns) -> u64 {
    let text = host.run(|| std::fs::read_to_string("/proc/thread-self/net/netstat")).unwrap().unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|name| name == "TCPSynRetrans").unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

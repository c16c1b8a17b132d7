//! An outside client that connects again and again, and what it saw: for tests and benchmarks of failover.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portolan_netlink::netns::Netns;
use portolan_netlink::rt::Rt;

use crate::error::LabError;
use crate::segment::LINK;

/// A connect that takes longer has failed: the next one asks anew.
const CONNECT_PATIENCE: Duration = Duration::from_millis(50);
/// One who waits, as most do: what gets lost is sent again after a second, and counted by the kernel.
const LONG_PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(2);

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Gives a connect up after a moment, and makes the next.
    Hasty,
    /// Waits for as long as programs usually do.
    Patient,
    /// As one that has never been there: it asks for the address's neighbour anew before each connect.
    Newcomer,
}

/// A client under way.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    succeeded: Arc<AtomicUsize>,
    thread: JoinHandle<Result<Seen, LabError>>,
}

/// When each connect ended, and what came of it.
#[derive(Debug)]
pub struct Seen(Vec<(Instant, io::Result<()>)>);

impl Load {
    pub fn start(from: Netns, to: SocketAddr, manner: Manner) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let succeeded = Arc::new(AtomicUsize::new(0));
        let (flag, count) = (Arc::clone(&stop), Arc::clone(&succeeded));
        let thread = std::thread::spawn(move || from.run(|| connects(to, manner, &flag, &count))?);
        Self { stop, succeeded, thread }
    }

    /// Waits until so many more connects have succeeded; whether they have within the patience.
    pub fn more(&self, count: usize, patience: Duration) -> bool {
        let begin = Instant::now();
        let enough = self.succeeded.load(Ordering::Relaxed) + count;
        while self.succeeded.load(Ordering::Relaxed) < enough {
            if begin.elapsed() > patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    pub fn end(self) -> Result<Seen, LabError> {
        self.stop.store(true, Ordering::Relaxed);
        // What the thread panics of is the caller's.
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn connects(
    to: SocketAddr,
    manner: Manner,
    stop: &AtomicBool,
    succeeded: &AtomicUsize,
) -> Result<Seen, LabError> {
    let mut rt = Rt::open()?;
    let mut seen = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        if manner == Manner::Newcomer {
            // It may not be there.
            let _ = rt.delete_neighbour(LINK, to.ip());
        }
        let patience = if manner == Manner::Patient { LONG_PATIENCE } else { CONNECT_PATIENCE };
        let outcome = TcpStream::connect_timeout(&to, patience).map(drop);
        let connected = outcome.is_ok();
        seen.push((Instant::now(), outcome));
        if connected {
            succeeded.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(PAUSE);
        }
    }
    Ok(Seen(seen))
}

impl Seen {
    /// The longest time after `from` in which nothing succeeded.
    pub fn longest_gap(&self, from: Instant) -> Duration {
        let mut last = from;
        let mut gap = Duration::ZERO;
        for (at, outcome) in &self.0 {
            if *at > from && outcome.is_ok() {
                gap = gap.max(*at - last);
                last = *at;
            }
        }
        gap.max(self.0.last().map_or(Duration::ZERO, |(at, _)| at.saturating_duration_since(last)))
    }

    pub fn failures(&self) -> Vec<&io::Error> {
        self.0.iter().filter_map(|(_, outcome)| outcome.as_ref().err()).collect()
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// What the kernel of a host has counted of connections that did not begin at once.
#[derive(Debug, Clone, Copy)]
pub struct Repeats {
    syns: u64,
    resets: u64,
}

impl Repeats {
    pub fn of(host: &Netns) -> Result<Self, LabError> {
        let counter = |path: &str, section: &str, name: &str| {
            let path = std::path::Path::new(path);
            let text = host.run(|| std::fs::read_to_string(path))?.map_err(LabError::file(path))?;
            Ok::<_, LabError>(counter(&text, section, name).unwrap_or_default())
        };
        Ok(Self {
            syns: counter("/proc/thread-self/net/netstat", "TcpExt", "TCPSynRetrans")?,
            resets: counter("/proc/thread-self/net/snmp", "Tcp", "OutRsts")?,
        })
    }

    /// How many first packets met nobody since `before`, so that they had to be sent again after a second.
    ///
    /// One that is sent again at once, after a reset of the host's own, was answered: it met what its target remembered of
    /// an earlier connection from the same port, which a node that masquerades had chosen again.
    pub fn unanswered_since(self, before: Self) -> u64 {
        (self.syns - before.syns).saturating_sub(self.resets - before.resets)
    }
}

fn counter(text: &str, section: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(section)?.strip_prefix(": "));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split(' ').position(|known| known == name)?;
    values.split(' ').nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let text = "TcpExt: A TCPSynRetrans B\nTcpExt: 1 7 3\nIpExt: C\nIpExt: 4\n";
        assert_eq!(counter(text, "TcpExt", "TCPSynRetrans"), Some(7));
        assert_eq!(counter(text, "IpExt", "C"), Some(4));
        assert_eq!(counter(text, "TcpExt", "C"), None);
        assert_eq!(counter(text, "Tcp", "A"), None);
    }

    #[test]
    fn a_first_packet_that_met_a_remembered_connection_was_answered() {
        let before = Repeats { syns: 5, resets: 100 };
        let unanswered = |syns, resets| Repeats { syns, resets }.unanswered_since(before);
        assert_eq!(
            [unanswered(5, 100), unanswered(7, 102), unanswered(7, 101), unanswered(5, 101)],
            [0, 0, 1, 0]
        );
    }

    #[test]
    fn a_gap_is_where_nothing_succeeds() {
        let begin = Instant::now();
        let at = |ms: u64, fine: bool| {
            let outcome = if fine { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) };
            (begin + Duration::from_millis(ms), outcome)
        };
        let seen = Seen(vec![at(10, true), at(20, true), at(70, false), at(120, true), at(125, true)]);
        assert_eq!(seen.longest_gap(begin), Duration::from_millis(100));
        assert_eq!(seen.longest_gap(begin + Duration::from_millis(90)), Duration::from_millis(30));
        assert_eq!((seen.failures().len(), seen.count()), (1, 5));
        let lost = Seen(vec![at(10, true), at(300, false)]);
        assert_eq!(lost.longest_gap(begin), Duration::from_millis(290), "to the end");
    }
}

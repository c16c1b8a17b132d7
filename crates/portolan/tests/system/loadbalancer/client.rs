//! An outside client that connects again and again, and what it saw.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portolan_netlink::netns::Netns;

/// A connect that takes longer has failed: the next one asks anew.
const CONNECT_PATIENCE: Duration = Duration::from_millis(50);
const PAUSE: Duration = Duration::from_millis(2);

/// A client under way.
pub(crate) struct Client {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(Instant, bool)>>,
}

/// When each connect ended, and whether it succeeded.
pub(crate) struct Seen(Vec<(Instant, bool)>);

impl Client {
    pub(crate) fn start(from: Netns, to: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || from.run(|| connects(to, &flag)).unwrap());
        Self { stop, thread }
    }

    pub(crate) fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        Seen(self.thread.join().unwrap())
    }
}

fn connects(to: SocketAddr, stop: &AtomicBool) -> Vec<(Instant, bool)> {
    let mut seen = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let connected = TcpStream::connect_timeout(&to, CONNECT_PATIENCE).is_ok();
        seen.push((Instant::now(), connected));
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
            if *at > from && *connected {
                gap = gap.max(*at - last);
                last = *at;
            }
        }
        gap.max(self.0.last().map_or(Duration::ZERO, |(at, _)| at.saturating_duration_since(last)))
    }

    pub(crate) fn failures(&self) -> usize {
        self.0.iter().filter(|(_, connected)| !connected).count()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

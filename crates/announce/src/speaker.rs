//! The thread that carries out what [`Tenures`] decides: beats by UDP, questions and answers by packet sockets.
//!
//! A thread of its own, so that nothing else of this process can keep it from answering or from being heard.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use portolan_netlink::rt::Rt;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::mpsc::UnboundedSender;

use crate::beat::Beat;
use crate::claims::{Change, Holder};
use crate::ears::Ears;
use crate::layer2::groups::Groups;
use crate::layer2::links::{Segment, choose, scan};
use crate::layer2::socket::{FRAME_BYTES_MAX, Family, PacketSocket};
use crate::layer2::{Heard, announcement, answer, probe, read};
use crate::metrics::Metrics;
use crate::tenure::{self, Action, Saying, Tenures};

/// Links come and go rarely, and a dead one is noticed by the others' ears.
const SCAN_EVERY: Duration = Duration::from_millis(500);
/// So much is read from one socket before others have their turn.
const BATCH: usize = 64;
/// Beats are cheap, and nobody is to be called dead while his wait to be read: those of a thousand nodes in a second.
const BEATS_MAX: usize = 10_000;
/// As keepalived and other speakers of such protocols do: to be heard in time is all that this thread is for, and it
/// hardly ever runs. Where it is not allowed, the ordinary priority has to do.
const NICE: i32 = -15;
const BEAT_BYTES_MAX: usize = 2048;

pub(crate) struct Settings {
    pub(crate) node: String,
    pub(crate) node_ip: IpAddr,
    pub(crate) port: u16,
    pub(crate) key: Vec<u8>,
    pub(crate) tenure: tenure::Settings,
    pub(crate) metrics: Arc<Metrics>,
}

pub(crate) enum Command {
    Apply(Change),
    /// Hand everything over; a [`Report::Left`] follows.
    Leave,
}

#[derive(Debug)]
pub(crate) enum Report {
    Said { ip: IpAddr, saying: Saying, services: Vec<Holder> },
    Left,
}

/// The running thread. It ends when this is dropped.
pub(crate) struct Handle {
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
}

impl Handle {
    pub(crate) fn send(&self, command: Command) {
        // A thread that has ended has said why in the log.
        let _ = self.commands.send(command);
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The thread finds its channel closed.
        let (closed, _) = mpsc::channel();
        self.commands = closed;
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
    }
}

/// Starts the thread, in the network namespace of the caller.
pub(crate) fn start(settings: Settings, reports: UnboundedSender<Report>) -> io::Result<Handle> {
    let udp = Ears::bind(SocketAddr::new(settings.node_ip, settings.port))?;
    let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
    let (commands, receiver) = mpsc::channel();
    let rt = Rt::open().map_err(io::Error::other)?;
    let now = Instant::now();
    let tenures = Tenures::new(&settings.node, settings.tenure.clone(), wall(), now);
    let speaker = Speaker {
        settings,
        udp,
        rt,
        wake: Arc::clone(&wake),
        commands: receiver,
        reports,
        tenures,
        segments: Vec::new(),
        ports: HashMap::new(),
        groups: Groups::default(),
        places: HashMap::new(),
        counted: HashMap::new(),
        next_scan: now,
        ticked: now,
        leaving: false,
    };
    std::thread::Builder::new().name("announce".into()).spawn(move || speaker.run())?;
    Ok(Handle { commands, wake })
}

/// Microseconds since 1970.
fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// The sockets on one link.
#[derive(Default)]
struct Port {
    arp: Option<PacketSocket>,
    ndp: Option<PacketSocket>,
    /// IPv6 addresses whose questions are heard.
    joined: HashSet<IpAddr>,
}

impl Port {
    fn socket(&self, ip: IpAddr) -> Option<&PacketSocket> {
        if ip.is_ipv4() { self.arp.as_ref() } else { self.ndp.as_ref() }
    }
}

struct Speaker {
    settings: Settings,
    udp: Ears,
    rt: Rt,
    wake: Arc<OwnedFd>,
    commands: Receiver<Command>,
    reports: UnboundedSender<Report>,
    tenures: Tenures,
    segments: Vec<Segment>,
    ports: HashMap<u32, Port>,
    groups: Groups,
    /// The links of each address.
    places: HashMap<IpAddr, Vec<u32>>,
    /// What the metrics say is announced.
    counted: HashMap<IpAddr, Vec<Holder>>,
    next_scan: Instant,
    ticked: Instant,
    leaving: bool,
}

impl Speaker {
    fn run(mut self) {
        // On Linux a thread has a priority of its own.
        if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
            tracing::debug!(%error, "no higher priority for the announcer's thread (CAP_SYS_NICE)");
        }
        loop {
            let ready = self.wait();
            let now = Instant::now();
            self.ticked = now;
            let frozen = self.tenures.wake(now);
            self.settings.metrics.freezes.inc_by(u64::from(frozen));
            // Before anything is decided: what has waited says who lives.
            self.hear_beats(now);
            self.tenures.tick(now, wall());
            if !self.take_commands(now) {
                return;
            }
            if now >= self.next_scan {
                self.next_scan = now + SCAN_EVERY;
                self.scan(now);
            }
            for (index, family) in ready {
                self.hear_frames(index, family, now, frozen);
            }
            self.tenures.tick(now, wall());
            self.act(now);
            self.count(now);
            if self.leaving && self.tenures.has_left(now) {
                self.leaving = false;
                let _ = self.reports.send(Report::Left);
            }
        }
    }

    fn count(&self, now: Instant) {
        let metrics = &self.settings.metrics;
        metrics.turn(self.tenures.has_joined());
        metrics.nodes_heard.set(self.tenures.heard(now) as i64);
    }

    /// Waits for something to do; the packet sockets that have something to read.
    fn wait(&self) -> Vec<(u32, Family)> {
        let mut names = Vec::new();
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.wake.as_fd(), self.udp.as_fd()];
        for (index, port) in &self.ports {
            for (socket, family) in [(&port.arp, Family::Arp), (&port.ndp, Family::Ndp)] {
                if let Some(socket) = socket {
                    names.push((*index, family));
                    fds.push(socket.as_fd());
                }
            }
        }
        let mut polled: Vec<PollFd<'_>> =
            fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        let now = Instant::now();
        let idle = self.tenures.idle_for(now).min(self.next_scan.saturating_duration_since(now));
        let timeout = Timespec { tv_sec: idle.as_secs() as i64, tv_nsec: i64::from(idle.subsec_nanos()) };
        // An interruption is a wake-up like any other.
        let _ = poll(&mut polled, Some(&timeout));
        let readable = polled.iter().skip(2).zip(names).filter(|(fd, _)| !fd.revents().is_empty());
        readable.map(|(_, name)| name).collect()
    }

    /// `false`: nobody is there any more to command.
    fn take_commands(&mut self, now: Instant) -> bool {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.wake, &mut count);
        loop {
            match self.commands.try_recv() {
                Ok(Command::Apply(change)) => {
                    let claimed: Vec<IpAddr> = change.claims.iter().map(|(ip, _)| *ip).collect();
                    // Where they go is known before they are taken.
                    for (ip, claim) in &change.claims {
                        if let Some(claim) = claim {
                            self.place(*ip, &claim.interfaces.clone());
                        } else {
                            self.places.remove(ip);
                            self.settings.metrics.forget(*ip);
                        }
                    }
                    self.tenures.apply(change, now, wall());
                    if !claimed.is_empty() {
                        self.say_unable(now);
                    }
                    for ip in claimed {
                        self.count_announced(ip);
                    }
                }
                Ok(Command::Leave) => {
                    self.leaving = true;
                    self.tenures.leave(now, wall());
                }
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn scan(&mut self, now: Instant) {
        let segments = match scan(&mut self.rt) {
            Ok(segments) => segments,
            Err(error) => {
                tracing::warn!(%error, "cannot see this host's links");
                return;
            }
        };
        if segments == self.segments {
            return;
        }
        // A link that is another one now, or gone, takes its sockets with it.
        let old = std::mem::replace(&mut self.segments, segments);
        let segments = &self.segments;
        self.ports.retain(|index, _| {
            let mac = |all: &[Segment]| all.iter().find(|segment| segment.index == *index).map(|s| s.mac);
            mac(segments).is_some() && mac(segments) == mac(&old)
        });
        let claims: Vec<(IpAddr, Vec<String>)> =
            self.tenures.addresses().map(|(ip, claim)| (ip, claim.interfaces.clone())).collect();
        for (ip, interfaces) in claims {
            self.place(ip, &interfaces);
        }
        self.say_unable(now);
    }

    /// Chooses the links of an address, and opens what is missing there.
    fn place(&mut self, ip: IpAddr, interfaces: &[String]) {
        let chosen = choose(&self.segments, interfaces, ip, self.settings.node_ip);
        let mut indexes = Vec::new();
        for segment in chosen {
            let port = self.ports.entry(segment.index).or_default();
            let (socket, family) =
                if ip.is_ipv4() { (&mut port.arp, Family::Arp) } else { (&mut port.ndp, Family::Ndp) };
            if socket.is_none() {
                match PacketSocket::open(segment.index, family) {
                    Ok(opened) => *socket = Some(opened),
                    Err(error) => {
                        tracing::error!(%error, link = segment.name, "cannot open a packet socket (CAP_NET_RAW)");
                        continue;
                    }
                }
            }
            indexes.push(segment.index);
        }
        self.places.insert(ip, indexes);
        let macs: HashSet<[u8; 6]> =
            self.segments.iter().filter(|s| self.ports.contains_key(&s.index)).map(|s| s.mac).collect();
        self.tenures.set_macs(macs.into_iter().collect());
        if self.tenures.answers(ip) {
            self.membership(ip, true);
        }
    }

    fn say_unable(&mut self, now: Instant) {
        let unable = self.places.iter().filter(|(_, links)| links.is_empty()).map(|(ip, _)| *ip).collect();
        self.tenures.set_unable(unable, now, wall());
    }

    fn membership(&mut self, ip: IpAddr, join: bool) {
        let IpAddr::V6(address) = ip else { return };
        for index in self.places.get(&ip).into_iter().flatten() {
            let Some(port) = self.ports.get_mut(index) else { continue };
            let Some(socket) = &port.ndp else { continue };
            let changed = if join { port.joined.insert(ip) } else { port.joined.remove(&ip) };
            if !changed {
                continue;
            }
            if let Err(error) = socket.membership(address, join) {
                tracing::warn!(%error, %ip, "cannot hear questions about the address");
            }
            if !join {
                self.groups.leave(*index, address);
            } else if let Err(error) = self.groups.join(*index, address) {
                // Where switches pass everything on, nothing is missed.
                tracing::warn!(%error, %ip, "switches are not told that questions about the address are for this node");
            }
        }
    }

    fn hear_beats(&mut self, now: Instant) {
        let mut buffer = [0; BEAT_BYTES_MAX];
        for _ in 0..BEATS_MAX {
            let (length, arrived) = match self.udp.receive(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Of earlier beats, to nodes that are not there.
                Err(_) => continue,
            };
            match Beat::decode(&buffer[..length], &self.settings.key) {
                Ok(beat) => {
                    self.settings.metrics.beats_received.inc();
                    self.tenures.hear(&beat, arrived.min(now), now, wall());
                }
                Err(error) => {
                    self.settings.metrics.beats_refused.inc();
                    tracing::debug!(%error, "a datagram that is no beat of ours");
                }
            }
        }
    }

    fn hear_frames(&mut self, index: u32, family: Family, now: Instant, frozen: bool) {
        let mut buffer = [0; FRAME_BYTES_MAX];
        for _ in 0..BATCH {
            let Some(port) = self.ports.get(&index) else { return };
            let socket = match family {
                Family::Arp => &port.arp,
                Family::Ndp => &port.ndp,
            };
            let Some(Ok(Some(length))) = socket.as_ref().map(|socket| socket.receive(&mut buffer)) else {
                return;
            };
            // Frames that have waited while this process did not run are for others to answer.
            let stale = frozen || self.ticked.elapsed() > self.settings.tenure.dead_after / 2;
            if let Some(heard) = read(&buffer[..length]).filter(|_| !stale) {
                self.frame(index, heard, now);
            }
        }
    }

    fn frame(&mut self, index: u32, heard: Heard, now: Instant) {
        match heard {
            Heard::Says { ip, mac } => self.tenures.seen(ip, mac, now, wall()),
            Heard::Asks { target, by, mac } => {
                if let Some(by) = by {
                    self.tenures.seen(by, mac, now, wall());
                }
                let here = self.places.get(&target).is_some_and(|links| links.contains(&index));
                if here && self.tenures.answers(target) {
                    let ours = self.mac(index).filter(|ours| *ours != mac);
                    let frame = ours.and_then(|ours| answer(target, ours, by, mac));
                    let answered = frame.is_some_and(|frame| self.send(index, target, &frame));
                    self.settings.metrics.asked(target, answered);
                }
            }
        }
    }

    fn mac(&self, index: u32) -> Option<[u8; 6]> {
        self.segments.iter().find(|segment| segment.index == index).map(|segment| segment.mac)
    }

    /// Whether it went out.
    fn send(&self, index: u32, ip: IpAddr, frame: &[u8]) -> bool {
        let socket = self.ports.get(&index).and_then(|port| port.socket(ip));
        match socket.map(|socket| socket.send(frame)) {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                tracing::debug!(%error, %ip, "frame not sent");
                false
            }
            None => false,
        }
    }

    fn act(&mut self, now: Instant) {
        for action in self.tenures.take_actions() {
            match action {
                Action::Send(beat) => self.beat(&beat),
                Action::Announce(ip) => {
                    let sent = self.each_link(ip, announcement);
                    self.settings.metrics.gratuitous(ip, sent);
                }
                Action::Probe(ip) => _ = self.each_link(ip, |ip, mac| vec![probe(ip, mac)]),
                Action::Take(ip) => {
                    tracing::info!(%ip, "answering for the address");
                    self.membership(ip, true);
                    self.settings.metrics.takeovers.inc();
                    self.count_announced(ip);
                }
                Action::Drop(ip) => {
                    tracing::info!(%ip, "not answering for the address any more");
                    self.membership(ip, false);
                    self.count_announced(ip);
                }
                Action::Say(ip, saying) => self.say(ip, saying),
            }
        }
        self.ticked = now;
    }

    fn count_announced(&mut self, ip: IpAddr) {
        let (metrics, node) = (&self.settings.metrics, &self.settings.node);
        if let Some(before) = self.counted.remove(&ip) {
            metrics.announces(node, ip, &before, false);
        }
        if let Some(claim) = self.tenures.claim(ip).filter(|_| self.tenures.answers(ip)) {
            metrics.announces(node, ip, &claim.services, true);
            self.counted.insert(ip, claim.services.clone());
        }
        metrics.addresses.set(self.counted.len() as i64);
    }

    /// Gives how many frames went out.
    fn each_link(&self, ip: IpAddr, frames: impl Fn(IpAddr, [u8; 6]) -> Vec<Vec<u8>>) -> u64 {
        let mut sent = 0;
        for index in self.places.get(&ip).into_iter().flatten() {
            let Some(mac) = self.mac(*index) else { continue };
            for frame in frames(ip, mac) {
                sent += u64::from(self.send(*index, ip, &frame));
            }
        }
        sent
    }

    fn beat(&self, beat: &Beat) {
        let bytes = beat.encode(&self.settings.key);
        self.settings.metrics.beats_sent.inc();
        for ip in self.tenures.audience() {
            // A node that is not there says so by ICMP at most.
            let _ = self.udp.send(&bytes, SocketAddr::new(ip, self.settings.port));
        }
    }

    fn say(&self, ip: IpAddr, saying: Saying) {
        if let Saying::Conflict(mac) = &saying {
            self.settings.metrics.conflicts.inc();
            tracing::warn!(%ip, stranger = ?mac, "another host answers for the address");
        }
        let services = self.tenures.claim(ip).map(|claim| claim.services.clone()).unwrap_or_default();
        let _ = self.reports.send(Report::Said { ip, saying, services });
    }
}

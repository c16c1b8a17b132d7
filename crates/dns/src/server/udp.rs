//! UDP: a thread and a socket for each core, all on one address; the kernel spreads clients over them.
//!
//! A worker takes every packet that waits with one call, answers them from one snapshot, and sends the answers with
//! another call. What has to be asked elsewhere is handed to the runtime and sent when it comes.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::Handle;

use super::batch::{self, Batch};
use super::limit::{Limiter, Verdict};
use super::{Handler, Pending, Snapshot, Step};
use crate::limits::{GROUP, RECEIVE_BUFFER_BYTES, UDP_PAYLOAD_MAX};
use crate::metrics::{Tally, Transport};
use crate::wire::{Query, Refusal, Reply, Style, flag};

/// After an error that is not one client's: sockets do not heal within less.
const AGAIN: Duration = Duration::from_millis(20);

/// The running workers. Dropping it stops them.
pub struct Workers {
    stop: Arc<AtomicBool>,
    sockets: Vec<Arc<UdpSocket>>,
    threads: Vec<JoinHandle<()>>,
    address: SocketAddr,
}

/// What every worker shares.
#[derive(Clone)]
pub struct Shared {
    pub handler: Arc<Handler>,
    pub limiter: Arc<Limiter>,
    /// Of answers that come later.
    pub later: Arc<Tally>,
}

impl Workers {
    /// Starts `tallies.len()` workers on one address; with port 0 they share the port that the first one gets. Must be
    /// called within a runtime.
    pub fn start(address: SocketAddr, shared: &Shared, tallies: &[Arc<Tally>]) -> io::Result<Workers> {
        let mut workers = Workers { stop: Arc::default(), sockets: Vec::new(), threads: Vec::new(), address };
        for n in 0..tallies.len() {
            let socket = Arc::new(open(workers.address)?);
            if n == 0 {
                workers.address = socket.local_addr()?;
            }
            workers.sockets.push(socket);
        }
        for (socket, tally) in workers.sockets.iter().zip(tallies) {
            let worker = Worker {
                socket: socket.clone(),
                shared: shared.clone(),
                tally: tally.clone(),
                runtime: Handle::current(),
                stop: workers.stop.clone(),
                info: address.ip().is_unspecified(),
                started: Instant::now(),
            };
            let thread = std::thread::Builder::new().name("dns-udp".into()).spawn(move || worker.run())?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Where they listen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for socket in &self.sockets {
            batch::wake(socket);
        }
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so.
            _ = thread.join();
        }
    }
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        // IPv4 has its own sockets, so that each family has its own control messages.
        socket.set_only_v6(true)?;
    }
    // As much as the system allows.
    _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    if address.ip().is_unspecified() {
        batch::ask_for_info(&socket, address.is_ipv6())?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

struct Worker {
    socket: Arc<UdpSocket>,
    shared: Shared,
    tally: Arc<Tally>,
    runtime: Handle,
    stop: Arc<AtomicBool>,
    info: bool,
    started: Instant,
}

impl Worker {
    fn run(self) {
        let mut batch = Batch::new(self.shared.handler.payload(), self.info);
        while !self.stop.load(Ordering::Relaxed) {
            match batch.receive(&self.socket) {
                Ok(count) => self.answer_all(&mut batch, count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if !self.stop.load(Ordering::Relaxed) {
                        tracing::warn!(%error, "cannot receive DNS questions by UDP; trying again");
                        std::thread::sleep(AGAIN);
                    }
                }
            }
        }
    }

    fn answer_all(&self, batch: &mut Batch, count: usize) {
        let begin = Instant::now();
        let now_ms = begin.duration_since(self.started).as_millis() as u32;
        let snapshot = self.shared.handler.snapshot();
        for start in (0..count).step_by(GROUP) {
            self.answer_group(batch, start..count.min(start + GROUP), &snapshot, now_ms);
        }
        drop(snapshot);
        let failed = batch.send(&self.socket);
        self.tally.send_failures(failed);
        self.tally.durations(Transport::Udp, begin.elapsed(), count as u64);
    }

    /// Reads all questions of a group before it answers the first, so that their look-ups overlap.
    fn answer_group(&self, batch: &mut Batch, group: Range<usize>, snapshot: &Snapshot, now_ms: u32) {
        let read = |index| batch.packet(index).map(|(packet, _)| (index, Query::parse(packet)));
        let questions: SmallVec<[_; GROUP]> = group.filter_map(read).collect();
        snapshot.zone.read_ahead(questions.iter().filter_map(|(_, query)| Some(&query.as_ref().ok()?.name)));
        for (index, query) in questions {
            self.answer(batch, index, query, snapshot, now_ms);
        }
    }

    fn answer(
        &self,
        batch: &mut Batch,
        index: usize,
        query: Result<Query, Refusal>,
        snapshot: &Snapshot,
        now_ms: u32,
    ) {
        let peer = batch.peer(index);
        // Nobody asks from port 0: an answer there would be sent to whom the source was forged for.
        if peer.port() == 0 {
            return;
        }
        let verdict = self.shared.limiter.check(peer.ip(), now_ms);
        let Some((packet, buffer)) = batch.packet(index) else { return };
        if verdict != Verdict::Answer {
            self.tally.limited();
            if verdict == Verdict::Truncate
                && let Ok(query) = &query
                && let Some(length) = truncated(packet, query, buffer)
            {
                batch.answer(index, length);
            }
            return;
        }
        let handler = &self.shared.handler;
        match handler.answer(snapshot, packet, query, buffer, Transport::Udp, peer.ip(), &self.tally) {
            Step::Send(length) => batch.answer(index, length),
            Step::Nothing => {}
            Step::Later(pending) => self.later(pending, peer, batch.local(index)),
        }
    }

    fn later(&self, pending: Box<Pending>, peer: SocketAddr, local: Option<IpAddr>) {
        let (socket, shared) = (self.socket.clone(), self.shared.clone());
        let begin = Instant::now();
        self.runtime.spawn(async move {
            let answer = shared.handler.finish(pending, &shared.later).await;
            // The buffer of a UDP socket is large, and a full one drops: this does not wait.
            if !answer.is_empty() && batch::send_one(&socket, peer, local, &answer).is_err() {
                shared.later.send_failures(1);
            }
            shared.later.durations(Transport::Udp, begin.elapsed(), 1);
        });
    }
}

/// The question with the bits that send a client to TCP.
fn truncated(packet: &[u8], query: &Query, buffer: &mut [u8]) -> Option<usize> {
    let style = Style { recursion: true, payload: UDP_PAYLOAD_MAX };
    let mut reply = Reply::new(buffer, packet, query, style).ok()?;
    reply.set_flags(flag::TRUNCATED);
    Some(reply.finish())
}

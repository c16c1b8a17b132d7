//! What a packet gets: a refusal, the zone's answer, a cached one, or one that has to be waited for. No sockets.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::forward::{Ask, Failure, Forwarder, Stored};
use crate::limits::UDP_PAYLOAD_PLAIN;
use crate::metrics::{Source, Tally, Transport};
use crate::name::Name;
use crate::rr::{CLASS_IN, Rcode, rtype};
use crate::wire::reply::{Full, Section, write_answer, write_bare_error, write_error};
use crate::wire::{Query, Refusal, Reply, Style};
use crate::zone::{Answer, Found, Zone};

/// The zone of this moment.
#[derive(Debug)]
pub struct Snapshot {
    pub zone: Zone,
    /// Every cache has been filled: what is not there does not exist.
    pub synced: bool,
}

/// What to do with a packet.
#[derive(Debug)]
pub enum Step {
    /// The answer is in the buffer, so many bytes of it.
    Send(usize),
    Nothing,
    /// Somebody else has to be asked: [`Handler::finish`].
    Later(Box<Pending>),
}

/// A question that waits for an upstream.
#[derive(Debug)]
pub struct Pending {
    packet: Box<[u8]>,
    query: Query,
    limit: usize,
    transport: Transport,
    /// An alias out of the zone: what is asked upstream instead of the question's own name.
    target: Option<Name>,
}

/// Everything an answer is made of. Shared by all workers.
#[derive(Debug)]
pub struct Handler {
    snapshot: ArcSwap<Snapshot>,
    forwarder: Option<Forwarder>,
    payload: u16,
    turn: AtomicU32,
}

impl Handler {
    pub fn new(zone: Zone, forwarder: Option<Forwarder>, payload: u16) -> Handler {
        let snapshot = ArcSwap::from_pointee(Snapshot { zone, synced: false });
        Handler { snapshot, forwarder, payload: payload.max(UDP_PAYLOAD_PLAIN), turn: AtomicU32::new(0) }
    }

    pub fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Every question from now on is answered from this one.
    pub fn set_snapshot(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }

    pub fn forwarder(&self) -> Option<&Forwarder> {
        self.forwarder.as_ref()
    }

    /// The longest answer over UDP.
    pub fn payload(&self) -> usize {
        usize::from(self.payload)
    }

    fn style(&self) -> Style {
        Style { recursion: self.forwarder.is_some(), payload: self.payload }
    }

    /// Answers a packet into `buffer`, or says what is missing. Takes the snapshot so that a batch loads it once.
    pub fn handle(
        &self,
        snapshot: &Snapshot,
        packet: &[u8],
        buffer: &mut [u8],
        transport: Transport,
        peer: IpAddr,
        tally: &Tally,
    ) -> Step {
        self.answer(snapshot, packet, Query::parse(packet), buffer, transport, peer, tally)
    }

    /// Answers a packet that has been read as `query`.
    #[expect(clippy::too_many_arguments, reason = "a packet, what is known of it, and where the answer goes")]
    pub fn answer(
        &self,
        snapshot: &Snapshot,
        packet: &[u8],
        query: Result<Query, Refusal>,
        buffer: &mut [u8],
        transport: Transport,
        peer: IpAddr,
        tally: &Tally,
    ) -> Step {
        let query = match query {
            Ok(query) => query,
            Err(Refusal::Drop) => return Step::Nothing,
            Err(Refusal::Reply(rcode)) => {
                tally.request(transport, peer, 0, packet.len());
                let length = write_bare_error(buffer, packet, rcode);
                tally.response(transport, rcode as u8, Source::Refused, length);
                return Step::Send(length);
            }
        };
        tally.request(transport, peer, query.rtype, packet.len());
        let limit = match transport {
            Transport::Udp => query.udp_limit(self.payload).min(buffer.len()),
            Transport::Tcp => buffer.len(),
        };
        let buffer = &mut buffer[..limit];
        let (length, rcode, source) = if let Some(rcode) = refusal(&query) {
            (write_error(buffer, packet, &query, rcode, self.style()), rcode as u8, Source::Refused)
        } else {
            match snapshot.zone.answer(&query.name, query.rtype) {
                Found::Here(answer)
                    if let Some(target) = answer.follow
                        && self.forwarder.is_some() =>
                {
                    let target = Some(target.clone());
                    return self.ask_elsewhere(
                        Pending::new(packet, query, limit, transport, target),
                        buffer,
                        tally,
                    );
                }
                Found::Here(answer) => {
                    let (length, rcode) = self.write_zone(snapshot, packet, &query, answer, buffer);
                    (length, rcode as u8, Source::Zone)
                }
                Found::Outside if self.forwarder.is_some() => {
                    return self.ask_elsewhere(
                        Pending::new(packet, query, limit, transport, None),
                        buffer,
                        tally,
                    );
                }
                Found::Outside => {
                    let rcode = Rcode::Refused;
                    (write_error(buffer, packet, &query, rcode, self.style()), rcode as u8, Source::Refused)
                }
            }
        };
        tally.response(transport, rcode, source, length);
        if length == 0 { Step::Nothing } else { Step::Send(length) }
    }

    fn write_zone(
        &self,
        snapshot: &Snapshot,
        packet: &[u8],
        query: &Query,
        mut answer: Answer<'_>,
        buffer: &mut [u8],
    ) -> (usize, Rcode) {
        if answer.rcode == Rcode::NxDomain && !snapshot.synced {
            // It may exist for all we know.
            answer.rcode = Rcode::ServFail;
            answer.soa = None;
        }
        let Ok(mut reply) = Reply::new(buffer, packet, query, self.style()) else { return (0, answer.rcode) };
        write_answer(&mut reply, query, &answer, self.next_turn(&answer));
        (reply.finish(), answer.rcode)
    }

    /// Lists of several addresses begin at another one each time.
    fn next_turn(&self, answer: &Answer<'_>) -> u32 {
        if answer.records.len() > 1 { self.turn.fetch_add(1, Ordering::Relaxed) } else { 0 }
    }

    /// From the cache at once, or later.
    fn ask_elsewhere(&self, pending: Pending, buffer: &mut [u8], tally: &Tally) -> Step {
        let ask = pending.ask();
        let Some(stored) = self.forwarder.as_ref().and_then(|f| f.cached(&ask, Instant::now())) else {
            return Step::Later(Box::new(pending));
        };
        let length = self.write_stored(&pending, Ok(&stored), buffer);
        tally.response(pending.transport, stored.rcode(), Source::Cache, length);
        if length == 0 { Step::Nothing } else { Step::Send(length) }
    }

    /// Asks upstream, and gives the answer's bytes. Empty: nothing is to be sent.
    pub async fn finish(&self, pending: Box<Pending>, tally: &Tally) -> Vec<u8> {
        let Some(forwarder) = &self.forwarder else { return Vec::new() };
        let result = forwarder.resolve(pending.ask()).await;
        let mut buffer = vec![0; pending.limit];
        let length = self.write_stored(&pending, result.as_deref().map_err(|failure| *failure), &mut buffer);
        let rcode = match &result {
            Ok(stored) => stored.rcode(),
            Err(failure) => failure.rcode() as u8,
        };
        tally.response(pending.transport, rcode, Source::Forward, length);
        buffer.truncate(length);
        buffer
    }

    fn write_stored(&self, pending: &Pending, result: Result<&Stored, Failure>, buffer: &mut [u8]) -> usize {
        let (packet, query, style) = (&pending.packet, &pending.query, self.style());
        let limit = pending.limit.min(buffer.len());
        let buffer = &mut buffer[..limit];
        match (result, &pending.target) {
            (Err(failure), _) => write_error(buffer, packet, query, failure.rcode(), style),
            (Ok(stored), None) => match Reply::new(buffer, packet, query, style) {
                Ok(mut reply) => {
                    stored.write(&mut reply, query, Instant::now());
                    reply.finish()
                }
                Err(Full) => 0,
            },
            (Ok(stored), Some(target)) => self.write_alias(pending, stored, target, buffer),
        }
    }

    /// The alias from the newest zone, then what upstream knows of its target.
    fn write_alias(&self, pending: &Pending, stored: &Stored, target: &Name, buffer: &mut [u8]) -> usize {
        let (packet, query) = (&pending.packet, &pending.query);
        let snapshot = self.snapshot();
        let Found::Here(answer) = snapshot.zone.answer(&query.name, query.rtype) else {
            return write_error(buffer, packet, query, Rcode::ServFail, self.style());
        };
        let same = answer.follow == Some(target);
        let Ok(mut reply) = Reply::new(buffer, packet, query, self.style()) else { return 0 };
        write_answer(&mut reply, query, &answer, 0);
        // The Service changed meanwhile: what it says now stands alone.
        if same {
            reply.set_rcode(stored.rcode());
            let now = Instant::now();
            for (owner, rtype, ttl, data) in stored.addresses(now) {
                if reply.raw_record(Section::Answer, owner.as_wire(), rtype, ttl, &data).is_err() {
                    reply.set_flags(crate::wire::flag::TRUNCATED);
                    break;
                }
            }
        }
        reply.finish()
    }
}

impl Pending {
    fn new(packet: &[u8], query: Query, limit: usize, transport: Transport, target: Option<Name>) -> Pending {
        Pending { packet: packet[..query.question_end].into(), query, limit, transport, target }
    }

    fn ask(&self) -> Ask {
        match &self.target {
            Some(target) => Ask::address(target.clone(), self.query.rtype),
            None => Ask::of(&self.query),
        }
    }
}

/// Questions that nobody here answers.
fn refusal(query: &Query) -> Option<Rcode> {
    if query.edns.is_some_and(|edns| edns.version != 0) {
        return Some(Rcode::BadVers);
    }
    // Other classes have no names of ours, and transfers are not for everybody.
    let transfer = matches!(query.rtype, rtype::AXFR | rtype::IXFR);
    (query.class != CLASS_IN || transfer).then_some(Rcode::Refused)
}

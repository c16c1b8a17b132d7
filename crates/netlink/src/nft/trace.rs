//! Which rules a packet meets: the kernel tells, for packets whose `nftrace` bit a rule has set.
//!
//! [`Tracer`] listens; somebody's rule sets the bit (`meta nftrace set 1`). An [`Event`] is one rule that decided, or the
//! end of a chain; events of one packet share an id. A rule that did not match brings no event. Events are told to all
//! listeners of the network namespace, so a listener takes those of its own packet by their id.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::codec::{Message, Messages};
use crate::socket::{NetlinkSocket, Protocol};

use super::decode::verdict;
use super::object::{Family, Name, Table, Verdict};
use super::wire::{self, SUBSYS, msg, trace, trace_type};

/// `NFNLGRP_NFTRACE`.
const GROUP: u32 = 9;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The rule with this handle matched to its end.
    Rule(u64),
    /// The end of a chain that was called: back to the caller.
    Return,
    /// The end of a base chain: its policy.
    Policy,
}

/// One step of one packet.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The same for all steps of a packet on its way through this host.
    pub packet: u32,
    pub table: Table,
    pub chain: Name,
    pub cause: Cause,
    pub verdict: Verdict,
    /// The packet's addresses at this point; told with the first event of each hook only.
    pub addresses: Option<(IpAddr, IpAddr)>,
}

/// Hears the trace events of the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Tracer {
    netlink: NetlinkSocket,
    waiting: VecDeque<Event>,
}

impl Tracer {
    pub fn open() -> io::Result<Self> {
        let netlink = NetlinkSocket::open(Protocol::Netfilter)?;
        netlink.join(GROUP)?;
        Ok(Self { netlink, waiting: VecDeque::new() })
    }

    /// The next event, if one comes in time.
    pub fn next(&mut self, patience: Duration) -> io::Result<Option<Event>> {
        let end = Instant::now() + patience;
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(event));
            }
            let left = end.saturating_duration_since(Instant::now());
            let Some(datagram) = self.netlink.recv_within(left)? else { return Ok(None) };
            self.waiting.extend(Messages(datagram).filter_map(|message| event(&message)));
        }
    }
}

fn event(message: &Message<'_>) -> Option<Event> {
    if message.kind != SUBSYS << 8 | msg::TRACE {
        return None;
    }
    let family = Family::from_number(*message.payload.first()?);
    let attrs = message.attrs(wire::FIXED);
    let number = |kind| attrs.get(kind).and_then(|attr| attr.be32());
    let cause = match number(trace::TYPE)? {
        trace_type::RULE => Cause::Rule(attrs.get(trace::RULE_HANDLE)?.be64()?),
        trace_type::RETURN => Cause::Return,
        trace_type::POLICY => Cause::Policy,
        _ => return None,
    };
    let verdict = match (attrs.get(trace::VERDICT), number(trace::POLICY)) {
        (Some(nested), _) => verdict(&nested.nested())?,
        (None, Some(0)) => Verdict::Drop,
        (None, Some(_)) => Verdict::Accept,
        (None, None) => Verdict::Continue,
    };
    Some(Event {
        packet: number(trace::ID)?,
        table: Table::new(family, attrs.get(trace::TABLE)?.text()?),
        chain: attrs.get(trace::CHAIN)?.text()?.into(),
        cause,
        verdict,
        addresses: attrs.get(trace::NETWORK_HEADER).and_then(|header| addresses(header.payload)),
    })
}

/// Source and destination in an IPv4 or IPv6 header.
fn addresses(header: &[u8]) -> Option<(IpAddr, IpAddr)> {
    fn at<const N: usize>(header: &[u8], offset: usize) -> Option<[u8; N]> {
        header.get(offset..offset + N)?.try_into().ok()
    }
    match header.first()? >> 4 {
        4 => Some((at::<4>(header, 12)?.into(), at::<4>(header, 16)?.into())),
        6 => Some((at::<16>(header, 8)?.into(), at::<16>(header, 24)?.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Writer;

    fn message(kind: u16, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.message(kind, 0, 0, &wire::fixed(Family::Ip.number()), |w| {
            w.string(trace::TABLE, "portolan");
            w.string(trace::CHAIN, "services");
            w.be32(trace::ID, 7);
            body(w);
        });
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Option<Event> {
        event(&Messages(bytes).next().unwrap())
    }

    fn rule() -> Vec<u8> {
        message(SUBSYS << 8 | msg::TRACE, |w| {
            w.be32(trace::TYPE, trace_type::RULE);
            w.be64(trace::RULE_HANDLE, 12);
            w.nested(trace::VERDICT, |w| {
                w.be32(wire::verdict::CODE, Verdict::goto("x").code() as u32);
                w.string(wire::verdict::CHAIN, "pick-2");
            });
            let mut header = [0u8; 20];
            header[0] = 0x45;
            header[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 96, 0, 9]);
            w.attr(trace::NETWORK_HEADER, &header);
        })
    }

    #[test]
    fn a_rule_that_decided() {
        let event = read(&rule()).unwrap();
        assert_eq!((event.packet, &*event.chain, &event.cause), (7, "services", &Cause::Rule(12)));
        assert_eq!(event.table, Table::new(Family::Ip, "portolan"));
        assert_eq!(event.verdict, Verdict::goto("pick-2"));
        assert_eq!(event.addresses, Some(([10, 0, 0, 1].into(), [10, 96, 0, 9].into())));
    }

    #[test]
    fn the_policy_of_a_chain() {
        let policy = |number| {
            read(&message(SUBSYS << 8 | msg::TRACE, |w| {
                w.be32(trace::TYPE, trace_type::POLICY);
                w.be32(trace::POLICY, number);
            }))
        };
        let drop = policy(0).unwrap();
        assert_eq!((drop.cause, drop.verdict), (Cause::Policy, Verdict::Drop));
        assert_eq!(policy(1).unwrap().verdict, Verdict::Accept);
    }

    #[test]
    fn other_messages_and_damaged_ones_are_passed_over() {
        assert_eq!(read(&message(SUBSYS << 8 | msg::NEWRULE, |_| {})), None);
        assert_eq!(read(&message(SUBSYS << 8 | msg::TRACE, |_| {})), None, "it does not say what it is");
        let bytes = rule();
        for at in 16..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            Messages(&damaged).for_each(|message| drop(event(&message)));
        }
    }
}

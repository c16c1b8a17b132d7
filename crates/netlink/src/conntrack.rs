//! Tracked connections: list them, and forget those whose destination is gone.
//!
//! A flow has two tuples: the *original* as the first packet had it, and the *reply* as answers look. A translated
//! destination shows as a difference between them: the original goes to the Service's address, the reply comes from the
//! endpoint.
//!
//! Start at [`Conntrack`]. Deleting by [`Filter`] is one message on kernels that can filter; on others, which refuse
//! that message, the flows are listed and deleted one by one, with the same result.

mod wire;

use std::io;
use std::net::IpAddr;

use crate::codec::{Messages, NLMSG_ERROR, flags};
use crate::socket::{Ack, NetlinkSocket, Protocol};

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    pub src: IpAddr,
    pub dst: IpAddr,
    /// Protocol number of the IP header.
    pub proto: u8,
    pub ports: Ports,
}

/// What tells flows of one protocol between the same hosts apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ports {
    /// TCP, UDP, SCTP and the like.
    Ports { src: u16, dst: u16 },
    /// `ICMP` and `ICMPv6`.
    Icmp { id: u16, kind: u8, code: u8 },
    /// Protocols without either.
    None,
}

impl Tuple {
    pub fn dst_port(&self) -> Option<u16> {
        match self.ports {
            Ports::Ports { dst, .. } => Some(dst),
            _ => None,
        }
    }

    /// The tuple of answers when nothing is translated.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let ports = match self.ports {
            Ports::Ports { src, dst } => Ports::Ports { src: dst, dst: src },
            other => other,
        };
        Self { src: self.dst, dst: self.src, ports, ..*self }
    }

    pub fn src_port(&self) -> Option<u16> {
        match self.ports {
            Ports::Ports { src, .. } => Some(src),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    pub original: Tuple,
    pub reply: Tuple,
    /// `IPS_*` bits.
    pub status: u32,
    pub mark: u32,
    pub zone: u16,
    /// Seconds until the flow is forgotten, unless a packet comes.
    pub timeout_s: u32,
    /// The kernel's number for this flow.
    pub id: u32,
}

impl Flow {
    /// `IPS_SEEN_REPLY`, `IPS_ASSURED`, `IPS_SRC_NAT`, `IPS_DST_NAT` in [`Flow::status`].
    pub const SEEN_REPLY: u32 = 1 << 1;
    pub const ASSURED: u32 = 1 << 2;
    pub const CONFIRMED: u32 = 1 << 3;
    pub const SRC_NAT: u32 = 1 << 4;
    pub const DST_NAT: u32 = 1 << 5;

    pub fn is_dnat(&self) -> bool {
        self.status & Self::DST_NAT != 0
    }
}

/// Which flows are meant; what is absent matches everything. `proto` is needed where a port is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filter {
    pub proto: Option<u8>,
    pub orig_dst: Option<IpAddr>,
    pub orig_dst_port: Option<u16>,
    /// Where answers come from: the endpoint, for a translated flow.
    pub reply_src: Option<IpAddr>,
    pub reply_src_port: Option<u16>,
}

impl Filter {
    pub fn matches(&self, flow: &Flow) -> bool {
        fn fits<T: PartialEq + Copy>(wanted: Option<T>, found: Option<T>) -> bool {
            wanted.is_none() || wanted == found
        }
        fits(self.proto, Some(flow.original.proto))
            && fits(self.orig_dst, Some(flow.original.dst))
            && fits(self.orig_dst_port, flow.original.dst_port())
            && fits(self.reply_src, Some(flow.reply.src))
            && fits(self.reply_src_port, flow.reply.src_port())
    }

    /// The family of the addresses, where one is given.
    fn is_ipv6(&self) -> Option<bool> {
        self.orig_dst.or(self.reply_src).map(|address| address.is_ipv6())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

/// The connection tracking table of the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Conntrack {
    netlink: NetlinkSocket,
    /// False once this kernel has shown that it cannot filter deletions.
    kernel_filters: bool,
}

impl Conntrack {
    pub fn open() -> io::Result<Self> {
        Ok(Self { netlink: NetlinkSocket::open(Protocol::Netfilter)?, kernel_filters: true })
    }

    /// All flows of a family. While packets pass the list is a moment's view: flows come and go during it.
    pub fn flows(&mut self, family: Family) -> io::Result<Vec<Flow>> {
        self.netlink.dump(
            |w, seq| wire::put_dump(w, seq, family),
            |message, found| {
                found.push(wire::flow(message).ok_or(io::ErrorKind::InvalidData)?);
                Ok(())
            },
        )
    }

    /// The flows of one protocol. The kernel picks them where it can (Linux 5.8), so that a node with very many TCP
    /// connections need not send them all.
    pub fn flows_of(&mut self, family: Family, proto: u8) -> io::Result<Vec<Flow>> {
        let mut flows =
            if self.kernel_filters { self.flows_filtered(family, proto) } else { self.flows(family) }?;
        flows.retain(|flow| flow.original.proto == proto);
        Ok(flows)
    }

    fn flows_filtered(&mut self, family: Family, proto: u8) -> io::Result<Vec<Flow>> {
        let result = self.netlink.dump(
            |w, seq| wire::put_dump_of(w, seq, family, proto),
            |message, found| {
                found.push(wire::flow(message).ok_or(io::ErrorKind::InvalidData)?);
                Ok(())
            },
        );
        match result {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) =>
            {
                self.flows(family)
            }
            result => result,
        }
    }

    /// Forgets one flow. False when there is none with this tuple as its original.
    pub fn delete(&mut self, original: &Tuple, zone: u16) -> io::Result<bool> {
        not_found_is_false(self.netlink.request(|w, seq| wire::put_delete(w, seq, original, zone, None)))
    }

    /// Forgets all flows that the filter matches. A filter that matches everything empties the table.
    pub fn delete_matching(&mut self, filter: &Filter) -> io::Result<()> {
        let families = match filter.is_ipv6() {
            Some(false) => &[Family::V4][..],
            Some(true) => &[Family::V6],
            None => &[Family::V4, Family::V6],
        };
        families.iter().try_for_each(|family| self.delete_matching_of(*family, filter))
    }

    fn delete_matching_of(&mut self, family: Family, filter: &Filter) -> io::Result<()> {
        if !self.kernel_filters || !wire::can_filter(filter) {
            return self.delete_listed(family, filter);
        }
        match self.netlink.request(|w, seq| wire::put_delete_matching(w, seq, family, filter)) {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) =>
            {
                self.kernel_filters = false;
                self.delete_listed(family, filter)
            }
            result => not_found_is_false(result).map(|_| ()),
        }
    }

    /// Behaves as on a kernel that cannot filter deletions.
    #[must_use]
    pub fn without_kernel_filter(self) -> Self {
        Self { kernel_filters: false, ..self }
    }

    /// Lists, picks, and deletes one by one: for kernels that cannot filter.
    fn delete_listed(&mut self, family: Family, filter: &Filter) -> io::Result<()> {
        let flows = self.flows(family)?;
        let meant: Vec<Flow> = flows.into_iter().filter(|flow| filter.matches(flow)).collect();
        self.delete_flows(&meant)
    }

    /// Forgets these flows, many in one datagram. One that is gone already is passed over. A new flow with the same
    /// tuple is usually told apart by its number, but not always: the kernel makes it from the tuple and an address in
    /// memory, which may be used again.
    pub fn delete_flows(&mut self, flows: &[Flow]) -> io::Result<()> {
        /// Each failure is answered, and the answers must fit into the receive queue.
        const AT_ONCE: usize = 1000;
        flows.chunks(AT_ONCE).try_for_each(|chunk| self.delete_chunk(chunk))
    }

    fn delete_chunk(&mut self, flows: &[Flow]) -> io::Result<()> {
        let first = self.netlink.reserve(flows.len() as u32);
        let mut writer = crate::codec::Writer::with_capacity(flows.len() * 128);
        for (index, flow) in flows.iter().enumerate() {
            let start = writer.len();
            wire::put_delete(&mut writer, first + index as u32, &flow.original, flow.zone, Some(flow.id));
            writer.add_flags(start, flags::ACK);
        }
        self.netlink.send(&writer.finish().map_err(io::Error::other)?)?;
        let last = first + flows.len() as u32 - 1;
        let mut result = Ok(());
        loop {
            for message in Messages(self.netlink.recv()?) {
                if message.kind != NLMSG_ERROR || !(first..=last).contains(&message.seq) {
                    continue;
                }
                let ack = Ack::parse(&message).ok_or(io::ErrorKind::InvalidData)?;
                let seq = ack.seq;
                if let Err(error) = not_found_is_false(ack.into_result()) {
                    result = Err(error);
                }
                if seq == last {
                    return result;
                }
            }
        }
    }

    /// Makes a flow, for tests and for handing flows over.
    pub fn insert(&mut self, flow: &Flow) -> io::Result<()> {
        self.netlink.request(|w, seq| wire::put_new(w, seq, flow))
    }
}

fn not_found_is_false(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

//! Messages of `ctnetlink`, with the numbers from `linux/netfilter/nfnetlink_conntrack.h`.

use std::net::IpAddr;

use super::{Family, Filter, Flow, Ports, Tuple};
use crate::codec::{Attr, Message, Writer, flags};

const SUBSYS: u16 = 1;
const MSG_NEW: u16 = SUBSYS << 8;
const MSG_GET: u16 = SUBSYS << 8 | 1;
const MSG_DELETE: u16 = SUBSYS << 8 | 2;
const FIXED: usize = 4;

const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const TIMEOUT: u16 = 7;
const MARK: u16 = 8;
const ID: u16 = 12;
const NAT_DST: u16 = 13;
const ZONE: u16 = 18;
const FILTER: u16 = 25;

const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;

const IP_V4_SRC: u16 = 1;
const IP_V4_DST: u16 = 2;
const IP_V6_SRC: u16 = 3;
const IP_V6_DST: u16 = 4;

const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;
const PROTO_ICMP_ID: u16 = 4;
const PROTO_ICMP_TYPE: u16 = 5;
const PROTO_ICMP_CODE: u16 = 6;
/// The three of `ICMPv6` follow those of `ICMP`.
const ICMPV6: u16 = 3;

const NAT_V4_MINIP: u16 = 1;
const NAT_PROTO: u16 = 3;
const NAT_V6_MINIP: u16 = 4;
const PROTONAT_PORT_MIN: u16 = 1;

const FILTER_ORIG_FLAGS: u16 = 1;
const FILTER_REPLY_FLAGS: u16 = 2;
/// Bits of both: which parts of the tuple count.
const BY_SRC: u32 = 1;
const BY_DST: u32 = 1 << 1;
const BY_PROTO: u32 = 1 << 3;
const BY_SRC_PORT: u32 = 1 << 4;
const BY_DST_PORT: u32 = 1 << 5;

/// `struct nfgenmsg`. With version 1 the kernel heeds the family where it would otherwise take all of them.
fn fixed(family: Family) -> [u8; FIXED] {
    let number = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    [number as u8, 1, 0, 0]
}

fn family(tuple: &Tuple) -> Family {
    if tuple.src.is_ipv4() { Family::V4 } else { Family::V6 }
}

pub(super) fn put_dump(w: &mut Writer, seq: u32, family: Family) {
    w.message(MSG_GET, 0, seq, &fixed(family), |_| {});
}

/// Only flows of a protocol. A kernel that does not know the filter sends all.
pub(super) fn put_dump_of(w: &mut Writer, seq: u32, family: Family, proto: u8) {
    w.message(MSG_GET, 0, seq, &fixed(family), |w| {
        put_part(w, TUPLE_ORIG, [IP_V4_DST, IP_V6_DST], None, Some(proto), PROTO_DST_PORT, None);
        w.nested(FILTER, |w| {
            w.ne32(FILTER_ORIG_FLAGS, BY_PROTO);
            w.ne32(FILTER_REPLY_FLAGS, 0);
        });
    });
}

pub(super) fn put_delete(w: &mut Writer, seq: u32, original: &Tuple, zone: u16, id: Option<u32>) {
    w.message(MSG_DELETE, 0, seq, &fixed(family(original)), |w| {
        put_tuple(w, TUPLE_ORIG, original);
        if zone != 0 {
            w.be16(ZONE, zone);
        }
        if let Some(id) = id {
            w.be32(ID, id);
        }
    });
}

/// Deletes by parts of tuples. There is always a tuple, and it always lacks an address: a kernel that does not know the
/// filter takes the message for an incomplete deletion of one flow and refuses it.
pub(super) fn put_delete_matching(w: &mut Writer, seq: u32, family: Family, filter: &Filter) {
    let bits = |parts: [(bool, u32); 3]| -> u32 {
        parts.into_iter().filter_map(|(present, bit)| present.then_some(bit)).sum()
    };
    let by_proto = (filter.proto.is_some(), BY_PROTO);
    let by_reply = filter.reply_src.is_some() || filter.reply_src_port.is_some();
    let orig =
        bits([(filter.orig_dst.is_some(), BY_DST), (filter.orig_dst_port.is_some(), BY_DST_PORT), by_proto]);
    let reply = if by_reply {
        bits([(filter.reply_src.is_some(), BY_SRC), (filter.reply_src_port.is_some(), BY_SRC_PORT), by_proto])
    } else {
        0
    };
    w.message(MSG_DELETE, 0, seq, &fixed(family), |w| {
        if orig != 0 {
            let kinds = [IP_V4_DST, IP_V6_DST];
            put_part(
                w,
                TUPLE_ORIG,
                kinds,
                filter.orig_dst,
                filter.proto,
                PROTO_DST_PORT,
                filter.orig_dst_port,
            );
        }
        if reply != 0 {
            let kinds = [IP_V4_SRC, IP_V6_SRC];
            put_part(
                w,
                TUPLE_REPLY,
                kinds,
                filter.reply_src,
                filter.proto,
                PROTO_SRC_PORT,
                filter.reply_src_port,
            );
        }
        w.nested(FILTER, |w| {
            w.ne32(FILTER_ORIG_FLAGS, orig);
            w.ne32(FILTER_REPLY_FLAGS, reply);
        });
    });
}

/// Whether the kernel can be trusted with it. A port means nothing without its protocol. IPv6 addresses are compared
/// the wrong way round, seen on 6.18: the flows with *other* addresses would go.
pub(super) fn can_filter(filter: &Filter) -> bool {
    let ports = filter.orig_dst_port.is_some() || filter.reply_src_port.is_some();
    let ipv6 = [filter.orig_dst, filter.reply_src].into_iter().flatten().any(|address| address.is_ipv6());
    filter != &Filter::default() && !ipv6 && (!ports || filter.proto.is_some())
}

fn put_part(
    w: &mut Writer,
    kind: u16,
    [v4, v6]: [u16; 2],
    address: Option<IpAddr>,
    proto: Option<u8>,
    port_kind: u16,
    port: Option<u16>,
) {
    w.nested(kind, |w| {
        if let Some(address) = address {
            w.nested(TUPLE_IP, |w| put_address(w, v4, v6, address));
        }
        if let Some(proto) = proto {
            w.nested(TUPLE_PROTO, |w| {
                w.u8(PROTO_NUM, proto);
                if let Some(port) = port {
                    w.be16(port_kind, port);
                }
            });
        }
    });
}

/// A new flow. Where the reply does not come from the original's destination, that is a translation, and the kernel is
/// told to make it.
pub(super) fn put_new(w: &mut Writer, seq: u32, flow: &Flow) {
    let Flow { original, reply, .. } = flow;
    let translated = (original.dst, original.dst_port()) != (reply.src, reply.src_port());
    w.message(MSG_NEW, flags::CREATE | flags::EXCL, seq, &fixed(family(original)), |w| {
        put_tuple(w, TUPLE_ORIG, original);
        if translated {
            put_tuple(w, TUPLE_REPLY, &original.inverse());
            put_nat_dst(w, reply);
        } else {
            put_tuple(w, TUPLE_REPLY, reply);
        }
        w.be32(STATUS, (flow.status | Flow::CONFIRMED) & !(Flow::DST_NAT | Flow::SRC_NAT));
        w.be32(TIMEOUT, flow.timeout_s);
        w.be32(MARK, flow.mark);
        if flow.zone != 0 {
            w.be16(ZONE, flow.zone);
        }
    });
}

fn put_nat_dst(w: &mut Writer, reply: &Tuple) {
    w.nested(NAT_DST, |w| {
        put_address(w, NAT_V4_MINIP, NAT_V6_MINIP, reply.src);
        if let Some(port) = reply.src_port() {
            w.nested(NAT_PROTO, |w| w.be16(PROTONAT_PORT_MIN, port));
        }
    });
}

fn put_address(w: &mut Writer, v4: u16, v6: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => w.attr(v4, &address.octets()),
        IpAddr::V6(address) => w.attr(v6, &address.octets()),
    }
}

fn put_tuple(w: &mut Writer, kind: u16, tuple: &Tuple) {
    w.nested(kind, |w| {
        w.nested(TUPLE_IP, |w| {
            put_address(w, IP_V4_SRC, IP_V6_SRC, tuple.src);
            put_address(w, IP_V4_DST, IP_V6_DST, tuple.dst);
        });
        w.nested(TUPLE_PROTO, |w| {
            w.u8(PROTO_NUM, tuple.proto);
            match tuple.ports {
                Ports::Ports { src, dst } => {
                    w.be16(PROTO_SRC_PORT, src);
                    w.be16(PROTO_DST_PORT, dst);
                }
                Ports::Icmp { id, kind, code } => {
                    let shift = if tuple.src.is_ipv6() { ICMPV6 } else { 0 };
                    w.be16(PROTO_ICMP_ID + shift, id);
                    w.u8(PROTO_ICMP_TYPE + shift, kind);
                    w.u8(PROTO_ICMP_CODE + shift, code);
                }
                Ports::None => {}
            }
        });
    });
}

/// The flow in a message of a dump. `None` when the message makes no sense.
pub(super) fn flow(message: &Message<'_>) -> Option<Flow> {
    let attrs = message.attrs(FIXED);
    let number = |kind| attrs.get(kind).and_then(|attr| attr.be32()).unwrap_or(0);
    Some(Flow {
        original: tuple(attrs.get(TUPLE_ORIG)?)?,
        reply: tuple(attrs.get(TUPLE_REPLY)?)?,
        status: number(STATUS),
        mark: number(MARK),
        zone: attrs.get(ZONE).and_then(|zone| zone.be16()).unwrap_or(0),
        timeout_s: number(TIMEOUT),
        id: number(ID),
    })
}

fn tuple(attr: Attr<'_>) -> Option<Tuple> {
    let parts = attr.nested();
    let ip = parts.get(TUPLE_IP)?.nested();
    let address = |v4, v6| match (ip.get(v4), ip.get(v6)) {
        (Some(attr), _) => <[u8; 4]>::try_from(attr.payload).ok().map(IpAddr::from),
        (_, Some(attr)) => <[u8; 16]>::try_from(attr.payload).ok().map(IpAddr::from),
        _ => None,
    };
    let proto = parts.get(TUPLE_PROTO)?.nested();
    let icmp = |shift: u16| {
        Some(Ports::Icmp {
            id: proto.get(PROTO_ICMP_ID + shift)?.be16()?,
            kind: proto.get(PROTO_ICMP_TYPE + shift)?.u8()?,
            code: proto.get(PROTO_ICMP_CODE + shift)?.u8()?,
        })
    };
    let ports = match (proto.get(PROTO_SRC_PORT), proto.get(PROTO_DST_PORT)) {
        (Some(src), Some(dst)) => Ports::Ports { src: src.be16()?, dst: dst.be16()? },
        _ => icmp(0).or_else(|| icmp(ICMPV6)).unwrap_or(Ports::None),
    };
    Some(Tuple {
        src: address(IP_V4_SRC, IP_V6_SRC)?,
        dst: address(IP_V4_DST, IP_V6_DST)?,
        proto: proto.get(PROTO_NUM)?.u8()?,
        ports,
    })
}

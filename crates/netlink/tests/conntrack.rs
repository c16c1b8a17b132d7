//! Connection tracking in the real kernel, in a network namespace per test. No packet is sent: flows are made by
//! netlink.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr};

use portolan_netlink::conntrack::{Conntrack, Family, Filter, Flow, Ports, Tuple};
use rustix::thread::UnshareFlags;

const UDP: u8 = 17;

fn in_new_netns(test: impl FnOnce(&mut Conntrack) + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // SAFETY: only the network namespace of this short-lived thread changes; it shares everything else.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
            .expect("kernel tests need root: they make network namespaces");
        test(&mut Conntrack::open().unwrap());
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn flow(client: u16, service: &str, endpoint: &str) -> Flow {
    let parse = |text: &str| -> (IpAddr, u16) {
        let address: std::net::SocketAddr = text.parse().unwrap();
        (address.ip(), address.port())
    };
    let ((dst, dst_port), (endpoint, endpoint_port)) = (parse(service), parse(endpoint));
    let src = if dst.is_ipv4() { Ipv4Addr::new(10, 9, 9, 9).into() } else { "2001:db8::9".parse().unwrap() };
    let original = Tuple { src, dst, proto: UDP, ports: Ports::Ports { src: client, dst: dst_port } };
    let reply = Tuple {
        src: endpoint,
        dst: src,
        proto: UDP,
        ports: Ports::Ports { src: endpoint_port, dst: client },
    };
    Flow { original, reply, status: Flow::SEEN_REPLY, mark: 7, zone: 0, timeout_s: 300, id: 0 }
}

fn insert(conntrack: &mut Conntrack, flows: impl IntoIterator<Item = Flow>) {
    flows.into_iter().for_each(|flow| conntrack.insert(&flow).unwrap());
}

/// Client ports of the flows that are left, in order.
fn clients(conntrack: &mut Conntrack, family: Family) -> Vec<u16> {
    let flows = conntrack.flows(family).unwrap();
    let mut ports: Vec<u16> = flows.iter().filter_map(|flow| flow.original.src_port()).collect();
    ports.sort_unstable();
    ports
}

#[test]
fn a_translated_flow_is_listed_with_both_tuples() {
    in_new_netns(|conntrack| {
        let made = [flow(1000, "10.96.0.10:53", "10.1.0.2:5353"), flow(1001, "10.1.0.2:53", "10.1.0.2:53")];
        insert(conntrack, made);
        let mut flows = conntrack.flows(Family::V4).unwrap();
        flows.sort_by_key(|flow| flow.original.src_port());
        assert_eq!(flows.len(), 2);
        for (found, made) in flows.iter().zip(made) {
            assert_eq!((found.original, found.reply, found.mark), (made.original, made.reply, 7));
            assert!(found.timeout_s <= 300 && found.status & Flow::SEEN_REPLY != 0, "{found:?}");
        }
        assert!(flows[0].is_dnat() && !flows[1].is_dnat());
        assert!(conntrack.flows(Family::V6).unwrap().is_empty());
    });
}

#[test]
fn flows_of_one_protocol_are_listed_alone() {
    const TCP: u8 = 6;
    for filters in [true, false] {
        in_new_netns(move |conntrack| {
            let mut tcp = flow(1001, "10.96.0.10:53", "10.1.0.2:53");
            (tcp.original.proto, tcp.reply.proto) = (TCP, TCP);
            insert(conntrack, [flow(1000, "10.96.0.10:53", "10.1.0.2:53"), tcp]);
            let mut conntrack = Conntrack::open().unwrap();
            if !filters {
                conntrack = conntrack.without_kernel_filter();
            }
            for (proto, client) in [(UDP, 1000), (TCP, 1001)] {
                let flows = conntrack.flows_of(Family::V4, proto).unwrap();
                let ports: Vec<_> = flows.iter().filter_map(|flow| flow.original.src_port()).collect();
                assert_eq!(ports, [client]);
            }
            assert!(conntrack.flows_of(Family::V6, UDP).unwrap().is_empty());
            assert!(conntrack.flows_of(Family::V4, 132).unwrap().is_empty());
        });
    }
}

#[test]
fn one_flow_is_deleted_by_its_tuple() {
    in_new_netns(|conntrack| {
        insert(conntrack, (1000..1003).map(|client| flow(client, "10.96.0.10:53", "10.1.0.2:53")));
        let tuple = flow(1001, "10.96.0.10:53", "10.1.0.2:53").original;
        assert!(conntrack.delete(&tuple, 0).unwrap());
        assert!(!conntrack.delete(&tuple, 0).unwrap(), "gone already");
        assert_eq!(clients(conntrack, Family::V4), [1000, 1002]);
    });
}

#[test]
fn flows_that_are_gone_already_are_passed_over() {
    in_new_netns(|conntrack| {
        insert(conntrack, (1000..1003).map(|client| flow(client, "10.96.0.10:53", "10.1.0.2:53")));
        let mut listed = conntrack.flows(Family::V4).unwrap();
        listed.sort_by_key(|flow| flow.original.src_port());
        assert!(conntrack.delete(&listed[0].original, 0).unwrap());
        conntrack.delete_flows(&listed[..2]).unwrap();
        assert_eq!(clients(conntrack, Family::V4), [1002]);
    });
}

/// Flows of two services on two endpoints each, and one of the other family.
fn table(conntrack: &mut Conntrack) {
    insert(
        conntrack,
        [
            flow(1, "10.96.0.10:53", "10.1.0.1:53"),
            flow(2, "10.96.0.10:53", "10.1.0.2:53"),
            flow(3, "10.96.0.10:54", "10.1.0.2:53"),
            flow(4, "10.96.0.11:53", "10.1.0.1:53"),
            flow(5, "10.96.0.11:53", "10.1.0.2:5353"),
            flow(6, "[2001:db8::10]:53", "[2001:db8::2]:53"),
            flow(7, "[2001:db8::11]:53", "[2001:db8::2]:5353"),
        ],
    );
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn cases() -> Vec<(Filter, &'static [u16])> {
    let none = Filter::default();
    let udp = Filter { proto: Some(UDP), ..none };
    vec![
        (Filter { orig_dst: Some(ip("10.96.0.10")), orig_dst_port: Some(53), ..udp }, &[3, 4, 5, 6, 7]),
        (Filter { orig_dst: Some(ip("10.96.0.10")), ..none }, &[4, 5, 6, 7]),
        (
            Filter { orig_dst: Some(ip("10.96.0.10")), reply_src: Some(ip("10.1.0.2")), ..udp },
            &[1, 4, 5, 6, 7],
        ),
        (Filter { reply_src: Some(ip("10.1.0.2")), reply_src_port: Some(53), ..udp }, &[1, 4, 5, 6, 7]),
        (Filter { orig_dst_port: Some(53), ..udp }, &[3]),
        (Filter { orig_dst: Some(ip("2001:db8::10")), ..none }, &[1, 2, 3, 4, 5, 7]),
        (Filter { proto: Some(6), ..none }, &[1, 2, 3, 4, 5, 6, 7]),
        (udp, &[]),
        (none, &[]),
    ]
}

#[test]
fn a_filter_deletes_what_it_matches_in_the_kernel_and_by_listing() {
    for by_kernel in [true, false] {
        for (filter, left) in cases() {
            in_new_netns(move |conntrack| {
                table(conntrack);
                let opened = Conntrack::open().unwrap();
                let mut deleting = if by_kernel { opened } else { opened.without_kernel_filter() };
                deleting.delete_matching(&filter).unwrap();
                let mut found = clients(conntrack, Family::V4);
                found.extend(clients(conntrack, Family::V6));
                assert_eq!(found, left, "by kernel: {by_kernel}, {filter:?}");
            });
        }
    }
}

#[test]
fn ten_thousand_flows_are_deleted_without_a_lost_answer() {
    in_new_netns(|conntrack| {
        insert(conntrack, (1..=10_000).map(|client| flow(client, "10.96.0.10:53", "10.1.0.2:53")));
        insert(conntrack, [flow(1, "10.96.0.11:53", "10.1.0.3:53")]);
        let mut listing = Conntrack::open().unwrap().without_kernel_filter();
        let filter = Filter { orig_dst: Some(ip("10.96.0.10")), ..Filter::default() };
        listing.delete_matching(&filter).unwrap();
        assert_eq!(conntrack.flows(Family::V4).unwrap().len(), 1);
    });
}

//! Entries for fuzzing: each takes any bytes and panics if what comes of them breaks a promise. Also fed by property tests.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};

use portolan_client::Key;

use crate::metrics::{Tally, Transport};
use crate::name::QName;
use crate::server::{Handler, Snapshot, Step};
use crate::wire::message::{Header, read_name, records};
use crate::zone::view::{PortView, Protocol, ServiceKind, ServiceView};
use crate::zone::{Catalogue, Options};

/// A source that nobody trusts (RFC 5737).
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Bytes at which names are read, beyond the header: pointers lead from there to anywhere.
const STARTS: std::ops::Range<usize> = 12..40;

/// What questions are made from: with an OPT record, for a port, for an address, and a message of two questions.
pub const QUESTIONS: &[&[u8]] = &[
    b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x03web\x07default\x03svc\x07cluster\x05local\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\x80\0\0\x0c\0\x0a\0\x0812345678",
    b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x05_hTTp\x04_tcp\x03web\x07default\x03svc\x07cluster\x05local\0\0\x21\0\x01",
    b"\xff\xff\x01\0\0\x01\0\0\0\0\0\0\x011\x012\x010\x03192\x07in-addr\x04arpa\0\0\x0c\0\x01",
    b"\x12\x34\0\0\0\x02\0\0\0\0\0\0\x07192-0-2\x07default\x03pod\x07cluster\x05local\0\0\x1c\0\x01\xc0\x0c\0\xff\0\xff",
];
/// What upstreams' answers are made from: an alias with its target, and a denial.
pub const ANSWERS: &[&[u8]] = &[
    b"\x12\x34\x81\x80\0\x01\0\x02\0\0\0\x01\x03www\x07example\x03com\0\0\x01\0\x01\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01a\xc0\x10\xc0\x2d\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01\0\0\x29\x04\xd0\0\0\0\0\0\0",
    b"\x12\x34\x81\x83\0\x01\0\0\0\x01\0\0\x02no\x07example\0\0\x1c\0\x01\xc0\x0f\0\x06\0\x01\0\0\0\x05\0\x1c\x02ns\xc0\x0f\x01h\xc0\x0f\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05",
];

/// Answers for a Service with an address and for one without.
static HANDLER: LazyLock<Handler> = LazyLock::new(|| {
    let mut catalogue = Catalogue::new(Options::new("cluster.local").expect("a name")).expect("options");
    catalogue.set_namespace("default", true);
    for (name, kind) in [("web", ServiceKind::Cluster(vec![STRANGER])), ("headless", ServiceKind::Headless)] {
        let ports = vec![PortView { name: "http".into(), protocol: Protocol::Tcp, port: 80 }];
        catalogue.set_service(&Key::new("default", name), Some(&Arc::new(ServiceView { kind, ports })));
    }
    let zone = catalogue.commit(1).expect("there are Services");
    let handler = Handler::new(zone.clone(), None, 1232);
    handler.set_snapshot(Snapshot { zone, synced: true });
    handler
});

/// Bytes as a client's question: an answer is a message that can be walked through, for the same id, and no longer than
/// `limit`.
pub fn question(packet: &[u8], limit: usize) {
    let mut buffer = vec![0; limit];
    let (snapshot, tally) = (HANDLER.snapshot(), Tally::default());
    let step = HANDLER.handle(&snapshot, packet, &mut buffer, Transport::Udp, STRANGER, &tally);
    let Step::Send(length) = step else { return };
    assert!(length <= limit, "{length} bytes");
    let answer = &buffer[..length];
    assert_eq!(&answer[..2], &packet[..2], "the id");
    let header = Header::read(answer).expect("a header");
    let mut at = 12;
    if header.questions == 1 {
        at = QName::read(answer, 12).expect("a question").1 + 4;
        assert_eq!(&answer[12..at], &packet[12..at], "the question as it was spelled");
    }
    for record in records(answer, at, &header) {
        let record = record.expect("a whole record");
        assert!(record.owner(answer).is_ok());
        at = record.end;
    }
    assert_eq!(at, length, "nothing follows the records");
}

/// Bytes as an upstream's answer: names and records are read or refused, and reading ends.
pub fn answer(packet: &[u8]) {
    let Ok(header) = Header::read(packet) else { return };
    for at in STARTS.start..STARTS.end.min(packet.len()) {
        let _ = read_name(packet, at);
        records(packet, at, &header).flatten().for_each(|record| _ = record.owner(packet));
    }
}

//! Hostile and ordinary messages.

use proptest::prelude::*;

use super::message::{Header, read_name, skip_name};
use super::{Query, Refusal, Reply, Style};
use crate::fuzzing;
use crate::limits::UDP_PAYLOAD_MAX;
use crate::name::{Name, NameError, QName};
use crate::rr::{Rcode, rtype};

/// A question for `web.` with an OPT record of this payload and version.
fn question(extra: &[u8], additional: u16) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0];
    packet.extend(additional.to_be_bytes());
    packet.extend(b"\x03WeB\x00\x00\x01\x00\x01");
    packet.extend(extra);
    packet
}

fn opt(payload: u16, version: u8, flags: u16) -> Vec<u8> {
    let (p, f) = (payload.to_be_bytes(), flags.to_be_bytes());
    vec![0, 0, 41, p[0], p[1], 0, version, f[0], f[1], 0, 0]
}

#[test]
fn a_question_is_understood() {
    let query = Query::parse(&question(&opt(4096, 0, 0x8000), 1)).unwrap();
    assert_eq!((query.id, query.rtype, query.class), (0x1234, rtype::A, 1));
    assert_eq!(query.name.to_string(), "web.");
    let edns = query.edns.unwrap();
    assert_eq!((edns.payload, edns.version, edns.dnssec_ok), (4096, 0, true));
    assert_eq!(query.udp_limit(UDP_PAYLOAD_MAX), 1232);
    assert_eq!(Query::parse(&question(&[], 0)).unwrap().udp_limit(UDP_PAYLOAD_MAX), 512);
    let small = Query::parse(&question(&opt(100, 0, 0), 1)).unwrap();
    assert_eq!(small.udp_limit(UDP_PAYLOAD_MAX), 512, "less than 512 means 512 (RFC 6891, 6.2.3)");
}

#[test]
fn what_is_no_question_is_refused_or_dropped() {
    let refused = |packet: &[u8]| Query::parse(packet).unwrap_err();
    let form = Refusal::Reply(Rcode::FormErr);
    assert_eq!(refused(b""), Refusal::Drop);
    assert_eq!(refused(&[0; 11]), Refusal::Drop);
    let mut answer = question(&[], 0);
    answer[2] |= 0x80;
    assert_eq!(refused(&answer), Refusal::Drop, "answers to answers would never end");
    let mut update = question(&[], 0);
    update[2] = 0x28;
    assert_eq!(refused(&update), Refusal::Reply(Rcode::NotImp));
    let mut two = question(&[], 0);
    two[5] = 2;
    assert_eq!(refused(&two), form);
    assert_eq!(refused(&question(&[], 1)), form, "a record that is not there");
    let double = [opt(512, 0, 0), opt(512, 0, 0)].concat();
    assert_eq!(refused(&question(&double, 2)), form, "one OPT only (RFC 6891, 6.1.1)");
    let named = [b"\x01a".to_vec(), opt(512, 0, 0)].concat();
    assert_eq!(refused(&question(&named, 1)), form, "the OPT's owner is the root");
    let mut pointer = question(&[], 0);
    pointer[12] = 0xc0;
    assert_eq!(refused(&pointer), form);
}

#[test]
fn names_may_point_back_and_only_back() {
    let message =
        [&[0; 12][..], b"\x01a\x01b\0", b"\x01c\xc0\x0c", b"\xc0\x11", b"\xc0\x17", b"\xc0\x20"].concat();
    let text = |at| read_name(&message, at).map(|name| name.to_string());
    assert_eq!(text(12).unwrap(), "a.b.");
    assert_eq!(text(17).unwrap(), "c.a.b.");
    assert_eq!(text(21).unwrap(), "c.a.b.");
    assert_eq!(text(23), Err(NameError::Pointer.into()), "to itself");
    assert_eq!(text(25), Err(NameError::Pointer.into()), "forward");
    assert_eq!(skip_name(&message, 17), Ok(21));
    assert!(read_name(&[&[0; 12][..], b"\xc0\x00"].concat(), 12).is_err(), "into the header");
}

#[test]
fn a_chain_of_pointers_cannot_make_a_name_too_long() {
    let mut message = vec![0; 12];
    message.extend(b"\x3f");
    message.extend([b'a'; 63]);
    message.push(0);
    let mut last = 12u16;
    for _ in 0..10 {
        let here = message.len() as u16;
        message.extend(b"\x3f");
        message.extend([b'b'; 63]);
        message.extend((0xc000 | last).to_be_bytes());
        last = here;
    }
    assert_eq!(read_name(&message, usize::from(last)), Err(NameError::TooLong.into()));
}

#[test]
fn a_reply_ends_before_a_record_that_does_not_fit() {
    let packet = question(&opt(512, 0, 0), 1);
    let query = Query::parse(&packet).unwrap();
    let style = Style { recursion: true, payload: 1232 };
    let mut buffer = vec![0; 80];
    let mut reply = Reply::new(&mut buffer, &packet, &query, style).unwrap();
    let section = super::reply::Section::Answer;
    let mut added = 0;
    while reply.raw_record(section, b"\xc0\x0c", rtype::A, 5, &[10, 0, 0, 1]).is_ok() {
        added += 1;
    }
    let length = reply.finish();
    assert_eq!((added, length), (3, 21 + 3 * 16 + 11));
    assert_eq!(Header::read(&buffer).unwrap().records, [3, 0, 1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn bytes_of_any_kind_are_survived(packet in proptest::collection::vec(any::<u8>(), 0..600)) {
        fuzzing::question(&packet, 1232);
        fuzzing::answer(&packet);
    }

    #[test]
    fn questions_with_broken_parts_are_survived(
        labels in proptest::collection::vec("[a-zA-Z0-9_-]{1,20}", 0..6),
        in_zone in any::<bool>(),
        rtype in prop_oneof![Just(1u16), Just(28), Just(33), Just(12), Just(6), Just(2), Just(16), Just(255), any::<u16>()],
        with_opt in proptest::option::of((any::<u16>(), 0..2u8, any::<u16>())),
        flips in proptest::collection::vec((0..200usize, any::<u8>()), 0..3),
        limit in 512..1300usize,
    ) {
        let mut packet = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(with_opt.is_some())];
        let zone: &[&str] = if in_zone { &["default", "svc", "cluster", "local"] } else { &[] };
        for label in labels.iter().map(String::as_str).chain(zone.iter().copied()) {
            packet.push(label.len() as u8);
            packet.extend(label.bytes());
        }
        packet.push(0);
        packet.extend([rtype.to_be_bytes(), [0, 1]].concat());
        if let Some((payload, version, flags)) = with_opt {
            packet.extend(opt(payload, version, flags));
        }
        for (at, value) in flips {
            if let Some(byte) = packet.get_mut(at) {
                *byte = value;
            }
        }
        fuzzing::question(&packet, limit);
        fuzzing::answer(&packet);
    }

    #[test]
    fn names_survive_text_and_wire(labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..64), 0..5)) {
        let Ok(name) = Name::under(labels.iter().map(Vec::as_slice), &Name::root()) else { return Ok(()) };
        let question = QName::from_name(&name);
        prop_assert_eq!(question.as_wire(), name.as_wire());
        prop_assert_eq!(question.label_count(), labels.len());
        let message = [&[0; 12][..], name.as_wire()].concat();
        prop_assert_eq!(read_name(&message, 12).unwrap(), name);
    }
}

//! A cluster of a few objects, and questions to it as bytes, read back by another implementation of the protocol.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a panic is a failed test, and `json!` gives values"
)]

use std::sync::Arc;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use portolan_client::Key;
use portolan_dns::metrics::{Tally, Transport};
use portolan_dns::objects;
use portolan_dns::server::{Handler, Snapshot, Step};
use portolan_dns::zone::{Catalogue, Options};
use serde_json::{Value, json};

pub(crate) fn options() -> Options {
    Options::new("cluster.local").unwrap()
}

pub(crate) struct Cluster(pub Catalogue);

impl Cluster {
    pub(crate) fn new(options: Options) -> Cluster {
        let mut catalogue = Catalogue::new(options).unwrap();
        catalogue.set_namespace("default", true);
        Cluster(catalogue)
    }

    pub(crate) fn service(&mut self, name: &str, spec: Value) -> &mut Self {
        let object = json!({ "metadata": { "name": name, "namespace": "default" }, "spec": spec });
        let view = objects::service(object.to_string().as_bytes()).unwrap();
        self.0.set_service(&Key::new("default", name), Some(&Arc::new(view)));
        self
    }

    /// A slice named after its Service, with a number.
    pub(crate) fn slice(&mut self, service: &str, number: u32, endpoints: Value, ports: Value) -> &mut Self {
        let name = format!("{service}-{number}");
        let object = json!({
            "metadata": { "name": name, "namespace": "default", "labels": { "kubernetes.io/service-name": service } },
            "endpoints": endpoints, "ports": ports,
        });
        let view = objects::slice(object.to_string().as_bytes()).unwrap();
        self.0.set_slice(&Key::new("default", name), Some(&Arc::new(view)));
        self
    }

    pub(crate) fn pod(&mut self, name: &str, ip: &str) -> &mut Self {
        let object = json!({ "status": { "phase": "Running", "podIP": ip } });
        let view = objects::pod(object.to_string().as_bytes()).unwrap();
        self.0.set_pod(&Key::new("default", name), Some(&Arc::new(view)));
        self
    }

    pub(crate) fn handler(&mut self) -> Handler {
        let zone = self.0.commit(1).expect("something changed");
        let handler = Handler::new(zone.clone(), None, 1232);
        handler.set_snapshot(Snapshot { zone, synced: true });
        handler
    }

    pub(crate) fn ask(&mut self, name: &str, rtype: RecordType) -> Reply {
        // A change that no answer shows, so that there is a zone even if nothing else changed.
        let key = Key::new("for-commit", "p");
        self.0.set_pod(&key, Some(&Arc::new(objects::pod(b"{}").unwrap())));
        self.0.set_pod(&key, None);
        let handler = self.handler();
        ask(&handler, name, rtype)
    }
}

pub(crate) fn question(name: &str, rtype: RecordType) -> Vec<u8> {
    let mut message = Message::new(4_711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), rtype));
    message.to_vec().unwrap()
}

/// An answer, taken apart.
#[derive(Debug)]
pub(crate) struct Reply {
    pub message: Message,
    pub rcode: ResponseCode,
}

pub(crate) fn ask(handler: &Handler, name: &str, rtype: RecordType) -> Reply {
    let packet = question(name, rtype);
    let mut buffer = vec![0; 65_535];
    let snapshot = handler.snapshot();
    let peer = "127.0.0.1".parse().unwrap();
    match handler.handle(&snapshot, &packet, &mut buffer, Transport::Tcp, peer, &Tally::default()) {
        Step::Send(length) => Reply::read(&buffer[..length]),
        other => panic!("{name} {rtype}: {other:?}"),
    }
}

impl Reply {
    pub(crate) fn read(bytes: &[u8]) -> Reply {
        let message = Message::from_vec(bytes).expect("an answer that others can read");
        Reply { rcode: message.metadata.response_code, message }
    }

    /// The data of the answer section, sorted.
    pub(crate) fn answers(&self) -> Vec<String> {
        texts(&self.message.answers)
    }

    pub(crate) fn additional(&self) -> Vec<String> {
        texts(&self.message.additionals)
    }

    /// No such name: NXDOMAIN with the zone's SOA.
    #[track_caller]
    pub(crate) fn is_nxdomain(&self) {
        assert_eq!(self.rcode, ResponseCode::NXDomain, "{:?}", self.message);
        self.is_denial();
    }

    /// The name is there, without such records: NOERROR with the zone's SOA.
    #[track_caller]
    pub(crate) fn is_nodata(&self) {
        assert_eq!(self.rcode, ResponseCode::NoError, "{:?}", self.message);
        self.is_denial();
    }

    #[track_caller]
    fn is_denial(&self) {
        assert!(self.message.answers.is_empty(), "{:?}", self.message);
        let [soa] = &self.message.authorities[..] else { panic!("one SOA: {:?}", self.message) };
        let RData::SOA(data) = &soa.data else { panic!("a SOA: {soa}") };
        assert_eq!((soa.ttl, data.minimum), (5, 5), "a denial lasts as long as records do");
        assert!(self.message.metadata.authoritative);
    }
}

/// `owner type data` without the dots at the end, sorted.
fn texts(records: &[Record]) -> Vec<String> {
    let text = |r: &Record| format!("{} {} {} {}", r.name, r.ttl, r.record_type(), r.data).replace(". ", " ");
    let mut all: Vec<_> = records.iter().map(text).map(|t| t.trim_end_matches('.').to_owned()).collect();
    all.sort();
    all
}

//! Servers and upstreams on loopback sockets.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a panic is a failed test, and `json!` gives values"
)]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType, rdata};
use portolan_dns::metrics::Tally;
use portolan_dns::server::limit::Limiter;
use portolan_dns::server::udp::{Shared, Workers};
use portolan_dns::server::{Handler, tcp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    _workers: Workers,
    _tcp: JoinSet<()>,
}

pub(crate) async fn serve(
    handler: Arc<Handler>,
    address: &str,
    limiter: Limiter,
    limits: tcp::Limits,
) -> Server {
    let later: Arc<Tally> = Arc::default();
    let shared = Shared { handler: handler.clone(), limiter: Arc::new(limiter), later: later.clone() };
    let tallies = [Arc::default(), Arc::default()];
    let (workers, listener) = loop {
        let workers = Workers::start(address.parse().unwrap(), &shared, &tallies).unwrap();
        match TcpListener::bind(workers.address()).await {
            Ok(listener) => break (workers, listener),
            // Somebody's by TCP: another port will do.
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && address.ends_with(":0") => {}
            Err(error) => panic!("{error}"),
        }
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(tcp::serve(listener, handler, later, limits));
    let mut address = workers.address();
    if address.ip().is_unspecified() {
        address.set_ip([127, 0, 0, 1].into());
    }
    Server { address, _workers: workers, _tcp: tasks }
}

pub(crate) async fn serve_plain(handler: Handler) -> Server {
    serve(Arc::new(handler), "127.0.0.1:0", Limiter::new(&[], 0), tcp::Limits::default()).await
}

/// Runs dig against a server and gives all it prints.
pub(crate) async fn dig(server: SocketAddr, arguments: &[&str]) -> String {
    let output = tokio::process::Command::new("dig")
        .args([&format!("@{}", server.ip()), "-p", &server.port().to_string(), "+time=5", "+tries=1"])
        .args(arguments)
        .output()
        .await
        .expect("dig is installed (package bind9-dnsutils)");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A port of the loopback by UDP and by TCP: what is free by one may be somebody's by the other.
pub(crate) async fn one_port() -> (tokio::net::UdpSocket, TcpListener) {
    loop {
        let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

/// How an upstream treats one question: the messages to send.
type Behave = dyn Fn(&Message, Transport) -> Vec<Vec<u8>> + Send + Sync;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// An upstream that does as it is told, and counts.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Upstream {
    pub(crate) async fn start(
        behave: impl Fn(&Message, Transport) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Upstream {
        let behave: Arc<Behave> = Arc::new(behave);
        let (udp, tcp) = one_port().await;
        let address = udp.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let (by_udp, by_tcp, counted, counted_too) = (behave.clone(), behave, asked.clone(), asked.clone());
        tasks.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = udp.recv_from(&mut buffer).await {
                let question = Message::from_vec(&buffer[..length]).unwrap();
                count(&question, &counted);
                for answer in by_udp(&question, Transport::Udp) {
                    let _ = udp.send_to(&answer, peer).await;
                }
            }
        });
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let (behave, counted) = (by_tcp.clone(), counted_too.clone());
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut buffer = vec![0; usize::from(length)];
                        stream.read_exact(&mut buffer).await.unwrap();
                        let question = Message::from_vec(&buffer).unwrap();
                        count(&question, &counted);
                        for answer in behave(&question, Transport::Tcp) {
                            let length = answer.len() as u16;
                            let _ = stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await;
                        }
                    }
                });
            }
        });
        Upstream { address, asked, _tasks: tasks }
    }

    /// Answers every A question with one address.
    pub(crate) async fn honest(ttl: u32) -> Upstream {
        Upstream::start(move |question, _| vec![answer(question, ttl, &["192.0.2.80"]).to_vec().unwrap()])
            .await
    }

    pub(crate) fn count(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Probes for loops and health are no client's questions.
fn count(question: &Message, counter: &AtomicUsize) {
    if !matches!(question.queries[0].query_type(), RecordType::HINFO | RecordType::NS) {
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

pub(crate) fn reply_to(question: &Message) -> Message {
    let mut reply = Message::new(question.metadata.id, MessageType::Response, question.metadata.op_code);
    reply.metadata.recursion_desired = true;
    reply.metadata.recursion_available = true;
    reply.add_query(question.queries[0].clone());
    reply
}

pub(crate) fn answer(question: &Message, ttl: u32, addresses: &[&str]) -> Message {
    let mut reply = reply_to(question);
    let name = question.queries[0].name().clone();
    for address in addresses {
        let data = RData::A(rdata::A(address.parse().unwrap()));
        reply.add_answer(Record::from_rdata(name.clone(), ttl, data));
    }
    reply
}

pub(crate) fn denial(question: &Message, code: ResponseCode, minimum: u32) -> Message {
    let mut reply = reply_to(question);
    reply.metadata.response_code = code;
    let name = |text| Name::from_ascii(text).unwrap();
    let soa = rdata::SOA::new(name("ns.example."), name("host.example."), 1, 2, 3, 4, minimum);
    reply.add_authority(Record::from_rdata(name("example."), 3_600, RData::SOA(soa)));
    reply
}

/// An address where nobody listens: the port was free a moment ago.
pub(crate) fn dead() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A socket that takes everything and says nothing.
pub(crate) async fn silent() -> (SocketAddr, tokio::net::UdpSocket) {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    (socket.local_addr().unwrap(), socket)
}

/// Sends one question and waits for its answer.
pub(crate) async fn exchange(server: SocketAddr, packet: &[u8]) -> Option<Vec<u8>> {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(packet).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let length = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await.ok()?.ok()?;
    buffer.truncate(length);
    Some(buffer)
}

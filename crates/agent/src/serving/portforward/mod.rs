//! `/portForward/NAMESPACE/POD`: connections from afar to ports of a pod, in the protocol `portforward.k8s.io`. For each
//! connection the client opens two streams with one request id: data, and error for why there is none. Clients that speak
//! of ports in websocket messages are `messages`' affair.

pub(crate) mod messages;

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use http::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use portolan_client::Key;
use portolan_netlink::netns::Netns;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::spdy::{self, Connection, Gone, Input, Output, Piece, Stream};
use super::upgrade::{Protocol, common, take_over, words};
use super::{Body, Refusal, World, channels, websocket};
use crate::limits::{FORWARD_CONNECT_TIMEOUT, FORWARD_LINGER, SESSION_READ_BYTES, SPDY_STREAMS_PATIENCE};
use crate::probe::dial_error;

const PROTOCOL: &str = "portforward.k8s.io";
/// The same inside of a websocket, as kubectl asks for it since 1.31.
const TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";

pub(super) fn answer(
    world: &World,
    request: Request<Incoming>,
    key: &Key,
    uid: Option<&str>,
    wanted: Vec<u16>,
) -> Result<Response<Body>, Refusal> {
    let none = |_| Refusal::new(StatusCode::NOT_FOUND, format!("pods {:?} not found", key.name));
    let place = world.registry.place(key, uid).map_err(none)?.ok_or_else(|| {
        let text = format!("unable to forward port because pod {:?} has no running container", key.name);
        Refusal::new(StatusCode::BAD_REQUEST, text)
    })?;
    let target = Target { netns: place.netns, name: format!("{}, uid {}", key.name, place.uid) };
    match Protocol::asked(request.headers())? {
        Protocol::Spdy => {
            let protocol = common(&[PROTOCOL], &words(request.headers(), &channels::VERSION))?;
            let version = (channels::VERSION, HeaderValue::from_static(protocol));
            Ok(take_over(request, spdy::NAME, [version], |io| forward(spdy::connect(io), target)))
        }
        Protocol::Websocket => {
            let offered = words(request.headers(), &SEC_WEBSOCKET_PROTOCOL);
            let protocol = common(&[TUNNELLED, messages::PROTOCOL], &offered)?;
            if protocol == TUNNELLED {
                return websocket::accept_tunnel(request, protocol, |io| forward(spdy::connect(io), target));
            }
            if wanted.is_empty() || wanted.len() > messages::PORTS_MAX {
                let text =
                    format!("ports: from 1 to {} must be named, not {}", messages::PORTS_MAX, wanted.len());
                return Err(Refusal::new(StatusCode::BAD_REQUEST, text));
            }
            websocket::take_over(request, protocol, |socket| messages::forward(socket, wanted, target))
        }
    }
}

/// The pod whose ports are meant.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// `None`: the node's own.
    pub(super) netns: Option<Arc<Netns>>,
    pub(super) name: String,
}

/// Serves the client's connections until it goes.
async fn forward(mut connection: Connection, target: Target) {
    let mut halves: HashMap<String, (Instant, Half)> = HashMap::new();
    let mut forwarding = JoinSet::new();
    while let Some(stream) = connection.next().await {
        while forwarding.try_join_next().is_some() {}
        halves.retain(|_, (since, _)| since.elapsed() < SPDY_STREAMS_PATIENCE);
        let Some((request, half)) = Half::read(stream).await else { continue };
        match (halves.remove(&request), half) {
            (Some((_, Half::Error(error))), Half::Data { port, data })
            | (Some((_, Half::Data { port, data })), Half::Error(error)) => {
                forwarding.spawn(serve(target.clone(), port, data, error));
            }
            (_, half) => {
                halves.insert(request, (Instant::now(), half));
            }
        }
    }
    forwarding.shutdown().await;
    connection.close().await;
}

/// One of the two streams of a connection.
enum Half {
    Data { port: u16, data: Stream },
    Error(Stream),
}

impl Half {
    /// With the id that it shares with the other one. Old clients give none: there, the stream for data follows next.
    async fn read(stream: Stream) -> Option<(String, Self)> {
        let port = stream.header("port").and_then(|port| port.parse().ok()).filter(|port| *port != 0);
        let (Some(port), Some(kind)) = (port, stream.header("streamtype")) else {
            stream.refuse().await;
            return None;
        };
        let given = stream.header("requestid").map(str::to_owned);
        match kind {
            "error" => Some((given.unwrap_or_else(|| stream.id.to_string()), Self::Error(stream))),
            "data" => {
                let request = given.unwrap_or_else(|| stream.id.saturating_sub(2).to_string());
                Some((request, Self::Data { port, data: stream }))
            }
            _ => {
                stream.refuse().await;
                None
            }
        }
    }
}

/// One connection, to its end.
async fn serve(target: Target, port: u16, data: Stream, error: Stream) {
    let Stream { input, output, .. } = data;
    match connect(target.netns, port).await {
        Ok(pod) => {
            let (from, to) = pod.into_split();
            copy(input, output, from, to).await;
        }
        Err(why) => {
            let text = format!("error forwarding port {port} to pod {}: {why}", target.name);
            let _ = error.output.send(Bytes::from(text)).await;
            output.end().await;
        }
    }
    error.output.end().await;
}

/// To the pod's own loopback, as if from inside.
pub(super) async fn connect(netns: Option<Arc<Netns>>, port: u16) -> Result<TcpStream, String> {
    let dial = move || {
        let to = |address: SocketAddr| StdStream::connect_timeout(&address, FORWARD_CONNECT_TIMEOUT);
        let four = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // What IPv4 says is what users understand.
        to(four).or_else(|error| {
            to((Ipv6Addr::LOCALHOST, port).into()).map_err(|_| dial_error(&four.to_string(), &error))
        })
    };
    let dialled = tokio::task::spawn_blocking(move || match netns {
        Some(netns) => netns.run(dial).map_err(|error| error.to_string())?,
        None => dial(),
    });
    let stream = dialled.await.map_err(|error| error.to_string())??;
    let _ = stream.set_nodelay(true);
    let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
    stream.map_err(|error| error.to_string())
}

/// Both ways until both have ended; what the client still says when the pod has ended is heard for a moment only.
async fn copy(mut input: Input, output: Output, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let answers = async {
        let mut read = BytesMut::with_capacity(SESSION_READ_BYTES);
        while let Ok(1..) = from.read_buf(&mut read).await {
            output.send(read.split().freeze()).await?;
            read.reserve(SESSION_READ_BYTES);
        }
        Ok::<_, Gone>(())
    };
    let heard_all = AtomicBool::new(false);
    let asks = async {
        loop {
            match input.next().await {
                Some(Piece::Data(bytes)) if to.write_all(&bytes).await.is_ok() => {}
                Some(Piece::End) => {
                    heard_all.store(true, Ordering::Relaxed);
                    let _ = to.shutdown().await;
                }
                // The pod takes no more, or the stream was reset.
                Some(Piece::Data(_)) | None => return,
            }
        }
    };
    let (mut answers, mut asks) = (std::pin::pin!(answers), std::pin::pin!(asks));
    tokio::select! {
        answered = &mut answers => if answered.is_ok() {
            output.end().await;
            if !heard_all.load(Ordering::Relaxed) {
                let _ = tokio::time::timeout(FORWARD_LINGER, asks).await;
            }
            return;
        },
        () = &mut asks => {}
    }
    output.end().await;
}

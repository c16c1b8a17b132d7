//! One question to one upstream and its answer, by UDP or TCP.
//!
//! Each question has a socket of its own: the kernel picks the port at random, and takes packets from that upstream only.
//! With the id and the question that makes an answer hard to forge (RFC 5452). What does not fit is skipped, and the wait
//! goes on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::Ask;
use super::config::CacheConfig;
use super::stored::{Stored, Untrue};
use crate::limits::UDP_PAYLOAD_MAX;
use crate::rr::{CLASS_IN, rtype};
use crate::wire::flag;

#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("its answer is none: {0}")]
    Untrue(#[from] Untrue),
}

impl Ask {
    /// The question as a message.
    pub(super) fn message(&self, id: u16) -> Vec<u8> {
        let mut flags = 0;
        if self.recursion_desired {
            flags |= flag::RECURSION_DESIRED;
        }
        if self.checking_disabled {
            flags |= flag::CHECKING_DISABLED;
        }
        let mut message = Vec::with_capacity(self.name.as_wire().len() + 32);
        for word in [id, flags, 1, 0, 0, 1] {
            message.extend(word.to_be_bytes());
        }
        message.extend(self.name.as_wire());
        for word in [self.rtype, CLASS_IN] {
            message.extend(word.to_be_bytes());
        }
        let payload = UDP_PAYLOAD_MAX.to_be_bytes();
        let dnssec = if self.dnssec_ok { 0x80 } else { 0 };
        message.extend([0, 0, rtype::OPT as u8, payload[0], payload[1], 0, 0, dnssec, 0, 0, 0]);
        message
    }
}

/// Asks by UDP, and by TCP if the answer does not fit. Waits for ever: the caller sets the time.
pub(super) async fn exchange(
    upstream: SocketAddr,
    ask: &Ask,
    tcp: bool,
    config: &CacheConfig,
) -> Result<Arc<Stored>, ExchangeError> {
    if !tcp {
        let stored = by_udp(upstream, ask, config).await?;
        if !stored.is_truncated() {
            return Ok(Arc::new(stored));
        }
    }
    Ok(Arc::new(by_tcp(upstream, ask, config).await?))
}

async fn by_udp(upstream: SocketAddr, ask: &Ask, config: &CacheConfig) -> Result<Stored, ExchangeError> {
    let any: SocketAddr = if upstream.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    let id = rand::random();
    socket.send(&ask.message(id)).await?;
    let mut buffer = [0; 4_096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match Stored::read(&buffer[..length], id, ask, Instant::now(), config) {
            Ok(stored) => return Ok(stored),
            // Somebody guesses, or an old answer is late.
            Err(error) => tracing::debug!(%upstream, %error, "skipped a packet from an upstream"),
        }
    }
}

async fn by_tcp(upstream: SocketAddr, ask: &Ask, config: &CacheConfig) -> Result<Stored, ExchangeError> {
    let mut stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let id = rand::random();
    let question = ask.message(id);
    let length = question.len() as u16;
    stream.write_all(&[&length.to_be_bytes()[..], &question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(Stored::read(&answer, id, ask, Instant::now(), config)?)
}

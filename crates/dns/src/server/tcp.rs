//! TCP: messages with their length in front (RFC 7766). Questions of one connection are answered as they get ready, in
//! any order; a slow or silent client holds nothing but its own connection.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::{Handler, Step};
use crate::limits::{
    MESSAGE_MAX, TCP_CONNECTIONS_MAX, TCP_CONNECTIONS_PER_SOURCE_MAX, TCP_IDLE, TCP_PIPELINE_MAX, TCP_WRITE,
};
use crate::metrics::{Tally, Transport};

/// Out of file descriptors, as a rule: let some go first.
const AGAIN: Duration = Duration::from_millis(50);

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub connections: usize,
    pub per_source: usize,
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: TCP_CONNECTIONS_MAX,
            per_source: TCP_CONNECTIONS_PER_SOURCE_MAX,
            idle: TCP_IDLE,
        }
    }
}

/// Serves until dropped.
pub async fn serve(listener: TcpListener, handler: Arc<Handler>, tally: Arc<Tally>, limits: Limits) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let sources = Arc::new(Sources::default());
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a DNS connection");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let ip = peer.ip().to_canonical();
        // Too many: closed at once, which clients understand better than silence.
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let Some(source) = Sources::enter(&sources, ip, limits.per_source) else { continue };
        let connection =
            Connection { handler: handler.clone(), tally: tally.clone(), peer, idle: limits.idle };
        connections.spawn(async move {
            let _held: (OwnedSemaphorePermit, Entered) = (slot, source);
            // A client that breaks off is its own affair.
            _ = connection.run(stream).await;
        });
    }
}

/// Connections by source.
#[derive(Debug, Default)]
struct Sources(Mutex<HashMap<IpAddr, usize>>);

/// Holds one connection's place.
struct Entered {
    sources: Arc<Sources>,
    ip: IpAddr,
}

impl Sources {
    fn enter(sources: &Arc<Sources>, ip: IpAddr, most: usize) -> Option<Entered> {
        let mut counts = sources.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(ip).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Entered { sources: sources.clone(), ip })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut counts = self.sources.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.ip);
            }
        }
    }
}

struct Connection {
    handler: Arc<Handler>,
    tally: Arc<Tally>,
    peer: SocketAddr,
    idle: Duration,
}

impl Connection {
    async fn run(self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let (answers, to_write) = mpsc::channel(TCP_PIPELINE_MAX);
        let writer = tokio::spawn(write_all(write, to_write));
        let result = self.read_all(read, answers).await;
        // The last answers are written before the connection closes.
        _ = writer.await;
        result
    }

    async fn read_all(&self, read: OwnedReadHalf, answers: mpsc::Sender<Vec<u8>>) -> io::Result<()> {
        let mut read = BufReader::new(read);
        let places = Arc::new(Semaphore::new(TCP_PIPELINE_MAX));
        let mut waiting = JoinSet::new();
        let (mut packet, mut buffer) = (Vec::new(), vec![0; MESSAGE_MAX]);
        loop {
            while waiting.try_join_next().is_some() {}
            match tokio::time::timeout(self.idle, read_message(&mut read, &mut packet)).await {
                Ok(Ok(true)) => {}
                // Closed, broken off, or silent for too long. Answers still under way are waited for.
                Ok(Ok(false)) | Err(_) => break,
                Ok(Err(error)) => return Err(error),
            }
            let begin = Instant::now();
            let step = {
                let snapshot = self.handler.snapshot();
                let ip = self.peer.ip().to_canonical();
                self.handler.handle(&snapshot, &packet, &mut buffer, Transport::Tcp, ip, &self.tally)
            };
            match step {
                Step::Send(length) => {
                    self.tally.durations(Transport::Tcp, begin.elapsed(), 1);
                    if answers.send(framed(&buffer[..length])).await.is_err() {
                        break;
                    }
                }
                // What is no question over TCP is no DNS client.
                Step::Nothing => break,
                Step::Later(pending) => {
                    let Ok(place) = places.clone().acquire_owned().await else { break };
                    let (handler, tally, answers) =
                        (self.handler.clone(), self.tally.clone(), answers.clone());
                    waiting.spawn(async move {
                        let _place = place;
                        let answer = handler.finish(pending, &tally).await;
                        tally.durations(Transport::Tcp, begin.elapsed(), 1);
                        if !answer.is_empty() {
                            _ = answers.send(framed(&answer)).await;
                        }
                    });
                }
            }
        }
        while waiting.join_next().await.is_some() {}
        Ok(())
    }
}

/// One message into `packet`. `false`: the other side has closed.
async fn read_message(read: &mut BufReader<OwnedReadHalf>, packet: &mut Vec<u8>) -> io::Result<bool> {
    let length = match read.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    };
    packet.resize(length, 0);
    read.read_exact(packet).await?;
    Ok(true)
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = message.len() as u16;
    [&length.to_be_bytes(), message].concat()
}

async fn write_all(mut write: OwnedWriteHalf, mut answers: mpsc::Receiver<Vec<u8>>) {
    let mut together = Vec::new();
    while let Some(first) = answers.recv().await {
        together.clear();
        together.extend_from_slice(&first);
        while let Ok(next) = answers.try_recv() {
            together.extend_from_slice(&next);
        }
        match tokio::time::timeout(TCP_WRITE, write.write_all(&together)).await {
            Ok(Ok(())) => {}
            // The receiver goes with this task, so the reading side ends as well.
            _ => return,
        }
    }
}

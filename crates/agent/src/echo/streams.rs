//! The TCP and UDP answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::Shared;

/// After a failed accept (no descriptors left): give connections time to end.
const ACCEPT_RETRY: Duration = Duration::from_millis(10);
const DATAGRAM_MAX: usize = 64 << 10;
const COPY_BUFFER: usize = 4 << 10;

/// The next connection, whatever it takes.
pub(super) async fn accept(listener: &TcpListener) -> (TcpStream, std::net::SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // The peer may be gone already; reading will tell.
                let _ = stream.set_nodelay(true);
                return (stream, peer);
            }
            Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
        }
    }
}

pub(super) async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (mut stream, peer) = accept(&listener).await;
        let shared = shared.clone();
        tokio::spawn(async move {
            let line = shared.identity.line(peer).to_string();
            if stream.write_all(line.as_bytes()).await.is_err() {
                return;
            }
            let mut buffer = vec![0; COPY_BUFFER];
            while let Ok(len @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..len]).await.is_err() {
                    return;
                }
            }
        });
    }
}

pub(super) async fn serve_udp(socket: UdpSocket, shared: Arc<Shared>) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        // An error here is about an earlier answer that nobody took.
        let Ok((_, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let line = shared.identity.line(peer).to_string();
        let _ = socket.send_to(line.as_bytes(), peer).await;
    }
}

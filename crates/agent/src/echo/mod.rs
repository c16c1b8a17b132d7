//! The built-in image `portolan.dev/echo`: answers over HTTP, TCP and UDP with its pod's name and address and with the
//! peer it sees. For demonstrations, tests and benchmarks: it shows who answered, and how the caller looked from there.
//!
//! ```text
//! portolan echo [--http PORT]... [--tcp PORT]... [--udp PORT]...     default: --http 8080
//! portolan echo --set-ready true|false [--http PORT]                 flips the switch of the one that runs here
//! ```
//!
//! - HTTP: JSON with `name`, `namespace`, `ip`, `node`, `peer`, `local`, `method`, `path`; one line of text with
//!   `?format=text` or `Accept: text/plain`. `/ready` answers 200 or 503; `POST /ready?value=false` flips it.
//!   `/sleep?ms=N` answers later, `/exit?code=N` ends the process.
//! - TCP: one line `name=... ip=... peer=...`, then everything that comes back as it came.
//! - UDP: each datagram is answered with one such line.
//!
//! A pod can be made unready by hand in three ways: `POST /ready?value=false`, the same as a command inside the pod
//! (`portolan echo --set-ready false`), or a file: while the one named by `ECHO_READY_FILE` begins with `false`, `/ready`
//! answers 503.
//!
//! Who it is comes from the environment: `POD_NAME`, `POD_NAMESPACE`, `POD_IP`, `NODE_NAME`; the agent sets them.
//! One thread serves everything.

mod http;
mod options;
mod streams;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use options::Options;
use tokio::net::{TcpListener, TcpSocket, UdpSocket};

/// Connections that wait to be accepted: benchmarks open thousands at once. The kernel's own limit still holds.
const BACKLOG: u32 = 16 << 10;

/// Who answers.
#[derive(Debug, Clone, Default)]
struct Identity {
    name: String,
    namespace: String,
    ip: String,
    node: String,
}

impl Identity {
    fn from_env() -> Self {
        let var = |name| std::env::var(name).unwrap_or_default();
        let name = var("POD_NAME");
        Self {
            name: if name.is_empty() { var("HOSTNAME") } else { name },
            namespace: var("POD_NAMESPACE"),
            ip: var("POD_IP"),
            node: var("NODE_NAME"),
        }
    }

    /// The line that TCP and UDP answer.
    fn line(&self, peer: SocketAddr) -> impl fmt::Display + '_ {
        struct Line<'a>(&'a Identity, SocketAddr);
        impl fmt::Display for Line<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                writeln!(f, "name={} ip={} peer={}", self.0.name, self.0.ip, self.1)
            }
        }
        Line(self, canonical(peer))
    }
}

/// A caller by IPv4 looks like one, although the socket takes both families.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    identity: Identity,
    ready: AtomicBool,
    ready_file: Option<PathBuf>,
}

impl Shared {
    fn is_ready(&self) -> bool {
        let by_file = self.ready_file.as_ref().and_then(|path| std::fs::read(path).ok());
        self.ready.load(Ordering::Relaxed)
            && !by_file.is_some_and(|text| text.trim_ascii_start().starts_with(b"false"))
    }
}

/// Serves until the process is ended (TERM ends it at once, with exit code 0).
pub fn run(options: &Options) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if let Some(value) = options.set_ready {
            return http::set_ready(options.http_or_default()[0], value).await;
        }
        let shared = Arc::new(Shared {
            identity: Identity::from_env(),
            ready: AtomicBool::new(true),
            ready_file: std::env::var_os("ECHO_READY_FILE").map(PathBuf::from),
        });
        serve(options, &shared).await?;
        terminated().await
    })
}

/// Opens every port, then serves each in a task.
async fn serve(options: &Options, shared: &Arc<Shared>) -> io::Result<()> {
    for port in options.http_or_default() {
        tokio::spawn(http::serve(listen(port)?, shared.clone()));
    }
    for port in &options.tcp {
        tokio::spawn(streams::serve_tcp(listen(*port)?, shared.clone()));
    }
    for port in &options.udp {
        tokio::spawn(streams::serve_udp(datagrams(*port).await?, shared.clone()));
    }
    Ok(())
}

async fn terminated() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! { _ = term.recv() => {} _ = int.recv() => {} }
    Ok(())
}

fn cannot_listen(protocol: &str, port: u16) -> impl Fn(io::Error) -> io::Error {
    move |e| io::Error::new(e.kind(), format!("cannot listen on {protocol} port {port}: {e}"))
}

/// Both families by one socket; IPv4 alone where the kernel has no IPv6.
fn listen(port: u16) -> io::Result<TcpListener> {
    let open = |address: SocketAddr| {
        let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open((Ipv6Addr::UNSPECIFIED, port).into())
        .or_else(|_| open((Ipv4Addr::UNSPECIFIED, port).into()))
        .map_err(cannot_listen("TCP", port))
}

async fn datagrams(port: u16) -> io::Result<UdpSocket> {
    match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(socket) => Ok(socket),
        Err(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).await.map_err(cannot_listen("UDP", port)),
    }
}

#[cfg(test)]
mod tests;

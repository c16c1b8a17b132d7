//! One proxy per node: two would undo each other's work.
//!
//! The lock is a unix socket with an abstract name. Such names belong to the network namespace, as our rules do, and go
//! with the process that holds them, however it ends.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

const NAME: &str = "portolan-proxy";
/// One that is just ending, as in an update, is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// Held for as long as the proxy runs.
#[derive(Debug)]
pub(crate) struct Lock {
    _listener: Option<UnixListener>,
}

/// Who holds the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The number of its process; absent when it runs in a container whose processes we do not see.
    pub pid: Option<i32>,
    root: bool,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("a process in another container"),
        }
    }
}

impl Lock {
    /// Takes the lock of the caller's network namespace, or says who holds it.
    pub(crate) async fn take() -> Result<Self, Holder> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let error = match name().and_then(|name| UnixListener::bind_addr(&name)) {
                Ok(listener) => return Ok(Self { _listener: Some(listener) }),
                Err(error) => error,
            };
            let taken = error.kind() == io::ErrorKind::AddrInUse;
            let holder = if taken { holder().await } else { None };
            match holder {
                Some(holder) if holder.root && Instant::now() >= deadline => return Err(holder),
                Some(Holder { root: true, .. }) => {}
                // Anybody may bind the name; only root could be a proxy. It must not keep us from working.
                Some(holder) => {
                    tracing::warn!(%holder, "somebody without privileges holds the name of the proxy's lock; running without it");
                    return Ok(Self { _listener: None });
                }
                None if taken && Instant::now() < deadline => {}
                None => {
                    tracing::warn!(%error, "cannot take the lock that keeps two proxies apart; running without it");
                    return Ok(Self { _listener: None });
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The proxy that runs in the caller's network namespace, if one does.
pub async fn holder() -> Option<Holder> {
    let stream = UnixStream::connect_addr(&name().ok()?).ok()?;
    stream.set_nonblocking(true).ok()?;
    let peer = tokio::net::UnixStream::from_std(stream).ok()?.peer_cred().ok()?;
    Some(Holder { pid: peer.pid().filter(|pid| *pid > 0), root: peer.uid() == 0 })
}

fn name() -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(NAME)
}

//! New TCP connections, as many as two threads can make one after the other.

use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portolan_netlink::netns::Netns;

const CLIENTS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections of one side of one round, at most: their places in the connection table last for a second.
const CONNECTIONS_MAX: u64 = 60_000;

/// Accepts and closes, for as long as the process lives.
pub(crate) fn serve(netns: &Netns, address: SocketAddr) -> anyhow::Result<()> {
    let listener = netns.run(|| TcpListener::bind(address))??;
    for _ in 0..CLIENTS {
        let listener = listener.try_clone()?;
        std::thread::spawn(move || listener.incoming().for_each(drop));
    }
    Ok(())
}

/// Connections per second from a namespace to one address, over so long a time. Every one must succeed.
pub(crate) fn connect(from: &Netns, to: SocketAddr, time: Duration) -> anyhow::Result<f64> {
    let (made, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let begin = Instant::now();
    let client = || -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            one(to)?;
            let all = made.fetch_add(1, Ordering::Relaxed) + 1;
            if all >= CONNECTIONS_MAX || begin.elapsed() >= time {
                stop.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    };
    let results: Vec<io::Result<()>> = from.run(|| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            let lost = |_| Err(io::Error::other("a client panicked"));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(lost)).collect()
        })
    })?;
    let took = begin.elapsed();
    results.into_iter().collect::<io::Result<()>>()?;
    Ok(made.into_inner() as f64 / took.as_secs_f64())
}

/// Waits until the server has closed, or its queue would overflow; ends by a reset, so that neither side keeps the port
/// in TIME-WAIT.
fn one(to: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    if stream.read(&mut [0])? > 0 {
        return Err(io::Error::other("the server says nothing"));
    }
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    Ok(())
}

//! Asking for an answer from inside a namespace: one connection, one outcome, with the time it took.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use portolan_netlink::netns::Netns;

use crate::error::LabError;

/// Long enough for a packet to come back on one machine, even a busy one.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The whole answer, as text.
    Text(String),
    /// TCP reset, or ICMP port unreachable.
    Refused,
    /// No route, or ICMP host or network unreachable.
    Unreachable,
    /// Nothing came back in time.
    Silence,
    Failed(String),
}

impl Answer {
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn of(result: io::Result<String>) -> Self {
        let error = match result {
            Ok(text) => return Self::Text(text),
            Err(error) => error,
        };
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Self::Refused,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::Silence,
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Sends one HTTP/1.1 GET; gives the body.
pub fn http_get(from: &Netns, to: SocketAddr, path: &str) -> Result<Answer, LabError> {
    Ok(from.run(|| Answer::of(get(to, "GET", path)))?)
}

/// Sends one HTTP/1.1 POST without a body.
pub fn http_post(from: &Netns, to: SocketAddr, path: &str) -> Result<Answer, LabError> {
    Ok(from.run(|| Answer::of(get(to, "POST", path)))?)
}

/// Connects and reads what the other side says first.
pub fn tcp_line(from: &Netns, to: SocketAddr) -> Result<Answer, LabError> {
    let ask = || {
        let mut stream = connect(to)?;
        read_line(&mut stream)
    };
    Ok(from.run(|| Answer::of(ask()))?)
}

/// Sends one datagram and waits for one.
pub fn udp_ask(from: &Netns, to: SocketAddr) -> Result<Answer, LabError> {
    Ok(from.run(|| Answer::of(datagram(to)))?)
}

/// Asks again, without pause, until the answer satisfies or the patience ends; gives the last answer and the time.
pub fn until(
    mut ask: impl FnMut() -> Result<Answer, LabError>,
    mut satisfies: impl FnMut(&Answer) -> bool,
    patience: Duration,
) -> Result<(Answer, Duration), LabError> {
    let begin = Instant::now();
    loop {
        let answer = ask()?;
        if satisfies(&answer) || begin.elapsed() > patience {
            return Ok((answer, begin.elapsed()));
        }
        // Two cores: leave something to those who are to make it true.
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn get(to: SocketAddr, method: &str, path: &str) -> io::Result<String> {
    let mut stream = connect(to)?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((_, body)) => Ok(body.to_owned()),
        None => Err(io::Error::other("the answer is not HTTP")),
    }
}

fn read_line(stream: &mut TcpStream) -> io::Result<String> {
    let mut line = String::new();
    io::BufRead::read_line(&mut io::BufReader::new(stream), &mut line)?;
    Ok(line)
}

fn datagram(to: SocketAddr) -> io::Result<String> {
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to)?;
    socket.send(b"who is there?\n")?;
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

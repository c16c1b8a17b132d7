//! Connections that the API server opens to others: to node agents, and to what it is a proxy for.
//!
//! One connection per request. Errors are texts in the words of Go's `net`, which clients know from Kubernetes.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use portolan_api::status;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::errors::ApiError;
use crate::limits::PROXY_HEAD_BYTES_MAX;

/// The body of a request that is sent.
pub(crate) type Outgoing = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// It is not known whom to ask.
    Nobody(ApiError),
    /// There is no connection.
    Dial(String),
    /// The connection ended, or what came over it is no answer.
    Answer(String),
}

impl Failed {
    /// What the client of a session is told, whose connection nobody took over.
    pub(crate) fn of_session(self) -> ApiError {
        match self {
            Self::Nobody(error) => error,
            Self::Dial(why) => status::untyped(format!("error dialing backend: {why}")).into(),
            Self::Answer(why) => status::untyped(why).into(),
        }
    }

    /// What the client of a proxy is told.
    pub(crate) fn of_service(self) -> ApiError {
        match self {
            Self::Nobody(error) => error,
            Self::Dial(why) | Self::Answer(why) => {
                status::unavailable(format!("error trying to reach service: {why}")).into()
            }
        }
    }
}

/// No body.
pub(crate) fn empty() -> Outgoing {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A connection.
pub(crate) async fn dial(address: SocketAddr, within: Duration) -> Result<TcpStream, Failed> {
    let why = match timeout(within, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            let _ = stream.set_nodelay(true);
            return Ok(stream);
        }
        Ok(Err(error)) => format!("connect: {}", plain(&error)),
        Err(_) => "i/o timeout".to_owned(),
    };
    Err(Failed::Dial(format!("dial tcp {address}: {why}")))
}

/// Without the number, which nobody reads.
fn plain(error: &io::Error) -> String {
    error.to_string().split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// Sends one request over `stream`, which ends with the answer or becomes what the two agree on.
pub(crate) async fn send<S>(stream: S, request: Request<Outgoing>) -> Result<Response<Incoming>, Failed>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    // Some servers know headers by their usual spelling only.
    builder.title_case_headers(true).max_buf_size(PROXY_HEAD_BYTES_MAX);
    let shaken = builder.handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| why(&error))?;
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await.map_err(|error| why(&error))
}

fn why(error: &hyper::Error) -> Failed {
    let source = || error.source().map_or_else(|| error.to_string(), ToString::to_string);
    Failed::Answer(if error.is_incomplete_message() { "EOF".to_owned() } else { source() })
}

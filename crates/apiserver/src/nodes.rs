//! The way to node agents: which pod is where, and a connection to its node that only an API server gets.
//!
//! Agents are reached at the address and port that their Node object names, and must show a certificate of the cluster's
//! authority for the node's own name: nobody else who answers there sees what a user types. Start at [`request`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use portolan_api::core::v1::Node;
use portolan_api::resource::NODES;
use portolan_api::status;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::errors::{ApiError, Result};
use crate::limits::NODE_CONNECT_TIMEOUT;
use crate::server::ApiServer;
use crate::write::At;

/// Asks the agent of node `name`. The connection is the request's own and ends with its answer.
pub(crate) async fn request(
    server: &Arc<ApiServer>,
    name: &str,
    mut request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>> {
    let address = address(server, name).await?;
    let host = HeaderValue::from_str(&address.to_string()).map_err(status::internal_error)?;
    request.headers_mut().insert(HOST, host);
    let url = format!("https://{address}{}", request.uri().path());
    let failed = |why: String| ApiError::from(status::internal_error(format!("{} {url:?}: {why}", "Get")));
    let connecting = connect(server, name, address);
    let stream = timeout(NODE_CONNECT_TIMEOUT, connecting).await;
    let stream = stream.unwrap_or_else(|_| Err("the node does not answer".into())).map_err(failed)?;
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|e| failed(e.to_string()))?;
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await.map_err(|e| failed(e.to_string()))
}

type Stream = tokio_rustls::client::TlsStream<TcpStream>;

async fn connect(
    server: &Arc<ApiServer>,
    name: &str,
    address: SocketAddr,
) -> std::result::Result<Stream, String> {
    let tls = server.config().node_tls.clone();
    let tls = tls.ok_or("this API server has no certificate that nodes know it by")?;
    let owner = ServerName::try_from(name.to_owned()).map_err(|e| e.to_string())?;
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|e| format!("dial tcp {address}: connect: {}", plain(&e)))?;
    let _ = stream.set_nodelay(true);
    TlsConnector::from(tls).connect(owner, stream).await.map_err(|e| format!("tls: {e}"))
}

/// Without the number, which nobody reads.
fn plain(error: &std::io::Error) -> String {
    error.to_string().split(" (os error").next().unwrap_or_default().to_lowercase()
}

async fn address(server: &Arc<ApiServer>, name: &str) -> Result<SocketAddr> {
    let kv = server.fetch(At { resource: &NODES, namespace: "", name }).await?;
    let node: Node = serde_json::from_slice(&kv.value).map_err(status::internal_error)?;
    let port = node.status.daemon_endpoints.kubelet_endpoint.port;
    let port = u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| {
        let text =
            format!("node {name:?} serves neither logs nor sessions: its Node object names no kubelet port");
        ApiError::from(status::internal_error(text))
    })?;
    let mut internal = node.status.addresses.iter().filter(|address| address.type_ == "InternalIP");
    let ip: Option<IpAddr> = internal.find_map(|address| address.address.parse().ok());
    let ip = ip.ok_or_else(|| {
        ApiError::from(status::internal_error(format!("no preferred addresses found for node {name:?}")))
    })?;
    Ok(SocketAddr::new(ip, port))
}

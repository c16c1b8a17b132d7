//! The way to node agents: which pod is where, and a connection to its node that only an API server gets.
//!
//! Agents are reached at the address and port that their Node object names, and must show a certificate of the cluster's
//! authority for the node's own name: nobody else who answers there sees what a user types. Start at [`request`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::HOST;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use portolan_api::core::v1::Node;
use portolan_api::resource::NODES;
use portolan_api::status;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::errors::{ApiError, Result};
use crate::limits::NODE_CONNECT_TIMEOUT;
use crate::outbound::{self, Failed, Outgoing};
use crate::server::ApiServer;
use crate::write::At;

/// Asks the agent at `address` of node `name`. The connection is the request's own and ends with its answer.
pub(crate) async fn request(
    server: &Arc<ApiServer>,
    name: &str,
    address: SocketAddr,
    mut request: Request<Outgoing>,
) -> std::result::Result<Response<Incoming>, Failed> {
    let host = HeaderValue::from_str(&address.to_string());
    let host = host.map_err(|error| Failed::Nobody(status::internal_error(error).into()))?;
    request.headers_mut().insert(HOST, host);
    let stream = timeout(NODE_CONNECT_TIMEOUT, connect(server, name, address)).await;
    let stream = stream.unwrap_or_else(|_| Err(Failed::Dial("the node does not answer".into())))?;
    outbound::send(stream, request).await
}

type Stream = tokio_rustls::client::TlsStream<TcpStream>;

async fn connect(
    server: &Arc<ApiServer>,
    name: &str,
    address: SocketAddr,
) -> std::result::Result<Stream, Failed> {
    let tls = server.config().node_tls.clone();
    let none = "this API server has no certificate that nodes know it by";
    let tls = tls.ok_or_else(|| Failed::Dial(none.into()))?;
    let owner = ServerName::try_from(name.to_owned()).map_err(|e| Failed::Dial(e.to_string()))?;
    let stream = outbound::dial(address, NODE_CONNECT_TIMEOUT).await?;
    TlsConnector::from(tls).connect(owner, stream).await.map_err(|e| Failed::Dial(format!("tls: {e}")))
}

/// Where the agent of node `name` is, if the node says so.
pub(crate) async fn address(server: &Arc<ApiServer>, name: &str) -> Result<SocketAddr> {
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

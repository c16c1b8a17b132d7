//! `kubectl proxy`: the API without TLS and credentials, for clients of the tests' own.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use portolan_lab::Host;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::bed::{Bed, PATIENCE};

/// How a websocket is asked for, with the key of RFC 6455 section 1.3.
pub(crate) const WEBSOCKET: &[(&str, &str)] = &[
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// `kubectl proxy`, and a client of it on the same host.
pub(crate) struct Gate<'a> {
    bed: &'a Bed,
    child: Child,
    port: u16,
}

pub(crate) struct Reply {
    pub(crate) code: StatusCode,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    /// A refusal's code and message.
    pub(crate) fn refusal(&self) -> (u16, String) {
        let status = self.json();
        assert_eq!(status["kind"], "Status", "{status}");
        (self.code.as_u16(), status["message"].as_str().unwrap().to_owned())
    }
}

impl<'a> Gate<'a> {
    pub(crate) fn open(bed: &'a Bed, more: &[&str]) -> Self {
        let mut command = bed.kubectl().command(&[&["proxy", "--port=0"], more].concat());
        command.stdout(Stdio::piped());
        let mut child = bed.lab.host(Host::ControlPlane).unwrap().run(|| command.spawn()).unwrap().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        // Starting to serve on 127.0.0.1:40001
        let port = line.trim().rsplit(':').next().unwrap().parse().unwrap_or_else(|_| panic!("{line:?}"));
        Self { bed, child, port }
    }

    /// Runs a client on the control plane's host.
    pub(crate) fn run<T: Send>(&self, client: impl Future<Output = T> + Send) -> T {
        let work = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime
                .block_on(async { tokio::time::timeout(PATIENCE, client).await.expect("an answer in time") })
        };
        self.bed.lab.host(Host::ControlPlane).unwrap().run(work).unwrap()
    }

    pub(crate) async fn begin(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Response<Incoming> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        sender.send_request(request.body(Full::new(body)).unwrap()).await.unwrap()
    }

    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let body = body.into();
        self.run(async {
            let (parts, body) = self.begin(method, path, headers, body).await.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Reply { code: parts.status, headers: parts.headers, body }
        })
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], "")
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The subresource `proxy`: through the real kubectl, and through `kubectl proxy` with an HTTP client of its own, to real
//! servers in pods of another host. The two conformance tests "Proxy" are covered here.

use std::time::Instant;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::bed::{Bed, PATIENCE};
use crate::gate::{Gate, WEBSOCKET};

/// Serves HTTP on 8080 and, with a certificate that nobody vouches for, on 8443; tells what it was asked.
const PORTER: &str = r#"---
apiVersion: v1
kind: Pod
metadata: {name: porter, labels: {app: porter}}
spec:
  nodeName: node-2
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: portolan.dev/host
    ports: [{name: http, containerPort: 8080}, {name: tls, containerPort: 8443}]
    readinessProbe: {httpGet: {path: /, port: tls, scheme: HTTPS}, periodSeconds: 1}
    command:
    - /usr/bin/python3
    - -c
    - |
      import base64, hashlib, http.server, json, ssl, subprocess, tempfile, threading, time
      from urllib.parse import urlsplit, parse_qs

      go = threading.Event()
      here, gone = set(), set()

      class Porter(http.server.BaseHTTPRequestHandler):
          protocol_version = "HTTP/1.1"

          def read(self):
              if self.headers.get("Transfer-Encoding") != "chunked":
                  return self.rfile.read(int(self.headers.get("Content-Length", 0)))
              body = b""
              while size := int(self.rfile.readline(), 16):
                  body += self.rfile.read(size)
                  self.rfile.readline()
              self.rfile.readline()
              return body

          def head(self, code, headers):
              self.send_response(code)
              for name, value in headers.items():
                  self.send_header(name, value)
              self.end_headers()

          def chunk(self, data):
              self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

          def answer(self):
              at = urlsplit(self.path)
              asked = {name: values[0] for name, values in parse_qs(at.query).items()}
              if at.path == "/ws" and "Upgrade" in self.headers:
                  return self.websocket()
              if at.path == "/no" and "Upgrade" in self.headers:
                  self.head(403, {"Content-Length": 6, "X-Why": "closed"})
                  return self.wfile.write(b"not so")
              body = self.read()
              if at.path == "/redirect":
                  return self.head(302, {"Location": asked["to"], "Content-Length": 0})
              if at.path == "/cut":
                  self.head(200, {"Transfer-Encoding": "chunked"})
                  self.chunk(b"begun")
                  self.close_connection = True
                  return
              if at.path == "/drip":
                  self.head(200, {"Transfer-Encoding": "chunked"})
                  self.chunk(b"one\n")
                  go.wait(60)
                  self.chunk(b"two\n")
                  return self.chunk(b"")
              if at.path == "/silent":
                  here.add("silent")
                  if self.connection.recv(1) == b"":
                      gone.add("silent")
                  self.close_connection = True
                  return
              if at.path == "/endless":
                  self.head(200, {"Transfer-Encoding": "chunked"})
                  try:
                      while True:
                          self.chunk(b"more")
                          time.sleep(0.02)
                  except OSError:
                      gone.add("endless")
                  self.close_connection = True
                  return
              if at.path in ["/here", "/gone"]:
                  told = " ".join(sorted(here if at.path == "/here" else gone)).encode()
                  self.head(200, {"Content-Length": len(told)})
                  return self.wfile.write(told)
              if at.path == "/go":
                  go.set()
              if at.path == "/echo":
                  self.head(201, {"Content-Length": len(body), "Access-Control-Allow-Origin": "*"})
                  return self.wfile.write(body)
              headers = {name.lower(): value for name, value in self.headers.items()}
              told = {"method": self.command, "path": self.path, "headers": headers, "body": len(body)}
              told = json.dumps(told).encode()
              self.head(200, {"Content-Type": "application/json", "Content-Length": len(told)})
              if self.command != "HEAD":
                  self.wfile.write(told)

          do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = answer

          def websocket(self):
              key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
              accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
              self.head(101, {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept})
              self.close_connection = True
              first = self.path.encode()
              self.wfile.write(bytes([0x81, len(first)]) + first)
              while len(head := self.rfile.read(2)) == 2:
                  mask = self.rfile.read(4)
                  data = self.rfile.read(head[1] & 127)
                  data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
                  self.wfile.write(bytes([head[0], len(data)]) + data)

      class Server(http.server.ThreadingHTTPServer):
          daemon_threads = True

      with tempfile.TemporaryDirectory() as directory:
          subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=elsewhere", "-keyout",
              directory + "/key", "-out", directory + "/crt"], check=True, capture_output=True)
          context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
          context.load_cert_chain(directory + "/crt", directory + "/key")
      tls = Server(("", 8443), Porter)
      tls.socket = context.wrap_socket(tls.socket, server_side=True)
      threading.Thread(target=tls.serve_forever).start()
      Server(("", 8080), Porter).serve_forever()
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: porter}
  ports:
  - {name: http, port: 80, targetPort: http}
  - {name: tls, port: 443, targetPort: 8443}
---
apiVersion: v1
kind: Service
metadata: {name: plain}
spec:
  selector: {app: porter}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere}
spec:
  ports: [{port: 80}]
---
apiVersion: v1
kind: Endpoints
metadata: {name: elsewhere}
subsets: [{addresses: [{ip: 10.0.0.206}], ports: [{port: 80}]}]
"#;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn porter() -> Bed {
    let bed = Bed::up(2);
    bed.apply(PORTER);
    bed.wait_ready("app=porter");
    for service in ["web", "plain"] {
        bed.until_field(&format!("endpoints {service}"), "{.subsets[*].addresses[*].ip}", |ip| {
            !ip.is_empty()
        });
    }
    bed
}

#[test]
fn services_and_pods_are_reached_by_every_name_and_method() {
    let bed = porter();
    let raw = |path: &str| -> Value { serde_json::from_str(&bed.run(&["get", "--raw", path])).unwrap() };
    for name in
        ["web:80", "web:http", "http:web:80", "http:web:http", "https:web:443", "https:web:tls", "plain"]
    {
        let told = raw(&format!("{SERVICES}/{name}/proxy/some/path?a=b&path=x"));
        assert_eq!(told["path"], "/some/path?a=b&path=x", "{name}");
    }
    for name in ["porter", "porter:8080", "http:porter:8080", "https:porter:8443"] {
        assert_eq!(raw(&format!("{PODS}/{name}/proxy/"))["path"], "/", "{name}");
    }
    let made =
        bed.kubectl().output(&["create", "--raw", &format!("{SERVICES}/web:80/proxy/x"), "-f", "-"], "12345");
    let made: Value = serde_json::from_slice(&made.unwrap().stdout).unwrap();
    assert_eq!((&made["method"], &made["body"]), (&"POST".into(), &5.into()));

    let gate = Gate::open(&bed, &[]);
    for place in [format!("{SERVICES}/web:http/proxy"), format!("{PODS}/porter:8080/proxy")] {
        // "A set of valid responses are returned for both pod and service Proxy".
        for method in ["DELETE", "OPTIONS", "PATCH", "POST", "PUT"] {
            let reply = gate.ask(method, &format!("{place}?method={method}"), &[], "");
            assert_eq!(reply.code, 200, "{method}");
            let told = reply.json();
            assert_eq!(told["method"], method);
            assert_eq!(told["path"], format!("/?method={method}"));
        }
        for method in ["GET", "HEAD"] {
            let reply = gate.ask(method, &format!("{place}?method={method}"), &[], "");
            assert_eq!(reply.code, 301);
            assert_eq!(reply.headers["location"], format!("{place}/?method={method}"));
        }
        // "... ProxyWithPath".
        for method in ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"] {
            let reply = gate.ask(method, &format!("{place}/some/path/with/{method}"), &[], "");
            assert_eq!(reply.code, 200, "{method}");
            if method != "HEAD" {
                assert_eq!(reply.json()["path"], format!("/some/path/with/{method}"));
            }
        }
    }
    // A node's agent answers for the node.
    assert_eq!(bed.run(&["get", "--raw", "/api/v1/nodes/node-1/proxy/healthz"]), "ok");
    assert_eq!(bed.run(&["get", "--raw", "/api/v1/nodes/node-1:10250/proxy/healthz"]), "ok");
}

#[test]
fn what_is_handed_through_is_whole_and_in_time() {
    let bed = porter();
    let gate = Gate::open(&bed, &[]);
    let at = |path: &str| format!("{SERVICES}/web:80/proxy{path}");
    // More than the API itself takes, both ways.
    let much = Bytes::from("0123456789abcdef".repeat(500_000));
    let echoed = gate.ask("PUT", &at("/echo"), &[("content-type", "text/plain")], much.clone());
    assert_eq!(echoed.code, 201);
    assert!(echoed.body == much, "{} bytes", echoed.body.len());
    assert_eq!(echoed.headers.get("access-control-allow-origin"), None);
    assert_eq!(echoed.headers["cache-control"], "no-cache, private");
    // The second word is said when somebody has heard the first.
    let heard = gate.run(async {
        let mut body = gate.begin("GET", &at("/drip"), &[], Bytes::new()).await.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first, "one\n");
        assert_eq!(gate.begin("POST", &at("/go"), &[], Bytes::new()).await.status(), 200);
        body.collect().await.unwrap().to_bytes()
    });
    assert_eq!(heard, "two\n");
    // An answer that breaks off is not taken for a whole one.
    let broken = gate.run(async {
        let body = gate.begin("GET", &at("/cut"), &[], Bytes::new()).await.into_body();
        body.collect().await.is_err()
    });
    assert!(broken, "it ends like a whole one");
    let told =
        gate.ask("GET", &at("/a/c%20d/"), &[("x-own", "1"), ("x-forwarded-for", "192.0.2.1")], "").json();
    assert_eq!(told["path"], "/a/c%20d/");
    assert_eq!(told["headers"]["x-forwarded-uri"], at("/a/c%20d/"));
    assert_eq!(told["headers"]["x-own"], "1");
    let way = told["headers"]["x-forwarded-for"].as_str().unwrap();
    assert!(way.starts_with("192.0.2.1, ") && way.ends_with("10.0.0.10"), "{way}");
    // Who asks is the API server's business alone.
    let told = bed.run(&["--token=secret", "get", "--raw", &at("/")]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert!(told["headers"].get("authorization").is_none(), "{told}");
    assert!(told["headers"]["user-agent"].as_str().unwrap().starts_with("kubectl/"), "{told}");
}

#[test]
fn a_target_learns_that_its_client_has_gone() {
    let bed = porter();
    let gate = Gate::open(&bed, &[]);
    let at = |path: &str| format!("{SERVICES}/web:80/proxy{path}");
    let (silent, endless) = (at("/silent"), at("/endless"));
    gate.run(async {
        let mut body = gate.begin("GET", &endless, &[], Bytes::new()).await.into_body();
        assert!(body.frame().await.unwrap().is_ok());
        let arrived = async {
            let here = at("/here");
            let ask = || async {
                gate.begin("GET", &here, &[], Bytes::new())
                    .await
                    .into_body()
                    .collect()
                    .await
                    .unwrap()
                    .to_bytes()
            };
            while ask().await != "silent" {}
        };
        tokio::select! {
            answer = gate.begin("GET", &silent, &[], Bytes::new()) => panic!("{answer:?}"),
            () = arrived => {}
        }
    });
    let begin = Instant::now();
    loop {
        let gone = gate.get(&at("/gone")).body;
        if gone == "endless silent" {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{gone:?}");
    }
}

#[test]
fn redirects_stay_in_the_proxy_and_websockets_pass() {
    let bed = porter();
    let gate = Gate::open(&bed, &[]);
    let at = |path: &str| format!("{SERVICES}/web:80/proxy{path}");
    for (to, want) in [
        ("/login", at("/login")),
        ("next", "next".to_owned()),
        ("http://other.example/x", "http://other.example/x".to_owned()),
    ] {
        let reply = gate.get(&at(&format!("/redirect?to={}", to.replace('/', "%2F").replace(':', "%3A"))));
        assert_eq!((reply.code.as_u16(), reply.headers["location"].to_str().unwrap()), (302, &*want), "{to}");
    }
    for name in ["web:80", "https:web:443"] {
        let path = format!("{SERVICES}/{name}/proxy/ws?room=1");
        let heard = gate.run(async {
            let response = gate.begin("GET", &path, WEBSOCKET, Bytes::new()).await;
            assert_eq!(response.status(), 101);
            // RFC 6455 section 1.3.
            assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
            let mut socket = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
            // A text of five letters, masked by zeros.
            socket.write_all(b"\x81\x85\0\0\0\0hello").await.unwrap();
            let mut heard = vec![0; 2 + 10 + 2 + 5];
            socket.read_exact(&mut heard).await.unwrap();
            heard
        });
        assert_eq!(heard, b"\x81\x0a/ws?room=1\x81\x05hello", "{name}");
    }
    let refused = gate.ask("GET", &at("/no"), WEBSOCKET, "");
    assert_eq!((refused.code.as_u16(), &refused.body[..]), (403, &b"not so"[..]));
    assert_eq!(refused.headers["x-why"], "closed");
    let ignored = gate.ask("GET", &at("/"), WEBSOCKET, "");
    assert_eq!(ignored.refusal(), (500, "invalid upgrade response: status code 200".to_owned()));
}

#[test]
fn what_cannot_be_reached_is_told() {
    let bed = porter();
    let gate = Gate::open(&bed, &[]);
    let ip = bed.pod_ip("porter");
    let no = |path: String| gate.get(&path).refusal();
    let reach = "error trying to reach service";
    let refused = format!("{reach}: dial tcp {ip}:81: connect: connection refused");
    assert_eq!(no(format!("{PODS}/porter:81/proxy/")), (503, refused));
    let plain = format!("{reach}: http: server gave HTTP response to HTTPS client");
    assert_eq!(no(format!("{PODS}/https:porter:8080/proxy/")), (503, plain));
    let none = |name: &str| (503, format!("no endpoints available for service \"{name}\""));
    assert_eq!(no(format!("{SERVICES}/elsewhere:80/proxy/")), none("elsewhere:80"));
    // The ports of `web` have names.
    assert_eq!(no(format!("{SERVICES}/web/proxy/")), none("web"));
    bed.run(&["delete", "pod", "porter"]);
    bed.until_field("endpoints plain", "{.subsets[*].addresses[*].ip}", str::is_empty);
    assert_eq!(no(format!("{SERVICES}/plain/proxy/")), none("plain"));
    let output = bed.kubectl().output(&["get", "--raw", &format!("{SERVICES}/plain/proxy/")], "").unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("(ServiceUnavailable)") && said.contains("no endpoints available"), "{said}");
}

//! TLS 1.2 and newer only: what older clients are told.

use std::sync::Arc;

use portolan_apiserver::pki::Pki;
use portolan_apiserver::{ApiServer, Config, serve, tls};
use portolan_store::embedded::Embedded;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// RFC 5246 section 7.2: the version of the client is not supported.
const PROTOCOL_VERSION: u8 = 70;

fn counted(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// A `ClientHello` (RFC 5246 section 7.4.1.2) that offers this version and those before it.
fn hello(minor: u8) -> Vec<u8> {
    let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &counted(body)].concat();
    let extensions = [
        extension(10, &counted(&[0, 23])), // secp256r1
        extension(11, &[1, 0]),            // uncompressed points
        extension(13, &counted(&[4, 3])),  // ecdsa_secp256r1_sha256
    ]
    .concat();
    let mut body = vec![3, minor];
    body.extend([7; 32]);
    body.push(0);
    // ECDHE_ECDSA with AES_128: CBC with SHA-1 for old versions, GCM with SHA-256 for new ones.
    body.extend(counted(&[0xc0, 0x09, 0xc0, 0x2b]));
    body.extend([1, 0]);
    body.extend(counted(&extensions));
    let mut message = vec![1, 0];
    message.extend(counted(&body));
    [&[HANDSHAKE, 3, 1], &counted(&message)[..]].concat()
}

#[tokio::test]
async fn a_client_of_tls_1_1_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let pki = Pki::open(&dir.path().join("pki")).unwrap();
    let tls = tls::server_config(&pki.server(&[], &[]).unwrap(), pki.ca_pem()).unwrap();
    let store = Arc::new(Embedded::open(dir.path().join("store")).unwrap());
    let config = Config::new("192.0.2.1".parse().unwrap(), address.port());
    let server = ApiServer::start(config, store).await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(serve(server, listener, tls, async { drop(stopped.await) }));
    // The same greeting with another version is welcome: it is the version that is refused.
    for (minor, kind) in [(3, HANDSHAKE), (2, ALERT), (1, ALERT)] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&hello(minor)).await.unwrap();
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[0], kind, "TLS 1.{}: {answer:?}", minor - 1);
        if kind == ALERT {
            assert_eq!(answer[5..], [2, PROTOCOL_VERSION], "TLS 1.{}", minor - 1);
        }
    }
    drop(stop);
    serving.await.unwrap();
}

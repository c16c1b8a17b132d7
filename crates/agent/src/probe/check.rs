//! Asking a container: by HTTP, by gRPC, by connecting, by running a command.
//!
//! Sockets are opened from the node's own network, as kubelet does; commands run in the container's namespaces. The
//! texts of failures are kubelet's (Go's) own, since people search for them.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portolan_api::IntOrString;
use portolan_api::core::v1::{Container, Probe};
use rustix::pipe::PipeFlags;
use rustix::process::Signal;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::net::unix::pipe::Receiver;

use super::grpc::Health;
use super::http::Get;
use super::state::Outcome;
use crate::limits::{PROBE_OUTPUT_BYTES_MAX, PROBE_OUTPUT_DRAIN, PROBE_OUTPUT_PAUSE};
use crate::process::{Launch, Output, Spawner};

/// A question, ready to be put.
#[derive(Debug, Clone)]
pub(crate) enum Check {
    Http(Arc<Get>),
    Grpc(Arc<Health>),
    Tcp {
        host: String,
        port: u16,
    },
    Exec(Arc<Launch>),
    /// It cannot be put, and why.
    Impossible(String),
}

impl Check {
    /// The question that `probe` asks. `launch` is how the container itself was started.
    pub(crate) fn of(probe: &Probe, container: &Container, pod_ip: IpAddr, launch: &Launch) -> Self {
        Self::resolve(probe, container, pod_ip, launch).unwrap_or_else(Self::Impossible)
    }

    fn resolve(
        probe: &Probe,
        container: &Container,
        pod_ip: IpAddr,
        launch: &Launch,
    ) -> Result<Self, String> {
        let host = |given: &str| if given.is_empty() { pod_ip.to_string() } else { given.to_owned() };
        if let Some(http) = &probe.http_get {
            let port = port(&http.port, container)?;
            return Ok(Self::Http(Arc::new(Get::new(http, host(&http.host), port)?)));
        }
        if let Some(tcp) = &probe.tcp_socket {
            return Ok(Self::Tcp { host: host(&tcp.host), port: port(&tcp.port, container)? });
        }
        if let Some(exec) = &probe.exec {
            let (program, args) = exec.command.split_first().ok_or("the probe's command is empty")?;
            // In the namespaces of the container itself: what it leaves behind ends with the container.
            let launch = Launch { program: program.clone(), args: args.to_vec(), ..launch.clone() };
            return Ok(Self::Exec(Arc::new(launch)));
        }
        if let Some(grpc) = &probe.grpc {
            let port = port(&IntOrString::Int(grpc.port), container)?;
            let service = grpc.service.clone().unwrap_or_default();
            return Ok(Self::Grpc(Arc::new(Health::new(pod_ip.to_string(), port, service))));
        }
        Err("missing probe handler".into())
    }

    /// Puts the question and waits for the answer, for `timeout` at most.
    pub(crate) async fn ask(&self, timeout: Duration, spawner: &Spawner) -> Outcome {
        match self {
            Self::Http(get) => match tokio::time::timeout(timeout, get.ask()).await {
                Ok(outcome) => outcome,
                Err(_) => Outcome::Failure(get.timed_out()),
            },
            Self::Grpc(health) => match tokio::time::timeout(timeout, health.ask()).await {
                Ok(outcome) => outcome,
                Err(_) => Outcome::Failure(health.timed_out(timeout)),
            },
            Self::Tcp { host, port } => {
                let address = join(host, *port);
                match tokio::time::timeout(timeout, connect(host, *port)).await {
                    Ok(Ok(_)) => Outcome::Success,
                    Ok(Err(e)) => Outcome::Failure(dial_error(&address, &e)),
                    Err(_) => Outcome::Failure(format!("dial tcp {address}: i/o timeout")),
                }
            }
            Self::Exec(launch) => exec(launch, timeout, spawner).await,
            Self::Impossible(why) => Outcome::Failure(why.clone()),
        }
    }
}

fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match container.ports.iter().find(|p| p.name == *name) {
            Some(port) => port.container_port,
            // A number in quotes is a number.
            None => name
                .parse()
                .map_err(|_| format!("couldn't find port: {name:?} in container {:?}", container.name))?,
        },
    };
    u16::try_from(number).ok().filter(|n| *n > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

/// `host:port`, with brackets around an IPv6 address.
pub(super) fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

pub(super) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    // A literal address needs no resolver, and thereby no thread.
    match host.parse::<IpAddr>() {
        Ok(ip) => TcpStream::connect((ip, port)).await,
        Err(_) => TcpStream::connect((host, port)).await,
    }
}

/// As Go words a failed connection.
pub(crate) fn dial_error(address: &str, error: &io::Error) -> String {
    let reason = error.to_string();
    let reason = reason.split(" (os error").next().unwrap_or_default().to_lowercase();
    format!("dial tcp {address}: connect: {reason}")
}

async fn exec(launch: &Launch, timeout: Duration, spawner: &Spawner) -> Outcome {
    match run(launch, timeout, spawner).await {
        Ok(outcome) => outcome,
        // A program that is not there is the container's failure; the rest is ours.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            Outcome::Failure(format!("exec: {:?}: {e}", launch.program))
        }
        Err(e) => Outcome::Error(format!("cannot run {:?}: {e}", launch.program)),
    }
}

async fn run(launch: &Launch, timeout: Duration, spawner: &Spawner) -> io::Result<Outcome> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let mut reader = Receiver::from_owned_fd(reader)?;
    let mut process = spawner.spawn(launch.clone(), Output::Pipe(writer)).await?;
    let signaller = process.signaller();
    let mut output = Vec::new();
    let ended = async {
        let exit = tokio::select! {
            exit = process.wait() => exit,
            never = drain(&mut reader, &mut output) => match never {},
        };
        // What it printed last is still in the pipe. A process left behind may hold that open for as long as it likes.
        drop(tokio::time::timeout(PROBE_OUTPUT_DRAIN, read(&mut reader, &mut output)).await);
        exit
    };
    let Ok(exit) = tokio::time::timeout(timeout, ended).await else {
        signaller.send(Signal::KILL);
        let command: Vec<&str> =
            std::iter::once(&launch.program).chain(&launch.args).map(String::as_str).collect();
        return Ok(Outcome::Failure(format!(
            "command timed out: {:?} timed out after {timeout:?}",
            command.join(" ")
        )));
    };
    let text = || String::from_utf8_lossy(&output).trim_end().to_owned();
    Ok(if exit?.code == 0 { Outcome::Success } else { Outcome::Failure(text()) })
}

/// Reads to the end, so that the writer is never stuck, and keeps the beginning.
async fn read(reader: &mut Receiver, kept: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = reader.read(&mut buffer).await {
        let room = PROBE_OUTPUT_BYTES_MAX - kept.len();
        if room == 0 {
            tokio::time::sleep(PROBE_OUTPUT_PAUSE).await;
        }
        kept.extend_from_slice(&buffer[..len.min(room)]);
    }
}

/// Reads, and then waits for as long as it is let.
async fn drain(reader: &mut Receiver, kept: &mut Vec<u8>) -> Infallible {
    read(reader, kept).await;
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::net::TcpListener;

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn launch() -> Launch {
        Launch {
            program: "true".into(),
            args: Vec::new(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into()), ("WHO".into(), "me".into())],
            working_dir: None,
            netns: None,
            hostname: None,
            mounts: Arc::default(),
            space: None,
            group: None,
        }
    }

    fn check(probe: &serde_json::Value) -> Check {
        let probe: Probe = serde_json::from_value(probe.clone()).unwrap();
        let ports = json!([{"name": "web", "containerPort": 8080}]);
        let container = serde_json::from_value(json!({"name": "c", "ports": ports})).unwrap();
        Check::of(&probe, &container, LOCAL, &launch())
    }

    async fn ask(probe: serde_json::Value) -> Outcome {
        check(&probe).ask(Duration::from_secs(5), &Spawner::start().unwrap()).await
    }

    #[test]
    fn ports_by_number_name_and_quoted_number() {
        let tcp = |port: serde_json::Value| match check(&json!({"tcpSocket": {"port": port}})) {
            Check::Tcp { port, .. } => Ok(port),
            Check::Impossible(why) => Err(why),
            other => panic!("{other:?}"),
        };
        assert_eq!(tcp(json!(80)), Ok(80));
        assert_eq!(tcp(json!("web")), Ok(8080));
        assert_eq!(tcp(json!("81")), Ok(81));
        assert_eq!(tcp(json!("nope")), Err("couldn't find port: \"nope\" in container \"c\"".into()));
        assert_eq!(tcp(json!(70000)), Err("invalid port number: 70000".into()));
    }

    #[tokio::test]
    async fn connecting_is_success() {
        let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(ask(json!({"tcpSocket": {"port": port}})).await, Outcome::Success);
        // Bound but not listening: refused, and nobody else gets the port.
        let held = tokio::net::TcpSocket::new_v4().unwrap();
        held.bind((LOCAL, 0).into()).unwrap();
        let port = held.local_addr().unwrap().port();
        let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(ask(json!({"tcpSocket": {"port": port}})).await, Outcome::Failure(refused));
    }

    #[tokio::test]
    async fn exit_0_is_success_and_output_tells_why_not() {
        let sh = |script: &str| ask(json!({"exec": {"command": ["sh", "-c", script]}}));
        assert_eq!(sh("exit 0").await, Outcome::Success);
        assert_eq!(sh("echo out; echo $WHO >&2; exit 3").await, Outcome::Failure("out\nme".into()));
        let Outcome::Failure(long) = sh("yes | head -c 1000000; exit 1").await else { panic!() };
        assert!(long.len() <= PROBE_OUTPUT_BYTES_MAX);
        let missing = ask(json!({"exec": {"command": ["/no/such"]}})).await;
        assert!(matches!(missing, Outcome::Failure(text) if text.contains("No such file")));
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_is_killed() {
        let spawner = Spawner::start().unwrap();
        let file = std::env::temp_dir().join(format!("pt-exec-{}", std::process::id()));
        let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
        let check = check(&json!({"exec": {"command": ["sh", "-c", script]}}));
        let outcome = check.ask(Duration::from_millis(500), &spawner).await;
        assert!(matches!(&outcome, Outcome::Failure(text) if text.contains("timed out")), "{outcome:?}");
        let child = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        // Gone, or dead and waiting to be reaped.
        while state().contains(" S ") {
            tokio::task::yield_now().await;
        }
    }
}

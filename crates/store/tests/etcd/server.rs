//! Real etcd processes on 127.0.0.1, ended when they are dropped.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use portolan_store::Error;
use portolan_store::etcd::{Config, Etcd, TlsFiles};

/// One member. Its data is in a directory that is given: it can be stopped and started again.
pub(crate) struct Member {
    process: Option<Child>,
    arguments: Vec<String>,
    log: PathBuf,
    pub(crate) url: String,
}

impl Member {
    pub(crate) fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(&self.log).expect("a log");
        let process = Command::new("etcd")
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd starts; scripts/prepare test installs it");
        self.process = Some(process);
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Stops all its threads, so that it holds its connections and says nothing; or lets them go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        let Some(process) = &self.process else { return };
        let signal = if frozen { libc::SIGSTOP } else { libc::SIGCONT };
        // SAFETY: a signal to a child of ours that has not been waited for.
        unsafe { libc::kill(process.id().cast_signed(), signal) };
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.freeze(false);
        self.kill();
    }
}

pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    pub(crate) tls: TlsFiles,
    _dir: tempfile::TempDir,
}

/// Ports that were free a moment ago, all different.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    listeners.iter().map(|l| l.local_addr().expect("an address").port()).collect()
}

impl Cluster {
    pub(crate) fn start(count: usize) -> Cluster {
        Cluster::with(count, false)
    }

    /// Clients need a certificate.
    pub(crate) fn start_tls(count: usize) -> Cluster {
        Cluster::with(count, true)
    }

    fn with(count: usize, secure: bool) -> Cluster {
        let dir = tempfile::tempdir().expect("a directory");
        let tls = if secure { certificates(dir.path()) } else { TlsFiles::default() };
        let ports = free_ports(2 * count);
        let scheme = if secure { "https" } else { "http" };
        let peers: Vec<String> =
            (0..count).map(|n| format!("m{n}=http://127.0.0.1:{}", ports[count + n])).collect();
        let mut members = Vec::new();
        for n in 0..count {
            let url = format!("{scheme}://127.0.0.1:{}", ports[n]);
            let peer = format!("http://127.0.0.1:{}", ports[count + n]);
            let data = dir.path().join(format!("m{n}")).display().to_string();
            let mut arguments: Vec<String> = [
                "--name",
                &format!("m{n}"),
                "--data-dir",
                &data,
                "--listen-client-urls",
                &url,
                "--advertise-client-urls",
                &url,
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
                "--initial-cluster",
                &peers.join(","),
                "--heartbeat-interval",
                "50",
                "--election-timeout",
                "500",
                "--logger",
                "zap",
            ]
            .map(ToOwned::to_owned)
            .into();
            if secure {
                let file = |name: &str| dir.path().join(name).display().to_string();
                arguments.extend([
                    "--cert-file".into(),
                    file("server.crt"),
                    "--key-file".into(),
                    file("server.key"),
                ]);
                arguments.extend(["--client-cert-auth".into(), "--trusted-ca-file".into(), file("ca.crt")]);
            }
            let mut member =
                Member { process: None, arguments, log: dir.path().join(format!("m{n}.log")), url };
            member.start();
            members.push(member);
        }
        Cluster { members, tls, _dir: dir }
    }

    pub(crate) fn config(&self, identity: &str) -> Config {
        let urls = self.members.iter().map(|m| m.url.clone()).collect();
        Config {
            base: String::new(),
            prefix: "/contract".into(),
            tls: self.tls.clone(),
            ..Config::new(urls, identity)
        }
    }

    /// A store on it, as soon as it answers.
    pub(crate) async fn store(&self, identity: &str) -> std::sync::Arc<Etcd> {
        connect(self.config(identity)).await
    }

    /// What `etcdctl` prints.
    pub(crate) fn etcdctl(&self, arguments: &[&str]) -> String {
        let urls: Vec<&str> = self.members.iter().map(|m| m.url.as_str()).collect();
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &urls.join(",")])
            .args(arguments)
            .output()
            .expect("etcdctl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

pub(crate) async fn connect(config: Config) -> std::sync::Arc<Etcd> {
    let begin = Instant::now();
    loop {
        match Etcd::connect(config.clone()).await {
            Ok(store) => return store,
            Err(Error::Unavailable(why)) if begin.elapsed() > Duration::from_mins(1) => panic!("{why}"),
            Err(Error::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// An authority, a server's and a client's certificate.
fn certificates(dir: &Path) -> TlsFiles {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    let write = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("writes");
        path
    };
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_path = write("ca.crt", ca.self_signed(&ca_key).expect("signs").pem());
    let issuer = Issuer::new(ca, ca_key);
    let leaf = |name: &str, purposes: Vec<ExtendedKeyUsagePurpose>| {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("names");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = purposes;
        let key = KeyPair::generate().expect("a key");
        let certificate =
            write(&format!("{name}.crt"), params.signed_by(&key, &issuer).expect("signs").pem());
        (certificate, write(&format!("{name}.key"), key.serialize_pem()))
    };
    // etcd's own gateway is a client of the same port.
    leaf("server", vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]);
    let (certificate, key) = leaf("client", vec![ExtendedKeyUsagePurpose::ClientAuth]);
    TlsFiles { ca: Some(ca_path), certificate: Some(certificate), key: Some(key) }
}

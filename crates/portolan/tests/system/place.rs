//! A network namespace with addresses of its own, in which control planes and etcd members live and die.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use portolan_netlink::netns::Netns;
use portolan_netlink::rt::Rt;

use crate::bed::{exe, unique};

pub(crate) struct Place {
    pub(crate) netns: Netns,
    netns_path: PathBuf,
    pub(crate) dir: tempfile::TempDir,
}

impl Place {
    /// With the addresses 10.9.0.1 to 10.9.0.`count` on its loopback.
    pub(crate) fn new(count: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let netns_path = dir.path().join(unique("netns"));
        let netns = Netns::create(&netns_path).unwrap();
        let mut rt = Rt::open_in(&netns).unwrap();
        rt.set_up("lo").unwrap();
        for n in 1..=count {
            rt.add_address("lo", format!("{}/24", ip(n)).parse().unwrap()).unwrap();
        }
        Self { netns, netns_path, dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn spawn(&self, command: &mut Command) -> Child {
        self.netns.run(|| command.spawn()).unwrap().unwrap_or_else(|e| panic!("{command:?}: {e}"))
    }

    pub(crate) fn output(&self, command: &mut Command) -> Output {
        command.stdin(Stdio::null());
        self.netns.run(|| command.output()).unwrap().unwrap_or_else(|e| panic!("{command:?}: {e}"))
    }

    /// What the program says, if all went well.
    #[track_caller]
    pub(crate) fn says(&self, command: &mut Command) -> String {
        let output = self.output(command);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What the program complains of.
    #[track_caller]
    pub(crate) fn fails(&self, command: &mut Command) -> String {
        let output = self.output(command);
        assert!(!output.status.success(), "{command:?} went well");
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn kubectl(&self, data: &Path) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(data.join("kubeconfig"));
        command.arg("--cache-dir").arg(self.path("cache")).arg("--request-timeout=20s");
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.netns.kill_processes(Duration::from_secs(5));
        if std::thread::panicking() {
            for entry in std::fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
                if entry.path().extension().is_some_and(|extension| extension == "log") {
                    let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                    let lines: Vec<&str> = text.lines().collect();
                    let end = lines[lines.len().saturating_sub(15)..].join("\n");
                    eprintln!("--- the end of {}\n{end}", entry.path().display());
                }
            }
        }
        let _ = Netns::delete(&self.netns_path);
    }
}

pub(crate) fn ip(n: u8) -> String {
    format!("10.9.0.{n}")
}

pub(crate) fn portolan(verb: &[&str]) -> Command {
    let mut command = Command::new(exe());
    command.args(verb);
    command
}

/// A program that is killed and started again.
pub(crate) struct Server {
    child: Option<Child>,
    arguments: Vec<String>,
    program: PathBuf,
    log: PathBuf,
    /// Whether it says a line when it is ready.
    announces: bool,
}

impl Server {
    /// A control plane without a node, at the address 10.9.0.`n`.
    pub(crate) fn control_plane(place: &Place, n: u8, more: &[&str]) -> Self {
        let mut arguments: Vec<String> =
            ["up", "--control-plane", "--node-ip", &ip(n), "--bind-address", &ip(n)]
                .map(ToOwned::to_owned)
                .into();
        arguments.extend(["--data-dir".to_owned(), place.path(&format!("plane-{n}")).display().to_string()]);
        arguments.extend(more.iter().map(ToString::to_string));
        let log = place.path(&format!("plane-{n}.log"));
        Self { child: None, arguments, program: exe(), log, announces: true }
    }

    /// etcd's member at the address 10.9.0.`n` of a cluster at 1 to `count`.
    pub(crate) fn etcd(place: &Place, n: u8, count: u8) -> Self {
        let all: Vec<String> = (1..=count).map(|n| format!("m{n}=http://{}:2380", ip(n))).collect();
        let (client, peer) = (format!("http://{}:2379", ip(n)), format!("http://{}:2380", ip(n)));
        let data = place.path(&format!("m{n}")).display().to_string();
        let arguments = [
            "--name",
            &format!("m{n}"),
            "--data-dir",
            &data,
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &all.join(","),
            "--heartbeat-interval",
            "50",
            "--election-timeout",
            "500",
            "--logger",
            "zap",
        ]
        .map(ToOwned::to_owned);
        let log = place.path(&format!("m{n}.log"));
        Self { child: None, arguments: arguments.into(), program: "etcd".into(), log, announces: false }
    }

    pub(crate) fn start(&mut self, place: &Place) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stderr(log);
        command.stdout(if self.announces { Stdio::piped() } else { Stdio::null() });
        let mut child = place.spawn(&mut command);
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).unwrap();
        }
        self.child = Some(child);
        assert!(!self.announces || !line.is_empty(), "it ended; see {}", self.log.display());
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success(), "see {}", self.log.display());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Asks until there is an answer.
#[track_caller]
pub(crate) fn until<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begin.elapsed() < patience, "{what}: not within {patience:?}");
        std::thread::yield_now();
    }
}

//! `portolan up` by itself: a control plane and a node in one process, here inside a bare network namespace.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use portolan_lab::probe::{self, Answer};
use portolan_netlink::netns::Netns;

use crate::bed::{PATIENCE, exe, unique, web_pod};

pub(crate) struct Alone {
    netns_path: PathBuf,
    netns: Netns,
    data: tempfile::TempDir,
    child: Option<Child>,
}

impl Alone {
    pub(crate) fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let netns_path = data.path().join(unique("netns"));
        let netns = Netns::create(&netns_path).unwrap();
        Self { netns_path, netns, data, child: None }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.data.path().join("data")
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(exe());
        command.arg("up").arg("--data-dir").arg(self.data_dir());
        command
    }

    /// Starts it and gives what it says when it is ready.
    pub(crate) fn up(&mut self) -> String {
        self.up_with(&[])
    }

    pub(crate) fn up_with(&mut self, args: &[&str]) -> String {
        let mut command = self.command();
        command.args(args);
        let log = std::fs::File::create(self.data.path().join("log")).unwrap();
        command.stdout(Stdio::piped()).stderr(log);
        let mut child = self.netns.run(|| command.spawn()).unwrap().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.child = Some(child);
        assert!(!line.is_empty(), "{}", self.log());
        line
    }

    pub(crate) fn netns(&self) -> &Netns {
        &self.netns
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            assert!(child.wait().unwrap().success(), "{}", self.log());
        }
    }

    fn crash(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn kubectl(&self, args: &[&str], input: &str) -> String {
        let output = self.kubectl_output(args, input);
        assert!(
            output.status.success(),
            "kubectl {args:?}: {}\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn kubectl_output(&self, args: &[&str], input: &str) -> Output {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(self.data_dir().join("kubeconfig"));
        command.arg("--cache-dir").arg(self.data.path().join("cache")).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.netns.run(|| command.spawn()).unwrap().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    pub(crate) fn fails(&self, mut command: Command) -> String {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = self.netns.run(|| command.spawn()).unwrap().unwrap();
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(!child.wait().unwrap().success());
        text
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = self.netns.kill_processes(Duration::from_secs(5));
        let pods = std::fs::read_dir(self.data_dir().join("node/pods")).into_iter().flatten().flatten();
        for pod in pods {
            let _ = Netns::delete(&pod.path().join("netns"));
        }
        let _ = Netns::delete(&self.netns_path);
    }
}

const SERVICE: &str = "---\n{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}";

fn asks(alone: &Alone) -> Answer {
    let ip = alone.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"], "");
    let to = std::net::SocketAddr::new(ip.parse().unwrap(), 80);
    let ask = || probe::http_get(&alone.netns, to, "/");
    probe::until(ask, |answer| answer.text().is_some(), PATIENCE).unwrap().0
}

#[test]
fn it_serves_a_service_in_a_namespace_and_says_where_the_kubeconfig_is() {
    let mut alone = Alone::new();
    let line = alone.up();
    assert!(line.contains(&alone.data_dir().join("kubeconfig").display().to_string()), "{line}");
    alone.kubectl(&["apply", "-f", "-"], &(web_pod("web-1", "app: web", None) + SERVICE));
    alone.kubectl(&["wait", "--for=condition=Ready", "pod", "web-1", "--timeout=30s"], "");
    assert!(asks(&alone).text().is_some(), "{}", alone.log());
    alone.stop();
    let tables = alone.netns.run(|| Command::new("nft").args(["list", "tables"]).output()).unwrap().unwrap();
    assert_eq!(String::from_utf8(tables.stdout).unwrap(), "", "nothing of ours stays in the kernel");
}

#[test]
fn what_was_stored_is_there_after_a_stop_and_after_a_crash() {
    let mut alone = Alone::new();
    alone.up();
    alone.kubectl(&["apply", "-f", "-"], SERVICE);
    let ip = alone.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"], "");
    alone.stop();
    alone.up();
    assert_eq!(alone.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"], ""), ip);
    alone.kubectl(&["apply", "-f", "-"], &web_pod("web-1", "app: web", None));
    alone.kubectl(&["wait", "--for=condition=Ready", "pod", "web-1", "--timeout=30s"], "");
    alone.crash();
    alone.up();
    alone.kubectl(&["wait", "--for=condition=Ready", "pod", "web-1", "--timeout=30s"], "");
    assert!(asks(&alone).text().is_some(), "{}", alone.log());
    alone.stop();
}

#[test]
fn a_second_start_and_a_busy_port_say_what_to_do() {
    let mut alone = Alone::new();
    alone.up();
    let text = alone.fails(alone.command());
    assert!(text.contains("in use by"), "{text}");
    assert_eq!(text.trim().lines().count(), 1, "{text}");
    let mut other = Command::new(exe());
    other.arg("up").arg("--data-dir").arg(alone.data.path().join("other"));
    let text = alone.fails(other);
    assert!(text.contains("6443") && text.contains("--secure-port"), "{text}");
    assert_eq!(text.trim().lines().count(), 1, "{text}");
    alone.stop();
}

#[test]
fn without_root_it_says_so() {
    // A copy that another user can reach: the build directory may be closed to it.
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("portolan");
    std::fs::copy(exe(), &copy).unwrap();
    std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).unwrap();
    let text = as_nobody(&copy, &["up", "--data-dir", &dir.path().join("data").display().to_string()]);
    assert!(text.contains("needs root"), "{text}");
    let text = as_nobody(&copy, &["lab", "up"]);
    assert!(text.contains("needs root"), "{text}");
}

fn as_nobody(program: &Path, args: &[&str]) -> String {
    use std::os::unix::process::CommandExt;
    let output = Command::new(program).args(args).uid(65534).gid(65534).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

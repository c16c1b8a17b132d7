//! The thread that starts processes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;

use portolan_netlink::netns::{self, Netns};
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal, setsid};
use rustix::thread::UnshareFlags;
use tokio::sync::oneshot;

use super::exit::Handle;
use super::mounts::Mounts;

/// A process to be started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) program: String,
    pub(crate) args: Vec<String>,
    /// All of its environment.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) working_dir: Option<PathBuf>,
    /// Absent: the node's own network.
    pub(crate) netns: Option<Arc<Netns>>,
    /// Absent: the node's own name.
    pub(crate) hostname: Option<String>,
    /// Files that it sees in place of the node's.
    pub(crate) mounts: Arc<Mounts>,
}

/// Where the process writes to.
#[derive(Debug)]
pub(crate) enum Output {
    /// Both streams, in the order of writing.
    File(File),
    /// Both streams, to be read by the agent from the other end of this pipe.
    Pipe(OwnedFd),
}

type Reply = oneshot::Sender<io::Result<Child>>;

/// Starts processes. The last clone dropped ends the thread, and with it every process it started.
#[derive(Debug, Clone)]
pub(crate) struct Spawner {
    requests: mpsc::Sender<(Launch, Output, Reply)>,
}

impl Spawner {
    /// Starts the thread, in the network namespace of the caller's.
    pub(crate) fn start() -> io::Result<Self> {
        let (requests, inbox) = mpsc::channel::<(Launch, Output, Reply)>();
        std::thread::Builder::new().name("pod-spawner".into()).spawn(move || {
            for (launch, output, reply) in inbox {
                // Who asked may have gone: then the child is dropped and reaped by nobody, so kill it.
                if let Err(Ok(mut child)) = reply.send(start(launch, output)) {
                    drop(child.kill());
                    drop(child.wait());
                }
            }
        })?;
        Ok(Self { requests })
    }

    pub(crate) async fn spawn(&self, launch: Launch, output: Output) -> io::Result<Handle> {
        let gone = || io::Error::other("the thread that starts processes has ended");
        let (reply, answer) = oneshot::channel();
        self.requests.send((launch, output, reply)).map_err(|_| gone())?;
        Handle::new(answer.await.map_err(|_| gone())??)
    }
}

fn start(launch: Launch, output: Output) -> io::Result<Child> {
    let (stdout, stderr) = match output {
        Output::File(file) => (Stdio::from(file.try_clone()?), Stdio::from(file)),
        Output::Pipe(fd) => (Stdio::from(fd.try_clone()?), Stdio::from(fd)),
    };
    let mut command = Command::new(&launch.program);
    command.args(&launch.args).env_clear().envs(launch.env);
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    if let Some(dir) = launch.working_dir {
        command.current_dir(dir);
    }
    let (netns, hostname, mounts, parent) = (launch.netns, launch.hostname, launch.mounts, getpid());
    // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
    unsafe { command.pre_exec(move || enter(netns.as_deref(), hostname.as_deref(), &mounts, parent)) };
    command.spawn()
}

/// In the child: its session, its namespaces, its end.
fn enter(netns: Option<&Netns>, hostname: Option<&str>, mounts: &Mounts, parent: Pid) -> io::Result<()> {
    setsid()?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have ended before the line above.
    if getppid() != Some(parent) {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    if let Some(netns) = netns {
        netns::enter(netns.as_fd())?;
    }
    if let Some(hostname) = hostname {
        // SAFETY: the child has one thread and shares nothing that UTS names would touch.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUTS)? };
        rustix::system::sethostname(hostname.as_bytes())?;
    }
    mounts.apply()
}

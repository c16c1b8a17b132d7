//! The thread that starts processes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;

use portolan_netlink::cgroup::Group;
use portolan_netlink::netns::{self, Netns};
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal, setsid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use tokio::sync::oneshot;

use super::birth::{self, Program};
use super::exit::{Handle, end_now};
use super::mounts::Mounts;
use super::strays::Realm;

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
    /// The namespaces of a container that runs, for a command inside; instead of new ones with `hostname` and `mounts`.
    pub(crate) space: Option<Arc<Space>>,
    /// The control group of the container, where there are such.
    pub(crate) group: Option<Arc<Group>>,
}

/// What a running container has to itself beside its network: its mounts and its name.
#[derive(Debug)]
pub(crate) struct Space {
    mounts: OwnedFd,
    name: OwnedFd,
}

impl Space {
    /// That of a process with a mount namespace of its own; `None` if it has none, or has ended already.
    pub(crate) fn of(process: &Handle) -> Option<Self> {
        process.realm()?;
        let pid = process.signaller().pid();
        let open = |which| File::open(format!("/proc/{pid}/ns/{which}")).ok().map(OwnedFd::from);
        Some(Self { mounts: open("mnt")?, name: open("uts")? })
    }

    /// In the child.
    fn enter(&self) -> io::Result<()> {
        move_into_link_name_space(self.name.as_fd(), Some(LinkNameSpaceType::HostNameAndNISDomainName))?;
        Ok(move_into_link_name_space(self.mounts.as_fd(), Some(LinkNameSpaceType::Mount))?)
    }
}

/// Where the process writes to, and what it reads from: nothing, unless said here.
#[derive(Debug)]
pub(crate) enum Output {
    /// Each stream into a pipe of its own.
    Streams { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    /// All to and from a terminal, which becomes the process's own.
    Terminal(OwnedFd),
    /// Both streams, to be read by the agent from the other end of this pipe.
    Pipe(OwnedFd),
}

type Reply = oneshot::Sender<io::Result<(Pid, Option<Realm>)>>;

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
                if let Err(Ok((child, _))) = reply.send(start(launch, output)) {
                    end_now(child);
                }
            }
        })?;
        Ok(Self { requests })
    }

    pub(crate) async fn spawn(&self, launch: Launch, output: Output) -> io::Result<Handle> {
        let gone = || io::Error::other("the thread that starts processes has ended");
        let (reply, answer) = oneshot::channel();
        self.requests.send((launch, output, reply)).map_err(|_| gone())?;
        let (child, realm) = answer.await.map_err(|_| gone())??;
        Handle::new(child, realm)
    }
}

fn start(launch: Launch, output: Output) -> io::Result<(Pid, Option<Realm>)> {
    let terminal = matches!(output, Output::Terminal(_));
    let nothing = || File::open("/dev/null").map(OwnedFd::from);
    let (stdin, stdout, stderr) = match output {
        Output::Streams { stdin, stdout, stderr } => (stdin.map_or_else(nothing, Ok)?, stdout, stderr),
        Output::Terminal(fd) => (fd.try_clone()?, fd.try_clone()?, fd),
        Output::Pipe(fd) => (nothing()?, fd.try_clone()?, fd),
    };
    let Launch { program, args, env, working_dir, netns, hostname, mounts, space, group } = launch;
    let program = Program::new(&program, &args, &env, working_dir)?;
    let (parent, mut realm) = (getpid(), None);
    let mut prepare = || {
        begin(parent)?;
        if terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        group.as_ref().map_or(Ok(()), |group| group.enter())?;
        netns.as_ref().map_or(Ok(()), |netns| netns::enter(netns.as_fd()))?;
        if let Some(space) = &space {
            return space.enter();
        }
        realm = make_space(hostname.as_deref(), &mounts)?;
        Ok(())
    };
    let pid = birth::start(&program, [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()], &mut prepare)?;
    Ok((pid, realm))
}

/// In the child: its session, and its end with its parent's.
fn begin(parent: Pid) -> io::Result<()> {
    setsid()?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have ended before the line above.
    if getppid() != Some(parent) {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Ok(())
}

/// In the child: its own name and files, and the mount namespace for them.
fn make_space(hostname: Option<&str>, mounts: &Mounts) -> io::Result<Option<Realm>> {
    if let Some(hostname) = hostname {
        // SAFETY: the child has one thread and shares nothing that UTS names would touch.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUTS)? };
        rustix::system::sethostname(hostname.as_bytes())?;
    }
    if mounts.apply()? { Realm::own().map(Some) } else { Ok(None) }
}

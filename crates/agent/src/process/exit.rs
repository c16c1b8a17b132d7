//! A running process and its end.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::Arc;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, pidfd_send_signal,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::strays::Realm;

/// A process that was started. Waiting costs no thread: the kernel makes its descriptor readable at its end.
#[derive(Debug)]
pub(crate) struct Handle {
    child: Child,
    fd: Arc<AsyncFd<OwnedFd>>,
    /// The mount namespace that was made for it, if one was.
    realm: Option<Realm>,
    /// Its number may belong to another process by now.
    reaped: bool,
}

/// What signals are sent through, also while somebody waits for the end.
#[derive(Debug, Clone)]
pub(crate) struct Signaller {
    pid: u32,
    fd: Arc<AsyncFd<OwnedFd>>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// 128 plus the signal where a signal ended it.
    pub(crate) code: i32,
    /// 0 if none.
    pub(crate) signal: i32,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        let signal = status.signal().unwrap_or(0);
        Self { code: status.code().unwrap_or(128 + signal), signal }
    }
}

impl Handle {
    pub(super) fn new(mut child: Child, realm: Option<Realm>) -> io::Result<Self> {
        let fd = Pid::from_raw(child.id() as i32)
            .ok_or_else(|| io::Error::other("no process id"))
            .and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::NONBLOCK)?))
            // SAFETY: the descriptor is owned by the `AsyncFd` and never replaced or closed before it.
            .and_then(|fd| Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?));
        match fd {
            Ok(fd) => Ok(Self { child, fd: Arc::new(fd), realm, reaped: false }),
            Err(e) => {
                drop(child.kill());
                drop(child.wait());
                Err(e)
            }
        }
    }

    pub(crate) fn signaller(&self) -> Signaller {
        Signaller { pid: self.child.id(), fd: self.fd.clone() }
    }

    pub(crate) fn realm(&self) -> Option<Realm> {
        self.realm
    }

    /// Waits for the end, then ends what is left of the process's session: a container's other processes do not outlive
    /// its first. Cancel-safe.
    pub(crate) async fn wait(&mut self) -> io::Result<Exit> {
        loop {
            let mut guard = self.fd.readable().await?;
            self.kill_group();
            if let Some(status) = self.child.try_wait()? {
                self.reaped = true;
                return Ok(status.into());
            }
            guard.clear_ready();
        }
    }

    /// Only before it is reaped: until then its number, which names the group, stays taken.
    fn kill_group(&self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            // Fails when nobody is left, which is the usual case.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Drop for Handle {
    /// Nobody waits for it any more: it must not stay, neither running nor as a zombie.
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.kill_group();
        if self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        let Some(pid) = Pid::from_raw(self.child.id() as i32) else { return };
        let reap = move || {
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
        };
        // Usually a matter of microseconds; but a process that hangs in the kernel, on a disk that is gone say, does not
        // die, and nobody here may hang with it.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                let fd = self.fd.clone();
                runtime.spawn(async move {
                    drop(fd.readable().await);
                    reap();
                });
            }
            Err(_) => reap(),
        }
    }
}

impl Signaller {
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal to the first process. One that has ended already is no error.
    pub(crate) fn send(&self, signal: Signal) {
        let _ = pidfd_send_signal(self.fd.get_ref(), signal);
    }
}

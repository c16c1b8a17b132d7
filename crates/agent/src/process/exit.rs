//! A running process and its end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, pidfd_open,
    pidfd_send_signal, waitpid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::strays::Realm;

/// A process that was started. Waiting costs no thread: the kernel makes its descriptor readable at its end.
#[derive(Debug)]
pub(crate) struct Handle {
    child: Pid,
    fd: Arc<AsyncFd<OwnedFd>>,
    /// The mount namespace that was made for it, if one was.
    realm: Option<Realm>,
    /// Its number may belong to another process by now.
    reaped: bool,
}

/// What signals are sent through, also while somebody waits for the end.
#[derive(Debug, Clone)]
pub(crate) struct Signaller {
    pid: Pid,
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

impl From<WaitStatus> for Exit {
    fn from(status: WaitStatus) -> Self {
        let signal = status.terminating_signal().unwrap_or(0);
        Self { code: status.exit_status().unwrap_or(128 + signal), signal }
    }
}

/// Kills a child that nobody has a [`Handle`] of, and takes note of its end.
pub(super) fn end_now(child: Pid) {
    let _ = kill_process(child, Signal::KILL);
    let _ = waitpid(Some(child), WaitOptions::empty());
}

impl Handle {
    pub(super) fn new(child: Pid, realm: Option<Realm>) -> io::Result<Self> {
        let fd = pidfd_open(child, PidfdFlags::NONBLOCK)
            .map_err(io::Error::from)
            // SAFETY: the descriptor is owned by the `AsyncFd` and never replaced or closed before it.
            .and_then(|fd| Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?));
        match fd {
            Ok(fd) => Ok(Self { child, fd: Arc::new(fd), realm, reaped: false }),
            Err(e) => {
                end_now(child);
                Err(e)
            }
        }
    }

    pub(crate) fn signaller(&self) -> Signaller {
        Signaller { pid: self.child, fd: self.fd.clone() }
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
            if let Some((_, status)) = waitpid(Some(self.child), WaitOptions::NOHANG)? {
                self.reaped = true;
                return Ok(status.into());
            }
            guard.clear_ready();
        }
    }

    /// Only before it is reaped: until then its number, which names the group, stays taken.
    fn kill_group(&self) {
        // Fails when nobody is left, which is the usual case.
        let _ = kill_process_group(self.child, Signal::KILL);
    }
}

impl Drop for Handle {
    /// Nobody waits for it any more: it must not stay, neither running nor as a zombie.
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.kill_group();
        let pid = self.child;
        if waitpid(Some(pid), WaitOptions::NOHANG).is_ok_and(|status| status.is_some()) {
            return;
        }
        let reap = move || {
            let _ = waitpid(Some(pid), WaitOptions::empty());
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
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends a signal to the first process. One that has ended already is no error.
    pub(crate) fn send(&self, signal: Signal) {
        let _ = pidfd_send_signal(self.fd.get_ref(), signal);
    }
}

//! What a container's processes left behind when the first of them ended.
//!
//! For nodes that may not make control groups, see [`portolan_netlink::cgroup`]. Killing the process group misses who made a session
//! of its own, as every daemon does. But each container has a mount namespace of its own, and that tells its processes.

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::time::Instant;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::limits::KILL_PATIENCE;

/// Looks that must find nobody before all are taken for gone; more where somebody was found, who may have forked.
const LOOKS: u32 = 2;
const LOOKS_AFTER_FORKS: u32 = 10;

/// A mount namespace: the inode of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Realm(u64);

impl Realm {
    /// In a child that has made itself one, between fork and exec: tells the parent.
    pub(super) fn tell(to: BorrowedFd<'_>) -> io::Result<()> {
        let inode = rustix::fs::stat(c"/proc/self/ns/mnt")?.st_ino;
        rustix::io::write(to, &inode.to_ne_bytes())?;
        Ok(())
    }

    /// In the parent, once the child runs. `None`: it made none.
    pub(super) fn told(from: BorrowedFd<'_>) -> Option<Self> {
        let mut inode = [0; 8];
        let len = rustix::io::read(from, &mut inode).ok()?;
        (len == inode.len()).then(|| Self(u64::from_ne_bytes(inode)))
    }

    fn holds(self, pid: u32) -> bool {
        // Of a process that has ended but is not reaped, it cannot be read.
        fs::metadata(format!("/proc/{pid}/ns/mnt")).is_ok_and(|meta| meta.ino() == self.0)
    }

    /// Stops each process as it is found: who forks without end is not given the time of a whole look.
    fn stop_all(self) -> Vec<OwnedFd> {
        let Ok(proc) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = proc.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let handles = pids.filter(|pid| self.holds(*pid)).filter_map(|pid| self.handle(pid));
        handles
            .inspect(|handle| {
                // It may have ended by itself.
                let _ = pidfd_send_signal(handle, Signal::STOP);
            })
            .collect()
    }

    /// Ends all of its processes, also those that are started meanwhile; returns how many are left. Blocks.
    pub(crate) fn end(self) -> usize {
        let begin = Instant::now();
        // A look may just miss a process whose parent was still there: one that finds nobody proves little.
        let mut looks_left = LOOKS;
        loop {
            let handles = self.stop_all();
            for handle in &handles {
                let _ = pidfd_send_signal(handle, Signal::KILL);
            }
            looks_left = if handles.is_empty() { looks_left - 1 } else { LOOKS_AFTER_FORKS };
            if looks_left == 0 || begin.elapsed() > KILL_PATIENCE {
                return handles.len();
            }
            std::thread::yield_now();
        }
    }

    /// Looked at again once held: the number may have passed to another process.
    fn handle(self, pid: u32) -> Option<OwnedFd> {
        let handle = pidfd_open(Pid::from_raw(pid as i32)?, PidfdFlags::empty()).ok()?;
        self.holds(pid).then_some(handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    #[test]
    fn daemons_are_found_by_their_mounts() {
        let mut command = Command::new("sh");
        command.args(["-c", "setsid sleep 1000 & setsid setsid sleep 1000 & wait"]);
        let (told, tell) = rustix::pipe::pipe().unwrap();
        let make = move || {
            // SAFETY: the child has one thread.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS)? };
            Realm::tell(std::os::fd::AsFd::as_fd(&tell))
        };
        // SAFETY: only system calls.
        unsafe { command.pre_exec(make) };
        let mut child = command.spawn().unwrap();
        drop(command);
        let realm = Realm::told(std::os::fd::AsFd::as_fd(&told)).unwrap();
        assert!(realm.holds(child.id()) && !realm.holds(std::process::id()));
        let reaper = std::thread::spawn(move || child.wait());
        assert_eq!(realm.end(), 0);
        assert!(!reaper.join().unwrap().unwrap().success());
        assert!(realm.stop_all().is_empty());
    }
}

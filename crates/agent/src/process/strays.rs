//! What a container's processes left behind when the first of them ended.
//!
//! For nodes that may not make control groups, see [`portolan_netlink::cgroup`]. Killing the process group misses who made a session
//! of its own, as every daemon does. But each container has a mount namespace of its own, and that tells its processes.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
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
    /// That of the calling process. System calls only: for a child that has just made itself one.
    pub(super) fn own() -> io::Result<Self> {
        Ok(Self(rustix::fs::stat(c"/proc/self/ns/mnt")?.st_ino))
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
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use rustix::process::{WaitOptions, waitpid};

    use crate::process::birth::{self, Program};

    #[test]
    fn daemons_are_found_by_their_mounts() {
        let script = "setsid sleep 1000 & setsid setsid sleep 1000 & wait";
        let program = Program::new("sh", &["-c".to_owned(), script.to_owned()], &[], None).unwrap();
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        let mut realm = None;
        let mut make = || {
            // SAFETY: the child has one thread.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS)? };
            realm = Some(Realm::own()?);
            Ok(())
        };
        let child = birth::start(&program, [null.as_fd(); 3], &mut make).unwrap();
        let realm = realm.unwrap();
        let number = |pid: Pid| pid.as_raw_nonzero().get().unsigned_abs();
        assert!(realm.holds(number(child)) && !realm.holds(std::process::id()));
        let reaper = std::thread::spawn(move || waitpid(Some(child), WaitOptions::empty()));
        assert_eq!(realm.end(), 0);
        let (_, status) = reaper.join().unwrap().unwrap().unwrap();
        assert!(status.terminating_signal().is_some());
        assert!(realm.stop_all().is_empty());
    }
}

//! Network namespaces: make one under a name, open it, run code inside it, end what runs inside it, remove it.
//!
//! A name is a file that a namespace is bind-mounted on, as `ip netns` does it below `/run/netns`; any path will do.
//! The kernel keeps a network namespace per *thread*, so everything that happens "inside" happens on a thread of its
//! own that ends afterwards: never on a worker of an async runtime. A socket stays in the namespace it was opened in,
//! so the usual thing is to open it inside and to use it outside.
//!
//! Start at [`Netns::create`] and [`Netns::run`]. Links and routes inside are [`crate::rt`]'s matter.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// Where `ip netns` keeps its names.
pub const IP_NETNS_DIR: &str = "/run/netns";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("network namespace {}: cannot {action}: {source}", path.display())]
    At { action: &'static str, path: PathBuf, source: io::Error },
    #[error("network namespace: cannot {action}: {source}")]
    Enter { action: &'static str, source: io::Error },
    #[error("sysctl {key}={value}: {source}")]
    Sysctl { key: String, value: String, source: io::Error },
    #[error("{} processes still run in the network namespace after {waited:?}: {pids:?}", pids.len())]
    StillRunning { pids: Vec<u32>, waited: Duration },
}

/// An open network namespace. It exists for as long as this handle, a name, or a process in it does.
#[derive(Debug)]
pub struct Netns {
    file: File,
    id: Id,
}

/// What the kernel tells namespaces apart by: device and inode of the namespace file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Id {
    device: u64,
    inode: u64,
}

impl Id {
    fn of(meta: &fs::Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino() }
    }
}

impl Netns {
    /// Makes a new, empty namespace (its `lo` is down) and binds it to `path`, whose directory is made if it is missing.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let at = |action| move |source| Error::At { action, path: path.to_owned(), source };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(at("make its directory"))?;
            if dir == Path::new(IP_NETNS_DIR) {
                share(dir).map_err(at("share the mounts of its directory"))?;
            }
        }
        File::create_new(path).map_err(at("create the file it is mounted on"))?;
        on_thread(|| {
            // SAFETY: only the network namespace of this short-lived thread changes; no file descriptor
            // table or address space is unshared.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
                .map_err(|e| at("create it (needs root)")(e.into()))?;
            rustix::mount::mount_bind("/proc/thread-self/ns/net", path).map_err(|e| at("mount it")(e.into()))
        })
        .inspect_err(|_| drop(fs::remove_file(path)))?;
        Self::open(path)
    }

    /// Opens the namespace that is mounted on `path`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let at = |source| Error::At { action: "open it", path: path.to_owned(), source };
        let file = File::open(path).map_err(at)?;
        let on_nsfs = rustix::fs::fstatfs(&file).map_err(|e| at(e.into()))?.f_type == libc::NSFS_MAGIC as _;
        if !on_nsfs {
            return Err(at(io::Error::other("no namespace is mounted here")));
        }
        let id = Id::of(&file.metadata().map_err(at)?);
        Ok(Self { file, id })
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, Error> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace that the process `pid` runs in.
    pub fn of_process(pid: u32) -> Result<Self, Error> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// Takes the name away: unmounts and removes `path`. A name that is already gone is no error.
    /// The namespace itself goes with its last process and handle.
    pub fn delete(path: &Path) -> Result<(), Error> {
        let at = |action, source| Error::At { action, path: path.to_owned(), source };
        // A file may have been mounted over more than once by crashed runs: undo all of it.
        while Self::open(path).is_ok() {
            rustix::mount::unmount(path, UnmountFlags::DETACH).map_err(|e| at("unmount it", e.into()))?;
        }
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(at("remove its file", e)),
            _ => Ok(()),
        }
    }

    /// Another handle on the same namespace.
    pub fn try_clone(&self) -> Result<Self, Error> {
        let file = self
            .file
            .try_clone()
            .map_err(|source| Error::Enter { action: "duplicate its handle", source })?;
        Ok(Self { file, id: self.id })
    }

    /// Whether both handles mean one namespace.
    pub fn is_same(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// Runs `work` inside, on a thread of its own, and waits for it. A panic of `work` is passed on.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        on_thread(|| {
            enter(self.as_fd()).map_err(|source| Error::Enter { action: "enter it", source })?;
            Ok(work())
        })
    }

    /// Writes a sysctl inside. `key` is in the form of a path, `net/ipv4/ip_forward`, since names of links may hold dots.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<(), Error> {
        let path = Path::new("/proc/sys").join(key);
        self.run(|| fs::write(path, value))?.map_err(|source| Error::Sysctl {
            key: key.to_owned(),
            value: value.to_owned(),
            source,
        })
    }

    /// The processes that run inside, this one not counted.
    pub fn processes(&self) -> Vec<u32> {
        let Ok(proc) = fs::read_dir("/proc") else { return Vec::new() };
        proc.flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != std::process::id() && self.holds(*pid))
            .collect()
    }

    fn holds(&self, pid: u32) -> bool {
        // A process that has ended but is not reaped has no namespace any more: the stat fails.
        fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|meta| Id::of(&meta) == self.id)
    }

    /// Kills every process inside (this one excepted) and waits until all are gone, for `patience` at most.
    /// Returns how many there were. What they start meanwhile is killed too.
    pub fn kill_processes(&self, patience: Duration) -> Result<usize, Error> {
        let start = Instant::now();
        let mut killed = 0;
        loop {
            let pids = self.processes();
            if pids.is_empty() {
                return Ok(killed);
            }
            let left = patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(Error::StillRunning { pids, waited: patience });
            }
            let handles: Vec<OwnedFd> = pids.iter().filter_map(|pid| self.kill(*pid)).collect();
            killed += handles.len();
            for handle in &handles {
                wait_readable(handle.as_fd(), patience.saturating_sub(start.elapsed()));
            }
        }
    }

    /// Sends KILL through a handle, looked at again once held: the number may have passed to another process.
    fn kill(&self, pid: u32) -> Option<OwnedFd> {
        let handle = pidfd_open(Pid::from_raw(pid as i32)?, PidfdFlags::empty()).ok()?;
        if !self.holds(pid) {
            return None;
        }
        pidfd_send_signal(&handle, Signal::KILL).ok()?;
        Some(handle)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Moves the calling thread into the namespace `fd`. For threads and for the moment between fork and exec:
/// it makes one system call and allocates nothing.
pub fn enter(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(fd, Some(LinkNameSpaceType::Network))?)
}

fn on_thread<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)
            .map_err(|source| Error::Enter { action: "start a thread for it", source })?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes mounts below `dir` visible in every mount namespace that shares it, as `ip netns` does for its directory:
/// without it, a name made here would be missing where the host's mounts were copied earlier.
fn share(dir: &Path) -> io::Result<()> {
    let flags = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    match rustix::mount::mount_change(dir, flags) {
        Err(rustix::io::Errno::INVAL) => {
            // Not a mount point yet.
            rustix::mount::mount_bind_recursive(dir, dir)?;
            Ok(rustix::mount::mount_change(dir, flags)?)
        }
        other => Ok(other?),
    }
}

fn wait_readable(fd: BorrowedFd<'_>, patience: Duration) {
    let timeout = Timespec::try_from(patience).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
    // An interrupted or failed wait only means that the caller looks again.
    let _ = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&timeout));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    /// A path for a namespace that no other test uses, removed at the end with all that runs inside.
    pub(crate) struct Temp(pub(crate) PathBuf);

    impl Temp {
        pub(crate) fn new() -> Self {
            use std::sync::atomic::{AtomicU32, Ordering};
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("pt-netns-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            drop(Netns::delete(&self.0));
        }
    }

    #[test]
    fn a_namespace_is_made_opened_and_removed() {
        let temp = Temp::new();
        let made = Netns::create(&temp.0).unwrap();
        let opened = Netns::open(&temp.0).unwrap();
        assert!(made.is_same(&opened));
        assert!(!made.is_same(&Netns::current().unwrap()));
        let inside = made.run(Netns::current).unwrap().unwrap();
        assert!(inside.is_same(&made));

        let again = Netns::create(&temp.0).unwrap_err();
        assert!(again.to_string().contains("File exists"), "{again}");
        Netns::delete(&temp.0).unwrap();
        assert!(!temp.0.exists());
        Netns::delete(&temp.0).unwrap();
        assert!(Netns::open(&temp.0).is_err());
    }

    #[test]
    fn a_plain_file_is_no_namespace() {
        let temp = Temp::new();
        File::create_new(&temp.0).unwrap();
        let error = Netns::open(&temp.0).unwrap_err();
        assert!(error.to_string().contains("no namespace is mounted here"), "{error}");
    }

    #[test]
    fn a_sysctl_is_written_inside_only() {
        let temp = Temp::new();
        let ns = Netns::create(&temp.0).unwrap();
        let read = || fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").unwrap();
        let outside = read();
        ns.set_sysctl("net/ipv4/ip_default_ttl", "77").unwrap();
        assert_eq!(ns.run(read).unwrap(), "77\n");
        assert_eq!(read(), outside);
        let error = ns.set_sysctl("net/ipv4/no_such", "1").unwrap_err();
        assert!(error.to_string().starts_with("sysctl net/ipv4/no_such=1: "), "{error}");
    }

    #[test]
    fn processes_inside_are_found_and_killed() {
        let temp = Temp::new();
        let ns = Netns::create(&temp.0).unwrap();
        assert_eq!(ns.processes(), Vec::<u32>::new());
        let fd = ns.try_clone().unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000");
        // SAFETY: `enter` only makes a system call.
        unsafe { command.pre_exec(move || enter(fd.as_fd())) };
        let mut child = command.spawn().unwrap();
        assert_eq!(ns.processes(), [child.id()]);
        assert_eq!(ns.kill_processes(Duration::from_secs(10)).unwrap(), 1);
        assert_eq!(ns.processes(), Vec::<u32>::new());
        assert!(!child.wait().unwrap().success());
    }
}

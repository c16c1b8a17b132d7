//! Control groups (version 2) that hold all processes of something: nobody leaves by forking, and the kernel ends all at
//! once.
//!
//! One group each, next to the maker's own, or inside of one that limits processes ([`PidsLimit`]). By itself it limits
//! nothing, so it needs no controller, only a mount that may be written; where there is none, [`Group::make`] says so. The kernel keeps a group without processes,
//! so its name says who made it, and [`sweep`] removes those of makers that are no more.

mod pids;

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub use pids::PidsLimit;

/// How long processes that were killed may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(1);
/// `portolan-<process>-<when it started>-<number>`
const PREFIX: &str = "portolan-";

/// The process's own group, below which it may make others.
static OWN: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let (mountinfo, cgroup) = own_text();
    own(&mountinfo, &cgroup)
});

/// How many were made.
static MADE: AtomicU64 = AtomicU64::new(0);

fn own_text() -> (String, String) {
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    (read("/proc/self/mountinfo"), read("/proc/self/cgroup"))
}

/// Where `cgroup` (of a process) lies according to `mountinfo`.
fn own(mountinfo: &str, cgroup: &str) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mount = mountinfo.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, at) = (place.next()?, place.next()?);
        (kind.starts_with("cgroup2 ") && root == "/").then_some(at)
    })?;
    Some(Path::new(mount).join(path))
}

/// All processes that entered it, and theirs.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    /// Writing into it moves a process here.
    door: File,
    limit: Option<Arc<PidsLimit>>,
}

/// That of no other group, of any process.
fn unique_name() -> Option<String> {
    let (me, number) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
    Some(format!("{PREFIX}{me}-{}-{number}", start_time(me)?))
}

impl Group {
    /// Whose processes count for `limit` too. `None` where it cannot be made.
    pub fn make(limit: Option<&Arc<PidsLimit>>) -> Option<Self> {
        let parent = limit.and_then(|limit| limit.parent()).or(OWN.as_deref())?;
        let path = parent.join(unique_name()?);
        fs::create_dir(&path).ok()?;
        let open = || {
            // Linux 5.14.
            fs::metadata(path.join("cgroup.kill"))?;
            File::options().write(true).open(path.join("cgroup.procs"))
        };
        if let Ok(door) = open() {
            return Some(Self { path, door, limit: limit.cloned() });
        }
        drop(fs::remove_dir(&path));
        None
    }

    /// The calling process moves here. System calls only.
    pub fn enter(&self) -> io::Result<()> {
        rustix::io::write(self.door.as_fd(), b"0")?;
        self.limit.as_ref().map_or(Ok(()), |limit| limit.enter())
    }

    /// Ends all its processes, also those that are started meanwhile, and removes it. Blocks.
    pub fn end(&self) -> io::Result<()> {
        end(&self.path)
    }
}

/// Ends and removes every group whose maker is no more. Goes on after an error; returns all of them.
pub fn sweep() -> Vec<io::Error> {
    let homes = [OWN.as_ref(), pids::FIRST.as_ref()].into_iter().flatten();
    let entries = homes.filter_map(|home| fs::read_dir(home).ok()).flatten();
    let orphan = |name: &str| {
        let mut parts = name.strip_prefix(PREFIX)?.split('-');
        let (maker, started) = (parts.next()?.parse().ok()?, parts.next()?);
        Some(start_time(maker).as_deref() != Some(started))
    };
    let orphans = entries.flatten().filter(|e| e.file_name().to_str().and_then(orphan) == Some(true));
    orphans.filter_map(|entry| end(&entry.path()).err()).collect()
}

/// When a process started, in clock ticks since boot: field 22 of its `stat`. `None`: there is no such process.
pub fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, also spaces and parentheses.
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_whitespace().nth(19).map(str::to_owned)
}

/// That it is gone already is no error.
fn end(path: &Path) -> io::Result<()> {
    let begin = Instant::now();
    loop {
        match fs::remove_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && begin.elapsed() < KILL_PATIENCE => {}
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => return Ok(()),
        }
        // Again each time: who was on the way in is met as well.
        kill(path);
        let inside = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        inside.filter(|path| path.is_dir()).for_each(|path| drop(fs::remove_dir(path)));
        std::thread::sleep(POLL);
    }
}

/// All processes of a group and of those inside.
fn kill(path: &Path) {
    if fs::write(path.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    // The first version kills one by one.
    let processes = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    for pid in processes.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_times_tell_processes_apart() {
        let own = start_time(std::process::id()).unwrap();
        assert_eq!(start_time(std::process::id()).unwrap(), own);
        assert_ne!(start_time(1).unwrap(), own);
    }

    #[test]
    fn groups_of_makers_that_are_gone_are_swept() {
        // Without a second version that may be written there is nothing to sweep.
        let (Some(own), Some(living)) = (OWN.as_ref(), Group::make(None)) else { return };
        let dead = own.join(format!("{PREFIX}{}-0-{}", std::process::id(), "dead"));
        fs::create_dir(&dead).unwrap();
        assert!(sweep().is_empty());
        assert!(!dead.exists() && living.path.exists());
        living.end().unwrap();
        assert!(!living.path.exists());
    }

    #[test]
    fn the_own_group_is_found() {
        let mixed = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let other = "40 31 0:37 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu";
        let at = |mounts: &str, cgroup| own(mounts, cgroup).map(|path| path.display().to_string());
        let both = format!("{other}\n{mixed}\n");
        assert_eq!(at(&both, "8:pids:/x\n0::/\n").as_deref(), Some("/sys/fs/cgroup/unified/"));
        assert_eq!(
            at(&both, "0::/system.slice/a\n").as_deref(),
            Some("/sys/fs/cgroup/unified/system.slice/a")
        );
        assert_eq!(at(other, "0::/\n"), None, "no mount");
        assert_eq!(at(&both, "8:pids:/\n"), None, "no second version");
        let inner = "41 31 0:38 /other /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        assert_eq!(at(inner, "0::/\n"), None, "a part of the tree that may not be ours");
    }
}

//! All processes of a container, by control group: nobody leaves it by forking, and the kernel ends all at once.
//!
//! One cgroup (version 2) per run of a container, next to the agent's own. Nothing is limited or accounted by it, so it
//! needs no controller, only a mount that may be written. Where there is none, [`super::strays`] does what can be done.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::limits::KILL_PATIENCE;

const POLL: Duration = Duration::from_millis(1);

/// The agent's own cgroup, below which it may make others.
static OWN: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    own(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
});

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

#[derive(Debug)]
pub(crate) struct Group {
    path: PathBuf,
    /// Writing into it moves a process here.
    door: File,
}

impl Group {
    /// `None` where it cannot be made.
    pub(crate) fn make() -> Option<Self> {
        let path = OWN.as_ref()?.join(format!("portolan-{:032x}", rand::random::<u128>()));
        fs::create_dir(&path).ok()?;
        let open = || {
            // Linux 5.14.
            fs::metadata(path.join("cgroup.kill"))?;
            File::options().write(true).open(path.join("cgroup.procs"))
        };
        if let Ok(door) = open() {
            return Some(Self { path, door });
        }
        drop(fs::remove_dir(&path));
        None
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The calling process moves here. Between fork and exec.
    pub(super) fn enter(&self) -> io::Result<()> {
        rustix::io::write(self.door.as_fd(), b"0")?;
        Ok(())
    }

    /// See [`end`].
    pub(crate) fn end(&self) -> io::Result<()> {
        end(&self.path)
    }
}

/// Ends all processes of a group, also those that are started meanwhile, and removes it. Blocks. That it is gone already
/// is no error.
pub(crate) fn end(path: &Path) -> io::Result<()> {
    let begin = Instant::now();
    loop {
        match fs::remove_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && begin.elapsed() < KILL_PATIENCE => {}
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => return Ok(()),
        }
        // Again each time: who was on the way in is met as well.
        drop(fs::write(path.join("cgroup.kill"), "1"));
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

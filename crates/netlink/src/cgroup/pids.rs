//! How many processes and threads the groups of one thing may have together.
//!
//! The second version's controller where it may be used below our own group, else the first version's, which many systems
//! still mount beside it. In the second, groups are made inside of the limited one; in the first, processes enter both.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::{OWN, end, own_text, unique_name};

/// Our own group of the second version, if it hands the controller to those below.
static UNIFIED: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let own = OWN.clone()?;
    let control = own.join("cgroup.subtree_control");
    let given = || Some(fs::read_to_string(&control).ok()?.split_whitespace().any(|word| word == "pids"));
    if given() == Some(false) {
        // Refused where processes live beside the groups, unless it is the root.
        drop(fs::write(&control, "+pids"));
    }
    given().filter(|given| *given).map(|_| own)
});

/// Our own group of the first version's controller.
pub(super) static FIRST: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let (mountinfo, cgroup) = own_text();
    first(&mountinfo, &cgroup)
});

fn first(mountinfo: &str, cgroup: &str) -> Option<PathBuf> {
    let has = |list: &str| list.split(',').any(|word| word == "pids");
    let path = cgroup.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(":/")?;
        has(controllers).then_some(path)
    })?;
    let mount = mountinfo.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, at) = (place.next()?, place.next()?);
        let options = kind.strip_prefix("cgroup ")?.rsplit(' ').next()?;
        (root == "/" && has(options)).then_some(at)
    })?;
    Some(Path::new(mount).join(path))
}

/// A limit on all processes and threads of the groups that are made under it.
#[derive(Debug)]
pub struct PidsLimit {
    path: PathBuf,
    /// Of the first version: what processes enter besides their group.
    door: Option<File>,
}

impl PidsLimit {
    /// `None` where no controller may be used.
    pub fn make(most: u32) -> Option<Self> {
        let under = |own: &Option<PathBuf>| {
            let path = own.as_ref()?.join(unique_name()?);
            fs::create_dir(&path).ok()?;
            match fs::write(path.join("pids.max"), most.to_string()) {
                Ok(()) => Some(path),
                Err(_) => fs::remove_dir(&path).ok().and(None),
            }
        };
        if let Some(path) = under(&UNIFIED) {
            return Some(Self { path, door: None });
        }
        let path = under(&FIRST)?;
        let door = File::options().write(true).open(path.join("cgroup.procs")).ok()?;
        Some(Self { path, door: Some(door) })
    }

    /// Where groups under it are made, unless processes enter both.
    pub(super) fn parent(&self) -> Option<&Path> {
        self.door.is_none().then_some(&*self.path)
    }

    /// The calling process counts here. System calls only.
    pub(super) fn enter(&self) -> io::Result<()> {
        self.door.as_ref().map_or(Ok(()), |door| rustix::io::write(door.as_fd(), b"0").map(drop))?;
        Ok(())
    }

    /// A file that becomes readable with priority (`POLLPRI`) when [`PidsLimit::refused`] changes.
    pub fn events(&self) -> io::Result<File> {
        File::open(self.path.join("pids.events"))
    }

    /// How many forks failed because of it.
    pub fn refused(&self) -> u64 {
        let text = fs::read_to_string(self.path.join("pids.events")).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("max ")?.parse().ok()).unwrap_or(0)
    }
}

impl Drop for PidsLimit {
    /// The groups under it have ended: they hold it.
    fn drop(&mut self) {
        if let Err(error) = end(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a limit on processes stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Group;
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;
    use std::sync::Arc;

    #[test]
    fn the_first_versions_group_is_found() {
        let mounts = "39 31 0:36 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      40 31 0:37 / /sys/fs/cgroup/pids rw shared:9 - cgroup cgroup rw,pids\n";
        let at = |cgroup| first(mounts, cgroup).map(|path| path.display().to_string());
        assert_eq!(at("9:cpu:/\n8:pids:/a/b\n0::/\n").as_deref(), Some("/sys/fs/cgroup/pids/a/b"));
        assert_eq!(at("0::/\n"), None);
        assert_eq!(first("41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", "0::/\n"), None);
    }

    #[test]
    fn forks_beyond_it_fail_and_are_counted() {
        let limit = Arc::new(PidsLimit::make(5).expect("a pids controller that may be used"));
        let group = Group::make(Some(&limit)).expect("a group of the second version");
        let mut command = Command::new("sh");
        command.args(["-c", "for n in 1 2 3 4 5 6 7 8; do sleep 100 & done; wait"]);
        command.stderr(std::process::Stdio::null());
        let (group, inside) = (Arc::new(group), limit.clone());
        let entered = group.clone();
        // SAFETY: only system calls.
        unsafe { command.pre_exec(move || entered.enter()) };
        let mut child = command.spawn().unwrap();
        // Dash gives up at the first fork that fails.
        assert!(!child.wait().unwrap().success());
        assert!(inside.refused() > 0);
        drop(command);
        group.end().unwrap();
        let path = limit.path.clone();
        drop((limit, inside, group));
        assert!(!path.exists());
    }
}

//! The agent's directory, and what a predecessor that crashed left in it and in the kernel.
//!
//! ```text
//! <data_dir>/agent.lock                        held by the running agent
//! <data_dir>/pods/<namespace>_<name>/netns     the pod's network namespace, bind-mounted
//! <data_dir>/pods/<namespace>_<name>/pids/<container>        process id and start time
//! <data_dir>/pods/<namespace>_<name>/etc/hosts                and resolv.conf, hostname: what the pod finds in /etc
//! <data_dir>/pods/<namespace>_<name>/logs/<container>/<n>.log   output of the n-th run, and what was before in <n>.log.1
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use portolan_client::Key;
use portolan_netlink::cgroup::{self, start_time};
use portolan_netlink::netns::Netns;
use portolan_netlink::rt::Rt;
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::Error;
use crate::limits::{KILL_PATIENCE, LOG_RUNS_MAX};
use crate::network::link_name;
use crate::process::rotated;

/// The directory, locked against a second agent.
#[derive(Debug)]
pub(crate) struct StateDir {
    pods: PodDirs,
    lock: File,
}

impl Drop for StateDir {
    /// Lets go of the lock, which closing the file does not while a process that is being born has a copy of it.
    fn drop(&mut self) {
        drop(self.lock.unlock());
    }
}

/// Where the directories of pods are.
#[derive(Debug, Clone)]
pub(crate) struct PodDirs(PathBuf);

impl PodDirs {
    pub(crate) fn pod(&self, key: &Key) -> PodDir {
        PodDir(self.0.join(format!("{}_{}", key.namespace, key.name)))
    }
}

/// The directory of one pod.
#[derive(Debug, Clone)]
pub(crate) struct PodDir(PathBuf);

impl StateDir {
    /// Makes the directory and locks it.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, Error> {
        let pods = data_dir.join("pods");
        fs::create_dir_all(&pods).map_err(at("create it", &pods))?;
        let path = data_dir.join("agent.lock");
        let lock = File::create(&path).map_err(at("create it", &path))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::other("another agent is running on this data directory"))
            .map_err(at("lock it", &path))?;
        Ok(Self { pods: PodDirs(pods), lock })
    }

    pub(crate) fn pod(&self, key: &Key) -> PodDir {
        self.pods.pod(key)
    }

    pub(crate) fn pods(&self) -> PodDirs {
        self.pods.clone()
    }

    /// Removes every pod that a predecessor left. Goes on after an error; returns all of them.
    pub(crate) fn sweep(&self, node_name: &str) -> Vec<String> {
        let mut errors: Vec<String> = cgroup::sweep().iter().map(ToString::to_string).collect();
        let Ok(entries) = fs::read_dir(&self.pods.0) else { return errors };
        let mut rt = Rt::open().ok();
        for entry in entries.flatten() {
            let dir = PodDir(entry.path());
            if let (Some(rt), Some((namespace, name))) =
                (&mut rt, entry.file_name().to_str().and_then(|n| n.split_once('_')))
            {
                // Usually it is gone with the namespace; deleting it now makes that sure.
                drop(rt.delete_link(&link_name(node_name, &Key::new(namespace, name))));
            }
            errors.extend(dir.clear());
        }
        errors
    }
}

impl PodDir {
    /// Where the pod's network namespace is mounted.
    pub(crate) fn netns(&self) -> PathBuf {
        self.0.join("netns")
    }

    /// Where the files are that the pod finds under `/etc`.
    pub(crate) fn etc(&self) -> PathBuf {
        self.0.join("etc")
    }

    /// Where the files of a volume are.
    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.0.join("volumes").join(name)
    }

    /// Notes a container's process, so that a later agent can find it.
    pub(crate) fn note_process(&self, container: &str, pid: u32) {
        let Some(started) = start_time(pid) else { return };
        let dir = self.0.join("pids");
        let written = fs::create_dir_all(&dir)
            .and_then(|()| fs::write(dir.join(container), format!("{pid} {started}")));
        if let Err(error) = written {
            tracing::warn!(path = %dir.display(), %error, "cannot note a process id");
        }
    }

    /// Where the log of a container's run goes. Makes the directory and removes the logs of long ago.
    pub(crate) fn log(&self, container: &str, run: i32) -> io::Result<PathBuf> {
        let dir = self.0.join("logs").join(container);
        fs::create_dir_all(&dir)?;
        let old = dir.join(format!("{}.log", run - LOG_RUNS_MAX));
        drop(fs::remove_file(rotated(&old)));
        drop(fs::remove_file(old));
        Ok(dir.join(format!("{run}.log")))
    }

    /// Where the log of a container's run is, if it is kept.
    pub(crate) fn log_path(&self, container: &str, run: i32) -> PathBuf {
        self.0.join("logs").join(container).join(format!("{run}.log"))
    }

    /// Ends everything that runs for the pod and removes its directory. Collects errors and goes on.
    pub(crate) fn clear(&self) -> Vec<String> {
        let mut errors = self.end_processes();
        errors.extend(self.remove());
        errors
    }

    /// Ends everything that runs for the pod and gives up its namespace; logs stay.
    pub(crate) fn end_processes(&self) -> Vec<String> {
        self.kill_noted();
        let mut errors = Vec::new();
        if let Ok(netns) = Netns::open(&self.netns()) {
            errors.extend(netns.kill_processes(KILL_PATIENCE).err().map(|e| e.to_string()));
        }
        errors.extend(Netns::delete(&self.netns()).err().map(|e| e.to_string()));
        errors
    }

    fn remove(&self) -> Option<String> {
        match fs::remove_dir_all(&self.0) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Some(format!("{}: {e}", self.0.display())),
            _ => None,
        }
    }

    /// Kills noted processes that still run; these may be outside the pod's namespace (hostNetwork).
    fn kill_noted(&self) {
        let Ok(entries) = fs::read_dir(self.0.join("pids")) else { return };
        for entry in entries.flatten() {
            let noted = fs::read_to_string(entry.path()).unwrap_or_default();
            let Some((pid, started)) = noted.split_once(' ') else { continue };
            let Ok(pid) = pid.parse::<u32>() else { continue };
            // A number that was given to another process since is not ours to kill.
            if start_time(pid).as_deref() == Some(started) {
                let _ = Pid::from_raw(pid as i32).map(|pid| kill_process_group(pid, Signal::KILL));
            }
        }
    }
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_free_at_once_whoever_has_a_copy_of_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::open(dir.path()).unwrap();
        assert!(StateDir::open(dir.path()).is_err());
        let copy = first.lock.try_clone().unwrap();
        drop(first);
        StateDir::open(dir.path()).unwrap();
        drop(copy);
    }
}

//! The lock of iptables-legacy: a file that every program locks before it reads what it is going to replace.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

/// As in iptables; the environment may name another.
const PATH: &str = "/run/xtables.lock";
const PATH_VARIABLE: &str = "XTABLES_LOCKFILE";
const POLL: Duration = Duration::from_millis(2);

#[derive(Debug, Error)]
pub enum LockError {
    #[error("cannot open {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("{} is held by another program for more than {patience:?}", path.display())]
    Held { path: PathBuf, patience: Duration },
}

/// Held until it is dropped.
#[derive(Debug)]
pub struct Lock(File);

impl Drop for Lock {
    /// Lets go of the lock, which closing the file does not while a process that is being born has a copy of it.
    fn drop(&mut self) {
        drop(self.0.unlock());
    }
}

impl Lock {
    pub fn take(patience: Duration) -> Result<Self, LockError> {
        let path = std::env::var_os(PATH_VARIABLE).map_or_else(|| PATH.into(), PathBuf::from);
        Self::of(&path, patience)
    }

    fn of(path: &Path, patience: Duration) -> Result<Self, LockError> {
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let failed = |source| LockError::Open { path: path.to_owned(), source };
        let file = open.map_err(failed)?;
        let deadline = Instant::now() + patience;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self(file)),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
            if Instant::now() >= deadline {
                return Err(LockError::Held { path: path.to_owned(), patience });
            }
            std::thread::sleep(POLL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_the_next_waits() {
        let path = std::env::temp_dir().join(format!("portolan-xtables-{}.lock", std::process::id()));
        let first = Lock::of(&path, Duration::ZERO).unwrap();
        assert!(matches!(Lock::of(&path, Duration::ZERO), Err(LockError::Held { .. })));
        let second = std::thread::scope(|scope| {
            let waits = scope.spawn(|| Lock::of(&path, Duration::from_secs(30)));
            drop(first);
            waits.join().unwrap()
        });
        assert!(second.is_ok());
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Lock::of(Path::new("/nowhere/lock"), Duration::ZERO), Err(LockError::Open { .. })));
    }
}

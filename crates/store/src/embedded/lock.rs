//! One process per data directory: a lock file that says who holds it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::Error;

/// Held as long as the store is open. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct DirLock {
    file: File,
}

impl Drop for DirLock {
    /// Lets go of the lock, which closing the file does not while a process that is being born has a copy of it.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl DirLock {
    pub(super) fn take(dir: &Path) -> Result<DirLock, Error> {
        let path = dir.join("lock");
        let unavailable = |e: std::io::Error| Error::Unavailable(format!("{}: {e}", path.display()));
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(unavailable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(dir, &mut file)),
            Err(TryLockError::Error(e)) => return Err(unavailable(e)),
        }
        file.set_len(0).map_err(unavailable)?;
        file.rewind().map_err(unavailable)?;
        writeln!(file, "{}", std::process::id()).map_err(unavailable)?;
        Ok(DirLock { file })
    }
}

fn in_use(dir: &Path, file: &mut File) -> Error {
    let mut text = String::new();
    // The holder may not have written its number yet; the error is true without it.
    let _ = file.read_to_string(&mut text);
    let pid = text.trim();
    let pid = if pid.is_empty() { "unknown" } else { pid };
    Error::InUse { path: dir.to_owned(), pid: pid.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_free_at_once_whoever_has_a_copy_of_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::take(dir.path()).unwrap();
        assert!(matches!(DirLock::take(dir.path()), Err(Error::InUse { .. })));
        let copy = first.file.try_clone().unwrap();
        drop(first);
        DirLock::take(dir.path()).unwrap();
        drop(copy);
    }
}

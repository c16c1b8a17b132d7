//! Filling a data directory from a snapshot: beside what is there, then in its place.

use std::path::{Path, PathBuf};

use super::disk::{Disk, FILE};
use super::lock::DirLock;
use crate::limits::GROUP_BYTES_MAX;
use crate::{Error, KeyValue, Revision};

const PART: &str = "store.redb.part";

/// A store being made. Dropped before its end, it leaves the directory as it was.
#[derive(Debug)]
pub(crate) struct Restoring {
    dir: PathBuf,
    /// `None` when it is closed.
    disk: Option<Disk>,
    waiting: Vec<KeyValue>,
    bytes: usize,
    _lock: DirLock,
}

impl Restoring {
    /// `None`: there is a store already, and `force` is not given.
    pub(crate) fn begin(dir: &Path, force: bool) -> Result<Option<Restoring>, Error> {
        std::fs::create_dir_all(dir).map_err(|e| unavailable(dir, &e))?;
        let lock = DirLock::take(dir)?;
        if dir.join(FILE).exists() && !force {
            return Ok(None);
        }
        remove(&dir.join(PART))?;
        let disk = Disk::open_file(dir, PART)?;
        Ok(Some(Restoring { dir: dir.into(), disk: Some(disk), waiting: Vec::new(), bytes: 0, _lock: lock }))
    }

    pub(crate) fn add(&mut self, kv: &KeyValue) -> Result<(), Error> {
        self.bytes += kv.key.len() + kv.value.len();
        self.waiting.push(kv.clone());
        if self.bytes > GROUP_BYTES_MAX { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        if let Some(disk) = &self.disk {
            disk.fill(&self.waiting)?;
        }
        self.waiting.clear();
        self.bytes = 0;
        Ok(())
    }

    /// The store is at `revision`, has no history, and takes its place.
    pub(crate) fn finish(mut self, revision: Revision) -> Result<(), Error> {
        self.flush()?;
        if let Some(disk) = self.disk.take() {
            disk.append(&[], &[], Some(revision))?;
        }
        let (part, file) = (self.dir.join(PART), self.dir.join(FILE));
        std::fs::rename(&part, &file).map_err(|e| unavailable(&file, &e))?;
        std::fs::File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(|e| unavailable(&self.dir, &e))
    }
}

impl Drop for Restoring {
    fn drop(&mut self) {
        if self.disk.take().is_some() {
            let _ = std::fs::remove_file(self.dir.join(PART));
        }
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(unavailable(path, &e)),
        _ => Ok(()),
    }
}

fn unavailable(path: &Path, error: &std::io::Error) -> Error {
    Error::Unavailable(format!("{}: {error}", path.display()))
}

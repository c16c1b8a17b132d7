//! Where a database's bytes are: a file, or, in tests, a disk that loses power.
//!
//! The file takes its room when it grows, not when it is written to. So a full disk shows at a moment when nothing has
//! been written that would have to be undone, and the store can go on when there is room again.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;

/// What can be opened again after trouble.
pub(super) trait Medium: Debug + Send + Sync {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>>;

    /// For error messages.
    fn name(&self) -> String;
}

/// A file. Locking is its directory's business.
#[derive(Debug)]
pub(super) struct FileMedium(pub(super) PathBuf);

impl Medium for FileMedium {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&self.0)?;
        Ok(Box::new(FileBytes { file }))
    }

    fn name(&self) -> String {
        Path::display(&self.0).to_string()
    }
}

#[derive(Debug)]
struct FileBytes {
    file: File,
}

impl StorageBackend for FileBytes {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let now = self.len()?;
        if len > now {
            reserve(&self.file, now, len - now)?;
        }
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
}

/// Takes room on the disk, where the file system knows how.
fn reserve(file: &File, offset: u64, len: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), offset, len) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) | Ok(()) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// What redb gets: the medium's bytes, and a note of whether syncing them ever failed.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) bytes: Box<dyn StorageBackend>,
    /// After a failed sync nobody knows what is on disk; what is read back may be only in memory.
    pub(super) sync_failed: Arc<AtomicBool>,
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.bytes.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.bytes.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.bytes.sync_data().inspect_err(|_| self.sync_failed.store(true, Ordering::SeqCst))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.bytes.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.bytes.close()
    }
}

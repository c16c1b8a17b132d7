//! A store's content in one file: saved from a running store, checked, and restored into a data directory.
//!
//! The file: [`MAGIC`], the revision and the time (8 bytes each, big-endian, as all numbers); for each key a byte 1,
//! the lengths of key and value (4 each), create and mod revision (8 each), key, value; at the end a byte 0, the number
//! of keys (8), and the SHA-256 of everything before. So a file that is cut short or changed is known as such.
//!
//! Only the content at one revision is kept, not its history. A restored store goes on far ahead of that revision, and
//! forgets what was before: every client that knew the store, at whatever revision, is told to list again.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

use crate::limits::{KEY_SIZE_MAX, RESTORE_REVISIONS, SNAPSHOT_PAGE, VALUE_SIZE_MAX};
use crate::{Error, KeyValue, Revision, Store, embedded};

const MAGIC: &[u8; 20] = b"portolan-snapshot-1\n";
const RECORD: u8 = 1;
const END: u8 = 0;

/// Why a snapshot could not be written, read or restored.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: not a whole snapshot: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error("{} holds a store already; --force replaces it", dir.display())]
    NotEmpty { dir: PathBuf },
    #[error(transparent)]
    Store(#[from] Error),
}

/// What a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub revision: Revision,
    /// Seconds since 1970.
    pub saved_at: u64,
    pub keys: u64,
    /// Of the whole file.
    pub bytes: u64,
    /// SHA-256, in hexadecimal.
    pub hash: String,
}

/// Makes a snapshot, piece by piece.
pub struct Saver {
    store: Arc<dyn Store>,
    saved_at: u64,
    hash: Sha256,
    state: State,
}

enum State {
    Begin,
    After { revision: Revision, last: Arc<str>, keys: u64 },
    End { keys: u64 },
    Done,
}

impl Saver {
    pub fn new(store: Arc<dyn Store>) -> Saver {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let saved_at = now.map_or(0, |d| d.as_secs());
        Saver { store, saved_at, hash: Sha256::new(), state: State::Begin }
    }

    /// The next piece; `None` at the end. After an error the snapshot is worthless.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let mut out = BytesMut::new();
        self.state = match std::mem::replace(&mut self.state, State::Done) {
            State::Done => return Ok(None),
            State::Begin => {
                let page = self.store.list("", None, SNAPSHOT_PAGE, None).await?;
                out.put_slice(MAGIC);
                out.put_u64(page.revision);
                out.put_u64(self.saved_at);
                Self::page(&mut out, &page, 0)
            }
            State::After { revision, last, keys } => {
                let page = self.store.list("", Some(&last), SNAPSHOT_PAGE, Some(revision)).await?;
                Self::page(&mut out, &page, keys)
            }
            State::End { keys } => {
                out.put_u8(END);
                out.put_u64(keys);
                self.hash.update(&out);
                out.put_slice(&self.hash.finalize_reset());
                return Ok(Some(out.freeze()));
            }
        };
        self.hash.update(&out);
        Ok(Some(out.freeze()))
    }

    fn page(out: &mut BytesMut, page: &crate::Page, keys: u64) -> State {
        for kv in &page.items {
            out.put_u8(RECORD);
            out.put_u32(kv.key.len() as u32);
            out.put_u32(kv.value.len() as u32);
            out.put_u64(kv.create_revision);
            out.put_u64(kv.mod_revision);
            out.put_slice(kv.key.as_bytes());
            out.put_slice(&kv.value);
        }
        let keys = keys + page.items.len() as u64;
        match page.items.last() {
            Some(last) if page.remaining > 0 => {
                State::After { revision: page.revision, last: last.key.clone(), keys }
            }
            _ => State::End { keys },
        }
    }
}

/// Writes a snapshot of a store to a file that is there when it is whole and on disk, and not before.
pub async fn save(store: Arc<dyn Store>, path: &Path) -> Result<Summary, SnapshotError> {
    let mut writer = FileWriter::create(path)?;
    let mut saver = Saver::new(store);
    while let Some(piece) = saver.next().await? {
        writer.write(&piece)?;
    }
    writer.finish()
}

/// A file beside the one wanted, which takes its name when it is whole.
#[derive(Debug)]
pub struct FileWriter {
    path: PathBuf,
    part: PathBuf,
    file: io::BufWriter<std::fs::File>,
}

impl FileWriter {
    pub fn create(path: &Path) -> Result<FileWriter, SnapshotError> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        // It holds Secrets.
        let file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&part);
        let file = file.map_err(|source| SnapshotError::File { path: part.clone(), source })?;
        Ok(FileWriter { path: path.to_owned(), part, file: io::BufWriter::new(file) })
    }

    pub fn write(&mut self, piece: &[u8]) -> Result<(), SnapshotError> {
        self.file.write_all(piece).map_err(|source| SnapshotError::File { path: self.part.clone(), source })
    }

    /// Checks what was written, makes it durable and gives it its name.
    pub fn finish(self) -> Result<Summary, SnapshotError> {
        let failed = |source| SnapshotError::File { path: self.part.clone(), source };
        let file = self.file.into_inner().map_err(|e| failed(e.into_error()))?;
        file.sync_all().map_err(failed)?;
        let summary = status(&self.part)?;
        std::fs::rename(&self.part, &self.path).map_err(failed)?;
        sync_parent(&self.path).map_err(failed)?;
        Ok(summary)
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(parent)?.sync_all()
}

/// Reads a whole snapshot and says what it holds, if it is whole.
pub fn status(path: &Path) -> Result<Summary, SnapshotError> {
    read(path, |_| Ok(()))
}

/// Makes a store of a snapshot in the directory `dir`, which must not have one unless `force` is given. Then the old
/// one stays until the new one is whole, and is gone after.
pub fn restore(path: &Path, dir: &Path, force: bool) -> Result<Summary, SnapshotError> {
    // All of it, before anything is touched.
    let summary = status(path)?;
    let revision = summary.revision + RESTORE_REVISIONS;
    let mut restoring =
        embedded::Restoring::begin(dir, force)?.ok_or_else(|| SnapshotError::NotEmpty { dir: dir.into() })?;
    read(path, |kv| Ok(restoring.add(&kv)?))?;
    restoring.finish(revision)?;
    Ok(summary)
}

fn read(
    path: &Path,
    each: impl FnMut(KeyValue) -> Result<(), SnapshotError>,
) -> Result<Summary, SnapshotError> {
    let file =
        std::fs::File::open(path).map_err(|source| SnapshotError::File { path: path.into(), source })?;
    decode(io::BufReader::new(file), path, each)
}

/// What reads a snapshot: keeps count and hash of what has passed.
struct Input<R> {
    inner: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> Input<R> {
    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut out = vec![0; length];
        self.inner.read_exact(&mut out)?;
        self.hash.update(&out);
        self.bytes += length as u64;
        Ok(out)
    }

    fn number(&mut self) -> io::Result<u64> {
        Ok(self.take(8)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn length(&mut self) -> io::Result<usize> {
        Ok(self.take(4)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }
}

fn decode(
    input: impl Read,
    path: &Path,
    mut each: impl FnMut(KeyValue) -> Result<(), SnapshotError>,
) -> Result<Summary, SnapshotError> {
    let damaged = |why: &str| SnapshotError::Damaged { path: path.into(), why: why.into() };
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it is cut short"),
        _ => SnapshotError::File { path: path.into(), source },
    };
    let mut input = Input { inner: input, hash: Sha256::new(), bytes: 0 };
    if input.take(MAGIC.len()).map_err(failed)? != MAGIC {
        return Err(damaged("it does not begin as one"));
    }
    let (revision, saved_at) = (input.number().map_err(failed)?, input.number().map_err(failed)?);
    let mut keys = 0;
    let mut last: Option<Arc<str>> = None;
    while input.take(1).map_err(failed)? == [RECORD] {
        let kv = record(&mut input, failed)?.filter(|kv| kv.mod_revision <= revision);
        let kv = kv.filter(|kv| last.as_ref().is_none_or(|last| *last < kv.key));
        let kv = kv.ok_or_else(|| damaged("a record makes no sense"))?;
        last = Some(kv.key.clone());
        keys += 1;
        each(kv)?;
    }
    if input.number().map_err(failed)? != keys {
        return Err(damaged("the number of keys is wrong"));
    }
    let expected = input.hash.clone().finalize();
    let found = input.take(32).map_err(failed)?;
    if found[..] != expected[..] {
        return Err(damaged("its checksum is wrong"));
    }
    if input.inner.read(&mut [0]).map_err(failed)? != 0 {
        return Err(damaged("something follows its end"));
    }
    let mut hash = String::new();
    for byte in &found {
        // Writing to a String cannot fail.
        let _ = write!(hash, "{byte:02x}");
    }
    Ok(Summary { revision, saved_at, keys, bytes: input.bytes, hash })
}

/// `None`: it makes no sense.
fn record<R: Read>(
    input: &mut Input<R>,
    failed: impl Fn(io::Error) -> SnapshotError,
) -> Result<Option<KeyValue>, SnapshotError> {
    let (key, value) = (input.length().map_err(&failed)?, input.length().map_err(&failed)?);
    // Before memory is taken for them.
    if key == 0 || key > KEY_SIZE_MAX || value > VALUE_SIZE_MAX {
        return Ok(None);
    }
    let create_revision = input.number().map_err(&failed)?;
    let mod_revision = input.number().map_err(&failed)?;
    let key = input.take(key).map_err(&failed)?;
    let value = input.take(value).map_err(&failed)?;
    let Ok(key) = String::from_utf8(key) else { return Ok(None) };
    Ok(Some(KeyValue { key: key.into(), value: value.into(), create_revision, mod_revision }))
}

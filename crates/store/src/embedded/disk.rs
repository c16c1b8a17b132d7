//! The log on disk: one redb file with one record for each change of a key.
//!
//! Table `log`: (revision, key) -> (put or deleted, create revision, value). A value is stored once. The current
//! state is what remains when the log is read from its start; there is no second table to keep in step.
//! Table `meta`: `format`, and `compacted`, the revision up to which superseded records may be missing.
//!
//! Compaction removes a record when the event that superseded it leaves the in-memory ring, in the same durable
//! write as new records. What a crash leaves behind is found and queued again by [`Disk::load`].

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::medium::{FileMedium, Medium, Watched};
use crate::limits::PAGE_CACHE_BYTES;
use crate::{Error, Event, KeyValue, Revision};

const LOG: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT: u64 = 1;
/// The database's name in its directory.
pub(super) const FILE: &str = "store.redb";

/// A record that no reader needs once history up to `evicted` is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Garbage {
    pub(super) evicted: Revision,
    pub(super) record: Revision,
    pub(super) key: Arc<str>,
}

/// One record of the log, as read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) revision: Revision,
    pub(super) key: Arc<str>,
    pub(super) create_revision: Revision,
    /// `None`: the key was deleted.
    pub(super) value: Option<Bytes>,
}

#[derive(Debug)]
pub(super) struct Disk {
    /// `None` only while it is opened again.
    database: Option<Database>,
    medium: Arc<dyn Medium>,
    sync_failed: Arc<AtomicBool>,
}

impl Disk {
    pub(super) fn open(dir: &Path) -> Result<Disk, Error> {
        Disk::open_file(dir, FILE)
    }

    /// Opens the database, or makes it. redb cannot open what a power cut left of making one, so a new one gets its name
    /// when it is whole.
    pub(super) fn open_file(dir: &Path, name: &str) -> Result<Disk, Error> {
        let path = dir.join(name);
        if !path.exists() {
            let new = dir.join(format!("{name}.new"));
            let failed = |e: std::io::Error| storage(&new.display(), e);
            match std::fs::remove_file(&new) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
                _ => {}
            }
            drop(Disk::on(Arc::new(FileMedium(new.clone())))?);
            std::fs::File::open(&new).and_then(|file| file.sync_all()).map_err(failed)?;
            std::fs::rename(&new, &path).map_err(failed)?;
            // The name must survive a power cut as well as the content.
            std::fs::File::open(dir).and_then(|d| d.sync_all()).map_err(|e| storage(&dir.display(), e))?;
        }
        Disk::on(Arc::new(FileMedium(path)))
    }

    pub(super) fn on(medium: Arc<dyn Medium>) -> Result<Disk, Error> {
        let mut disk = Disk { database: None, medium, sync_failed: Arc::new(AtomicBool::new(false)) };
        disk.reopen()?;
        Ok(disk)
    }

    /// Opens the database, after trouble anew.
    pub(super) fn reopen(&mut self) -> Result<(), Error> {
        // The old one closes first: it lets go of nothing that was acknowledged.
        self.database = None;
        let name = self.medium.name();
        let bytes = self.medium.open().map_err(|e| storage(&name, e))?;
        let bytes = Watched { bytes, sync_failed: self.sync_failed.clone() };
        let database = Database::builder().set_cache_size(PAGE_CACHE_BYTES).create_with_backend(bytes);
        self.database = Some(database.map_err(|e| storage(&name, e))?);
        self.check_format().map_err(|e| match e {
            Error::Unavailable(text) => Error::Unavailable(format!("{name}: {text}")),
            e => e,
        })
    }

    /// Whether what was written since the last good sync may be in memory only, whatever is read back.
    pub(super) fn is_doubtful(&self) -> bool {
        self.sync_failed.load(Ordering::SeqCst)
    }

    fn database(&self) -> Result<&Database, Error> {
        self.database.as_ref().ok_or_else(|| Error::Unavailable(format!("{} is closed", self.medium.name())))
    }

    /// The records after a revision.
    pub(super) fn after(&self, revision: Revision) -> Result<Vec<Record>, Error> {
        let read = self.database()?.begin_read().map_err(unavailable)?;
        let log = read.open_table(LOG).map_err(unavailable)?;
        let start = (revision + 1).to_be_bytes();
        let records = log.range::<&[u8]>(start.as_slice()..).map_err(unavailable)?.map(|entry| {
            let (key, value) = entry.map_err(unavailable)?;
            decode(key.value(), value.value())
        });
        records.collect()
    }

    fn check_format(&self) -> Result<(), Error> {
        let write = self.database()?.begin_write().map_err(unavailable)?;
        let found = {
            let mut meta = write.open_table(META).map_err(unavailable)?;
            write.open_table(LOG).map_err(unavailable)?;
            let found = meta.get("format").map_err(unavailable)?.map(|v| v.value());
            if found.is_none() {
                meta.insert("format", FORMAT).map_err(unavailable)?;
            }
            found
        };
        match found {
            None => write.commit().map_err(unavailable),
            Some(FORMAT) => write.abort().map_err(unavailable),
            Some(other) => Err(Error::Corrupt(format!(
                "the data was written in format {other}; this version reads format {FORMAT} only"
            ))),
        }
    }

    /// Read the whole log in order. Returns the revision up to which history is compacted.
    pub(super) fn load(
        &self,
        mut each: impl FnMut(Record, Revision) -> Result<(), Error>,
    ) -> Result<Revision, Error> {
        let read = self.database()?.begin_read().map_err(unavailable)?;
        let meta = read.open_table(META).map_err(unavailable)?;
        let compacted = meta.get("compacted").map_err(unavailable)?.map_or(0, |v| v.value());
        let log = read.open_table(LOG).map_err(unavailable)?;
        for entry in log.iter().map_err(unavailable)? {
            let (key, value) = entry.map_err(unavailable)?;
            each(decode(key.value(), value.value())?, compacted)?;
        }
        Ok(compacted)
    }

    /// One durable write: the events of a group of transactions, and the removal of old records.
    pub(super) fn append(
        &self,
        events: &[Event],
        garbage: &[Garbage],
        compacted: Option<Revision>,
    ) -> Result<(), Error> {
        let mut write = self.database()?.begin_write().map_err(unavailable)?;
        write.set_durability(Durability::Immediate).map_err(unavailable)?;
        {
            let mut log = write.open_table(LOG).map_err(unavailable)?;
            let mut value = Vec::new();
            for event in events {
                encode_value(event, &mut value);
                let key = encode_key(event.revision, &event.key);
                log.insert(key.as_slice(), value.as_slice()).map_err(unavailable)?;
            }
            for old in garbage {
                let key = encode_key(old.record, &old.key);
                log.remove(key.as_slice()).map_err(unavailable)?;
            }
        }
        if let Some(compacted) = compacted {
            let mut meta = write.open_table(META).map_err(unavailable)?;
            meta.insert("compacted", compacted).map_err(unavailable)?;
        }
        write.commit().map_err(|e| match unavailable(e) {
            // It may be on disk or not: whoever opens the file next will see.
            Error::Unavailable(text) => Error::Unknown(text),
            error => error,
        })
    }

    /// Adds the content of a snapshot to a database that nobody uses yet.
    pub(super) fn fill(&self, content: &[KeyValue]) -> Result<(), Error> {
        let write = self.database()?.begin_write().map_err(unavailable)?;
        {
            let mut log = write.open_table(LOG).map_err(unavailable)?;
            let mut value = Vec::new();
            for kv in content {
                encode(Some(&kv.value), kv.create_revision, &mut value);
                let key = encode_key(kv.mod_revision, &kv.key);
                log.insert(key.as_slice(), value.as_slice()).map_err(unavailable)?;
            }
        }
        write.commit().map_err(unavailable)
    }

    #[cfg(test)]
    pub(super) fn record_count(&self) -> u64 {
        use redb::ReadableTableMetadata;
        let read = self.database().and_then(|d| d.begin_read().map_err(unavailable)).expect("readable");
        read.open_table(LOG).expect("the log").len().expect("a length")
    }
}

fn encode_key(revision: Revision, key: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + key.len());
    out.extend_from_slice(&revision.to_be_bytes());
    out.extend_from_slice(key.as_bytes());
    out
}

const DELETED: u8 = 0;
const PUT: u8 = 1;

fn encode_value(event: &Event, out: &mut Vec<u8>) {
    let create_revision = event.previous.as_ref().map_or(event.revision, |p| p.create_revision);
    encode(event.value.as_deref(), create_revision, out);
}

fn encode(value: Option<&[u8]>, create_revision: Revision, out: &mut Vec<u8>) {
    out.clear();
    out.push(if value.is_some() { PUT } else { DELETED });
    out.extend_from_slice(&create_revision.to_be_bytes());
    out.extend_from_slice(value.unwrap_or_default());
}

fn decode(key: &[u8], value: &[u8]) -> Result<Record, Error> {
    let corrupt = || Error::Corrupt(format!("the log has a malformed record of {} bytes", value.len()));
    let (revision, key) = key.split_first_chunk::<8>().ok_or_else(corrupt)?;
    let (tag, value) = value.split_first().ok_or_else(corrupt)?;
    let (create_revision, value) = value.split_first_chunk::<8>().ok_or_else(corrupt)?;
    Ok(Record {
        revision: Revision::from_be_bytes(*revision),
        key: std::str::from_utf8(key).map_err(|_| corrupt())?.into(),
        create_revision: Revision::from_be_bytes(*create_revision),
        value: match *tag {
            PUT => Some(Bytes::copy_from_slice(value)),
            DELETED => None,
            _ => return Err(corrupt()),
        },
    })
}

fn storage(what: &dyn std::fmt::Display, error: impl Into<redb::Error>) -> Error {
    match unavailable(error) {
        Error::Corrupt(text) => Error::Corrupt(format!("{what}: {text}")),
        Error::Full(text) => Error::Full(format!("{what}: {text}")),
        Error::Unavailable(text) => Error::Unavailable(format!("{what}: {text}")),
        error => error,
    }
}

fn unavailable(error: impl Into<redb::Error>) -> Error {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    match error.into() {
        redb::Error::Corrupted(text) => Error::Corrupt(text),
        redb::Error::Io(error) if matches!(error.kind(), StorageFull | QuotaExceeded) => {
            Error::Full(error.to_string())
        }
        error => Error::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(value: Option<&'static str>) -> Event {
        let previous = KeyValue {
            key: "/a/b".into(),
            value: Bytes::from_static(b"old"),
            create_revision: 3,
            mod_revision: 5,
        };
        Event {
            revision: 9,
            key: "/a/b".into(),
            value: value.map(|v| Bytes::from_static(v.as_bytes())),
            previous: Some(previous),
        }
    }

    #[test]
    fn records_read_back_as_written() {
        for value in [Some("new"), Some(""), None] {
            let event = event(value);
            let mut bytes = Vec::new();
            encode_value(&event, &mut bytes);
            let record = decode(&encode_key(event.revision, &event.key), &bytes).unwrap();
            assert_eq!(record.revision, 9);
            assert_eq!(record.create_revision, 3);
            assert_eq!(&*record.key, "/a/b");
            assert_eq!(record.value, event.value);
        }
    }

    #[test]
    fn malformed_records_are_reported() {
        let key = encode_key(1, "k");
        assert!(matches!(decode(&key[..7], &[1; 9]), Err(Error::Corrupt(_))));
        assert!(matches!(decode(&key, &[1; 8]), Err(Error::Corrupt(_))));
        assert!(matches!(decode(&key, &[]), Err(Error::Corrupt(_))));
        assert!(matches!(decode(&key, &[7; 9]), Err(Error::Corrupt(_))));
        let mut bad = key.clone();
        bad.push(0xff);
        assert!(matches!(decode(&bad, &[1; 9]), Err(Error::Corrupt(_))));
    }
}

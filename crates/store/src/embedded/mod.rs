//! The store in one file of this machine.

use std::path::Path;

use futures_util::future::BoxFuture;

use crate::{Commit, Error, KeyValue, Page, Revision, Store, Txn, Watch};

/// A store in a data directory of this machine. Dropping it finishes the writes under way and closes the file.
#[derive(Debug)]
pub struct Embedded {}

impl Embedded {
    /// Open or create the store in the directory `path`. Reads all current values into memory.
    pub fn open(path: impl AsRef<Path>) -> Result<Embedded, Error> {
        let _ = path;
        todo!()
    }
}

impl Store for Embedded {
    fn get(&self, _key: &str) -> BoxFuture<'_, Result<(Option<KeyValue>, Revision), Error>> {
        todo!()
    }
    fn list(
        &self,
        _prefix: &str,
        _after: Option<&str>,
        _limit: usize,
        _at: Option<Revision>,
    ) -> BoxFuture<'_, Result<Page, Error>> {
        todo!()
    }
    fn commit(&self, _txn: Txn) -> BoxFuture<'_, Result<Commit, Error>> {
        todo!()
    }
    fn watch(&self, _prefix: &str, _after: Revision) -> BoxFuture<'_, Result<Watch, Error>> {
        todo!()
    }
    fn revision(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        todo!()
    }
    fn compact(&self, _before: Revision) -> BoxFuture<'_, Result<(), Error>> {
        todo!()
    }
}

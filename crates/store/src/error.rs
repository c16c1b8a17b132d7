//! Why a store call failed, and whether to try again.

use std::path::PathBuf;

use crate::Revision;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The API server turns this into 410 Expired.
    #[error("revision is compacted: history starts at revision {oldest}")]
    Compacted {
        /// The oldest revision whose content can still be read, and after which a watch can still start.
        oldest: Revision,
    },
    #[error("revision is in the future: the store is at revision {current}")]
    TooNew { current: Revision },
    /// The watcher did not keep up and was cut off. It can start again from the last revision it saw.
    #[error("watch cut off: {pending} events were waiting for a watcher that does not keep up")]
    SlowWatcher { pending: usize },
    /// The caller's mistake: a key or value over its limit, or one key twice in a transaction.
    #[error("{0}")]
    Invalid(String),
    #[error("data directory {} is in use by process {pid}", path.display())]
    InUse {
        path: PathBuf,
        /// A number, or "unknown".
        pid: String,
    },
    /// Disk or connection trouble. A write that fails so has not happened.
    #[error("store is unavailable: {0}")]
    Unavailable(String),
    /// The store cannot say whether the write happened. It has not been tried twice.
    #[error("outcome of the write is unknown: {0}")]
    Unknown(String),
    /// There is no room. Nothing was written; writes succeed again when there is.
    #[error("store is full: {0}")]
    Full(String),
    /// A value that none of the given keys opens.
    #[error("{key} is {why}; put that key back into the encryption configuration")]
    Sealed { key: String, why: String },
    #[error("store is corrupt: {0}")]
    Corrupt(String),
}

impl Error {
    /// Whether the same call can succeed later, unchanged.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Unavailable(_) | Error::Full(_) | Error::TooNew { .. })
    }
}

//! What can go wrong when a ruleset is changed or read.

use std::fmt;
use std::io;

use thiserror::Error;

/// Why a batch was not applied. Nothing of it is in the kernel, except for [`CommitErrorKind::Unknown`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitError {
    pub kind: CommitErrorKind,
    /// Which operation of the batch, when one is to blame.
    pub op_index: Option<usize>,
    /// That operation in words, with the element when one element of many is to blame.
    pub op: String,
    pub errno: i32,
    /// The kernel's own explanation, when it gave one.
    pub extack: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommitErrorKind {
    /// It is there already, with other content.
    Exists,
    /// It, or something it refers to, is not there.
    Missing,
    /// Something still refers to it.
    Busy,
    /// The set is full.
    Full,
    /// The kernel does not accept it in this form.
    Invalid,
    /// This kernel lacks the feature.
    Unsupported,
    /// The process lacks `CAP_NET_ADMIN` in this network namespace.
    Denied,
    /// Somebody else changed the ruleset meanwhile, or memory was short: try again.
    Retry,
    /// The kernel's answer was lost: the batch may or may not be in effect; read back before going on.
    Unknown,
}

impl CommitError {
    /// The same batch may succeed if sent again, without reading anything back.
    pub fn is_retryable(&self) -> bool {
        self.kind == CommitErrorKind::Retry
    }

    pub(crate) fn of_errno(errno: i32, op_index: Option<usize>, op: String, extack: Option<String>) -> Self {
        Self { kind: CommitErrorKind::of_errno(errno), op_index, op, errno, extack }
    }
}

impl CommitErrorKind {
    pub(crate) fn of_errno(errno: i32) -> Self {
        match errno {
            libc::EEXIST => Self::Exists,
            libc::ENOENT => Self::Missing,
            libc::EBUSY => Self::Busy,
            libc::ENFILE => Self::Full,
            libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT => Self::Unsupported,
            libc::EPERM | libc::EACCES => Self::Denied,
            libc::EAGAIN | libc::EINTR | libc::ENOMEM | libc::ERESTART => Self::Retry,
            libc::ENOBUFS => Self::Unknown,
            _ => Self::Invalid,
        }
    }
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.op_index {
            Some(index) => write!(f, "nftables transaction refused at operation {index} ({})", self.op)?,
            None => write!(f, "nftables transaction failed")?,
        }
        write!(f, ": {}", io::Error::from_raw_os_error(self.errno))?;
        if let Some(extack) = &self.extack {
            write!(f, ": {extack}")?;
        }
        Ok(())
    }
}

impl std::error::Error for CommitError {}

/// Why a ruleset could not be read.
#[derive(Debug, Error)]
pub enum DumpError {
    #[error("{what} does not exist")]
    Missing { what: String },
    #[error("reading {what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("reading {what}: the kernel sent a message that makes no sense: {detail}")]
    Malformed { what: String, detail: &'static str },
}

//! All members as one: calls go to one of them until it fails, then to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::channel::{Channel, Failure, Stream};
use super::codec::Malformed;
use crate::Error;
use crate::limits::{ETCD_ATTEMPT_TIMEOUT_MS, ETCD_CALL_TIMEOUT_MS, ETCD_CONNECT_TIMEOUT_MS, ETCD_RETRY_MS};

/// gRPC's codes, the ones that etcd's answers are told apart by.
mod code {
    pub(super) const INVALID_ARGUMENT: u32 = 3;
    pub(super) const NOT_FOUND: u32 = 5;
    pub(super) const PERMISSION_DENIED: u32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: u32 = 8;
    pub(super) const FAILED_PRECONDITION: u32 = 9;
    pub(super) const OUT_OF_RANGE: u32 = 11;
    pub(super) const UNIMPLEMENTED: u32 = 12;
    pub(super) const UNAUTHENTICATED: u32 = 16;
}

/// What a failure says about the call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The member did not take the call; another may.
    NotTaken,
    /// Nobody knows whether it was carried out.
    Unknown,
    /// The cluster has refused it, and would again.
    Refused,
}

pub(super) fn meaning(failure: &Failure) -> Meaning {
    match failure {
        Failure::Connect(_) => Meaning::NotTaken,
        Failure::Status { code: code::RESOURCE_EXHAUSTED, message } if !message.contains("space") => {
            Meaning::NotTaken
        }
        Failure::Status {
            code:
                code::INVALID_ARGUMENT
                | code::NOT_FOUND
                | code::PERMISSION_DENIED
                | code::RESOURCE_EXHAUSTED
                | code::FAILED_PRECONDITION
                | code::OUT_OF_RANGE
                | code::UNIMPLEMENTED
                | code::UNAUTHENTICATED,
            ..
        } => Meaning::Refused,
        Failure::Lost(_) | Failure::Status { .. } => Meaning::Unknown,
    }
}

/// A refusal as an error of the store. The caller knows about [`is_compacted`] and [`is_future`].
pub(super) fn refusal(failure: &Failure) -> Error {
    match failure {
        Failure::Status { code: code::INVALID_ARGUMENT, message } => Error::Invalid(message.clone()),
        Failure::Status { code: code::RESOURCE_EXHAUSTED, message } => Error::Full(message.clone()),
        failure => Error::Unavailable(format!("etcd refused: {failure}")),
    }
}

pub(super) fn is_compacted(failure: &Failure) -> bool {
    matches!(failure, Failure::Status { code: code::OUT_OF_RANGE, message } if message.contains("compacted"))
}

pub(super) fn is_future(failure: &Failure) -> bool {
    matches!(failure, Failure::Status { code: code::OUT_OF_RANGE, message } if message.contains("future"))
}

impl From<Malformed> for Error {
    fn from(error: Malformed) -> Error {
        Error::Unavailable(error.to_string())
    }
}

#[derive(Debug)]
pub(super) struct Cluster {
    members: Vec<(String, Arc<Channel>)>,
    /// The member that calls go to.
    current: AtomicUsize,
}

/// Which member was asked: given back to [`Cluster::move_on`], so that many failing calls move on once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked(usize);

impl Cluster {
    pub(super) fn new(members: Vec<(String, Arc<Channel>)>) -> Cluster {
        // Not always the first: several servers with one configuration spread over the members.
        let first = rand::random_range(0..members.len().max(1));
        Cluster { members, current: AtomicUsize::new(first) }
    }

    fn member(&self) -> (Asked, &(String, Arc<Channel>)) {
        let index = self.current.load(Ordering::Relaxed);
        (Asked(index), &self.members[index % self.members.len()])
    }

    /// Calls go to the next member from now on.
    pub(super) fn move_on(&self, asked: Asked) {
        let next = asked.0.wrapping_add(1);
        let _ = self.current.compare_exchange(asked.0, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// One call at the current member. A failure names the member.
    pub(super) async fn once(
        &self,
        path: &str,
        message: Bytes,
        deadline: Instant,
    ) -> (Asked, Result<Bytes, Failure>) {
        let (asked, (url, channel)) = self.member();
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let within = left.min(Duration::from_millis(ETCD_ATTEMPT_TIMEOUT_MS));
        (asked, channel.call(path, message, within).await.map_err(|failure| named(url, failure)))
    }

    /// A call that may be made twice: at one member after the other until one answers or time is up.
    pub(super) async fn read(&self, path: &str, message: Bytes) -> Result<Bytes, Failure> {
        let deadline = Instant::now() + Duration::from_millis(ETCD_CALL_TIMEOUT_MS);
        let mut retry = Retry::new(deadline, self.members.len());
        loop {
            let (asked, outcome) = self.once(path, message.clone(), deadline).await;
            match outcome {
                Err(failure) if meaning(&failure) != Meaning::Refused => {
                    self.move_on(asked);
                    if !retry.wait().await {
                        return Err(failure);
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// Opens a stream at the current member; moves on if that fails.
    pub(super) async fn stream(&self, path: &str, message: &Bytes) -> Result<(Asked, Stream), Failure> {
        let (asked, (url, channel)) = self.member();
        let within = Duration::from_millis(ETCD_CONNECT_TIMEOUT_MS);
        let opened = channel.open(path, message, within).await;
        match opened {
            Ok(stream) => Ok((asked, stream)),
            Err(failure) => {
                self.move_on(asked);
                Err(named(url, failure))
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }
}

fn named(url: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Connect(text) => Failure::Connect(format!("{url}: {text}")),
        Failure::Lost(text) => Failure::Lost(format!("{url}: {text}")),
        Failure::Status { code, message } => Failure::Status { code, message: format!("{url}: {message}") },
    }
}

/// When to try again, and when to stop: at once at each other member, then after pauses that double.
#[derive(Debug)]
pub(super) struct Retry {
    deadline: Instant,
    members: usize,
    attempts: usize,
    pause: Duration,
}

impl Retry {
    pub(super) fn new(deadline: Instant, members: usize) -> Retry {
        Retry { deadline, members, attempts: 0, pause: Duration::from_millis(ETCD_RETRY_MS.0) }
    }

    /// Waits until the next attempt is due; false when there is no time for one.
    pub(super) async fn wait(&mut self) -> bool {
        self.attempts += 1;
        if !self.attempts.is_multiple_of(self.members.max(1)) {
            return Instant::now() < self.deadline;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(Duration::from_millis(ETCD_RETRY_MS.1));
        if Instant::now() + pause >= self.deadline {
            return false;
        }
        tokio::time::sleep(pause).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::channel::TlsFiles;
    use super::*;

    fn status(code: u32, message: &str) -> Failure {
        Failure::Status { code, message: message.into() }
    }

    #[test]
    fn what_etcd_says_is_told_apart() {
        assert_eq!(meaning(&Failure::Connect(String::new())), Meaning::NotTaken);
        assert_eq!(meaning(&Failure::Lost(String::new())), Meaning::Unknown);
        // Proposed, then the leader was lost: it may yet be applied.
        assert_eq!(meaning(&status(14, "etcdserver: request timed out")), Meaning::Unknown);
        assert_eq!(meaning(&status(14, "etcdserver: leader changed")), Meaning::Unknown);
        assert_eq!(meaning(&status(8, "etcdserver: too many requests")), Meaning::NotTaken);
        assert_eq!(meaning(&status(8, "etcdserver: mvcc: database space exceeded")), Meaning::Refused);
        assert_eq!(meaning(&status(3, "etcdserver: request is too large")), Meaning::Refused);
        assert!(matches!(refusal(&status(8, "etcdserver: mvcc: database space exceeded")), Error::Full(_)));
        assert!(matches!(refusal(&status(3, "etcdserver: request is too large")), Error::Invalid(_)));
        assert!(is_compacted(&status(11, "etcdserver: mvcc: required revision has been compacted")));
        assert!(is_future(&status(11, "etcdserver: mvcc: required revision is a future revision")));
    }

    #[test]
    fn many_failing_calls_move_on_once() {
        let urls = ["http://a:1".to_owned(), "http://b:1".to_owned()];
        let cluster = Cluster::new(super::super::channel::channels(&urls, &TlsFiles::default()).unwrap());
        let (asked, (first, _)) = cluster.member();
        cluster.move_on(asked);
        cluster.move_on(asked);
        assert_ne!(cluster.member().1.0, *first);
    }
}

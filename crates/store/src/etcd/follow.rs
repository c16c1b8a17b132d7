//! A watch of etcd that goes on over the loss of members: no gap, no duplicate.
//!
//! etcd sends whole revisions, or parts of one marked as fragments. What is complete is remembered by its revision;
//! the next connection starts right behind it, so a part that was cut off comes again as a whole.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::channel::{Failure, Stream};
use super::cluster::{Asked, Cluster, Retry};
use super::layout::Layout;
use super::messages::{self, WatchResponse};
use crate::limits::ETCD_CONNECT_TIMEOUT_MS;
use crate::{Error, Event, Revision};

#[derive(Debug)]
pub(super) struct Follower {
    cluster: Arc<Cluster>,
    layout: Layout,
    range: (Vec<u8>, Vec<u8>),
    /// Everything up to here has been returned.
    after: Revision,
    stream: Option<(Asked, Stream)>,
    /// Parts of a revision that is not complete yet.
    fragments: Vec<messages::Event>,
}

/// What a follower brings.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// In order, whole revisions, never empty.
    Events(Vec<Event>),
    /// Nothing more will come up to this revision.
    Progress(Revision),
}

impl Follower {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        layout: Layout,
        prefix: &str,
        after: Revision,
    ) -> Result<Follower, Error> {
        let range = layout.prefix(prefix)?;
        Ok(Follower { cluster, layout, range, after, stream: None, fragments: Vec::new() })
    }

    /// What comes next. Waits for as long as it takes; the only error is lost history.
    pub(super) async fn next(&mut self) -> Result<News, Error> {
        let mut retry = Retry::new(Instant::now() + Duration::from_hours(24 * 365), self.cluster.len());
        loop {
            match self.receive().await {
                Ok(response) => {
                    if let Some(news) = self.take(response)? {
                        return Ok(news);
                    }
                }
                Err(failure) => {
                    tracing::debug!(%failure, after = self.after, "watch of etcd broke off; resuming");
                    if let Some((asked, _)) = self.stream.take() {
                        self.cluster.move_on(asked);
                    }
                    self.fragments.clear();
                    retry.wait().await;
                }
            }
        }
    }

    /// After lost history: goes on from now, which is the revision returned.
    pub(super) async fn begin_again(&mut self) -> Revision {
        let mut retry = Retry::new(Instant::now() + Duration::from_hours(24 * 365), self.cluster.len());
        self.stream = None;
        self.fragments.clear();
        loop {
            if let Ok(revision) = super::revision(&self.cluster, &self.layout).await {
                self.after = revision;
                return revision;
            }
            retry.wait().await;
        }
    }

    async fn receive(&mut self) -> Result<WatchResponse, Failure> {
        if self.stream.is_none() {
            let start = messages::watch_create(&self.range.0, &self.range.1, self.after + 1);
            let (asked, mut stream) = self.cluster.stream(messages::WATCH, &start).await?;
            let within = Duration::from_millis(ETCD_CONNECT_TIMEOUT_MS);
            let created = tokio::time::timeout(within, stream.next()).await;
            let created = created.unwrap_or_else(|_| Err(Failure::Lost("the watch was not opened".into())));
            self.stream = Some((asked, stream));
            return decode(created?);
        }
        match &mut self.stream {
            Some((_, stream)) => decode(stream.next().await?),
            None => Err(Failure::Lost("no stream".into())),
        }
    }

    /// What one message brings, if anything.
    fn take(&mut self, response: WatchResponse) -> Result<Option<News>, Error> {
        if response.compact_revision != 0 {
            return Err(Error::Compacted { oldest: response.compact_revision });
        }
        if response.canceled {
            tracing::debug!(reason = ?response.cancel_reason, "etcd ended a watch; resuming");
            if let Some((asked, _)) = self.stream.take() {
                self.cluster.move_on(asked);
            }
            self.fragments.clear();
            return Ok(None);
        }
        let quiet = response.events.is_empty() && !response.created && !response.fragment;
        self.fragments.extend(response.events);
        if response.fragment {
            return Ok(None);
        }
        let mut events = Vec::with_capacity(self.fragments.len());
        for event in std::mem::take(&mut self.fragments) {
            if event.kv.mod_revision <= self.after {
                continue;
            }
            match self.layout.event(event) {
                Some(Ok(event)) => events.push(event),
                Some(Err(_)) => return Err(Error::Compacted { oldest: response.revision }),
                None => {}
            }
        }
        if let Some(last) = events.last() {
            self.after = last.revision;
            return Ok(Some(News::Events(events)));
        }
        // A sign of life comes through the same queue as events: all of them up to its revision came before it.
        if quiet && response.revision > self.after {
            self.after = response.revision;
            return Ok(Some(News::Progress(response.revision)));
        }
        Ok(None)
    }
}

fn decode(message: Bytes) -> Result<WatchResponse, Failure> {
    WatchResponse::decode(message).map_err(|e| Failure::Lost(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::channel::{TlsFiles, channels};
    use super::*;

    fn follower(after: Revision) -> Follower {
        let urls = ["http://127.0.0.1:1".to_owned()];
        let channels = channels(&urls, &TlsFiles::default()).unwrap();
        Follower::new(Arc::new(Cluster::new(channels)), Layout::new("", "/t"), "/", after).unwrap()
    }

    fn event(revision: u64) -> messages::Event {
        let kv = messages::KeyValue {
            key: Bytes::from_static(b"/t/a"),
            create_revision: revision,
            mod_revision: revision,
            ..messages::KeyValue::default()
        };
        messages::Event { kv, ..messages::Event::default() }
    }

    fn response(revision: u64, fragment: bool, events: &[u64]) -> WatchResponse {
        let events = events.iter().map(|r| event(*r)).collect();
        WatchResponse { revision, fragment, events, ..WatchResponse::default() }
    }

    fn revisions(news: Option<News>) -> Vec<u64> {
        match news {
            Some(News::Events(events)) => events.iter().map(|e| e.revision).collect(),
            Some(News::Progress(revision)) => panic!("progress {revision}"),
            None => Vec::new(),
        }
    }

    #[test]
    fn a_revision_counts_only_when_it_is_whole_and_only_once() {
        let mut follower = follower(10);
        assert_eq!(revisions(follower.take(response(12, false, &[11, 12])).unwrap()), [11, 12]);
        assert_eq!(revisions(follower.take(response(13, true, &[13, 13])).unwrap()), [0; 0]);
        assert_eq!(follower.after, 12, "a member lost now sends all of 13 again");
        assert_eq!(revisions(follower.take(response(13, false, &[13])).unwrap()), [13, 13, 13]);
        assert_eq!(revisions(follower.take(response(14, false, &[12, 13, 14])).unwrap()), [14]);
    }

    #[test]
    fn signs_of_life_move_on_and_the_opening_does_not() {
        let mut follower = follower(10);
        let created = WatchResponse { created: true, ..response(40, false, &[]) };
        assert_eq!(follower.take(created).unwrap(), None);
        assert_eq!(follower.after, 10, "what lies between is still to come");
        assert_eq!(follower.take(response(40, false, &[])).unwrap(), Some(News::Progress(40)));
        assert_eq!(follower.take(response(40, false, &[])).unwrap(), None);
    }

    #[test]
    fn lost_history_is_an_error() {
        let compacted = WatchResponse { compact_revision: 30, canceled: true, ..response(40, false, &[]) };
        assert_eq!(follower(10).take(compacted), Err(Error::Compacted { oldest: 30 }));
        let mut untold = response(40, false, &[40]);
        untold.events[0].deleted = true;
        assert!(matches!(follower(10).take(untold), Err(Error::Compacted { .. })));
    }
}

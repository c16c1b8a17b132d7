//! A pod's limit on processes and threads, and word of the first fork that failed by it.

use std::sync::{Arc, Once};

use portolan_netlink::cgroup::PidsLimit;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::worker::News;
use crate::limits::PIDS_LOOK;

/// Of all containers of one pod.
#[derive(Debug)]
pub(super) struct PodPids {
    pub(super) limit: Arc<PidsLimit>,
    watch: AbortHandle,
}

impl PodPids {
    /// `None`: the node has no controller that may be used.
    pub(super) fn make(most: u32, outbox: mpsc::Sender<News>) -> Option<Self> {
        let Some(limit) = PidsLimit::make(most).map(Arc::new) else {
            // The same holds for every pod of the node.
            static SAID: Once = Once::new();
            SAID.call_once(|| {
                tracing::warn!(most, "no pids controller may be used: pods start as much as they like");
            });
            return None;
        };
        // Not kept by the task: the limit goes with the pod.
        let events = limit.events().and_then(|file| {
            // SAFETY: the file is owned by the `AsyncFd` and never replaced or closed before it.
            Ok(unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }?)
        });
        let watched = Arc::downgrade(&limit);
        let watch = tokio::spawn(async move {
            let events = match events {
                Ok(events) => events,
                Err(error) => return tracing::warn!(%error, "nobody hears of forks that fail"),
            };
            loop {
                if let Ok(Ok(mut guard)) = timeout(PIDS_LOOK, events.ready(Interest::PRIORITY)).await {
                    guard.clear_ready();
                }
                match watched.upgrade().map(|limit| limit.refused()) {
                    Some(0) => {}
                    Some(_) => return drop(outbox.send(News::PidsRefused).await),
                    None => return,
                }
            }
        });
        Some(Self { limit, watch: watch.abort_handle() })
    }
}

impl Drop for PodPids {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

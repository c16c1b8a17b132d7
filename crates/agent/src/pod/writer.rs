//! Writing a pod's status: the newest one, as soon as it changes, without holding up the pod.

use std::sync::Arc;
use std::time::Duration;

use portolan_api::core::v1::{Pod, PodStatus};
use portolan_client::{Client, Error, paths};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::status::merge;

const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What is to be written: a status derived from this version of the pod.
#[derive(Debug, Clone)]
struct Wanted {
    number: u64,
    base: Arc<Pod>,
    status: PodStatus,
}

/// One pod's writer. Statuses that are overtaken before their turn are never written.
#[derive(Debug)]
pub(super) struct StatusWriter {
    wanted: watch::Sender<Option<Wanted>>,
    /// The number of the last one dealt with.
    done: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl StatusWriter {
    pub(super) fn start(client: Client) -> Self {
        let (wanted, inbox) = watch::channel(None);
        let (finished, done) = watch::channel(0);
        let task = tokio::spawn(Task { client, inbox, finished, last: None }.run());
        Self { wanted, done, task }
    }

    pub(super) fn put(&self, base: Arc<Pod>, status: PodStatus) {
        self.wanted.send_modify(|wanted| {
            let number = wanted.as_ref().map_or(1, |w| w.number + 1);
            *wanted = Some(Wanted { number, base, status });
        });
    }

    /// Waits until the newest status is written, or given up since the pod is gone.
    pub(super) async fn flush(&mut self) {
        let newest = self.wanted.borrow().as_ref().map_or(0, |w| w.number);
        drop(self.done.wait_for(|number| *number >= newest).await);
    }
}

impl Drop for StatusWriter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Task {
    client: Client,
    inbox: watch::Receiver<Option<Wanted>>,
    finished: watch::Sender<u64>,
    /// The pod as the last write returned it.
    last: Option<Arc<Pod>>,
}

impl Task {
    async fn run(mut self) {
        let mut wait = RETRY_FIRST;
        while self.inbox.changed().await.is_ok() {
            loop {
                let Some(wanted) = self.inbox.borrow_and_update().clone() else { break };
                match self.write(&wanted).await {
                    Err(error) if error.is_retryable() => {
                        tracing::warn!(%error, pod = %wanted.base.metadata.name, "cannot write a pod's status");
                        tokio::time::sleep(wait).await;
                        wait = (wait * 2).min(RETRY_MAX);
                        continue;
                    }
                    Err(error) if !error.is_not_found() => {
                        tracing::error!(%error, pod = %wanted.base.metadata.name, "a pod's status was refused");
                    }
                    _ => wait = RETRY_FIRST,
                }
                let _ = self.finished.send(wanted.number);
                break;
            }
        }
    }

    async fn write(&mut self, wanted: &Wanted) -> Result<(), Error> {
        let mut base = self.newest(&wanted.base);
        let meta = &wanted.base.metadata;
        let namespace = Some(meta.namespace.as_str());
        loop {
            let status = merge(wanted.status.clone(), &base.status);
            // A pod of the same name that was created anew is not the one we report on.
            if status == base.status || base.metadata.uid != meta.uid {
                self.last = Some(base);
                return Ok(());
            }
            let pod = Pod { status, ..Pod::clone(&base) };
            match self.client.update_status(&paths::PODS, namespace, &meta.name, &pod).await {
                Ok(written) => {
                    self.last = Some(Arc::new(written));
                    return Ok(());
                }
                Err(e) if e.is_conflict() => {
                    base = Arc::new(self.client.get(&paths::PODS, namespace, &meta.name).await?);
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// The watch may not have shown our own last write yet: then that is the version to build on.
    fn newest(&self, seen: &Arc<Pod>) -> Arc<Pod> {
        let version = |pod: &Pod| pod.metadata.resource_version.parse::<u64>().unwrap_or(0);
        match &self.last {
            Some(last) if last.metadata.uid == seen.metadata.uid && version(last) > version(seen) => {
                last.clone()
            }
            _ => seen.clone(),
        }
    }
}

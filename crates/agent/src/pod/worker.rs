//! The task of one pod, from its first sight to the end of its last process.
//!
//! ```text
//! set up network -> [ plan, start, report, wait for news ]* -> tear down -> report -> wait for deletion -> delete
//! ```
//!
//! All news comes to one place, [`Worker::wait`]; after each, everything is planned and derived anew. The parts that act
//! on containers are in `containers`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use portolan_api::Time;
use portolan_api::core::v1::{Pod, PodStatus};
use portolan_client::{Cache, Client, DeleteOptions, EventRecorder, EventType, Key, ObjectRef, paths};
use tokio::sync::{mpsc, watch};

use super::container::{self, Record, RestartPolicy, State};
use super::files;
use super::life::Life;
use super::pids::PodPids;
use super::plan::{is_over, plan};
use super::projected::Projected;
use super::services::ServiceView;
use super::status::{self, View};
use super::writer::StatusWriter;
use crate::Config;
use crate::network::{Attachment, PodNetwork};
use crate::probe;
use crate::process::{Exit, Logs, Mounts, Spawner};
use crate::registry::Registry;
use crate::state_dir::{PodDir, StateDir};

/// The first wait after a pod's network could not be made, and the longest.
const SETUP_RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// News that wait for the worker; senders wait beyond that.
const INBOX: usize = 64;
/// How long a container may take to stop when the agent stops and nobody said otherwise.
const STOP_GRACE: Duration = Duration::from_secs(2);
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// What all pods of the agent share.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) config: Arc<Config>,
    pub(crate) events: EventRecorder,
    pub(crate) spawner: Spawner,
    pub(crate) logs: Logs,
    pub(crate) network: PodNetwork,
    pub(crate) dirs: StateDir,
    pub(crate) registry: Registry,
    pub(crate) range: watch::Receiver<Option<Ipv4Net>>,
    pub(crate) services: Cache<ServiceView>,
}

/// What is to become of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// What its object says.
    Follow,
    /// Its object is gone: end it, there is nobody to report to.
    Gone,
    /// The agent stops: end it, but leave the object.
    Stop,
}

#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(crate) pod: Arc<Pod>,
    pub(crate) wish: Wish,
}

/// News from a container's tasks. `id` tells the run, so that news of an earlier one are known as such.
#[derive(Debug)]
pub(super) enum News {
    Exited {
        index: usize,
        id: String,
        exit: Exit,
    },
    Probe {
        index: usize,
        id: String,
        report: probe::Report,
    },
    /// A fork failed, as the pod has as many processes as it may.
    PidsRefused,
}

pub(super) struct Worker {
    pub(super) ctx: Arc<Context>,
    pub(super) key: Key,
    pub(super) dir: PodDir,
    input: watch::Receiver<Input>,
    pub(super) pod: Arc<Pod>,
    wish: Wish,
    pub(super) records: Vec<Record>,
    /// By index of the record; present while its process runs.
    pub(super) lives: Vec<Option<Life>>,
    pub(super) attachment: Option<Attachment>,
    pub(super) pod_ips: Vec<IpAddr>,
    /// Absent where pods are not limited, or cannot be.
    pub(super) pids: Option<PodPids>,
    /// The pod's own files under `/etc`.
    pub(super) mounts: Arc<Mounts>,
    /// Its volumes, where they are kept up.
    pub(super) projected: Projected,
    start_time: Time,
    network_ready: bool,
    reported: PodStatus,
    writer: StatusWriter,
    inbox: mpsc::Receiver<News>,
    pub(super) outbox: mpsc::Sender<News>,
}

/// Runs a pod to its end.
pub(crate) async fn run(ctx: Arc<Context>, key: Key, mut input: watch::Receiver<Input>) {
    let Input { pod, wish } = input.borrow_and_update().clone();
    let (outbox, inbox) = mpsc::channel(INBOX);
    let records = container::records(&pod, ctx.config.restart_backoff, Instant::now(), Time::now());
    ctx.registry.add(&key, &pod.metadata.uid, records.iter().map(|record| record.name.as_str()));
    let mut worker = Worker {
        dir: ctx.dirs.pod(&key),
        writer: StatusWriter::start(ctx.client.clone()),
        start_time: pod.status.start_time.unwrap_or_else(Time::now),
        reported: PodStatus::default(),
        lives: records.iter().map(|_| None).collect(),
        attachment: None,
        pod_ips: Vec::new(),
        pids: None,
        mounts: Arc::default(),
        projected: Projected::default(),
        network_ready: false,
        ctx,
        key,
        input,
        pod,
        wish,
        records,
        inbox,
        outbox,
    };
    if !worker.has_ended() {
        if worker.set_up().await {
            worker.live().await;
        }
        worker.tear_down().await;
        worker.report();
    }
    worker.wait_for_deletion().await;
    worker.finish().await;
}

impl Worker {
    fn has_ended(&self) -> bool {
        matches!(self.pod.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// The pod is to end, for whatever reason.
    pub(super) fn ending(&self) -> bool {
        self.wish != Wish::Follow || self.pod.metadata.deletion_timestamp.is_some()
    }

    /// How long containers may take to stop.
    pub(super) fn grace(&self) -> Duration {
        let meta = &self.pod.metadata;
        let spec = self.pod.spec.termination_grace_period_seconds;
        let seconds = match meta.deletion_timestamp {
            Some(_) => meta.deletion_grace_period_seconds.or(spec),
            None if self.wish != Wish::Follow => return STOP_GRACE,
            None => spec,
        };
        Duration::from_secs(u64::try_from(seconds.unwrap_or(DEFAULT_GRACE_SECONDS)).unwrap_or(0))
    }

    /// Makes the pod's network. `false`: the pod is to end before that worked.
    async fn set_up(&mut self) -> bool {
        let mut wait = SETUP_RETRY.0;
        while !self.ending() {
            self.report();
            let made = match self.attach().await {
                Ok(()) => self.write_files().await,
                Err(failed) => Err(failed),
            };
            let failed = match made {
                Ok(()) => {
                    self.network_ready = true;
                    return true;
                }
                Err(failed) => failed,
            };
            if self.ending() {
                break;
            }
            let message = format!("Failed to create pod sandbox: {failed}");
            self.event(EventType::Warning, "FailedCreatePodSandBox", "", &message);
            let deadline = Instant::now() + wait;
            while !self.ending() && Instant::now() < deadline {
                self.wait(Some(deadline)).await;
            }
            wait = (wait * 2).min(SETUP_RETRY.1);
        }
        false
    }

    /// Writes what the pod's containers find besides the node's files. The address is known by now.
    async fn write_files(&mut self) -> Result<(), String> {
        let (ctx, dir) = (self.ctx.clone(), self.dir.clone());
        let (pod, ips) = (self.pod.clone(), self.pod_ips.clone());
        let write = move || files::write(&pod, &ips, &ctx.config, &dir);
        let (mounts, complaints) = blocking(write).await??;
        self.mounts = Arc::new(mounts);
        for (reason, message) in complaints {
            self.event(EventType::Warning, reason, "", &message);
        }
        self.projected = Projected::make(&self.ctx.client, &self.pod, &self.dir).await?;
        let most = self.ctx.config.pod_max_pids;
        self.pids = most.and_then(|most| PodPids::make(most, self.outbox.clone()));
        Ok(())
    }

    async fn attach(&mut self) -> Result<(), String> {
        if self.pod.spec.host_network {
            self.pod_ips.clone_from(&self.ctx.config.node_ips);
            return Ok(());
        }
        let mut ranges = self.ctx.range.clone();
        let range = loop {
            if let Some(range) = *ranges.borrow_and_update() {
                break range;
            }
            tokio::select! {
                _ = ranges.changed() => {}
                () = self.wait(None) => {}
            }
            if self.ending() {
                return Err("the pod is to end".into());
            }
        };
        if self.attachment.is_some() {
            return Ok(());
        }
        self.ctx.network.set_range(range);
        let preferred: Option<Ipv4Addr> = self.pod.status.pod_ip.parse().ok();
        let (ctx, key, path) = (self.ctx.clone(), self.key.clone(), self.dir.netns());
        let attach = move || ctx.network.attach(&key, &path, preferred);
        let attachment = blocking(attach).await?.map_err(|e| e.to_string())?;
        self.pod_ips = vec![IpAddr::V4(attachment.address)];
        self.attachment = Some(attachment);
        Ok(())
    }

    /// Until all has ended for good.
    async fn live(&mut self) {
        loop {
            let wake = self.step().await;
            self.report();
            let running = self.records.iter().any(|r| r.running().is_some());
            let terminal = matches!(self.reported.phase.as_str(), "Succeeded" | "Failed");
            if !running && (self.ending() || terminal) {
                return;
            }
            self.wait(wake).await;
        }
    }

    /// Does what is to be done now; returns when to look again without any news.
    async fn step(&mut self) -> Option<Instant> {
        let policy = RestartPolicy::of(&self.pod);
        if self.ending() || is_over(&self.records, policy) {
            self.stop_all();
        } else {
            self.restart_changed();
            for index in plan(&self.records, policy, Instant::now()).start {
                self.start(index).await;
            }
        }
        let now = Instant::now();
        let starts = (!self.ending()).then(|| plan(&self.records, policy, now)).and_then(|plan| {
            // One that failed to start may have no wait: then it is its turn at once.
            if plan.start.is_empty() { plan.wake } else { Some(now) }
        });
        [starts, self.kill_overdue(now)].into_iter().flatten().min()
    }

    /// Waits for news or until `wake`, and takes the news in. Cancel-safe.
    async fn wait(&mut self, wake: Option<Instant>) {
        let sleep = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.input.changed() => {
                let input = self.input.borrow_and_update().clone();
                self.pod = input.pod;
                // The manager that is gone has stopped.
                self.wish = if changed.is_ok() { input.wish } else { Wish::Stop };
            }
            Some(news) = self.inbox.recv() => {
                self.take(news);
                // All that is there already, so that one status says it all.
                while let Ok(news) = self.inbox.try_recv() {
                    self.take(news);
                }
            }
            () = sleep => {}
        }
    }

    fn take(&mut self, news: News) {
        let (News::Exited { index, id, .. } | News::Probe { index, id, .. }) = &news else {
            return self.pids_refused();
        };
        if self.records[*index].running().is_none_or(|running| running.id != *id) {
            return;
        }
        match news {
            News::Exited { index, exit, .. } => self.exited(index, exit),
            News::Probe { index, report, .. } => self.probed(index, &report),
            News::PidsRefused => {}
        }
    }

    fn pids_refused(&self) {
        let most = self.ctx.config.pod_max_pids.unwrap_or_default();
        let message = format!(
            "The pod has as many processes and threads as it may, {most}, and a fork in it failed: \
             if it needs more, raise the node's --pod-max-pids"
        );
        self.event(EventType::Warning, "PidsLimitReached", "", &message);
    }

    /// Hands the present status to the writer.
    fn report(&mut self) {
        if self.wish == Wish::Gone {
            return;
        }
        let derived = status::derive(&View {
            pod: &self.pod,
            records: &self.records,
            network_ready: self.network_ready,
            ending: self.pod.metadata.deletion_timestamp.is_some(),
            pod_ips: &self.pod_ips,
            host_ips: &self.ctx.config.node_ips,
            start_time: self.start_time,
            previous: &self.reported,
            now: Time::now(),
        });
        self.reported = derived.clone();
        // Also when nothing changed here: somebody else may have written over it, which the writer sees.
        self.writer.put(self.pod.clone(), derived);
    }

    /// Ends what is left of the pod on this node.
    async fn tear_down(&mut self) {
        self.lives.iter_mut().for_each(|life| *life = None);
        self.pids = None;
        let (ctx, dir, attachment) = (self.ctx.clone(), self.dir.clone(), self.attachment.take());
        let errors = blocking(move || {
            let mut errors = dir.end_processes();
            if let Some(attachment) = attachment {
                errors.extend(ctx.network.detach(&attachment).err().map(|e| e.to_string()));
            }
            errors
        })
        .await
        .unwrap_or_else(|e| vec![e]);
        self.network_ready = false;
        for error in errors {
            tracing::warn!(%error, pod = %self.key, "cleaning up after a pod");
        }
    }

    async fn wait_for_deletion(&mut self) {
        while !self.ending() {
            self.wait(None).await;
        }
    }

    /// The last words: the object goes now that nothing of it is left.
    async fn finish(mut self) {
        match self.wish {
            Wish::Gone => {}
            Wish::Stop => {
                self.ctx.registry.remove(&self.key);
                drop(tokio::time::timeout(Duration::from_secs(1), self.writer.flush()).await);
                return;
            }
            Wish::Follow => {
                self.writer.flush().await;
                self.delete().await;
            }
        }
        self.ctx.registry.remove(&self.key);
        let dir = self.dir.clone();
        for error in blocking(move || dir.clear()).await.unwrap_or_else(|e| vec![e]) {
            tracing::warn!(%error, pod = %self.key, "removing a pod's directory");
        }
    }

    async fn delete(&mut self) {
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            uid: Some(self.pod.metadata.uid.clone()),
            ..DeleteOptions::default()
        };
        let mut wait = SETUP_RETRY.0;
        while self.wish == Wish::Follow {
            let namespace = Some(&*self.key.namespace);
            match self.ctx.client.delete(&paths::PODS, namespace, &self.key.name, &options).await {
                Err(error) if error.is_retryable() => {
                    tracing::warn!(%error, pod = %self.key, "cannot delete a pod that has ended");
                    self.wait(Some(Instant::now() + wait)).await;
                    wait = (wait * 2).min(SETUP_RETRY.1);
                }
                // Gone already, or another pod by now.
                _ => return,
            }
        }
    }

    /// Records an event about the pod, or about one of its containers.
    pub(super) fn event(&self, kind: EventType, reason: &str, container: &str, message: &str) {
        let meta = &self.pod.metadata;
        let is_init = self.pod.spec.init_containers.iter().any(|c| c.name == container);
        let list = if is_init { "initContainers" } else { "containers" };
        let about = ObjectRef {
            api_version: "v1".into(),
            kind: "Pod".into(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            field_path: if container.is_empty() {
                String::new()
            } else {
                format!("spec.{list}{{{container}}}")
            },
        };
        self.ctx.events.record(&about, kind, reason, message);
    }

    pub(super) fn is_blocked(&self, index: usize) -> bool {
        matches!(self.records[index].state, State::Blocked(_))
    }
}

/// Runs what blocks beside the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())
}

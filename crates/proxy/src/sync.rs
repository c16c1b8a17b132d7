//! The loop: take what is dirty now, compile it, commit it, tell those who want to know; again.
//!
//! It runs on a thread of its own, as writing to the kernel blocks. There is no fixed delay: one change is committed at
//! once, and while a commit runs (and for as long again, where each costs what the whole ruleset does) the next changes
//! gather. The first sync, a restart and the recovery after a failure
//! are one path: read the kernel back, write the difference.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use portolan_client::{EventRecorder, EventType, Key, ObjectRef};
use portolan_dataplane::{DataPlane, Driver, Report};
use portolan_forward::{Delta, NodeView, Note, NoteKind, ServiceChange, ServiceKey};
use portolan_netlink::nft::Intruder;
use portolan_role::Progress;
use tokio::sync::watch;

use crate::alarm::Alarm;
use crate::caches::{Caches, Changes};
use crate::config::{Config, NodePortAddresses};
use crate::conntrack::{Cleaner, own_addresses};
use crate::health::{Health, Now};
use crate::metrics::Metrics;
use crate::modes::Takeover;
use crate::node;
use crate::pace::{Gathering, Pace};
use crate::servers::{Check, HealthChecks};
use crate::snapshot::{Round, Snapshot};
use crate::stale::suspects;
use crate::uncommitted::Uncommitted;
use crate::views::NodeObject;

/// How long a failed commit waits at first, and at most.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Clusters before 1.33 may have no ServiceCIDRs: the first sync does not wait longer for them.
const SERVICE_CIDRS_WAIT: Duration = Duration::from_secs(1);
/// A change of so many Services is written without listening to it.
const LARGE_CHANGE: usize = 64;
/// So many notes are remembered, to tell each once.
const NOTES_MAX: usize = 4096;

/// What the loop works with besides caches and kernel.
pub(crate) struct Surroundings {
    pub(crate) config: Config,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: EventRecorder,
    pub(crate) node: ObjectRef,
    pub(crate) alarm: Alarm,
    pub(crate) takeover: Takeover,
    pub(crate) cleaner: Cleaner,
    pub(crate) health_checks: watch::Sender<HealthChecks>,
    pub(crate) progress: Progress,
}

pub(crate) struct Loop<D: DataPlane> {
    around: Surroundings,
    caches: Caches,
    changes: Changes,
    snapshot: Snapshot,
    driver: Driver<D>,
    uncommitted: Uncommitted,
    triggers: Vec<i128>,
    /// Of the data plane, as far as they are counted.
    cleanup_failures: u64,
    notes_told: HashSet<String>,
    started_ns: i128,
    retry: Duration,
    pace: Pace,
    next_interfaces: Instant,
    gathering: Gathering,
    queued_at: Option<Instant>,
}

impl<D: DataPlane> Loop<D> {
    /// Waits until the caches are complete: no half-listed cluster is ever compiled.
    pub(crate) async fn prepare(around: Surroundings, caches: Caches, plane: D) -> Self {
        caches.services.synced().await;
        caches.slices.synced().await;
        if tokio::time::timeout(SERVICE_CIDRS_WAIT, caches.service_cidrs.synced()).await.is_err() {
            tracing::info!("the API server has no ServiceCIDRs; unused ClusterIPs are not refused");
        }
        let changes = caches.subscribe();
        let now = Instant::now();
        let verify_period = around.config.verify_period;
        let mut prepared = Self {
            snapshot: Snapshot::new(node::view(&around.config, &NodeObject::default(), &[], &[])),
            driver: Driver::new(plane),
            changes,
            caches,
            uncommitted: Uncommitted::default(),
            triggers: Vec::new(),
            cleanup_failures: 0,
            notes_told: HashSet::new(),
            started_ns: jiff::Timestamp::now().as_nanosecond(),
            retry: RETRY_FIRST,
            pace: Pace::new(verify_period, now),
            next_interfaces: now + verify_period,
            gathering: Gathering::new(around.config.min_sync_period, now),
            queued_at: None,
            around,
        };
        prepared.wait_for_node().await;
        prepared
    }

    /// Node ports and source ranges need the node's addresses. A node that never gets any is served without.
    async fn wait_for_node(&mut self) {
        let patience = self.around.config.node_wait;
        let ready = async {
            self.caches.nodes.synced().await;
            while self.node_object().addresses.is_empty() {
                self.changes.nodes.wait().await;
                self.changes.nodes.take();
            }
        };
        if tokio::time::timeout(patience, ready).await.is_err() {
            tracing::warn!(
                node = %self.around.config.node_name,
                "the Node object has no addresses; node ports on primary addresses are not served until it has"
            );
        }
    }

    fn node_object(&self) -> NodeObject {
        let key = Key::new("", self.around.config.node_name.as_str());
        self.caches.nodes.get(&key).map(|node| (*node).clone()).unwrap_or_default()
    }

    fn node_view(&self) -> NodeView {
        let mut cidrs: Vec<IpNet> =
            self.caches.service_cidrs.all().iter().flat_map(|(_, cidrs)| cidrs.iter().copied()).collect();
        cidrs.sort_unstable();
        cidrs.dedup();
        let interfaces: Vec<IpAddr> = match &self.around.config.nodeport_addresses {
            NodePortAddresses::Primary => Vec::new(),
            NodePortAddresses::Cidrs(_) => own_addresses().into_iter().collect(),
        };
        node::view(&self.around.config, &self.node_object(), &cidrs, &interfaces)
    }

    /// Runs until `stop` ends.
    pub(crate) async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        self.node_changed();
        loop {
            self.take_in();
            let wake = self.commit();
            tokio::select! {
                () = &mut stop => break,
                () = self.changes.wait(), if wake.on_change => {}
                intruder = self.around.alarm.rings() => self.alarmed(&intruder),
                () = tokio::time::sleep_until(wake.at.into()) => {}
            }
        }
        if self.around.config.cleanup_on_exit {
            for error in self.driver.cleanup() {
                tracing::warn!(%error, "something of ours is left in the kernel");
            }
        }
    }

    /// Moves what is dirty from the caches to the snapshot.
    fn take_in(&mut self) {
        let metrics = Arc::clone(&self.around.metrics);
        let (services, slices) = (self.changes.services.take(), self.changes.slices.take());
        metrics.changed(services.len(), slices.len());
        for key in services {
            self.snapshot.service(&key, self.caches.services.get(&key));
        }
        for key in slices {
            self.snapshot.slice(&key, self.caches.slices.get(&key));
        }
        let node = !self.changes.nodes.take().is_empty();
        if !self.changes.service_cidrs.take().is_empty() || node {
            self.node_changed();
        }
        metrics.decode_failures.set(self.caches.decode_failures() as i64);
        if self.snapshot.is_dirty() && self.queued_at.is_none() {
            let now = Now::get();
            self.queued_at = Some(now.instant);
            self.around.health.queued(now.instant);
            metrics.queued(seconds(now.timestamp));
        }
    }

    fn node_changed(&mut self) {
        let view = self.node_view();
        self.around.health.node(self.node_object().eligible);
        self.snapshot.node(view);
    }

    /// Compiles and commits, if it is time; says when to look again.
    fn commit(&mut self) -> Wake {
        let now = Instant::now();
        if let Some(at) = self.gathering.until(now) {
            return Wake { at, on_change: false };
        }
        let round = self.snapshot.compile();
        self.tell(&round.notes);
        let Round { delta, triggers, .. } = round;
        self.triggers.extend(triggers);
        self.uncommitted.add(&delta);
        let full = !self.driver.is_synced();
        if full || !delta.is_empty() {
            return self.write(full, &delta);
        }
        self.settled();
        if now >= self.pace.next() {
            return self.verify();
        }
        if now >= self.next_interfaces {
            self.look_at_interfaces(now);
        }
        self.idle()
    }

    /// Nothing to do until something changes or it is time to look.
    fn idle(&self) -> Wake {
        // A node that changed is taken up at once.
        let at = if self.snapshot.is_dirty() {
            Instant::now()
        } else {
            self.pace.next().min(self.next_interfaces)
        };
        Wake { at, on_change: true }
    }

    /// Addresses within the ranges of node ports may come and go.
    fn look_at_interfaces(&mut self, now: Instant) {
        self.next_interfaces = now + self.around.config.verify_period;
        if matches!(self.around.config.nodeport_addresses, NodePortAddresses::Cidrs(_)) {
            self.node_changed();
        }
    }

    fn alarmed(&mut self, intruder: &Intruder) {
        self.around.metrics.alarms.inc();
        tracing::warn!("{intruder} changed our nftables tables; comparing and mending");
        self.pace.alarmed(Instant::now());
    }

    fn write(&mut self, full: bool, delta: &Delta) -> Wake {
        let started = Instant::now();
        let large = full || delta.node.is_some() || delta.services.len() >= LARGE_CHANGE;
        let pause = large.then(|| self.around.alarm.pause()).flatten();
        let before = self.driver.plane().transactions();
        let result = if full { self.driver.sync(self.snapshot.table()) } else { self.driver.apply(delta) };
        let ended = Instant::now();
        let own = self.driver.plane().transactions() - before;
        let intruder = pause.and_then(|pause| self.around.alarm.resume(&pause, own));
        let wake = self.written(full, ended.duration_since(started), ended, result);
        match intruder {
            Some(intruder) => {
                self.alarmed(&intruder);
                Wake { at: self.pace.next().min(wake.at), ..wake }
            }
            None => wake,
        }
    }

    /// After a write that went well or not.
    fn written(
        &mut self,
        full: bool,
        took: Duration,
        ended: Instant,
        result: Result<Report, portolan_dataplane::Error<D::Error>>,
    ) -> Wake {
        match result {
            Ok(report) => {
                self.committed(full, took, &report);
                // What is read back and mended is seldom, and paced by itself.
                let rest = if full { Duration::ZERO } else { self.driver.plane().rest(took) };
                self.gathering.wrote(ended, rest);
                self.idle()
            }
            Err(error) => {
                self.around.metrics.failed(full);
                if self.retry >= RETRY_MAX {
                    // It does not pass by itself: somebody should look.
                    self.around.events.record(
                        &self.around.node,
                        EventType::Warning,
                        "SyncFailed",
                        &error.to_string(),
                    );
                }
                tracing::warn!(%error, retry_ms = self.retry.as_millis() as u64, "the kernel refused; all is read back and tried again");
                let at = self.gathering.failed(ended, self.retry);
                self.retry = (self.retry * 2).min(RETRY_MAX);
                Wake { at, on_change: false }
            }
        }
    }

    fn committed(&mut self, full: bool, took: Duration, report: &Report) {
        let now = Now::get();
        self.retry = RETRY_FIRST;
        let changes = self.uncommitted.take();
        self.around.cleaner.check(suspects(&changes));
        self.update_health_checks(&changes);
        let services = self.snapshot.table().len();
        let failures_before =
            std::mem::replace(&mut self.cleanup_failures, self.driver.plane().cleanup_failures());
        let metrics = Arc::clone(&self.around.metrics);
        metrics.cleanup_failed(self.cleanup_failures - failures_before);
        for change in &changes {
            metrics.service_changed(change);
        }
        metrics.committed(full, took.as_secs_f64(), seconds(now.timestamp), report, services);
        let now_ns = now.timestamp.as_nanosecond();
        for trigger in self.triggers.drain(..).filter(|trigger| *trigger >= self.started_ns) {
            metrics.programmed((now_ns - trigger) as f64 / 1e9);
        }
        self.tell(&report.notes);
        for refusal in &report.refused {
            tracing::warn!("{refusal}");
            let about = self.about(&refusal.service);
            self.around.events.record(&about, EventType::Warning, "NotServed", &refusal.to_string());
        }
        if full {
            tracing::info!(
                services,
                operations = report.operations,
                took_ms = took.as_millis() as u64,
                "in step with the kernel"
            );
        } else {
            tracing::debug!(
                services = report.services,
                operations = report.operations,
                took_us = took.as_micros() as u64,
                "committed"
            );
        }
        self.queued_at = None;
        metrics.settled();
        self.around.health.synced(now);
        self.around.takeover.finish();
        self.around.alarm.set();
        self.around.progress.set_ready(());
    }

    /// Nothing had to be written: everything known is in the kernel.
    fn settled(&mut self) {
        if self.queued_at.take().is_some() {
            self.around.metrics.settled();
            self.around.health.synced(Now::get());
        }
    }

    fn update_health_checks(&self, changes: &[ServiceChange]) {
        let addresses = &self.snapshot.table().node().node_port_addresses;
        self.around.health_checks.send_if_modified(|checks| {
            let before = checks.clone();
            checks.listen_on(addresses);
            for change in changes {
                match change.to.as_ref().and_then(|table| table.health_check) {
                    Some(check) => {
                        let uid = self.snapshot.service_at(&change.key).map(|service| service.uid.clone());
                        let check = Check { check, uid: uid.unwrap_or_default() };
                        checks.services.insert(change.key.clone(), check);
                    }
                    None => drop(checks.services.remove(&change.key)),
                }
            }
            *checks != before
        });
    }

    /// Looks for what others changed in the kernel, and puts it right.
    fn verify(&mut self) -> Wake {
        let started = Instant::now();
        let metrics = Arc::clone(&self.around.metrics);
        metrics.verifications.inc();
        let wake = match self.driver.verify(self.snapshot.table()) {
            Ok(drift) if drift.is_empty() => None,
            Ok(drift) => {
                let count = drift.missing.len() + drift.unexpected.len() + drift.different.len();
                metrics.drift.inc_by(count as u64);
                let first = drift.missing.iter().chain(&drift.unexpected).chain(&drift.different).next();
                tracing::warn!(count, ?first, "somebody else changed our rules; they are put right");
                Some(self.write(true, &Delta::default()))
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read the kernel's rules back");
                None
            }
        };
        self.pace.looked(started, Instant::now(), self.around.alarm.is_on());
        // After a failure it says when to try again.
        wake.filter(|wake| !wake.on_change).unwrap_or_else(|| self.idle())
    }

    /// Says each note once, in the log and as an event on its Service.
    fn tell(&mut self, notes: &[Note]) {
        for note in notes {
            let text = note.to_string();
            if self.notes_told.contains(&text) {
                continue;
            }
            if self.notes_told.len() >= NOTES_MAX {
                self.notes_told.clear();
            }
            self.around.metrics.notes.inc();
            let reason = match note.kind {
                NoteKind::Invalid { .. } => Some("InvalidField"),
                NoteKind::FrontendTaken { .. } => Some("FrontendTaken"),
                NoteKind::NotOffered { .. } => Some("NotOffered"),
                // Pods move between slices: for a moment that is how it should be.
                NoteKind::DuplicateEndpoint { .. } => None,
            };
            if let Some(reason) = reason {
                tracing::warn!("{text}");
                self.around.events.record(&self.about(&note.service), EventType::Warning, reason, &text);
            } else {
                tracing::debug!("{text}");
            }
            self.notes_told.insert(text);
        }
    }

    fn about(&self, key: &ServiceKey) -> ObjectRef {
        ObjectRef {
            api_version: "v1".into(),
            kind: "Service".into(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid: self.snapshot.service_at(key).map(|service| service.uid.clone()).unwrap_or_default(),
            ..ObjectRef::default()
        }
    }
}

/// When to look again: at a moment, and at the next change if that counts now.
struct Wake {
    at: Instant,
    on_change: bool,
}

fn seconds(timestamp: jiff::Timestamp) -> f64 {
    timestamp.as_nanosecond() as f64 / 1e9
}

//! What the pod's worker does to its containers: start, probe, stop, and take note of their end.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan_api::Time;
use portolan_api::core::v1::{Container, Probe};
use portolan_client::EventType::{Normal, Warning};
use portolan_netlink::cgroup::Group;
use rustix::process::Signal;

use super::container::{self, Ended, RestartPolicy, Role, Running, State};
use super::env::{Facts, Given};
use super::image::Refusal;
use super::life::{self, Life, START_ERROR};
use super::status::full_name;
use super::worker::{News, Worker};
use super::{services, sources};
use crate::probe::state::{ProbeKind, Settings, Verdict};
use crate::probe::{self, Check};
use crate::process::{Drained, Exit, Handle, Launch, LogNews, Space};

impl Worker {
    fn spec(&self, index: usize) -> Option<&Container> {
        container::specs(&self.pod)
            .find(|(_, spec)| spec.name == self.records[index].name)
            .map(|(_, spec)| spec)
    }

    fn name(&self, index: usize) -> String {
        self.records[index].name.clone()
    }

    /// Starts a container; what comes of it is in its record.
    pub(super) async fn start(&mut self, index: usize) {
        let Some(spec) = self.spec(index).cloned() else { return };
        let mut launch = match self.launch(&spec).await {
            Ok(launch) => launch,
            Err(refusal) => return self.block(index, refusal),
        };
        launch.group = Group::make(self.pids.as_ref().map(|pids| &pids.limit)).map(Arc::new);
        self.note_restart(index);
        let pulled = format!("Container image {:?} already present on machine", spec.image);
        self.event(Normal, "Pulled", &spec.name, &pulled);
        self.event(Normal, "Created", &spec.name, &format!("Created container: {}", spec.name));
        let run = self.records[index].restarts;
        match self.spawn(&spec.name, run, &launch).await {
            Ok((process, (drained, news))) => {
                self.dir.note_process(&spec.name, process.signaller().pid());
                self.started(index, &spec, launch, (process, drained, news));
                self.event(Normal, "Started", &spec.name, &format!("Started container {}", spec.name));
            }
            Err(e) => {
                drop(launch.group.take().map(|group| group.end()));
                let reason = life::start_error(&launch.program, &e);
                let message = format!("failed to start container {:?}: {reason}", spec.name);
                self.event(Warning, "Failed", &spec.name, &format!("Error: {message}"));
                self.ended(index, Exit { code: START_ERROR, signal: 0 }, "StartError", message, None);
            }
        }
    }

    async fn spawn(
        &self,
        name: &str,
        run: i32,
        launch: &Launch,
    ) -> std::io::Result<(Handle, (Drained, LogNews))> {
        let (output, drained, news) = self.ctx.logs.open(&self.dir.log(name, run)?)?;
        Ok((self.ctx.spawner.spawn(launch.clone(), output).await?, (drained, news)))
    }

    async fn launch(&self, spec: &Container) -> Result<Launch, Refusal> {
        let given = self.given(spec).await?;
        let ip = |ips: &[std::net::IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
        let (pod_ip, host_ip) = (ip(&self.pod_ips), ip(&self.ctx.config.node_ips));
        let node_name = &self.ctx.config.node_name;
        let facts = Facts { pod: &self.pod, pod_ip: &pod_ip, host_ip: &host_ip, node_name };
        let launch = life::launch(spec, &facts, &given, &self.ctx.config)?;
        let netns = self.attachment.as_ref().map(|attachment| attachment.netns.clone());
        let hostname = netns.is_some().then(|| {
            let own = launch.env.iter().find(|(name, _)| name == "HOSTNAME");
            own.map(|(_, name)| name.clone()).unwrap_or_default()
        });
        Ok(Launch { netns, hostname, mounts: self.projected.mounts(spec, &self.mounts), ..launch })
    }

    /// What the environment is made of, as it is at this moment.
    async fn given(&self, spec: &Container) -> Result<Given, Refusal> {
        self.ctx.services.synced().await;
        let links = self.pod.spec.enable_service_links != Some(false);
        let fetched = sources::fetch(&self.ctx.client, &self.key.namespace, spec).await;
        Ok(Given {
            services: services::variables(&self.ctx.services, &self.key.namespace, links),
            sources: fetched.map_err(|error| Refusal::config(error.to_string()))?,
        })
    }

    fn block(&mut self, index: usize, refusal: Refusal) {
        let name = self.name(index);
        if matches!(&self.records[index].state, State::Blocked(known) if known.message == refusal.message) {
            // Nothing new: the user has been told.
            self.records[index].state = State::Blocked(refusal);
            return;
        }
        self.ctx.registry.waits(&self.key, &name, refusal.reason);
        let reason = if refusal.reason == "ErrImageNeverPull" { refusal.reason } else { "Failed" };
        let prefix = if reason == "Failed" { "Error: " } else { "" };
        self.event(Warning, reason, &name, &format!("{prefix}{}", refusal.message));
        self.records[index].state = State::Blocked(refusal);
    }

    /// A container that ran before is about to run again.
    fn note_restart(&mut self, index: usize) {
        let record = &mut self.records[index];
        if let State::Ended(ended) = mem::replace(&mut record.state, State::Waiting) {
            record.backoff.restarted(ended.at, Instant::now());
            record.restarts += 1;
            record.last = Some(ended);
        }
    }

    fn started(
        &mut self,
        index: usize,
        spec: &Container,
        mut launch: Launch,
        (process, drained, news): (Handle, Drained, LogNews),
    ) {
        let id = format!("portolan://{:032x}", rand::random::<u128>());
        let started = spec.startup_probe.is_none();
        self.records[index].state = State::Running(Running {
            id: id.clone(),
            started_at: Time::now(),
            since: Instant::now(),
            started,
            ready: spec.readiness_probe.is_none(),
            kill_at: None,
        });
        let signaller = process.signaller();
        let outbox = self.outbox.clone();
        let group = launch.group.clone();
        launch.space = Space::of(&process).map(Arc::new);
        let (name, run) = (&self.records[index].name, self.records[index].restarts);
        self.ctx.registry.started(&self.key, name, run, launch.clone(), news);
        // Not aborted with the rest: the process is reaped whatever becomes of its pod's task.
        tokio::spawn(async move {
            let exit = life::end(process, group, drained).await;
            // A worker that has ended needs no news.
            drop(outbox.send(News::Exited { index, id, exit }).await);
        });
        self.lives[index] = Some(Life { signaller, launch, guards: Vec::new(), readiness: Vec::new() });
        if started {
            self.probe(index, ProbeKind::Liveness);
            self.probe(index, ProbeKind::Readiness);
        } else {
            self.probe(index, ProbeKind::Startup);
        }
    }

    /// Starts a probe of a running container, if it has one of this kind.
    fn probe(&mut self, index: usize, kind: ProbeKind) {
        let Some(spec) = self.spec(index) else { return };
        let (Some(probe), Some(life)) = (probe_of(spec, kind), &self.lives[index]) else { return };
        let (Some(running), Some(pod_ip)) = (self.records[index].running(), self.pod_ips.first()) else {
            return;
        };
        let check = Check::of(probe, spec, *pod_ip, &life.launch);
        let (id, since) = (running.id.clone(), running.since);
        let wrap = move |report| News::Probe { index, id: id.clone(), report };
        let what = (kind, Settings::of(probe));
        let task = probe::start(what, check, since, self.ctx.spawner.clone(), self.outbox.clone(), wrap);
        let handle = tokio::spawn(task).abort_handle();
        if let Some(life) = &mut self.lives[index] {
            let list = if kind == ProbeKind::Readiness { &mut life.readiness } else { &mut life.guards };
            list.push(handle);
        }
    }

    /// Takes in a probe's news.
    pub(super) fn probed(&mut self, index: usize, report: &probe::Report) {
        let name = self.name(index);
        if let Some((reason, message)) = &report.complaint {
            self.event(Warning, reason, &name, message);
        }
        let Some(running) = self.records[index].running_mut() else { return };
        match (report.kind, report.turned) {
            (ProbeKind::Readiness, Some(verdict)) => running.ready = verdict == Verdict::Success,
            (ProbeKind::Startup, Some(Verdict::Success)) => {
                running.started = true;
                self.probe(index, ProbeKind::Liveness);
                self.probe(index, ProbeKind::Readiness);
            }
            (ProbeKind::Startup | ProbeKind::Liveness, Some(Verdict::Failure)) => {
                let kind = if report.kind == ProbeKind::Startup { "startup" } else { "liveness" };
                let message = format!("Container {name} failed {kind} probe, will be restarted");
                let own = self.spec(index).and_then(|spec| probe_of(spec, report.kind));
                let own = own.and_then(|probe| probe.termination_grace_period_seconds);
                let own = own.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
                self.stop(index, own.unwrap_or_else(|| self.grace()), &message);
            }
            _ => {}
        }
    }

    /// Asks a container to stop, and notes when it is to be killed.
    fn stop(&mut self, index: usize, grace: Duration, why: &str) {
        let name = self.name(index);
        let Some(running) = self.records[index].running_mut() else { return };
        let kill_at = Instant::now() + grace;
        if let Some(earlier) = running.kill_at {
            // Asked before: somebody became impatient, at most.
            running.kill_at = Some(earlier.min(kill_at));
            return;
        }
        running.kill_at = Some(kill_at);
        self.event(Normal, "Killing", &name, why);
        let hook = self
            .spec(index)
            .and_then(|spec| Some((spec.lifecycle.as_ref()?.pre_stop.clone()?, spec.clone())));
        let pod_ip = self.pod_ips.first().copied();
        let spawner = self.ctx.spawner.clone();
        let Some(life) = &mut self.lives[index] else { return };
        life.abort_guards();
        let signaller = life.signaller.clone();
        match (hook, pod_ip) {
            _ if grace.is_zero() => signaller.send(Signal::KILL),
            (Some((handler, spec)), Some(pod_ip)) => {
                let launch = life.launch.clone();
                let task = async move {
                    life::pre_stop(handler, spec, pod_ip, launch, grace, spawner).await;
                    signaller.send(Signal::TERM);
                };
                life.guards.push(tokio::spawn(task).abort_handle());
            }
            _ => signaller.send(Signal::TERM),
        }
    }

    /// The pod ends: first its main containers, then its sidecars.
    pub(super) fn stop_all(&mut self) {
        let main_running = self.records.iter().any(|r| r.role != Role::Sidecar && r.running().is_some());
        let grace = self.grace();
        for index in 0..self.records.len() {
            if main_running && self.records[index].role == Role::Sidecar {
                continue;
            }
            let message = format!("Stopping container {}", self.records[index].name);
            self.stop(index, grace, &message);
        }
    }

    /// Containers whose image was changed start anew with the new one.
    pub(super) fn restart_changed(&mut self) {
        for index in 0..self.records.len() {
            let Some(image) = self.spec(index).map(|spec| spec.image.clone()) else { continue };
            if self.records[index].image == image {
                continue;
            }
            self.records[index].image = image;
            if self.is_blocked(index) {
                self.records[index].state = State::Waiting;
            }
            let name = self.name(index);
            self.stop(
                index,
                self.grace(),
                &format!("Container {name} definition changed, will be restarted"),
            );
        }
    }

    /// Kills what did not stop in time; returns when the next one is due.
    pub(super) fn kill_overdue(&mut self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for (record, life) in self.records.iter().zip(&self.lives) {
            let Some(kill_at) = record.running().and_then(|running| running.kill_at) else { continue };
            if kill_at > now {
                next = Some(next.map_or(kill_at, |next| next.min(kill_at)));
            } else if let Some(life) = life {
                life.signaller.send(Signal::KILL);
            }
        }
        next
    }

    /// Takes in the end of a container's process.
    pub(super) fn exited(&mut self, index: usize, exit: Exit) {
        let reason = if exit.code == 0 { "Completed" } else { "Error" };
        let Some(running) = self.records[index].running() else { return };
        let (id, started_at) = (running.id.clone(), running.started_at);
        self.lives[index] = None;
        self.ctx.registry.ended(&self.key, &self.name(index));
        self.ended(index, exit, reason, String::new(), Some((id, started_at)));
    }

    fn ended(
        &mut self,
        index: usize,
        exit: Exit,
        reason: &str,
        message: String,
        run: Option<(String, Time)>,
    ) {
        let (id, started_at) = run.map_or_else(Default::default, |(id, at)| (id, Some(at)));
        let at = Instant::now();
        let ended = Ended {
            id,
            exit_code: exit.code,
            signal: exit.signal,
            reason: reason.to_owned(),
            message,
            started_at,
            finished_at: Time::now(),
            at,
        };
        let record = &mut self.records[index];
        record.state = State::Ended(ended);
        let waits = record.wants_restart(RestartPolicy::of(&self.pod)) && !record.backoff.wait(at).is_zero();
        if waits && !self.ending() {
            let name = self.name(index);
            let message =
                format!("Back-off restarting failed container {name} in pod {}", full_name(&self.pod));
            self.event(Warning, "BackOff", &name, &message);
        }
    }
}

fn probe_of(spec: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => spec.startup_probe.as_ref(),
        ProbeKind::Liveness => spec.liveness_probe.as_ref(),
        ProbeKind::Readiness => spec.readiness_probe.as_ref(),
    }
}

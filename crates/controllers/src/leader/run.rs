//! Carries the election out: reads the Lease, asks [`Election`] what to do, writes, and runs the work while it leads.

use std::future::Future;
use std::time::Duration;

use portolan_api::MicroTime;
use portolan_api::coordination::v1::{Lease, LeaseSpec};
use portolan_client::{Client, Error, paths};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::plan::{Act, Election, Record};
use super::{LEASE_DURATION, RENEW_DEADLINE, RETRY_PERIOD};

/// Who stands for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub namespace: String,
    /// The Lease.
    pub name: String,
    /// Must be this process's alone.
    pub identity: String,
    pub lease_duration: Duration,
    /// Shorter than `lease_duration`.
    pub renew_deadline: Duration,
    pub retry_period: Duration,
}

impl Config {
    /// A Lease in `kube-system`, with client-go's times.
    pub fn new(name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: "kube-system".into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: LEASE_DURATION,
            renew_deadline: RENEW_DEADLINE,
            retry_period: RETRY_PERIOD,
        }
    }
}

/// Runs `work` whenever and as long as this candidate leads, until `shutdown` ends. What it made is dropped when the
/// lead is lost.
pub async fn lead<W, F>(client: &Client, config: Config, mut work: W, shutdown: impl Future<Output = ()>)
where
    W: FnMut() -> F,
    F: Future<Output = ()>,
{
    let election = Election::new(config.identity.clone(), config.lease_duration, config.renew_deadline);
    let mut candidate = Candidate { client, config, election };
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            () = candidate.acquire() => {}
        }
        tracing::info!(lease = candidate.config.name, "leading");
        tokio::select! {
            () = &mut shutdown => break,
            () = work() => {}
            () = candidate.hold() => tracing::warn!(lease = candidate.config.name, "no longer leading"),
        }
    }
    candidate.release().await;
}

struct Candidate<'a> {
    client: &'a Client,
    config: Config,
    election: Election,
}

impl Candidate<'_> {
    /// Ends when this candidate leads.
    async fn acquire(&mut self) {
        loop {
            let deadline = Instant::now() + self.config.renew_deadline;
            self.attempt(deadline).await;
            if self.election.leads_until().is_some_and(|until| Instant::now() < until) {
                return;
            }
            // Candidates that started together must not meet for ever.
            sleep(self.config.retry_period.mul_f64(1.0 + f64::from(jitter()) / 255.0 * 1.2)).await;
        }
    }

    /// Renews. Ends when this candidate does not lead any more.
    async fn hold(&mut self) {
        while let Some(until) = self.election.leads_until() {
            tokio::select! {
                () = sleep_until(until) => return,
                () = async {
                    sleep(self.config.retry_period).await;
                    self.attempt(until).await;
                } => {}
            }
        }
    }

    async fn attempt(&mut self, deadline: Instant) {
        match timeout_at(deadline, self.exchange()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, lease = self.config.name, "lease not read or written"),
            Err(_) => tracing::debug!(lease = self.config.name, "lease not read or written in time"),
        }
    }

    async fn exchange(&mut self) -> Result<(), Error> {
        let (namespace, name) = (Some(self.config.namespace.as_str()), self.config.name.as_str());
        let found: Option<Lease> = match self.client.get(&paths::LEASES, namespace, name).await {
            Ok(lease) => Some(lease),
            Err(error) if error.status().is_some_and(|status| status.code == 404) => None,
            Err(error) => return Err(error),
        };
        let seen = found.as_ref().map(|lease| (record(&lease.spec), lease.metadata.resource_version.clone()));
        let sent = Instant::now();
        self.election.observe(seen, sent);
        let Act::Write { record, .. } = self.election.plan(sent, MicroTime::now()) else { return Ok(()) };
        let mut lease = found.clone().unwrap_or_default();
        spec(&record, &mut lease.spec);
        let written: Lease = if found.is_some() {
            self.client.update(&paths::LEASES, namespace, name, &lease).await?
        } else {
            name.clone_into(&mut lease.metadata.name);
            self.client.create(&paths::LEASES, namespace, &lease).await?
        };
        self.election.written(record, written.metadata.resource_version, sent);
        Ok(())
    }

    /// Lets others lead at once.
    async fn release(&mut self) {
        let Some((record, version)) = self.election.release(MicroTime::now()) else { return };
        let release = async {
            let (namespace, name) = (Some(self.config.namespace.as_str()), self.config.name.as_str());
            let mut lease: Lease = self.client.get(&paths::LEASES, namespace, name).await?;
            if lease.metadata.resource_version == version {
                spec(&record, &mut lease.spec);
                let _: Lease = self.client.update(&paths::LEASES, namespace, name, &lease).await?;
            }
            Ok::<(), Error>(())
        };
        // If it fails, others wait for the Lease to run out.
        let _ = timeout_at(Instant::now() + self.config.retry_period, release).await;
    }
}

fn record(spec: &LeaseSpec) -> Record {
    Record {
        holder: spec.holder_identity.clone().unwrap_or_default(),
        duration_seconds: spec.lease_duration_seconds.unwrap_or_default(),
        acquired: spec.acquire_time,
        renewed: spec.renew_time,
        transitions: spec.lease_transitions.unwrap_or_default(),
    }
}

fn spec(record: &Record, spec: &mut LeaseSpec) {
    spec.holder_identity = Some(record.holder.clone());
    spec.lease_duration_seconds = Some(record.duration_seconds);
    spec.acquire_time = record.acquired;
    spec.renew_time = record.renewed;
    spec.lease_transitions = Some(record.transitions);
}

/// Some random byte. A hash's keys are random enough to spread candidates.
fn jitter() -> u8 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0u8) as u8
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use portolan_client::testing::FakeApi;
    use tokio::sync::oneshot;

    use super::*;

    struct Running(Arc<AtomicUsize>);

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn stand(
        api: &Arc<FakeApi>,
        name: &str,
    ) -> (Arc<AtomicUsize>, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let running = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = oneshot::channel::<()>();
        let (client, config, counter) = (api.client(), Config::new("test", name), running.clone());
        let task = tokio::spawn(async move {
            let work = move || {
                counter.fetch_add(1, Ordering::SeqCst);
                let running = Running(counter.clone());
                async move {
                    std::future::pending::<()>().await;
                    drop(running);
                }
            };
            lead(&client, config, work, async { _ = stopped.await }).await;
        });
        (running, stop, task)
    }

    async fn until(what: impl Fn() -> bool) {
        let begin = Instant::now();
        while !what() {
            assert!(begin.elapsed() < Duration::from_mins(1), "not within a minute of the test's clock");
            sleep(Duration::from_millis(100)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_leads_and_when_it_stops_the_other_follows_at_once() {
        let api = FakeApi::new();
        let (one, stop_one, task_one) = stand(&api, "one");
        until(|| one.load(Ordering::SeqCst) == 1).await;
        let (two, _stop_two, _task) = stand(&api, "two");
        sleep(Duration::from_mins(1)).await;
        assert_eq!((one.load(Ordering::SeqCst), two.load(Ordering::SeqCst)), (1, 0));
        _ = stop_one.send(());
        task_one.await.unwrap();
        let begin = Instant::now();
        until(|| two.load(Ordering::SeqCst) == 1).await;
        assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
        assert_eq!(one.load(Ordering::SeqCst), 0);
        let lease = api.get(&paths::LEASES, "kube-system", "test").unwrap();
        assert_eq!(lease["spec"]["holderIdentity"], "two");
        assert_eq!(lease["spec"]["leaseTransitions"], 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_dies_is_followed_when_its_lease_has_run_out() {
        let api = FakeApi::new();
        let (one, _stop, task) = stand(&api, "one");
        until(|| one.load(Ordering::SeqCst) == 1).await;
        let (two, _stop_two, _task) = stand(&api, "two");
        sleep(Duration::from_secs(5)).await;
        task.abort();
        let begin = Instant::now();
        until(|| two.load(Ordering::SeqCst) == 1).await;
        let waited = begin.elapsed();
        assert!(waited > Duration::from_secs(10) && waited < Duration::from_secs(25), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_cannot_renew_stops_before_its_lease_runs_out() {
        let api = FakeApi::new();
        let (one, _stop, _task) = stand(&api, "one");
        until(|| one.load(Ordering::SeqCst) == 1).await;
        api.fail_next(20, 503, "ServiceUnavailable");
        let begin = Instant::now();
        until(|| one.load(Ordering::SeqCst) == 0).await;
        assert!(begin.elapsed() <= Duration::from_secs(11), "{:?}", begin.elapsed());
    }
}

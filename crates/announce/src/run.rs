//! The announcer of one node, from its start to its end.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portolan_client::{Client, EventRecorder, EventType, ObjectRef};
use tokio::sync::Notify;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::claims::Holder;
use crate::feed::Feed;
use crate::metrics::Metrics;
use crate::speaker::{self, Command, Handle, Report};
use crate::tenure::Saying;
use crate::{key, lease, tenure};

/// Where announcers hear each other.
pub const PORT: u16 = 7947;
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Others take over within one beat and its way; more means that nobody does.
const LEAVE_FOR: Duration = Duration::from_millis(500);

#[derive(Debug, Clone)]
pub struct Config {
    pub node_name: String,
    /// Where this node is reached by the others: its `InternalIP`.
    pub node_ip: IpAddr,
    /// UDP; the same on all nodes.
    pub port: u16,
    /// Services without a load-balancer class are ours too.
    pub without_class: bool,
    pub tenure: tenure::Settings,
    pub metrics: Arc<Metrics>,
}

impl Config {
    pub fn new(node_name: impl Into<String>, node_ip: IpAddr) -> Self {
        let tenure = tenure::Settings::default();
        let metrics = Arc::new(Metrics::default());
        Self { node_name: node_name.into(), node_ip, port: PORT, without_class: true, tenure, metrics }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("announcers hear each other on UDP {address}, which cannot be opened: {source}")]
    Start { address: SocketAddr, source: std::io::Error },
}

/// Announces until `shutdown` ends, and then hands over to other nodes before it returns.
pub async fn run(
    client: Client,
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    tokio::pin!(shutdown);
    let started = tokio::select! {
        started = begin(&client, &config) => started,
        () = &mut shutdown => return Ok(()),
    };
    let (mut announcer, mut reports) = started?;
    tokio::select! {
        () = announcer.work(&mut reports) => {}
        () = &mut shutdown => {}
    }
    announcer.end(&mut reports).await;
    Ok(())
}

type Reports = tokio::sync::mpsc::UnboundedReceiver<Report>;

struct Announcer {
    client: Client,
    node: String,
    events: EventRecorder,
    feed: Feed,
    thread: Handle,
}

async fn begin(client: &Client, config: &Config) -> Result<(Announcer, Reports), Error> {
    let key = persist("read the announcers' key", || key::read(client)).await;
    persist("take the announcer's Lease", || lease::renew(client, &config.node_name)).await;
    let feed = Feed::start(client, config.without_class).await;
    let (sender, reports) = unbounded_channel();
    let settings = speaker::Settings {
        node: config.node_name.clone(),
        node_ip: config.node_ip,
        port: config.port,
        key,
        tenure: config.tenure.clone(),
        metrics: Arc::clone(&config.metrics),
    };
    let address = SocketAddr::new(config.node_ip, config.port);
    let thread = speaker::start(settings, sender).map_err(|source| Error::Start { address, source })?;
    let events = EventRecorder::new(client.clone(), "portolan-announce", &config.node_name);
    let node = config.node_name.clone();
    Ok((Announcer { client: client.clone(), node, events, feed, thread }, reports))
}

/// Tries until it succeeds.
async fn persist<T, F: Future<Output = Result<T, portolan_client::Error>>>(
    what: &'static str,
    attempt: impl Fn() -> F,
) -> T {
    let mut wait = RETRY_FIRST;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => {
                // At the first start the key is made while this waits for it.
                if wait >= Duration::from_secs(1) {
                    tracing::warn!(%error, "cannot {what}");
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
            }
        }
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn keep_lease(client: Client, node: String, renewed: Arc<Notify>) {
    let mut tick = interval(lease::RENEW_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match lease::renew(&client, &node).await {
            Ok(()) => renewed.notify_one(),
            Err(error) if error.is_conflict() => {}
            Err(error) => tracing::warn!(%error, "cannot renew the announcer's Lease"),
        }
    }
}

impl Announcer {
    async fn work(&mut self, reports: &mut Reports) {
        // Beside the loop: a server that does not answer must not hold up what its watches say.
        let renewals = Arc::new(Notify::new());
        let _renewing = AbortOnDrop(tokio::spawn(keep_lease(
            self.client.clone(),
            self.node.clone(),
            Arc::clone(&renewals),
        )));
        loop {
            tokio::select! {
                () = self.feed.wait() => {}
                report = reports.recv() => match report {
                    Some(Report::Said { ip, saying, services }) => {
                        self.report(ip, &saying, &services);
                        continue;
                    }
                    Some(Report::Left) => continue,
                    // The thread has ended.
                    None => return,
                },
                () = renewals.notified() => self.feed.look_at_leases(),
            }
            let change = self.feed.take();
            if !change.is_empty() {
                self.thread.send(Command::Apply(change));
            }
        }
    }

    async fn end(self, reports: &mut Reports) {
        self.thread.send(Command::Leave);
        let left = async { while !matches!(reports.recv().await, Some(Report::Left) | None) {} };
        if timeout(LEAVE_FOR, left).await.is_err() {
            tracing::warn!("addresses that no other node took are answered no more");
        }
        drop(self.thread);
        // The control plane may be gone already.
        let _ = timeout(LEAVE_FOR, lease::give_up(&self.client, &self.node)).await;
    }

    fn report(&self, ip: IpAddr, saying: &Saying, services: &[Holder]) {
        let node = &self.node;
        let (kind, reason, message) = match saying {
            Saying::Announcing => {
                let message = format!("announcing {ip} from node {node:?} with protocol \"layer2\"");
                (EventType::Normal, "nodeAssigned", message)
            }
            Saying::Conflict(mac) => {
                let octets = mac.map(|octet| format!("{octet:02x}")).join(":");
                let message = format!(
                    "{ip} is not announced: another host ({octets}) answers for it on the segment of node {node}; give \
                     that host another address, or take {ip} out of its LoadBalancerPool"
                );
                (EventType::Warning, "AddressConflict", message)
            }
            Saying::NoLink => {
                let message = format!(
                    "{ip} is not announced from node {node}: none of its links is in that network; name one in \
                     spec.interfaces of the LoadBalancerPool"
                );
                (EventType::Warning, "announceFailed", message)
            }
        };
        for holder in services {
            let about = ObjectRef {
                api_version: "v1".into(),
                kind: "Service".into(),
                namespace: holder.key.namespace.to_string(),
                name: holder.key.name.to_string(),
                uid: holder.uid.clone(),
                ..ObjectRef::default()
            };
            self.events.record(&about, kind, reason, &message);
        }
    }
}

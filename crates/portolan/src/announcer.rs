//! The node's announcer of load-balancer addresses, as a role among others.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portolan_client::Client;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::up::stops;

const KEY_RETRY: Duration = Duration::from_millis(100);
const KEY_RETRY_MAX: Duration = Duration::from_secs(30);

pub(crate) struct Announcer {
    pub(crate) task: JoinHandle<()>,
    /// True when the program stops and the addresses are handed over: what they lead to may go then.
    pub(crate) handed_over: watch::Receiver<bool>,
    pub(crate) metrics: Arc<portolan_announce::Metrics>,
}

/// Starts announcing. The node works without it: what goes wrong is logged.
pub(crate) fn start(
    client: Client,
    config: portolan_announce::Config,
    stopped: &watch::Receiver<bool>,
) -> Announcer {
    let (done, handed_over) = watch::channel(false);
    let metrics = Arc::clone(&config.metrics);
    let (stop, end) = (stops(stopped), stops(stopped));
    let task = tokio::spawn(async move {
        if let Err(error) = portolan_announce::run(client, config, stop).await {
            tracing::error!(%error, "load-balancer addresses are not announced from this node");
        }
        end.await;
        let _ = done.send(true);
    });
    Announcer { task, handed_over, metrics }
}

/// The usual announcer of a node.
pub(crate) fn config(node_name: &str, node_ip: IpAddr) -> portolan_announce::Config {
    portolan_announce::Config::new(node_name, node_ip)
}

/// Makes the key by which announcers know each other, however long it takes.
pub(crate) async fn make_key(client: Client) {
    let mut wait = KEY_RETRY;
    while let Err(error) = portolan_announce::key::ensure(&client).await {
        tracing::warn!(%error, "cannot make the announcers' key");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(KEY_RETRY_MAX);
    }
}

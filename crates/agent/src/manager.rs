//! The agent as a whole: it starts a task for each pod of its node and tells it what becomes of the pod's object.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use portolan_api::core::v1::Pod;
use portolan_client::{Cache, Client, EventRecorder, Key, Selectors, cache, paths};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};

use crate::network::{self, PodNetwork};
use crate::node::NodeTask;
use crate::pod::services::ServiceView;
use crate::pod::worker::{self, Context, Input, Wish};
use crate::process::{Logs, Spawner};
use crate::registry::Registry;
use crate::state_dir::StateDir;
use crate::{Config, Error, Serving, serving};

/// How long pods may take to stop when the agent stops.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How the agent signs its events.
const COMPONENT: &str = "portolan-agent";

/// Runs the pods that are bound to the node, until `shutdown` is ready; their processes end with it.
///
/// What a predecessor that crashed left on this data directory is removed first. Fails only if it cannot start.
pub async fn run(
    client: Client,
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let config = Arc::new(config);
    let dirs = StateDir::open(&config.data_dir)?;
    let dirs = sweep(dirs, &config).await;
    network::enable_forwarding()?;
    let node = NodeTask::new(client.clone(), config.clone());
    let context = Context {
        events: EventRecorder::new(client.clone(), COMPONENT, &config.node_name),
        spawner: Spawner::start().map_err(Error::Spawner)?,
        logs: Logs::start().map_err(Error::Spawner)?,
        network: PodNetwork::new(&config),
        range: node.range(),
        services: Cache::start(client.clone(), paths::SERVICES, Selectors::default(), ServiceView::project),
        client: client.clone(),
        config: config.clone(),
        dirs,
        registry: Registry::default(),
    };
    let server = match &config.serving {
        Some(serving) => Some(listen(serving.clone(), &context).await?),
        None => None,
    };
    let fields = Some(format!("spec.nodeName={}", config.node_name));
    let selectors = Selectors { fields, ..Selectors::default() };
    let pods = Cache::start(client, paths::PODS, selectors, cache::json);
    let mut manager = Manager {
        context: Arc::new(context),
        pods,
        slots: HashMap::new(),
        tasks: JoinSet::new(),
        ended: HashMap::new(),
    };
    tokio::select! {
        () = node.run() => {}
        () = manager.run() => {}
        () = async { match server { Some(server) => server.await, None => std::future::pending().await } } => {}
        () = shutdown => {}
    }
    manager.stop().await;
    if let Ok(Err(error)) = tokio::task::spawn_blocking(network::egress::remove).await {
        tracing::warn!(%error, "cleaning up");
    }
    Ok(())
}

/// Takes the port now, so that a node that is registered can be asked; what is given back answers.
async fn listen(serving: Serving, context: &Context) -> Result<impl Future<Output = ()> + use<>, Error> {
    let address = serving.address;
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    let (registry, spawner) = (context.registry.clone(), context.spawner.clone());
    let world = serving::World { registry, dirs: context.dirs.pods(), spawner };
    Ok(serving::serve(listener, serving, world))
}

async fn sweep(dirs: StateDir, config: &Config) -> StateDir {
    let node_name = config.node_name.clone();
    let work = move || {
        let errors = dirs.sweep(&node_name);
        (dirs, errors)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok((dirs, errors)) => {
            for error in errors {
                tracing::warn!(%error, "cleaning up after an earlier agent");
            }
            dirs
        }
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}

struct Manager {
    context: Arc<Context>,
    pods: Cache<Pod>,
    slots: HashMap<Key, Slot>,
    tasks: JoinSet<()>,
    /// Pods that have ended here, by UID, while the watch still shows them.
    ended: HashMap<Key, String>,
}

/// A pod with a task.
struct Slot {
    uid: String,
    task: Id,
    input: watch::Sender<Input>,
}

impl Manager {
    async fn run(&mut self) {
        let mut dirty = self.pods.subscribe();
        loop {
            tokio::select! {
                () = dirty.wait() => {
                    for key in dirty.take() {
                        self.reconcile(&key);
                    }
                }
                Some(ended) = self.tasks.join_next_with_id() => self.task_ended(ended),
            }
        }
    }

    fn reconcile(&mut self, key: &Key) {
        // The selector asks for no others, but not every server knows it.
        let bound = |pod: &Arc<Pod>| pod.spec.node_name == self.context.config.node_name;
        let pod = self.pods.get(key).filter(bound);
        match (self.slots.get(key), pod) {
            (Some(slot), Some(pod)) if slot.uid == pod.metadata.uid => {
                slot.input.send_replace(Input { pod, wish: Wish::Follow });
            }
            // Another pod of the same name waits until the first one is gone from this node.
            (Some(slot), _) => slot.input.send_modify(|input| input.wish = Wish::Gone),
            (None, Some(pod)) if self.ended.get(key) == Some(&pod.metadata.uid) => {}
            (None, Some(pod)) => self.start(key, pod),
            (None, None) => drop(self.ended.remove(key)),
        }
    }

    fn start(&mut self, key: &Key, pod: Arc<Pod>) {
        self.ended.remove(key);
        let uid = pod.metadata.uid.clone();
        let (input, receiver) = watch::channel(Input { pod, wish: Wish::Follow });
        let task = self.tasks.spawn(worker::run(self.context.clone(), key.clone(), receiver)).id();
        self.slots.insert(key.clone(), Slot { uid, task, input });
    }

    fn task_ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let Some(key) = self.slots.iter().find(|(_, slot)| slot.task == id).map(|(key, _)| key.clone())
        else {
            return;
        };
        let slot = self.slots.remove(&key);
        match (ended, slot) {
            (Ok(_), Some(slot)) => drop(self.ended.insert(key.clone(), slot.uid)),
            (Err(error), _) => {
                tracing::error!(%error, pod = %key, "the task of a pod failed; the pod is started anew");
            }
            (Ok(_), None) => {}
        }
        self.reconcile(&key);
    }

    /// Ends all pods on this node and leaves their objects.
    async fn stop(&mut self) {
        for slot in self.slots.values() {
            slot.input.send_modify(|input| input.wish = Wish::Stop);
        }
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_PATIENCE, all).await.is_err() {
            tracing::warn!("pods did not stop in time; their processes are killed");
        }
        self.tasks.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_can_be_a_task_of_its_own() {
        fn is_send<T: Send>(_: T) {}
        let client = portolan_client::testing::FakeApi::new().client();
        let config = Config::new("node-a", [192, 0, 2, 1].into(), "/nowhere", "/nowhere");
        is_send(run(client, config, std::future::pending()));
    }
}

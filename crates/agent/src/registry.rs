//! What others than a pod's own task may know of its containers: where their logs are, and how to start a process
//! beside one. The workers keep it; what is served about pods reads it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portolan_client::Key;
use portolan_netlink::netns::Netns;
use tokio::sync::watch;

use crate::process::Launch;

#[derive(Debug, Clone, Default)]
pub(crate) struct Registry(Arc<Mutex<HashMap<Key, PodEntry>>>);

#[derive(Debug)]
struct PodEntry {
    uid: String,
    containers: HashMap<String, Container>,
}

/// A container as it is now.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    /// The number of its latest run; `None` before the first.
    pub(crate) run: Option<i32>,
    /// How it was started, while it runs.
    pub(crate) launch: Option<Launch>,
    /// Tells of news in the log of its latest run.
    pub(crate) news: Option<watch::Receiver<u64>>,
    /// Why it has not run yet.
    pub(crate) waiting: &'static str,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, PodEntry>> {
        // Every change leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, key: &Key, container: &str, change: impl FnOnce(&mut Container)) {
        if let Some(container) = self.lock().get_mut(key).and_then(|pod| pod.containers.get_mut(container)) {
            change(container);
        }
    }

    pub(crate) fn add<'a>(&self, key: &Key, uid: &str, containers: impl Iterator<Item = &'a str>) {
        let waiting = || Container { run: None, launch: None, news: None, waiting: "ContainerCreating" };
        let containers = containers.map(|name| (name.to_owned(), waiting())).collect();
        self.lock().insert(key.clone(), PodEntry { uid: uid.to_owned(), containers });
    }

    pub(crate) fn remove(&self, key: &Key) {
        self.lock().remove(key);
    }

    pub(crate) fn started(
        &self,
        key: &Key,
        container: &str,
        run: i32,
        launch: Launch,
        news: watch::Receiver<u64>,
    ) {
        self.change(key, container, |container| {
            (container.run, container.launch, container.news) = (Some(run), Some(launch), Some(news));
        });
    }

    pub(crate) fn ended(&self, key: &Key, container: &str) {
        self.change(key, container, |container| container.launch = None);
    }

    pub(crate) fn waits(&self, key: &Key, container: &str, why: &'static str) {
        self.change(key, container, |container| container.waiting = why);
    }

    /// The container of a pod; `Err` says what there is none of.
    pub(crate) fn find(&self, key: &Key, uid: Option<&str>, container: &str) -> Result<Container, Missing> {
        let pods = self.lock();
        let pod = entry(&pods, key, uid)?;
        pod.containers.get(container).cloned().ok_or(Missing::Container)
    }

    /// Where a pod is; `None` while no container of it runs.
    pub(crate) fn place(&self, key: &Key, uid: Option<&str>) -> Result<Option<Place>, Missing> {
        let pods = self.lock();
        let pod = entry(&pods, key, uid)?;
        let launch = pod.containers.values().find_map(|container| container.launch.as_ref());
        Ok(launch.map(|launch| Place { uid: pod.uid.clone(), netns: launch.netns.clone() }))
    }
}

fn entry<'a>(
    pods: &'a HashMap<Key, PodEntry>,
    key: &Key,
    uid: Option<&str>,
) -> Result<&'a PodEntry, Missing> {
    pods.get(key).filter(|pod| uid.is_none_or(|uid| uid == pod.uid)).ok_or(Missing::Pod)
}

/// Where a pod's processes are.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) uid: String,
    /// `None`: in the node's own network.
    pub(crate) netns: Option<Arc<Netns>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Pod,
    Container,
}

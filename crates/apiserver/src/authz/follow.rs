//! Keeps the [`Policy`] as the store has it, and aggregated roles as their parts are.
//!
//! Whoever writes a role or binding gets the answer when this server decides by it: [`Progress`] knows what was written
//! here, and how far the policy has come.

use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::stream::{SelectAll, StreamExt as _, unfold};
use portolan_api::resource::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES, Resource};
use portolan_store::{Revision, Txn};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use super::policy::Policy;
use crate::errors::Result;
use crate::limits::{POLICY_RETRY_PAUSE, POLICY_WAIT_MAX};
use crate::server::ApiServer;
use crate::write::{At, Part};

const KINDS: usize = 4;
const FOLLOWED: [&Resource; KINDS] = [&CLUSTER_ROLES, &CLUSTER_ROLE_BINDINGS, &ROLES, &ROLE_BINDINGS];

/// By kind: the last revision that this server wrote, and the last that the policy has.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    written: [AtomicU64; KINDS],
    applied: watch::Sender<[Revision; KINDS]>,
}

impl Progress {
    /// Which kinds a transaction is about. Asked for every write: most are about none.
    pub(crate) fn kinds(txn: &Txn) -> [bool; KINDS] {
        FOLLOWED.map(|resource| {
            let is_of = |key: &str| {
                let rest = key.strip_prefix("/registry/").and_then(|key| key.strip_prefix(resource.prefix));
                rest.is_some_and(|rest| rest.starts_with('/'))
            };
            txn.ops.iter().any(|op| is_of(op.key()))
        })
    }

    /// Notes what this server wrote.
    pub(crate) fn wrote(&self, kinds: [bool; KINDS], revision: Revision) {
        for (written, _) in self.written.iter().zip(kinds).filter(|(_, is_of)| *is_of) {
            written.fetch_max(revision, Ordering::AcqRel);
        }
    }

    fn apply(&self, kind: usize, revision: Revision) {
        self.applied.send_modify(|applied| applied[kind] = applied[kind].max(revision));
    }

    /// Waits until the policy has everything that this server wrote before.
    pub(crate) async fn caught_up(&self) {
        let written: Vec<Revision> = self.written.iter().map(|w| w.load(Ordering::Acquire)).collect();
        let mut applied = self.applied.subscribe();
        let done = applied.wait_for(|applied| applied.iter().zip(&written).all(|(a, w)| a >= w));
        // A store that cannot be followed must not hold up a write that is done.
        let _ = timeout(POLICY_WAIT_MAX, done).await;
    }
}

/// Reads all roles and bindings; gives the revision from which to follow each kind.
pub(crate) async fn load(server: &ApiServer) -> Result<[Revision; KINDS]> {
    let mut policy = Policy::default();
    let mut revisions = [0; KINDS];
    for (kind, resource) in FOLLOWED.iter().enumerate() {
        let page = server.store().list(&resource.key_prefix(None), None, 0, None).await?;
        for kv in &page.items {
            policy.put(&kv.key, Some(&kv.value));
        }
        revisions[kind] = page.revision;
    }
    server.policy().replace(policy);
    for (kind, revision) in revisions.iter().enumerate() {
        server.policy().progress().apply(kind, *revision);
    }
    Ok(revisions)
}

/// Follows until the server goes.
pub(crate) async fn run(server: Weak<ApiServer>, mut revisions: [Revision; KINDS]) {
    loop {
        let Some(strong) = server.upgrade() else { return };
        let mut stopped = strong.stopped();
        let outcome = tokio::select! {
            outcome = follow(&strong, revisions) => outcome,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        if let Err(error) = outcome {
            tracing::warn!(error = %error.0.message, "roles cannot be followed; trying again");
        }
        tokio::time::sleep(POLICY_RETRY_PAUSE).await;
        match load(&strong).await {
            Ok(loaded) => revisions = loaded,
            Err(error) => tracing::warn!(error = %error.0.message, "roles cannot be read; trying again"),
        }
    }
}

async fn follow(server: &ApiServer, revisions: [Revision; KINDS]) -> Result<()> {
    let mut watches = SelectAll::new();
    for (kind, resource) in FOLLOWED.iter().enumerate() {
        let watch = server.store().watch(&resource.key_prefix(None), revisions[kind]).await?;
        let events =
            unfold(watch, move |mut watch| async move { Some(((kind, watch.next().await?), watch)) });
        watches.push(Box::pin(events));
    }
    aggregate(server).await?;
    while let Some((kind, events)) = watches.next().await {
        let events = events?;
        let mut roles_changed = false;
        for event in &*events {
            roles_changed |= server.policy().put(&event.key, event.value.as_deref());
        }
        if let Some(last) = events.last() {
            server.policy().progress().apply(kind, last.revision);
        }
        if roles_changed {
            aggregate(server).await?;
        }
    }
    Ok(())
}

/// Writes down the rules of roles whose parts changed.
async fn aggregate(server: &ApiServer) -> Result<()> {
    for (name, rules) in server.policy().stale() {
        let at = At { resource: &CLUSTER_ROLES, namespace: "", name: &name };
        let change = &mut |old: &Value| {
            let mut new = old.clone();
            new["rules"] = json!(rules);
            Ok(new)
        };
        match server.change(at, Part::Main, false, &mut Vec::new(), change).await {
            Err(error) if !error.is("NotFound") => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_writer_waits_for_what_it_wrote_and_nothing_else() {
        let progress = Progress::default();
        progress.caught_up().await;
        let kinds =
            Progress::kinds(&Txn::new().put("/registry/roles/a/b", "x").put("/registry/rolesx/a", "y"));
        assert_eq!(kinds, [false, false, true, false]);
        progress.wrote(kinds, 7);
        progress.apply(0, 9);
        let begin = tokio::time::Instant::now();
        progress.caught_up().await;
        assert_eq!(begin.elapsed(), POLICY_WAIT_MAX);
        progress.apply(2, 7);
        let begin = tokio::time::Instant::now();
        progress.caught_up().await;
        assert!(begin.elapsed().is_zero());
    }
}

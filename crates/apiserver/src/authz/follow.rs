//! Keeps the [`Policy`] as the store has it, and aggregated roles as their parts are.

use std::sync::Weak;

use futures_util::stream::{SelectAll, StreamExt as _, unfold};
use portolan_api::resource::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES, Resource};
use portolan_store::Revision;
use serde_json::{Value, json};

use super::policy::Policy;
use crate::errors::Result;
use crate::limits::POLICY_RETRY_PAUSE;
use crate::server::ApiServer;
use crate::write::{At, Part};

const FOLLOWED: [&Resource; 4] = [&CLUSTER_ROLES, &CLUSTER_ROLE_BINDINGS, &ROLES, &ROLE_BINDINGS];

/// Reads all roles and bindings; gives the revision from which to follow each kind.
pub(crate) async fn load(server: &ApiServer) -> Result<Vec<Revision>> {
    let mut policy = Policy::default();
    let mut revisions = Vec::new();
    for resource in FOLLOWED {
        let page = server.store().list(&resource.key_prefix(None), None, 0, None).await?;
        for kv in &page.items {
            policy.put(&kv.key, Some(&kv.value));
        }
        revisions.push(page.revision);
    }
    server.policy().replace(policy);
    Ok(revisions)
}

/// Follows until the server goes.
pub(crate) async fn run(server: Weak<ApiServer>, mut revisions: Vec<Revision>) {
    loop {
        let Some(strong) = server.upgrade() else { return };
        let mut stopped = strong.stopped();
        let outcome = tokio::select! {
            outcome = follow(&strong, &revisions) => outcome,
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

async fn follow(server: &ApiServer, revisions: &[Revision]) -> Result<()> {
    let mut watches = SelectAll::new();
    for (resource, revision) in FOLLOWED.iter().zip(revisions) {
        let watch = server.store().watch(&resource.key_prefix(None), *revision).await?;
        watches.push(Box::pin(unfold(watch, |mut watch| async move { Some((watch.next().await?, watch)) })));
    }
    aggregate(server).await?;
    while let Some(events) = watches.next().await {
        let mut roles_changed = false;
        for event in &*events? {
            roles_changed |= server.policy().put(&event.key, event.value.as_deref());
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

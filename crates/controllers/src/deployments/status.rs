//! What a Deployment reports: numbers, and whether it is available and getting on.

use std::time::Duration;

use portolan_api::Time;
use portolan_api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};

use super::rollout::Bounds;

/// What the numbers come from.
pub struct Sets<'a> {
    /// All sets of the Deployment as they are.
    pub all: Vec<&'a ReplicaSet>,
    /// The one of the present template among them.
    pub new: Option<&'a ReplicaSet>,
    /// The name of a set that is being made.
    pub created: Option<&'a str>,
}

/// The status now, and when to look again for a deadline.
pub fn status(deployment: &Deployment, sets: &Sets<'_>, now: Time) -> (DeploymentStatus, Option<Duration>) {
    let sum = |of: fn(&ReplicaSet) -> i32| sets.all.iter().map(|set| of(set)).sum::<i32>();
    let available = sum(|set| set.status.available_replicas);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: sum(|set| set.status.replicas),
        updated_replicas: sets.new.map_or(0, |set| set.status.replicas),
        ready_replicas: sum(|set| set.status.ready_replicas),
        available_replicas: available,
        unavailable_replicas: (sum(|set| set.spec.replicas.unwrap_or(1)) - available).max(0),
        terminating_replicas: Some(sum(|set| set.status.terminating_replicas.unwrap_or(0))),
        conditions: deployment.status.conditions.clone(),
        collision_count: deployment.status.collision_count,
    };
    let wanted = availability(Bounds::of(&deployment.spec), available);
    set_condition(&mut status, wanted, now);
    let again = progress(deployment, sets, &mut status, now);
    (status, again)
}

fn availability(bounds: Bounds, available: i32) -> DeploymentCondition {
    if available >= bounds.min_available() {
        condition("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        let message = "Deployment does not have minimum availability.";
        condition("Available", "False", "MinimumReplicasUnavailable", message)
    }
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        ..DeploymentCondition::default()
    }
}

/// Puts a condition in, unless it says so already.
fn set_condition(status: &mut DeploymentStatus, mut new: DeploymentCondition, now: Time) {
    let index = status.conditions.iter().position(|known| known.type_ == new.type_);
    let known = index.map(|index| &status.conditions[index]);
    if known.is_some_and(|known| {
        known.status == new.status && known.reason == new.reason && known.message == new.message
    }) {
        return;
    }
    let same = known.filter(|known| known.status == new.status);
    new.last_transition_time = same.map_or(Some(now), |known| known.last_transition_time);
    new.last_update_time = Some(now);
    match index {
        Some(index) => status.conditions[index] = new,
        None => status.conditions.push(new),
    }
}

fn progressing(status: &DeploymentStatus) -> Option<&DeploymentCondition> {
    status.conditions.iter().find(|condition| condition.type_ == "Progressing")
}

/// Whether the Deployment gets on, and if it does not, until when it may stand still.
fn progress(
    deployment: &Deployment,
    sets: &Sets<'_>,
    status: &mut DeploymentStatus,
    now: Time,
) -> Option<Duration> {
    let deadline = deployment.spec.progress_deadline_seconds.filter(|seconds| *seconds < i32::MAX)?;
    let known = progressing(status).cloned();
    let reason = known.as_ref().map_or("", |known| known.reason.as_str());
    if deployment.spec.paused {
        let paused = condition("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused");
        set_condition(status, paused, now);
        return None;
    }
    if reason == "DeploymentPaused" {
        let resumed = condition("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed");
        set_condition(status, resumed, now);
    }
    if let Some(name) = sets.created {
        let message = format!("Created new replica set \"{name}\"");
        set_condition(status, condition("Progressing", "True", "NewReplicaSetCreated", &message), now);
        return Some(Duration::from_secs(u64::try_from(deadline).unwrap_or(0)));
    }
    let subject = sets.new.map_or_else(
        || format!("Deployment \"{}\"", deployment.metadata.name),
        |set| format!("ReplicaSet \"{}\"", set.metadata.name),
    );
    if is_complete(deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        set_condition(status, condition("Progressing", "True", "NewReplicaSetAvailable", &message), now);
        return None;
    }
    if got_on(&deployment.status, status) || known.is_none() {
        let message = format!("{subject} is progressing.");
        set_condition(status, condition("Progressing", "True", "ReplicaSetUpdated", &message), now);
        // The same words again are news all the same: the clock starts anew.
        if let Some(known) = status.conditions.iter_mut().find(|known| known.type_ == "Progressing") {
            known.last_update_time = Some(now);
        }
        return Some(Duration::from_secs(u64::try_from(deadline).unwrap_or(0)));
    }
    // One that was complete and lost pods is not late: nothing is being rolled out.
    if matches!(reason, "NewReplicaSetAvailable" | "ProgressDeadlineExceeded") {
        return None;
    }
    let since = progressing(status).and_then(|known| known.last_update_time).unwrap_or(now);
    let left = since.as_second() + i64::from(deadline) - now.as_second();
    if left > 0 {
        return Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)));
    }
    let message = format!("{subject} has timed out progressing.");
    set_condition(status, condition("Progressing", "False", "ProgressDeadlineExceeded", &message), now);
    None
}

pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = deployment.spec.replicas.unwrap_or(1);
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn got_on(before: &DeploymentStatus, now: &DeploymentStatus) -> bool {
    now.updated_replicas > before.updated_replicas
        || now.replicas - now.updated_replicas < before.replicas - before.updated_replicas
        || now.ready_replicas > before.ready_replicas
        || now.available_replicas > before.available_replicas
}

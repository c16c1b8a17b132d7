//! Rolling updates played through: sets and pods answer at once, and no step may break the bounds.

use std::sync::Arc;

use portolan_api::Time;
use portolan_api::apps::v1::{Deployment, ReplicaSet};
use proptest::prelude::*;
use serde_json::json;

use super::plan::{Input, Plan, plan};
use super::rollout::{Bounds, Size, new_size, shrink_old, spread};
use super::{DESIRED_REPLICAS, REVISION, hash};

fn deployment(replicas: i32, image: &str) -> Deployment {
    serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "default", "uid": "d", "generation": 1 },
        "spec": {
            "replicas": replicas, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 2,
            "selector": { "matchLabels": { "app": "web" } },
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
            "template": { "metadata": { "labels": { "app": "web" } },
                          "spec": { "containers": [{ "name": "c", "image": image }] } },
        },
    }))
    .unwrap()
}

/// A Deployment and its sets, with nobody slow.
struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    clock: i64,
}

impl World {
    fn new(replicas: i32) -> Self {
        Self { deployment: deployment(replicas, "i:1"), sets: Vec::new(), clock: 1000 }
    }

    fn plan(&mut self) -> Plan {
        self.clock += 1;
        let sets: Vec<Arc<ReplicaSet>> = self.sets.iter().cloned().map(Arc::new).collect();
        plan(&Input { deployment: &self.deployment, sets: &sets, now: Time::from_second(self.clock) })
    }

    /// Does what was planned; `false` if there was nothing to do.
    fn step(&mut self) -> bool {
        let plan = self.plan();
        let mut busy = plan.create.is_some() || !plan.changes.is_empty() || !plan.delete.is_empty();
        if let Some(mut set) = plan.create {
            set.metadata.creation_timestamp = Some(Time::from_second(self.clock));
            self.sets.push(set);
        }
        for change in plan.changes {
            let set = self.sets.iter_mut().find(|set| set.metadata.name == change.set.metadata.name).unwrap();
            set.spec.replicas = Some(change.replicas);
            set.metadata.annotations = change.annotations;
        }
        self.sets.retain(|set| plan.delete.iter().all(|gone| gone.metadata.name != set.metadata.name));
        if let Some(revision) = plan.revision {
            self.deployment.metadata.annotations.insert(REVISION.into(), revision);
            busy = true;
        }
        busy |= self.deployment.status != plan.status;
        self.deployment.status = plan.status;
        busy
    }

    /// All pods asked for are there and available.
    fn pods_follow(&mut self) {
        for set in &mut self.sets {
            let replicas = set.spec.replicas.unwrap();
            set.status.replicas = replicas;
            set.status.ready_replicas = replicas;
            set.status.available_replicas = replicas;
        }
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            let busy = self.step();
            self.pods_follow();
            if !busy {
                return;
            }
        }
        panic!("it never comes to rest: {:?}", self.sizes());
    }

    fn sizes(&self) -> Vec<(String, i32)> {
        let image = |set: &ReplicaSet| set.spec.template.spec.containers[0].image.clone();
        self.sets.iter().map(|set| (image(set), set.spec.replicas.unwrap())).collect()
    }

    fn update(&mut self, image: &str) {
        self.deployment.spec.template.spec.containers[0].image = image.into();
        self.deployment.metadata.generation += 1;
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let condition = self.deployment.status.conditions.iter().find(|c| c.type_ == kind).unwrap();
        (condition.status.clone(), condition.reason.clone())
    }
}

#[test]
fn a_new_deployment_gets_a_set_and_comes_to_rest() {
    let mut world = World::new(3);
    world.step();
    assert_eq!(world.condition("Progressing"), ("True".into(), "NewReplicaSetCreated".into()));
    assert_eq!(world.condition("Available"), ("False".into(), "MinimumReplicasUnavailable".into()));
    world.pods_follow();
    world.settle();
    assert_eq!(world.sizes(), [("i:1".into(), 3)]);
    assert_eq!(world.condition("Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
    assert_eq!(world.condition("Available"), ("True".into(), "MinimumReplicasAvailable".into()));
    let set = &world.sets[0];
    assert!(set.metadata.name.starts_with("web-"));
    assert_eq!(set.spec.selector.as_ref().unwrap().match_labels.len(), 2);
    assert_eq!(set.metadata.annotations[DESIRED_REPLICAS], "3");
}

#[test]
fn an_update_never_breaks_its_bounds_and_ends_with_the_new_template() {
    let mut world = World::new(4);
    world.settle();
    world.update("i:2");
    for _ in 0..40 {
        world.step();
        let asked: i32 = world.sets.iter().map(|set| set.spec.replicas.unwrap()).sum();
        let serving: i32 =
            world.sets.iter().map(|set| set.status.available_replicas.min(set.spec.replicas.unwrap())).sum();
        assert!(asked <= 5, "{:?}", world.sizes());
        assert!(serving >= 4, "{:?}", world.sizes());
        world.pods_follow();
    }
    assert_eq!(world.sizes(), [("i:1".into(), 0), ("i:2".into(), 4)]);
    assert_eq!(world.deployment.metadata.annotations[REVISION], "2");
}

#[test]
fn going_back_uses_the_old_set_under_a_new_revision() {
    let mut world = World::new(2);
    world.settle();
    world.update("i:2");
    world.settle();
    world.update("i:1");
    world.settle();
    assert_eq!(world.sizes(), [("i:1".into(), 2), ("i:2".into(), 0)]);
    let annotations = &world.sets[0].metadata.annotations;
    assert_eq!(annotations[REVISION], "3");
    assert_eq!(annotations[super::REVISION_HISTORY], "1");
}

#[test]
fn history_is_kept_to_its_limit() {
    let mut world = World::new(1);
    for number in 1..=5 {
        world.update(&format!("i:{number}"));
        world.settle();
    }
    assert_eq!(world.sizes(), [("i:3".into(), 0), ("i:4".into(), 0), ("i:5".into(), 1)]);
}

#[test]
fn a_paused_deployment_scales_and_does_not_roll() {
    let mut world = World::new(2);
    world.settle();
    world.deployment.spec.paused = true;
    world.update("i:2");
    world.deployment.spec.replicas = Some(5);
    world.settle();
    assert_eq!(world.sizes(), [("i:1".into(), 5)]);
    assert_eq!(world.condition("Progressing").1, "DeploymentPaused");
    world.deployment.spec.paused = false;
    world.settle();
    assert_eq!(world.sizes(), [("i:1".into(), 0), ("i:2".into(), 5)]);
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut world = World::new(2);
    world.deployment.spec.strategy.type_ = "Recreate".into();
    world.settle();
    world.update("i:2");
    world.step();
    assert_eq!(world.sizes(), [("i:1".into(), 0)]);
    world.pods_follow();
    world.sets[0].status.terminating_replicas = Some(1);
    world.step();
    assert_eq!(world.sizes(), [("i:1".into(), 0)], "one is still on its way out");
    world.sets[0].status.terminating_replicas = Some(0);
    world.settle();
    assert_eq!(world.sizes(), [("i:1".into(), 0), ("i:2".into(), 2)]);
}

#[test]
fn pods_that_never_serve_stop_the_update_and_time_out() {
    let mut world = World::new(3);
    world.settle();
    world.update("i:bad");
    for _ in 0..20 {
        world.step();
    }
    assert_eq!(world.sizes(), [("i:1".into(), 3), ("i:bad".into(), 1)]);
    assert_eq!(world.condition("Available").0, "True");
    let again = world.plan().again.expect("a deadline");
    world.clock += i64::try_from(again.as_secs()).unwrap();
    world.step();
    assert_eq!(world.condition("Progressing"), ("False".into(), "ProgressDeadlineExceeded".into()));
    world.update("i:1");
    world.settle();
    assert_eq!(world.condition("Progressing").1, "NewReplicaSetAvailable");
}

#[test]
fn percentages_round_up_for_surge_and_down_for_unavailable() {
    let bounds = |replicas: i32, surge: &str, unavailable: &str| {
        let mut deployment = deployment(replicas, "i");
        let steps = deployment.spec.strategy.rolling_update.as_mut().unwrap();
        steps.max_surge = Some(surge.into());
        steps.max_unavailable = Some(unavailable.into());
        let bounds = Bounds::of(&deployment.spec);
        (bounds.surge, bounds.unavailable)
    };
    assert_eq!(bounds(10, "25%", "25%"), (3, 2));
    assert_eq!(bounds(1, "25%", "25%"), (1, 0));
    assert_eq!(bounds(3, "0%", "25%"), (0, 1), "both nothing would never move");
}

#[test]
fn a_change_of_number_in_the_middle_is_shared() {
    let bounds = Bounds { replicas: 20, surge: 2, unavailable: 2, rolling: true };
    let size = |replicas| Size { replicas, available: replicas, max_replicas: Some(12) };
    let mut sets = [size(4), size(8)];
    spread(bounds, &mut sets);
    assert_eq!([sets[0].replicas, sets[1].replicas], [7, 15]);
}

#[test]
fn equal_templates_have_equal_names() {
    let (one, two) = (deployment(1, "i:1").spec.template, deployment(1, "i:2").spec.template);
    assert_eq!(hash::of(&one, 0), hash::of(&one.clone(), 0));
    assert_ne!(hash::of(&one, 0), hash::of(&two, 0));
    assert_ne!(hash::of(&one, 0), hash::of(&one, 1));
}

proptest! {
    #[test]
    fn no_step_breaks_the_bounds(
        replicas in 0..30i32, surge in 0..10i32, unavailable in 0..10i32,
        new in (0..40i32, 0..40i32), old in prop::collection::vec((0..20i32, 0..20i32), 0..4),
    ) {
        let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable }.min(replicas.max(1));
        let bounds = Bounds { replicas, surge, unavailable, rolling: true };
        let size = |(replicas, available): (i32, i32)|
            Size { replicas, available: available.min(replicas), max_replicas: None };
        let mut new = size(new);
        let mut old: Vec<Size> = old.into_iter().map(size).collect();
        let total = new.replicas + old.iter().map(|set| set.replicas).sum::<i32>();
        let grown = new_size(bounds, new.replicas, total);
        // Growth stays below the upper bound; a set that is too large already is cut.
        prop_assert!(grown <= new.replicas || total + grown - new.replicas <= bounds.max_total());
        new.replicas = grown;
        new.available = new.available.min(grown);
        let serving = |old: &[Size]| new.available + old.iter().map(|s| s.available.min(s.replicas)).sum::<i32>();
        let before = (serving(&old), old.clone());
        shrink_old(bounds, new, &mut old);
        prop_assert!(serving(&old) >= bounds.min_available().min(before.0));
        for (now, was) in old.iter().zip(&before.1) {
            prop_assert!((0..=was.replicas).contains(&now.replicas));
        }
    }
}

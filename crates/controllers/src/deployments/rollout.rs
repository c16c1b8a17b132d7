//! The arithmetic of a rolling update: how large each `ReplicaSet` of a Deployment is to be. Pure.
//!
//! Never more than `replicas + surge` pods are asked for, and none is taken away that `replicas - unavailable` needs.

use portolan_api::IntOrString;
use portolan_api::apps::v1::DeploymentSpec;

/// One `ReplicaSet` as the arithmetic sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Pods asked for.
    pub replicas: i32,
    /// Pods that have been ready for long enough.
    pub available: i32,
    /// What `replicas + surge` was when it was last resized.
    pub max_replicas: Option<i32>,
}

/// How a Deployment may stray from its number of replicas while it is updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub replicas: i32,
    pub surge: i32,
    pub unavailable: i32,
    pub rolling: bool,
}

impl Bounds {
    pub fn of(spec: &DeploymentSpec) -> Self {
        let replicas = spec.replicas.unwrap_or(1);
        if spec.strategy.type_ == "Recreate" {
            return Self { replicas, surge: 0, unavailable: 0, rolling: false };
        }
        let steps = spec.strategy.rolling_update.clone().unwrap_or_default();
        let surge = part(steps.max_surge.as_ref(), replicas, true);
        let unavailable = part(steps.max_unavailable.as_ref(), replicas, false);
        // Percentages of few replicas may both come to nothing, and then nothing would ever move.
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable.min(replicas) };
        Self { replicas, surge, unavailable, rolling: true }
    }

    pub fn max_total(self) -> i32 {
        self.replicas + self.surge
    }

    /// A Deployment with so many available pods serves.
    pub fn min_available(self) -> i32 {
        if self.rolling { self.replicas - self.unavailable } else { self.replicas }
    }
}

/// A number, or a percentage of `total`. Absent is a quarter, as the API's default.
fn part(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(number)) => return (*number).max(0),
        Some(IntOrString::String(text)) => text.trim_end_matches('%').parse().unwrap_or(0),
        None => 25,
    };
    let product = i64::from(total.max(0)) * i64::from(percent.clamp(0, 100));
    i32::try_from(if up { (product + 99) / 100 } else { product / 100 }).unwrap_or(i32::MAX)
}

/// How large the set of the present template is to be, given all sets together ask for `total` now.
pub fn new_size(bounds: Bounds, new: i32, total: i32) -> i32 {
    if new >= bounds.replicas || !bounds.rolling {
        return bounds.replicas;
    }
    let room = (bounds.max_total() - total).max(0);
    new + room.min(bounds.replicas - new)
}

/// Takes pods from the old sets (in order: oldest first), as many as may go now: first those that do not serve anyway.
pub fn shrink_old(bounds: Bounds, new: Size, old: &mut [Size]) {
    let total = new.replicas + old.iter().map(|set| set.replicas).sum::<i32>();
    let missing = (new.replicas - new.available).max(0);
    let mut budget = total - bounds.min_available() - missing;
    for set in old.iter_mut() {
        let idle = (set.replicas - set.available).clamp(0, budget.max(0));
        set.replicas -= idle;
        budget -= idle;
    }
    let available = new.available + old.iter().map(|set| set.available.min(set.replicas)).sum::<i32>();
    let mut spare = (available - bounds.min_available()).max(0);
    for set in old.iter_mut() {
        let gone = set.replicas.min(spare);
        set.replicas -= gone;
        spare -= gone;
    }
}

/// Spreads a changed number of replicas over the sets of an update under way, each by its share. `sets` come with the
/// new template's first.
pub fn spread(bounds: Bounds, sets: &mut [Size]) {
    let allowed = if bounds.replicas > 0 { bounds.max_total() } else { 0 };
    let to_add = allowed - sets.iter().map(|set| set.replicas).sum::<i32>();
    let mut order: Vec<usize> = (0..sets.len()).filter(|index| sets[*index].replicas > 0).collect();
    order.sort_by_key(|index| {
        let age = if to_add > 0 { *index } else { sets.len() - index };
        (std::cmp::Reverse(sets[*index].replicas), age)
    });
    let mut added = 0;
    for index in &order {
        let set = &mut sets[*index];
        let left = to_add - added;
        let share = share(bounds, *set);
        let change = if to_add > 0 { share.clamp(0, left.max(0)) } else { share.clamp(left.min(0), 0) };
        set.replicas += change;
        added += change;
    }
    if let Some(first) = order.first() {
        // What rounding left over goes to the largest.
        sets[*first].replicas = (sets[*first].replicas + to_add - added).max(0);
    }
}

/// By how much a set would change if it kept its share of the whole.
fn share(bounds: Bounds, set: Size) -> i32 {
    if bounds.replicas == 0 {
        return -set.replicas;
    }
    let before = f64::from(set.max_replicas.filter(|max| *max > 0).unwrap_or(bounds.max_total()));
    let now = f64::from(set.replicas) * f64::from(bounds.max_total()) / before;
    // Sizes are far below what a double holds exactly.
    #[allow(clippy::cast_possible_truncation)]
    let now = now.round() as i32;
    now - set.replicas
}

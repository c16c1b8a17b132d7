//! From a Deployment and its `ReplicaSet`s to the sets there are to be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portolan_api::Time;
use portolan_api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use portolan_api::core::v1::PodTemplateSpec;
use portolan_api::meta::v1::{ObjectMeta, OwnerReference};

use super::rollout::{Bounds, Size, new_size, shrink_old, spread};
use super::status::{Sets, is_complete, status};
use super::{DESIRED_REPLICAS, HASH_LABEL, MAX_REPLICAS, REVISION, REVISION_HISTORY, hash};

/// Annotations of a Deployment that its sets do not take over.
const OWN_ANNOTATIONS: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// All that the plan depends on.
pub struct Input<'a> {
    pub deployment: &'a Deployment,
    /// The sets that it controls, in any order.
    pub sets: &'a [Arc<ReplicaSet>],
    pub now: Time,
}

/// A set that is to become different.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub set: Arc<ReplicaSet>,
    pub replicas: i32,
    /// All of its annotations.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
pub struct Plan {
    pub create: Option<ReplicaSet>,
    /// Those that grow come first.
    pub changes: Vec<Change>,
    pub delete: Vec<Arc<ReplicaSet>>,
    /// The Deployment's revision, if its annotation says otherwise.
    pub revision: Option<String>,
    pub status: DeploymentStatus,
    /// When a deadline passes.
    pub again: Option<Duration>,
}

/// Plans one Deployment.
pub fn plan(input: &Input<'_>) -> Plan {
    let mut draft = Draft::new(input);
    let deployment = input.deployment;
    if deployment.metadata.deletion_timestamp.is_none() {
        if deployment.spec.paused || draft.was_scaled() {
            draft.scale();
        } else {
            draft.roll();
        }
        draft.forget_history();
    }
    draft.finish()
}

struct Draft<'a> {
    input: &'a Input<'a>,
    bounds: Bounds,
    /// Oldest first.
    old: Vec<Change>,
    /// The set of the present template.
    new: Option<Change>,
    create: Option<ReplicaSet>,
    delete: Vec<Arc<ReplicaSet>>,
}

impl<'a> Draft<'a> {
    fn new(input: &'a Input<'a>) -> Self {
        let mut sets: Vec<Change> = input.sets.iter().map(Change::none).collect();
        sets.sort_by_key(|change| {
            let meta = &change.set.metadata;
            (meta.creation_timestamp, meta.name.clone())
        });
        let template = &input.deployment.spec.template;
        let new = sets.iter().position(|change| same_template(&change.set.spec.template, template));
        let new = new.map(|index| sets.remove(index));
        let bounds = Bounds::of(&input.deployment.spec);
        Self { input, bounds, old: sets, new, create: None, delete: Vec::new() }
    }

    /// The number of replicas was changed since the sets were last resized.
    fn was_scaled(&self) -> bool {
        let wanted = self.bounds.replicas.to_string();
        let active = self.old.iter().chain(&self.new).filter(|change| change.replicas > 0);
        let mut annotated = active.filter_map(|change| change.annotations.get(DESIRED_REPLICAS));
        annotated.any(|desired| *desired != wanted)
    }

    /// A changed number of replicas, and nothing else: no set is made.
    fn scale(&mut self) {
        let bounds = self.bounds;
        let active = self.old.iter().chain(&self.new).filter(|change| change.replicas > 0).count();
        let saturated = self.new.as_ref().is_some_and(|new| {
            new.replicas == bounds.replicas && new.set.status.available_replicas == bounds.replicas
        });
        let latest = match active {
            0 => self.new.as_mut().or(self.old.last_mut()),
            1 => self.new.iter_mut().chain(&mut self.old).find(|change| change.replicas > 0),
            _ => None,
        };
        if active <= 1 {
            if let Some(latest) = latest {
                latest.resize(bounds.replicas, bounds);
            }
        } else if saturated {
            self.old.iter_mut().for_each(|change| change.resize(0, bounds));
            self.new.iter_mut().for_each(|change| change.resize(bounds.replicas, bounds));
        } else if bounds.rolling {
            // Newest first, and the one of the present template before all.
            let mut order: Vec<&mut Change> = self.new.iter_mut().chain(self.old.iter_mut().rev()).collect();
            let mut sizes: Vec<Size> = order.iter().map(|change| change.size()).collect();
            spread(bounds, &mut sizes);
            for (change, size) in order.iter_mut().zip(sizes) {
                change.resize(size.replicas, bounds);
            }
        }
    }

    /// One step towards all pods being of the present template.
    fn roll(&mut self) {
        let bounds = self.bounds;
        let revision = self.next_revision();
        let total = self.old.iter().chain(&self.new).map(|change| change.replicas).sum();
        if !bounds.rolling && self.old_pods_remain() {
            self.old.iter_mut().for_each(|change| change.resize(0, bounds));
            return;
        }
        let mut new = Size::default();
        if let Some(change) = &mut self.new {
            change.resize(new_size(bounds, change.replicas, total), bounds);
            change.inherit(self.input.deployment);
            change.revise(revision);
            new = change.size();
        } else {
            new.replicas = new_size(bounds, 0, total);
            self.create = Some(new_set(self.input.deployment, new.replicas, revision, bounds));
        }
        let mut sizes: Vec<Size> = self.old.iter().map(Change::size).collect();
        shrink_old(bounds, new, &mut sizes);
        for (change, size) in self.old.iter_mut().zip(sizes) {
            if size.replicas != change.replicas {
                change.resize(size.replicas, bounds);
            }
        }
    }

    /// `Recreate` waits for the last pod of the old templates, those on their way out included.
    fn old_pods_remain(&self) -> bool {
        self.old.iter().any(|change| {
            let status = &change.set.status;
            change.replicas > 0 || status.replicas > 0 || status.terminating_replicas.unwrap_or(0) > 0
        })
    }

    fn next_revision(&self) -> u64 {
        self.old.iter().map(Change::revision).max().unwrap_or(0) + 1
    }

    /// Old sets beyond the limit go, those of the earliest revisions first.
    fn forget_history(&mut self) {
        let limit = self.input.deployment.spec.revision_history_limit.unwrap_or(10);
        let limit = usize::try_from(limit).unwrap_or(0);
        if self.old.len() <= limit || !self.is_settled() {
            return;
        }
        let mut order: Vec<usize> = (0..self.old.len()).collect();
        order.sort_by_key(|index| self.old[*index].revision());
        for index in order.into_iter().take(self.old.len() - limit) {
            let change = &self.old[index];
            let (set, status) = (&change.set, &change.set.status);
            let empty = change.replicas == 0 && status.replicas == 0;
            let seen = status.observed_generation >= set.metadata.generation;
            if empty && seen && set.metadata.deletion_timestamp.is_none() {
                self.delete.push(Arc::clone(set));
            }
        }
    }

    fn is_settled(&self) -> bool {
        let deployment = self.input.deployment;
        self.create.is_none() && is_complete(deployment, &deployment.status)
    }

    fn finish(self) -> Plan {
        let all: Vec<&ReplicaSet> = self.input.sets.iter().map(AsRef::as_ref).collect();
        let new = self.new.as_ref().map(|change| &*change.set);
        let created = self.create.as_ref().map(|set| set.metadata.name.as_str());
        let (status, again) = status(self.input.deployment, &Sets { all, new, created }, self.input.now);
        let revision = match (&self.new, &self.create) {
            (Some(change), _) => change.annotations.get(REVISION).cloned(),
            (None, Some(set)) => set.metadata.annotations.get(REVISION).cloned(),
            (None, None) => None,
        };
        let known = self.input.deployment.metadata.annotations.get(REVISION);
        let revision = revision.filter(|revision| known != Some(revision));
        let deleted: Vec<String> = self.delete.iter().map(|set| set.metadata.name.clone()).collect();
        let mut changes: Vec<Change> = self
            .new
            .into_iter()
            .chain(self.old)
            .filter(|change| change.differs() && !deleted.contains(&change.set.metadata.name))
            .collect();
        changes.sort_by_key(|change| change.replicas <= change.set.spec.replicas.unwrap_or(1));
        Plan { create: self.create, changes, delete: self.delete, revision, status, again }
    }
}

impl Change {
    fn none(set: &Arc<ReplicaSet>) -> Self {
        Self {
            replicas: set.spec.replicas.unwrap_or(1),
            annotations: set.metadata.annotations.clone(),
            set: Arc::clone(set),
        }
    }

    fn differs(&self) -> bool {
        self.replicas != self.set.spec.replicas.unwrap_or(1)
            || self.annotations != self.set.metadata.annotations
    }

    fn size(&self) -> Size {
        Size {
            replicas: self.replicas,
            available: self.set.status.available_replicas,
            max_replicas: self.annotations.get(MAX_REPLICAS).and_then(|text| text.parse().ok()),
        }
    }

    fn resize(&mut self, replicas: i32, bounds: Bounds) {
        self.replicas = replicas;
        self.annotations.extend(sizes(bounds));
    }

    fn revision(&self) -> u64 {
        self.annotations.get(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// A set that is in use again gets a new number and remembers the earlier ones.
    fn revise(&mut self, revision: u64) {
        let before = self.revision();
        if before >= revision {
            return;
        }
        if before > 0 {
            let history = self.annotations.entry(REVISION_HISTORY.into()).or_default();
            let separator = if history.is_empty() { "" } else { "," };
            *history = format!("{history}{separator}{before}");
        }
        self.annotations.insert(REVISION.into(), revision.to_string());
    }

    /// What users say about the Deployment holds for the set too, such as the cause of the change.
    fn inherit(&mut self, deployment: &Deployment) {
        self.annotations.extend(inherited(deployment));
    }
}

fn inherited(deployment: &Deployment) -> BTreeMap<String, String> {
    let own = |name: &&String| OWN_ANNOTATIONS.contains(&name.as_str());
    let annotations = deployment.metadata.annotations.iter().filter(|(name, _)| !own(name));
    annotations.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn sizes(bounds: Bounds) -> [(String, String); 2] {
    [
        (DESIRED_REPLICAS.into(), bounds.replicas.to_string()),
        (MAX_REPLICAS.into(), bounds.max_total().to_string()),
    ]
}

/// Whether a set's template is the Deployment's: the label by which sets differ is the set's own.
pub fn same_template(of_set: &PodTemplateSpec, template: &PodTemplateSpec) -> bool {
    let labels = |template: &PodTemplateSpec| {
        let mut labels = template.metadata.labels.clone();
        labels.remove(HASH_LABEL);
        labels
    };
    of_set.spec == template.spec
        && of_set.metadata.annotations == template.metadata.annotations
        && of_set.metadata.finalizers == template.metadata.finalizers
        && labels(of_set) == labels(template)
}

fn new_set(deployment: &Deployment, replicas: i32, revision: u64, bounds: Bounds) -> ReplicaSet {
    let spec = &deployment.spec;
    let hash = hash::of(&spec.template, deployment.status.collision_count.unwrap_or(0));
    let mut template = spec.template.clone();
    template.metadata.labels.insert(HASH_LABEL.into(), hash.clone());
    let mut selector = spec.selector.clone().unwrap_or_default();
    selector.match_labels.insert(HASH_LABEL.into(), hash.clone());
    let mut annotations = inherited(deployment);
    annotations.extend(sizes(bounds));
    annotations.insert(REVISION.into(), revision.to_string());
    let meta = &deployment.metadata;
    ReplicaSet {
        metadata: ObjectMeta {
            name: format!("{}-{hash}", meta.name),
            namespace: meta.namespace.clone(),
            labels: template.metadata.labels.clone(),
            annotations,
            owner_references: vec![OwnerReference {
                api_version: "apps/v1".into(),
                kind: "Deployment".into(),
                name: meta.name.clone(),
                uid: meta.uid.clone(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }],
            ..ObjectMeta::default()
        },
        spec: ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector: Some(selector),
            template,
        },
        ..ReplicaSet::default()
    }
}

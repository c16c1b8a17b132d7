//! The three ways in which an object changes: [`ApiServer::insert`], [`ApiServer::change`], [`ApiServer::remove`].
//!
//! Every verb that writes goes through these. Each is one store transaction: with a Service go its addresses and, when
//! it is removed, its Endpoints, so that nothing can leak; with a new object goes the condition that its namespace is
//! still there. A transaction that meets a conflict is thought through again from the start.

use std::sync::Arc;

use bytes::Bytes;
use portolan_api::resource::{ENDPOINTS, Resource};
use portolan_api::validate::meta::common_update;
use portolan_api::{Time, status};
use portolan_store::{Commit, Compare, KeyValue, Revision, Txn};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::alloc::{Allocator, Plan};
use crate::authz::follow::Progress;
use crate::errors::{ApiError, Result, allocation};
use crate::limits::{GENERATE_NAME_ATTEMPTS_MAX, WRITE_ATTEMPTS_MAX};
use crate::managed::{self, Manager, Operation, Scope};
use crate::object::{self, has_finalizers, meta, meta_mut};
use crate::server::ApiServer;
use crate::{accounts, admission, metadata, view};

/// Which object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    /// Its kind.
    pub(crate) resource: &'static Resource,
    /// Its namespace; empty for kinds without one.
    pub(crate) namespace: &'a str,
    /// Its name.
    pub(crate) name: &'a str,
}

impl At<'_> {
    /// Its key in the store.
    pub(crate) fn key(&self) -> String {
        self.resource.key(self.namespace, self.name)
    }

    /// 404.
    pub(crate) fn not_found(&self) -> ApiError {
        status::not_found(self.resource, self.name).into()
    }
}

/// Which part of an object an update concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The object; its status stays.
    Main,
    /// Its status; the rest stays.
    Status,
    /// The server's own change: no rules but the schema.
    Raw,
}

/// Who writes, as `metadata.managedFields` will say.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Writer<'a> {
    /// One whose changes are recorded here.
    Updates(&'a Manager),
    /// The new object was applied and brings its record with it.
    Applied,
}

impl Part {
    fn scope(self, resource: &Resource) -> Scope {
        match self {
            Self::Status => Scope::Status,
            _ if resource.has_status() => Scope::NotStatus,
            _ => Scope::All,
        }
    }
}

/// The fields a client may write through a part of an object.
pub(crate) fn scope(part: Part, resource: &Resource) -> Scope {
    part.scope(resource)
}

/// The server's own name as a writer.
fn own(resource: &Resource) -> Manager {
    Manager {
        name: "kube-apiserver".into(),
        operation: Operation::Update,
        api_version: resource.api_version(),
        subresource: String::new(),
    }
}

/// Computes the new object from the stored one. Called again whenever the stored one turns out to have changed.
pub(crate) type Change<'a> = &'a mut (dyn FnMut(&Value) -> Result<Value> + Send);

fn is_pods(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "pods"
}

/// Whether a kind's writes go through the allocators.
fn allocates(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "services"
}

/// The part of a new object that an attempt to store it fills in from what it finds: addresses, a service account. Another
/// attempt starts from what it was; all else comes out the same whenever it is done.
fn filled_in(resource: &Resource, object: &Value) -> Option<Value> {
    (allocates(resource) || is_pods(resource)).then(|| object.get("spec").cloned()).flatten()
}

impl ApiServer {
    /// The stored object, or 404.
    pub(crate) async fn fetch(&self, at: At<'_>) -> Result<KeyValue> {
        let kv = self.store().get(&at.key()).await?.0.ok_or_else(|| at.not_found())?;
        Ok(view::shown(at.resource, kv))
    }

    /// [`ApiServer::insert_by`], by the server itself.
    pub(crate) async fn insert(
        &self,
        resource: &'static Resource,
        object: Value,
        dry_run: bool,
        warnings: &mut Vec<String>,
    ) -> Result<Bytes> {
        self.insert_by(Writer::Updates(&own(resource)), resource, object, dry_run, warnings).await
    }

    /// Stores a new object whose namespace is set; gives it identity, name, defaults and addresses. Returns it whole.
    pub(crate) async fn insert_by(
        &self,
        writer: Writer<'_>,
        resource: &'static Resource,
        mut object: Value,
        dry_run: bool,
        warnings: &mut Vec<String>,
    ) -> Result<Bytes> {
        let sent = meta_mut(&mut object).remove("managedFields");
        metadata::begin(&mut object)?;
        let base = metadata::generate_base(&object);
        resource.strategy.default(&mut object);
        let record = match writer {
            Writer::Applied => sent.map(|list| list.to_string()),
            Writer::Updates(manager) => {
                let scope = Part::Main.scope(resource);
                managed::begin((resource.schema)(), scope, manager, &object, sent.as_ref(), Time::now())
            }
        };
        // It is JSON of our own making; were it not, the object would be stored without it.
        let record = record.and_then(|text| RawValue::from_string(text).ok());
        let spec = filled_in(resource, &object);
        let (mut names_tried, mut attempts) = (0, 0);
        loop {
            if let Some(base) = &base {
                meta_mut(&mut object).insert("name".into(), metadata::generate_name(base).into());
            }
            let name = meta(&object, "name").unwrap_or_default().to_string();
            match self.try_insert(resource, &mut object, record.as_deref(), dry_run, warnings).await? {
                Insert::Done(bytes) => return Ok(bytes),
                Insert::Taken(by) if base.is_none() => return Err(taken(resource, &name, &by)),
                Insert::Taken(_) => {
                    names_tried += 1;
                    if names_tried == GENERATE_NAME_ATTEMPTS_MAX {
                        return Err(status::generated_name_taken(resource, &name).into());
                    }
                }
                Insert::Again => {
                    attempts += 1;
                    if attempts == WRITE_ATTEMPTS_MAX {
                        return Err(status::conflict(resource, &name).into());
                    }
                }
            }
            if let Some(spec) = &spec {
                object["spec"] = spec.clone();
            }
        }
    }

    async fn try_insert(
        &self,
        resource: &'static Resource,
        object: &mut Value,
        record: Option<&RawValue>,
        dry_run: bool,
        warnings: &mut Vec<String>,
    ) -> Result<Insert> {
        let name = meta(object, "name").unwrap_or_default().to_string();
        let namespace = meta(object, "namespace").unwrap_or_default().to_string();
        let place = admission::namespace(self, resource, &namespace, &name).await?;
        if is_pods(resource) {
            admission::tolerations(object);
            // Boxed, for it may itself write a service account.
            Box::pin(accounts::admit(self, object)).await?;
        }
        let mut plan = None;
        if allocates(resource) {
            let planned = self.allocator().plan_create(object, dry_run).await;
            plan = Some(planned.map_err(|error| allocation(error, &name))?);
        }
        resource.strategy.prepare_create(object);
        let errors = resource.strategy.validate_create(object);
        if !errors.is_empty() {
            return Err(status::invalid(resource, &name, &errors).into());
        }
        let key = resource.key(&namespace, &name);
        if dry_run {
            if let (Some(by), _) = self.store().get(&key).await? {
                return Ok(Insert::Taken(Box::new(by)));
            }
            warnings.extend(resource.strategy.warnings(object, None));
            return Ok(Insert::Done(object::encode_with(object, record)));
        }
        let stored = object::to_stored_with(object, record);
        let mut txn =
            Txn::new().if_absent(key.as_str()).put(key.as_str(), view::stored(resource, stored.clone()));
        txn.compares.extend(place);
        match self.commit(txn, plan).await? {
            Outcome::Done(revision) => {
                warnings.extend(resource.strategy.warnings(object, None));
                let mut out = Vec::new();
                object::splice(&mut out, &key, &stored, revision)?;
                Ok(Insert::Done(out.into()))
            }
            Outcome::Conflict(current) => {
                let own = current.into_iter().find(|(k, _)| **k == *key).and_then(|(_, kv)| kv);
                Ok(own.map_or(Insert::Again, |kv| Insert::Taken(Box::new(kv))))
            }
        }
    }

    /// [`ApiServer::change_by`], by the server itself.
    pub(crate) async fn change(
        &self,
        at: At<'_>,
        part: Part,
        dry_run: bool,
        warnings: &mut Vec<String>,
        change: Change<'_>,
    ) -> Result<Bytes> {
        self.change_by(Writer::Updates(&own(at.resource)), at, part, dry_run, warnings, change).await
    }

    /// Rewrites a stored object. Returns it whole. A change that changes nothing writes nothing.
    pub(crate) async fn change_by(
        &self,
        writer: Writer<'_>,
        at: At<'_>,
        part: Part,
        dry_run: bool,
        warnings: &mut Vec<String>,
        change: Change<'_>,
    ) -> Result<Bytes> {
        for _ in 0..WRITE_ATTEMPTS_MAX {
            let kv = self.fetch(at).await?;
            if let Some(bytes) = self.try_change(writer, at, &kv, part, dry_run, warnings, change).await? {
                return Ok(bytes);
            }
        }
        Err(status::conflict(at.resource, at.name).into())
    }

    /// `None` if the object changed meanwhile.
    #[allow(clippy::too_many_arguments)] // those of `change_by`, and the stored object
    async fn try_change(
        &self,
        writer: Writer<'_>,
        at: At<'_>,
        kv: &KeyValue,
        part: Part,
        dry_run: bool,
        warnings: &mut Vec<String>,
        change: Change<'_>,
    ) -> Result<Option<Bytes>> {
        let strategy = at.resource.strategy;
        let mut old = object::to_value(kv)?;
        let mut new = change(&old)?;
        strategy.default(&mut old);
        if part != Part::Raw {
            let sent = meta_mut(&mut new).remove("managedFields");
            metadata::carry_over(at.resource, at.name, &mut new, &old)?;
            strategy.default(&mut new);
            record(writer, part, at.resource, &old, &mut new, sent);
        }
        if part == Part::Main && is_pods(at.resource) {
            // A manifest that says nothing of them takes none away.
            admission::tolerations(&mut new);
        }
        let mut plan = None;
        if part == Part::Main && allocates(at.resource) {
            let planned = self.allocator().plan_update(&old, &mut new, dry_run).await;
            plan = Some(planned.map_err(|error| allocation(error, at.name))?);
        }
        let errors = match part {
            Part::Main => {
                strategy.prepare_update(&mut new, &old);
                let mut errors = common_update(&new, &old, at.resource.namespaced);
                errors.extend(strategy.validate_update(&new, &old));
                errors
            }
            Part::Status => {
                strategy.prepare_status_update(&mut new, &old);
                let mut errors = common_update(&new, &old, at.resource.namespaced);
                errors.extend(strategy.validate_status_update(&new, &old));
                errors
            }
            Part::Raw => Vec::new(),
        };
        if !errors.is_empty() {
            return Err(status::invalid(at.resource, at.name, &errors).into());
        }
        let said = strategy.warnings(&new, Some(&old));
        let stored = to_stored_unless_only_times(&mut new, &old, kv);
        if stored == kv.value.trim_ascii_end() || dry_run {
            warnings.extend(said);
            let mut out = Vec::new();
            object::splice(&mut out, &kv.key, &stored, kv.mod_revision)?;
            return Ok(Some(out.into()));
        }
        let outcome = if is_gone(at.resource, &new) {
            self.commit_removal(at.resource, kv, &old).await?
        } else {
            let bytes = view::stored(at.resource, stored.clone());
            let txn = Txn::new().if_revision(kv.key.clone(), kv.mod_revision).put(kv.key.clone(), bytes);
            self.commit(txn, plan).await?
        };
        let Outcome::Done(revision) = outcome else { return Ok(None) };
        warnings.extend(said);
        let mut out = Vec::new();
        object::splice(&mut out, &kv.key, &stored, revision)?;
        Ok(Some(out.into()))
    }

    /// Takes an object out of the store, with everything that goes with it. `None` if it changed meanwhile.
    pub(crate) async fn remove(
        &self,
        resource: &Resource,
        kv: &KeyValue,
        old: &Value,
    ) -> Result<Option<Revision>> {
        Ok(self.commit_removal(resource, kv, old).await?.done())
    }

    /// Writes that an object is on its way out. `None` if it changed meanwhile.
    pub(crate) async fn mark(&self, txn: Txn) -> Result<Option<Revision>> {
        Ok(self.commit(txn, None).await?.done())
    }

    async fn commit_removal(&self, resource: &Resource, kv: &KeyValue, old: &Value) -> Result<Outcome> {
        let mut txn = Txn::new().if_revision(kv.key.clone(), kv.mod_revision).delete(kv.key.clone());
        let mut plan = None;
        if allocates(resource) {
            let name = meta(old, "name").unwrap_or_default();
            let planned = self.allocator().plan_delete(old).await;
            plan = Some(planned.map_err(|error| allocation(error, name))?);
            txn = txn.delete(ENDPOINTS.key(meta(old, "namespace").unwrap_or_default(), name));
        }
        self.commit(txn, plan).await
    }

    /// Commits `txn` with what the allocators add to it, and tells them how it went.
    async fn commit(&self, mut txn: Txn, plan: Option<Plan>) -> Result<Outcome> {
        let Some(mut plan) = plan else {
            let kinds = Progress::kinds(&txn);
            let ranges = Allocator::ranges_of(&txn);
            let outcome = self.store().commit(txn).await?;
            if let Commit::Done(revision) = &outcome {
                self.policy().progress().wrote(kinds, *revision);
                self.allocator().wrote(&ranges, *revision);
            }
            return Ok(outcome.into());
        };
        // The plan keeps its conditions: at a conflict it looks which of them failed.
        txn.compares.extend_from_slice(&plan.compares);
        txn.ops.append(&mut plan.ops);
        let store = self.shared_store();
        // A task of its own: the transaction goes on when the client goes away, and what it allocates must not be
        // given back then.
        let task = tokio::spawn(async move {
            let outcome = store.commit(txn).await;
            match &outcome {
                Ok(Commit::Done(_)) => plan.committed(),
                Ok(Commit::Conflict { current }) => _ = plan.conflict(current),
                Err(portolan_store::Error::Unknown(_)) => plan.unknown(),
                Err(_) => drop(plan),
            }
            outcome
        });
        let outcome = task.await.map_err(status::internal_error)?;
        Ok(outcome?.into())
    }
}

/// Writes down who owns which field of the changed object. `sent` is what came with it.
fn record(
    writer: Writer<'_>,
    part: Part,
    resource: &Resource,
    old: &Value,
    new: &mut Value,
    sent: Option<Value>,
) {
    let list = match writer {
        Writer::Applied => sent,
        Writer::Updates(manager) => {
            let (schema, now) = ((resource.schema)(), Time::now());
            managed::track(schema, part.scope(resource), manager, Some(old), new, sent.as_ref(), now)
        }
    };
    match list {
        Some(list) => meta_mut(new).insert("managedFields".into(), list),
        None => meta_mut(new).remove("managedFields"),
    };
}

/// The bytes to store. If the new object differs in nothing but when its fields were written, it is the old one.
fn to_stored_unless_only_times(new: &mut Value, old: &Value, kv: &KeyValue) -> Bytes {
    let stored = object::to_stored(new);
    let had = old["metadata"].get("managedFields");
    if stored == kv.value.trim_ascii_end()
        || !managed::same_but_for_times(new["metadata"].get("managedFields"), had)
    {
        return stored;
    }
    let Some(had) = had.cloned() else { return stored };
    let mut timeless = new.clone();
    meta_mut(&mut timeless).insert("managedFields".into(), had);
    let unchanged = object::to_stored(&timeless);
    if unchanged == kv.value.trim_ascii_end() {
        *new = timeless;
        return unchanged;
    }
    stored
}

enum Insert {
    Done(Bytes),
    /// An object with that name is there.
    Taken(Box<KeyValue>),
    /// Something else moved; think again.
    Again,
}

enum Outcome {
    Done(Revision),
    Conflict(Vec<(Arc<str>, Option<KeyValue>)>),
}

impl Outcome {
    fn done(self) -> Option<Revision> {
        match self {
            Self::Done(revision) => Some(revision),
            Self::Conflict(_) => None,
        }
    }
}

impl From<Commit> for Outcome {
    fn from(commit: Commit) -> Self {
        match commit {
            Commit::Done(revision) => Self::Done(revision),
            Commit::Conflict { current } => Self::Conflict(current),
        }
    }
}

/// Whether nothing holds a deleted object any more.
fn is_gone(resource: &Resource, object: &Value) -> bool {
    if meta(object, "deletionTimestamp").is_none() || has_finalizers(object) {
        return false;
    }
    if resource.group.is_empty() && resource.plural == "namespaces" {
        return object["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty);
    }
    object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
}

fn taken(resource: &Resource, name: &str, by: &KeyValue) -> ApiError {
    let deleting = object::to_value(by).is_ok_and(|value| meta(&value, "deletionTimestamp").is_some());
    if deleting {
        status::already_exists_deleting(resource, name).into()
    } else {
        status::already_exists(resource, name).into()
    }
}

/// A condition that a key is as it was read.
pub(crate) fn unchanged(kv: &KeyValue) -> Compare {
    Compare::Revision(kv.key.clone(), kv.mod_revision)
}

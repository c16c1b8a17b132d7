//! DELETE of one object or of many.
//!
//! Three things can happen: the object goes at once; it is marked and goes when its finalizers are done; or, for a pod
//! on a node, it is marked and goes when the node's agent has stopped it. Dependents are collected by the controllers
//! afterwards; where the policy asks for more, a finalizer waits for `propagation`.

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use http::{Response, StatusCode};
use portolan_api::field::FieldError;
use portolan_api::meta::v1::DeleteOptions;
use portolan_api::resource::Resource;
use portolan_api::status;
use portolan_store::{KeyValue, Revision, Txn};
use serde_json::Value;

use crate::authz::node;
use crate::body::Body;
use crate::call::{Call, dry_run};
use crate::errors::{Result, invalid_options};
use crate::limits::{DELETES_AT_ONCE, POD_GRACE_SECONDS_DEFAULT, POD_GRACE_SECONDS_MAX, WRITE_ATTEMPTS_MAX};
use crate::object::{self, has_finalizers, meta};
use crate::propagation::{self, Owner};
use crate::respond::{self, ListMeta};
use crate::server::ApiServer;
use crate::view;
use crate::write::At;
use crate::{admission, content, metadata};

/// Answers with the object, or with a Status where the kind has it so.
pub(crate) async fn run(call: &Call) -> Result<Response<Body>> {
    if call.subresource.is_some() {
        return Err(status::method_not_allowed(call.resource, "delete").into());
    }
    let options = read_options(call)?;
    let at = At { resource: call.resource, namespace: call.ns(), name: call.object_name() };
    if call.resource.plural == "pods" {
        node::check_pod(&call.server, &call.user, "delete", at.namespace, at.name).await?;
    }
    let deleted = call.server.delete(at, &options).await?;
    if deleted.gone && !call.resource.returns_deleted {
        let uid = meta(&deleted.object, "uid").unwrap_or_default();
        return Ok(respond::status(call, StatusCode::OK, &status::deleted(call.resource, at.name, uid)));
    }
    // Of all that goes later, only what was asked for in the oldest way is answered so; clients know no better.
    let accepted = !deleted.gone && options.orphan_dependents == Some(false);
    let code = if accepted { StatusCode::ACCEPTED } else { StatusCode::OK };
    respond::object(call, code, object::encode(&deleted.object), &[])
}

/// Deletes every object that the selectors choose; answers with their list.
pub(crate) async fn run_collection(call: &Call) -> Result<Response<Body>> {
    if call.resource.plural == "namespaces" || call.resource.namespaced && call.namespace.is_none() {
        return Err(status::method_not_allowed(call.resource, "deletecollection").into());
    }
    let options = read_options(call)?;
    let (revision, items) = crate::verbs::list::selected(call).await?;
    call.server.delete_all(call.resource, &items, &options).await?;
    respond::list(call, &ListMeta { revision, ..ListMeta::default() }, &items, &[])
}

/// From the body, or else from the query, as Kubernetes takes them.
fn read_options(call: &Call) -> Result<DeleteOptions> {
    let invalid = |error| invalid_options("DeleteOptions", error);
    let mut options: DeleteOptions = content::options(call, "DeleteOptions")?.unwrap_or_default();
    if options.grace_period_seconds.is_none() {
        options.grace_period_seconds = call.query.number("gracePeriodSeconds")?;
    }
    if options.propagation_policy.is_none() {
        options.propagation_policy = call.query.get("propagationPolicy").map(str::to_string);
    }
    if options.orphan_dependents.is_none() {
        options.orphan_dependents = call.query.flag("orphanDependents");
    }
    let asked = options.dry_run.iter().map(String::as_str).chain(call.query.all("dryRun"));
    options.dry_run = if dry_run(asked).map_err(invalid)? { vec!["All".to_string()] } else { Vec::new() };
    if let Some(policy) = &options.propagation_policy {
        let allowed = ["Foreground", "Background", "Orphan", "nil"];
        if options.orphan_dependents.is_some() {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            return Err(invalid(FieldError::invalid("propagationPolicy", policy.as_str(), detail)));
        }
        if policy == "nil" || !allowed.contains(&policy.as_str()) {
            return Err(invalid(FieldError::not_supported("propagationPolicy", policy, &allowed)));
        }
    }
    if options.grace_period_seconds.is_some_and(|grace| grace < 0) {
        // Kubernetes reads negative values as the shortest grace there is.
        options.grace_period_seconds = Some(1);
    }
    Ok(options)
}

/// What a deletion came to.
#[derive(Debug)]
pub(crate) struct Deleted {
    /// The object as it is now, or was last.
    pub(crate) object: Value,
    /// It is out of the store.
    pub(crate) gone: bool,
}

enum Step {
    Remove,
    Mark(Value),
    /// It is on its way already.
    Nothing,
}

impl ApiServer {
    /// Deletes one object, or begins to.
    pub(crate) async fn delete(&self, at: At<'_>, options: &DeleteOptions) -> Result<Deleted> {
        admission::may_delete(at.resource, at.name)?;
        for _ in 0..WRITE_ATTEMPTS_MAX {
            let kv = self.fetch(at).await?;
            if let Some(deleted) = self.try_delete(at, &kv, options).await? {
                return Ok(deleted);
            }
        }
        Err(status::conflict(at.resource, at.name).into())
    }

    /// Deletes many objects, several at a time. Those that are gone already do not count as trouble.
    pub(crate) async fn delete_all(
        &self,
        resource: &'static Resource,
        items: &[KeyValue],
        options: &DeleteOptions,
    ) -> Result<()> {
        let mut results = stream::iter(items.to_vec())
            .map(|kv| self.delete_boxed(resource, kv, options))
            .buffer_unordered(DELETES_AT_ONCE);
        while let Some(result) = results.next().await {
            match result {
                Err(error) if !error.is("NotFound") => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Boxed, so that the compiler need not look through many of them at once.
    fn delete_boxed<'a>(
        &'a self,
        resource: &'static Resource,
        kv: KeyValue,
        options: &'a DeleteOptions,
    ) -> BoxFuture<'a, Result<Deleted>> {
        Box::pin(async move {
            let object = object::to_value(&kv)?;
            let namespace = meta(&object, "namespace").unwrap_or_default();
            let name = meta(&object, "name").unwrap_or_default();
            self.delete(At { resource, namespace, name }, options).await
        })
    }

    /// `None` if the object changed meanwhile.
    async fn try_delete(
        &self,
        at: At<'_>,
        kv: &KeyValue,
        options: &DeleteOptions,
    ) -> Result<Option<Deleted>> {
        let old = object::to_value(kv)?;
        check_preconditions(at, &old, options)?;
        let dry_run = !options.dry_run.is_empty();
        let gone = |object| Some(Deleted { object, gone: true });
        let kept = |object| Some(Deleted { object, gone: false });
        match step(at.resource, &old, options) {
            Step::Nothing => Ok(kept(old)),
            Step::Remove if dry_run => Ok(gone(old)),
            Step::Mark(marked) if dry_run => Ok(kept(marked)),
            Step::Remove => {
                let Some(revision) = self.remove(at.resource, kv, &old).await? else { return Ok(None) };
                Ok(gone(at_revision(old, revision)))
            }
            Step::Mark(marked) => {
                let txn = Txn::new()
                    .if_revision(kv.key.clone(), kv.mod_revision)
                    .put(kv.key.clone(), view::stored(at.resource, object::to_stored(&marked)));
                let Some(revision) = self.mark(txn).await? else { return Ok(None) };
                self.propagate(Owner::waiting(at.resource, &marked));
                Ok(kept(at_revision(marked, revision)))
            }
        }
    }
}

fn at_revision(mut object: Value, revision: Revision) -> Value {
    object::meta_mut(&mut object).insert("resourceVersion".into(), revision.to_string().into());
    object
}

fn check_preconditions(at: At<'_>, old: &Value, options: &DeleteOptions) -> Result<()> {
    let Some(wanted) = &options.preconditions else { return Ok(()) };
    let conflict = |what: &str, asked: &str, actual: &str, tail: &str| {
        let why = format!(
            "the {what} in the precondition ({asked}) does not match the {what} in record ({actual}). The object might \
             have been {tail}"
        );
        let mut status = status::conflict_because(at.resource, at.name, &why);
        // Here Kubernetes names the kind, not the resource.
        status.message =
            format!("Operation cannot be fulfilled on {} {:?}: {why}", at.resource.kind, at.name);
        Err(status.into())
    };
    let uid = meta(old, "uid").unwrap_or_default();
    if let Some(asked) = wanted.uid.as_deref().filter(|asked| *asked != uid) {
        return conflict("UID", asked, uid, "deleted and then recreated");
    }
    let version = meta(old, "resourceVersion").unwrap_or_default();
    if let Some(asked) = wanted.resource_version.as_deref().filter(|asked| *asked != version) {
        return conflict("ResourceVersion", asked, version, "modified");
    }
    Ok(())
}

/// What deleting `old` means now. Pure.
fn step(resource: &Resource, old: &Value, options: &DeleteOptions) -> Step {
    let deleting = meta(old, "deletionTimestamp").is_some();
    let is = |plural: &str| resource.group.is_empty() && resource.plural == plural;
    if is("namespaces") {
        let held = old["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty()) || has_finalizers(old);
        return match (held, deleting) {
            (false, _) => Step::Remove,
            (true, true) => Step::Nothing,
            (true, false) => Step::Mark(terminating(old)),
        };
    }
    let mut object = old.clone();
    propagation::mark(&mut object, options);
    let same_finalizers = old["metadata"].get("finalizers") == object["metadata"].get("finalizers");
    let grace = if is("pods") { pod_grace(old, options) } else { 0 };
    let left = old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if grace > 0 {
        // A second request can only shorten the wait.
        let shorter = !deleting || grace < left;
        return if shorter { marked(object, grace) } else { unless(same_finalizers, object) };
    }
    if !has_finalizers(&object) {
        Step::Remove
    } else if deleting && left == 0 {
        unless(same_finalizers, object)
    } else {
        marked(object, 0)
    }
}

fn unless(nothing: bool, object: Value) -> Step {
    if nothing { Step::Nothing } else { Step::Mark(object) }
}

fn marked(mut object: Value, grace: i64) -> Step {
    metadata::mark_deleted(&mut object, grace);
    Step::Mark(object)
}

/// Seconds that a pod gets to stop. Nobody stops a pod that has no node, or has ended by itself.
fn pod_grace(pod: &Value, options: &DeleteOptions) -> i64 {
    let on_node = pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !on_node || ended {
        return 0;
    }
    let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64();
    options.grace_period_seconds.or(own).unwrap_or(POD_GRACE_SECONDS_DEFAULT).min(POD_GRACE_SECONDS_MAX)
}

fn terminating(namespace: &Value) -> Value {
    let mut object = namespace.clone();
    object::meta_mut(&mut object)
        .insert("deletionTimestamp".into(), portolan_api::Time::now().to_string().into());
    object["status"]["phase"] = "Terminating".into();
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_api::resource::{NAMESPACES, PODS, SERVICES};
    use serde_json::json;

    fn word(step: &Step) -> String {
        match step {
            Step::Remove => "remove".into(),
            Step::Nothing => "nothing".into(),
            Step::Mark(object) => format!("mark {}", object["metadata"]["deletionGracePeriodSeconds"]),
        }
    }

    fn grace(seconds: i64) -> DeleteOptions {
        DeleteOptions { grace_period_seconds: Some(seconds), ..DeleteOptions::default() }
    }

    #[test]
    fn pods_on_nodes_get_time_to_stop() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n1"}});
        let none = DeleteOptions::default();
        assert_eq!(word(&step(&PODS, &pod, &none)), "mark 30");
        assert_eq!(word(&step(&PODS, &pod, &grace(0))), "remove");
        assert_eq!(word(&step(&PODS, &json!({"metadata": {}, "spec": {}}), &none)), "remove");
        let own = json!({"metadata": {}, "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 5}});
        assert_eq!(word(&step(&PODS, &own, &none)), "mark 5");
        let ended = json!({"metadata": {}, "spec": {"nodeName": "n1"}, "status": {"phase": "Failed"}});
        assert_eq!(word(&step(&PODS, &ended, &none)), "remove");
        let going = json!({"metadata": {"deletionTimestamp": "t", "deletionGracePeriodSeconds": 30},
            "spec": {"nodeName": "n1"}});
        assert_eq!(word(&step(&PODS, &going, &none)), "nothing");
        assert_eq!(word(&step(&PODS, &going, &grace(2))), "mark 2");
        assert_eq!(word(&step(&PODS, &going, &grace(0))), "remove");
        assert_eq!(word(&step(&PODS, &pod, &grace(i64::MAX))), "mark 31536000");
    }

    #[test]
    fn finalizers_hold_objects() {
        let none = DeleteOptions::default();
        let held = json!({"metadata": {"finalizers": ["a/b"]}});
        assert_eq!(word(&step(&SERVICES, &held, &none)), "mark 0");
        let going = json!({"metadata": {"finalizers": ["a/b"], "deletionTimestamp": "t"}});
        assert_eq!(word(&step(&SERVICES, &going, &none)), "nothing");
        let namespace = json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}, "status": {}});
        assert_eq!(word(&step(&NAMESPACES, &namespace, &none)), "mark null");
        assert_eq!(word(&step(&NAMESPACES, &json!({"metadata": {}, "spec": {}}), &none)), "remove");
    }

    #[test]
    fn policies_put_finalizers_on_and_take_them_off() {
        let with = |policy: &str| DeleteOptions {
            propagation_policy: Some(policy.into()),
            ..DeleteOptions::default()
        };
        let object = json!({"metadata": {"name": "a"}});
        let Step::Mark(foreground) = step(&SERVICES, &object, &with("Foreground")) else {
            panic!("it goes at once")
        };
        assert_eq!(foreground["metadata"]["finalizers"], json!(["foregroundDeletion"]));
        let Step::Mark(orphan) = step(&SERVICES, &foreground, &with("Orphan")) else {
            panic!("nothing changes")
        };
        assert_eq!(orphan["metadata"]["finalizers"], json!(["orphan"]));
        assert_eq!(word(&step(&SERVICES, &orphan, &DeleteOptions::default())), "nothing");
        assert_eq!(word(&step(&SERVICES, &orphan, &with("Background"))), "remove");
    }
}

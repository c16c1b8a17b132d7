//! `Deployment` and `ReplicaSet`.

use serde_json::{Value, json};

use super::{
    child, created, differ, keep, pod_defaults, pod_validate, read, set_default, set_generation, updated,
};
use crate::apps::v1::{Deployment, ReplicaSet};
use crate::core::v1::PodTemplateSpec;
use crate::field::{FieldError, FieldErrors};
use crate::meta::v1::LabelSelector;
use crate::selector::LabelQuery;
use crate::strategy::Strategy;
use crate::validate::meta;
use crate::validate::name::dns1123_subdomain;

const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
const STRATEGIES: &[&str] = &["Recreate", "RollingUpdate"];

#[derive(Debug)]
pub struct DeploymentStrategy;

impl Strategy for DeploymentStrategy {
    fn default(&self, object: &mut Value) {
        child(object, "status");
        let Some(spec) = child(object, "spec") else { return };
        set_default(spec, "replicas", 1);
        set_default(spec, "revisionHistoryLimit", 10);
        set_default(spec, "progressDeadlineSeconds", 600);
        let strategy = spec.entry("strategy").or_insert_with(|| json!({}));
        if let Some(strategy) = strategy.as_object_mut() {
            set_default(strategy, "type", "RollingUpdate");
            if strategy["type"] == "RollingUpdate" {
                let steps = strategy.entry("rollingUpdate").or_insert_with(|| json!({}));
                if let Some(steps) = steps.as_object_mut() {
                    set_default(steps, "maxUnavailable", "25%");
                    set_default(steps, "maxSurge", "25%");
                }
            }
        }
        template_defaults(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({});
        set_generation(object, None, true);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        keep(new, old, "status");
        let changed = differ(new, old, "spec") || differ(&new["metadata"], &old["metadata"], "annotations");
        set_generation(new, Some(old), changed);
    }

    fn validate_create(&self, object: &Value) -> FieldErrors {
        let mut errors = created(object, true, dns1123_subdomain);
        errors.extend(deployment(object));
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> FieldErrors {
        let mut errors = updated(new, old, true);
        errors.extend(deployment(new));
        selector_is_frozen(&mut errors, new, old);
        errors
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> FieldErrors {
        updated(new, old, true)
    }
}

#[derive(Debug)]
pub struct ReplicaSetStrategy;

impl Strategy for ReplicaSetStrategy {
    fn default(&self, object: &mut Value) {
        if let Some(status) = child(object, "status") {
            set_default(status, "replicas", 0);
        }
        if let Some(spec) = child(object, "spec") {
            set_default(spec, "replicas", 1);
        }
        template_defaults(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"replicas": 0});
        set_generation(object, None, true);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        keep(new, old, "status");
        let changed = differ(new, old, "spec");
        set_generation(new, Some(old), changed);
    }

    fn validate_create(&self, object: &Value) -> FieldErrors {
        let mut errors = created(object, true, dns1123_subdomain);
        errors.extend(replica_set(object));
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> FieldErrors {
        let mut errors = updated(new, old, true);
        errors.extend(replica_set(new));
        selector_is_frozen(&mut errors, new, old);
        errors
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> FieldErrors {
        updated(new, old, true)
    }
}

fn template_defaults(object: &mut Value) {
    let template = object.get_mut("spec").and_then(|s| child(s, "template"));
    let Some(template) = template else { return };
    let spec = template.entry("spec").or_insert_with(|| json!({}));
    if let Some(spec) = spec.as_object_mut() {
        pod_defaults::spec(spec);
    }
}

fn deployment(object: &Value) -> FieldErrors {
    let deployment = match read::<Deployment>(object) {
        Ok(deployment) => deployment,
        Err(errors) => return errors,
    };
    let spec = &deployment.spec;
    let mut errors = FieldErrors::new();
    for (field, number) in [
        ("replicas", spec.replicas.unwrap_or(0)),
        ("minReadySeconds", spec.min_ready_seconds),
        ("revisionHistoryLimit", spec.revision_history_limit.unwrap_or(0)),
        ("progressDeadlineSeconds", spec.progress_deadline_seconds.unwrap_or(0)),
    ] {
        if number < 0 {
            errors.push(FieldError::invalid(format!("spec.{field}"), number, NOT_NEGATIVE));
        }
    }
    if spec.progress_deadline_seconds.is_some_and(|s| s <= spec.min_ready_seconds) {
        let value = json!(spec.progress_deadline_seconds);
        errors.push(FieldError::invalid(
            "spec.progressDeadlineSeconds",
            value,
            "must be greater than minReadySeconds",
        ));
    }
    if !STRATEGIES.contains(&spec.strategy.type_.as_str()) {
        errors.push(FieldError::not_supported("spec.strategy.type", &spec.strategy.type_, STRATEGIES));
    }
    if spec.strategy.type_ == "Recreate" && spec.strategy.rolling_update.is_some() {
        let detail = "may not be specified when strategy `type` is 'Recreate'";
        errors.push(FieldError::forbidden("spec.strategy.rollingUpdate", detail));
    }
    selector_and_template(&mut errors, spec.selector.as_ref(), &spec.template, "deployment");
    errors
}

fn replica_set(object: &Value) -> FieldErrors {
    let set = match read::<ReplicaSet>(object) {
        Ok(set) => set,
        Err(errors) => return errors,
    };
    let mut errors = FieldErrors::new();
    if let Some(count) = set.spec.replicas.filter(|n| *n < 0) {
        errors.push(FieldError::invalid("spec.replicas", count, NOT_NEGATIVE));
    }
    selector_and_template(&mut errors, set.spec.selector.as_ref(), &set.spec.template, "deployment");
    errors
}

/// The selector must find the pods made from the template, and nothing may be selected by accident.
fn selector_and_template(
    errors: &mut FieldErrors,
    selector: Option<&LabelSelector>,
    template: &PodTemplateSpec,
    noun: &str,
) {
    let path = "spec.selector";
    match selector {
        None => errors.push(FieldError::required(path, "")),
        Some(selector) => match LabelQuery::of_selector(selector) {
            Err(error) => errors.push(FieldError::invalid(path, json!(selector), error.to_string())),
            Ok(query) if query.is_empty() => {
                let detail = format!("empty selector is invalid for {noun}");
                errors.push(FieldError::invalid(path, json!(selector), detail));
            }
            Ok(query) if !query.matches(&template.metadata.labels) => {
                let detail = "`selector` does not match template `labels`";
                let labels = json!(template.metadata.labels);
                errors.push(FieldError::invalid("spec.template.metadata.labels", labels, detail));
            }
            Ok(_) => {}
        },
    }
    meta::labels(errors, "spec.template.labels", &template.metadata.labels);
    pod_validate::spec(errors, "spec.template.spec", &template.spec);
    if template.spec.restart_policy != "Always" {
        let path = "spec.template.spec.restartPolicy";
        errors.push(FieldError::not_supported(path, &template.spec.restart_policy, &["Always"]));
    }
}

fn selector_is_frozen(errors: &mut FieldErrors, new: &Value, old: &Value) {
    if differ(&new["spec"], &old["spec"], "selector") {
        errors.push(FieldError::invalid(
            "spec.selector",
            new["spec"]["selector"].clone(),
            "field is immutable",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::texts;
    use super::*;

    fn object(selector: &Value, labels: &Value) -> Value {
        let mut object = json!({"metadata": {"name": "web", "namespace": "d"}, "spec": {"selector": selector,
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        DeploymentStrategy.default(&mut object);
        object
    }

    #[test]
    fn a_deployment_gets_its_defaults() {
        let spec = object(&json!({"matchLabels": {"a": "b"}}), &json!({"a": "b"}))["spec"].take();
        assert_eq!(spec["replicas"], 1);
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
        );
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
    }

    #[test]
    fn selector_and_labels_must_agree() {
        let refused =
            |selector, labels| texts(&DeploymentStrategy.validate_create(&object(&selector, &labels)));
        assert!(refused(json!({"matchLabels": {"a": "b"}}), json!({"a": "b", "c": "d"})).is_empty());
        assert_eq!(
            refused(json!({"matchLabels": {"a": "b"}}), json!({"a": "c"})),
            [
                "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`"
            ]
        );
        assert_eq!(
            refused(json!({}), json!({})),
            ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"]
        );
        let (old, new) = (
            object(&json!({"matchLabels": {"a": "b"}}), &json!({"a": "b"})),
            object(&json!({"matchLabels": {"a": "c"}}), &json!({"a": "c"})),
        );
        assert_eq!(
            texts(&DeploymentStrategy.validate_update(&new, &old)),
            ["spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"c\"}}: field is immutable"]
        );
    }

    #[test]
    fn generation_counts_specs_and_annotations() {
        let mut first = object(&json!({"matchLabels": {"a": "b"}}), &json!({"a": "b"}));
        DeploymentStrategy.prepare_create(&mut first);
        let mut new = first.clone();
        new["metadata"]["annotations"] = json!({"x": "y"});
        DeploymentStrategy.prepare_update(&mut new, &first);
        assert_eq!(new["metadata"]["generation"], 2);
    }
}

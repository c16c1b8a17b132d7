//! What of a pod may change after it was made.

use serde_json::{Value, json};

use crate::core::v1::{PodSpec, Toleration};
use crate::field::{FieldError, FieldErrors};

const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Refuses what may not change.
pub fn check(errors: &mut FieldErrors, new: &PodSpec, old: &PodSpec) {
    if new.containers.len() != old.containers.len() {
        errors.push(FieldError::forbidden("spec.containers", "pod updates may not add or remove containers"));
        return;
    }
    if new.init_containers.len() != old.init_containers.len() {
        errors.push(FieldError::forbidden(
            "spec.initContainers",
            "pod updates may not add or remove containers",
        ));
        return;
    }
    deadline(errors, new, old);
    if !tolerations_only_grew(&new.tolerations, &old.tolerations) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden("spec.tolerations", detail));
    }
    let masked = masked(new, old);
    if masked != *old {
        let changed = changed_paths(&json!(masked), &json!(old));
        let detail = format!("{MAY_CHANGE}\n{}", changed.join("\n"));
        errors.push(FieldError::forbidden("spec", detail));
    }
}

/// The new spec with everything that may change put back as it was.
fn masked(new: &PodSpec, old: &PodSpec) -> PodSpec {
    let mut masked = new.clone();
    for (list, before) in
        [(&mut masked.containers, &old.containers), (&mut masked.init_containers, &old.init_containers)]
    {
        for (container, before) in list.iter_mut().zip(before) {
            container.image.clone_from(&before.image);
            // The default follows the image.
            container.image_pull_policy.clone_from(&before.image_pull_policy);
        }
    }
    masked.active_deadline_seconds = old.active_deadline_seconds;
    masked.tolerations.clone_from(&old.tolerations);
    if old.termination_grace_period_seconds.is_some_and(|s| s < 0)
        && new.termination_grace_period_seconds == Some(1)
    {
        masked.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    if old.node_name.is_empty() {
        // Kubernetes sets the node through the binding subresource; without a scheduler of its own this server lets
        // whoever may write pods do it once.
        masked.node_name.clear();
    }
    let gates_only_went = new.scheduling_gates.iter().all(|g| old.scheduling_gates.contains(g));
    if gates_only_went {
        masked.scheduling_gates.clone_from(&old.scheduling_gates);
    }
    masked
}

fn deadline(errors: &mut FieldErrors, new: &PodSpec, old: &PodSpec) {
    let path = "spec.activeDeadlineSeconds";
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), Some(old)) if new > old => {
            errors.push(FieldError::invalid(path, new, "must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(path, Value::Null, detail));
        }
        _ => {}
    }
}

fn tolerations_only_grew(new: &[Toleration], old: &[Toleration]) -> bool {
    let same = |a: &Toleration, b: &Toleration| {
        a.key == b.key && a.operator == b.operator && a.value == b.value && a.effect == b.effect
    };
    old.iter().all(|o| new.iter().any(|n| same(n, o)))
}

/// The paths at which two specs differ, to tell the user which change is refused.
fn changed_paths(new: &Value, old: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    walk(&mut paths, "spec", new, old);
    paths
}

fn walk(paths: &mut Vec<String>, path: &str, new: &Value, old: &Value) {
    if new == old {
        return;
    }
    match (new, old) {
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                walk(paths, &format!("{path}.{name}"), &new[name], &old[name]);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (new, old)) in a.iter().zip(b).enumerate() {
                walk(paths, &format!("{path}[{i}]"), new, old);
            }
        }
        _ => paths.push(format!("changed: {path}: {old} -> {new}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::texts;
    use super::*;
    use crate::core::v1::Container;

    fn spec() -> PodSpec {
        let container = Container { name: "c".into(), image: "i:1".into(), ..Container::default() };
        PodSpec { containers: vec![container], node_name: "n".into(), ..PodSpec::default() }
    }

    fn refused(change: impl FnOnce(&mut PodSpec)) -> Vec<String> {
        let mut new = spec();
        change(&mut new);
        let mut errors = FieldErrors::new();
        check(&mut errors, &new, &spec());
        texts(&errors)
    }

    #[test]
    fn few_fields_may_change() {
        assert!(refused(|s| s.containers[0].image = "i:2".into()).is_empty());
        assert!(refused(|s| s.active_deadline_seconds = Some(5)).is_empty());
        assert!(refused(|s| s.tolerations.push(Toleration::default())).is_empty());
    }

    #[test]
    fn the_rest_is_refused_and_named() {
        let text = &refused(|s| s.containers[0].working_dir = "/x".into())[0];
        assert!(text.starts_with("spec: Forbidden: pod updates may not change fields other than"), "{text}");
        assert!(text.ends_with("\nchanged: spec.containers[0].workingDir: null -> \"/x\""), "{text}");
        assert!(refused(|s| s.node_name = "m".into())[0].contains("spec.nodeName"));
        assert_eq!(
            refused(|s| s.containers.clear()),
            ["spec.containers: Forbidden: pod updates may not add or remove containers"]
        );
    }
}

//! Pods. Defaults are in `pod_defaults`, validation in `pod_validate`, what may change in `pod_update`.

use serde_json::{Value, json};

use super::pod_defaults::{self, qos_class};
use super::{
    child, created, differ, keep, keep_all_but_status, pod_update, pod_validate, read, set_generation,
    updated,
};
use crate::core::v1::Pod;
use crate::field::{FieldError, FieldErrors};
use crate::strategy::Strategy;
use crate::validate::name::dns1123_subdomain;

#[derive(Debug)]
pub struct PodStrategy;

impl Strategy for PodStrategy {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = child(object, "spec") {
            pod_defaults::spec(spec);
        }
        if let Some(status) = child(object, "status") {
            pod_defaults::status(status);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"phase": "Pending", "qosClass": qos_class(&object["spec"])});
        set_generation(object, None, true);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        keep(new, old, "status");
        let changed = differ(new, old, "spec");
        set_generation(new, Some(old), changed);
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        keep_all_but_status(new, old);
        // Owners and the quality class are not the node's to change.
        let owners = old["metadata"].get("ownerReferences").cloned();
        if let Some(metadata) = child(new, "metadata") {
            match owners {
                Some(owners) => metadata.insert("ownerReferences".to_owned(), owners),
                None => metadata.remove("ownerReferences"),
            };
        }
        if let (Some(status), Some(class)) = (child(new, "status"), old["status"].get("qosClass")) {
            status.insert("qosClass".to_owned(), class.clone());
        }
        set_generation(new, Some(old), false);
    }

    fn validate_create(&self, object: &Value) -> FieldErrors {
        let mut errors = created(object, true, dns1123_subdomain);
        match read::<Pod>(object) {
            Ok(pod) => {
                pod_validate::spec(&mut errors, "spec", &pod.spec);
                if !pod.spec.ephemeral_containers.is_empty() {
                    errors.push(FieldError::forbidden("spec.ephemeralContainers", "cannot be set on create"));
                }
            }
            Err(more) => errors.extend(more),
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> FieldErrors {
        let mut errors = updated(new, old, true);
        match (read::<Pod>(new), read::<Pod>(old)) {
            (Ok(new), Ok(old)) => {
                pod_validate::spec(&mut errors, "spec", &new.spec);
                pod_update::check(&mut errors, &new.spec, &old.spec);
            }
            (Err(more), _) | (_, Err(more)) => errors.extend(more),
        }
        errors
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> FieldErrors {
        let mut errors = updated(new, old, true);
        match read::<Pod>(new) {
            Ok(pod) => pod_validate::status(&mut errors, &pod.status),
            Err(more) => errors.extend(more),
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_starts_pending_and_counts_its_specs() {
        let mut pod = json!({"metadata": {"name": "a", "namespace": "d"},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}, "status": {"phase": "Running"}});
        PodStrategy.default(&mut pod);
        PodStrategy.prepare_create(&mut pod);
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
        assert_eq!(pod["metadata"]["generation"], 1);
        assert!(PodStrategy.validate_create(&pod).is_empty());

        let mut new = pod.clone();
        new["spec"]["containers"][0]["image"] = json!("i:2");
        new["status"] = json!({"phase": "Failed"});
        PodStrategy.prepare_update(&mut new, &pod);
        assert_eq!(new["metadata"]["generation"], 2);
        assert_eq!(new["status"]["phase"], "Pending");
        assert!(PodStrategy.validate_update(&new, &pod).is_empty());
    }

    #[test]
    fn a_status_changes_nothing_else() {
        let old = json!({"metadata": {"name": "a", "generation": 3, "ownerReferences": [{"uid": "u"}]},
            "spec": {"nodeName": "n1"}, "status": {"qosClass": "Burstable"}});
        let mut new = json!({"metadata": {"name": "a", "labels": {"l": "v"}}, "spec": {"nodeName": "n2"},
            "status": {"phase": "Running", "podIP": "10.0.0.1"}});
        PodStrategy.prepare_status_update(&mut new, &old);
        assert_eq!(
            new,
            json!({"metadata": {"name": "a", "labels": {"l": "v"}, "generation": 3,
            "ownerReferences": [{"uid": "u"}]}, "spec": {"nodeName": "n1"},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "qosClass": "Burstable"}})
        );
    }
}

//! Validation of pod specs: the rules people meet, in Kubernetes' words. Also for pod templates.

use std::collections::HashSet;

use serde_json::json;

use crate::IntOrString;
use crate::core::v1::{Container, HTTPGetAction, PodSpec, PodStatus, Probe};
use crate::field::{FieldError, FieldErrors};
use crate::validate::ip::legacy_ip;
use crate::validate::name::{dns1123_label, dns1123_subdomain, env_var, port_name};
use crate::validate::{invalid_each, meta, port as check_port, protocol};

const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];
const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// The spec of a pod or a template, at this path.
pub fn spec(errors: &mut FieldErrors, path: &str, spec: &PodSpec) {
    let volumes = volumes(errors, path, spec);
    let mut names = HashSet::new();
    if spec.containers.is_empty() {
        errors.push(FieldError::required(format!("{path}.containers"), ""));
    }
    for (list, containers) in [("containers", &spec.containers), ("initContainers", &spec.init_containers)] {
        for (i, item) in containers.iter().enumerate() {
            let path = format!("{path}.{list}[{i}]");
            if !item.name.is_empty() && !names.insert(item.name.as_str()) {
                errors.push(FieldError::duplicate(format!("{path}.name"), item.name.as_str()));
            }
            container(errors, &path, item, spec.host_network, &volumes);
            if list == "initContainers" {
                init_container(errors, &path, item);
            }
        }
    }
    one_of(errors, format!("{path}.restartPolicy"), &spec.restart_policy, RESTART_POLICIES);
    one_of(errors, format!("{path}.dnsPolicy"), &spec.dns_policy, DNS_POLICIES);
    names_and_numbers(errors, path, spec);
    meta::labels(errors, &format!("{path}.nodeSelector"), &spec.node_selector);
    for (i, alias) in spec.host_aliases.iter().enumerate() {
        legacy_ip(errors, &format!("{path}.hostAliases[{i}].ip"), &alias.ip, &[]);
    }
}

/// A word that is required and must be one of some.
fn one_of(errors: &mut FieldErrors, path: String, value: &str, allowed: &[&str]) {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if !allowed.contains(&value) {
        errors.push(FieldError::not_supported(path, value, allowed));
    }
}

fn names_and_numbers(errors: &mut FieldErrors, path: &str, spec: &PodSpec) {
    for (field, value, rule) in [
        ("hostname", &spec.hostname, dns1123_label as fn(&str) -> Vec<String>),
        ("subdomain", &spec.subdomain, dns1123_label),
        ("nodeName", &spec.node_name, dns1123_subdomain),
        ("serviceAccountName", &spec.service_account_name, dns1123_subdomain),
    ] {
        if !value.is_empty() {
            invalid_each(errors, &format!("{path}.{field}"), value, rule(value));
        }
    }
    if let Some(seconds) = spec.termination_grace_period_seconds.filter(|s| *s < 0) {
        errors.push(FieldError::invalid(
            format!("{path}.terminationGracePeriodSeconds"),
            seconds,
            NOT_NEGATIVE,
        ));
    }
    if let Some(seconds) = spec.active_deadline_seconds.filter(|s| !(1..=i64::from(i32::MAX)).contains(s)) {
        let detail = format!("must be between 1 and {}, inclusive", i32::MAX);
        errors.push(FieldError::invalid(format!("{path}.activeDeadlineSeconds"), seconds, detail));
    }
}

/// Checks the volumes and returns their names.
fn volumes<'a>(errors: &mut FieldErrors, path: &str, spec: &'a PodSpec) -> HashSet<&'a str> {
    let mut names = HashSet::new();
    for (i, volume) in spec.volumes.iter().enumerate() {
        let path = format!("{path}.volumes[{i}].name");
        if volume.name.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        invalid_each(errors, &path, &volume.name, dns1123_label(&volume.name));
        if !names.insert(volume.name.as_str()) {
            errors.push(FieldError::duplicate(path, volume.name.as_str()));
        }
    }
    names
}

fn container(
    errors: &mut FieldErrors,
    path: &str,
    container: &Container,
    host_network: bool,
    volumes: &HashSet<&str>,
) {
    if container.name.is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    } else {
        invalid_each(errors, &format!("{path}.name"), &container.name, dns1123_label(&container.name));
    }
    if container.image.is_empty() {
        errors.push(FieldError::required(format!("{path}.image"), ""));
    } else if container.image.trim() != container.image {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(format!("{path}.image"), container.image.as_str(), detail));
    }
    one_of(errors, format!("{path}.imagePullPolicy"), &container.image_pull_policy, PULL_POLICIES);
    ports(errors, path, container, host_network);
    environment(errors, path, container);
    mounts(errors, path, container, volumes);
    for (field, found, once) in [
        ("livenessProbe", &container.liveness_probe, true),
        ("readinessProbe", &container.readiness_probe, false),
        ("startupProbe", &container.startup_probe, true),
    ] {
        if let Some(found) = found {
            probe(errors, &format!("{path}.{field}"), found, once);
        }
    }
}

/// Init containers end by themselves, so nothing may watch them, unless they stay as sidecars.
fn init_container(errors: &mut FieldErrors, path: &str, container: &Container) {
    if container.restart_policy.as_deref() == Some("Always") {
        return;
    }
    for (field, set) in [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ] {
        if set {
            let detail = "may not be set for init containers without restartPolicy=Always";
            errors.push(FieldError::forbidden(format!("{path}.{field}"), detail));
        }
    }
}

fn ports(errors: &mut FieldErrors, path: &str, container: &Container, host_network: bool) {
    let mut names = HashSet::new();
    for (i, port) in container.ports.iter().enumerate() {
        let path = format!("{path}.ports[{i}]");
        if !port.name.is_empty() {
            let path = format!("{path}.name");
            let wrong = port_name(&port.name);
            if !wrong.is_empty() {
                invalid_each(errors, &path, &port.name, wrong);
            } else if !names.insert(port.name.as_str()) {
                errors.push(FieldError::duplicate(path, port.name.as_str()));
            }
        }
        if port.container_port == 0 {
            errors.push(FieldError::required(format!("{path}.containerPort"), ""));
        } else {
            check_port(errors, format!("{path}.containerPort"), port.container_port);
        }
        if port.host_port != 0 {
            check_port(errors, format!("{path}.hostPort"), port.host_port);
        }
        if host_network && port.host_port != port.container_port {
            let detail = "must match `hostPort` when `hostNetwork` is true";
            errors.push(FieldError::invalid(format!("{path}.containerPort"), port.container_port, detail));
        }
        protocol(errors, format!("{path}.protocol"), &port.protocol);
    }
}

fn environment(errors: &mut FieldErrors, path: &str, container: &Container) {
    for (i, variable) in container.env.iter().enumerate() {
        let path = format!("{path}.env[{i}]");
        if variable.name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else {
            invalid_each(errors, &format!("{path}.name"), &variable.name, env_var(&variable.name));
        }
        if variable.value_from.is_some() && !variable.value.is_empty() {
            let detail = "may not be specified when `value` is not empty";
            errors.push(FieldError::invalid(format!("{path}.valueFrom"), "", detail));
        }
    }
}

fn mounts(errors: &mut FieldErrors, path: &str, container: &Container, volumes: &HashSet<&str>) {
    let mut paths = HashSet::new();
    for (i, mount) in container.volume_mounts.iter().enumerate() {
        let path = format!("{path}.volumeMounts[{i}]");
        if mount.name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if !volumes.contains(mount.name.as_str()) {
            errors.push(FieldError::not_found(format!("{path}.name"), mount.name.as_str()));
        }
        if mount.mount_path.is_empty() {
            errors.push(FieldError::required(format!("{path}.mountPath"), ""));
        } else if !paths.insert(mount.mount_path.as_str()) {
            let detail = "must be unique";
            errors.push(FieldError::invalid(format!("{path}.mountPath"), mount.mount_path.as_str(), detail));
        }
    }
}

fn probe(errors: &mut FieldErrors, path: &str, probe: &Probe, success_once: bool) {
    handler(errors, path, probe);
    for (field, seconds) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        if seconds < 0 {
            errors.push(FieldError::invalid(format!("{path}.{field}"), seconds, NOT_NEGATIVE));
        }
    }
    if success_once && probe.success_threshold != 1 {
        let path = format!("{path}.successThreshold");
        errors.push(FieldError::invalid(path, probe.success_threshold, "must be 1"));
    }
    if !success_once && probe.termination_grace_period_seconds.is_some() {
        let path = format!("{path}.terminationGracePeriodSeconds");
        let value = json!(probe.termination_grace_period_seconds);
        errors.push(FieldError::invalid(path, value, "must not be set for readinessProbes"));
    }
}

fn handler(errors: &mut FieldErrors, path: &str, probe: &Probe) {
    let kinds = [
        ("exec", probe.exec.is_some()),
        ("httpGet", probe.http_get.is_some()),
        ("tcpSocket", probe.tcp_socket.is_some()),
        ("grpc", probe.grpc.is_some()),
    ];
    let mut set = kinds.iter().filter(|(_, set)| *set);
    if set.next().is_none() {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
    for (kind, _) in set {
        errors.push(FieldError::forbidden(
            format!("{path}.{kind}"),
            "may not specify more than 1 handler type",
        ));
    }
    if probe.exec.as_ref().is_some_and(|e| e.command.is_empty()) {
        errors.push(FieldError::required(format!("{path}.exec.command"), ""));
    }
    if let Some(http) = &probe.http_get {
        http_get(errors, &format!("{path}.httpGet"), http);
    }
    if let Some(tcp) = &probe.tcp_socket {
        number_or_name(errors, &format!("{path}.tcpSocket.port"), &tcp.port);
    }
    if let Some(grpc) = &probe.grpc {
        check_port(errors, format!("{path}.grpc.port"), grpc.port);
    }
}

fn http_get(errors: &mut FieldErrors, path: &str, http: &HTTPGetAction) {
    if http.path.is_empty() {
        errors.push(FieldError::required(format!("{path}.path"), ""));
    }
    number_or_name(errors, &format!("{path}.port"), &http.port);
    let schemes = ["HTTP", "HTTPS"];
    if !schemes.contains(&http.scheme.as_str()) {
        errors.push(FieldError::not_supported(format!("{path}.scheme"), &http.scheme, &schemes));
    }
}

fn number_or_name(errors: &mut FieldErrors, path: &str, port: &IntOrString) {
    match port {
        IntOrString::Int(number) => check_port(errors, path, *number),
        IntOrString::String(text) => invalid_each(errors, path, text, port_name(text)),
    }
}

/// The addresses a node reports.
pub fn status(errors: &mut FieldErrors, status: &PodStatus) {
    for (i, ip) in status.pod_ips.iter().enumerate() {
        legacy_ip(errors, &format!("status.podIPs[{i}]"), &ip.ip, &[]);
    }
    if status.pod_ips.len() > 2 {
        let detail = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid("status.podIPs", json!(status.pod_ips), detail));
    }
    if let Some(first) = status.pod_ips.first().filter(|first| first.ip != status.pod_ip) {
        errors.push(FieldError::invalid(
            "status.podIPs[0].ip",
            first.ip.as_str(),
            "must be equal to `podIP`",
        ));
    }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // Tables of json! values read better unborrowed.
mod tests {
    use super::super::testing::texts;
    use super::*;
    use serde_json::Value;

    fn refused(patch: &Value) -> Vec<String> {
        let mut object = json!({"containers": [{"name": "c", "image": "i:1"}]});
        for (key, value) in patch.as_object().unwrap() {
            object[key] = value.clone();
        }
        super::super::pod_defaults::spec(object.as_object_mut().unwrap());
        let mut errors = FieldErrors::new();
        spec(&mut errors, "spec", &serde_json::from_value(object).unwrap());
        texts(&errors)
    }

    fn refused_container(patch: Value) -> Vec<String> {
        let mut container = json!({"name": "c", "image": "i:1"});
        for (key, value) in patch.as_object().unwrap() {
            container[key] = value.clone();
        }
        refused(&json!({ "containers": [container] }))
    }

    #[test]
    fn pods_are_refused_in_kubernetes_words() {
        assert!(refused(&json!({})).is_empty());
        assert_eq!(refused(&json!({"containers": []})), ["spec.containers: Required value"]);
        assert_eq!(
            refused(&json!({"restartPolicy": "never"})),
            [
                "spec.restartPolicy: Unsupported value: \"never\": supported values: \"Always\", \"OnFailure\", \"Never\" \
             (did you mean \"Never\"?)"
            ]
        );
        assert_eq!(
            refused(&json!({"containers": [{"name": "c", "image": "i:1"}, {"name": "c"}]})),
            ["spec.containers[1].name: Duplicate value: \"c\"", "spec.containers[1].image: Required value",]
        );
        assert_eq!(
            refused_container(json!({"image": " i:1"})),
            [
                "spec.containers[0].image: Invalid value: \" i:1\": must not have leading or trailing whitespace"
            ]
        );
    }

    #[test]
    fn ports_and_mounts_are_checked() {
        assert_eq!(
            refused_container(json!({"ports": [{}]})),
            ["spec.containers[0].ports[0].containerPort: Required value"]
        );
        assert_eq!(
            refused_container(json!({"ports": [{"containerPort": 70000}]})),
            [
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"
            ]
        );
        assert_eq!(
            refused_container(
                json!({"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]})
            ),
            ["spec.containers[0].ports[1].name: Duplicate value: \"a\""]
        );
        assert_eq!(
            refused_container(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
            ["spec.containers[0].volumeMounts[0].name: Not found: \"v\""]
        );
    }

    #[test]
    fn probes_are_checked() {
        assert_eq!(
            refused_container(json!({"livenessProbe": {}})),
            ["spec.containers[0].livenessProbe: Required value: must specify a handler type"]
        );
        assert_eq!(
            refused_container(json!({"livenessProbe": {"tcpSocket": {"port": 80}, "successThreshold": 2}})),
            ["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"]
        );
        assert_eq!(
            refused_container(
                json!({"readinessProbe": {"tcpSocket": {"port": 80}, "exec": {"command": ["x"]}}})
            ),
            [
                "spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"
            ]
        );
        assert!(refused_container(json!({"readinessProbe": {"httpGet": {"port": "http"}}})).is_empty());
    }
}

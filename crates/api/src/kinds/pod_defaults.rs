//! What Kubernetes fills in when it reads a pod or a pod template.

use serde_json::{Map, Value, json};

use super::{items_mut, set_default};

/// Fills in the defaults of a pod's spec.
pub fn spec(spec: &mut Map<String, Value>) {
    set_default(spec, "restartPolicy", "Always");
    set_default(spec, "dnsPolicy", "ClusterFirst");
    set_default(spec, "schedulerName", "default-scheduler");
    set_default(spec, "securityContext", json!({}));
    set_default(spec, "terminationGracePeriodSeconds", 30);
    set_default(spec, "enableServiceLinks", true);
    service_account(spec);
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for item in items_mut(spec, list) {
            container(item, host_network);
        }
    }
    items_mut(spec, "volumes").for_each(volume);
}

/// The two names of the account are one.
fn service_account(spec: &mut Map<String, Value>) {
    let name = spec.get("serviceAccountName").or_else(|| spec.get("serviceAccount")).cloned();
    if let Some(name) = name {
        spec.insert("serviceAccount".to_owned(), name.clone());
        spec.insert("serviceAccountName".to_owned(), name);
    }
}

fn container(container: &mut Map<String, Value>, host_network: bool) {
    set_default(container, "terminationMessagePath", "/dev/termination-log");
    set_default(container, "terminationMessagePolicy", "File");
    set_default(container, "resources", json!({}));
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = if is_latest(image) { "Always" } else { "IfNotPresent" };
    set_default(container, "imagePullPolicy", policy);
    for port in items_mut(container, "ports") {
        set_default(port, "protocol", "TCP");
        if host_network && port.get("hostPort").is_none() {
            let number = port.get("containerPort").cloned().unwrap_or_default();
            port.insert("hostPort".to_owned(), number);
        }
    }
    for env in items_mut(container, "env") {
        if let Some(field) =
            env.get_mut("valueFrom").and_then(|v| v.get_mut("fieldRef")).and_then(Value::as_object_mut)
        {
            set_default(field, "apiVersion", "v1");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = container.get_mut(name).and_then(Value::as_object_mut) {
            probe(found);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(handler) =
            container.get_mut("lifecycle").and_then(|l| l.get_mut(hook)).and_then(Value::as_object_mut)
        {
            http_get(handler);
        }
    }
    requests(container);
}

/// What is limited but not requested is requested in full.
fn requests(container: &mut Map<String, Value>) {
    let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    let requests = resources.entry("requests").or_insert_with(|| json!({}));
    if let Some(requests) = requests.as_object_mut() {
        for (name, amount) in limits {
            requests.entry(name).or_insert(amount);
        }
    }
}

fn probe(probe: &mut Map<String, Value>) {
    for (name, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if probe.get(name).and_then(Value::as_i64).unwrap_or(0) == 0 {
            probe.insert(name.to_owned(), value.into());
        }
    }
    http_get(probe);
    if let Some(grpc) = probe.get_mut("grpc").and_then(Value::as_object_mut) {
        set_default(grpc, "service", "");
    }
}

fn http_get(handler: &mut Map<String, Value>) {
    if let Some(http) = handler.get_mut("httpGet").and_then(Value::as_object_mut) {
        set_default(http, "path", "/");
        set_default(http, "scheme", "HTTP");
    }
}

fn volume(volume: &mut Map<String, Value>) {
    if volume.keys().all(|k| k == "name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source).and_then(Value::as_object_mut) {
            set_default(source, "defaultMode", 0o644);
        }
    }
    if let Some(path) = volume.get_mut("hostPath").and_then(Value::as_object_mut) {
        set_default(path, "type", "");
    }
}

/// An image without a tag, or with the tag `latest`, may change under its name.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => true,
    }
}

/// The first address and the list of them are one.
pub fn status(status: &mut Map<String, Value>) {
    for (one, many) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
        let first = status.get(many).and_then(|l| l.get(0)).and_then(|e| e.get("ip")).cloned();
        match (status.get(one).cloned(), first) {
            (Some(ip), None) => status.insert(many.to_owned(), json!([{ "ip": ip }])),
            (None, Some(ip)) => status.insert(one.to_owned(), ip),
            _ => None,
        };
    }
}

/// The class of a pod's quality of service.
pub fn qos_class(spec: &Value) -> &'static str {
    let lists = ["containers", "initContainers"];
    let containers: Vec<&Value> =
        lists.iter().filter_map(|l| spec.get(*l)?.as_array()).flatten().map(|c| &c["resources"]).collect();
    let is_empty = |v: &Value| v.as_object().is_none_or(Map::is_empty);
    if containers.iter().all(|r| is_empty(&r["limits"]) && is_empty(&r["requests"])) {
        return "BestEffort";
    }
    let guaranteed = containers.iter().all(|r| {
        ["cpu", "memory"].iter().all(|k| {
            let limit = &r["limits"][k];
            limit.is_string() && (r["requests"][k].is_null() || r["requests"][k] == *limit)
        })
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_pod_gets_every_default() {
        let mut object = json!({"containers": [{
            "name": "web", "image": "nginx", "ports": [{"containerPort": 80}],
            "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 5},
            "resources": {"limits": {"cpu": "1"}},
        }], "volumes": [{"name": "v"}]});
        spec(object.as_object_mut().unwrap());
        assert_eq!(
            object,
            json!({
                "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
                "securityContext": {}, "terminationGracePeriodSeconds": 30, "enableServiceLinks": true,
                "containers": [{
                    "name": "web", "image": "nginx", "imagePullPolicy": "Always",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "readinessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "periodSeconds": 5,
                        "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3},
                    "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                }],
                "volumes": [{"name": "v", "emptyDir": {}}],
            })
        );
        let once = object.clone();
        spec(object.as_object_mut().unwrap());
        assert_eq!(object, once);
    }

    #[test]
    fn images_that_may_change_are_always_pulled() {
        for (image, latest) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1.27", false),
            ("reg:5000/nginx", true),
            ("reg:5000/nginx:1", false),
            ("nginx@sha256:ab", false),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }

    #[test]
    fn classes_follow_requests_and_limits() {
        let class = |resources: Value| qos_class(&json!({"containers": [{"resources": resources}]}));
        assert_eq!(class(json!({})), "BestEffort");
        assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
        assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
    }
}

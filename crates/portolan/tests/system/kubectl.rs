//! The verbs of kubectl that people use every day, on the real server.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use portolan_lab::Host;

use crate::bed::{Bed, unique, web_pod};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata:
  name: web
  labels: {team: blue}
spec:
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: 80}
";

#[test]
fn apply_get_describe_label_edit_expose_and_delete() {
    let bed = Bed::up(1);
    bed.apply(&web_pod("web-1", "app: web", None));
    assert_eq!(bed.apply(SERVICE).trim(), "service/web created");
    assert_eq!(bed.apply(SERVICE).trim(), "service/web unchanged");
    let changed = SERVICE.replace("port: 80,", "port: 8080,");
    assert_eq!(bed.apply(&changed).trim(), "service/web configured");
    assert_eq!(bed.field("service web", "{.spec.ports[*].port}"), "8080");
    bed.wait_ready("app=web");

    let ip = bed.cluster_ip("web").to_string();
    let table = bed.run(&["get", "service", "web"]);
    let (head, row) = table.trim().split_once('\n').unwrap();
    assert_eq!(
        head.split_whitespace().collect::<Vec<_>>(),
        ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]
    );
    assert_eq!(
        row.split_whitespace().take(5).collect::<Vec<_>>(),
        ["web", "ClusterIP", &ip, "<none>", "8080/TCP"]
    );
    assert!(bed.run(&["get", "pods", "-o", "wide"]).contains("node-1"));
    assert!(bed.run(&["get", "service", "web", "-o", "yaml"]).contains("sessionAffinity: None"));
    let json: serde_json::Value =
        serde_json::from_str(&bed.run(&["get", "service", "web", "-o", "json"])).unwrap();
    assert_eq!(json["spec"]["clusterIPs"][0], ip);

    let described = bed.run(&["describe", "service", "web"]);
    for part in ["Selector:", "app=web", &ip, &format!("{}:80", bed.pod_ip("web-1"))] {
        assert!(described.contains(part), "{part} is not in:\n{described}");
    }
    assert!(bed.run(&["describe", "pod", "web-1"]).contains("Ready"));
    assert!(bed.run(&["describe", "node", "node-1"]).contains("web-1"));

    bed.run(&["label", "service", "web", "team=red", "--overwrite"]);
    assert_eq!(bed.run(&["get", "services", "-l", "team=red", "-o", "name"]).trim(), "service/web");
    assert_eq!(bed.run(&["get", "services", "-l", "team=blue", "-o", "name"]).trim(), "");
    assert_eq!(
        bed.run(&["get", "pods", "--field-selector", "spec.nodeName=node-1", "-o", "name"]).trim(),
        "pod/web-1"
    );

    edit(&bed, "web", "s/port: 8080/port: 8081/");
    assert_eq!(bed.field("service web", "{.spec.ports[*].port}"), "8081");

    bed.run(&["expose", "pod", "web-1", "--name", "exposed", "--port", "80"]);
    assert_eq!(bed.field("service exposed", "{.spec.selector.app}"), "web");
    assert_eq!(bed.run(&["delete", "service", "web", "exposed"]).lines().count(), 2);
    let gone = bed.kubectl().output(&["get", "service", "web"], "").unwrap();
    assert!(
        String::from_utf8_lossy(&gone.stderr)
            .contains("Error from server (NotFound): services \"web\" not found")
    );
    let resources = bed.run(&["api-resources", "--no-headers"]);
    for kind in ["Service", "Endpoints", "EndpointSlice", "Pod", "Node", "Namespace", "Event"] {
        assert!(
            resources.lines().any(|line| line.split_whitespace().last() == Some(kind)),
            "{kind} is not in:\n{resources}"
        );
    }
}

/// `kubectl edit` with an editor that makes one substitution.
fn edit(bed: &Bed, service: &str, substitution: &str) {
    let script = std::env::temp_dir().join(unique("portolan-editor-"));
    std::fs::write(&script, format!("#!/bin/sh\nexec sed -i '{substitution}' \"$1\"\n")).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let kubectl = bed.kubectl();
    let mut command = kubectl.command(&["edit", "service", service]);
    command.env("EDITOR", &script).env("KUBE_EDITOR", &script);
    let netns = bed.lab.host(Host::ControlPlane).unwrap();
    let output = netns.run(|| command.output()).unwrap().unwrap();
    std::fs::remove_file(&script).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_watch_shows_every_change() {
    let bed = Bed::up(1);
    let kubectl = bed.kubectl();
    let mut command = kubectl.command(&["get", "services", "-w", "--no-headers"]);
    command.stdout(Stdio::piped());
    let netns = bed.lab.host(Host::ControlPlane).unwrap();
    let mut child = netns.run(|| command.spawn()).unwrap().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("kubernetes "));
    bed.apply(SERVICE);
    assert!(lines.next().unwrap().starts_with("web "));
    bed.run(&["patch", "service", "web", "-p", r#"{"spec":{"type":"NodePort"}}"#]);
    assert!(lines.next().unwrap().contains("NodePort"));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn namespaces_hold_and_delete_what_is_in_them() {
    let bed = Bed::up(1);
    bed.run(&["create", "namespace", "shop"]);
    bed.apply(&SERVICE.replace("name: web\n", "name: web\n  namespace: shop\n"));
    assert_eq!(bed.run(&["get", "services", "-n", "shop", "-o", "name"]).trim(), "service/web");
    bed.run(&["delete", "namespace", "shop", "--timeout=30s"]);
    let left = bed.run(&["get", "services", "-A", "-o", "name"]);
    assert!(!left.contains("service/web"), "{left}");
    let missing = bed.kubectl().output(&["create", "-n", "shop", "-f", "-"], SERVICE).unwrap();
    assert!(String::from_utf8_lossy(&missing.stderr).contains("namespaces \"shop\" not found"));
}

#[test]
fn nodes_are_cordoned_drained_and_tainted() {
    let bed = Bed::up(2);
    let pods = "pod --no-headers -o custom-columns=:.metadata.name,:.spec.nodeName";
    for (name, node) in [("web-1", "node-1"), ("web-2", "node-2")] {
        bed.apply(&web_pod(name, "app: web", Some(node)));
    }
    bed.wait_ready("app=web");
    bed.run(&["cordon", "node-1"]);
    assert!(bed.run(&["get", "node", "node-1"]).contains("Ready,SchedulingDisabled"));
    let drained = bed.run(&["drain", "node-1", "--force", "--timeout=30s"]);
    assert!(drained.contains("pod/web-1 evicted"), "{drained}");
    let list = |bed: &Bed| bed.run(&[&["get"], &pods.split(' ').collect::<Vec<_>>()[..]].concat());
    assert_eq!(list(&bed).split_whitespace().collect::<Vec<_>>(), ["web-2", "node-2"]);
    bed.run(&["uncordon", "node-1"]);

    let tolerant = web_pod("calm", "app: web", Some("node-2"))
        .replace("spec:\n", "spec:\n  tolerations: [{operator: Exists}]\n");
    bed.apply(&tolerant);
    bed.run(&["taint", "node", "node-2", "maintenance=now:NoExecute"]);
    bed.run(&["wait", "--for=delete", "pod/web-2", "--timeout=30s"]);
    assert_eq!(list(&bed).split_whitespace().collect::<Vec<_>>(), ["calm", "node-2"]);
    let events = bed.run(&["get", "events", "--field-selector", "reason=TaintManagerEviction"]);
    assert!(events.contains("Marking for deletion Pod default/web-2"), "{events}");
    bed.run(&["taint", "node", "node-2", "maintenance-"]);
    assert_eq!(bed.field("node node-2", "{.spec.taints}"), "");
}

#[test]
fn a_pod_replaced_by_force_runs_again() {
    let bed = Bed::up(1);
    let pod = web_pod("web-1", "app: web", None);
    bed.apply(&pod);
    bed.wait_ready("app=web");
    let before = bed.field("pod web-1", "{.metadata.uid}");
    let file = std::env::temp_dir().join(unique("portolan-pod-"));
    std::fs::write(&file, &pod).unwrap();
    bed.run(&["replace", "--force", "--grace-period=1", "-f", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    bed.wait_ready("app=web");
    assert_ne!(bed.field("pod web-1", "{.metadata.uid}"), before);
}

//! Names, as a program in a pod sees them: the C library, the pod's own resolv.conf, cluster DNS.

use crate::bed::{Bed, web_pod};

/// A pod that is ready once each name resolves by `getent`, the C library's own look-up.
fn asker(pod: &str, names: &[&str]) -> String {
    let look_up: Vec<String> =
        names.iter().map(|name| format!("getent ahostsv4 {name} > /dev/null")).collect();
    format!(
        r#"---
apiVersion: v1
kind: Pod
metadata: {{name: {pod}, labels: {{app: asker}}}}
spec:
  containers:
  - name: asker
    image: portolan.dev/host
    command: ["sleep", "3600"]
    readinessProbe:
      exec: {{command: ["sh", "-c", "{}"]}}
      periodSeconds: 1
      timeoutSeconds: 5
"#,
        look_up.join(" && ")
    )
}

const SERVICES: &str = "---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web-headless}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local}
";

#[test]
fn fact_12_and_dns_7_short_names_resolve_in_a_pod() {
    let bed = Bed::up(1);
    bed.apply(&(web_pod("web-1", "app: web", None) + SERVICES));
    bed.wait_ready("app=web");
    let names =
        ["web", "web.default", "web.default.svc.cluster.local", "web-headless", "elsewhere", "kubernetes"];
    bed.apply(&asker("knows", &names));
    bed.wait_ready("app=asker");
    // ExternalName has no address and is not proxied: its name is all there is.
    assert_eq!(bed.field("service elsewhere", "{.spec.clusterIP}"), "");

    bed.apply(&asker("does-not-know", &["nobody"]));
    bed.until_field("pod does-not-know", "{.status.phase}", |phase| phase == "Running");
    let waits = ["wait", "--for=condition=Ready", "pod", "does-not-know", "--timeout=3s"];
    assert!(!bed.kubectl().output(&waits, "").unwrap().status.success(), "a name that nobody has resolved");
}

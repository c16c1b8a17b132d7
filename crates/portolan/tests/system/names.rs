//! Names, as a program in a pod sees them: the C library, the pod's own resolv.conf, cluster DNS.

use std::fmt::Write as _;
use std::process::Command;

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

/// Looks every argument up by the C library it is linked with. One that begins with `!` must not be found.
const LOOK_UP: &str = r#"
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>

int main(int argc, char **argv) {
    int wrong = 0;
    for (int n = 1; n < argc; n++) {
        int absent = argv[n][0] == '!';
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = 0;
        int error = getaddrinfo(argv[n] + absent, 0, &hints, &found);
        printf("%s:", argv[n]);
        for (struct addrinfo *at = found; at; at = at->ai_next) {
            char text[64] = "another family";
            if (at->ai_family == AF_INET)
                inet_ntop(AF_INET, &((struct sockaddr_in *)at->ai_addr)->sin_addr, text, sizeof text);
            printf(" %s", text);
        }
        printf("%s\n", error ? gai_strerror(error) : "");
        wrong |= (error != 0) != absent;
    }
    return wrong;
}
"#;

/// A headless Service whose addresses do not fit a plain answer of 512 bytes.
fn large_headless() -> String {
    let mut endpoints = String::new();
    for n in 1..=60 {
        write!(endpoints, "{{addresses: [10.250.0.{n}]}},").unwrap();
    }
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: many}}
spec: {{clusterIP: None, ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: many-1, labels: {{kubernetes.io/service-name: many}}}}
addressType: IPv4
ports: [{{port: 80}}]
endpoints: [{endpoints}]
"
    )
}

/// musl asks for both families at once, takes the first answer of any server, gives up searching at a name that exists
/// without the data, and (up to 1.2.3) reads nothing but UDP: of a long answer it gets what fits. It takes nothing but a
/// name or "no such name" for an answer: where a name outside is refused, as here without an upstream, it waits its five
/// seconds. So the names that are not there are whole ones.
#[test]
fn programs_of_both_c_libraries_find_the_same_names() {
    let bed = Bed::up(1);
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("look-up.c");
    std::fs::write(&source, LOOK_UP).unwrap();
    for compiler in ["cc", "musl-gcc"] {
        let program = dir.path().join(compiler);
        let mut command = Command::new(compiler);
        // Only musl is made for static programs that resolve names.
        command.args((compiler == "musl-gcc").then_some("-static")).arg("-o").arg(&program).arg(&source);
        assert!(command.status().is_ok_and(|status| status.success()), "{command:?}: see scripts/prepare");
    }
    bed.apply(&(web_pod("web-1", "app: web", None) + SERVICES + &large_headless()));
    bed.wait_ready("app=web");
    let names = "web web.default web.default.svc web.default.svc.cluster.local web.default.svc.cluster.local. \
                 web-headless elsewhere kubernetes many !nobody.default.svc.cluster.local !empty.default.svc.cluster.local";
    let empty = "---\n{apiVersion: v1, kind: Service, metadata: {name: empty}, spec: {clusterIP: None, ports: [{port: 80}]}}";
    let pods: String = ["cc", "musl-gcc"]
        .map(|compiler| {
            let program = dir.path().join(compiler);
            asker(compiler, &[]).replace(
                "\"sh\", \"-c\", \"\"",
                &format!("\"sh\", \"-c\", \"{} {names}\"", program.display()),
            )
        })
        .concat();
    bed.apply(&format!("{empty}\n{pods}"));
    bed.wait_ready("app=asker");
}

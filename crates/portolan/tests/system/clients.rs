//! Other people's clients against the real server: Python's, which checks every object against the types it knows.

use std::process::Command;

use portolan_lab::Host;

use crate::bed::{Bed, web_pod};

#[test]
fn the_python_client_finds_what_it_expects() {
    let bed = Bed::up(1);
    bed.run(&["create", "configmap", "a", "-n", "kube-system"]);
    bed.run(&["create", "configmap", "b", "-n", "kube-system"]);
    bed.apply(&web_pod("web-1", "app: web", None));
    bed.wait_ready("app=web");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/system/client.py");
    // Debian's own, which has Debian's packages, whatever else is on the PATH.
    let mut command = Command::new("/usr/bin/python3");
    command.arg(script).env("KUBECONFIG", bed.lab.layout.kubeconfig());
    let netns = bed.lab.host(Host::ControlPlane).unwrap();
    let output = netns.run(|| command.output()).unwrap().unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.ends_with("done\n"), "{said}{complained}");
}

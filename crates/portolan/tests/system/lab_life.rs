//! Labs come, go, crash and are cleaned up; two of them live side by side.

use std::process::Command;

use portolan_lab::{Host, Lab, LabError, Options};

use crate::bed::{Bed, exe, unique};

fn leftovers(name: &str) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let of_lab = format!("/labs/{name}/");
    let netns = format!("portolan-{name}.");
    mounts.lines().filter(|line| line.contains(&of_lab) || line.contains(&netns)).map(str::to_owned).collect()
}

#[test]
fn a_lab_leaves_nothing_behind() {
    let bed = Bed::up(1);
    let name = bed.lab.layout.name.clone();
    bed.apply(&crate::bed::web_pod("web-1", "app: web", None));
    bed.wait_ready("app=web");
    assert!(!leftovers(&name).is_empty());
    drop(bed);
    assert_eq!(leftovers(&name), Vec::<String>::new());
    assert!(!std::path::Path::new("/run/portolan/labs").join(&name).exists());
}

#[test]
fn a_crashed_lab_is_cleaned_up_by_the_next_up() {
    let bed = Bed::up(1);
    let name = bed.lab.layout.name.clone();
    bed.apply(&crate::bed::web_pod("web-1", "app: web", None));
    bed.wait_ready("app=web");
    for host in [Host::ControlPlane, Host::Node(1)] {
        bed.lab.host(host).unwrap().kill_processes(crate::bed::PATIENCE).unwrap();
    }
    let again = Lab::up(&Options { name: name.clone(), nodes: 1, ipv6: false, exe: exe(), proxy_mode: None })
        .unwrap();
    let pods = again.kubectl().run(&["get", "pods", "-o", "name"]).unwrap();
    assert_eq!(pods, "", "a new lab starts empty");
}

#[test]
fn a_lab_that_does_not_come_up_leaves_nothing_but_its_logs() {
    // Nobody comes up, and all but the node.
    for (exe, proxy_mode) in [("/bin/false".into(), None), (exe(), Some("nonsense".to_owned()))] {
        let name = unique("t");
        let options = Options { name: name.clone(), nodes: 1, ipv6: false, exe, proxy_mode };
        let Err(LabError::NotReady { log, .. }) = Lab::up(&options) else { panic!("it is up") };
        assert!(log.exists(), "{}", log.display());
        assert_eq!(leftovers(&name), Vec::<String>::new());
        let kept = std::fs::read_dir(log.parent().unwrap()).unwrap().flatten().map(|entry| entry.path());
        let other: Vec<_> = kept.filter(|path| path.extension().is_none_or(|end| end != "log")).collect();
        assert_eq!(other, Vec::<std::path::PathBuf>::new());
        assert!(Lab::down(&name).unwrap(), "the logs go with the next down");
        assert!(!Lab::down(&name).unwrap());
    }
}

#[test]
fn a_living_lab_is_not_started_twice() {
    let bed = Bed::up(1);
    let options =
        Options { name: bed.lab.layout.name.clone(), nodes: 1, ipv6: false, exe: exe(), proxy_mode: None };
    assert!(matches!(Lab::up(&options), Err(LabError::AlreadyUp { .. })));
}

#[test]
fn exec_runs_on_hosts_and_in_pods_and_status_shows_them() {
    let bed = Bed::up(1);
    bed.apply(&crate::bed::web_pod("web-1", "app: web", None));
    bed.wait_ready("app=web");
    let name = bed.lab.layout.name.clone();
    let run = |args: &[&str]| {
        let output = Command::new(exe()).arg("lab").args(args).output().unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (ok, text) = run(&["exec", "--name", &name, "web-1", "--", "ip", "-o", "addr"]);
    assert!(ok && text.contains(&bed.pod_ip("web-1").to_string()), "{text}");
    let (ok, text) = run(&["exec", "--name", &name, "control-plane", "--", "kubectl", "get", "nodes"]);
    assert!(ok && text.contains("node-1"), "{text}");
    let (ok, text) = run(&["exec", "--name", &name, "nowhere", "--", "true"]);
    assert!(!ok && text.contains("control-plane") && text.contains("default/web-1"), "{text}");
    let (ok, text) = run(&["status", "--name", &name]);
    assert!(ok && text.contains("default/web-1"), "{text}");
    let (ok, text) = run(&["status", "--name", &unique("none")]);
    assert!(!ok && text.contains("portolan lab up"), "{text}");
}

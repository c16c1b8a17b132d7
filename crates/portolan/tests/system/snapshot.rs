//! `portolan snapshot`: save from a running control plane and from a stopped one, restore, and files that are not whole.

use crate::place::{Place, Server, portolan};

fn verb(place: &Place, verb: &str, file: &str) -> std::process::Command {
    let mut command = portolan(&["snapshot", verb]);
    command.arg(place.path(file));
    if verb != "status" {
        command.arg("--data-dir").arg(place.path("plane-1"));
    }
    command
}

#[test]
fn what_was_saved_while_it_ran_is_there_after_a_restore() {
    let place = Place::new(1);
    let mut plane = Server::control_plane(&place, 1, &[]);
    plane.start(&place);
    let data = place.path("plane-1");
    let kubectl = |args: &[&str]| place.says(place.kubectl(&data).args(args));
    kubectl(&["create", "namespace", "saved"]);
    let said = place.says(&mut verb(&place, "save", "online"));
    assert!(said.contains("keys at revision"), "{said}");
    kubectl(&["delete", "namespace", "saved", "--wait=true"]);
    kubectl(&["create", "namespace", "late"]);
    assert_eq!(place.says(&mut verb(&place, "status", "online")), said);

    // While it runs, its store is its own.
    let mut forced = verb(&place, "restore", "online");
    assert!(place.fails(forced.arg("--force")).contains("in use by process"));
    plane.stop();
    place.says(&mut verb(&place, "save", "offline"));
    assert!(place.fails(&mut verb(&place, "restore", "online")).contains("--force"));
    let mut forced = verb(&place, "restore", "online");
    assert!(place.says(forced.arg("--force")).contains("next: portolan up"));

    plane.start(&place);
    kubectl(&["get", "namespace", "saved"]);
    assert!(place.fails(place.kubectl(&data).args(["get", "namespace", "late"])).contains("NotFound"));
    kubectl(&["create", "namespace", "more"]);
    plane.stop();
    let mut forced = verb(&place, "restore", "offline");
    place.says(forced.arg("--force"));
    plane.start(&place);
    kubectl(&["get", "namespace", "late"]);
}

#[test]
fn a_snapshot_that_is_not_whole_says_so_and_replaces_nothing() {
    let place = Place::new(1);
    let mut plane = Server::control_plane(&place, 1, &[]);
    plane.start(&place);
    plane.stop();
    place.says(&mut verb(&place, "save", "good"));
    let good = std::fs::read(place.path("good")).unwrap();
    std::fs::write(place.path("short"), &good[..good.len() - 100]).unwrap();
    let mut changed = good.clone();
    changed[good.len() / 2] ^= 1;
    std::fs::write(place.path("changed"), changed).unwrap();
    for file in ["short", "changed"] {
        assert!(place.fails(&mut verb(&place, "status", file)).contains("not a whole snapshot"));
        let mut forced = verb(&place, "restore", file);
        assert!(place.fails(forced.arg("--force")).contains("not a whole snapshot"));
    }
    plane.start(&place);
}

#[test]
fn a_snapshot_is_for_administrators() {
    let place = Place::new(1);
    let mut plane = Server::control_plane(&place, 1, &[]);
    plane.start(&place);
    let data = place.path("plane-1");
    let mut command = portolan(&["kubeconfig", "--user", "somebody"]);
    command.arg("--data-dir").arg(&data).arg("--output").arg(place.path("kubeconfig"));
    place.says(&mut command);
    let mut command = place.kubectl(&data);
    command.args(["get", "--raw", "/portolan/snapshot", "--kubeconfig"]).arg(place.path("kubeconfig"));
    assert!(place.fails(&mut command).contains("orbidden"));
}

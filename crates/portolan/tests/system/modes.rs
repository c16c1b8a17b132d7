//! The proxy changes from one data plane to another while clients connect and talk: no new connection fails, no
//! established one ends, and nothing of the old data plane stays.
//!
//! A new data plane is one more line in [`MODES`].

use std::process::Command;
use std::time::{Duration, Instant};

use crate::bed::{PATIENCE, exe};
use crate::proxy_verb::{Place, Proxy, keep_connecting};

const MODES: [&str; 2] = ["nftables", "iptables"];
const MORE: &str = "conntrack: {maxPerCore: 0}\n";

/// What the kernel holds of a mode.
fn holds(place: &Place, mode: &str) -> bool {
    match mode {
        "nftables" => place.tables().contains(" portolan\n"),
        "iptables" => place.tool("iptables-save", &["-t", "nat"]).contains("PORTOLAN-SERVICES"),
        other => panic!("no mode {other}"),
    }
}

#[track_caller]
fn holds_only(place: &Place, mode: &str) {
    for other in MODES {
        assert_eq!(holds(place, other), other == mode, "of {other}, in mode {mode}");
    }
}

/// From each mode to each other, and back.
fn ways() -> impl Iterator<Item = &'static str> {
    let pairs =
        MODES.iter().enumerate().flat_map(|(n, from)| MODES[n + 1..].iter().flat_map(move |to| [*to, *from]));
    pairs.chain([MODES[0]])
}

#[test]
fn modes_are_changed_by_the_file_without_losing_a_connection() {
    let place = Place::new();
    let mut proxy = place.in_mode(MODES[0], MORE);
    let mut lines = vec![place.connect()];
    keep_connecting(&place, |some_more| {
        for mode in ways().filter(|mode| *mode != MODES[0]).flat_map(|mode| [mode, MODES[0]]) {
            some_more();
            place.configuration_in(mode, MORE);
            proxy.wait_ready();
            holds_only(&place, mode);
            assert_eq!(place.get(10249, "/proxyMode").text(), Some(mode));
            some_more();
            lines.push(place.connect());
            lines.iter_mut().for_each(crate::proxy_verb::Line::still_works);
        }
    });
    let (ok, text) = place.portolan(&["status"]);
    assert!(ok && text.contains(&format!("mode            {}", MODES[0])), "{text}");
    assert!(MODES.iter().all(|mode| text.contains(&format!("{mode:<16}yes"))), "{text}");
    proxy.stop();
    lines.iter_mut().for_each(crate::proxy_verb::Line::still_works);
}

#[test]
fn a_crash_between_two_modes_leaves_nothing_behind_after_the_next_start() {
    let place = Place::new();
    let mut line = {
        let proxy = place.in_mode(MODES[0], MORE);
        let line = place.connect();
        kill(proxy);
        line
    };
    keep_connecting(&place, |some_more| {
        for mode in MODES.into_iter().skip(1) {
            some_more();
            // As soon as anything of the new mode is there, and before the old one went or after it, as it happens.
            let mut child = place.begin_in(mode, MORE);
            let begin = Instant::now();
            while !holds(&place, mode) {
                assert!(begin.elapsed() < PATIENCE, "nothing of mode {mode} appears");
                std::thread::sleep(Duration::from_millis(1));
            }
            child.kill().unwrap();
            child.wait().unwrap();
            some_more();
            let proxy = place.in_mode(MODES[0], MORE);
            holds_only(&place, MODES[0]);
            some_more();
            kill(proxy);
        }
    });
    line.still_works();
    let proxy = place.in_mode("iptables", MORE);
    let (ok, text) = place.portolan(&["status"]);
    assert!(ok && text.contains("mode            iptables") && text.contains("chains (ip, "), "{text}");
    proxy.stop();
    let (ok, text) = place.portolan(&["cleanup"]);
    assert!(ok && text.contains("removed our iptables-"), "{text}");
    assert_eq!(place.portolan(&["cleanup"]), (true, "nothing to remove\n".into()));
    assert!(!holds(&place, "iptables"));
}

#[test]
fn a_mode_that_this_host_cannot_do_says_what_is_missing_and_leaves_the_rules() {
    let place = Place::new();
    let proxy = place.in_mode(MODES[0], MORE);
    let mut line = place.connect();
    proxy.stop();
    let path = place.configuration_in("iptables", MORE);
    let mut command = Command::new(exe());
    command.args(["proxy", "--hostname-override=node-1", "--config"]).arg(path).env("PATH", "/nowhere");
    let output = place.output(command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = said.lines().last().unwrap_or_default();
    assert!(
        !output.status.success() && last.contains("mode iptables: no iptables program is here"),
        "{said}"
    );
    assert!(last.contains("--mode nftables"), "{said}");
    holds_only(&place, MODES[0]);
    line.still_works();
}

fn kill(mut proxy: Proxy) {
    proxy.child.kill().unwrap();
    proxy.child.wait().unwrap();
}

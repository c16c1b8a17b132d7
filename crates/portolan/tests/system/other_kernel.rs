//! On a kernel of another kind: User-Mode Linux, booted by the test on the machine's own files.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::bed::{PATIENCE, exe};

/// Boots, runs `script` as root on the machine's own files (`/run` is its own), and gives what it wrote to `$OUT`.
fn boot(dir: &Path, script: &str, patience: Duration) -> String {
    let out = dir.join("out");
    let init = dir.join("init");
    let text = format!(
        "#!/bin/sh\nmount -t proc proc /proc\nmount -t sysfs sys /sys\nmount -t tmpfs tmpfs /run\n\
         OUT={}\n{script}\nsync\necho o > /proc/sysrq-trigger\nsleep 60\n",
        out.display()
    );
    std::fs::write(&init, text).unwrap();
    std::fs::set_permissions(&init, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut child = Command::new("linux.uml")
        .args([
            "rootfstype=hostfs",
            "rootflags=/",
            "rw",
            "mem=512M",
            "con=null",
            "con0=null,fd:1",
            "ssl=null",
            "quiet",
        ])
        .arg(format!("init={}", init.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("linux.uml starts: Debian's package user-mode-linux, which scripts/prepare installs");
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > patience {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the kernel did not come to its end; so far: {:?}", std::fs::read_to_string(&out));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    std::fs::read_to_string(out).unwrap_or_default()
}

#[test]
fn a_kernel_without_nf_tables_is_named_in_one_line_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        "{} up --data-dir /run/portolan > $OUT 2>&1; echo \"ended with $?\" >> $OUT",
        exe().display()
    );
    let text = boot(dir.path(), &script, PATIENCE);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains("no usable nf_tables") && lines[0].contains("modprobe nf_tables"), "{text}");
    assert_eq!(lines[1], "ended with 1");
}

/// No module can be loaded there, IPVS among them.
#[test]
fn a_kernel_without_ipvs_is_named_in_one_line_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let text = "{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: 'http://192.0.2.1:1'}}], contexts: \
                [{name: c, context: {cluster: c}}], current-context: c}";
    std::fs::write(&kubeconfig, text).unwrap();
    let script = format!(
        "{} proxy --mode ipvs --conntrack-max-per-core 0 --conntrack-tcp-timeout-established 0s --conntrack-tcp-timeout-close-wait 0s --kubeconfig {} > $OUT 2>&1; echo \"ended with $?\" >> $OUT",
        exe().display(),
        kubeconfig.display()
    );
    let text = boot(dir.path(), &script, PATIENCE);
    let lines: Vec<&str> =
        text.lines().filter(|line| !line.contains("WARN") && !line.contains("INFO")).collect();
    let [line, "ended with 1"] = lines[..] else { panic!("{text}") };
    assert!(line.contains("has no IPVS") && line.contains("modprobe ip_vs"), "{text}");
}

/// Where modules can be loaded there is IPVS, with rules of iptables before it.
#[test]
fn the_proxy_serves_by_ipvs_and_changes_to_iptables_and_back_without_losing_a_connection() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    std::fs::write(&script, include_str!("ipvs.sh")).unwrap();
    let run = format!(
        "PORTOLAN={} MODULES=/usr/lib/uml/modules PATH=$PATH:/usr/sbin:/sbin sh {} > $OUT 2>&1",
        exe().display(),
        script.display()
    );
    let text = boot(dir.path(), &run, Duration::from_mins(10));
    for expected in [
        "mode            ipvs",
        "ipvs            yes, behind rules of iptables",
        "nftables        no: ",
        "virtual server  TCP 246.96.0.77:80 wlc: 1 destinations, 0 leaving",
        "removed our IPVS virtual servers and the route to them",
        "nothing to remove\nleft: \n",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    let count = text.lines().find_map(|line| line.strip_prefix("connections without a failure: "));
    assert!(count.is_some_and(|count| count.parse::<u32>().unwrap() > 20), "{text}");
}

//! On kernels of another kind, booted by the test on the machine's own files.

use std::time::Duration;

use portolan_guest::Kernel;

use crate::bed::{PATIENCE, exe};

#[test]
fn a_kernel_without_nf_tables_is_named_in_one_line_with_the_way_out() {
    let script = format!("{} up --data-dir /run/portolan; echo \"ended with $?\"", exe().display());
    let text = Kernel::UserMode.run(&script, PATIENCE);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains("no usable nf_tables") && lines[0].contains("modprobe nf_tables"), "{text}");
    assert_eq!(lines[1], "ended with 1");
}

/// No module can be loaded there, IPVS among them.
#[test]
fn a_kernel_without_ipvs_is_named_in_one_line_with_the_way_out() {
    let kubeconfig = "{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: 'http://192.0.2.1:1'}}], \
                      contexts: [{name: c, context: {cluster: c}}], current-context: c}";
    let script = format!(
        "echo \"{kubeconfig}\" > /run/kubeconfig
{} proxy --mode ipvs --conntrack-max-per-core 0 --conntrack-tcp-timeout-established 0s \
--conntrack-tcp-timeout-close-wait 0s --kubeconfig /run/kubeconfig
echo \"ended with $?\"",
        exe().display(),
    );
    let text = Kernel::UserMode.run(&script, PATIENCE);
    let lines: Vec<&str> =
        text.lines().filter(|line| !line.contains("WARN") && !line.contains("INFO")).collect();
    let [line, "ended with 1"] = lines[..] else { panic!("{text}") };
    assert!(line.contains("has no IPVS") && line.contains("modprobe ip_vs"), "{text}");
}

/// Where modules can be loaded there is IPVS, with rules of iptables before it.
#[test]
fn the_proxy_serves_by_ipvs_and_changes_to_iptables_and_back_without_losing_a_connection() {
    let text = take_turns(Kernel::UserMode, "iptables ipvs iptables ipvs");
    for expected in ["ipvs            yes, behind rules of iptables", "nftables        no: "] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

/// Debian's kernel has `nf_tables` too, so there are three modes to change between.
#[test]
fn the_proxy_serves_by_ipvs_behind_nftables_and_changes_between_all_modes_without_losing_a_connection() {
    let text = take_turns(Kernel::Debian, "nftables ipvs iptables ipvs");
    for expected in ["ipvs            yes, behind rules of nftables", "nftables        yes"] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

/// In mode ipvs, then in these one after the other, while clients connect; gives what was written.
fn take_turns(kernel: Kernel, modes: &str) -> String {
    let script = format!("PORTOLAN={}\nMODES='{modes}'\n{}", exe().display(), include_str!("ipvs.sh"));
    let text = kernel.run(&kernel.with_modules(&script), Duration::from_mins(10));
    for expected in [
        "mode            ipvs",
        "virtual server  TCP 246.96.0.77:80 wlc: 1 destinations, 0 leaving",
        "removed our IPVS virtual servers and the route to them",
        "nothing to remove\nleft: \n",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    let count = text.lines().find_map(|line| line.strip_prefix("connections without a failure: "));
    assert!(count.is_some_and(|count| count.parse::<u32>().unwrap() > 20), "{text}");
    text
}

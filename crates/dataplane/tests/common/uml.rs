//! Tests that need IPVS, on a kernel that has none: User-Mode Linux is booted once per test program, runs the same
//! program with the same tests, and each test here fails or passes as it did in there.
//!
//! On a kernel with IPVS they run directly.

#![allow(dead_code, unreachable_pub, reason = "each test file includes this one and uses its own part")]

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Set inside.
const INSIDE: &str = "PORTOLAN_IN_UML";
/// All tests of a program together, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_mins(25);
/// Random cases in there, where everything takes several times as long.
const CASES: u32 = 5;
const MODULES: &str = "/usr/lib/uml/modules";

/// What all tests wrote.
static OUTPUT: OnceLock<String> = OnceLock::new();

/// Runs the test where IPVS is. `name`: the test's path, the crate first.
pub fn with_ipvs(name: &str, test: fn()) {
    if std::env::var_os(INSIDE).is_some()
        || portolan_netlink::ipvs::Socket::open().is_ok_and(|it| it.is_some())
    {
        return test();
    }
    let (_, name) = name.split_once("::").expect("a test is in a crate");
    let output = OUTPUT.get_or_init(boot);
    match verdicts(output).get(name) {
        Some(&"ok") => {}
        Some(_) => panic!("in User-Mode Linux it failed:\n{}", details(output, name)),
        None => panic!("in User-Mode Linux it did not run; what did:\n{output}"),
    }
}

/// Name and verdict of every test that ran.
fn verdicts(output: &str) -> HashMap<&str, &str> {
    output
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.split_once(" ... "))
        .map(|(name, verdict)| (name, verdict.trim()))
        .collect()
}

/// What the failed test wrote.
fn details<'a>(output: &'a str, name: &str) -> &'a str {
    let begin = output.find(&format!("---- {name} stdout ----")).unwrap_or(0);
    let rest = &output[begin..];
    let end = rest.get(5..).and_then(|rest| rest.find("\n---- ")).map_or(rest.len(), |end| end + 5);
    &rest[..end]
}

/// Boots, runs this program's tests of IPVS (those that were asked for) and gives what they wrote.
fn boot() -> String {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| arg.contains("ipvs")).collect();
    let filter = if asked.is_empty() { "ipvs".to_owned() } else { asked.join(" ") };
    run_inside(&format!("{filter} --test-threads=2"))
}

/// Boots, runs this program with other arguments and gives what it wrote.
pub fn run_inside(arguments: &str) -> String {
    let dir = std::env::temp_dir().join(format!("portolan-uml-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let output = run(&dir, arguments);
    std::fs::remove_dir_all(&dir).unwrap();
    output
}

fn run(dir: &Path, arguments: &str) -> String {
    let (init, out) = (dir.join("init"), dir.join("out"));
    let program = std::env::current_exe().unwrap();
    let text = script(&program.display().to_string(), arguments, &out.display().to_string());
    std::fs::write(&init, text).unwrap();
    std::fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut child = Command::new("linux.uml")
        .args(["rootfstype=hostfs", "rootflags=/", "rw", "mem=512M", "con=null", "con0=null,fd:1"])
        .args(["ssl=null", "quiet"])
        .arg(format!("init={}", init.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("linux.uml starts: Debian's package user-mode-linux, which scripts/prepare installs");
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            return format!("the kernel did not come to its end\n{}", read(&out));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    read(&out)
}

fn read(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The kernel looks for modules where distributions have them; what there is of that goes over it in memory.
fn script(program: &str, arguments: &str, out: &str) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!(
        "#!/bin/sh
export PATH={path}:/usr/sbin:/sbin {INSIDE}=1 PORTOLAN_CASES={CASES}
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmpfs /run
mkdir -p /run/modules/lib/modules /run/netns
ln -s {MODULES}/$(uname -r) /run/modules/lib/modules/$(uname -r)
printf '#!/bin/sh\\nexec modprobe -d /run/modules \"$@\"\\n' > /run/modprobe
chmod +x /run/modprobe
echo /run/modprobe > /proc/sys/kernel/modprobe
for module in ip_vs ip_vs_rr veth ipv6 nf_conntrack_netlink; do /run/modprobe $module; done
echo 262144 > /proc/sys/net/netfilter/nf_conntrack_max
ip link set lo up
{program} {arguments} > {out} 2>&1
sync
echo o > /proc/sysrq-trigger
sleep 60
"
    )
}

//! Other kernels for tests, booted by the test on the machine's own files and gone with it.
//!
//! Here is how to boot one ([`Kernel::run`]: a script, as root; [`boot`] has what differs between them) and how to let the
//! tests of a test program run in there, each reported like any other ([`Suite`]). What is asked of the kernel is the
//! test's affair.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod boot;
mod suite;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub use suite::{Suite, run_self};

/// Set inside, to the name of the kernel.
pub const INSIDE: &str = "PORTOLAN_GUEST";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// User-Mode Linux: a program like any other, with one processor. It has IPVS and legacy iptables, as modules, and no
    /// `nf_tables` of IP.
    UserMode,
    /// Debian's own kernel in QEMU, with one processor, emulated, which every machine can do. (Several wait for each other
    /// where the machine has no processor to spare for each.) It has everything.
    Debian,
}

impl Kernel {
    pub fn name(self) -> &'static str {
        match self {
            Self::UserMode => "uml",
            Self::Debian => "debian",
        }
    }

    /// Boots, runs a shell script as root on the machine's files, of which `/run` and `/dev` are its own, and gives what it
    /// wrote. No module is loaded, and none can be; see [`Self::with_modules`].
    pub fn run(self, script: &str, patience: Duration) -> String {
        let dir = Directory::new();
        let out = dir.0.join("out");
        fs::write(dir.0.join("script"), script).unwrap();
        let init = dir.0.join("init");
        fs::write(&init, self.init(&dir.0)).unwrap();
        fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let end = boot::boot(self, &dir.0, &init, patience);
        let output = read(&out);
        match end {
            Ok(()) => output,
            Err(why) => format!("{output}\n{why}\n{}", read(&dir.0.join("console"))),
        }
    }

    /// The script with what it takes before it for modules to be found, those for networks of IPVS among them.
    pub fn with_modules(self, script: &str) -> String {
        format!(
            "mkdir -p /run/modules/lib/modules /run/netns
ln -s {}/$(uname -r) /run/modules/lib/modules/$(uname -r)
printf '#!/bin/sh\\nexec modprobe -d /run/modules \"$@\"\\n' > /run/modprobe
chmod +x /run/modprobe
echo /run/modprobe > /proc/sys/kernel/modprobe
/run/modprobe -a {}
echo 262144 > /proc/sys/net/netfilter/nf_conntrack_max
ip link set lo up
{script}
",
            self.modules().display(),
            self.preloaded(),
        )
    }

    /// What most tests need. A kernel that asks for one after the other takes longer.
    fn preloaded(self) -> &'static str {
        match self {
            Self::UserMode => "ip_vs ip_vs_rr veth ipv6 nf_conntrack_netlink",
            Self::Debian => {
                "ip_vs ip_vs_rr veth nf_conntrack_netlink nft_chain_nat nft_ct nft_fib_ipv4 nft_masq nft_nat nft_numgen \
                 nft_reject_ipv4 nft_reject_ipv6"
            }
        }
    }

    /// Where its modules are, by version.
    fn modules(self) -> PathBuf {
        match self {
            Self::UserMode => "/usr/lib/uml/modules".into(),
            Self::Debian => boot::debian().join("lib/modules"),
        }
    }

    /// The first process.
    fn init(self, dir: &Path) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        let (name, dir) = (self.name(), dir.display());
        format!(
            "#!/bin/sh
export PATH={path}:/usr/sbin:/sbin {INSIDE}={name}
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmpfs /run
sh {dir}/script > {dir}/out 2>&1
sync
echo o > /proc/sysrq-trigger
sleep 60
"
        )
    }
}

/// Whether the caller runs in one of these kernels.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Of one boot, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("portolan-guest-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

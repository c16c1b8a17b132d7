//! The programs that are a kernel, or that a kernel runs in.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Kernel;

/// Debian's package qemu-system-common has it.
const VIRTIOFSD: &str = "/usr/lib/qemu/virtiofsd";
/// QEMU takes what is used of it.
const MEMORY: &str = "2G";
const PAUSE: Duration = Duration::from_millis(20);

/// Boots, with `init` as the first process, and waits until the kernel powers off.
pub(crate) fn boot(kernel: Kernel, dir: &Path, init: &Path, patience: Duration) -> Result<(), String> {
    let mut machine = match kernel {
        Kernel::UserMode => vec![Process::start(&mut user_mode(init))],
        Kernel::Debian => qemu(dir, init)?,
    };
    let begin = Instant::now();
    while machine[0].runs() {
        if begin.elapsed() > patience {
            return Err(format!("the kernel did not come to its end within {patience:?}"));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

fn user_mode(init: &Path) -> Command {
    let mut command = Command::new("linux.uml");
    command
        .args(["rootfstype=hostfs", "rootflags=/", "rw", "mem=512M", "con=null", "con0=null,fd:1"])
        .args(["ssl=null", "quiet"])
        .arg(format!("init={}", init.display()));
    command
}

/// Debian's kernel, unpacked by `scripts/guest-kernel` in the directory that this program was built in.
pub(crate) fn debian() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let found = program.ancestors().map(|dir| dir.join("guest")).find(|dir| dir.join("initrd").exists());
    found.expect("scripts/prepare test unpacks a kernel below target/guest")
}

/// The machine's files come by virtiofs: Debian's kernel for virtual machines has no other way. The plainest of
/// processors is the one that is emulated fastest.
fn qemu(dir: &Path, init: &Path) -> Result<Vec<Process>, String> {
    let (files, kernel) = (dir.join("files"), debian());
    let mut virtiofsd = Command::new(VIRTIOFSD);
    virtiofsd.arg(format!("--socket-path={}", files.display())).args(["-o", "source=/,sandbox=chroot"]);
    let mut virtiofsd = Process::start(&mut virtiofsd);
    while !files.exists() {
        if !virtiofsd.runs() {
            return Err(format!("{VIRTIOFSD} ended"));
        }
        std::thread::sleep(PAUSE);
    }
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg", "-cpu", "qemu64", "-m", MEMORY])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .arg("-serial")
        .arg(format!("file:{}", dir.join("console").display()))
        .arg("-object")
        .arg(format!("memory-backend-memfd,id=memory,size={MEMORY},share=on"))
        .args(["-numa", "node,memdev=memory", "-device", "vhost-user-fs-pci,chardev=files,tag=files"])
        .arg("-chardev")
        .arg(format!("socket,id=files,path={}", files.display()))
        .arg("-kernel")
        .arg(kernel.join("linux"))
        .arg("-initrd")
        .arg(kernel.join("initrd"))
        .arg("-append")
        .arg(format!("console=ttyS0 quiet panic=-1 nokaslr mitigations=off START={}", init.display()));
    Ok(vec![Process::start(&mut qemu), virtiofsd])
}

/// Killed if it is left before its end.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| {
            let program = command.get_program().display();
            panic!("{program}: {error}; scripts/prepare test installs it")
        });
        Self(child)
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

//! A benchmark that is told to end leaves nothing.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(30);

fn mounts_below(dir: &Path) -> usize {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("every process has mounts");
    mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|point| Path::new(point).starts_with(dir))
        .count()
}

#[test]
fn a_benchmark_that_is_told_to_end_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // What is measured never becomes ready, and says who it is.
    let (exe, pid) = (dir.path().join("portolan"), dir.path().join("pid"));
    std::fs::write(
        &exe,
        format!("#!/bin/sh\necho $$ > {0}.new\nmv {0}.new {0}\nexec sleep 1000\n", pid.display()),
    )
    .unwrap();
    std::fs::set_permissions(&exe, std::fs::Permissions::from_mode(0o755)).unwrap();
    for verb in ["bench", "scale", "api"] {
        let temporary = dir.path().join(verb);
        std::fs::create_dir(&temporary).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.arg(verb).arg("--exe").arg(&exe).env("TMPDIR", &temporary).stdout(Stdio::null());
        let mut xtask = command.spawn().unwrap();
        let begin = Instant::now();
        while !pid.exists() {
            assert!(
                begin.elapsed() < PATIENCE && xtask.try_wait().unwrap().is_none(),
                "{verb} starts nothing"
            );
        }
        let started = std::fs::read_to_string(&pid).unwrap().trim().to_owned();
        assert!(mounts_below(&temporary) > 0);
        kill_process(Pid::from_child(&xtask), Signal::TERM).unwrap();
        assert_eq!(xtask.wait().unwrap().code(), Some(128 + 15));
        assert_eq!(mounts_below(&temporary), 0, "{verb}");
        assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "{verb}");
        let command = std::fs::read_to_string(format!("/proc/{started}/cmdline")).unwrap_or_default();
        assert!(!command.contains("sleep"), "{verb}: {command}");
        std::fs::remove_file(&pid).unwrap();
    }
}

//! Tests that need another kernel: it is booted once per test program, runs the same program with the tests of the suite
//! that were asked for, and each of them fails or passes as it did in there.

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Once, OnceLock};
use std::thread;
use std::time::Duration;

use crate::Kernel;

/// All tests together, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_mins(25);
/// Random cases in there, where everything takes several times as long.
const CASES: u32 = 5;

/// The tests of a program that stand in modules of one name.
#[derive(Debug)]
pub struct Suite {
    kernel: Kernel,
    module: &'static str,
    begun: Once,
    /// What all tests wrote.
    output: OnceLock<String>,
}

impl Suite {
    pub const fn new(kernel: Kernel, module: &'static str) -> Self {
        Self { kernel, module, begun: Once::new(), output: OnceLock::new() }
    }

    /// Begins in the background, if any of the suite's tests was asked for: several kernels at once leave no processor idle.
    pub fn begin(&'static self) {
        self.begun.call_once(|| {
            if !self.asked().is_empty() {
                thread::spawn(|| self.output());
            }
        });
    }

    /// Fails as the test did in there. `name`: its path, the crate first.
    pub fn verdict(&'static self, name: &str) {
        let (_, name) = name.split_once("::").expect("a test is in a crate");
        let (output, kernel) = (self.output(), self.kernel.name());
        match verdicts(output).get(name) {
            Some(&"ok") => {}
            Some(_) => panic!("in the kernel {kernel} it failed:\n{}", details(output, name)),
            None => panic!("in the kernel {kernel} it did not run; what did:\n{output}"),
        }
    }

    fn output(&self) -> &str {
        self.output.get_or_init(|| run_self(self.kernel, &format!("--exact {}", self.asked().join(" "))))
    }

    /// The suite's tests among those that this run of the program is for.
    fn asked(&self) -> Vec<String> {
        let program = std::env::current_exe().unwrap();
        let list = Command::new(program).args(std::env::args().skip(1)).arg("--list").output().unwrap();
        let list = String::from_utf8_lossy(&list.stdout);
        let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
        names.filter(|name| name.split("::").any(|part| part == self.module)).map(ToOwned::to_owned).collect()
    }
}

/// Boots, runs this program with other arguments and gives what it wrote.
pub fn run_self(kernel: Kernel, arguments: &str) -> String {
    let program = std::env::current_exe().unwrap();
    let run = format!("PORTOLAN_CASES={CASES} {} {arguments}", program.display());
    kernel.run(&kernel.with_modules(&run), PATIENCE)
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

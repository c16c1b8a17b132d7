//! What a benchmark leaves in the kernel and on disk while it runs: network namespaces in a directory of their own, and
//! labs. It goes with the benchmark, and when the program is told to end before (SIGTERM, SIGINT).

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portolan_lab::{Lab, Options};
use portolan_netlink::netns::Netns;
use tokio::signal::unix::{SignalKind, signal};

/// How long what was killed may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

static THERE: Mutex<Vec<There>> = Mutex::new(Vec::new());

#[derive(Debug, Clone, PartialEq)]
enum There {
    Spaces(PathBuf),
    Lab(String),
}

impl There {
    fn remove(&self) {
        if let Err(error) = self.try_remove() {
            eprintln!("{error:#}");
        }
    }

    fn try_remove(&self) -> anyhow::Result<()> {
        match self {
            Self::Lab(name) => {
                Lab::down(name)?;
            }
            Self::Spaces(dir) => {
                for entry in std::fs::read_dir(dir)?.flatten() {
                    let path = entry.path();
                    if let Ok(netns) = Netns::open(&path) {
                        netns.kill_processes(PATIENCE)?;
                        Netns::delete(&path)?;
                    }
                }
                std::fs::remove_dir_all(dir)?;
            }
        }
        Ok(())
    }
}

fn there() -> MutexGuard<'static, Vec<There>> {
    THERE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something that is there until this is dropped.
#[derive(Debug)]
struct Guard(There);

impl Guard {
    fn new(what: There) -> Self {
        there().push(what.clone());
        Self(what)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut there = there();
        self.0.remove();
        there.retain(|what| *what != self.0);
    }
}

/// A directory, and network namespaces by names in it. What runs in them ends with them.
#[derive(Debug)]
pub(super) struct Spaces {
    dir: PathBuf,
    _guard: Guard,
}

impl Spaces {
    pub(super) fn new() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?.keep();
        Ok(Self { _guard: Guard::new(There::Spaces(dir.clone())), dir })
    }

    pub(super) fn path(&self) -> &Path {
        &self.dir
    }

    pub(super) fn create(&self, name: &str) -> anyhow::Result<Netns> {
        Ok(Netns::create(&self.dir.join(name))?)
    }
}

/// A lab that is up until this is dropped.
#[derive(Debug)]
pub(super) struct TemporaryLab {
    pub(super) lab: Lab,
    _guard: Guard,
}

impl TemporaryLab {
    pub(super) fn up(options: &Options) -> anyhow::Result<Self> {
        let guard = Guard::new(There::Lab(options.name.clone()));
        Ok(Self { lab: Lab::up(options)?, _guard: guard })
    }
}

/// From now on a signal ends the program with nothing left.
pub(crate) fn end_by_signals() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    std::thread::spawn(move || {
        let kind = runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => SignalKind::terminate(),
                _ = interrupt.recv() => SignalKind::interrupt(),
            }
        });
        // Held to the end: nobody makes or removes anything meanwhile.
        let there = there();
        there.iter().for_each(There::remove);
        std::process::exit(128 + kind.as_raw_value());
    });
    Ok(())
}

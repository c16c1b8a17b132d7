//! Logs go to standard error; `PORTOLAN_LOG` chooses what (`info`, `debug`, `portolan_proxy=trace`).

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

pub(crate) fn start() {
    start_at("info");
}

/// Says what is of this level or above, where the environment does not say otherwise.
pub(crate) fn start_at(level: &str) {
    let filter = EnvFilter::try_from_env("PORTOLAN_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // Files and log collectors have no use for colours, and some people neither (no-color.org).
    let colours =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
}

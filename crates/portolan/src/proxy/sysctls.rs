//! The conntrack table's settings, written once at the start. What to write is decided purely; [`apply`] writes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::configuration::Conntrack;

const DIR: &str = "/proc/sys/net/netfilter";
const HASHSIZE: &str = "/sys/module/nf_conntrack/parameters/hashsize";
/// More is never asked for on account of many cores.
const MAX: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    max_per_core: u64,
    min: u64,
    /// Names and values; without those to be left alone.
    values: Vec<(&'static str, u64, &'static str)>,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "could not set conntrack parameters from kube-proxy configuration: {path} to {value}: {source}; {field}: 0 leaves it alone"
)]
pub(crate) struct Error {
    path: String,
    value: u64,
    field: &'static str,
    source: std::io::Error,
}

impl Wanted {
    pub(crate) fn of(conntrack: &Conntrack) -> Self {
        let seconds = [
            (
                "nf_conntrack_tcp_timeout_established",
                conntrack.tcp_established_timeout,
                "conntrack.tcpEstablishedTimeout",
            ),
            (
                "nf_conntrack_tcp_timeout_close_wait",
                conntrack.tcp_close_wait_timeout,
                "conntrack.tcpCloseWaitTimeout",
            ),
            ("nf_conntrack_udp_timeout", conntrack.udp_timeout, "conntrack.udpTimeout"),
            ("nf_conntrack_udp_timeout_stream", conntrack.udp_stream_timeout, "conntrack.udpStreamTimeout"),
        ];
        let seconds = seconds.map(|(name, duration, field)| (name, duration.positive().as_secs(), field));
        let liberal =
            ("nf_conntrack_tcp_be_liberal", u64::from(conntrack.tcp_be_liberal), "conntrack.tcpBeLiberal");
        Self {
            max_per_core: u64::try_from(conntrack.max_per_core).unwrap_or(0),
            min: u64::try_from(conntrack.min).unwrap_or(0),
            values: seconds.into_iter().chain([liberal]).filter(|(_, value, _)| *value > 0).collect(),
        }
    }

    /// The size of the table, if it is to be changed at all.
    fn max(&self, cores: usize) -> Option<u64> {
        (self.max_per_core > 0).then(|| (self.max_per_core * cores as u64).min(MAX).max(self.min))
    }
}

/// Writes what differs.
pub(crate) fn apply(wanted: &Wanted) -> Result<(), Error> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if let Some(max) = wanted.max(cores) {
        set_max(max)?;
    }
    for (name, value, field) in &wanted.values {
        set(&Path::new(DIR).join(name), *value, field)?;
    }
    Ok(())
}

fn set_max(max: u64) -> Result<(), Error> {
    const FIELD: &str = "conntrack.maxPerCore";
    let path = Path::new(DIR).join("nf_conntrack_max");
    if read(&path) != Some(max) && !is_writable(&path) {
        // The table is the host's: only its own namespace may size it.
        tracing::warn!(
            wanted = max,
            "this network namespace cannot set nf_conntrack_max; the host's value holds"
        );
        return Ok(());
    }
    set(&path, max, FIELD)?;
    let hashsize = Path::new(HASHSIZE);
    if read(hashsize).is_some_and(|size| size < max / 4)
        && let Err(error) = set(hashsize, max / 4, FIELD)
    {
        tracing::warn!(%error, "the conntrack table may be slower than it could be");
    }
    Ok(())
}

fn set(path: &Path, value: u64, field: &'static str) -> Result<(), Error> {
    if read(path) == Some(value) {
        return Ok(());
    }
    let failed = |source| Error { path: path.display().to_string(), value, field, source };
    fs::write(path, value.to_string()).map_err(failed)?;
    tracing::info!(path = %path.display(), value, "set");
    Ok(())
}

fn read(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn is_writable(path: &Path) -> bool {
    // For a missing file the write says what is wrong.
    fs::metadata(path).map_or(true, |meta| meta.permissions().mode() & 0o200 != 0)
}

#[cfg(test)]
mod tests {
    use super::super::duration::GoDuration;
    use super::*;

    #[test]
    fn the_table_grows_with_the_cores_within_limits() {
        let of = |per_core, min, cores| {
            let conntrack = Conntrack { max_per_core: per_core, min, ..Conntrack::default() };
            Wanted::of(&conntrack).max(cores)
        };
        assert_eq!(of(32768, 131_072, 2), Some(131_072));
        assert_eq!(of(32768, 131_072, 8), Some(262_144));
        assert_eq!(of(32768, 131_072, 512), Some(1_048_576));
        assert_eq!(of(0, 131_072, 8), None);
    }

    #[test]
    fn only_what_is_asked_for_is_written() {
        let names = |conntrack: &Conntrack| -> Vec<_> {
            Wanted::of(conntrack).values.into_iter().map(|(name, value, _)| (name, value)).collect()
        };
        let established = ("nf_conntrack_tcp_timeout_established", 86400);
        let close_wait = ("nf_conntrack_tcp_timeout_close_wait", 3600);
        assert_eq!(names(&Conntrack::default()), [established, close_wait]);
        let conntrack = Conntrack {
            tcp_be_liberal: true,
            udp_timeout: GoDuration::seconds(60),
            tcp_established_timeout: GoDuration::ZERO,
            ..Conntrack::default()
        };
        assert_eq!(
            names(&conntrack),
            [close_wait, ("nf_conntrack_udp_timeout", 60), ("nf_conntrack_tcp_be_liberal", 1)]
        );
    }

    #[test]
    fn an_error_says_which_field_leaves_it_alone() {
        let error =
            set(Path::new("/proc/sys/net/netfilter/none"), 5, "conntrack.min").unwrap_err().to_string();
        assert!(error.contains("conntrack.min: 0 leaves it alone"), "{error}");
    }
}

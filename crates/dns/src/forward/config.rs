//! What an operator chooses about names outside the cluster.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::resolv;
use crate::name::Name;

/// The most upstreams of one zone, as CoreDNS has it.
pub const UPSTREAMS_MAX: usize = 15;

/// Which upstream is asked first. The others follow if it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    #[default]
    Random,
    RoundRobin,
    /// As they were given.
    Sequential,
}

/// Upstreams for a zone and all below it.
#[derive(Debug, Clone)]
pub struct Stub {
    pub zone: Name,
    /// Empty: names of the zone are not forwarded at all.
    pub upstreams: Vec<SocketAddr>,
}

#[derive(Debug, Clone)]
pub struct CacheConfig {
    /// Answers, and denials, each. 0 keeps nothing.
    pub entries: usize,
    /// The longest that answers are kept, whatever they say.
    pub ttl_max: Duration,
    /// The shortest.
    pub ttl_min: Duration,
    pub denial_ttl_max: Duration,
    /// How long an expired answer may stand in while no upstream answers. `None`: not at all.
    pub stale: Option<Duration>,
    /// Ask again for what is asked often before it expires.
    pub prefetch: bool,
}

impl Default for CacheConfig {
    fn default() -> Self {
        CacheConfig {
            entries: 9_984,
            ttl_max: Duration::from_hours(1),
            ttl_min: Duration::ZERO,
            denial_ttl_max: Duration::from_mins(30),
            stale: None,
            prefetch: false,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Config {
    pub upstreams: Vec<SocketAddr>,
    /// More particular zones win.
    pub stubs: Vec<Stub>,
    pub policy: Policy,
    /// How long one upstream may take.
    pub timeout: Duration,
    /// After so long without an answer the next upstream is asked as well.
    pub hedge: Duration,
    /// From the first try to the last answer.
    pub deadline: Duration,
    /// Questions to upstreams at once; more are refused.
    pub max_concurrent: usize,
    /// An upstream is down after more failures in a row than this. 0: never.
    pub max_fails: u32,
    pub health_interval: Duration,
    /// While every upstream is down: fail at once instead of trying one.
    pub fail_fast: bool,
    /// TCP only.
    pub force_tcp: bool,
    /// Response codes upon which the next upstream is asked.
    pub next_on: Vec<u8>,
    pub cache: CacheConfig,
}

impl Default for Config {
    /// CoreDNS' numbers, where it has them.
    fn default() -> Self {
        Config {
            upstreams: Vec::new(),
            stubs: Vec::new(),
            policy: Policy::default(),
            timeout: Duration::from_secs(2),
            hedge: Duration::from_millis(500),
            deadline: Duration::from_secs(5),
            max_concurrent: 1_000,
            max_fails: 2,
            health_interval: Duration::from_millis(500),
            fail_fast: false,
            force_tcp: false,
            next_on: Vec::new(),
            cache: CacheConfig::default(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "{text:?} is no upstream: an address such as 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:53, or a file"
    )]
    Upstream { text: String },
    #[error("cannot read {path}: {source}")]
    File { path: String, source: std::io::Error },
    #[error("{count} upstreams for one zone; at most {UPSTREAMS_MAX} make sense")]
    TooMany { count: usize },
}

/// Addresses with or without port, and files like `/etc/resolv.conf`.
pub fn upstreams(texts: &[String]) -> Result<Vec<SocketAddr>, ConfigError> {
    let mut all = Vec::new();
    for text in texts {
        if text.starts_with('/') {
            let source = |source| ConfigError::File { path: text.clone(), source };
            all.extend(resolv::parse(&std::fs::read_to_string(text).map_err(source)?));
        } else {
            all.push(address(text).ok_or_else(|| ConfigError::Upstream { text: text.clone() })?);
        }
    }
    let mut seen = std::collections::HashSet::new();
    all.retain(|address| seen.insert(*address));
    if all.len() > UPSTREAMS_MAX {
        return Err(ConfigError::TooMany { count: all.len() });
    }
    Ok(all)
}

fn address(text: &str) -> Option<SocketAddr> {
    let text = text.strip_prefix("dns://").unwrap_or(text);
    let plain = text.trim_start_matches('[').trim_end_matches(']');
    text.parse().ok().or_else(|| plain.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53)))
}

/// Leaves out upstreams that are this server itself, for they would ask for ever. `own` are the addresses of this host.
pub fn without_self(upstreams: Vec<SocketAddr>, listening: &[SocketAddr], own: &[IpAddr]) -> Vec<SocketAddr> {
    let is_self = |upstream: &SocketAddr| {
        listening.iter().any(|at| {
            let here = upstream.ip().is_loopback() || own.contains(&upstream.ip());
            at.port() == upstream.port() && (at.ip() == upstream.ip() || (at.ip().is_unspecified() && here))
        })
    };
    let (selves, others): (Vec<_>, Vec<_>) = upstreams.into_iter().partition(is_self);
    for upstream in selves {
        tracing::warn!(%upstream, "this upstream is the DNS server itself and is left out; name others with --forward");
    }
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_come_from_text_and_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "nameserver 192.0.2.9\nnameserver 192.0.2.1\n").unwrap();
        let texts =
            ["192.0.2.1", "192.0.2.2:5353", "2001:db8::1", "[2001:db8::2]:54", file.path().to_str().unwrap()];
        let texts: Vec<String> = texts.map(Into::into).into();
        let wanted =
            ["192.0.2.1:53", "192.0.2.2:5353", "[2001:db8::1]:53", "[2001:db8::2]:54", "192.0.2.9:53"];
        assert_eq!(upstreams(&texts).unwrap(), wanted.map(|a| a.parse().unwrap()));
        assert!(upstreams(&["tls://192.0.2.1".into()]).unwrap_err().to_string().contains("no upstream"));
        assert!(upstreams(&["/does/not/exist".into()]).unwrap_err().to_string().contains("/does/not/exist"));
    }

    #[test]
    fn the_server_is_not_its_own_upstream() {
        let parse = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let upstreams = parse(&["127.0.0.1:53", "192.0.2.7:53", "127.0.0.1:54", "192.0.2.53:53"]);
        let own = ["192.0.2.7".parse().unwrap()];
        let left = without_self(upstreams.clone(), &parse(&["0.0.0.0:53"]), &own);
        assert_eq!(left, parse(&["127.0.0.1:54", "192.0.2.53:53"]));
        assert_eq!(without_self(upstreams.clone(), &parse(&["192.0.2.7:10053"]), &own), upstreams);
    }
}

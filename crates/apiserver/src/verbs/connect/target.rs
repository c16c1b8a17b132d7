//! Where a proxied request goes, and as what: names, paths, headers, and the way back of redirects. Pure.
//!
//! Answers' HTML is not rewritten as kube-apiserver does it: pages whose links begin with a slash lead out of the proxy.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{
    AUTHORIZATION, CONNECTION, EXPECT, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use portolan_api::core::v1::{EndpointAddress, Endpoints};
use portolan_api::percent;

/// What is kept of a path besides unreserved characters, as Go writes paths.
const PATH_KEPT: &str = "/$&+,:;=@";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// The port of a target that names none.
    pub(super) fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Named<'a> {
    pub(crate) scheme: Scheme,
    pub(crate) name: &'a str,
    /// A number or a name; may be empty.
    pub(crate) port: &'a str,
}

impl<'a> Named<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        let scheme = match scheme {
            "" | "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        Some(Self { scheme, name, port }).filter(|_| !name.is_empty())
    }
}

/// The path that the target is asked for, from what follows `proxy`: without dots and double slashes, with a slash at
/// the end where there was one. Empty where nothing follows. `None`: it has a broken escape.
pub(crate) fn path(beyond: &str) -> Option<String> {
    let bytes = percent::decode_bytes(beyond)?;
    Some(if bytes.is_empty() { String::new() } else { percent::encode(&clean(&bytes), PATH_KEPT) })
}

/// An absolute path without dots and double slashes.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut out = [b"/", &parts.join(&b'/')[..]].concat();
    if path.ends_with(b"/") && !parts.is_empty() {
        out.push(b'/');
    }
    out
}

/// Whether the API server may be told to talk to an address: not to itself, nor to what is only reached from where it is.
pub(crate) fn is_proxyable(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast())
        }
        IpAddr::V6(ip) => {
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast())
        }
    }
}

/// The ready addresses that serve the port of a Service that is so named, with the number there. Where to begin is
/// given: `group` among groups, `first` among each one's addresses.
pub(super) fn candidates<'a>(
    endpoints: &'a Endpoints,
    port: &'a str,
    group: usize,
    first: usize,
) -> impl Iterator<Item = (&'a EndpointAddress, u16)> {
    let groups = around(&endpoints.subsets, group);
    groups
        .filter_map(move |subset| {
            let port = subset.ports.iter().find(|known| known.name == port)?;
            Some((subset, u16::try_from(port.port).ok().filter(|number| *number > 0)?))
        })
        .flat_map(move |(subset, port)| around(&subset.addresses, first).map(move |address| (address, port)))
}

/// All of them once, from one on.
fn around<T>(items: &[T], first: usize) -> impl Iterator<Item = &T> {
    let first = first.checked_rem(items.len()).unwrap_or(0);
    items[first..].iter().chain(&items[..first])
}

/// Takes out what is between two neighbours only (RFC 9110 section 7.6.1).
pub(super) fn strip(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let known =
        [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
    for name in listed.iter().chain(&known) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

/// Takes out of a request what is for the API server alone: who asks, above all.
pub(super) fn strip_request(headers: &mut HeaderMap) {
    strip(headers);
    headers.remove(AUTHORIZATION);
    headers.remove(EXPECT);
    let own: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in own {
        headers.remove(name);
    }
}

/// Takes out of an answer, besides, what would let other sites use the cluster's.
pub(super) fn strip_answer(headers: &mut HeaderMap) {
    strip(headers);
    for name in ["credentials", "headers", "methods", "origin"] {
        headers.remove(format!("access-control-allow-{name}"));
    }
}

/// Whether a request asks to speak something else.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.into_iter().any(|value| value.to_ascii_lowercase().contains("upgrade"))
}

/// A `Location` as the client must be told it: one that stays with the target leads back through the proxy, whose path is
/// `prefix`; others, and relative ones, are what they were. `target` and `asked` are the hosts by which the target
/// may call itself: its address, and what the client's request said.
pub(crate) fn location(text: &str, prefix: &str, target: &str, asked: &str) -> String {
    let (origin, rest) = split_origin(text);
    let host = origin.rsplit(['/', '@']).next().unwrap_or_default();
    let own = origin.is_empty() || host == target || host == asked;
    if !own || !rest.starts_with('/') {
        return text.to_owned();
    }
    let origin = if host == asked { origin } else { "" };
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let (path, more) = rest.split_at(end);
    let inside = path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if inside {
        return format!("{origin}{path}{more}");
    }
    let path = String::from_utf8_lossy(&clean(path.as_bytes())).into_owned();
    format!("{origin}{prefix}{path}{more}")
}

/// `scheme://authority` or `//authority`, and what follows. The first is empty in what has neither.
fn split_origin(text: &str) -> (&str, &str) {
    let is_scheme = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    let begin = match text.find("//") {
        Some(0) => 2,
        Some(at) if text[..at].strip_suffix(':').is_some_and(is_scheme) => at + 2,
        _ => return ("", text),
    };
    let end = text[begin..].find(['/', '?', '#']).map_or(text.len(), |at| begin + at);
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn names_have_schemes_and_ports() {
        let named = |text| Named::parse(text).map(|n| (n.scheme, n.name, n.port));
        assert_eq!(named("web"), Some((Scheme::Http, "web", "")));
        assert_eq!(named("web:80"), Some((Scheme::Http, "web", "80")));
        assert_eq!(named("https:web:"), Some((Scheme::Https, "web", "")));
        assert_eq!(named("http:web:http"), Some((Scheme::Http, "web", "http")));
        assert_eq!(named(":web:80"), Some((Scheme::Http, "web", "80")));
        for text in ["", ":80", "ftp:web:80", "https::80", "a:b:c:d"] {
            assert_eq!(named(text), None, "{text}");
        }
    }

    #[test]
    fn paths_are_the_targets_own() {
        for (beyond, want) in [
            ("", ""),
            ("/", "/"),
            ("//", "/"),
            ("/a/b", "/a/b"),
            ("/a//b/", "/a/b/"),
            ("/a/./b/../c", "/a/c"),
            ("/../../etc", "/etc"),
            ("/%2e%2e/x", "/x"),
            ("/a%2Fb", "/a/b"),
            ("/a%20b%ff", "/a%20b%FF"),
            ("/a:b@c", "/a:b@c"),
            ("/a%3Fb%0d%0a", "/a%3Fb%0D%0A"),
        ] {
            assert_eq!(path(beyond).as_deref(), Some(want), "{beyond}");
        }
        assert_eq!(path("/%zz"), None);
    }

    #[test]
    fn addresses_of_the_server_itself_are_no_targets() {
        for (ip, may) in [
            ("10.1.0.5", true),
            ("fd00::5", true),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
            ("169.254.169.254", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("fe80::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(is_proxyable(ip.parse().unwrap()), may, "{ip}");
        }
    }

    #[test]
    fn redirects_lead_back_through_the_proxy() {
        const PREFIX: &str = "/api/v1/namespaces/default/services/web/proxy";
        for (text, want) in [
            ("/login?a=/b", "PREFIX/login?a=/b"),
            ("/", "PREFIX/"),
            ("/a/../../b/#c", "PREFIX/b/#c"),
            ("login", "login"),
            ("?page=2", "?page=2"),
            ("http://10.1.0.5:80/x", "PREFIX/x"),
            ("//10.1.0.5:80/x", "PREFIX/x"),
            ("https://api.example:6443/x", "https://api.example:6443PREFIX/x"),
            ("http://other.example/x", "http://other.example/x"),
            ("http://10.1.0.5:80", "http://10.1.0.5:80"),
            ("http://10.1.0.5:80?x=/", "http://10.1.0.5:80?x=/"),
            ("http://u@10.1.0.5:80/x", "PREFIX/x"),
            ("PREFIX/x//y", "PREFIX/x//y"),
            ("PREFIXy", "PREFIXPREFIXy"),
            ("mailto:a//b", "mailto:a//b"),
        ] {
            let fill = |text: &str| text.replace("PREFIX", PREFIX);
            let got = location(&fill(text), PREFIX, "10.1.0.5:80", "api.example:6443");
            assert_eq!(got, fill(want), "{text}");
        }
    }

    #[test]
    fn what_is_for_the_api_server_goes_no_further() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer x"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("impersonate-extra-a", "b"),
            ("expect", "100-continue"),
            ("cookie", "a=b"),
            ("accept", "text/html"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip_request(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "cookie"]);
    }

    #[test]
    fn endpoints_are_those_of_the_port_and_each_comes_once() {
        let endpoints: Endpoints = serde_json::from_value(serde_json::json!({ "subsets": [
            { "addresses": [{ "ip": "10.1.0.1" }, { "ip": "10.1.0.2" }, { "ip": "10.1.0.3" }],
              "notReadyAddresses": [{ "ip": "10.1.0.9" }],
              "ports": [{ "name": "http", "port": 80 }, { "name": "other", "port": 81 }] },
            { "addresses": [{ "ip": "10.1.0.4" }], "ports": [{ "name": "http", "port": 8080 }] },
            { "notReadyAddresses": [{ "ip": "10.1.0.8" }], "ports": [{ "name": "http", "port": 80 }] },
        ] }))
        .unwrap();
        let found = |port, group, first| -> Vec<String> {
            let found = candidates(&endpoints, port, group, first);
            found.map(|(address, port)| format!("{}:{port}", address.ip)).collect()
        };
        assert_eq!(found("http", 1, 5), ["10.1.0.4:8080", "10.1.0.3:80", "10.1.0.1:80", "10.1.0.2:80"]);
        assert_eq!(found("other", 0, 0).len(), 3);
        assert!(found("", 0, 0).is_empty());
    }
}

//! What a request is about: its URL path taken apart, as Kubernetes' own request-info resolver does.

use portolan_api::percent::decode;

/// A path under `/api` or `/apis` that is deep enough to name a resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    /// API group; empty for the core group.
    pub(crate) group: String,
    /// API version.
    pub(crate) version: String,
    /// The namespace in the path.
    pub(crate) namespace: Option<String>,
    /// Plural name of the resource.
    pub(crate) resource: String,
    /// Name of the object.
    pub(crate) name: Option<String>,
    /// What follows the name.
    pub(crate) subresource: Option<String>,
    /// What follows the subresource `proxy`, as it was sent: a path of the target's own.
    pub(crate) beyond: Option<String>,
    /// The old `/watch/` form of the path.
    pub(crate) watch: bool,
}

/// A path taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// Objects.
    Resource(ResourcePath),
    /// Everything else: discovery, health, metrics; and paths that do not exist.
    Other,
}

/// Takes `path` (still percent-encoded) apart. `None` if its encoding is broken.
pub(crate) fn parse(path: &str) -> Option<Target> {
    let (own, beyond) = split_proxied(path);
    let mut parts = Vec::with_capacity(8);
    for part in own.trim_matches('/').split('/') {
        parts.push(decode(part)?);
    }
    let (group, rest) = match parts.first().map(String::as_str) {
        Some("api") => (String::new(), &parts[1..]),
        Some("apis") if parts.len() > 1 => (parts[1].clone(), &parts[2..]),
        _ => return Some(Target::Other),
    };
    let [version, rest @ ..] = rest else { return Some(Target::Other) };
    let (watch, rest) = match rest {
        [word, rest @ ..] if word == "watch" => (true, rest),
        rest => (false, rest),
    };
    if rest.is_empty() {
        return Some(Target::Other);
    }
    let beyond = beyond.map(str::to_owned);
    let mut path = ResourcePath { group, version: version.clone(), watch, beyond, ..ResourcePath::default() };
    place(&mut path, rest);
    Some(Target::Resource(path))
}

/// The part of a path that names an object and its subresource `proxy`, and what follows there, which may be anything.
pub(crate) fn split_proxied(path: &str) -> (&str, Option<&str>) {
    let is = |part: &str, word: &str| decode(part).is_some_and(|part| part == word);
    let mut end = path.len() - path.trim_start_matches('/').len();
    // Where the resource is named, and then where its subresource.
    let (mut resource, mut subresource) = (usize::MAX, usize::MAX);
    for (index, part) in path[end..].split('/').enumerate() {
        end += part.len() + usize::from(index > 0);
        if index == 0 {
            resource = match part {
                part if is(part, "api") => 2,
                part if is(part, "apis") => 3,
                _ => return (path, None),
            };
        } else if index == resource {
            subresource = index + if is(part, "namespaces") { 4 } else { 2 };
        } else if index == subresource {
            return if is(part, "proxy") { (&path[..end], Some(&path[end..])) } else { (path, None) };
        }
    }
    (path, None)
}

fn place(path: &mut ResourcePath, parts: &[String]) {
    let rest = match parts {
        // `namespaces/NAME` and its subresources are the namespace itself; anything longer is inside it.
        [word, namespace, rest @ ..] if word == "namespaces" => {
            path.namespace = Some(namespace.clone());
            match rest {
                [] => parts,
                [sub] if sub == "status" || sub == "finalize" => parts,
                rest => rest,
            }
        }
        parts => parts,
    };
    path.resource.clone_from(&rest[0]);
    path.name = rest.get(1).cloned();
    if rest.len() > 2 {
        path.subresource = Some(rest[2..].join("/"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(path: &str) -> String {
        match parse(path).unwrap() {
            Target::Other => "other".into(),
            Target::Resource(p) => format!(
                "{}/{} {} {} {} {}{}{}",
                p.group,
                p.version,
                p.namespace.as_deref().unwrap_or("-"),
                p.resource,
                p.name.as_deref().unwrap_or("-"),
                p.subresource.as_deref().unwrap_or("-"),
                p.beyond.map(|beyond| format!(" then {beyond:?}")).unwrap_or_default(),
                if p.watch { " watch" } else { "" }
            ),
        }
    }

    #[test]
    fn paths() {
        for (path, want) in [
            ("/", "other"),
            ("/healthz", "other"),
            ("/api", "other"),
            ("/api/v1", "other"),
            ("/api/v1/", "other"),
            ("/apis/apps/v1", "other"),
            ("/api/v1/nodes", "/v1 - nodes - -"),
            ("/api/v1/nodes/n1/status", "/v1 - nodes n1 status"),
            ("/api/v1/namespaces", "/v1 - namespaces - -"),
            ("/api/v1/namespaces/default", "/v1 default namespaces default -"),
            ("/api/v1/namespaces/default/status", "/v1 default namespaces default status"),
            ("/api/v1/namespaces/default/finalize", "/v1 default namespaces default finalize"),
            ("/api/v1/namespaces/default/services", "/v1 default services - -"),
            ("/api/v1/namespaces/default/services/a/status", "/v1 default services a status"),
            ("/api/v1/watch/namespaces/default/pods", "/v1 default pods - - watch"),
            (
                "/apis/discovery.k8s.io/v1/namespaces/x/endpointslices/y",
                "discovery.k8s.io/v1 x endpointslices y -",
            ),
            ("/api/v1/namespaces/default/pods/p/proxy/a/b", "/v1 default pods p proxy then \"/a/b\""),
            ("/api/v1/namespaces/default/pods/p/proxy", "/v1 default pods p proxy then \"\""),
            ("//api/v1/namespaces/default/pods/p/%70roxy//", "/v1 default pods p proxy then \"//\""),
            ("/api/v1/nodes/n1:10250/proxy/%ff?", "/v1 - nodes n1:10250 proxy then \"/%ff?\""),
            ("/api/v1/nodes/n1/status/proxy/x", "/v1 - nodes n1 status/proxy/x"),
            ("/api/v1/namespaces/proxy/proxy/proxy", "/v1 proxy proxy proxy -"),
            ("/apis/g/v1/namespaces/a/bs/c/proxy/", "g/v1 a bs c proxy then \"/\""),
            (
                "/apis/networking.k8s.io/v1/ipaddresses/2001%3Adb8%3A%3A1",
                "networking.k8s.io/v1 - ipaddresses 2001:db8::1 -",
            ),
        ] {
            assert_eq!(resource(path), want, "{path}");
        }
        assert_eq!(parse("/api/v1/pods/%zz"), None);
        assert_eq!(parse("/api/v1/pods/%ff"), None);
    }
}

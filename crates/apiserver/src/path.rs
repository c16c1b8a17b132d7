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
    let mut parts = Vec::with_capacity(8);
    for part in path.trim_matches('/').split('/') {
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
    let mut path = ResourcePath { group, version: version.clone(), watch, ..ResourcePath::default() };
    place(&mut path, rest);
    Some(Target::Resource(path))
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
                "{}/{} {} {} {} {}{}",
                p.group,
                p.version,
                p.namespace.as_deref().unwrap_or("-"),
                p.resource,
                p.name.as_deref().unwrap_or("-"),
                p.subresource.as_deref().unwrap_or("-"),
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
            ("/api/v1/namespaces/default/pods/p/proxy/a/b", "/v1 default pods p proxy/a/b"),
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

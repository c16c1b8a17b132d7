//! `/etc/resolv.conf` of a pod: whom its programs ask for names. Pure; the rules and texts are kubelet's.

use std::fmt::Write as _;

use portolan_api::core::v1::Pod;

use crate::config::Names;

/// What C libraries read, whatever more there is.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_LINE_MAX: usize = 2048;
const SEARCH_MAX: usize = 253;

/// The settings of a resolver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resolver {
    pub(crate) nameservers: Vec<String>,
    pub(crate) searches: Vec<String>,
    pub(crate) options: Vec<String>,
}

/// What goes to the user as a Warning: reason and message.
pub(crate) type Complaint = (&'static str, String);

impl Resolver {
    /// Reads a `resolv.conf`: the last `search` line counts.
    pub(crate) fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let line = line.trim();
            if line.starts_with(['#', ';']) {
                continue;
            }
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolver.nameservers.extend(words.next().map(str::to_owned)),
                Some("search") => {
                    let domain = |word: &str| word.strip_suffix('.').unwrap_or(word).to_owned();
                    resolver.searches = words.map(domain).filter(|domain| !domain.is_empty()).collect();
                }
                Some("options") => resolver.options = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        resolver
    }

    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            let _ = writeln!(text, "search {}", self.searches.join(" "));
        }
        for server in &self.nameservers {
            let _ = writeln!(text, "nameserver {server}");
        }
        if !self.options.is_empty() {
            let _ = writeln!(text, "options {}", self.options.join(" "));
        }
        text
    }
}

/// The resolver of a pod on a node with settings `host`.
pub(crate) fn of(pod: &Pod, names: &Names, host: &Resolver) -> (Resolver, Vec<Complaint>) {
    let mut complaints = Vec::new();
    let spec = &pod.spec;
    let cluster = match spec.dns_policy.as_str() {
        "None" | "Default" => false,
        "ClusterFirstWithHostNet" => true,
        _ => !spec.host_network,
    };
    let mut resolver = match spec.dns_policy.as_str() {
        "None" => Resolver::default(),
        _ if cluster && !names.cluster_dns.is_empty() => cluster_first(pod, names, host),
        policy => {
            if cluster {
                let message = format!(
                    "pod: \"{}\". kubelet does not have ClusterDNS IP configured and cannot create Pod using \
                     \"{policy}\" policy. Falling back to \"Default\" policy.",
                    super::status::full_name(pod)
                );
                complaints.push(("MissingClusterDNS", message));
            }
            host.clone()
        }
    };
    if let Some(own) = &spec.dns_config {
        add(&mut resolver.nameservers, &own.nameservers);
        add(&mut resolver.searches, &own.searches);
        for option in &own.options {
            let text = match option.value.as_deref().filter(|value| !value.is_empty()) {
                Some(value) => format!("{}:{value}", option.name),
                None => option.name.clone(),
            };
            let same = |known: &String| known.split(':').next() == Some(&option.name);
            match resolver.options.iter_mut().find(|known| same(known)) {
                Some(known) => *known = text,
                None => resolver.options.push(text),
            }
        }
    }
    limit(&mut resolver, &mut complaints);
    (resolver, complaints)
}

fn cluster_first(pod: &Pod, names: &Names, host: &Resolver) -> Resolver {
    let (namespace, domain) = (&pod.metadata.namespace, &names.cluster_domain);
    let mut searches = Vec::new();
    if !domain.is_empty() {
        searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
    }
    add(&mut searches, &host.searches);
    Resolver {
        nameservers: names.cluster_dns.iter().map(ToString::to_string).collect(),
        searches,
        options: vec!["ndots:5".into()],
    }
}

fn add(list: &mut Vec<String>, more: &[String]) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

fn limit(resolver: &mut Resolver, complaints: &mut Vec<Complaint>) {
    if resolver.nameservers.len() > NAMESERVERS_MAX {
        resolver.nameservers.truncate(NAMESERVERS_MAX);
        let message = format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            resolver.nameservers.join(" ")
        );
        complaints.push(("DNSConfigForming", message));
    }
    let before = resolver.searches.len();
    resolver.searches.retain(|search| search.len() <= SEARCH_MAX);
    resolver.searches.truncate(SEARCHES_MAX);
    while resolver.searches.join(" ").len() > SEARCH_LINE_MAX {
        resolver.searches.pop();
    }
    if resolver.searches.len() < before {
        let message = format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            resolver.searches.join(" ")
        );
        complaints.push(("DNSConfigForming", message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const HOST: &str = "# made by hand\nnameserver 192.0.2.53\nsearch old.example\nsearch corp.example. . lab\n\
                        options timeout:1\n";

    fn names() -> Names {
        Names { cluster_dns: vec!["10.96.0.10".parse().unwrap()], ..Names::default() }
    }

    fn resolver(spec: &Value, names: &Names) -> (String, Vec<&'static str>) {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "shop"}, "spec": spec}))
                .unwrap();
        let (resolver, complaints) = of(&pod, names, &Resolver::parse(HOST));
        (resolver.render(), complaints.into_iter().map(|(reason, _)| reason).collect())
    }

    const CLUSTER: &str = "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example lab\n\
                           nameserver 10.96.0.10\noptions ndots:5\n";
    const DEFAULT: &str = "search corp.example lab\nnameserver 192.0.2.53\noptions timeout:1\n";

    #[test]
    fn the_four_policies() {
        let text = |spec: Value| resolver(&spec, &names()).0;
        assert_eq!(text(json!({})), CLUSTER);
        assert_eq!(text(json!({"dnsPolicy": "ClusterFirst"})), CLUSTER);
        assert_eq!(text(json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true})), DEFAULT);
        assert_eq!(text(json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true})), CLUSTER);
        assert_eq!(text(json!({"dnsPolicy": "Default"})), DEFAULT);
        let own = json!({"nameservers": ["192.0.2.1"], "searches": ["x"], "options": [{"name": "rotate"}]});
        assert_eq!(
            text(json!({"dnsPolicy": "None", "dnsConfig": own})),
            "search x\nnameserver 192.0.2.1\noptions rotate\n"
        );
    }

    #[test]
    fn own_settings_are_added_and_options_replaced() {
        let own = json!({"nameservers": ["192.0.2.1", "10.96.0.10"], "searches": ["lab", "x"],
                         "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]});
        assert_eq!(
            resolver(&json!({"dnsConfig": own}), &names()).0,
            "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example lab x\n\
             nameserver 10.96.0.10\nnameserver 192.0.2.1\noptions ndots:2 edns0\n"
        );
    }

    #[test]
    fn too_much_is_cut_and_said() {
        let servers = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
        let searches: Vec<String> =
            (0..40).map(|n| format!("d{n}.example")).chain(["x".repeat(254)]).collect();
        let own = json!({"nameservers": servers, "searches": searches});
        let (text, complaints) = resolver(&json!({"dnsPolicy": "None", "dnsConfig": own}), &names());
        assert_eq!(complaints, ["DNSConfigForming", "DNSConfigForming"]);
        assert_eq!(text.matches("nameserver").count(), 3);
        assert!(text.lines().next().unwrap().ends_with(" d31.example"), "{text}");
        let long: Vec<String> = (0..20).map(|n| format!("{n}{}", "x".repeat(200))).collect();
        let own = json!({"nameservers": ["192.0.2.1"], "searches": long});
        let (text, complaints) = resolver(&json!({"dnsPolicy": "None", "dnsConfig": own}), &names());
        assert_eq!(complaints, ["DNSConfigForming"]);
        assert!(text.lines().next().unwrap().len() <= "search ".len() + SEARCH_LINE_MAX);
    }

    #[test]
    fn without_a_cluster_server_the_nodes_settings_hold() {
        let names = Names::default();
        assert_eq!(resolver(&json!({}), &names), (DEFAULT.to_owned(), vec!["MissingClusterDNS"]));
    }
}

//! What a pod is called, and its `/etc/hosts`. Pure; the texts are kubelet's.

use std::fmt::Write as _;
use std::net::IpAddr;

use portolan_api::core::v1::Pod;

use crate::config::Names;

/// The most that a kernel takes as a host name.
const HOSTNAME_MAX: usize = 64;

/// The host name inside the pod. Fails with a text for the user if the pod asks for one that is too long.
pub(crate) fn hostname(pod: &Pod, node_name: &str, names: &Names) -> Result<String, String> {
    if pod.spec.host_network {
        return Ok(node_name.to_owned());
    }
    let short = label(pod);
    let domain = domain(pod, names);
    if pod.spec.set_hostname_as_fqdn != Some(true) || domain.is_empty() {
        return Ok(short);
    }
    let full = format!("{short}.{domain}");
    if full.len() > HOSTNAME_MAX {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long (64 characters \
             is the max, {} characters requested)",
            full.len()
        ));
    }
    Ok(full)
}

/// The first label of its name, or the whole of the one that it insists on.
fn label(pod: &Pod) -> String {
    if let Some(given) = pod.spec.hostname_override.as_deref().filter(|given| !given.is_empty()) {
        return given.to_owned();
    }
    let name = if pod.spec.hostname.is_empty() { &pod.metadata.name } else { &pod.spec.hostname };
    let cut = name.char_indices().nth(63).map_or(name.as_str(), |(at, _)| &name[..at]);
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// The rest of its full name: only a pod with a subdomain has one.
fn domain(pod: &Pod, names: &Names) -> String {
    let own = pod.spec.hostname_override.as_deref().is_some_and(|given| !given.is_empty());
    if own || pod.spec.subdomain.is_empty() {
        return String::new();
    }
    format!("{}.{}.svc.{}", pod.spec.subdomain, pod.metadata.namespace, names.cluster_domain)
}

/// `/etc/hosts` of a pod; `node` is the node's own file, for pods that share the node's network.
pub(crate) fn file(pod: &Pod, ips: &[IpAddr], names: &Names, node: &str) -> String {
    let mut text = String::new();
    if pod.spec.host_network {
        text += "# Kubernetes-managed hosts file (host network).\n";
        text += node;
    } else {
        text += "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
                 ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\n\
                 fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";
        let (short, domain) = (label(pod), domain(pod, names));
        for ip in ips {
            let full = if domain.is_empty() { String::new() } else { format!("\t{short}.{domain}") };
            let _ = writeln!(text, "{ip}{full}\t{short}");
        }
    }
    if !pod.spec.host_aliases.is_empty() {
        text += "\n# Entries added by HostAliases.\n";
        for alias in &pod.spec.host_aliases {
            let _ = writeln!(text, "{}\t{}", alias.ip, alias.hostnames.join("\t"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-1", "namespace": "shop"}, "spec": spec}))
            .unwrap()
    }

    fn name(spec: &Value) -> Result<String, String> {
        hostname(&pod(spec), "node-a", &Names::default())
    }

    #[test]
    fn hostnames_fit_a_label() {
        let long = "x".repeat(62) + "-tail";
        assert_eq!(name(&json!({})), Ok("web-1".into()));
        assert_eq!(name(&json!({"hostname": "db"})), Ok("db".into()));
        assert_eq!(name(&json!({"hostname": long})), Ok("x".repeat(62)));
        assert_eq!(name(&json!({"hostNetwork": true})), Ok("node-a".into()));
        assert_eq!(name(&json!({"hostnameOverride": "a.b.example"})), Ok("a.b.example".into()));
    }

    #[test]
    fn a_full_name_needs_a_subdomain_and_room() {
        let full = json!({"hostname": "db", "subdomain": "data", "setHostnameAsFQDN": true});
        assert_eq!(name(&full), Ok("db.data.shop.svc.cluster.local".into()));
        assert_eq!(name(&json!({"setHostnameAsFQDN": true})), Ok("web-1".into()));
        let long = json!({"hostname": "x".repeat(60), "subdomain": "data", "setHostnameAsFQDN": true});
        assert!(
            name(&long).unwrap_err().contains("is too long (64 characters is the max, 88"),
            "{:?}",
            name(&long)
        );
    }

    #[test]
    fn the_file_names_the_pod_and_its_aliases() {
        let aliases = json!([{"ip": "192.0.2.9", "hostnames": ["foo", "bar"]}]);
        let spec = json!({"hostname": "db", "subdomain": "data", "hostAliases": aliases});
        let ips = ["10.1.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        let text = file(&pod(&spec), &ips, &Names::default(), "");
        assert!(
            text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6")
        );
        assert!(text.ends_with(
            "10.1.0.5\tdb.data.shop.svc.cluster.local\tdb\nfd00::5\tdb.data.shop.svc.cluster.local\tdb\n\
             \n# Entries added by HostAliases.\n192.0.2.9\tfoo\tbar\n"
        ));
        let plain = file(&pod(&json!({})), &ips[..1], &Names::default(), "");
        assert!(plain.ends_with("ip6-allrouters\n10.1.0.5\tweb-1\n"));
    }

    #[test]
    fn on_the_nodes_network_it_is_the_nodes_file() {
        let text =
            file(&pod(&json!({"hostNetwork": true})), &[], &Names::default(), "127.0.0.1 localhost me\n");
        assert_eq!(text, "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost me\n");
    }
}

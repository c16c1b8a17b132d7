//! What a client should know about a Service that is taken as it is.

use crate::core::v1::Service;
use crate::validate::ip::{cidr_warnings, ip_warnings};

/// The warnings about a Service, Kubernetes' own first.
pub fn of(service: &Service) -> Vec<String> {
    let spec = &service.spec;
    let mut warnings = Vec::new();
    if service.metadata.annotations.contains_key("service.kubernetes.io/topology-aware-hints") {
        warnings.push(
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use \
             service.kubernetes.io/topology-mode instead"
                .to_owned(),
        );
    }
    addresses(service, &mut warnings);
    ignored(service, &mut warnings);
    if spec.traffic_distribution.as_deref() == Some("PreferClose") {
        warnings.push(
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned(),
        );
    }
    if spec.internal_traffic_policy.as_deref() == Some("Local") && spec.external_traffic_policy == "Local" {
        warnings.push(
            "spec.internalTrafficPolicy and spec.externalTrafficPolicy are both \"Local\": they apply independently, \
             one to traffic from inside the cluster and one to traffic from outside; an older rule that they exclude \
             each other no longer holds"
                .to_owned(),
        );
    }
    warnings
}

fn addresses(service: &Service, warnings: &mut Vec<String>) {
    let spec = &service.spec;
    let headless = spec.is_headless();
    if !headless && !spec.is_external_name() {
        for (i, ip) in spec.cluster_ips.iter().enumerate() {
            warnings.extend(ip_warnings(&format!("spec.clusterIPs[{i}]"), ip));
        }
    }
    if headless && spec.type_ == "ClusterIP" {
        let mut ignored = |set: bool, field: &str| {
            if set {
                warnings.push(format!("{field} is ignored for headless services"));
            }
        };
        ignored(!spec.load_balancer_ip.is_empty(), "spec.loadBalancerIP");
        ignored(!spec.external_ips.is_empty(), "spec.externalIPs");
        ignored(spec.session_affinity != "None", "spec.SessionAffinity");
    }
    for (i, ip) in spec.external_ips.iter().enumerate() {
        warnings.extend(ip_warnings(&format!("spec.externalIPs[{i}]"), ip));
    }
    // Where they are ignored anyway, that is all there is to say.
    if !spec.external_ips.is_empty() && !headless && !spec.is_external_name() {
        warnings.push(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned(),
        );
    }
    if !spec.load_balancer_ip.is_empty() {
        warnings.extend(ip_warnings("spec.loadBalancerIP", &spec.load_balancer_ip));
    }
    for (i, range) in spec.load_balancer_source_ranges.iter().enumerate() {
        warnings.extend(cidr_warnings(&format!("spec.loadBalancerSourceRanges[{i}]"), range));
    }
}

fn ignored(service: &Service, warnings: &mut Vec<String>) {
    let spec = &service.spec;
    if spec.is_external_name() && !spec.external_ips.is_empty() {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !spec.is_external_name() && !spec.external_name.is_empty() {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // Tables of json! values read better unborrowed.
mod tests {
    use serde_json::{Value, json};

    fn warned(spec: Value) -> Vec<String> {
        let mut object = json!({ "spec": spec });
        super::super::defaults::apply(&mut object);
        super::of(&super::super::read(&object).unwrap())
    }

    #[test]
    fn warnings_read_as_kubernetes_writes_them() {
        assert!(warned(json!({"ports": [{"port": 80}]})).is_empty());
        assert_eq!(
            warned(json!({"clusterIP": "None", "loadBalancerIP": "1.2.3.4", "sessionAffinity": "ClientIP"})),
            [
                "spec.loadBalancerIP is ignored for headless services",
                "spec.SessionAffinity is ignored for headless services",
            ]
        );
        assert_eq!(
            warned(json!({"clusterIP": "None", "externalIPs": ["1.2.3.4"]})),
            ["spec.externalIPs is ignored for headless services"]
        );
        assert_eq!(
            warned(json!({"type": "ExternalName", "externalIPs": ["1.2.3.4"]})),
            ["spec.externalIPs is ignored when spec.type is \"ExternalName\""]
        );
        assert_eq!(
            warned(json!({"externalIPs": ["2001:DB8::1"]})),
            [
                "spec.externalIPs[0]: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format \
                 (\"2001:db8::1\")",
                "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
            ]
        );
        assert_eq!(
            warned(json!({"externalName": "a.b", "trafficDistribution": "PreferClose"})),
            [
                "spec.externalName is ignored when spec.type is not \"ExternalName\"",
                "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
            ]
        );
    }

    #[test]
    fn two_local_policies_are_explained() {
        let spec =
            json!({"type": "NodePort", "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"});
        let warnings = warned(spec);
        assert!(warnings.len() == 1 && warnings[0].contains("apply independently"), "{warnings:?}");
    }
}

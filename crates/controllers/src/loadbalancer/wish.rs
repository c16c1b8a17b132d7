//! What a Service asks for: fields of its spec, and the annotations that users of MetalLB and kube-vip know.

use std::net::IpAddr;

use super::objects::Service;
use super::problem::Problem;

const POOL: [&str; 2] = ["metallb.io/address-pool", "metallb.universe.tf/address-pool"];
const SHARING: [&str; 2] = ["metallb.io/allow-shared-ip", "metallb.universe.tf/allow-shared-ip"];
const ADDRESSES: [&str; 3] =
    ["metallb.io/loadBalancerIPs", "metallb.universe.tf/loadBalancerIPs", "kube-vip.io/loadbalancerIPs"];
const SPEC: &str = "spec.loadBalancerIP";

/// What a Service asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    /// Whether each family is IPv4, primary first.
    pub(super) families: Vec<bool>,
    /// One address suffices where there cannot be one of each family.
    pub(super) any_family: bool,
    /// At most one per family.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) pool: Option<String>,
    pub(super) tenancy: Tenancy,
}

/// What counts when two Services are to share an address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tenancy {
    pub(super) sharing: Option<String>,
    /// Empty unless the policy is Local: nodes must then agree on who has endpoints.
    pub(super) backends: String,
    pub(super) ports: Vec<(String, i32)>,
}

impl Wish {
    pub(super) fn of(service: &Service) -> Result<Self, Problem> {
        let families = families(service);
        let addresses = addresses(service)?;
        for (i, ip) in addresses.iter().enumerate() {
            let twice = addresses[..i].iter().any(|other| other.is_ipv4() == ip.is_ipv4());
            if twice || !families.contains(&ip.is_ipv4()) {
                return Err(Problem::FamilyMismatch { ip: *ip });
            }
        }
        let any_family = service.spec.ip_family_policy == "PreferDualStack";
        let pool = annotation(service, &POOL).map(|(_, text)| text.trim().to_owned());
        Ok(Self { families, any_family, addresses, pool, tenancy: Tenancy::of(service) })
    }
}

impl Tenancy {
    pub(super) fn of(service: &Service) -> Self {
        let sharing = annotation(service, &SHARING).map(|(_, text)| text.to_owned());
        let local = service.spec.external_traffic_policy == "Local";
        let pairs = service.spec.selector.iter().map(|(label, value)| format!("{label}={value}"));
        let backends = if local {
            let selector: Vec<String> = pairs.collect();
            format!("{}/{}", service.metadata.namespace, selector.join(","))
        } else {
            String::new()
        };
        let ports = service.spec.ports.iter().map(|port| (port.protocol().to_owned(), port.port)).collect();
        Self { sharing, backends, ports }
    }
}

fn families(service: &Service) -> Vec<bool> {
    let named: Vec<bool> = service.spec.ip_families.iter().map(|family| family == "IPv4").collect();
    if named.is_empty() { vec![true] } else { named }
}

fn annotation<'a>(service: &'a Service, names: &[&'static str]) -> Option<(&'static str, &'a str)> {
    let mut found = names.iter().filter_map(|name| Some((*name, service.metadata.annotations.get(name)?)));
    found.find(|(_, text)| !text.trim().is_empty())
}

fn addresses(service: &Service) -> Result<Vec<IpAddr>, Problem> {
    let spec = service.spec.load_balancer_ip.trim();
    let Some((name, text)) = annotation(service, &ADDRESSES) else {
        return if spec.is_empty() { Ok(Vec::new()) } else { list(SPEC, spec) };
    };
    let annotated = list(name, text)?;
    if name.starts_with("kube-vip.io/") && annotated.iter().any(IpAddr::is_unspecified) {
        return Err(Problem::Dhcp { annotation: name });
    }
    if !spec.is_empty() && !list(SPEC, spec)?.iter().all(|ip| annotated.contains(ip)) {
        return Err(Problem::TwoWishes { spec: spec.into(), annotation: name, text: text.into() });
    }
    Ok(annotated)
}

fn list(source_field: &'static str, text: &str) -> Result<Vec<IpAddr>, Problem> {
    let wrong = || Problem::Malformed { source_field, text: text.to_owned() };
    text.split(',').map(|part| part.trim().parse().map_err(|_| wrong())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(annotations: &[(&str, &str)], ip: &str) -> Service {
        let mut service = Service::default();
        service.spec.load_balancer_ip = ip.into();
        service.metadata.annotations = annotations.iter().copied().collect();
        service
    }

    #[test]
    fn all_spellings_are_understood() {
        for name in ADDRESSES {
            let wish = Wish::of(&service(&[(name, "192.0.2.7")], "")).unwrap();
            assert_eq!(wish.addresses, ["192.0.2.7".parse::<IpAddr>().unwrap()], "{name}");
        }
        let wish = Wish::of(&service(&[(POOL[1], "a"), (SHARING[1], "k")], "192.0.2.7")).unwrap();
        assert_eq!(
            (wish.pool.as_deref(), wish.tenancy.sharing.as_deref(), wish.addresses.len()),
            (Some("a"), Some("k"), 1)
        );
        assert!(Wish::of(&service(&[(ADDRESSES[0], "192.0.2.7")], "192.0.2.7")).is_ok(), "the same twice");
    }

    #[test]
    fn nonsense_is_named() {
        let reason = |service: Service| Wish::of(&service).unwrap_err();
        let two = reason(service(&[(ADDRESSES[0], "192.0.2.7")], "192.0.2.8"));
        assert!(matches!(two, Problem::TwoWishes { .. }), "{two}");
        assert!(reason(service(&[], "web")).to_string().starts_with("spec.loadBalancerIP: \"web\""));
        assert!(matches!(reason(service(&[(ADDRESSES[2], "0.0.0.0")], "")), Problem::Dhcp { .. }));
        assert!(matches!(reason(service(&[], "fd00::1")), Problem::FamilyMismatch { .. }));
        let two_of_a_kind = service(&[(ADDRESSES[0], "192.0.2.7,192.0.2.8")], "");
        assert!(matches!(reason(two_of_a_kind), Problem::FamilyMismatch { .. }));
    }
}

//! Addresses and families of a Service: what singular and plural mean to each other, and which families it gets.

use std::fmt;
use std::net::IpAddr;

use serde_json::json;

use super::validate::cluster_ips_and_families;
use super::{CLUSTER_IP_NONE, ServiceSpec};
use crate::core::v1::Service;
use crate::field::{FieldError, FieldErrors};
use crate::validate::ip::parse_sloppy;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }

    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "IPv4" => Some(Self::V4),
            "IPv6" => Some(Self::V6),
            _ => None,
        }
    }

    /// The family of an address as a Service holds it.
    pub fn of_text(text: &str) -> Option<Self> {
        parse_sloppy(text).map(Self::of)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Makes `clusterIP` and `clusterIPs` agree where a client that knows only one of them leaves no doubt.
pub fn normalise_cluster_ips(new: &mut ServiceSpec, old: Option<&ServiceSpec>) {
    let Some(old) = old else {
        if !new.cluster_ip.is_empty() && new.cluster_ips.is_empty() {
            new.cluster_ips = vec![new.cluster_ip.clone()];
        }
        return;
    };
    if new.cluster_ip == old.cluster_ip {
        if new.cluster_ips.is_empty() {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
    } else if new.cluster_ips == old.cluster_ips {
        // Only the singular changed: the client does not know the plural.
        new.cluster_ips = if new.cluster_ip.is_empty() { Vec::new() } else { vec![new.cluster_ip.clone()] };
    }
}

/// Objects written before a field existed look as if it always had. `families` are the cluster's, its default first.
pub fn default_on_read(spec: &mut ServiceSpec, families: &[Family]) {
    normalise_cluster_ips(spec, None);
    if spec.is_external_name() {
        spec.internal_traffic_policy = None;
    }
    if !spec.needs_cluster_ip() || !spec.ip_families.is_empty() {
        return;
    }
    let primary = families.first().copied().unwrap_or(Family::V4);
    let found: Vec<Family> = if spec.is_headless() {
        if spec.selector.is_empty() { vec![primary, primary.other()] } else { vec![primary] }
    } else {
        spec.cluster_ips.iter().filter_map(|ip| Family::of_text(ip)).collect()
    };
    let policy = match found.len() {
        0 => return,
        1 => "SingleStack",
        _ => "RequireDualStack",
    };
    spec.ip_families = found.iter().map(|f| f.as_str().to_owned()).collect();
    spec.ip_family_policy = Some(policy.to_owned());
}

fn policy_error(spec: &ServiceSpec, detail: &str) -> FieldError {
    FieldError::invalid("spec.ipFamilyPolicy", json!(spec.ip_family_policy), detail)
}

/// A Service that prefers two stacks is not changed when the cluster changes: only its user changes it.
fn keeps_preferred_stack(new: &ServiceSpec, old: Option<&ServiceSpec>) -> bool {
    let Some(old) = old else { return false };
    let prefers = |policy: Option<&str>| policy == Some("PreferDualStack");
    let old_policy = old.ip_family_policy.as_deref();
    new.type_ == old.type_
        && new.needs_cluster_ip()
        && prefers(new.ip_family_policy.as_deref())
        && (old_policy.is_none() || prefers(old_policy))
        && new.cluster_ips == old.cluster_ips
        && new.ip_families == old.ip_families
}

/// Decides the policy and the families of a Service, before addresses are allocated. `families` are those the cluster
/// has, its default first. Errors are the reasons of a 422.
pub fn init_ip_families(
    new: &mut Service,
    old: Option<&Service>,
    families: &[Family],
) -> Result<(), FieldErrors> {
    let old_spec = old.map(|o| &o.spec);
    if new.spec.is_external_name() || keeps_preferred_stack(&new.spec, old_spec) {
        return Ok(());
    }
    if new.spec.ip_family_policy.is_none() {
        new.spec.ip_family_policy = Some(inferred_policy(&new.spec, old_spec));
    }
    let errors = cluster_ips_and_families(&new.spec, old_spec);
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut errors = FieldErrors::new();
    if let Some(old) = old_spec {
        release_secondary(&mut new.spec, old, &mut errors);
    }
    single_stack_has_one(&new.spec, &mut errors);
    infer_families(&mut new.spec, families, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    choose_families(&mut new.spec, families)
}

fn inferred_policy(new: &ServiceSpec, old: Option<&ServiceSpec>) -> String {
    if let Some(policy) = old.and_then(|o| o.ip_family_policy.clone()) {
        return policy;
    }
    let headless = new.cluster_ip == CLUSTER_IP_NONE && new.selector.is_empty();
    if headless { "RequireDualStack".to_owned() } else { "SingleStack".to_owned() }
}

fn is_single_stack(spec: &ServiceSpec) -> bool {
    spec.ip_family_policy.as_deref() == Some("SingleStack")
}

/// `SingleStack` lets go of the second address; a shorter list with another policy does not say what is meant.
fn release_secondary(new: &mut ServiceSpec, old: &ServiceSpec, errors: &mut FieldErrors) {
    if is_single_stack(new) {
        if new.cluster_ips == old.cluster_ips {
            new.cluster_ips.truncate(1);
        }
        if new.ip_families == old.ip_families {
            new.ip_families.truncate(1);
        }
        return;
    }
    let reduced = |new: &[String], old: &[String]| !new.is_empty() && new.len() < old.len();
    if reduced(&new.cluster_ips, &old.cluster_ips) {
        errors.push(policy_error(new, "must be 'SingleStack' to release the secondary cluster IP"));
    }
    if reduced(&new.ip_families, &old.ip_families) {
        errors.push(policy_error(new, "must be 'SingleStack' to release the secondary IP family"));
    }
}

fn single_stack_has_one(spec: &ServiceSpec, errors: &mut FieldErrors) {
    if !is_single_stack(spec) {
        return;
    }
    let needs_two = "must be 'RequireDualStack' or 'PreferDualStack' when multiple";
    if spec.cluster_ips.len() == 2 {
        errors.push(policy_error(spec, &format!("{needs_two} cluster IPs are specified")));
    }
    if spec.ip_families.len() == 2 {
        errors.push(policy_error(spec, &format!("{needs_two} IP families are specified")));
    }
}

/// Families that the user's addresses imply.
fn infer_families(spec: &mut ServiceSpec, families: &[Family], errors: &mut FieldErrors) {
    for (i, ip) in spec.cluster_ips.iter().enumerate() {
        if ip == CLUSTER_IP_NONE {
            break;
        }
        let Some(family) = Family::of_text(ip) else { continue };
        if i < spec.ip_families.len() {
            continue;
        }
        if families.contains(&family) {
            spec.ip_families.push(family.as_str().to_owned());
        } else {
            errors.push(FieldError::invalid(
                format!("spec.clusterIPs[{i}]"),
                json!(spec.cluster_ips),
                format!("{family} is not configured on this cluster"),
            ));
        }
    }
}

fn choose_families(spec: &mut ServiceSpec, families: &[Family]) -> Result<(), FieldErrors> {
    let primary = families.first().copied().unwrap_or(Family::V4);
    if spec.cluster_ip == CLUSTER_IP_NONE && spec.selector.is_empty() {
        // Endpoints are the user's own, so both families may appear even where the cluster has one.
        add_families(spec, primary, true);
        return Ok(());
    }
    let mut errors = FieldErrors::new();
    if spec.ip_family_policy.as_deref() == Some("RequireDualStack") && families.len() < 2 {
        errors.push(policy_error(spec, "this cluster is not configured for dual-stack services"));
    }
    for (i, family) in spec.ip_families.iter().enumerate() {
        if !Family::parse(family).is_some_and(|f| families.contains(&f)) {
            let path = format!("spec.ipFamilies[{i}]");
            errors.push(FieldError::invalid(path, family.as_str(), "not configured on this cluster"));
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    add_families(spec, primary, families.len() == 2);
    Ok(())
}

/// The default family where none is given, and the other one where two are wanted and possible.
fn add_families(spec: &mut ServiceSpec, primary: Family, two_possible: bool) {
    if spec.ip_families.is_empty() {
        spec.ip_families.push(primary.as_str().to_owned());
    }
    if let [only] = spec.ip_families.as_slice()
        && two_possible
        && !is_single_stack(spec)
        && let Some(family) = Family::parse(only)
    {
        spec.ip_families.push(family.other().as_str().to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[Family] = &[Family::V4];
    const TWO: &[Family] = &[Family::V4, Family::V6];

    fn service(policy: Option<&str>, ips: &[&str], families: &[&str]) -> Service {
        let mut service = Service::default();
        service.spec.type_ = "ClusterIP".into();
        service.spec.selector.insert("app".into(), "web".into());
        service.spec.cluster_ip = ips.first().copied().unwrap_or_default().into();
        service.spec.cluster_ips = ips.iter().map(ToString::to_string).collect();
        service.spec.ip_families = families.iter().map(ToString::to_string).collect();
        service.spec.ip_family_policy = policy.map(Into::into);
        service
    }

    fn init(
        mut new: Service,
        old: Option<&Service>,
        families: &[Family],
    ) -> Result<(String, Vec<String>), String> {
        match init_ip_families(&mut new, old, families) {
            Ok(()) => Ok((new.spec.ip_family_policy.unwrap_or_default(), new.spec.ip_families)),
            Err(errors) => Err(errors[0].to_string()),
        }
    }

    #[allow(clippy::unnecessary_wraps)] // It stands for the outcome of `init`.
    fn got(policy: &str, families: &[&str]) -> Result<(String, Vec<String>), String> {
        Ok((policy.into(), families.iter().map(ToString::to_string).collect()))
    }

    #[test]
    fn families_of_a_new_service() {
        assert_eq!(init(service(None, &[], &[]), None, TWO), got("SingleStack", &["IPv4"]));
        assert_eq!(init(service(None, &["fd00::1"], &[]), None, TWO), got("SingleStack", &["IPv6"]));
        assert_eq!(
            init(service(Some("PreferDualStack"), &[], &[]), None, ONE),
            got("PreferDualStack", &["IPv4"])
        );
        let both = got("PreferDualStack", &["IPv4", "IPv6"]);
        assert_eq!(init(service(Some("PreferDualStack"), &[], &[]), None, TWO), both);
        let six_first = got("RequireDualStack", &["IPv6", "IPv4"]);
        assert_eq!(init(service(Some("RequireDualStack"), &[], &["IPv6"]), None, TWO), six_first);
    }

    #[test]
    fn headless_without_selector_gets_both_families_anywhere() {
        let mut new = service(None, &["None"], &[]);
        new.spec.selector.clear();
        assert_eq!(init(new, None, ONE), got("RequireDualStack", &["IPv4", "IPv6"]));
        assert_eq!(init(service(None, &["None"], &[]), None, ONE), got("SingleStack", &["IPv4"]));
    }

    #[test]
    fn refusals_before_allocation() {
        let cases: [(Service, &[Family], &str); 6] = [
            (
                service(None, &["10.0.0.1", "fd00::1"], &[]),
                TWO,
                "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' \
              when multiple cluster IPs are specified",
            ),
            (
                service(None, &[], &["IPv4", "IPv6"]),
                TWO,
                "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' \
              when multiple IP families are specified",
            ),
            (
                service(Some("RequireDualStack"), &[], &[]),
                ONE,
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for \
              dual-stack services",
            ),
            (
                service(None, &[], &["IPv6"]),
                ONE,
                "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
            ),
            (
                service(None, &["fd00::1"], &[]),
                ONE,
                "spec.clusterIPs[0]: Invalid value: [\"fd00::1\"]: IPv6 is not configured on this cluster",
            ),
            (
                service(None, &["bad"], &[]),
                ONE,
                "spec.clusterIPs[0]: Invalid value: \"bad\": must be a valid IP address, (e.g. 10.9.8.7 or \
              2001:db8::ffff)",
            ),
        ];
        for (new, families, text) in cases {
            assert_eq!(init(new, None, families), Err(text.to_owned()));
        }
    }

    #[test]
    fn an_update_releases_or_gains_the_secondary() {
        let two = service(Some("PreferDualStack"), &["10.0.0.1", "fd00::1"], &["IPv4", "IPv6"]);
        let mut down = two.clone();
        down.spec.ip_family_policy = Some("SingleStack".into());
        assert!(init_ip_families(&mut down, Some(&two), TWO).is_ok());
        assert_eq!(down.spec.cluster_ips, ["10.0.0.1"]);
        assert_eq!(down.spec.ip_families, ["IPv4"]);

        let mut short = two.clone();
        short.spec.cluster_ips.truncate(1);
        assert_eq!(
            init(short, Some(&two), TWO).unwrap_err(),
            "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be 'SingleStack' to release the \
             secondary cluster IP"
        );
        let mut short = two.clone();
        short.spec.ip_families.truncate(1);
        assert_eq!(
            init(short, Some(&two), TWO).unwrap_err(),
            "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be 'SingleStack' to release the \
             secondary IP family"
        );

        let one = service(Some("SingleStack"), &["10.0.0.1"], &["IPv4"]);
        let mut up = one.clone();
        up.spec.ip_family_policy = Some("RequireDualStack".into());
        assert_eq!(init(up, Some(&one), TWO), got("RequireDualStack", &["IPv4", "IPv6"]));
    }

    #[test]
    fn a_preferred_stack_is_left_alone() {
        let one = service(Some("PreferDualStack"), &["10.0.0.1"], &["IPv4"]);
        assert_eq!(init(one.clone(), Some(&one), TWO), got("PreferDualStack", &["IPv4"]));
    }

    #[test]
    fn singular_and_plural_follow_each_other() {
        let spec = |one: &str, many: &[&str]| {
            let mut spec = service(None, many, &[]).spec;
            spec.cluster_ip = one.into();
            spec
        };
        let cases = [
            (spec("a", &[]), None, vec!["a"]),
            (spec("", &["a"]), None, vec!["a"]),
            (spec("a", &[]), Some(spec("a", &["a", "b"])), vec!["a", "b"]),
            (spec("", &["a"]), Some(spec("a", &["a"])), vec![]),
            (spec("b", &["a"]), Some(spec("a", &["a"])), vec!["b"]),
            (spec("b", &["c"]), Some(spec("a", &["a"])), vec!["c"]),
        ];
        for (mut new, old, expected) in cases {
            normalise_cluster_ips(&mut new, old.as_ref());
            assert_eq!(new.cluster_ips, expected);
        }
    }

    #[test]
    fn old_objects_read_as_if_new() {
        let mut spec = service(None, &[], &[]).spec;
        spec.cluster_ip = "10.0.0.1".into();
        default_on_read(&mut spec, ONE);
        assert_eq!(spec.cluster_ips, ["10.0.0.1"]);
        assert_eq!(spec.ip_families, ["IPv4"]);
        assert_eq!(spec.ip_family_policy.as_deref(), Some("SingleStack"));
        let mut spec = service(None, &["None"], &[]).spec;
        spec.selector.clear();
        default_on_read(&mut spec, ONE);
        assert_eq!(spec.ip_families, ["IPv4", "IPv6"]);
    }
}

//! What a Service's address fields become before anything is allocated: the singular and plural ClusterIP agree, values
//! allocated earlier are carried over, and `ipFamilies` and `ipFamilyPolicy` are filled in. Pure.
//!
//! Start with [`on_create`] and [`on_update`]. The order of the steps is Kubernetes': it decides which error is seen.

use std::net::IpAddr;

use portolan_api::field::{FieldError, FieldErrors};
use serde_json::Value;

pub(super) const IPV4: &str = "IPv4";
pub(super) const IPV6: &str = "IPv6";
const NONE: &str = "None";

/// The fields of a Service that say which addresses it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Addressing {
    pub type_: String,
    pub cluster_ip: String,
    pub cluster_ips: Vec<String>,
    pub families: Vec<String>,
    pub policy: Option<String>,
    has_selector: bool,
}

impl Addressing {
    pub(super) fn read(service: &Value) -> Addressing {
        let spec = &service["spec"];
        Addressing {
            type_: text(spec, "type").to_owned(),
            cluster_ip: text(spec, "clusterIP").to_owned(),
            cluster_ips: texts(spec, "clusterIPs"),
            families: texts(spec, "ipFamilies"),
            policy: spec["ipFamilyPolicy"].as_str().map(str::to_owned),
            has_selector: spec["selector"].as_object().is_some_and(|selector| !selector.is_empty()),
        }
    }

    /// The same of a stored Service; one that older servers wrote may lack the newer fields.
    pub(super) fn read_stored(service: &Value) -> Addressing {
        let mut stored = Addressing::read(service);
        if stored.cluster_ips.is_empty() && !stored.cluster_ip.is_empty() {
            stored.cluster_ips = vec![stored.cluster_ip.clone()];
        }
        if stored.families.is_empty() && !stored.is_external_name() {
            let families = stored.cluster_ips.iter().filter_map(|address| family_of(address));
            stored.families = families.map(str::to_owned).collect();
            let policy = if stored.families.len() == 2 { "RequireDualStack" } else { "SingleStack" };
            stored.policy =
                stored.policy.or_else(|| (!stored.families.is_empty()).then(|| policy.to_owned()));
        }
        stored
    }

    pub(super) fn write(self, service: &mut Value) {
        let Some(spec) = service["spec"].as_object_mut() else { return };
        let mut set = |name: &str, value: Option<Value>| match value {
            Some(value) => _ = spec.insert(name.to_owned(), value),
            None => _ = spec.remove(name),
        };
        set("clusterIP", (!self.cluster_ip.is_empty()).then(|| self.cluster_ip.into()));
        set("clusterIPs", (!self.cluster_ips.is_empty()).then(|| self.cluster_ips.into()));
        set("ipFamilies", (!self.families.is_empty()).then(|| self.families.into()));
        set("ipFamilyPolicy", self.policy.map(Value::from));
    }

    pub(super) fn is_external_name(&self) -> bool {
        self.type_ == "ExternalName"
    }

    pub(super) fn is_headless(&self) -> bool {
        self.cluster_ip == NONE
    }

    fn is_single_stack(&self) -> bool {
        self.policy.as_deref() == Some("SingleStack")
    }

    fn refuse_policy(&self, why: &str) -> FieldError {
        FieldError::invalid("spec.ipFamilyPolicy", self.policy.clone(), why)
    }
}

/// For a new Service. `cluster` names the families the cluster has ranges of, the primary first.
pub(super) fn on_create(new: &mut Addressing, cluster: &[&str]) -> Result<(), FieldErrors> {
    if !new.cluster_ip.is_empty() && new.cluster_ips.is_empty() {
        new.cluster_ips = vec![new.cluster_ip.clone()];
    }
    fill_families(new, None, cluster)
}

/// For a changed Service.
pub(super) fn on_update(new: &mut Addressing, old: &Addressing, cluster: &[&str]) -> Result<(), FieldErrors> {
    carry_over(new, old);
    follow_singular(new, old);
    fill_families(new, Some(old), cluster)
}

/// A client that leaves the addresses out keeps them.
fn carry_over(new: &mut Addressing, old: &Addressing) {
    if new.is_external_name() || old.is_external_name() {
        return;
    }
    if new.cluster_ip.is_empty() {
        new.cluster_ip.clone_from(&old.cluster_ip);
    }
    if new.cluster_ips.is_empty() && new.cluster_ip == old.cluster_ip {
        new.cluster_ips.clone_from(&old.cluster_ips);
    }
}

/// A client that knows only the singular field changes both.
fn follow_singular(new: &mut Addressing, old: &Addressing) {
    let same_plural = new.cluster_ips == old.cluster_ips;
    if new.cluster_ip == old.cluster_ip {
        if new.cluster_ips.is_empty() {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
    } else if !old.cluster_ip.is_empty() && new.cluster_ip.is_empty() && same_plural {
        new.cluster_ips.clear();
    } else if same_plural {
        new.cluster_ips = vec![new.cluster_ip.clone()];
    }
}

fn fill_families(
    new: &mut Addressing,
    old: Option<&Addressing>,
    cluster: &[&str],
) -> Result<(), FieldErrors> {
    if new.is_external_name() || old.is_some_and(|old| prefers_the_same_stack(new, old)) {
        return Ok(());
    }
    let headless_without_selector = new.is_headless() && !new.has_selector;
    if new.policy.is_none() {
        let default = if headless_without_selector { "RequireDualStack" } else { "SingleStack" };
        new.policy = old.and_then(|old| old.policy.clone()).or_else(|| Some(default.to_owned()));
    }
    settle_stack(new, old, cluster)?;
    if !headless_without_selector {
        check_cluster(new, cluster)?;
    }
    if new.families.is_empty() {
        new.families.extend(cluster.first().map(|family| (*family).to_owned()));
    }
    // Endpoints of a headless Service without selector come from its user, who may have addresses of both families
    // even where the cluster has not.
    let may_be_dual = headless_without_selector || cluster.len() == 2;
    if !new.is_single_stack() && may_be_dual && new.families.len() == 1 {
        let other = if new.families[0] == IPV4 { IPV6 } else { IPV4 };
        new.families.push(other.to_owned());
    }
    Ok(())
}

/// A Service that takes what it can get is not changed when the cluster gains or loses a family.
fn prefers_the_same_stack(new: &Addressing, old: &Addressing) -> bool {
    const PREFER: &str = "PreferDualStack";
    new.type_ == old.type_
        && new.policy.as_deref() == Some(PREFER)
        && old.policy.as_deref().is_none_or(|policy| policy == PREFER)
        && new.cluster_ips == old.cluster_ips
        && new.families == old.families
}

/// Makes the lists fit the policy, and infers families from addresses.
fn settle_stack(new: &mut Addressing, old: Option<&Addressing>, cluster: &[&str]) -> Result<(), FieldErrors> {
    let mut errors = FieldErrors::new();
    if let Some(old) = old {
        if new.is_single_stack() {
            if new.cluster_ips == old.cluster_ips {
                new.cluster_ips.truncate(1);
            }
            if new.families == old.families {
                new.families.truncate(1);
            }
        } else {
            if shortened(&new.cluster_ips, &old.cluster_ips) {
                errors.push(new.refuse_policy("must be 'SingleStack' to release the secondary cluster IP"));
            }
            if shortened(&new.families, &old.families) {
                errors.push(new.refuse_policy("must be 'SingleStack' to release the secondary IP family"));
            }
        }
    }
    if new.is_single_stack() {
        let both = "must be 'RequireDualStack' or 'PreferDualStack' when multiple";
        if new.cluster_ips.len() == 2 {
            errors.push(new.refuse_policy(&format!("{both} cluster IPs are specified")));
        }
        if new.families.len() == 2 {
            errors.push(new.refuse_policy(&format!("{both} IP families are specified")));
        }
    }
    for (index, address) in new.cluster_ips.iter().enumerate().skip(new.families.len()) {
        let Some(family) = family_of(address) else { break };
        if cluster.contains(&family) {
            new.families.push(family.to_owned());
        } else {
            let path = format!("spec.clusterIPs[{index}]");
            let why = format!("{family} is not configured on this cluster");
            errors.push(FieldError::invalid(path, new.cluster_ips.clone(), why));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn shortened(new: &[String], old: &[String]) -> bool {
    old.len() == 2 && new.len() == 1 && new[0] == old[0]
}

fn check_cluster(new: &Addressing, cluster: &[&str]) -> Result<(), FieldErrors> {
    let mut errors = FieldErrors::new();
    if new.policy.as_deref() == Some("RequireDualStack") && cluster.len() < 2 {
        errors.push(new.refuse_policy("this cluster is not configured for dual-stack services"));
    }
    for (index, family) in new.families.iter().enumerate() {
        if !cluster.contains(&family.as_str()) {
            let path = format!("spec.ipFamilies[{index}]");
            errors.push(FieldError::invalid(path, family.clone(), "not configured on this cluster"));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// None for what is no address, such as `None`.
pub(super) fn family_of(address: &str) -> Option<&'static str> {
    address.parse::<IpAddr>().ok().map(|address| if address.is_ipv4() { IPV4 } else { IPV6 })
}

fn text<'a>(spec: &'a Value, name: &str) -> &'a str {
    spec[name].as_str().unwrap_or_default()
}

fn texts(spec: &Value, name: &str) -> Vec<String> {
    let list = spec[name].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // literals read best by value
mod tests {
    use super::*;
    use serde_json::json;

    const V4: &[&str] = &[IPV4];
    const DUAL: &[&str] = &[IPV4, IPV6];

    fn created(spec: Value, cluster: &[&str]) -> Result<Value, String> {
        let mut service = json!({"spec": spec});
        let mut new = Addressing::read(&service);
        on_create(&mut new, cluster).map_err(joined)?;
        new.write(&mut service);
        Ok(service["spec"].take())
    }

    fn updated(old: Value, new: Value, cluster: &[&str]) -> Result<Value, String> {
        let (old, mut service) = (json!({"spec": old}), json!({"spec": new}));
        let mut new = Addressing::read(&service);
        on_update(&mut new, &Addressing::read(&old), cluster).map_err(joined)?;
        new.write(&mut service);
        Ok(service["spec"].take())
    }

    fn joined(errors: FieldErrors) -> String {
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_plain_service_is_single_stack_of_the_primary_family() {
        let spec = created(json!({"type": "ClusterIP", "selector": {"a": "b"}}), DUAL).unwrap();
        assert_eq!(spec["ipFamilyPolicy"], "SingleStack");
        assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
        let spec = created(json!({"type": "ClusterIP", "clusterIP": "fd00::7"}), DUAL).unwrap();
        assert_eq!(spec["ipFamilies"], json!(["IPv6"]));
        assert_eq!(spec["clusterIPs"], json!(["fd00::7"]));
    }

    #[test]
    fn two_families_need_a_policy_that_allows_them() {
        let spec = json!({"type": "ClusterIP", "ipFamilies": ["IPv4", "IPv6"]});
        assert_eq!(
            created(spec, DUAL).unwrap_err(),
            "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' \
             when multiple IP families are specified"
        );
        let prefer =
            |cluster| created(json!({"type": "ClusterIP", "ipFamilyPolicy": "PreferDualStack"}), cluster);
        assert_eq!(prefer(DUAL).unwrap()["ipFamilies"], json!(["IPv4", "IPv6"]));
        assert_eq!(prefer(V4).unwrap()["ipFamilies"], json!(["IPv4"]));
    }

    #[test]
    fn a_family_the_cluster_lacks_is_refused() {
        let error = |spec| created(spec, V4).unwrap_err();
        assert_eq!(
            error(json!({"type": "ClusterIP", "ipFamilies": ["IPv6"]})),
            "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"
        );
        assert_eq!(
            error(json!({"type": "ClusterIP", "ipFamilyPolicy": "RequireDualStack"})),
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"
        );
        assert_eq!(
            error(json!({"type": "ClusterIP", "clusterIP": "fd00::1"})),
            "spec.clusterIPs[0]: Invalid value: [\"fd00::1\"]: IPv6 is not configured on this cluster"
        );
    }

    #[test]
    fn headless_without_selector_is_dual_even_on_a_single_stack_cluster() {
        let spec = created(json!({"type": "ClusterIP", "clusterIP": "None"}), V4).unwrap();
        assert_eq!(spec["ipFamilyPolicy"], "RequireDualStack");
        assert_eq!(spec["ipFamilies"], json!(["IPv4", "IPv6"]));
        assert_eq!(spec["clusterIPs"], json!(["None"]));
        let spec =
            created(json!({"type": "ClusterIP", "clusterIP": "None", "selector": {"a": "b"}}), V4).unwrap();
        assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
    }

    #[test]
    fn external_names_have_no_families() {
        let spec = json!({"type": "ExternalName", "externalName": "example.org"});
        assert_eq!(created(spec.clone(), V4).unwrap(), spec);
    }

    #[test]
    fn an_update_keeps_what_the_client_left_out() {
        let old = json!({"type": "ClusterIP", "clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"});
        let spec = updated(old.clone(), json!({"type": "NodePort"}), V4).unwrap();
        assert_eq!(spec["clusterIP"], "10.0.0.7");
        assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
        let spec = updated(
            old,
            json!({"type": "ClusterIP", "clusterIP": "10.0.0.8", "clusterIPs": ["10.0.0.7"]}),
            V4,
        )
        .unwrap();
        assert_eq!(
            spec["clusterIPs"],
            json!(["10.0.0.8"]),
            "the singular leads; validation refuses the change"
        );
    }

    #[test]
    fn what_older_servers_stored_is_understood() {
        let stored =
            Addressing::read_stored(&json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.7"}}));
        assert_eq!(
            (stored.cluster_ips, stored.families),
            (vec!["10.0.0.7".to_owned()], vec![IPV4.to_owned()])
        );
        assert_eq!(stored.policy.as_deref(), Some("SingleStack"));
    }

    #[test]
    fn the_stack_grows_and_shrinks_by_policy() {
        let single = json!({"type": "ClusterIP", "clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"});
        let mut wanted = single.clone();
        wanted["ipFamilyPolicy"] = "PreferDualStack".into();
        assert_eq!(updated(single, wanted, DUAL).unwrap()["ipFamilies"], json!(["IPv4", "IPv6"]));

        let dual = json!({"type": "ClusterIP", "clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7", "fd00::7"], "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"});
        assert_eq!(
            updated(dual.clone(), dual.clone(), V4).unwrap(),
            dual,
            "no downgrade when the cluster changes"
        );
        let mut shrunk = dual.clone();
        shrunk["ipFamilyPolicy"] = "SingleStack".into();
        let shrunk = updated(dual.clone(), shrunk, DUAL).unwrap();
        assert_eq!(
            (shrunk["clusterIPs"].clone(), shrunk["ipFamilies"].clone()),
            (json!(["10.0.0.7"]), json!(["IPv4"]))
        );
        let mut cut = dual.clone();
        cut["clusterIPs"] = json!(["10.0.0.7"]);
        assert!(
            updated(dual, cut, DUAL)
                .unwrap_err()
                .contains("must be 'SingleStack' to release the secondary cluster IP")
        );
    }
}

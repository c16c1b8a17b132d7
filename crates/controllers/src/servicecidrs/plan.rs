//! What a ServiceCIDR should say, and when it may go: Kubernetes' `service-cidr-controller`.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use portolan_api::networking::v1::ServiceCIDR;

/// What keeps a range until its addresses are others' as well.
pub const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// Which IPAddresses hold a range: those that the API servers' allocators made.
pub const MANAGED_ADDRESSES: &str = "ipaddress.kubernetes.io/managed-by=ipallocator.k8s.io";

/// How long after its deletion a range stays at least: until then an API server may give out an address of it, because it
/// has not heard.
const GRACE: Duration = Duration::from_secs(10);

/// What the condition `Ready` should say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    pub status: &'static str,
    pub reason: &'static str,
    pub message: &'static str,
}

pub const READY: Ready = Ready { status: "True", reason: "", message: "Kubernetes Service CIDR is ready" };
pub const TERMINATING: Ready = Ready {
    status: "False",
    reason: "Terminating",
    message: "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
};

/// One thing to do about a ServiceCIDR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    AddFinalizer,
    Say(Ready),
    LookAgain(Duration),
    RemoveFinalizer,
}

/// What to do, in order. `all` are the ServiceCIDRs there are, this one among them; `addresses` those that were given out.
pub fn plan(
    own: &ServiceCIDR,
    all: &[impl AsRef<ServiceCIDR>],
    addresses: impl IntoIterator<Item = IpAddr>,
    now: Timestamp,
) -> Vec<Step> {
    let protected = own.metadata.finalizers.iter().any(|finalizer| finalizer == FINALIZER);
    let Some(deleted) = own.metadata.deletion_timestamp else {
        let finalizer = (!protected).then_some(Step::AddFinalizer);
        return finalizer.into_iter().chain(news(own, READY)).collect();
    };
    if !may_go(own, all, addresses) {
        return news(own, TERMINATING).into_iter().collect();
    }
    let passed = Duration::try_from(now.duration_since(deleted.0)).unwrap_or_default();
    match GRACE.checked_sub(passed).filter(|left| !left.is_zero()) {
        Some(left) => vec![Step::LookAgain(left)],
        None if protected => vec![Step::RemoveFinalizer],
        None => Vec::new(),
    }
}

/// The names of those that have an address.
pub fn having(all: &[impl AsRef<ServiceCIDR>], address: IpAddr) -> impl Iterator<Item = &str> {
    let have = move |cidr: &&ServiceCIDR| ranges(cidr).any(|range| has(range, address));
    all.iter().map(AsRef::as_ref).filter(have).map(|cidr| cidr.metadata.name.as_str())
}

fn news(own: &ServiceCIDR, wanted: Ready) -> Option<Step> {
    let Ready { status, reason, message } = wanted;
    let said = own.status.conditions.iter().find(|condition| condition.type_ == "Ready");
    let same = said.is_some_and(|c| (&*c.status, &*c.reason, &*c.message) == (status, reason, message));
    (!same).then_some(Step::Say(wanted))
}

/// Whether others have all ranges as well, or at least all addresses that were given out.
fn may_go(
    own: &ServiceCIDR,
    all: &[impl AsRef<ServiceCIDR>],
    addresses: impl IntoIterator<Item = IpAddr>,
) -> bool {
    let others = || all.iter().map(AsRef::as_ref).filter(|other| other.metadata.name != own.metadata.name);
    let covered = |range: IpNet| others().flat_map(ranges).any(|other| other.contains(&range));
    if ranges(own).all(covered) {
        return true;
    }
    let orphaned = |address: IpAddr| {
        ranges(own).any(|range| has(range, address))
            && !others().flat_map(ranges).any(|range| has(range, address))
    };
    !addresses.into_iter().any(orphaned)
}

fn ranges(cidr: &ServiceCIDR) -> impl Iterator<Item = IpNet> + '_ {
    // Validation has seen to it that they can be read.
    cidr.spec.cidrs.iter().filter_map(|text| text.parse().ok())
}

/// Whether the address may be given out from the range: IPv4's last one is none, and neither is the first.
fn has(range: IpNet, address: IpAddr) -> bool {
    range.contains(&address)
        && address != range.network()
        && !(address.is_ipv4() && address == range.broadcast())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portolan_api::Time;
    use portolan_api::meta::v1::Condition;

    use super::*;

    const NOW: i64 = 1_000_000;

    fn cidr(name: &str, ranges: &[&str]) -> ServiceCIDR {
        let mut cidr = ServiceCIDR::default();
        cidr.metadata.name = name.into();
        cidr.metadata.finalizers = vec!["other".into(), FINALIZER.into()];
        cidr.spec.cidrs = ranges.iter().map(|range| (*range).into()).collect();
        cidr
    }

    /// Deleted so many seconds ago.
    fn ending(name: &str, ranges: &[&str], ago: i64) -> ServiceCIDR {
        let mut cidr = cidr(name, ranges);
        cidr.metadata.deletion_timestamp = Some(Time::from_second(NOW - ago));
        cidr
    }

    fn says(mut cidr: ServiceCIDR, ready: Ready) -> ServiceCIDR {
        cidr.status.conditions = vec![Condition {
            type_: "Ready".into(),
            status: ready.status.into(),
            reason: ready.reason.into(),
            message: ready.message.into(),
            ..Condition::default()
        }];
        cidr
    }

    /// What is to be done about the first.
    fn steps(all: &[ServiceCIDR], addresses: &[&str]) -> Vec<Step> {
        let all: Vec<Arc<ServiceCIDR>> = all.iter().cloned().map(Arc::new).collect();
        let addresses = addresses.iter().map(|address| address.parse().unwrap());
        plan(&all[0], &all, addresses, Timestamp::from_second(NOW).unwrap())
    }

    #[test]
    fn a_new_range_is_protected_and_then_ready() {
        let mut new = cidr("a", &["10.0.0.0/24"]);
        new.metadata.finalizers.clear();
        assert_eq!(steps(&[new], &[]), [Step::AddFinalizer, Step::Say(READY)]);
        assert_eq!(steps(&[says(cidr("a", &["10.0.0.0/24"]), READY)], &["10.0.0.1"]), []);
        // What the API server said of the default one, and what was said of a range that came back.
        let words = Ready { message: "Kubernetes default Service CIDR is ready", ..READY };
        for other in [words, TERMINATING] {
            assert_eq!(steps(&[says(cidr("a", &["10.0.0.0/24"]), other)], &[]), [Step::Say(READY)]);
        }
    }

    #[test]
    fn a_range_stays_while_an_address_is_its_alone() {
        let own = || ending("a", &["10.0.0.0/24", "fd00::/112"], 60);
        for held in ["10.0.0.7", "fd00::7"] {
            assert_eq!(steps(&[own()], &["10.1.0.1", held]), [Step::Say(TERMINATING)]);
            assert_eq!(steps(&[says(own(), TERMINATING)], &[held]), []);
        }
        assert_eq!(steps(&[own()], &["10.1.0.1", "fd01::7"]), [Step::RemoveFinalizer]);
        // Nobody can have got these from it.
        assert_eq!(steps(&[own()], &["10.0.0.0", "10.0.0.255", "fd00::"]), [Step::RemoveFinalizer]);
        assert_eq!(steps(&[own()], &["fd00::ffff"]), [Step::Say(TERMINATING)]);
    }

    #[test]
    fn a_range_goes_when_others_have_its_addresses() {
        let own = ending("a", &["10.0.0.0/24"], 60);
        let held = ["10.0.0.7"];
        for (range, goes) in
            [("10.0.0.0/24", true), ("10.0.0.0/16", true), ("10.0.0.0/28", true), ("10.0.0.16/28", false)]
        {
            let expected = if goes { Step::RemoveFinalizer } else { Step::Say(TERMINATING) };
            assert_eq!(steps(&[own.clone(), cidr("b", &[range])], &held), [expected], "{range}");
        }
        // Both families have to be others' too, or the addresses of what is left.
        let both = ending("a", &["10.0.0.0/24", "fd00::/112"], 60);
        let others = [both, cidr("b", &["10.0.0.0/16"])];
        assert_eq!(steps(&others, &["10.0.0.7"]), [Step::RemoveFinalizer]);
        assert_eq!(steps(&others, &["10.0.0.7", "fd00::7"]), [Step::Say(TERMINATING)]);
    }

    #[test]
    fn a_range_stays_until_every_server_has_heard() {
        let at = |ago| steps(&[ending("a", &["10.0.0.0/24"], ago)], &[]);
        assert_eq!(at(0), [Step::LookAgain(Duration::from_secs(10))]);
        assert_eq!(at(9), [Step::LookAgain(Duration::from_secs(1))]);
        assert_eq!(at(10), [Step::RemoveFinalizer]);
        let mut let_go = ending("a", &["10.0.0.0/24"], 60);
        let_go.metadata.finalizers = vec!["other".into()];
        assert_eq!(steps(&[let_go], &[]), []);
    }

    #[test]
    fn an_address_is_looked_for_in_all_ranges() {
        let all = [
            cidr("a", &["10.0.0.0/24"]),
            cidr("b", &["fd00::/112", "10.0.0.0/16"]),
            cidr("c", &["10.1.0.0/24"]),
        ];
        let all = all.map(Arc::new);
        assert_eq!(having(&all, "10.0.0.7".parse().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(having(&all, "10.0.0.0".parse().unwrap()).count(), 0);
    }
}

//! The Lease that says that a node announces: how nodes find each other, and what counts where beats do not get through.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use portolan_api::coordination::v1::Lease;
use portolan_api::schema::Object as _;
use portolan_api::{MicroTime, coordination};
use portolan_client::{Client, DeleteOptions, Error, Key, paths};

pub(crate) const NAMESPACE: &str = "kube-system";
/// Finds the Leases of announcers among others.
pub(crate) const LABEL: &str = "portolan.dev/announcer";
pub(crate) const RENEW_EVERY: Duration = Duration::from_secs(4);
const DURATION: Duration = Duration::from_secs(15);

fn name(node: &str) -> String {
    format!("portolan-announcer-{node}")
}

/// Takes or renews the Lease of this node.
pub(crate) async fn renew(client: &Client, node: &str) -> Result<(), Error> {
    let name = name(node);
    let space = Some(NAMESPACE);
    let found = match client.get::<Lease>(&paths::LEASES, space, &name).await {
        Ok(lease) => Some(lease),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    let mut lease = found.clone().unwrap_or_else(|| Lease::named(NAMESPACE, &name));
    lease.metadata.labels.insert(LABEL.into(), "true".into());
    lease.spec = coordination::v1::LeaseSpec {
        holder_identity: Some(node.to_owned()),
        lease_duration_seconds: Some(DURATION.as_secs() as i32),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..lease.spec
    };
    match found {
        Some(_) => client.update(&paths::LEASES, space, &name, &lease).await.map(drop),
        None => client.create(&paths::LEASES, space, &lease).await.map(drop),
    }
}

/// This node announces no more.
pub(crate) async fn give_up(client: &Client, node: &str) -> Result<(), Error> {
    client.delete(&paths::LEASES, Some(NAMESPACE), &name(node), &DeleteOptions::default()).await
}

/// Which Leases are being renewed, by this node's own clock: clocks of others do not matter.
#[derive(Debug, Default)]
pub(crate) struct Freshness {
    seen: HashMap<Key, (String, Instant)>,
}

impl Freshness {
    pub(crate) fn look<'a>(
        &mut self,
        leases: impl Iterator<Item = (&'a Key, &'a Lease)>,
        now: Instant,
    ) -> BTreeMap<Arc<str>, bool> {
        let mut fresh = BTreeMap::new();
        let mut seen = HashMap::new();
        for (key, lease) in leases {
            let Some(holder) = &lease.spec.holder_identity else { continue };
            let sign = lease.spec.renew_time.as_ref().map(ToString::to_string).unwrap_or_default();
            let at = self.seen.get(key).filter(|(known, _)| *known == sign).map_or(now, |(_, at)| *at);
            fresh.insert(Arc::from(holder.as_str()), now.saturating_duration_since(at) < DURATION);
            seen.insert(key.clone(), (sign, at));
        }
        self.seen = seen;
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_fresh_while_it_changes() {
        let lease = |second: i64| {
            let mut lease = Lease::named(NAMESPACE, "a");
            lease.spec.holder_identity = Some("node-1".into());
            lease.spec.renew_time = Some(MicroTime(Timestamp::from_second(second).unwrap()));
            lease
        };
        let key = Key::new(NAMESPACE, "a");
        let mut freshness = Freshness::default();
        let begin = Instant::now();
        let mut look = |lease: &Lease, seconds: u64| {
            let now = begin + Duration::from_secs(seconds);
            freshness.look([(&key, lease)].into_iter(), now)["node-1"]
        };
        assert!(look(&lease(1), 0));
        assert!(look(&lease(1), 14));
        assert!(!look(&lease(1), 15));
        assert!(look(&lease(2), 16));
    }
}

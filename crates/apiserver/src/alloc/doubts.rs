//! Addresses to look at now, not only when repair comes round: their IPAddress was made, changed or taken away by somebody
//! else. A Service would be left with an address that the next one may be given, or an address with nobody.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portolan_api::service::families::Family;
use portolan_store::Event;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::objects;
use super::repair::Owner;
use crate::limits::ADDRESS_DOUBTS_MAX;

/// An address that its owner, if it is still there, may need an IPAddress for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Doubt {
    pub(super) address: IpAddr,
    pub(super) owner: Option<Owner>,
}

/// Those there are.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    held: Mutex<Held>,
    raised: Notify,
}

#[derive(Debug, Default)]
struct Held {
    now: HashSet<Doubt>,
    /// Too early to say anything about.
    later: Vec<(Instant, Doubt)>,
}

impl Doubts {
    /// The IPAddress has come, gone or changed, as the event says.
    pub(super) fn raise(&self, address: IpAddr, event: &Event) {
        let before = event.previous.as_ref().map(|previous| &previous.value[..]);
        let Some(doubt) = doubt(address, before, event.value.as_deref()) else { return };
        let mut held = self.held();
        if held.now.len() < ADDRESS_DOUBTS_MAX {
            held.now.insert(doubt);
            self.raised.notify_one();
        }
    }

    /// The address is to be looked at once more, when it is time.
    pub(super) fn again(&self, doubt: Doubt, after: Duration) {
        let mut held = self.held();
        if held.later.len() < ADDRESS_DOUBTS_MAX {
            held.later.push((Instant::now() + after, doubt));
            self.raised.notify_one();
        }
    }

    /// Waits until there are any to look at.
    pub(crate) async fn raised(&self) {
        loop {
            let next = {
                let mut held = self.held();
                let now = Instant::now();
                let (due, later) = held.later.drain(..).partition(|(at, _)| *at <= now);
                held.later = later;
                let due: Vec<(Instant, Doubt)> = due;
                held.now.extend(due.into_iter().map(|(_, doubt)| doubt));
                if !held.now.is_empty() {
                    return;
                }
                held.later.iter().map(|(at, _)| *at).min()
            };
            match next {
                None => self.raised.notified().await,
                Some(at) => tokio::select! {
                    () = self.raised.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
            }
        }
    }

    pub(super) fn take(&self) -> HashSet<Doubt> {
        std::mem::take(&mut self.held().now)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Every change is whole before anything can fail.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the allocators write is beyond doubt: it comes with its Service, in one transaction, and no client has ever
/// written it.
fn doubt(address: IpAddr, before: Option<&[u8]>, now: Option<&[u8]>) -> Option<Doubt> {
    let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    if now.is_some_and(|now| is_ours(&read(now), address)) {
        return None;
    }
    let owner = Owner::of_address(&read(before.or(now)?));
    // Gone, and nobody's before: nobody misses it.
    (now.is_some() || owner.is_some()).then_some(Doubt { address, owner })
}

fn is_ours(object: &Value, address: IpAddr) -> bool {
    let labels = &object["metadata"]["labels"];
    objects::parent_service(object).is_some()
        && object["metadata"]["managedFields"].is_null()
        && labels[objects::LABEL_MANAGED_BY] == objects::MANAGER
        && labels[objects::LABEL_FAMILY] == Family::of(address).as_str()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_did_to_an_address_is_doubted() {
        let address: IpAddr = "10.0.0.7".parse().unwrap();
        let sound = objects::ip_address(address, "default", "web", Timestamp::UNIX_EPOCH);
        let mut bare = sound.clone();
        bare["metadata"]["labels"] = Value::Null;
        let mut gateway = sound.clone();
        gateway["spec"]["parentRef"]["resource"] = "gateways".into();
        let web = Some(Owner { namespace: "default".into(), name: "web".into() });
        let doubted = |before: Option<&Value>, now: Option<&Value>| {
            let bytes = |value: Option<&Value>| value.map(|value| value.to_string().into_bytes());
            doubt(address, bytes(before).as_deref(), bytes(now).as_deref()).map(|doubt| doubt.owner)
        };
        assert_eq!(doubted(None, Some(&sound)), None);
        assert_eq!(doubted(Some(&bare), Some(&sound)), None);
        assert_eq!(doubted(Some(&sound), None), Some(web.clone()));
        assert_eq!(doubted(Some(&sound), Some(&bare)), Some(web.clone()));
        assert_eq!(doubted(None, Some(&gateway)), Some(None));
        let mut written = sound.clone();
        written["metadata"]["managedFields"] = json!([{"manager": "kubectl"}]);
        assert_eq!(doubted(None, Some(&written)), Some(web.clone()));
        assert_eq!(doubted(Some(&gateway), None), None);
    }
}

//! Addresses to look at now, not only when repair comes round: their IPAddress was taken away or changed by somebody
//! else, which leaves a Service with an address that the next one may be given.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use portolan_api::service::families::Family;
use portolan_store::Event;
use serde_json::Value;
use tokio::sync::Notify;

use super::objects;
use super::repair::Owner;

/// Doubts held at once. What is not held is found by the next run over everything.
const DOUBTS_MAX: usize = 1024;

/// An address that its owner, if it is still there, may need an IPAddress for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Doubt {
    pub(super) address: IpAddr,
    pub(super) owner: Option<Owner>,
}

/// Those there are now.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    held: Mutex<HashSet<Doubt>>,
    raised: Notify,
}

impl Doubts {
    /// The IPAddress has come, gone or changed, as the event says.
    pub(super) fn raise(&self, address: IpAddr, event: &Event) {
        let before = event.previous.as_ref().map(|previous| &previous.value[..]);
        let Some(doubt) = doubt(address, before, event.value.as_deref()) else { return };
        let mut held = self.held();
        if held.len() < DOUBTS_MAX {
            held.insert(doubt);
            self.raised.notify_one();
        }
    }

    /// Waits until there are any.
    pub(crate) async fn raised(&self) {
        while self.held().is_empty() {
            self.raised.notified().await;
        }
    }

    pub(super) fn take(&self) -> HashSet<Doubt> {
        std::mem::take(&mut *self.held())
    }

    fn held(&self) -> MutexGuard<'_, HashSet<Doubt>> {
        // Every change is a single insert or take.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the allocators write is beyond doubt: it comes with its Service, in one transaction.
fn doubt(address: IpAddr, before: Option<&[u8]>, now: Option<&[u8]>) -> Option<Doubt> {
    let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    if now.is_some_and(|now| is_sound(&read(now), address)) {
        return None;
    }
    let owner = Owner::of_address(&read(before.or(now)?));
    // Gone, and nobody's before: nobody misses it.
    (now.is_some() || owner.is_some()).then_some(Doubt { address, owner })
}

fn is_sound(object: &Value, address: IpAddr) -> bool {
    let labels = &object["metadata"]["labels"];
    objects::parent_service(object).is_some()
        && labels[objects::LABEL_MANAGED_BY] == objects::MANAGER
        && labels[objects::LABEL_FAMILY] == Family::of(address).as_str()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

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
        assert_eq!(doubted(Some(&sound), Some(&bare)), Some(web));
        assert_eq!(doubted(None, Some(&gateway)), Some(None));
        assert_eq!(doubted(Some(&gateway), None), None);
    }
}

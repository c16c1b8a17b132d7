//! Events live for an hour after they were last seen: one task takes out those that are over.
//!
//! Every server of a cluster may run it: a deletion is conditional on the event being as it was read.

use std::sync::Weak;

use portolan_api::resource::EVENTS;
use portolan_api::{MicroTime, Time};
use portolan_store::Txn;
use serde_json::Value;

use crate::errors::Result;
use crate::limits::{EVENT_SWEEP_INTERVAL, EVENT_TTL};
use crate::object;
use crate::server::ApiServer;

/// Sweeps until the server goes.
pub(crate) async fn run(server: Weak<ApiServer>) {
    loop {
        let Some(strong) = server.upgrade() else { return };
        let mut stopped = strong.stopped();
        if let Err(error) = sweep(&strong, Time::now()).await {
            tracing::warn!(error = %error.0.message, "events cannot be swept; trying again");
        }
        drop(strong);
        tokio::select! {
            () = tokio::time::sleep(EVENT_SWEEP_INTERVAL) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}

async fn sweep(server: &ApiServer, now: Time) -> Result<()> {
    for kv in server.store().list(&EVENTS.key_prefix(None), None, 0, None).await?.items {
        if object::to_value(&kv).is_ok_and(|event| is_over(&event, now)) {
            let txn = Txn::new().if_revision(kv.key.clone(), kv.mod_revision).delete(kv.key);
            server.store().commit(txn).await?;
        }
    }
    Ok(())
}

/// Whether an event was last seen so long ago that it goes. One without any time stays: nobody knows.
fn is_over(event: &Value, now: Time) -> bool {
    let seconds = |value: &Value| -> Option<i64> {
        let text = value.as_str()?;
        let time = text.parse::<Time>().map(Time::as_second);
        time.or_else(|_| text.parse::<MicroTime>().map(|at| at.0.as_second())).ok()
    };
    let times = [
        &event["metadata"]["creationTimestamp"],
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["series"]["lastObservedTime"],
    ];
    let last = times.into_iter().filter_map(seconds).max();
    let ttl = i64::try_from(EVENT_TTL.as_secs()).unwrap_or(i64::MAX);
    last.is_some_and(|last| now.as_second() - last > ttl)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_lives_an_hour_after_it_was_last_seen() {
        let at = |text: &str| text.parse::<Time>().unwrap();
        let once = json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "lastTimestamp": "2026-01-01T00:00:00Z"});
        assert!(!is_over(&once, at("2026-01-01T01:00:00Z")));
        assert!(is_over(&once, at("2026-01-01T01:00:01Z")));
        let mut again = once.clone();
        again["series"]["lastObservedTime"] = "2026-01-01T00:30:00.000005Z".into();
        assert!(!is_over(&again, at("2026-01-01T01:00:01Z")));
        assert!(is_over(&again, at("2026-01-01T01:30:01Z")));
        assert!(!is_over(&json!({"metadata": {}}), at("2026-01-01T01:30:01Z")));
    }
}

//! The task of one probe: it sleeps until the next question, asks, and tells what turned. A task costs a few hundred
//! bytes and no thread.

use std::time::Instant;

use tokio::sync::mpsc;

use super::check::Check;
use super::state::{Outcome, ProbeKind, ProbeState, Settings, Verdict};
use crate::process::Spawner;

/// How often a question that could not be put is tried again at once.
const ERRORS_MAX: usize = 3;

/// News of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) kind: ProbeKind,
    /// The new verdict, if it turned.
    pub(crate) turned: Option<Verdict>,
    /// What there is to say about the last answer, for an event: reason and message.
    pub(crate) complaint: Option<(&'static str, String)>,
}

/// Asks again and again, until the probe is decided or the task is aborted. `wrap` makes of a report what `out` carries.
pub(crate) async fn start<E: Send>(
    (kind, settings): (ProbeKind, Settings),
    check: Check,
    container_started: Instant,
    spawner: Spawner,
    out: mpsc::Sender<E>,
    wrap: impl Fn(Report) -> E,
) {
    let mut state = ProbeState::new(kind, settings, container_started, Instant::now());
    while let Some(at) = state.next() {
        tokio::time::sleep_until(at.into()).await;
        let outcome = ask(&check, settings, &spawner).await;
        let change = state.record(&outcome, Instant::now());
        let complaint = match outcome {
            Outcome::Failure(text) if change.counted => {
                Some(("Unhealthy", format!("{} probe failed: {text}", kind.title())))
            }
            Outcome::Error(text) if change.counted => {
                Some(("Unhealthy", format!("{} probe errored: {text}", kind.title())))
            }
            Outcome::Warned(text) => {
                Some(("ProbeWarning", format!("{} probe warning: {text}", kind.title())))
            }
            _ => None,
        };
        if change.turned.is_none() && complaint.is_none() {
            continue;
        }
        if out.send(wrap(Report { kind, turned: change.turned, complaint })).await.is_err() {
            return;
        }
    }
}

async fn ask(check: &Check, settings: Settings, spawner: &Spawner) -> Outcome {
    let mut outcome = check.ask(settings.timeout, spawner).await;
    for _ in 1..ERRORS_MAX {
        if !matches!(outcome, Outcome::Error(_)) {
            break;
        }
        outcome = check.ask(settings.timeout, spawner).await;
    }
    outcome
}

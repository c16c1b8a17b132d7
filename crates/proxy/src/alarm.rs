//! Hears when somebody else changes our rules, where the kernel tells.

use std::io;

use portolan_netlink::nft::{Intruder, Monitor, Pause};
use tokio::io::unix::AsyncFd;

/// What rings. It is set up after the first sync: telling a listener of a whole ruleset would only slow that down.
pub(crate) enum Alarm {
    /// Nothing to hear by: this data plane has none, or it could not be set up.
    Silent,
    /// Not set up yet.
    Off(Monitor),
    On(AsyncFd<Monitor>),
}

impl Alarm {
    /// Begins to listen, in the runtime that calls. Later calls do nothing.
    pub(crate) fn set(&mut self) {
        if !matches!(self, Self::Off(_)) {
            return;
        }
        let Self::Off(monitor) = std::mem::replace(self, Self::Silent) else { return };
        #[expect(
            deprecated,
            reason = "its successor is unsafe code: a descriptor might change; ours never does"
        )]
        let registered = monitor.listen().and_then(|()| AsyncFd::new(monitor));
        match registered {
            Ok(monitor) => *self = Self::On(monitor),
            Err(error) => {
                tracing::warn!(%error, "cannot listen for others' changes of our rules; they are found by looking");
            }
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        matches!(self, Self::On(_))
    }

    /// Does not listen to a large write of our own: telling a listener would take the kernel as long as the write.
    pub(crate) fn pause(&mut self) -> Option<Pause> {
        let Self::On(monitor) = self else { return None };
        match monitor.get_mut().pause() {
            Ok(pause) => Some(pause),
            Err(error) => {
                tracing::debug!(%error, "the listener hears the write too");
                None
            }
        }
    }

    /// Listens again after so many transactions of our own; tells if somebody else has written meanwhile.
    pub(crate) fn resume(&mut self, pause: &Pause, own: u64) -> Option<Intruder> {
        let Self::On(monitor) = self else { return None };
        monitor.get_mut().resume(pause, own).unwrap_or_else(|error| {
            self.give_up(&error);
            Some(Intruder::default())
        })
    }

    fn give_up(&mut self, error: &io::Error) {
        tracing::warn!(%error, "cannot listen for others' changes of our rules any more; they are found by looking");
        *self = Self::Silent;
    }

    /// Waits until somebody else changed our rules.
    pub(crate) async fn rings(&mut self) -> Intruder {
        if let Self::On(monitor) = self {
            match heard(monitor).await {
                Ok(intruder) => return intruder,
                Err(error) => {
                    self.give_up(&error);
                    // What was missed meanwhile is found by a look.
                    return Intruder::default();
                }
            }
        }
        std::future::pending().await
    }
}

async fn heard(monitor: &mut AsyncFd<Monitor>) -> io::Result<Intruder> {
    loop {
        let mut ready = monitor.readable_mut().await?;
        let heard = ready.get_inner_mut().heard()?;
        // Everything was read: the descriptor is quiet until the next message.
        ready.clear_ready();
        if let Some(intruder) = heard {
            return Ok(intruder);
        }
    }
}

//! A stream of events and both of its ends.
//!
//! The sending side never waits: a watcher with too many events waiting is cut off instead.

use std::iter::Peekable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc;

use crate::limits::WATCH_EVENTS_MAX;
use crate::{Error, Event, Revision};

/// Shared by the two ends.
#[derive(Debug)]
struct Shared {
    pending: AtomicUsize,
    cut: AtomicBool,
    /// Everything up to this revision has been sent. One counter serves all watches of a store.
    progress: Arc<AtomicU64>,
    /// Where the watch started: what it has returned everything up to, whatever the counter says.
    start: Revision,
}

/// Past events, some at a time and never none. What a store keeps packed is opened as the watcher gets there.
pub(crate) type Replay = Box<dyn Iterator<Item = Arc<[Event]>> + Send + Sync>;

/// What travels between the ends.
enum Message {
    /// Counts against the watcher's bound.
    Live(Arc<[Event]>),
    /// The history a watch starts with. The ring bounds it, so it does not count.
    Replay(Replay),
    Failed(Error),
}

/// What events go through before they are returned.
pub type Through = Arc<dyn Fn(&Arc<[Event]>) -> Result<Arc<[Event]>, Error> + Send + Sync>;

/// The receiving end. Dropping it ends the watch.
pub struct Watch {
    events: mpsc::UnboundedReceiver<Message>,
    shared: Arc<Shared>,
    /// What is left of the history, which comes before everything else that is sent.
    replay: Option<Peekable<Replay>>,
    ended: bool,
    through: Option<Through>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("shared", &self.shared)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// The sending end, held by a store.
#[derive(Debug)]
pub struct WatchSender {
    events: mpsc::UnboundedSender<Message>,
    shared: Arc<Shared>,
}

impl Watch {
    /// A connected pair. `progress` is advanced by the store after it has sent everything up to its value.
    pub fn channel(progress: Arc<AtomicU64>) -> (WatchSender, Watch) {
        Watch::channel_from(progress, 0)
    }

    /// The same for a watch after `start`, which the counter may not have reached yet.
    pub fn channel_from(progress: Arc<AtomicU64>, start: Revision) -> (WatchSender, Watch) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let shared =
            Arc::new(Shared { pending: AtomicUsize::new(0), cut: AtomicBool::new(false), progress, start });
        let watch =
            Watch { events: receiver, shared: shared.clone(), replay: None, ended: false, through: None };
        (WatchSender { events: sender, shared }, watch)
    }

    /// The same watch, of events that went through `change`, after what they go through already.
    #[must_use]
    pub fn through(self, change: Through) -> Watch {
        let both: Through = match self.through.clone() {
            Some(before) => Arc::new(move |events| change(&before(events)?)),
            None => change,
        };
        Watch { through: Some(both), ..self }
    }

    /// The next events, in order of revision and never empty. `None` after an error or when the store closes.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Arc<[Event]>, Error>> {
        let next = self.receive().await?;
        let next = next.and_then(|events| match &self.through {
            Some(change) => change(&events),
            None => Ok(events),
        });
        self.ended |= next.is_err();
        Some(next)
    }

    async fn receive(&mut self) -> Option<Result<Arc<[Event]>, Error>> {
        if self.ended {
            return None;
        }
        if !self.is_cut()
            && let Some(events) = self.replayed()
        {
            return Some(Ok(events));
        }
        let next = self.events.recv().await;
        // A cut watch fails at once: what still waits for it is released, not replayed to a slow reader.
        if self.is_cut() {
            (self.ended, self.replay) = (true, None);
            let pending = self.shared.pending.load(Ordering::Relaxed);
            self.events.close();
            while self.events.try_recv().is_ok() {}
            return Some(Err(Error::SlowWatcher { pending }));
        }
        match next {
            Some(Message::Live(events)) => {
                self.shared.pending.fetch_sub(events.len(), Ordering::AcqRel);
                Some(Ok(events))
            }
            Some(Message::Replay(replay)) => {
                self.replay = Some(replay.peekable());
                match self.replayed() {
                    Some(events) => Some(Ok(events)),
                    None => Box::pin(self.receive()).await,
                }
            }
            Some(Message::Failed(error)) => {
                self.ended = true;
                Some(Err(error))
            }
            None => {
                self.ended = true;
                None
            }
        }
    }

    fn is_cut(&self) -> bool {
        self.shared.cut.load(Ordering::Acquire)
    }

    fn replayed(&mut self) -> Option<Arc<[Event]>> {
        let replay = self.replay.as_mut()?;
        let events = replay.next();
        // At once, not at the next call: `progress` must not wait for that.
        if replay.peek().is_none() {
            self.replay = None;
        }
        events
    }

    /// A revision up to which [`next`](Watch::next) has returned everything, or `None` while events wait.
    /// It is what a bookmark may carry.
    pub fn progress(&self) -> Option<Revision> {
        // The sender queues first and advances the counter second, so the order here must be the reverse.
        let revision = self.shared.progress.load(Ordering::Acquire).max(self.shared.start);
        (self.events.is_empty() && self.replay.is_none()).then_some(revision)
    }
}

impl WatchSender {
    /// Queue events. `false`: the watcher has gone or has just been cut off, forget this sender.
    pub fn send(&self, events: Arc<[Event]>) -> bool {
        if events.is_empty() {
            return !self.events.is_closed();
        }
        let count = events.len();
        if self.shared.pending.fetch_add(count, Ordering::AcqRel) + count > WATCH_EVENTS_MAX {
            self.shared.cut.store(true, Ordering::Release);
            return false;
        }
        self.events.send(Message::Live(events)).is_ok()
    }

    /// Queue the history that a watch starts with.
    pub fn replay(&self, events: Arc<[Event]>) {
        if !events.is_empty() {
            self.replay_with(Box::new(std::iter::once(events)));
        }
    }

    /// The same of events that are yet to be opened.
    pub(crate) fn replay_with(&self, replay: Replay) {
        // It fails when the receiver has gone; the next send says so.
        let _ = self.events.send(Message::Replay(replay));
    }

    /// Ends when the watcher has gone.
    pub async fn closed(&self) {
        self.events.closed().await;
    }

    /// End the watch with an error.
    pub fn fail(self, error: Error) {
        let _ = self.events.send(Message::Failed(error));
    }
}

//! A queue of keys to bring in order: each at most once, never one key in two hands, failures later.
//!
//! [`Queue`] is the shared handle; [`Queue::work`] is a worker of a controller. Wake-ups carry no data: a
//! key says which object to look at, the worker reads the newest snapshot. The state machine ([`State`]) takes `now`
//! as an argument and does no I/O.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long a key that failed waits: doubled with each failure in a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        // The first retry is quick: the usual failure is a write that lost a race against another writer.
        Self { first: Duration::from_millis(5), max: Duration::from_mins(1) }
    }
}

impl Backoff {
    pub(crate) fn after(self, failures: u32) -> Duration {
        let factor = 1u32 << failures.saturating_sub(1).min(20);
        self.first.saturating_mul(factor).min(self.max)
    }
}

/// A key whose work takes so long and which changes all the while rests as long as it worked: its changes gather, and
/// half of the time is left to others. The Services of a few pods are far below this.
const REST_FROM: Duration = Duration::from_millis(5);

/// Keys for which an empty queue keeps room: the first sync of a large cluster, or a burst, queues all of them once.
const IDLE_KEYS: usize = 256;

/// How one key's work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// Try again after the key's backoff.
    Failed,
    /// Look again at this moment even if nothing changes until then.
    Again(Duration),
}

/// The pure part: which keys are ready, which wait for a moment, which are being worked on.
#[derive(Debug)]
struct State<K> {
    ready: VecDeque<K>,
    queued: HashSet<K>,
    /// Keys in somebody's hands; `true` when they became dirty meanwhile.
    working: HashMap<K, bool>,
    waiting: BTreeMap<(Instant, u64), K>,
    waiting_at: HashMap<K, (Instant, u64)>,
    /// Keys that wait for a moment and for nothing before it, see [`REST_FROM`].
    resting: HashSet<K>,
    failures: HashMap<K, u32>,
    sequence: u64,
    backoff: Backoff,
}

impl<K: Clone + Eq + Hash> State<K> {
    fn new(backoff: Backoff) -> Self {
        Self {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            working: HashMap::new(),
            waiting: BTreeMap::new(),
            waiting_at: HashMap::new(),
            resting: HashSet::new(),
            failures: HashMap::new(),
            sequence: 0,
            backoff,
        }
    }

    fn add(&mut self, key: K) {
        if let Some(dirty) = self.working.get_mut(&key) {
            *dirty = true;
            return;
        }
        if self.resting.contains(&key) {
            return;
        }
        if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: K, at: Instant) {
        if let Some(earlier) = self.waiting_at.get(&key) {
            if earlier.0 <= at {
                return;
            }
            self.waiting.remove(earlier);
        }
        self.sequence += 1;
        self.waiting.insert((at, self.sequence), key.clone());
        self.waiting_at.insert(key, (at, self.sequence));
    }

    fn take(&mut self, now: Instant) -> Option<K> {
        while let Some((&at, _)) = self.waiting.first_key_value() {
            if at.0 > now {
                break;
            }
            if let Some((_, key)) = self.waiting.pop_first() {
                self.waiting_at.remove(&key);
                self.resting.remove(&key);
                self.add(key);
            }
        }
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        if self.ready.is_empty() && self.ready.capacity() > IDLE_KEYS {
            self.ready.shrink_to(IDLE_KEYS);
            self.queued.shrink_to(IDLE_KEYS);
        }
        self.working.insert(key.clone(), false);
        Some(key)
    }

    /// `took` is how long the work on the key took, up to `now`.
    fn finish(&mut self, key: K, outcome: Outcome, now: Instant, took: Duration) {
        let dirty = self.working.remove(&key).unwrap_or(false);
        if outcome == Outcome::Failed {
            let failures = self.failures.entry(key.clone()).or_default();
            *failures += 1;
            // A key that fails and changes at once still waits: a change must not defeat the backoff.
            let at = now + self.backoff.after(*failures);
            self.add_at(key, at);
            return;
        }
        self.failures.remove(&key);
        if let Outcome::Again(after) = outcome {
            self.add_at(key.clone(), now + after);
        }
        if dirty && took >= REST_FROM {
            self.add_at(key.clone(), now + took);
            self.resting.insert(key);
        } else if dirty {
            self.add(key);
        }
    }

    fn next_moment(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }
}

/// A shared queue. Clones are handles to the same queue.
#[derive(Debug)]
pub(crate) struct Queue<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

#[derive(Debug)]
struct Shared<K> {
    state: Mutex<State<K>>,
    notify: Notify,
}

impl<K: Clone + Eq + Hash + Debug + Send + 'static> Queue<K> {
    pub(crate) fn new(backoff: Backoff) -> Self {
        let shared = Shared { state: Mutex::new(State::new(backoff)), notify: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, key: K) {
        self.state().add(key);
        self.shared.notify.notify_one();
    }

    pub(crate) fn extend(&self, keys: impl IntoIterator<Item = K>) {
        let mut state = self.state();
        let before = state.ready.len();
        keys.into_iter().for_each(|key| state.add(key));
        let grown = state.ready.len() > before;
        drop(state);
        if grown {
            self.shared.notify.notify_one();
        }
    }

    async fn next(&self) -> K {
        loop {
            let notified = self.shared.notify.notified();
            let moment = {
                let mut state = self.state();
                if let Some(key) = state.take(Instant::now()) {
                    let more = !state.ready.is_empty();
                    drop(state);
                    if more {
                        // One wake-up may stand for many keys: pass it on to the next worker.
                        self.shared.notify.notify_one();
                    }
                    return key;
                }
                state.next_moment()
            };
            match moment {
                None => notified.await,
                Some(at) => tokio::select! {
                    () = notified => {}
                    () = tokio::time::sleep_until(at.into()) => {}
                },
            }
        }
    }

    /// One worker: runs over the queue until dropped. Several may run at once.
    pub(crate) async fn work<R: Future<Output = Outcome>>(&self, sync: impl Fn(K) -> R) {
        loop {
            let key = self.next().await;
            let begin = Instant::now();
            let outcome = sync(key.clone()).await;
            let now = Instant::now();
            self.state().finish(key, outcome, now, now - begin);
            self.shared.notify.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State<u32> {
        State::new(Backoff { first: Duration::from_secs(1), max: Duration::from_secs(5) })
    }

    #[test]
    fn a_key_is_queued_once_and_never_in_two_hands() {
        let (mut state, now) = (state(), Instant::now());
        state.add(1);
        state.add(1);
        assert_eq!(state.take(now), Some(1));
        state.add(1);
        assert_eq!(state.take(now), None, "still in hand");
        state.finish(1, Outcome::Done, now, Duration::ZERO);
        assert_eq!(state.take(now), Some(1), "became dirty meanwhile");
        state.finish(1, Outcome::Done, now, Duration::ZERO);
        assert_eq!(state.take(now), None);
    }

    #[test]
    fn a_burst_that_is_over_holds_no_room() {
        let (mut state, now) = (state(), Instant::now());
        (0..10_000).for_each(|key| state.add(key));
        while let Some(key) = state.take(now) {
            state.finish(key, Outcome::Done, now, Duration::ZERO);
        }
        let room = [state.ready.capacity(), state.queued.capacity()];
        assert!(room.iter().all(|room| *room <= 2 * IDLE_KEYS), "{room:?}");
    }

    #[test]
    fn a_failed_key_waits_longer_each_time_and_recovers() {
        let (mut state, mut now) = (state(), Instant::now());
        state.add(1);
        for wait in [1, 2, 4, 5, 5] {
            assert_eq!(state.take(now), Some(1));
            state.finish(1, Outcome::Failed, now, Duration::ZERO);
            assert_eq!(state.take(now), None);
            now += Duration::from_secs(wait);
        }
        assert_eq!(state.take(now), Some(1));
        state.finish(1, Outcome::Done, now, Duration::ZERO);
        assert_eq!(state.next_moment(), None);
    }

    #[test]
    fn a_change_while_failing_is_kept_but_waits() {
        let (mut state, now) = (state(), Instant::now());
        state.add(1);
        state.take(now);
        state.add(1);
        state.finish(1, Outcome::Failed, now, Duration::ZERO);
        assert_eq!(state.take(now), None);
        assert_eq!(state.take(now + Duration::from_secs(1)), Some(1));
    }

    #[test]
    fn long_work_that_is_overtaken_rests_as_long_as_it_took() {
        let (mut state, now, took) = (state(), Instant::now(), Duration::from_millis(50));
        state.add(1);
        state.take(now);
        state.add(1);
        state.finish(1, Outcome::Done, now, took);
        state.add(1);
        assert_eq!(state.take(now), None);
        assert_eq!(state.take(now + took), Some(1));
        // Nothing came meanwhile: the next change is taken up at once.
        state.finish(1, Outcome::Done, now, took);
        state.add(1);
        assert_eq!(state.take(now + took), Some(1));
    }

    #[test]
    fn the_earlier_moment_wins() {
        let (mut state, now) = (state(), Instant::now());
        state.add_at(1, now + Duration::from_secs(9));
        state.add_at(1, now + Duration::from_secs(2));
        state.add_at(1, now + Duration::from_secs(5));
        assert_eq!(state.take(now + Duration::from_secs(2)), Some(1));
        state.finish(1, Outcome::Done, now, Duration::ZERO);
        assert_eq!(state.take(now + Duration::from_secs(99)), None);
    }

    #[tokio::test]
    async fn several_workers_share_the_keys() {
        let queue: Queue<u32> = Queue::new(Backoff::default());
        queue.extend(0..4);
        let gate = tokio::sync::Barrier::new(4);
        let done = tokio::sync::Semaphore::new(0);
        // Each key waits for three others in work: one worker alone would never get through.
        let worker = || {
            queue.work(|_| async {
                gate.wait().await;
                done.add_permits(1);
                Outcome::Done
            })
        };
        tokio::select! {
            _ = futures_util::future::join_all([worker(), worker(), worker(), worker()]) => {}
            _ = done.acquire_many(4) => {}
        }
        assert_eq!(done.available_permits(), 4);
    }
}

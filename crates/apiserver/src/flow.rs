//! Fairness between clients: how many requests are worked on at once, and whose turn is next.
//!
//! Every request but those that last (watches, sessions, logs that are followed) and those for health holds a *seat*. A
//! *flow* is what one user asks. As long as seats are free, whoever asks gets one; no flow gets all of them. When none is
//! free, requests wait in their flow's own queue, and each seat that becomes free goes to the next flow in turn, not to
//! the next request: however long one flow's queue is, another's first request is at most as many turns away as there
//! are flows. What does not fit into a queue, or waits too long, is refused with 429.
//!
//! The idea is that of Kubernetes' API priority and fairness, with one level and no configuration.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::flow_metrics::{FlowMetrics, Reason};
use crate::limits::{
    FLOW_QUEUE_MAX, FLOW_SEATS_MAX, FLOW_WAIT_MAX, REQUESTS_IN_FLIGHT_MAX, REQUESTS_WAITING_MAX,
};

/// How much there is of everything.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    seats: usize,
    seats_per_flow: usize,
    queue_per_flow: usize,
    waiting: usize,
    wait: Duration,
}

/// Who is at work and who waits.
#[derive(Debug)]
pub(crate) struct Flows {
    sizes: Sizes,
    state: Mutex<State>,
    metrics: FlowMetrics,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    waiting: usize,
    flows: HashMap<String, Flow>,
    /// Flows with somebody waiting, in the order of their turns.
    turns: VecDeque<String>,
    next_id: u64,
}

#[derive(Debug, Default)]
struct Flow {
    held: usize,
    queue: VecDeque<(u64, oneshot::Sender<Seat>)>,
}

/// Permission to be worked on. Dropping it passes it on.
#[derive(Debug)]
pub(crate) struct Seat {
    /// `None`: given back already.
    home: Option<(Arc<Flows>, String)>,
}

/// There is no room; to be tried again later.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Flows {
    /// Of the usual sizes.
    pub(crate) fn counted_by(metrics: FlowMetrics) -> Self {
        let sizes = Sizes {
            seats: REQUESTS_IN_FLIGHT_MAX,
            seats_per_flow: FLOW_SEATS_MAX,
            queue_per_flow: FLOW_QUEUE_MAX,
            waiting: REQUESTS_WAITING_MAX,
            wait: FLOW_WAIT_MAX,
        };
        Self { sizes, state: Mutex::default(), metrics }
    }

    /// Brings the gauges up to date.
    pub(crate) fn show(&self) {
        let (taken, waiting) = {
            let state = self.lock();
            (state.taken, state.waiting)
        };
        self.metrics.show(taken, waiting, self.sizes.seats);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic is done while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a seat.
    pub(crate) async fn enter(self: &Arc<Self>, flow: &str) -> Result<Seat, TooMany> {
        let asked = self.ask(flow).inspect_err(|TooMany| {
            self.metrics.rejected(Reason::QueueFull, Duration::ZERO);
        });
        let mut waiter = match asked? {
            Asked::Seat(seat) => {
                self.metrics.dispatched(Duration::ZERO);
                return Ok(seat);
            }
            Asked::Wait(waiter) => waiter,
        };
        if let Ok(Ok(seat)) = tokio::time::timeout(self.sizes.wait, &mut waiter.seat).await {
            self.metrics.dispatched(waiter.since.elapsed());
            return Ok(seat);
        }
        // It waited too long; leaving the queue is the waiter's end.
        waiter.reason = Reason::TimeOut;
        Err(TooMany)
    }

    fn ask(self: &Arc<Self>, name: &str) -> Result<Asked, TooMany> {
        let mut state = self.lock();
        let state = &mut *state;
        let flow = state.flows.entry(name.to_owned()).or_default();
        // Whoever waits could not have this seat either, or would have it.
        if flow.queue.is_empty() && state.taken < self.sizes.seats && flow.held < self.sizes.seats_per_flow {
            (state.taken, flow.held) = (state.taken + 1, flow.held + 1);
            return Ok(Asked::Seat(Seat { home: Some((self.clone(), name.to_owned())) }));
        }
        if flow.queue.len() >= self.sizes.queue_per_flow || state.waiting >= self.sizes.waiting {
            state.forget_if_idle(name);
            return Err(TooMany);
        }
        if flow.queue.is_empty() {
            state.turns.push_back(name.to_owned());
        }
        let (sender, seat) = oneshot::channel();
        state.next_id += 1;
        flow.queue.push_back((state.next_id, sender));
        state.waiting += 1;
        Ok(Asked::Wait(Waiter {
            flows: self.clone(),
            flow: name.to_owned(),
            id: state.next_id,
            seat,
            since: Instant::now(),
            reason: Reason::Cancelled,
        }))
    }

    fn release(self: &Arc<Self>, name: &str) {
        let mut state = self.lock();
        state.give_back(name);
        self.hand_out(&mut state);
        state.forget_if_idle(name);
    }

    /// Gives free seats to those whose turn it is.
    fn hand_out(self: &Arc<Self>, state: &mut State) {
        let mut passed_over = 0;
        while state.taken < self.sizes.seats && passed_over < state.turns.len() {
            let Some(name) = state.turns.pop_front() else { return };
            let Some(flow) = state.flows.get_mut(&name) else { continue };
            if flow.held >= self.sizes.seats_per_flow {
                passed_over += 1;
                state.turns.push_back(name);
                continue;
            }
            let Some((_, waiter)) = flow.queue.pop_front() else { continue };
            (state.taken, state.waiting, flow.held) = (state.taken + 1, state.waiting - 1, flow.held + 1);
            if !flow.queue.is_empty() {
                state.turns.push_back(name.clone());
            }
            passed_over = 0;
            if let Err(mut seat) = waiter.send(Seat { home: Some((self.clone(), name.clone())) }) {
                // Nobody waits any more. Not by dropping it: that would come here again.
                seat.home = None;
                state.give_back(&name);
            }
        }
    }
}

impl State {
    fn give_back(&mut self, name: &str) {
        self.taken -= 1;
        if let Some(flow) = self.flows.get_mut(name) {
            flow.held -= 1;
        }
    }

    fn forget_if_idle(&mut self, name: &str) {
        if self.flows.get(name).is_some_and(|flow| flow.held == 0 && flow.queue.is_empty()) {
            self.flows.remove(name);
            self.turns.retain(|turn| turn != name);
        }
    }
}

enum Asked {
    Seat(Seat),
    Wait(Waiter),
}

/// A place in a queue, given up when dropped.
struct Waiter {
    flows: Arc<Flows>,
    flow: String,
    id: u64,
    seat: oneshot::Receiver<Seat>,
    since: Instant,
    /// Why it ends, if it ends without a seat.
    reason: Reason,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut state = self.flows.lock();
        let Some(flow) = state.flows.get_mut(&self.flow) else { return };
        let before = flow.queue.len();
        flow.queue.retain(|(id, _)| *id != self.id);
        let (left, empty) = (before - flow.queue.len(), flow.queue.is_empty());
        state.waiting -= left;
        if left > 0 {
            self.flows.metrics.rejected(self.reason, self.since.elapsed());
        }
        if left > 0 && empty {
            state.turns.retain(|turn| *turn != self.flow);
        }
        state.forget_if_idle(&self.flow);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some((flows, name)) = self.home.take() {
            flows.release(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flows(seats: usize, seats_per_flow: usize) -> Arc<Flows> {
        let wait = Duration::from_mins(1);
        let sizes = Sizes { seats, seats_per_flow, queue_per_flow: 100, waiting: 150, wait };
        Arc::new(Flows { sizes, state: Mutex::default(), metrics: FlowMetrics::default() })
    }

    /// So many requests of a flow, each a task that gives back the seat it got.
    fn flood(flows: &Arc<Flows>, name: &str, requests: usize) -> Vec<tokio::task::JoinHandle<Option<Seat>>> {
        let one = |_| {
            let (flows, name) = (flows.clone(), name.to_owned());
            tokio::spawn(async move { flows.enter(&name).await.ok() })
        };
        (0..requests).map(one).collect()
    }

    async fn settle() {
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
    }

    async fn seats(tasks: Vec<tokio::task::JoinHandle<Option<Seat>>>) -> (Vec<Seat>, usize, usize) {
        let (mut seats, mut refused, mut waiting) = (Vec::new(), 0, 0);
        for task in tasks {
            if task.is_finished() {
                match task.await.unwrap() {
                    Some(seat) => seats.push(seat),
                    None => refused += 1,
                }
            } else {
                waiting += 1;
                drop(task);
            }
        }
        (seats, refused, waiting)
    }

    #[tokio::test]
    async fn a_flood_of_one_client_does_not_keep_another_waiting() {
        let flows = flows(8, 8);
        let tasks = flood(&flows, "flood", 1000);
        settle().await;
        let (mut held, refused, waiting) = seats(tasks).await;
        assert_eq!((held.len(), waiting, refused), (8, 100, 892), "what does not fit is refused");
        let other = flood(&flows, "other", 3);
        settle().await;
        assert!(other.iter().all(|task| !task.is_finished()), "nothing is free");
        // Each seat that the flood gives back goes to one of the two in turn: three for the other client are within six.
        let mut got = Vec::new();
        for given_back in 1..=6 {
            drop(held.pop());
            settle().await;
            got.push((given_back, other.iter().filter(|task| task.is_finished()).count()));
        }
        assert_eq!(got.last(), Some(&(6, 3)), "{got:?}");
        assert!(got[1].1 >= 1, "the first comes with the second seat at the latest: {got:?}");
    }

    #[tokio::test]
    async fn no_flow_takes_every_seat() {
        let flows = flows(8, 6);
        let tasks = flood(&flows, "flood", 20);
        settle().await;
        let (held, _, waiting) = seats(tasks).await;
        assert_eq!((held.len(), waiting), (6, 14));
        let _one = flows.enter("other").await.unwrap();
        let _two = flows.enter("third").await.unwrap();
        assert_eq!(flows.lock().taken, 8);
    }

    #[tokio::test]
    async fn who_goes_away_leaves_nothing_behind() {
        let flows = flows(1, 1);
        let held = flows.enter("a").await.unwrap();
        let waiting = flood(&flows, "b", 5);
        settle().await;
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
        settle().await;
        assert_eq!(flows.lock().waiting, 0);
        assert!(flows.lock().turns.is_empty());
        drop(held);
        let state = flows.lock();
        assert_eq!((state.taken, state.flows.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let flows = flows(1, 1);
        let _held = flows.enter("a").await.unwrap();
        assert_eq!(flows.enter("b").await.err(), Some(TooMany));
        assert_eq!(flows.lock().waiting, 0);
    }

    #[tokio::test]
    async fn all_flows_together_have_a_bound() {
        let flows = flows(1, 1);
        let _held = flows.enter("a").await.unwrap();
        let (one, two) = (flood(&flows, "b", 100), flood(&flows, "c", 100));
        settle().await;
        let refused = one.iter().chain(&two).filter(|task| task.is_finished()).count();
        assert_eq!((flows.lock().waiting, refused), (150, 50));
    }
}

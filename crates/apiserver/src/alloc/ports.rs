//! The node-port desk: one task that owns the bitmap. Requests that arrive while a write is under way are answered
//! together by the next write, so many creates share one compare-and-swap of the one key they all need. Other API
//! servers on the same store are met as conflicts: read again, decide again.
//!
//! A port is reserved before its Service is written, and given back if that fails, as in Kubernetes: a crash between
//! the two leaks a port, never gives one twice; repair frees leaked ones.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use portolan_store::{Commit, Compare, Error, KeyValue, Op, Revision, Store, Txn};
use tokio::sync::{mpsc, oneshot};

use super::bitmap::{self, Bitmap, PortError};
use super::mend;
use crate::alloc_metrics::Scope;

/// Requests answered by one write. The write is one small object whatever their number; the bound is for fairness.
const BATCH_MAX: usize = 1024;
/// Attempts of one batch against other writers of the bitmap.
const ATTEMPTS_MAX: usize = 32;

const STOPPED: &str = "the node port allocator has stopped";

/// One port asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// As the client wrote it, be it a port or not.
    This(i32),
    Any,
}

impl Want {
    pub(super) fn scope(self) -> Scope {
        match self {
            Self::This(_) => Scope::Static,
            Self::Any => Scope::Dynamic,
        }
    }
}

/// Why a request got nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The request's `wants[index]` could not be had.
    Port {
        index: usize,
        error: PortError,
    },
    Store(String),
}

type Granted = Result<HeldPorts, Refusal>;

/// Ports reserved for a Service that is not written yet. Dropping it gives them back.
#[derive(Debug)]
pub(super) struct HeldPorts {
    ports: Vec<u16>,
    // Weak: an answer under way must not keep the task alive.
    desk: mpsc::WeakUnboundedSender<Request>,
}

impl HeldPorts {
    pub(super) fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// The Service is written: the ports are its own now.
    pub(super) fn keep(mut self) {
        self.ports.clear();
    }
}

impl Drop for HeldPorts {
    fn drop(&mut self) {
        let ports = std::mem::take(&mut self.ports);
        if let Some(desk) = self.desk.upgrade().filter(|_| !ports.is_empty()) {
            _ = desk.send(Request::Release(ports));
        }
    }
}

#[derive(Debug)]
struct Reservation {
    wants: Vec<Want>,
    reply: oneshot::Sender<Granted>,
}

#[derive(Debug)]
enum Request {
    Reserve(Reservation),
    Release(Vec<u16>),
    /// What a watch of the key has seen.
    Seen(Option<KeyValue>, Revision),
    /// The bitmap as last known, for dry runs.
    Show(oneshot::Sender<Bitmap>),
    /// The bitmap as stored, for repair.
    Stored(oneshot::Sender<Result<Bitmap, String>>),
    /// Set and clear bits, whatever they were.
    Mend {
        take: Vec<u16>,
        release: Vec<u16>,
    },
}

/// The handle of the task; it ends when the last handle is dropped.
#[derive(Clone)]
pub(super) struct PortDesk {
    // Bounded by the requests in flight: each waits for its answer; releases are one per finished request.
    requests: mpsc::UnboundedSender<Request>,
}

impl PortDesk {
    /// Reads the bitmap, creating it if it is absent, and starts the task.
    pub(super) async fn open(store: Arc<dyn Store>, range: RangeInclusive<u16>) -> Result<PortDesk, Error> {
        let (requests, inbox) = mpsc::unbounded_channel();
        let bitmap = Bitmap::new(&range);
        let mut desk = Desk {
            bitmap,
            revision: None,
            present: false,
            restore: false,
            range,
            store,
            releases: Vec::new(),
            takes: Vec::new(),
            requests: requests.downgrade(),
        };
        desk.reload().await?;
        if desk.revision.is_none() {
            // A new cluster has none, and one that lost it has Services: no port of theirs may be given out.
            let mut bitmap = Bitmap::new(&desk.range);
            for port in mend::ports_in_use(&*desk.store).await? {
                _ = bitmap.take(port);
            }
            // False: another server has just created it, and we know theirs now.
            desk.write(bitmap).await?;
        }
        tokio::spawn(desk.run(inbox));
        Ok(PortDesk { requests })
    }

    /// All of `wants`, in order, or none. The ports are durably ours when this returns.
    pub(super) async fn reserve(&self, wants: Vec<Want>) -> Granted {
        let (reply, answer) = oneshot::channel();
        _ = self.requests.send(Request::Reserve(Reservation { wants, reply }));
        answer.await.unwrap_or_else(|_| Err(Refusal::Store(STOPPED.into())))
    }

    /// Gives ports back, soon.
    pub(super) fn release(&self, ports: Vec<u16>) {
        if !ports.is_empty() {
            _ = self.requests.send(Request::Release(ports));
        }
    }

    pub(super) fn seen(&self, current: Option<KeyValue>, revision: Revision) {
        _ = self.requests.send(Request::Seen(current, revision));
    }

    /// The bitmap as it is in the store.
    pub(super) async fn stored(&self) -> Result<Bitmap, String> {
        let (reply, answer) = oneshot::channel();
        _ = self.requests.send(Request::Stored(reply));
        answer.await.unwrap_or_else(|_| Err(STOPPED.into()))
    }

    /// Sets and clears bits, soon. It is all that is wrong: a bitmap that is not there comes of it.
    pub(super) fn mend(&self, take: Vec<u16>, release: Vec<u16>) {
        _ = self.requests.send(Request::Mend { take, release });
    }

    /// The bitmap as last known to this process.
    pub(super) async fn show(&self) -> Option<Bitmap> {
        let (reply, answer) = oneshot::channel();
        _ = self.requests.send(Request::Show(reply));
        answer.await.ok()
    }
}

/// The task's own state.
struct Desk {
    store: Arc<dyn Store>,
    range: RangeInclusive<u16>,
    bitmap: Bitmap,
    /// Of the stored object; None: there is none, or it is not known.
    revision: Option<Revision>,
    /// Whether there was one when it was last looked for.
    present: bool,
    /// Repair has seen every Service: what it found may become a bitmap where there is none.
    restore: bool,
    /// Given back but not written yet.
    releases: Vec<u16>,
    /// Found to be in use without a bit.
    takes: Vec<u16>,
    requests: mpsc::WeakUnboundedSender<Request>,
}

impl Desk {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Request>) {
        while let Some(first) = inbox.recv().await {
            let mut batch = Vec::new();
            let mut next = Some(first);
            while let Some(request) = next {
                self.sort(request, &mut batch).await;
                next = if batch.len() < BATCH_MAX { inbox.try_recv().ok() } else { None };
            }
            self.serve(batch).await;
        }
    }

    async fn sort(&mut self, request: Request, batch: &mut Vec<Reservation>) {
        match request {
            Request::Reserve(reservation) => batch.push(reservation),
            Request::Release(ports) => self.releases.extend(ports),
            Request::Seen(current, revision) => {
                if self.revision.is_none_or(|known| revision > known) {
                    self.learn(current);
                }
            }
            Request::Show(reply) => _ = reply.send(self.bitmap.clone()),
            Request::Stored(reply) => {
                let stored = self.reload().await.map(|()| self.bitmap.clone());
                _ = reply.send(stored.map_err(|error| error.to_string()));
            }
            Request::Mend { take, release } => {
                self.takes.extend(take);
                self.releases.extend(release);
                self.restore = !self.present;
            }
        }
    }

    /// Decides a batch against the bitmap, writes it, and answers. Decides again when the bitmap was not as known.
    async fn serve(&mut self, batch: Vec<Reservation>) {
        let mut confirmed = false;
        for _ in 0..ATTEMPTS_MAX {
            let (changed, grants) = self.decide(&batch);
            // A refusal by a mirror that may be stale is confirmed by a read first.
            let refused = grants.iter().any(Result::is_err);
            if refused && !confirmed {
                match self.reload().await {
                    Ok(()) => confirmed = true,
                    Err(error) => return self.give_up(batch, &error.to_string()),
                }
                continue;
            }
            if changed == self.bitmap && !self.restore {
                self.forget();
                return self.answer(batch, grants);
            }
            match self.write(changed).await {
                Ok(true) => {
                    self.forget();
                    return self.answer(batch, grants);
                }
                Ok(false) => confirmed = true,
                Err(error) => return self.give_up(batch, &error.to_string()),
            }
        }
        self.give_up(batch, "too many other writers of the node port bitmap");
    }

    fn answer(&self, batch: Vec<Reservation>, grants: Vec<Result<Vec<u16>, Refusal>>) {
        for (reservation, grant) in batch.into_iter().zip(grants) {
            // A caller that has gone away drops the ports, which gives them back.
            _ = reservation.reply.send(grant.map(|ports| HeldPorts { ports, desk: self.requests.clone() }));
        }
    }

    /// The store did not take the write, or took it and could not say so.
    fn give_up(&mut self, batch: Vec<Reservation>, why: &str) {
        // Not known any more: the next write meets a conflict and reads again.
        self.revision = None;
        // A release that comes late could free a port that repair has freed, and another Service taken, meanwhile.
        // What is not released now is leaked, and repair finds it.
        self.forget();
        for reservation in batch {
            _ = reservation.reply.send(Err(Refusal::Store(why.to_owned())));
        }
    }

    fn forget(&mut self) {
        self.releases.clear();
        self.takes.clear();
        self.restore = false;
    }

    fn decide(&self, batch: &[Reservation]) -> (Bitmap, Vec<Result<Vec<u16>, Refusal>>) {
        let mut bitmap = self.bitmap.clone();
        for port in &self.releases {
            bitmap.release(*port);
        }
        for port in &self.takes {
            _ = bitmap.take(*port);
        }
        let absent = |_| Err(Refusal::Port { index: 0, error: PortError::Absent });
        let grants = if self.present || self.restore {
            batch.iter().map(|reservation| grant(&mut bitmap, &reservation.wants)).collect()
        } else {
            batch.iter().map(absent).collect()
        };
        (bitmap, grants)
    }

    async fn reload(&mut self) -> Result<(), Error> {
        let (current, _) = self.store.get(bitmap::KEY).await?;
        self.learn(current);
        Ok(())
    }

    fn learn(&mut self, current: Option<KeyValue>) {
        self.revision = current.as_ref().map(|current| current.mod_revision);
        self.present = current.is_some();
        self.bitmap = current
            .and_then(|current| Bitmap::decode(&current.value, &self.range))
            .unwrap_or_else(|| Bitmap::new(&self.range));
    }

    /// True: written. False: someone else wrote; their bitmap is the one known now.
    async fn write(&mut self, bitmap: Bitmap) -> Result<bool, Error> {
        let key: Arc<str> = bitmap::KEY.into();
        let compare = match self.revision {
            Some(revision) => Compare::Revision(key.clone(), revision),
            None => Compare::Absent(key.clone()),
        };
        let txn = Txn { compares: vec![compare], ops: vec![Op::Put(key, Bytes::from(bitmap.encode()))] };
        match self.store.commit(txn).await? {
            Commit::Done(revision) => {
                self.bitmap = bitmap;
                self.revision = Some(revision);
                self.present = true;
                Ok(true)
            }
            Commit::Conflict { current } => {
                self.learn(current.into_iter().find_map(|(_, value)| value));
                Ok(false)
            }
        }
    }
}

/// All of `wants` from the bitmap, or none of them.
fn grant(bitmap: &mut Bitmap, wants: &[Want]) -> Result<Vec<u16>, Refusal> {
    let mut ports: Vec<u16> = Vec::with_capacity(wants.len());
    for (index, want) in wants.iter().enumerate() {
        let taken = match want {
            Want::This(number) => bitmap.take_asked(*number),
            Want::Any => bitmap.take_any(&mut rand::rng()),
        };
        match taken {
            Ok(port) => ports.push(port),
            Err(error) => {
                for port in ports {
                    bitmap.release(port);
                }
                return Err(Refusal::Port { index, error });
            }
        }
    }
    Ok(ports)
}

//! The edge of [`crate::stale`]: lists the tracked flows, and deletes those that lead nowhere, on a thread of its own.
//!
//! A table of many flows takes long to list; the next commit must not wait for it.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use portolan_forward::Family;
use portolan_netlink::conntrack::{self, Conntrack, Flow};
use portolan_netlink::rt::Rt;

use crate::metrics::Metrics;
use crate::stale::{Judge, Suspect};

/// Hands suspects to the thread.
#[derive(Debug, Clone)]
pub(crate) struct Cleaner {
    suspects: Sender<Vec<Suspect>>,
}

impl Cleaner {
    /// Starts the thread in the network namespace of the caller's. It ends with the last handle.
    pub(crate) fn start(metrics: Arc<Metrics>) -> io::Result<Self> {
        let (suspects, work) = channel();
        std::thread::Builder::new().name("proxy-conntrack".into()).spawn(move || clean(&work, &metrics))?;
        Ok(Self { suspects })
    }

    /// Has the flows of these ports looked at soon.
    pub(crate) fn check(&self, suspects: Vec<Suspect>) {
        if !suspects.is_empty() {
            // The thread is gone only when the proxy ends.
            _ = self.suspects.send(suspects);
        }
    }
}

fn clean(work: &Receiver<Vec<Suspect>>, metrics: &Metrics) {
    while let Ok(mut suspects) = work.recv() {
        // Later word of a port replaces earlier: the judge keeps the last.
        while let Ok(more) = work.try_recv() {
            suspects.extend(more);
        }
        if let Err(error) = clean_once(&Judge::new(&suspects), metrics) {
            tracing::warn!(%error, "cannot remove stale flows; UDP clients may talk to endpoints that are gone");
        }
    }
}

fn clean_once(judge: &Judge, metrics: &Metrics) -> io::Result<()> {
    let own = own_addresses();
    let mut conntrack = Conntrack::open()?;
    for (family, protocols) in judge.families() {
        let started = Instant::now();
        let kernel_family = match family {
            Family::V4 => conntrack::Family::V4,
            Family::V6 => conntrack::Family::V6,
        };
        let mut stale: Vec<Flow> = Vec::new();
        for protocol in protocols {
            let flows = conntrack.flows_of(kernel_family, protocol)?.into_iter();
            stale.extend(flows.filter(|flow| judge.is_stale(flow, |address| own.contains(&address))));
        }
        conntrack.delete_flows(&stale)?;
        metrics.conntrack(family, started.elapsed().as_secs_f64(), stale.len());
    }
    Ok(())
}

/// The addresses of this node's interfaces; empty, with a word in the log, where they cannot be read.
pub(crate) fn own_addresses() -> HashSet<IpAddr> {
    let read = Rt::open().and_then(|mut rt| rt.addresses());
    match read {
        Ok(addresses) => addresses.into_iter().map(|address| address.net.addr()).collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot read the node's addresses");
            HashSet::new()
        }
    }
}

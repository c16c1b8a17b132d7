//! Reads back what we own in IPVS and around it. Virtual servers of others are not looked at.

use std::hash::Hash;
use std::io;
use std::time::Instant;

use portolan_forward::Family;
use portolan_netlink::ipvs::{Ipvs as _, Op, Server};

use super::kernel::Kernel;
use super::layout::{self, Setting};
use super::object::{Key, Value};
use super::terminating::Terminating;
use crate::Objects;

/// A destination of ours that is reached in a way of somebody else's: to be put right.
const NOT_OURS: u32 = u32::MAX;

/// What was found, and destinations that have waited for their connections long enough.
pub(super) fn observe<K: Hash + Eq, V>(
    kernel: &mut impl Kernel,
    terminating: &mut Terminating,
    out: &mut Objects<Key<K>, Value<V>>,
) -> io::Result<Vec<Op>> {
    for setting in Setting::ALL {
        let value = kernel.setting(setting)?;
        // What is as the kernel has it anyway is nothing of ours.
        if value == setting.wanted() {
            out.insert(Key::Setting(setting), Value::Setting(value));
        }
    }
    for family in kernel.ranges()? {
        out.insert(Key::Range(family), Value::Range);
    }
    let mut done = Vec::new();
    for server in kernel.ipvs().servers()?.into_iter().filter(|server| layout::is_ours(&server.key)) {
        let key = server.key;
        done.extend(destinations(kernel, terminating, &server, out)?);
        let value = Value::Server { scheduler: server.scheduler, persistence: server.persistence };
        out.insert(Key::Server(key), value);
    }
    Ok(done)
}

fn destinations<K: Hash + Eq, V>(
    kernel: &mut impl Kernel,
    terminating: &mut Terminating,
    server: &Server,
    out: &mut Objects<Key<K>, Value<V>>,
) -> io::Result<Vec<Op>> {
    let waits = layout::waits_for_its_connections(&server.key, &server.scheduler, server.persistence);
    let server = server.key;
    let (now, states) = (Instant::now(), kernel.ipvs().destinations(&server)?);
    let mut done = Vec::new();
    for state in &states {
        let destination = state.destination;
        let place = (server, destination.address, destination.port);
        let ours = !state.foreign;
        if ours && destination.weight == 0 {
            done.extend(terminating.add(vec![place], now));
        } else {
            let weight = if ours { destination.weight } else { NOT_OURS };
            out.insert(Key::Destination(place.0, place.1, place.2), Value::Destination { weight, waits });
        }
    }
    done.extend(terminating.done(&server, &states, now));
    Ok(done)
}

/// The families whose range is led to IPVS.
pub(super) fn families(found: impl Fn(Family) -> bool) -> Vec<Family> {
    Family::ALL.into_iter().filter(|family| found(*family)).collect()
}

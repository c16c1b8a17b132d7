//! What our kernel objects are for, in plain words, and which of them concern a Service. For people; nothing here
//! decides anything.

use std::net::SocketAddr;

use portolan_forward::{Family, ServiceTable};
use portolan_netlink::ipvs::ServerKey;

use super::layout::range;
use super::{Front, Ipvs, Kernel, Key, Value};
use crate::{Change, Objects, Words};

impl<F: Front + Words, K: Kernel> Words for Ipvs<F, K> {
    fn family(key: &Self::Key) -> Family {
        match key {
            // They serve both; one must be named.
            Key::Setting(_) => Family::V4,
            Key::Range(family) => *family,
            Key::Server(server) | Key::Destination(server, ..) => family_of(server),
            Key::Front(key) => F::family(key),
        }
    }

    fn is_ground(key: &Self::Key) -> bool {
        match key {
            Key::Range(_) => true,
            Key::Front(key) => F::is_ground(key),
            _ => false,
        }
    }

    fn concerns(
        change: &Change<Self::Key, Self::Value>,
        wanted: &Objects<Self::Key, Self::Value>,
        service: Option<&ServiceTable>,
    ) -> bool {
        match &change.key {
            Key::Front(key) => {
                let (from, to) = (of_front(change.from.as_ref()), of_front(change.to.as_ref()));
                let change = Change { key: key.clone(), from, to };
                F::concerns(&change, &front_part::<F>(wanted), service)
            }
            Key::Destination(server, ..) if change.to.is_none() => wanted.contains_key(&Key::Server(*server)),
            key => wanted.contains_key(key),
        }
    }

    fn depends_on_settings(key: &Self::Key) -> bool {
        match key {
            Key::Front(key) => F::depends_on_settings(key),
            // Which scheduler is the usual one.
            Key::Server(_) => true,
            _ => false,
        }
    }

    fn describe(key: &Self::Key, value: Option<&Self::Value>) -> String {
        match (key, value) {
            (Key::Front(key), value) => F::describe(key, of_front(value).as_ref()),
            (Key::Setting(setting), Some(Value::Setting(value))) => {
                format!("setting net/ipv4/{} = {value}", setting.path())
            }
            (Key::Range(family), _) => {
                format!("that IPVS is led to by {} [route local]", range(*family))
            }
            (Key::Server(server), Some(Value::Server { scheduler, persistence })) => {
                let memory = persistence.map(|seconds| format!(", clients remembered for {seconds} s"));
                format!("virtual server {server}, scheduler {scheduler}{}", memory.unwrap_or_default())
            }
            (Key::Destination(server, address, port), _) => {
                format!("that {server} may choose {}", SocketAddr::new(*address, *port))
            }
            (key, _) => format!("{key:?}"),
        }
    }
}

fn family_of(server: &ServerKey) -> Family {
    if server.is_ipv6() { Family::V6 } else { Family::V4 }
}

fn of_front<V: Clone>(value: Option<&Value<V>>) -> Option<V> {
    match value {
        Some(Value::Front(value)) => Some(value.clone()),
        _ => None,
    }
}

fn front_part<F: Front>(wanted: &Objects<Key<F::Key>, Value<F::Value>>) -> Objects<F::Key, F::Value> {
    let part = wanted.iter().filter_map(|(key, value)| match (key, value) {
        (Key::Front(key), Value::Front(value)) => Some((key.clone(), value.clone())),
        _ => None,
    });
    part.collect()
}

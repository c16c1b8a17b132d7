//! The endpoints of one slice, packed: they are what a large cluster has most of, and the proxy keeps all of them.

use std::net::IpAddr;
use std::sync::Arc;

use portolan_forward::{EndpointPort, EndpointView};

/// A list of [`EndpointView`]s in about a quarter of their room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    ports: Arc<[EndpointPort]>,
    all: Box<[Packed]>,
    /// The nodes they are on, each once.
    nodes: Box<[Arc<str>]>,
    /// Those with hints, by index: few have any.
    hints: Box<[(u32, Hints)]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packed {
    address: IpAddr,
    conditions: u8,
    /// Index into the nodes, or [`NO_NODE`].
    node: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Hints {
    zones: Box<[Arc<str>]>,
    nodes: Box<[Arc<str>]>,
}

const NO_NODE: u32 = u32::MAX;
const READY: u8 = 1;
const SERVING: u8 = 2;
const TERMINATING: u8 = 4;

impl Endpoints {
    /// `ports` are those of every endpoint, as the API has it.
    pub fn new(ports: Arc<[EndpointPort]>, views: impl IntoIterator<Item = EndpointView>) -> Self {
        let (mut all, mut nodes, mut hints) = (Vec::new(), Vec::<Arc<str>>::new(), Vec::new());
        for view in views {
            if !view.for_zones.is_empty() || !view.for_nodes.is_empty() {
                let of_one = Hints { zones: view.for_zones.into(), nodes: view.for_nodes.into() };
                hints.push((all.len() as u32, of_one));
            }
            let node = view.node_name.map_or(NO_NODE, |name| {
                // The one before is on the same node as often as not, and a slice has few.
                let known = nodes.iter().rposition(|known| *known == name);
                known.unwrap_or_else(|| {
                    nodes.push(name);
                    nodes.len() - 1
                }) as u32
            });
            let flag = |on: bool, flag: u8| if on { flag } else { 0 };
            let conditions =
                flag(view.ready, READY) | flag(view.serving, SERVING) | flag(view.terminating, TERMINATING);
            all.push(Packed { address: view.address, conditions, node });
        }
        Self { ports, all: all.into(), nodes: nodes.into(), hints: hints.into() }
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = EndpointView> {
        (0..).zip(&self.all).map(|(index, packed)| {
            let hints = self.hints.binary_search_by_key(&index, |(of, _)| *of).ok();
            let hints = hints.map(|at| &self.hints[at].1);
            EndpointView {
                address: packed.address,
                ready: packed.conditions & READY != 0,
                serving: packed.conditions & SERVING != 0,
                terminating: packed.conditions & TERMINATING != 0,
                node_name: self.nodes.get(packed.node as usize).cloned(),
                for_zones: hints.map_or_else(Vec::new, |hints| hints.zones.to_vec()),
                for_nodes: hints.map_or_else(Vec::new, |hints| hints.nodes.to_vec()),
                ports: Arc::clone(&self.ports),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use portolan_forward::Protocol;

    use super::*;

    #[test]
    fn what_is_packed_comes_out_as_it_was() {
        let ports: Arc<[EndpointPort]> =
            Arc::from([EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: 80 }]);
        let view = |last: u8| EndpointView {
            address: if last.is_multiple_of(2) {
                [10, 0, 0, last].into()
            } else {
                [0, 0, 0, 0, 0, 0, 0, last.into()].into()
            },
            ready: last & 1 != 0,
            serving: last & 2 != 0,
            terminating: last & 4 != 0,
            node_name: (!last.is_multiple_of(3)).then(|| format!("node-{}", last % 5).into()),
            for_zones: (0..last % 4).map(|zone| format!("zone-{zone}").into()).collect(),
            for_nodes: (0..last % 2).map(|node| format!("node-{node}").into()).collect(),
            ports: Arc::clone(&ports),
        };
        let views: Vec<EndpointView> = (0..32).map(view).collect();
        let packed = Endpoints::new(ports, views.clone());
        assert_eq!(packed.len(), 32);
        assert_eq!(packed.iter().collect::<Vec<_>>(), views);
        assert_eq!(size_of::<Packed>(), 24, "a hundred thousand of them are kept");
    }
}

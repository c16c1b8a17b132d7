//! The subsets of Endpoints in the one form in which they are stored, however a client grouped them.
//!
//! Ports with the same addresses in the same state share a subset; an address is there once for each port, not ready if
//! anybody says so; addresses are sorted. Kubernetes sorts ports and subsets by a hash that nobody can rely on: here they
//! keep the order in which they came.

use std::collections::{BTreeMap, HashMap};

use crate::core::v1::{EndpointAddress, EndpointPort, EndpointSubset};

/// Address and uid of what is behind it, as bytes sort them.
type Key = (String, String);
/// The addresses behind one port; `true`: ready.
type Members = BTreeMap<Key, bool>;

/// Groups anew.
pub(super) fn repack(subsets: &[EndpointSubset]) -> Vec<EndpointSubset> {
    let mut known: HashMap<Key, EndpointAddress> = HashMap::new();
    let mut ports: Vec<(Option<EndpointPort>, Members)> = Vec::new();
    for subset in subsets {
        let own: Vec<Option<EndpointPort>> = match subset.ports.as_slice() {
            [] => vec![None],
            ports => ports.iter().cloned().map(Some).collect(),
        };
        for port in own {
            let at = ports.iter().position(|(other, _)| *other == port).unwrap_or_else(|| {
                ports.push((port, Members::new()));
                ports.len() - 1
            });
            gather(&mut ports[at].1, subset, &mut known);
        }
    }
    let mut groups: Vec<(Vec<EndpointPort>, Members)> = Vec::new();
    for (port, members) in ports {
        match groups.iter_mut().find(|(_, others)| *others == members) {
            Some((ports, _)) => ports.extend(port),
            None => groups.push((port.into_iter().collect(), members)),
        }
    }
    groups.into_iter().map(|(ports, members)| subset(ports, &members, &known)).collect()
}

fn gather(members: &mut Members, subset: &EndpointSubset, known: &mut HashMap<Key, EndpointAddress>) {
    let ready = subset.addresses.iter().map(|address| (address, true));
    for (address, ready) in ready.chain(subset.not_ready_addresses.iter().map(|address| (address, false))) {
        let uid = address.target_ref.as_ref().map(|target| target.uid.clone()).unwrap_or_default();
        let key = (address.ip.clone(), uid);
        known.entry(key.clone()).or_insert_with(|| address.clone());
        *members.entry(key).or_insert(true) &= ready;
    }
}

fn subset(
    ports: Vec<EndpointPort>,
    members: &Members,
    known: &HashMap<Key, EndpointAddress>,
) -> EndpointSubset {
    let of = |wanted: bool| -> Vec<EndpointAddress> {
        let keys = members.iter().filter(|(_, ready)| **ready == wanted).map(|(key, _)| key);
        keys.filter_map(|key| known.get(key)).cloned().collect()
    };
    EndpointSubset { addresses: of(true), not_ready_addresses: of(false), ports }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::v1::ObjectReference;

    fn address(ip: &str) -> EndpointAddress {
        EndpointAddress { ip: ip.into(), ..EndpointAddress::default() }
    }

    fn subset(ready: &[&str], not_ready: &[&str], ports: &[i32]) -> EndpointSubset {
        let port =
            |port: &i32| EndpointPort { port: *port, protocol: "TCP".into(), ..EndpointPort::default() };
        EndpointSubset {
            addresses: ready.iter().map(|ip| address(ip)).collect(),
            not_ready_addresses: not_ready.iter().map(|ip| address(ip)).collect(),
            ports: ports.iter().map(port).collect(),
        }
    }

    #[test]
    fn subsets_have_one_form() {
        let cases = [
            // Addresses are sorted, as text.
            (
                vec![subset(&["10.0.0.9", "10.0.0.10"], &[], &[80])],
                vec![subset(&["10.0.0.10", "10.0.0.9"], &[], &[80])],
            ),
            // What shares its ports is one subset, what shares its addresses too.
            (
                vec![subset(&["b"], &[], &[80]), subset(&["a"], &["c"], &[80])],
                vec![subset(&["a", "b"], &["c"], &[80])],
            ),
            (
                vec![subset(&["a"], &[], &[80]), subset(&["a"], &[], &[81])],
                vec![subset(&["a"], &[], &[80, 81])],
            ),
            (
                vec![subset(&["a", "b"], &[], &[80]), subset(&["a"], &[], &[81])],
                vec![subset(&["a", "b"], &[], &[80]), subset(&["a"], &[], &[81])],
            ),
            // Not ready goes before ready, and twice is once.
            (vec![subset(&["a", "b", "b"], &["a"], &[80])], vec![subset(&["b"], &["a"], &[80])]),
            // No ports is a port of its own.
            (vec![subset(&["a"], &[], &[]), subset(&["b"], &[], &[])], vec![subset(&["a", "b"], &[], &[])]),
            (vec![], vec![]),
        ];
        for (given, wanted) in cases {
            let packed = repack(&given);
            assert_eq!(packed, wanted, "{given:?}");
            assert_eq!(repack(&packed), packed, "packing twice changes something");
        }
    }

    #[test]
    fn two_pods_of_one_address_are_two() {
        let of = |uid: &str| EndpointAddress {
            target_ref: Some(ObjectReference { uid: uid.into(), ..ObjectReference::default() }),
            ..address("a")
        };
        let both = EndpointSubset { addresses: vec![of("2"), of("1")], ..EndpointSubset::default() };
        assert_eq!(repack(&[both])[0].addresses, [of("1"), of("2")]);
    }
}

//! Addresses and ports of a Service, grouped into the fewest subsets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::endpointslice::desired::{address_types, hostname, pod_reference};
use crate::objects::{Pod, Service, or_tcp};
use crate::written::{Address, AddressType, Port, Subset};

/// Endpoints with more addresses are truncated (EPC-5).
pub const ADDRESSES_MAX: usize = 1000;

/// Sorts by address as bytes, then by pod.
type AddressKey = (IpAddr, String);
/// The addresses behind one port; `true`: ready.
type Members = BTreeMap<AddressKey, (bool, Address)>;

/// Which addresses, in which state.
type MemberKey = Vec<(AddressKey, bool)>;

/// What the pods of a Service give: EPC-1 to EPC-4.
pub fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<Subset> {
    let mut by_port: BTreeMap<Option<Port>, Members> = BTreeMap::new();
    let publish = service.spec.publish_not_ready_addresses;
    for pod in pods.iter().filter(|pod| !pod.finished() && (publish || !pod.metadata.deleting())) {
        let Some(ip) = address(service, pod) else { continue };
        let address = Address {
            ip: ip.to_string(),
            hostname: hostname(service, pod).unwrap_or_default(),
            node_name: (!pod.spec.node_name.is_empty()).then(|| pod.spec.node_name.to_string()),
            target_ref: Some(pod_reference(pod)),
        };
        let ready = publish || pod.ready();
        for port in ports(service, pod) {
            let members = by_port.entry(port).or_default();
            members.insert((ip, pod.metadata.uid.to_string()), (ready, address.clone()));
        }
    }
    group(by_port)
}

/// The one address of a pod that Endpoints may carry: of the Service's primary family.
fn address(service: &Service, pod: &Pod) -> Option<IpAddr> {
    let mut addresses = pod.addresses().filter_map(|address| address.parse::<IpAddr>().ok());
    if service.spec.ip_families.is_empty() && service.headless() {
        return addresses.next();
    }
    let family = address_types(service).first().copied().unwrap_or_default();
    addresses.find(|address| AddressType::of(*address) == family)
}

/// The ports of a pod; a headless Service without ports has `None`, once.
fn ports(service: &Service, pod: &Pod) -> Vec<Option<Port>> {
    if service.spec.ports.is_empty() && service.headless() {
        return vec![None];
    }
    let found = service.spec.ports.iter().filter_map(|port| {
        Some(Some(Port {
            name: port.name.clone(),
            port: port.target(pod)?,
            protocol: or_tcp(&port.protocol).to_owned(),
            app_protocol: port.app_protocol.clone(),
        }))
    });
    found.collect()
}

/// Ports with the same addresses, in the same state, share a subset.
fn group(by_port: BTreeMap<Option<Port>, Members>) -> Vec<Subset> {
    let mut groups: BTreeMap<MemberKey, (Vec<Port>, Members)> = BTreeMap::new();
    for (port, members) in by_port {
        let key = members.iter().map(|(key, (ready, _))| (key.clone(), *ready)).collect();
        let (ports, _) = groups.entry(key).or_insert_with(|| (Vec::new(), members));
        ports.extend(port);
    }
    let mut subsets: Vec<Subset> = groups
        .into_values()
        .map(|(ports, members)| {
            let (ready, not_ready): (Vec<_>, Vec<_>) = members.into_values().partition(|(ready, _)| *ready);
            let addresses =
                |list: Vec<(bool, Address)>| list.into_iter().map(|(_, address)| address).collect();
            Subset { addresses: addresses(ready), not_ready_addresses: addresses(not_ready), ports }
        })
        .collect();
    subsets.sort_by(|a, b| a.ports.cmp(&b.ports));
    subsets
}

/// The same subsets in the spelling of [`subsets`], whoever wrote them: addresses of equal ports together, in order,
/// and one that is both ready and not ready counts as not ready.
pub fn repack(subsets: &[Subset]) -> Vec<Subset> {
    let mut by_port: BTreeMap<Option<Port>, Members> = BTreeMap::new();
    for subset in subsets {
        let ports = subset.ports.iter().cloned().map(Some);
        let ports: Vec<_> = if subset.ports.is_empty() { vec![None] } else { ports.collect() };
        let ready = subset.addresses.iter().map(|address| (true, address));
        for (ready, address) in ready.chain(subset.not_ready_addresses.iter().map(|address| (false, address)))
        {
            let Ok(ip) = address.ip.parse::<IpAddr>() else { continue };
            let uid = address.target_ref.as_ref().map(|target| target.uid.clone()).unwrap_or_default();
            let mut address = address.clone();
            if let Some(target) = &mut address.target_ref {
                target.rest.remove("resourceVersion");
            }
            for port in &ports {
                let members = by_port.entry(port.clone()).or_default();
                let known = members.entry((ip, uid.clone())).or_insert_with(|| (ready, address.clone()));
                known.0 &= ready;
            }
        }
    }
    group(by_port)
}

/// Cuts down to [`ADDRESSES_MAX`] addresses, ready ones first, each subset by its share. Returns whether it had to.
pub fn truncate(subsets: &mut Vec<Subset>) -> bool {
    let ready: usize = subsets.iter().map(|subset| subset.addresses.len()).sum();
    let not_ready: usize = subsets.iter().map(|subset| subset.not_ready_addresses.len()).sum();
    if ready + not_ready <= ADDRESSES_MAX {
        return false;
    }
    if ready > ADDRESSES_MAX {
        share(subsets.iter_mut().map(|subset| &mut subset.addresses), ready, ADDRESSES_MAX);
        for subset in subsets.iter_mut() {
            subset.not_ready_addresses.clear();
        }
    } else {
        let room = ADDRESSES_MAX - ready;
        share(subsets.iter_mut().map(|subset| &mut subset.not_ready_addresses), not_ready, room);
    }
    // The API wants an address in every subset.
    subsets.retain(|subset| !subset.addresses.is_empty() || !subset.not_ready_addresses.is_empty());
    true
}

/// Shares `room` among lists of `total` addresses; shares are rounded up, the last list gets what remains.
fn share<'a>(lists: impl Iterator<Item = &'a mut Vec<Address>>, total: usize, room: usize) {
    let mut left = room;
    for list in lists {
        let kept = (list.len() * room).div_ceil(total.max(1)).min(left);
        list.truncate(kept);
        left -= kept;
    }
}

//! What a write of a Service takes and gives back, as a value: addresses and ports wanted, with the field each goes to,
//! and those no longer needed. Pure; the desk and the address book fulfil it.

use std::net::IpAddr;

use portolan_api::core::v1::{ServicePort, ServiceSpec};
use portolan_api::service::families::Family;

use super::AllocError;
use super::ports::Want;

/// One ClusterIP to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AddressWant {
    /// Index in `clusterIPs`.
    pub index: usize,
    pub family: Family,
    /// The address asked for; None: any.
    pub asked: Option<IpAddr>,
}

/// Where a port number goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Slot {
    /// `spec.ports[..].nodePort` of these entries; errors name the first.
    Ports(Vec<usize>),
    HealthCheck,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PortWant {
    pub slot: Slot,
    pub want: Want,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Demand {
    pub addresses: Vec<AddressWant>,
    pub ports: Vec<PortWant>,
    /// Addresses to release with the write itself.
    pub address_releases: Vec<IpAddr>,
    /// Ports to release once it is written.
    pub port_releases: Vec<u16>,
}

/// For a new Service, its families filled in.
pub(super) fn on_create(spec: &ServiceSpec) -> Demand {
    let mut demand = Demand { addresses: missing_addresses(spec, 0), ..Demand::default() };
    if spec.may_have_node_ports() {
        demand.ports = ports_of_new(spec);
    }
    if spec.needs_health_check_node_port() {
        demand.ports.push(health_check_want(spec));
    }
    demand
}

/// For a changed Service, its families filled in and its ports carried over.
pub(super) fn on_update(old: &ServiceSpec, new: &ServiceSpec) -> Result<Demand, AllocError> {
    let mut demand = Demand::default();
    if old.is_external_name() {
        demand.addresses = missing_addresses(new, 0);
    } else if !old.is_headless() {
        let kept = if new.is_external_name() { 0 } else { new.ip_families.len() };
        demand.address_releases = addresses_of(old).skip(kept).collect();
        if kept > old.ip_families.len() {
            demand.addresses = missing_addresses(new, old.ip_families.len());
        }
    }
    let old_ports = node_ports(old);
    let mut still_used = Vec::new();
    if new.may_have_node_ports() {
        demand.ports = ports_of_changed(&old_ports, new)?;
        still_used = node_ports(new);
    }
    demand.port_releases = old_ports.into_iter().filter(|port| !still_used.contains(port)).collect();
    match (old.needs_health_check_node_port(), new.needs_health_check_node_port()) {
        (false, true) => demand.ports.push(health_check_want(new)),
        (true, false) => demand.port_releases.extend(health_check_port(old)),
        _ => {}
    }
    Ok(demand)
}

/// For a Service about to go.
pub(super) fn on_delete(old: &ServiceSpec) -> Demand {
    let mut port_releases = node_ports(old);
    port_releases.extend(health_check_port(old));
    Demand { address_releases: addresses_of(old).collect(), port_releases, ..Demand::default() }
}

/// Every address a Service holds. `None` is no address.
pub(super) fn addresses_of(spec: &ServiceSpec) -> impl Iterator<Item = IpAddr> + '_ {
    spec.cluster_ips.iter().filter(|_| !spec.is_external_name()).filter_map(|address| address.parse().ok())
}

/// The distinct node ports of a Service, without the one for health checks.
pub(super) fn node_ports(spec: &ServiceSpec) -> Vec<u16> {
    let mut numbers = Vec::new();
    let ports = spec.ports.iter().filter(|_| spec.may_have_node_ports());
    for number in ports.filter_map(|port| u16::try_from(port.node_port).ok()) {
        if number != 0 && !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    numbers
}

pub(super) fn health_check_port(spec: &ServiceSpec) -> Option<u16> {
    let port = u16::try_from(spec.health_check_node_port).ok();
    port.filter(|port| *port != 0 && spec.needs_health_check_node_port())
}

fn missing_addresses(spec: &ServiceSpec, from: usize) -> Vec<AddressWant> {
    if spec.is_external_name() || spec.is_headless() {
        return Vec::new();
    }
    let want = |(index, family): (usize, &String)| {
        let asked = spec.cluster_ips.get(index).and_then(|address| address.parse().ok());
        Some(AddressWant { index, family: Family::parse(family)?, asked })
    };
    spec.ip_families.iter().enumerate().skip(from).filter_map(want).collect()
}

/// Entries of one `port` number share a node port (DNS on TCP and UDP), the one asked for on any of them.
fn ports_of_new(spec: &ServiceSpec) -> Vec<PortWant> {
    let mut wants: Vec<PortWant> = Vec::new();
    // By `port`: the index in `wants` and the node port asked for there, 0 for any.
    let mut shared: Vec<(i32, usize, i32)> = Vec::new();
    for (index, ServicePort { port, node_port: asked, .. }) in spec.ports.iter().enumerate() {
        if *asked == 0 && !spec.allocates_node_ports() {
            continue;
        }
        if let Some((_, want, held)) = shared.iter().find(|(other, ..)| other == port) {
            if *asked == 0 || asked == held {
                if let Slot::Ports(entries) = &mut wants[*want].slot {
                    entries.push(index);
                }
            } else {
                wants.push(PortWant { slot: Slot::Ports(vec![index]), want: Want::This(*asked) });
            }
            continue;
        }
        let same = spec.ports.iter().filter(|other| other.port == *port);
        let held = same.map(|other| other.node_port).find(|asked| *asked != 0).unwrap_or_default();
        shared.push((*port, wants.len(), held));
        wants.push(PortWant { slot: Slot::Ports(vec![index]), want: want(held) });
    }
    wants
}

fn ports_of_changed(old: &[u16], new: &ServiceSpec) -> Result<Vec<PortWant>, AllocError> {
    let mut wants: Vec<PortWant> = Vec::new();
    let mut seen: Vec<(&str, i32)> = Vec::new();
    for (index, ServicePort { protocol, node_port: asked, .. }) in new.ports.iter().enumerate() {
        if *asked == 0 {
            if new.allocates_node_ports() {
                wants.push(PortWant { slot: Slot::Ports(vec![index]), want: Want::Any });
            }
            continue;
        }
        if seen.contains(&(protocol.as_str(), *asked)) {
            return Err(AllocError::Plain(format!("duplicate nodePort: {{{protocol} {asked}}}")));
        }
        let already =
            old.iter().any(|port| i32::from(*port) == *asked) || seen.iter().any(|(_, other)| other == asked);
        seen.push((protocol, *asked));
        if !already {
            wants.push(PortWant { slot: Slot::Ports(vec![index]), want: Want::This(*asked) });
        }
    }
    Ok(wants)
}

fn health_check_want(spec: &ServiceSpec) -> PortWant {
    PortWant { slot: Slot::HealthCheck, want: want(spec.health_check_node_port) }
}

fn want(asked: i32) -> Want {
    if asked == 0 { Want::Any } else { Want::This(asked) }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // literals read best by value
#[path = "demand_tests.rs"]
mod tests;

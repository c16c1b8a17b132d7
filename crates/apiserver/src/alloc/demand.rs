//! What a write of a Service takes and gives back, as a value: addresses and ports wanted, with the field each goes to,
//! and those no longer needed. Pure; the desk and the address book fulfil it.

use std::net::IpAddr;

use serde_json::Value;

use super::AllocError;
use super::families::{Addressing, IPV4};
use super::ports::Want;

/// One ClusterIP to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AddressWant {
    /// Index in `clusterIPs`.
    pub index: usize,
    pub ipv4: bool,
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
pub(super) fn on_create(service: &Value, addressing: &Addressing) -> Demand {
    let mut demand = Demand { addresses: missing_addresses(addressing, 0), ..Demand::default() };
    if has_node_ports(service) {
        demand.ports = ports_of_new(service);
    }
    if needs_health_check(service) {
        demand.ports.push(health_check_want(service));
    }
    demand
}

/// For a changed Service, its families filled in and its ports carried over.
pub(super) fn on_update(
    old: &Value,
    old_addressing: &Addressing,
    new: &Value,
    addressing: &Addressing,
) -> Result<Demand, AllocError> {
    let mut demand = Demand::default();
    if old_addressing.is_external_name() {
        demand.addresses = missing_addresses(addressing, 0);
    } else if !old_addressing.is_headless() {
        let kept = if addressing.is_external_name() { 0 } else { addressing.families.len() };
        demand.address_releases = addresses_of(old_addressing).skip(kept).collect();
        if kept > old_addressing.families.len() {
            demand.addresses = missing_addresses(addressing, old_addressing.families.len());
        }
    }
    let old_ports = node_ports(old);
    let mut still_used = Vec::new();
    if has_node_ports(new) {
        demand.ports = ports_of_changed(&old_ports, new)?;
        still_used = node_ports(new);
    }
    demand.port_releases = old_ports.into_iter().filter(|port| !still_used.contains(port)).collect();
    match (needs_health_check(old), needs_health_check(new)) {
        (false, true) => demand.ports.push(health_check_want(new)),
        (true, false) => demand.port_releases.extend(health_check_port(old)),
        _ => {}
    }
    Ok(demand)
}

/// For a Service about to go.
pub(super) fn on_delete(old: &Value) -> Demand {
    let mut port_releases = node_ports(old);
    port_releases.extend(health_check_port(old));
    Demand {
        address_releases: addresses_of(&Addressing::read_stored(old)).collect(),
        port_releases,
        ..Demand::default()
    }
}

/// Every address a Service holds. `None` is no address.
pub(super) fn addresses_of(addressing: &Addressing) -> impl Iterator<Item = IpAddr> + '_ {
    addressing
        .cluster_ips
        .iter()
        .filter(|_| !addressing.is_external_name())
        .filter_map(|address| address.parse().ok())
}

/// The distinct node ports of a Service, without the one for health checks.
pub(super) fn node_ports(service: &Value) -> Vec<u16> {
    let mut numbers = Vec::new();
    if !has_node_ports(service) {
        return numbers;
    }
    for number in ports(service).iter().filter_map(|port| u16::try_from(node_port(port)).ok()) {
        if number != 0 && !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    numbers
}

pub(super) fn health_check_port(service: &Value) -> Option<u16> {
    let port = service["spec"]["healthCheckNodePort"].as_u64().unwrap_or_default();
    u16::try_from(port).ok().filter(|port| *port != 0 && needs_health_check(service))
}

fn missing_addresses(addressing: &Addressing, from: usize) -> Vec<AddressWant> {
    if addressing.is_external_name() || addressing.is_headless() {
        return Vec::new();
    }
    let want = |(index, family): (usize, &String)| AddressWant {
        index,
        ipv4: family == IPV4,
        asked: addressing.cluster_ips.get(index).and_then(|address| address.parse().ok()),
    };
    addressing.families.iter().enumerate().skip(from).map(want).collect()
}

/// Entries of one `port` number share a node port (DNS on TCP and UDP), the one asked for on any of them.
fn ports_of_new(service: &Value) -> Vec<PortWant> {
    let ports = ports(service);
    let allocates = allocates_node_ports(service);
    let mut wants: Vec<PortWant> = Vec::new();
    // By `port`: the index in `wants` and the node port asked for there, 0 for any.
    let mut shared: Vec<(u64, usize, i64)> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let asked = node_port(port);
        if asked == 0 && !allocates {
            continue;
        }
        let number = port["port"].as_u64().unwrap_or_default();
        if let Some((_, want, held)) = shared.iter().find(|(other, ..)| *other == number) {
            if asked == 0 || asked == *held {
                if let Slot::Ports(entries) = &mut wants[*want].slot {
                    entries.push(index);
                }
            } else {
                wants.push(PortWant { slot: Slot::Ports(vec![index]), want: Want::This(asked) });
            }
            continue;
        }
        let same = ports.iter().filter(|other| other["port"] == port["port"]);
        let held = same.map(node_port).find(|asked| *asked != 0).unwrap_or_default();
        shared.push((number, wants.len(), held));
        wants.push(PortWant { slot: Slot::Ports(vec![index]), want: want(held) });
    }
    wants
}

fn ports_of_changed(old: &[u16], new: &Value) -> Result<Vec<PortWant>, AllocError> {
    let allocates = allocates_node_ports(new);
    let mut wants: Vec<PortWant> = Vec::new();
    let mut seen: Vec<(&str, i64)> = Vec::new();
    for (index, port) in ports(new).iter().enumerate() {
        let asked = node_port(port);
        if asked == 0 {
            if allocates {
                wants.push(PortWant { slot: Slot::Ports(vec![index]), want: Want::Any });
            }
            continue;
        }
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        if seen.contains(&(protocol, asked)) {
            return Err(AllocError::Plain(format!("duplicate nodePort: {{{protocol} {asked}}}")));
        }
        let already =
            old.iter().any(|port| i64::from(*port) == asked) || seen.iter().any(|(_, other)| *other == asked);
        seen.push((protocol, asked));
        if !already {
            wants.push(PortWant { slot: Slot::Ports(vec![index]), want: Want::This(asked) });
        }
    }
    Ok(wants)
}

/// Node ports and the health-check port that a client left out are the old ones. Ports are matched by name.
pub(super) fn carry_ports_over(new: &mut Value, old: &Value) {
    if allocates_node_ports(old) && allocates_node_ports(new) {
        let old_ports = node_ports(old);
        let kept = node_ports(new).into_iter().filter(|port| old_ports.contains(port));
        let mut used: Vec<i64> = kept.map(i64::from).collect();
        let by_name: Vec<(Value, i64)> =
            ports(old).iter().map(|port| (port["name"].clone(), node_port(port))).collect();
        for port in
            new["spec"]["ports"].as_array_mut().into_iter().flatten().filter(|port| node_port(port) == 0)
        {
            let Some((_, number)) = by_name.iter().find(|(name, _)| *name == port["name"]) else { continue };
            if *number != 0 && !used.contains(number) {
                port["nodePort"] = (*number).into();
                used.push(*number);
            }
        }
    }
    if needs_health_check(new)
        && new["spec"]["healthCheckNodePort"].as_i64().unwrap_or_default() == 0
        && let Some(port) = health_check_port(old)
    {
        new["spec"]["healthCheckNodePort"] = port.into();
    }
}

fn health_check_want(service: &Value) -> PortWant {
    let asked = service["spec"]["healthCheckNodePort"].as_i64().unwrap_or_default();
    PortWant { slot: Slot::HealthCheck, want: want(asked) }
}

fn want(asked: i64) -> Want {
    if asked == 0 { Want::Any } else { Want::This(asked) }
}

fn ports(service: &Value) -> &[Value] {
    service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// 0: none. Any other number is asked for as it stands; the desk knows which are ports.
fn node_port(port: &Value) -> i64 {
    port["nodePort"].as_i64().unwrap_or_default()
}

fn has_node_ports(service: &Value) -> bool {
    matches!(service["spec"]["type"].as_str(), Some("NodePort" | "LoadBalancer"))
}

fn allocates_node_ports(service: &Value) -> bool {
    match service["spec"]["type"].as_str() {
        Some("NodePort") => true,
        Some("LoadBalancer") => service["spec"]["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

fn needs_health_check(service: &Value) -> bool {
    let spec = &service["spec"];
    spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // literals read best by value
#[path = "demand_tests.rs"]
mod tests;

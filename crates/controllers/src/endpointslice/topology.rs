//! Hints by share of processors: the `Auto` mode of `service.kubernetes.io/topology-mode`.
//!
//! Every zone is to get endpoints in proportion to the processors of its nodes, its own where it has them. Where that
//! cannot be had without burdening some zone by more than a fifth, there are no hints at all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::desired::Groups;
use super::pack::Identity;
use crate::objects::{Node, Service};
use crate::written::{Endpoint, EndpointSlice, Hints, Named};

/// By how much a zone may have too few endpoints for its processors.
const OVERLOAD: f64 = 0.2;
const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

/// Why there are no hints, in Kubernetes' words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    #[error("Insufficient Node information: allocatable CPU or zone not specified on one or more nodes")]
    NodeInformation,
    #[error("Nodes only ready in one zone")]
    OneZone,
    #[error("Insufficient number of endpoints ({endpoints} endpoints, {zones} zones)")]
    FewEndpoints { endpoints: usize, zones: usize },
    #[error(
        "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold \
         ({endpoints} endpoints, {zones} zones)"
    )]
    Overload { endpoints: usize, zones: usize },
    #[error("One or more endpoints do not have a zone specified")]
    EndpointWithoutZone,
}

/// Each zone's part of all processors.
pub type Shares = Result<BTreeMap<String, f64>, Obstacle>;

/// The mode is on. The older annotation goes before the newer one.
pub fn is_auto(service: &Service) -> bool {
    let annotations = &service.metadata.annotations;
    let mode = ["service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"]
        .iter()
        .find_map(|name| annotations.get(name));
    mode.is_some_and(|mode| mode == "Auto" || mode == "auto")
}

/// The shares of zones: of ready nodes that run users' pods.
pub fn shares<'a>(nodes: impl Iterator<Item = &'a Node>) -> Shares {
    let mut cpus: BTreeMap<String, f64> = BTreeMap::new();
    let control_plane =
        |node: &Node| CONTROL_PLANE.iter().any(|label| node.metadata.labels.contains_key(label));
    for node in nodes.filter(|node| node.ready() && !control_plane(node)) {
        let cpu = node.status.allocatable.get("cpu").and_then(|text| cores(text)).filter(|cpu| *cpu > 0.0);
        let (Some(zone), Some(cpu)) = (node.zone(), cpu) else { return Err(Obstacle::NodeInformation) };
        *cpus.entry(zone.to_owned()).or_default() += cpu;
    }
    if cpus.len() < 2 {
        return Err(Obstacle::OneZone);
    }
    let total: f64 = cpus.values().sum();
    Ok(cpus.into_iter().map(|(zone, cpu)| (zone, cpu / total)).collect())
}

/// `2`, `1.5` or `1500m`.
fn cores(text: &str) -> Option<f64> {
    match text.strip_suffix('m') {
        Some(milli) => Some(milli.parse::<f64>().ok()? / 1000.0),
        None => text.parse().ok(),
    }
}

/// Gives the ready endpoints their hints, or says why there are none. An endpoint that has to serve another zone is one
/// that does so already in `existing`, if there is any: fewer slices change.
pub fn assign(groups: &mut Groups, shares: &Shares, existing: &[Arc<EndpointSlice>]) -> Result<(), Obstacle> {
    let shares = shares.as_ref().map_err(Clone::clone)?;
    let mut ready: Vec<&mut Endpoint> =
        groups.values_mut().flatten().filter(|endpoint| endpoint.conditions.ready == Some(true)).collect();
    let endpoints = ready.len();
    let mut members: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, endpoint) in ready.iter().enumerate() {
        let zone = endpoint.zone.clone().ok_or(Obstacle::EndpointWithoutZone)?;
        members.entry(zone).or_default().push(index);
    }
    if shares.len() > endpoints {
        return Err(Obstacle::FewEndpoints { endpoints, zones: shares.len() });
    }
    #[allow(clippy::cast_precision_loss, reason = "there are far fewer endpoints than a double counts")]
    let desired: BTreeMap<&str, f64> =
        shares.iter().map(|(zone, share)| (zone.as_str(), share * endpoints as f64)).collect();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number above zero")]
    let least: usize = desired.values().map(|desired| (desired / (1.0 + OVERLOAD)).ceil() as usize).sum();
    if least > endpoints {
        return Err(Obstacle::Overload { endpoints, zones: shares.len() });
    }
    let moves = moves(&desired, &members);
    let before = hinted(existing);
    let mut zones: Vec<String> = ready.iter().filter_map(|endpoint| endpoint.zone.clone()).collect();
    for (from, to) in moves {
        let Some(candidates) = members.get_mut(&from) else { continue };
        let known = |index: &usize| before.get(&Identity::of(ready[*index])) == Some(&to.as_str());
        let position = candidates.iter().position(known).unwrap_or(candidates.len().saturating_sub(1));
        if position < candidates.len() {
            zones[candidates.remove(position)] = to;
        }
    }
    for (endpoint, zone) in ready.iter_mut().zip(zones) {
        endpoint.hints = Some(Hints { for_zones: vec![Named { name: zone }], for_nodes: Vec::new() });
    }
    Ok(())
}

/// From which zone to which an endpoint is lent, again and again between the richest and the poorest.
fn moves(desired: &BTreeMap<&str, f64>, members: &BTreeMap<String, Vec<usize>>) -> Vec<(String, String)> {
    let zones: BTreeSet<&str> = desired.keys().copied().chain(members.keys().map(String::as_str)).collect();
    #[allow(clippy::cast_precision_loss, reason = "there are far fewer endpoints than a double counts")]
    let mut surplus: BTreeMap<&str, f64> = zones
        .into_iter()
        .map(|zone| {
            let has = members.get(zone).map_or(0, Vec::len) as f64;
            (zone, has - desired.get(zone).copied().unwrap_or(0.0))
        })
        .collect();
    let mut moves = Vec::new();
    loop {
        let by = |a: &(&&str, &f64), b: &(&&str, &f64)| a.1.total_cmp(b.1);
        let (Some(most), Some(least)) = (surplus.iter().max_by(by), surplus.iter().min_by(by)) else { break };
        let (from, gives, to, needs) = (*most.0, *most.1, *least.0, -*least.1);
        if gives < 0.5 || needs < 0.5 || (gives < 1.0 && needs < 1.0) {
            break;
        }
        moves.push((from.to_owned(), to.to_owned()));
        surplus.entry(from).and_modify(|surplus| *surplus -= 1.0);
        surplus.entry(to).and_modify(|surplus| *surplus += 1.0);
    }
    moves
}

/// The zone that each endpoint serves so far.
fn hinted(slices: &[Arc<EndpointSlice>]) -> HashMap<Identity<'_>, &str> {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    endpoints
        .filter_map(|endpoint| {
            let zone = endpoint.hints.as_ref()?.for_zones.first()?;
            Some((Identity::of(endpoint), zone.name.as_str()))
        })
        .collect()
}

pub fn has_hints(slices: &[Arc<EndpointSlice>]) -> bool {
    slices.iter().flat_map(|slice| &slice.endpoints).any(|endpoint| endpoint.hints.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node;
    use crate::written::Conditions;

    fn zones(pairs: &[(&str, &str)]) -> Shares {
        let nodes: Vec<Arc<Node>> = pairs
            .iter()
            .enumerate()
            .map(|(index, (zone, cpu))| {
                let mut node = node(&format!("n{index}"), zone);
                if !cpu.is_empty() {
                    node.status.allocatable.insert("cpu".into(), (*cpu).into());
                }
                Arc::new(node)
            })
            .collect();
        shares(nodes.iter().map(AsRef::as_ref))
    }

    /// Ready endpoints, so many of each zone.
    fn endpoints(counts: &[(&str, usize)]) -> Groups {
        let mut all = Vec::new();
        for (zone, count) in counts {
            for number in 0..*count {
                all.push(Endpoint {
                    addresses: vec![format!("10.0.0.{zone}{number}")],
                    zone: Some((*zone).to_owned()),
                    conditions: Conditions { ready: Some(true), ..Conditions::default() },
                    ..Endpoint::default()
                });
            }
        }
        [(Vec::new(), all)].into()
    }

    /// How many endpoints of which zone serve which.
    fn served(groups: &Groups) -> BTreeMap<(String, String), usize> {
        let mut counts = BTreeMap::new();
        for endpoint in groups.values().flatten() {
            let hint = endpoint.hints.as_ref().unwrap().for_zones[0].name.clone();
            *counts.entry((endpoint.zone.clone().unwrap(), hint)).or_default() += 1;
        }
        counts
    }

    fn run(counts: &[(&str, usize)], shares: &Shares) -> Result<Vec<(String, usize)>, Obstacle> {
        let mut groups = endpoints(counts);
        assign(&mut groups, shares, &[])?;
        Ok(served(&groups).into_iter().map(|((from, to), n)| (format!("{from}>{to}"), n)).collect())
    }

    fn pairs(list: &[(&str, usize)]) -> Vec<(String, usize)> {
        list.iter().map(|(text, number)| ((*text).to_owned(), *number)).collect()
    }

    #[test]
    fn shares_are_of_processors() {
        let found = zones(&[("a", "2"), ("a", "500m"), ("b", "2.5")]).unwrap();
        assert_eq!(found, [("a".to_owned(), 0.5), ("b".to_owned(), 0.5)].into());
        assert_eq!(zones(&[("a", "2"), ("", "2")]), Err(Obstacle::NodeInformation));
        assert_eq!(zones(&[("a", "2"), ("b", "")]), Err(Obstacle::NodeInformation));
        assert_eq!(zones(&[("a", "2"), ("a", "2")]), Err(Obstacle::OneZone));
    }

    #[test]
    fn even_zones_serve_themselves() {
        let shares = zones(&[("a", "2"), ("b", "2"), ("c", "2")]);
        assert_eq!(
            run(&[("a", 2), ("b", 2), ("c", 2)], &shares),
            Ok(pairs(&[("a>a", 2), ("b>b", 2), ("c>c", 2)]))
        );
    }

    #[test]
    fn the_rich_lend_to_the_poor() {
        let shares = zones(&[("a", "2"), ("b", "2")]);
        assert_eq!(run(&[("a", 5), ("b", 1)], &shares), Ok(pairs(&[("a>a", 3), ("a>b", 2), ("b>b", 1)])));
        // A zone without nodes of its own lends all it has.
        let lent = run(&[("a", 2), ("z", 2)], &shares);
        assert_eq!(lent, Ok(pairs(&[("a>a", 2), ("z>b", 2)])));
    }

    #[test]
    fn what_cannot_be_shared_fairly_has_no_hints() {
        let shares = zones(&[("a", "2"), ("b", "2"), ("c", "2")]);
        assert_eq!(
            run(&[("a", 1), ("b", 1)], &shares),
            Err(Obstacle::FewEndpoints { endpoints: 2, zones: 3 })
        );
        assert_eq!(
            run(&[("a", 2), ("b", 1), ("c", 1)], &shares),
            Err(Obstacle::Overload { endpoints: 4, zones: 3 })
        );
        let text = Obstacle::Overload { endpoints: 4, zones: 3 }.to_string();
        assert!(text.ends_with("without exceeding overload threshold (4 endpoints, 3 zones)"), "{text}");
        let mut homeless = endpoints(&[("a", 2), ("b", 2), ("c", 2)]);
        homeless.values_mut().next().unwrap()[0].zone = None;
        assert_eq!(assign(&mut homeless, &shares, &[]), Err(Obstacle::EndpointWithoutZone));
    }

    #[test]
    fn who_served_another_zone_goes_on_doing_so() {
        let shares = zones(&[("a", "2"), ("b", "2")]);
        let mut groups = endpoints(&[("a", 5), ("b", 1)]);
        assign(&mut groups, &shares, &[]).unwrap();
        let slice = EndpointSlice {
            endpoints: groups.values().flatten().cloned().collect(),
            ..EndpointSlice::default()
        };
        // Others come first in the order now.
        let mut again = endpoints(&[("a", 5), ("b", 1)]);
        again.values_mut().next().unwrap().reverse();
        assign(&mut again, &shares, &[Arc::new(slice)]).unwrap();
        let hints = |groups: &Groups| -> BTreeMap<String, Option<Hints>> {
            groups.values().flatten().map(|e| (e.addresses[0].clone(), e.hints.clone())).collect()
        };
        assert_eq!(hints(&again), hints(&groups));
    }
}

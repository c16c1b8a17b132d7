//! From a Service, its pods and its slices to the writes that bring the slices in order.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::desired::{Groups, ZoneOf, address_types, groups, labels, sorted};
use super::order::in_order;
use super::pack::{Packed, pack};
use super::topology::{Obstacle, Shares, assign, has_hints, is_auto};
use super::{MANAGED_BY, pack::Identity};
use crate::objects::{Labels, Pod, Service};
use crate::written::{AddressType, EndpointPort, EndpointSlice, OwnerReference};

/// All that the plan depends on.
pub struct Input<'a> {
    pub service: &'a Service,
    /// The pods it selects.
    pub pods: &'a [Arc<Pod>],
    /// Every slice labelled as this Service's and managed by this controller.
    pub slices: &'a [Arc<EndpointSlice>],
    pub zone_of: ZoneOf<'a>,
    /// What set off the change, for the annotation.
    pub trigger: Option<&'a str>,
    pub max_per_slice: usize,
    /// Each zone's part of all processors.
    pub shares: &'a Shares,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    Create(EndpointSlice),
    Update { slice: EndpointSlice, from: Arc<EndpointSlice> },
    Delete(Arc<EndpointSlice>),
}

#[derive(Debug, Default)]
pub struct Plan {
    /// In the order in which they must be done.
    pub writes: Vec<Write>,
    /// Pods were left out because their node is not known.
    pub incomplete: bool,
    /// What there is to say about hints by share, family by family.
    pub topology: Vec<(AddressType, Topology)>,
}

/// News about hints by share of processors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    Enabled {
        /// There were none before.
        new: bool,
    },
    Impossible(Obstacle),
}

/// Plans one Service. Cannot fail: odd input is left out.
pub fn plan(input: &Input<'_>) -> Plan {
    let mut draft = Draft::new(input);
    let types = address_types(input.service);
    let (mine, strangers): (Vec<_>, Vec<_>) =
        input.slices.iter().filter(|slice| !slice.metadata.deleting()).cloned().partition(|slice| {
            types.contains(&slice.address_type) && owned_by(slice, &input.service.metadata.uid)
        });
    for family in types {
        let existing: Vec<_> = mine.iter().filter(|slice| slice.address_type == family).cloned().collect();
        draft.family(family, &existing);
    }
    draft.deletes.extend(strangers);
    draft.finish()
}

fn owned_by(slice: &EndpointSlice, uid: &str) -> bool {
    slice.metadata.controller().is_some_and(|owner| owner.uid == uid)
}

/// Gives hints by share of processors, if that is what the user asks for.
fn share(input: &Input<'_>, groups: &mut Groups, existing: &[Arc<EndpointSlice>]) -> Option<Topology> {
    if !is_auto(input.service) {
        return None;
    }
    Some(match assign(groups, input.shares, existing) {
        Ok(()) => Topology::Enabled { new: !has_hints(existing) },
        Err(obstacle) => Topology::Impossible(obstacle),
    })
}

struct Draft<'a> {
    input: &'a Input<'a>,
    labels: Labels,
    creates: Vec<EndpointSlice>,
    updates: Vec<(EndpointSlice, Arc<EndpointSlice>)>,
    deletes: Vec<Arc<EndpointSlice>>,
    unchanged: Vec<Arc<EndpointSlice>>,
    incomplete: bool,
    topology: Vec<(AddressType, Topology)>,
}

impl<'a> Draft<'a> {
    fn new(input: &'a Input<'a>) -> Self {
        Self {
            input,
            labels: labels(input.service, MANAGED_BY),
            creates: Vec::new(),
            updates: Vec::new(),
            deletes: Vec::new(),
            unchanged: Vec::new(),
            incomplete: false,
            topology: Vec::new(),
        }
    }

    fn family(&mut self, family: AddressType, existing: &[Arc<EndpointSlice>]) {
        let input = self.input;
        let (mut groups, incomplete) = groups(input.service, input.pods, family, input.zone_of);
        self.incomplete |= incomplete;
        let news = share(input, &mut groups, existing);
        self.topology.extend(news.map(|news| (family, news)));
        let mut by_ports: BTreeMap<Vec<EndpointPort>, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
        for slice in existing {
            by_ports.entry(sorted(&slice.ports)).or_default().push(Arc::clone(slice));
        }
        let mut drafts = Vec::new();
        if groups.is_empty() {
            self.placeholder(family, &mut by_ports, &mut drafts);
        }
        self.groups(family, groups, &mut by_ports, &mut drafts);
        let leftover: Vec<_> = by_ports.into_values().flatten().collect();
        self.recycle(drafts, leftover);
    }

    /// EPC-8: a Service that selects nothing keeps one slice without endpoints.
    fn placeholder(
        &mut self,
        family: AddressType,
        by_ports: &mut BTreeMap<Vec<EndpointPort>, Vec<Arc<EndpointSlice>>>,
        drafts: &mut Vec<EndpointSlice>,
    ) {
        let empty = by_ports.get_mut(&Vec::new()).and_then(|slices| {
            let index =
                slices.iter().position(|s| s.endpoints.is_empty() && s.metadata.labels == self.labels)?;
            Some(slices.remove(index))
        });
        match empty {
            Some(slice) => self.unchanged.push(slice),
            None => drafts.push(self.new_slice(family, &[], Vec::new())),
        }
    }

    fn groups(
        &mut self,
        family: AddressType,
        groups: Groups,
        by_ports: &mut BTreeMap<Vec<EndpointPort>, Vec<Arc<EndpointSlice>>>,
        drafts: &mut Vec<EndpointSlice>,
    ) {
        for (ports, endpoints) in groups {
            let slices = by_ports.remove(&sorted(&ports)).unwrap_or_default();
            let relabel = |slice: &EndpointSlice| slice.metadata.labels != self.labels;
            for packed in pack(endpoints, &slices, self.input.max_per_slice, relabel) {
                self.packed(family, &ports, packed, drafts);
            }
        }
    }

    fn packed(
        &mut self,
        family: AddressType,
        ports: &[EndpointPort],
        packed: Packed,
        drafts: &mut Vec<EndpointSlice>,
    ) {
        match packed.from {
            None => drafts.push(self.new_slice(family, ports, packed.endpoints)),
            Some(from) if packed.endpoints.is_empty() => self.deletes.push(from),
            Some(from) if !packed.changed => self.unchanged.push(from),
            Some(from) => {
                let mut slice = (*from).clone();
                slice.metadata.labels = self.labels.clone();
                slice.metadata.set_trigger_time(self.input.trigger);
                slice.endpoints = packed.endpoints;
                self.updates.push((slice, from));
            }
        }
    }

    /// A slice to be made takes the place of one to be deleted, if there is one: one write instead of two. The one
    /// that shares the most endpoints with it, so that little has to move.
    fn recycle(&mut self, drafts: Vec<EndpointSlice>, mut leftover: Vec<Arc<EndpointSlice>>) {
        let family = drafts.first().map(|draft| draft.address_type);
        let (same, others): (Vec<_>, Vec<_>) =
            self.deletes.drain(..).partition(|slice| Some(slice.address_type) == family);
        self.deletes = others;
        leftover.extend(same);
        for draft in drafts {
            let wanted: HashSet<Identity<'_>> = draft.endpoints.iter().map(Identity::of).collect();
            let shared = |slice: &Arc<EndpointSlice>| {
                slice.endpoints.iter().filter(|endpoint| wanted.contains(&Identity::of(endpoint))).count()
            };
            let best = (0..leftover.len()).max_by_key(|index| shared(&leftover[*index]));
            match best.map(|index| leftover.swap_remove(index)) {
                None => self.creates.push(draft),
                Some(from) => {
                    let mut slice = (*from).clone();
                    slice.metadata.labels = draft.metadata.labels;
                    slice.metadata.set_trigger_time(self.input.trigger);
                    slice.ports = draft.ports;
                    slice.endpoints = draft.endpoints;
                    self.updates.push((slice, from));
                }
            }
        }
        self.deletes.extend(leftover);
    }

    fn new_slice(
        &self,
        family: AddressType,
        ports: &[EndpointPort],
        endpoints: Vec<crate::written::Endpoint>,
    ) -> EndpointSlice {
        let service = self.input.service;
        let mut slice = EndpointSlice {
            address_type: family,
            endpoints,
            ports: ports.to_vec(),
            ..EndpointSlice::default()
        };
        slice.metadata.generate_name = format!("{}-", service.metadata.name);
        slice.metadata.namespace = service.metadata.namespace.to_string();
        slice.metadata.labels = self.labels.clone();
        slice.metadata.set_trigger_time(self.input.trigger);
        slice.metadata.owner_references = vec![OwnerReference {
            api_version: "v1".into(),
            kind: "Service".into(),
            name: service.metadata.name.to_string(),
            uid: service.metadata.uid.to_string(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }];
        slice
    }

    fn finish(self) -> Plan {
        let creates = self.creates.into_iter().map(Write::Create);
        let updates = self.updates.into_iter().map(|(slice, from)| Write::Update { slice, from });
        let deletes = self.deletes.into_iter().map(Write::Delete);
        let unchanged: Vec<&EndpointSlice> = self.unchanged.iter().map(|slice| &**slice).collect();
        let mut writes = in_order(creates.chain(updates).chain(deletes).collect(), &unchanged);
        if self.input.service.metadata.deleting() {
            writes.retain(|write| !matches!(write, Write::Create(_)));
        }
        Plan { writes, incomplete: self.incomplete, topology: self.topology }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

//! How the endpoints of one group spread over slices: what fits stays where it is, and as few slices as possible are
//! written.
//!
//! Slices are never rebalanced: every change of a slice goes to every node of the cluster.

use std::collections::HashMap;
use std::sync::Arc;

use crate::written::{Endpoint, EndpointSlice};

/// Which endpoint it is, whatever its condition: addresses, hostname and pod. Borrowed: a large Service has many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Identity<'a> {
    addresses: &'a [String],
    hostname: &'a str,
    /// Namespace and name.
    target: (&'a str, &'a str),
}

impl<'a> Identity<'a> {
    pub(super) fn of(endpoint: &'a Endpoint) -> Self {
        let target = endpoint.target_ref.as_ref();
        Self {
            addresses: &endpoint.addresses,
            hostname: endpoint.hostname.as_deref().unwrap_or_default(),
            target: target.map(|target| (&*target.namespace, &*target.name)).unwrap_or_default(),
        }
    }
}

/// One slice as it should be.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    /// The slice that holds it now; `None`: a slice to be made.
    pub(super) from: Option<Arc<EndpointSlice>>,
    pub(super) endpoints: Vec<Endpoint>,
    /// It has to be written (endpoints only; labels are the caller's).
    pub(super) changed: bool,
}

/// Packs `desired` into slices of at most `max`. `existing` are the slices of the same ports. `must_write` says of a
/// slice that it is written in any case, so that filling it costs nothing. Slices that end up empty are in the answer
/// with no endpoints.
pub(super) fn pack(
    desired: Vec<Endpoint>,
    existing: &[Arc<EndpointSlice>],
    max: usize,
    must_write: impl Fn(&EndpointSlice) -> bool,
) -> Vec<Packed> {
    let max = max.max(1);
    let places = places(&desired, existing);
    let mut desired: Vec<Option<Endpoint>> = desired.into_iter().map(Some).collect();
    let mut take = |index: &usize| desired.get_mut(*index).and_then(Option::take);
    let mut slices: Vec<Packed> = existing
        .iter()
        .zip(places)
        .map(|(slice, places)| {
            let endpoints: Vec<Endpoint> = places.iter().filter_map(&mut take).collect();
            let changed = must_write(slice) || endpoints != slice.endpoints;
            Packed { from: Some(Arc::clone(slice)), endpoints, changed }
        })
        .collect();
    let mut rest: Vec<Endpoint> = desired.into_iter().flatten().collect();
    fill_written(&mut slices, &mut rest, max);
    while !rest.is_empty() {
        if rest.len() < max
            && let Some(slice) = closest_fit(&mut slices, rest.len(), max)
        {
            slice.endpoints.append(&mut rest);
            slice.changed = true;
            break;
        }
        let chunk = rest.drain(..rest.len().min(max)).collect();
        slices.push(Packed { from: None, endpoints: chunk, changed: true });
    }
    slices
}

/// Which of the desired endpoints, by index, stay in which slice. One that several slices hold stays in the first.
fn places(desired: &[Endpoint], existing: &[Arc<EndpointSlice>]) -> Vec<Vec<usize>> {
    let indexed = desired.iter().enumerate().map(|(index, endpoint)| (Identity::of(endpoint), index));
    let mut wanted: HashMap<Identity<'_>, usize> = indexed.collect();
    let mut places = Vec::with_capacity(existing.len());
    for slice in existing {
        let kept = slice.endpoints.iter().filter_map(|endpoint| wanted.remove(&Identity::of(endpoint)));
        places.push(kept.collect());
    }
    places
}

/// Slices that are written anyway take what they can, the fullest first. One that would be deleted counts too: filling
/// it is one write where deleting it and filling another would be two.
fn fill_written(slices: &mut [Packed], rest: &mut Vec<Endpoint>, max: usize) {
    let mut written: Vec<&mut Packed> = slices.iter_mut().filter(|slice| slice.changed).collect();
    written.sort_by_key(|slice| std::cmp::Reverse(slice.endpoints.len()));
    for slice in written {
        let room = max.saturating_sub(slice.endpoints.len()).min(rest.len());
        slice.endpoints.extend(rest.drain(..room));
    }
}

/// The unchanged slice that `count` more endpoints leave closest to full.
fn closest_fit(slices: &mut [Packed], count: usize, max: usize) -> Option<&mut Packed> {
    slices
        .iter_mut()
        .filter(|slice| !slice.changed && slice.endpoints.len() + count <= max)
        .max_by_key(|slice| slice.endpoints.len())
}

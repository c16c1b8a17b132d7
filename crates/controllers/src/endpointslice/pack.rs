//! How the endpoints of one group spread over slices: what fits stays where it is, and as few slices as possible are
//! written.
//!
//! Slices are never rebalanced: every change of a slice goes to every node of the cluster.

use std::collections::HashMap;
use std::sync::Arc;

use crate::written::{Endpoint, EndpointSlice};

/// Which endpoint it is, whatever its condition: addresses, hostname and pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Identity(String);

impl Identity {
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        let mut text = endpoint.addresses.join(",");
        text.push('|');
        text.push_str(endpoint.hostname.as_deref().unwrap_or_default());
        if let Some(target) = &endpoint.target_ref {
            text.push('|');
            text.push_str(&target.namespace);
            text.push('/');
            text.push_str(&target.name);
        }
        Self(text)
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
    let order: Vec<Identity> = desired.iter().map(Identity::of).collect();
    let mut wanted: HashMap<Identity, Endpoint> = order.iter().cloned().zip(desired).collect();
    let mut slices: Vec<Packed> =
        existing.iter().map(|slice| keep(slice, &mut wanted, must_write(slice))).collect();
    let mut rest: Vec<Endpoint> = order.iter().filter_map(|identity| wanted.remove(identity)).collect();
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

/// What stays in a slice: its endpoints that are still wanted, as they are now.
fn keep(slice: &Arc<EndpointSlice>, wanted: &mut HashMap<Identity, Endpoint>, must_write: bool) -> Packed {
    let kept = slice.endpoints.iter().filter_map(|endpoint| wanted.remove(&Identity::of(endpoint)));
    let endpoints: Vec<Endpoint> = kept.collect();
    let changed = must_write || endpoints != slice.endpoints;
    Packed { from: Some(Arc::clone(slice)), endpoints, changed }
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

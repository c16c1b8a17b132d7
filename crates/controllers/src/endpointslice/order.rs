//! The order of the writes: at every moment, an endpoint that was there before and is there afterwards is there.
//!
//! Creates go first and deletes last. An update that takes an endpoint out of its slice waits until the update that
//! puts it elsewhere is through; where updates wait for each other in a ring, one becomes a new slice and a deletion.

use std::collections::HashSet;

use super::pack::Identity;
use super::plan::Write;
use crate::written::EndpointSlice;

type Identities<'a> = HashSet<Identity<'a>>;

/// What is done with a write when its turn comes.
#[derive(Clone, Copy)]
enum Turn {
    AsPlanned(usize),
    /// An update becomes a new slice now, and a deletion at the end.
    Split(usize),
}

/// Orders the writes of one Service. `unchanged` are the slices that stay as they are.
pub(crate) fn in_order(writes: Vec<Write>, unchanged: &[&EndpointSlice]) -> Vec<Write> {
    let turns = turns(&writes, unchanged);
    let mut writes: Vec<Option<Write>> = writes.into_iter().map(Some).collect();
    let (mut ordered, mut deletes) = (Vec::new(), Vec::new());
    for turn in turns {
        let (Turn::AsPlanned(index) | Turn::Split(index)) = turn;
        match (turn, writes[index].take()) {
            (Turn::Split(_), Some(Write::Update { slice, from })) => {
                ordered.push(Write::Create(as_new(slice)));
                deletes.push(Write::Delete(from));
            }
            (_, Some(delete @ Write::Delete(_))) => deletes.push(delete),
            (_, Some(write)) => ordered.push(write),
            (_, None) => {}
        }
    }
    ordered.append(&mut deletes);
    ordered
}

/// The order by index: deletes are sorted out by the caller.
fn turns(writes: &[Write], unchanged: &[&EndpointSlice]) -> Vec<Turn> {
    let is_update = |index: &usize| matches!(writes[*index], Write::Update { .. });
    let (updates, others): (Vec<usize>, Vec<usize>) = (0..writes.len()).partition(is_update);
    let mut turns: Vec<Turn> = others.into_iter().map(Turn::AsPlanned).collect();
    let mut waiting: Vec<(usize, Identities<'_>)> =
        updates.into_iter().map(|index| (index, leaving(&writes[index]))).collect();
    // Usually nothing moves from slice to slice, and then any order will do.
    let moving: Identities<'_> = waiting.iter().flat_map(|(_, leaving)| leaving).copied().collect();
    let mut present = within(unchanged.iter().copied().chain(created(writes)), &moving);
    let mut wanted = within(updated(writes), &moving);
    wanted.extend(&present);
    for (_, leaving) in &mut waiting {
        leaving.retain(|id| wanted.contains(id));
    }
    while !waiting.is_empty() {
        let safe = waiting.iter().position(|(_, leaving)| leaving.iter().all(|id| present.contains(id)));
        let (index, _) = waiting.remove(safe.unwrap_or(0));
        if let Write::Update { slice, .. } = &writes[index] {
            present.extend(within(std::iter::once(slice), &moving));
        }
        turns.push(if safe.is_some() { Turn::AsPlanned(index) } else { Turn::Split(index) });
    }
    turns
}

/// The endpoints that an update takes out of its slice.
fn leaving(write: &Write) -> Identities<'_> {
    let Write::Update { slice, from } = write else { return HashSet::new() };
    let stays: Identities<'_> = slice.endpoints.iter().map(Identity::of).collect();
    from.endpoints.iter().map(Identity::of).filter(|id| !stays.contains(id)).collect()
}

/// Those of some endpoints that slices hold.
fn within<'a>(slices: impl Iterator<Item = &'a EndpointSlice>, some: &Identities<'_>) -> Identities<'a> {
    if some.is_empty() {
        return HashSet::new();
    }
    slices.flat_map(|slice| &slice.endpoints).map(Identity::of).filter(|id| some.contains(id)).collect()
}

fn created(writes: &[Write]) -> impl Iterator<Item = &EndpointSlice> {
    writes.iter().filter_map(|write| if let Write::Create(slice) = write { Some(slice) } else { None })
}

fn updated(writes: &[Write]) -> impl Iterator<Item = &EndpointSlice> {
    writes.iter().filter_map(|write| if let Write::Update { slice, .. } = write { Some(slice) } else { None })
}

fn as_new(mut slice: EndpointSlice) -> EndpointSlice {
    let service = slice.metadata.labels.get(crate::written::SERVICE_NAME_LABEL).unwrap_or_default();
    slice.metadata.generate_name = format!("{service}-");
    slice.metadata.name.clear();
    slice.metadata.uid.clear();
    slice.metadata.resource_version.clear();
    slice.metadata.rest.clear();
    slice
}

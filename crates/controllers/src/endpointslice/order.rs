//! The order of the writes: at every moment, an endpoint that was there before and is there afterwards is there.
//!
//! Creates go first and deletes last. An update that takes an endpoint out of its slice waits until the update that
//! puts it elsewhere is through; where updates wait for each other in a ring, one becomes a new slice and a deletion.

use std::collections::HashSet;

use super::pack::Identity;
use super::plan::Write;
use crate::written::EndpointSlice;

fn identities(slice: &EndpointSlice) -> HashSet<Identity> {
    slice.endpoints.iter().map(Identity::of).collect()
}

/// An update that is not done yet.
struct Waiting {
    write: Write,
    /// Endpoints that leave this slice and must be elsewhere first.
    leaving: Vec<Identity>,
}

/// Orders the writes of one Service. `unchanged` are the slices that stay as they are.
pub(crate) fn in_order(writes: Vec<Write>, unchanged: &[&EndpointSlice]) -> Vec<Write> {
    let mut wanted: HashSet<Identity> = unchanged.iter().flat_map(|slice| identities(slice)).collect();
    let mut present = wanted.clone();
    let (mut ordered, mut deletes, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
    for write in &writes {
        if let Write::Create(slice) | Write::Update { slice, .. } = write {
            wanted.extend(identities(slice));
        }
    }
    for write in writes {
        match &write {
            Write::Create(slice) => {
                present.extend(identities(slice));
                ordered.push(write);
            }
            Write::Delete(_) => deletes.push(write),
            Write::Update { slice, from } => {
                let stays = identities(slice);
                let left =
                    identities(from).into_iter().filter(|id| wanted.contains(id) && !stays.contains(id));
                waiting.push(Waiting { leaving: left.collect(), write });
            }
        }
    }
    while !waiting.is_empty() {
        let safe = waiting.iter().position(|update| update.leaving.iter().all(|id| present.contains(id)));
        let next = waiting.remove(safe.unwrap_or(0));
        match (safe, next.write) {
            (None, Write::Update { slice, from }) => {
                present.extend(identities(&slice));
                ordered.push(Write::Create(as_new(slice)));
                deletes.insert(0, Write::Delete(from));
            }
            (_, write) => {
                if let Write::Update { slice, .. } = &write {
                    present.extend(identities(slice));
                }
                ordered.push(write);
            }
        }
    }
    ordered.append(&mut deletes);
    ordered
}

fn as_new(mut slice: EndpointSlice) -> EndpointSlice {
    let service = slice.metadata.labels.get(crate::written::SERVICE_NAME_LABEL).cloned().unwrap_or_default();
    slice.metadata.generate_name = format!("{service}-");
    slice.metadata.name.clear();
    slice.metadata.uid.clear();
    slice.metadata.resource_version.clear();
    slice.metadata.rest.clear();
    slice
}

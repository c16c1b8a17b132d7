//! What a client is told whose apply would take fields from others.

use std::fmt::Write as _;

use portolan_api::meta::v1::{Status, StatusCause, StatusDetails};
use portolan_api::status;

use super::entries::{Manager, Operation};
use super::set::{Set, display};

/// Fields of one other manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) manager: Manager,
    pub(crate) fields: Set,
}

/// 409 with one cause for each field.
pub(crate) fn refusal(conflicts: &[Conflict]) -> Status {
    let mut conflicts: Vec<(String, Vec<String>)> = conflicts
        .iter()
        .map(|conflict| {
            let paths = conflict.fields.paths();
            (shown(&conflict.manager), paths.iter().map(|path| display(path)).collect())
        })
        .collect();
    conflicts.sort();
    let causes: Vec<StatusCause> = conflicts
        .iter()
        .flat_map(|(manager, paths)| paths.iter().map(move |path| (manager, path)))
        .map(|(manager, path)| StatusCause {
            reason: "FieldManagerConflict".into(),
            message: format!("conflict with {manager}"),
            field: path.clone(),
        })
        .collect();
    let message = match causes.as_slice() {
        [cause] => format!("Apply failed with 1 conflict: {}: {}", cause.message, cause.field),
        causes => {
            let blocks = conflicts.iter().map(|(manager, paths)| {
                let lines: Vec<String> = paths.iter().map(|path| format!("- {path}")).collect();
                format!("conflicts with {manager}:\n{}", lines.join("\n"))
            });
            let blocks: Vec<String> = blocks.collect();
            format!("Apply failed with {} conflicts: {}", causes.len(), blocks.join("\n"))
        }
    };
    let mut refused = status::bad_request(message);
    refused.code = 409;
    refused.reason = "Conflict".into();
    refused.details = Some(StatusDetails { causes, ..StatusDetails::default() });
    refused
}

fn shown(manager: &Manager) -> String {
    let mut text = portolan_api::field::go_quote(&manager.name);
    if !manager.subresource.is_empty() {
        let _ = write!(text, " with subresource {:?}", manager.subresource);
    }
    if manager.operation == Operation::Update {
        let _ = write!(text, " using {}", manager.api_version);
    }
    text
}

//! Selectors: which objects a request is about, by labels ([`LabelQuery`]) and by fields ([`FieldQuery`]).

mod fields;
mod labels;

pub use fields::{FieldQuery, FieldTerm};
pub use labels::{LabelQuery, Operator, Requirement};

/// A selector that cannot be read. The text is Kubernetes'.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

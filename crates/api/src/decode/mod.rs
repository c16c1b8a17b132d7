//! Decoding: JSON against a schema, strictly.
//!
//! One pass reads the bytes and finds unknown and duplicate fields (with their paths) and values of the wrong type (in
//! Go's words). The result is normalised as Kubernetes' own round trip would leave it: `null` and, where absent and
//! empty are the same, empty values are gone; times have second precision. What to do about problems is the caller's
//! business: refuse (Strict), warn (Warn) or drop them silently (Ignore). The reader itself is in `read`.

mod read;

use std::fmt;

use serde::de::{DeserializeSeed as _, Deserializer};
use serde_json::{Map, Value};

use crate::field::go_quote;
use crate::resource::Resource;
use crate::schema::Schema;
use crate::suggest;
use read::{Seed, State};

/// The largest body a server reads: Kubernetes' own limit.
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Problems beyond this many are not collected: nobody reads them, and a hostile body could hold millions.
pub const PROBLEMS_MAX: usize = 100;
/// Nesting beyond this is refused. Bytes meet the parser's own limit of the same size first.
pub const DEPTH_MAX: usize = 128;

/// An object that can be used, and what was wrong with its text.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub value: Value,
    pub problems: Vec<Problem>,
}

/// Something that strict decoding refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    UnknownField { path: String, near: Option<&'static str> },
    DuplicateField { path: String },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownField { path, near } => {
                write!(f, "unknown field {}", go_quote(path))?;
                match near {
                    Some(near) => write!(f, " ({})", suggest::did_you_mean(near)),
                    None => Ok(()),
                }
            }
            Self::DuplicateField { path } => write!(f, "duplicate field {}", go_quote(path)),
        }
    }
}

/// Why no object could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the body is larger than {BODY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("{0}")]
    Syntax(String),
    #[error("{0}")]
    Type(String),
}

/// Reads JSON bytes as an object of this schema.
pub fn decode(bytes: &[u8], schema: &'static Schema) -> Result<Decoded, DecodeError> {
    if bytes.len() > BODY_BYTES_MAX {
        return Err(DecodeError::TooLarge);
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let decoded = run(&mut reader, schema)?;
    reader.end().map_err(|e| DecodeError::Syntax(e.to_string()))?;
    Ok(decoded)
}

/// The same for JSON that has been parsed already: the result of a patch, or YAML.
pub fn check(value: &Value, schema: &'static Schema) -> Result<Decoded, DecodeError> {
    run(value, schema)
}

/// Fields given twice in JSON of any shape. Of what is not JSON, those before the mistake.
pub fn duplicates(bytes: &[u8]) -> Vec<Problem> {
    let mut state = State::default();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    // Whoever reads the value says what is wrong with it.
    _ = Seed::of_anything(&mut state).deserialize(&mut reader);
    state.problems
}

/// `strict decoding error: unknown field "spec.foo", duplicate field "spec.type"`.
pub fn strict_error(problems: &[impl fmt::Display]) -> String {
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    format!("strict decoding error: {}", texts.join(", "))
}

/// The message of the 400 that answers a body that cannot be read.
pub fn cannot_be_handled(resource: &Resource, error: impl fmt::Display) -> String {
    format!("{0} in version \"{1}\" cannot be handled as a {0}: {error}", resource.kind, resource.version)
}

fn run<'de, D>(deserializer: D, schema: &'static Schema) -> Result<Decoded, DecodeError>
where
    D: Deserializer<'de>,
    D::Error: fmt::Display,
{
    let mut state = State::default();
    let value = Seed::of_object(&mut state, schema)
        .deserialize(deserializer)
        .map_err(|e| DecodeError::Syntax(e.to_string()))?;
    match state.type_error {
        Some(error) => Err(DecodeError::Type(error)),
        None => Ok(Decoded {
            value: value.unwrap_or_else(|| Value::Object(Map::new())),
            problems: state.problems,
        }),
    }
}

#[cfg(test)]
mod tests;

//! Why a call failed, and whether to try again.

use serde::{Deserialize, Serialize};

/// The part of `meta/v1` Status that a caller acts on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    pub code: u16,
    pub reason: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusDetails {
    pub name: String,
    pub group: String,
    pub kind: String,
    pub retry_after_seconds: u32,
    pub causes: Vec<StatusCause>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusCause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with an error.
    #[error("{}", api_text(.0))]
    Api(Box<Status>),
    /// No answer: connection, TLS or a body cut short. A write may or may not have happened.
    #[error("cannot reach the API server: {0}")]
    Transport(String),
    /// The answer is not what was asked for.
    #[error("cannot decode the API server's answer: {0}")]
    Decode(String),
    /// A kubeconfig or service account file is missing or wrong; the text names the file and the field.
    #[error("{0}")]
    Config(String),
}

fn api_text(status: &Status) -> String {
    if status.message.is_empty() {
        format!("the API server answered {} {}", status.code, status.reason)
    } else {
        status.message.clone()
    }
}

impl Error {
    /// The API server's Status, if it answered.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Error::Api(status) => Some(status),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(|s| s.code == 404)
    }

    /// Somebody else wrote the object first: read it again and redo the change.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|s| s.code == 409 && s.reason != "AlreadyExists")
    }

    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(|s| s.code == 409 && s.reason == "AlreadyExists")
    }

    /// The resource version or continue token is too old: list again.
    pub fn is_expired(&self) -> bool {
        self.status().is_some_and(|s| s.code == 410 || s.reason == "Expired" || s.reason == "Gone")
    }

    /// The same request, unchanged, can succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Api(status) => matches!(status.code, 429 | 500 | 502 | 503 | 504),
            Error::Transport(_) => true,
            Error::Decode(_) | Error::Config(_) => false,
        }
    }
}

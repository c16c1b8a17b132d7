//! Configuration and identities: `ConfigMap`, `Secret`, `ServiceAccount`.

use std::collections::BTreeMap;

use super::common::{LocalObjectReference, ObjectReference};
use crate::Bytes;

kind! {
    /// Configuration as keys and values.
    ConfigMap("io.k8s.api.core.v1.ConfigMap", "", "v1") {
        /// The data can no longer be changed.
        "immutable" immutable: Option<bool>,
        /// Values that are text.
        "data" data: BTreeMap<String, String>,
        /// Values that are bytes.
        "binaryData" binary_data: BTreeMap<String, Bytes>,
    }
}

kind! {
    /// Configuration that should not be shown.
    Secret("io.k8s.api.core.v1.Secret", "", "v1") {
        /// The data can no longer be changed.
        "immutable" immutable: Option<bool>,
        /// The values.
        "data" data: BTreeMap<String, Bytes>,
        /// Values as text; the server moves them into `data`.
        "stringData" string_data: BTreeMap<String, String>,
        /// What the secret is for.
        "type" type_: String [.go("v1.SecretType")],
    }
}

kind! {
    /// An identity for what runs in pods.
    ServiceAccount("io.k8s.api.core.v1.ServiceAccount", "", "v1") {
        /// Secrets that pods of this account may use.
        "secrets" secrets: Vec<ObjectReference> [.map(&["name"]).merge("name")],
        /// Secrets for pulling images.
        "imagePullSecrets" image_pull_secrets: Vec<LocalObjectReference>,
        /// Whether pods get a token by themselves.
        "automountServiceAccountToken" automount_service_account_token: Option<bool>,
    }
}

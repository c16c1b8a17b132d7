//! Which objects of a kind a request is about: label and field selectors, applied to stored bytes.
//!
//! Labels and names are read without parsing the rest of an object; only selectors on other fields parse it all.

use std::collections::BTreeMap;

use portolan_api::resource::Resource;
use portolan_api::selector::{FieldQuery, FieldTerm, LabelQuery, SelectorError};
use portolan_api::status;
use serde::Deserialize;
use serde_json::Value;

use crate::errors::{ApiError, Result};
use crate::query::Query;

const NAME: &str = "metadata.name";
const NAMESPACE: &str = "metadata.namespace";

/// Selectors of a list or watch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    labels: LabelQuery,
    fields: FieldQuery,
    /// Some field besides name and namespace is asked about.
    deep: bool,
}

#[derive(Deserialize)]
struct Head {
    metadata: HeadMeta,
}

#[derive(Deserialize)]
struct HeadMeta {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

impl Selection {
    /// Reads the selectors of a request.
    pub(crate) fn read(resource: &'static Resource, query: &Query) -> Result<Self> {
        let refused = |what: &str, error: &SelectorError| {
            ApiError::from(status::bad_request(if what == "label" {
                format!(
                    "unable to parse requirement: {}",
                    error.0.trim_start_matches("unable to parse requirement: ")
                )
            } else {
                error.0.clone()
            }))
        };
        let labels = LabelQuery::parse(query.get("labelSelector").unwrap_or_default())
            .map_err(|error| refused("label", &error))?;
        let fields = FieldQuery::parse(query.get("fieldSelector").unwrap_or_default(), resource)
            .map_err(|error| refused("field", &error))?;
        let deep = fields.terms.iter().any(|term| term.field != NAME && term.field != NAMESPACE);
        Ok(Self { labels, fields, deep })
    }

    /// Only the object of this name.
    pub(crate) fn with_name(mut self, name: &str) -> Self {
        self.fields.terms.push(FieldTerm { field: NAME.into(), value: name.into(), equal: true });
        self
    }

    /// Whether nothing is left out.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether a stored object is selected. Bytes that cannot be read are not.
    pub(crate) fn matches(&self, json: &[u8]) -> bool {
        if self.is_everything() {
            return true;
        }
        let Ok(Head { metadata }) = serde_json::from_slice(json) else { return false };
        let shallow = self.fields.terms.iter().all(|term| {
            let value = match term.field.as_str() {
                NAME => &metadata.name,
                NAMESPACE => &metadata.namespace,
                _ => return true,
            };
            (*value == term.value) == term.equal
        });
        shallow
            && self.labels.matches(&metadata.labels.unwrap_or_default())
            && (!self.deep
                || serde_json::from_slice::<Value>(json).is_ok_and(|object| self.fields.matches(&object)))
    }

    /// A prefix of the store that still holds every selected object: `base`, or less of it.
    pub(crate) fn narrow(&self, resource: &Resource, namespace: Option<&str>, base: &str) -> String {
        let namespace = namespace.or(self.fields.exact(NAMESPACE)).filter(|namespace| !namespace.is_empty());
        match (self.fields.exact(NAME), namespace) {
            (Some(name), _) if !resource.namespaced => resource.key("", name),
            (Some(name), Some(namespace)) => resource.key(namespace, name),
            (None, Some(namespace)) => resource.key_prefix(Some(namespace)),
            _ => base.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_api::resource::{NODES, PODS};

    fn selection(query: &str) -> Selection {
        Selection::read(&PODS, &Query::parse(Some(query))).unwrap()
    }

    #[test]
    fn bytes_are_matched() {
        let pod =
            br#"{"metadata":{"name":"a","namespace":"n","labels":{"app":"web"}},"spec":{"nodeName":"n1"}}"#;
        for (query, wanted) in [
            ("", true),
            ("labelSelector=app", true),
            ("labelSelector=app!%3Dweb", false),
            ("fieldSelector=metadata.name%3Da", true),
            ("fieldSelector=metadata.name!%3Da", false),
            ("fieldSelector=metadata.namespace%3Dm", false),
            ("fieldSelector=spec.nodeName%3Dn1,metadata.name%3Da&labelSelector=app%3Dweb", true),
            ("fieldSelector=spec.nodeName%3Dn2", false),
        ] {
            assert_eq!(selection(query).matches(pod), wanted, "{query}");
        }
        assert!(!selection("labelSelector=app").matches(b"{}"));
        assert!(!selection("labelSelector=app").matches(br#"{"metadata":{"labels":null}}"#));
    }

    #[test]
    fn names_narrow_the_search() {
        let by_name = selection("fieldSelector=metadata.name%3Da");
        let base = PODS.key_prefix(None);
        assert_eq!(by_name.narrow(&PODS, Some("n"), "/registry/pods/n/"), "/registry/pods/n/a");
        assert_eq!(by_name.narrow(&PODS, None, &base), base);
        assert_eq!(
            selection("fieldSelector=metadata.namespace%3Dn").narrow(&PODS, None, &base),
            "/registry/pods/n/"
        );
        let node = Selection::default().with_name("x");
        assert_eq!(node.narrow(&NODES, None, &NODES.key_prefix(None)), "/registry/minions/x");
    }
}

//! Field selectors: `metadata.name=web,status.phase!=Running`.

use serde_json::Value;

use super::SelectorError;
use crate::field::go_quote;
use crate::resource::{Resource, field_text};

/// One comparison of a field with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    pub field: String,
    pub value: String,
    /// `=` rather than `!=`.
    pub equal: bool,
}

/// Comparisons that must all hold; none selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldQuery {
    pub terms: Vec<FieldTerm>,
}

impl FieldQuery {
    /// Reads the query parameter `fieldSelector` for a resource.
    pub fn parse(text: &str, resource: &Resource) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in split_terms(text).into_iter().filter(|p| !p.is_empty()) {
            let unreadable =
                || SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'"));
            let (field, equal, value) = split_operator(&part).ok_or_else(unreadable)?;
            let value = unescape(value).ok_or_else(|| {
                SelectorError(format!("invalid field selector: invalid escape sequence: {value}"))
            })?;
            terms.push(FieldTerm { field: known_field(field, resource)?, value, equal });
        }
        Ok(Self { terms })
    }

    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    pub fn matches(&self, object: &Value) -> bool {
        self.terms.iter().all(|t| (selectable(object, &t.field) == t.value) == t.equal)
    }

    /// The value the field must have, if a term says so. With `metadata.name` a list is about one object.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }
}

/// The value of a field as selectors see it: zero values are spelled out.
fn selectable(object: &Value, field: &str) -> String {
    let text = field_text(object, field);
    if !text.is_empty() {
        if field == "source" {
            return field_text(object, "source.component");
        }
        return text;
    }
    match field {
        "spec.unschedulable" | "spec.hostNetwork" => "false".to_owned(),
        "reportingComponent" => field_text(object, "source.component"),
        _ => text,
    }
}

/// The field's proper name, if the resource offers it.
fn known_field(field: &str, resource: &Resource) -> Result<String, SelectorError> {
    let named = match (resource.kind, field) {
        ("Namespace", "name") => "metadata.name",
        ("Pod", "spec.host") => "spec.nodeName",
        (_, other) => other,
    };
    if named == "metadata.name"
        || (named == "metadata.namespace" && resource.namespaced)
        || resource.selectable_fields.contains(&named)
    {
        return Ok(named.to_owned());
    }
    Err(SelectorError(if resource.selectable_fields.is_empty() {
        format!(
            "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            go_quote(field)
        )
    } else {
        format!("field label not supported: {field}")
    }))
}

/// Splits at commas that are not escaped.
fn split_terms(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == ',' && !escaped {
            terms.push(String::new());
            continue;
        }
        escaped = c == '\\' && !escaped;
        if let Some(last) = terms.last_mut() {
            last.push(c);
        }
    }
    terms
}

/// Splits at the first operator.
fn split_operator(term: &str) -> Option<(&str, bool, &str)> {
    for (i, _) in term.char_indices() {
        let rest = &term[i..];
        for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((&term[..i], equal, value));
            }
        }
    }
    None
}

/// Takes `\\`, `\,` and `\=` for what they stand for. A bare `=` or a stray backslash is an error.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(chars.next().filter(|c| "\\,=".contains(*c))?),
            ',' | '=' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{ENDPOINT_SLICES, NODES, PODS, SERVICES};
    use serde_json::json;

    #[test]
    fn fields_match() {
        let object = json!({"metadata": {"name": "a", "namespace": "d"}, "spec": {"type": "NodePort"}});
        let matches = |text| FieldQuery::parse(text, &SERVICES).unwrap().matches(&object);
        for text in [
            "",
            "metadata.name=a",
            "metadata.name==a,spec.type=NodePort",
            "spec.type!=ClusterIP",
            "spec.clusterIP=",
        ] {
            assert!(matches(text), "{text}");
        }
        assert!(!matches("metadata.name=b"));
        assert!(!matches("spec.type!=NodePort"));
        let query = FieldQuery::parse("spec.unschedulable=false", &NODES).unwrap();
        assert!(query.matches(&json!({"spec": {}})));
        let query = FieldQuery::parse("metadata.name=a", &PODS).unwrap();
        assert_eq!(query.exact("metadata.name"), Some("a"));
    }

    #[test]
    fn unknown_fields_are_refused_in_kubernetes_words() {
        let error = |text, resource| FieldQuery::parse(text, resource).unwrap_err().0;
        assert_eq!(error("spec.foo=x", &SERVICES), "field label not supported: spec.foo");
        assert_eq!(
            error("x=y", &ENDPOINT_SLICES),
            "\"x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
        assert_eq!(error("abc", &SERVICES), "invalid selector: 'abc'; can't understand 'abc'");
    }

    #[test]
    fn escapes_are_undone() {
        let query = FieldQuery::parse(r"spec.type=a\,b\=c", &SERVICES).unwrap();
        assert_eq!(query.terms[0].value, "a,b=c");
    }
}

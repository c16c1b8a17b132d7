//! Label and field selectors, as far as tests need them.

use serde_json::Value;

#[derive(Debug, Clone, Default)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

impl Selector {
    pub(super) fn parse(labels: Option<&str>, fields: Option<&str>) -> Selector {
        let parse =
            |text: Option<&str>| split(text.unwrap_or_default()).into_iter().map(requirement).collect();
        Selector { labels: parse(labels), fields: parse(fields) }
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let label = |name: &str| object["metadata"]["labels"][name].as_str().map(str::to_owned);
        let field = |path: &str| {
            let pointer = format!("/{}", path.replace('.', "/"));
            // A field that is not set compares as the empty string.
            Some(object.pointer(&pointer).map_or(String::new(), |v| match v {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            }))
        };
        self.labels.iter().all(|r| r.holds(label)) && self.fields.iter().all(|r| r.holds(field))
    }
}

impl Requirement {
    fn holds(&self, lookup: impl Fn(&str) -> Option<String>) -> bool {
        match self {
            Requirement::Exists(name) => lookup(name).is_some(),
            Requirement::Absent(name) => lookup(name).is_none(),
            Requirement::In(name, values) => lookup(name).is_some_and(|v| values.contains(&v)),
            Requirement::NotIn(name, values) => lookup(name).is_none_or(|v| !values.contains(&v)),
        }
    }
}

/// At commas that are not in parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().map(str::trim).filter(|p| !p.is_empty()).collect()
}

fn requirement(text: &str) -> Requirement {
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some(name) = text.strip_prefix('!') {
        return Requirement::Absent(name.trim().into());
    }
    if let Some((name, value)) = text.split_once("!=") {
        return Requirement::NotIn(name.trim().into(), one(value));
    }
    if let Some((name, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Requirement::In(name.trim().into(), one(value));
    }
    if let Some((head, values)) = text.trim_end_matches(')').split_once('(') {
        let values = values.split(',').map(|v| v.trim().to_owned()).collect();
        let head = head.trim();
        return match head.strip_suffix(" notin") {
            Some(name) => Requirement::NotIn(name.trim().into(), values),
            None => Requirement::In(head.trim_end_matches(" in").trim().into(), values),
        };
    }
    Requirement::Exists(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_match_as_written() {
        let object = serde_json::json!({
            "metadata": { "name": "x", "labels": { "app": "web", "tier": "front" } },
            "spec": { "nodeName": "n1" }
        });
        let labels = |text| Selector::parse(Some(text), None).matches(&object);
        for text in
            ["", "app", "app=web", "app==web,tier!=back", "app in (db, web)", "!gone", "gone notin (x)"]
        {
            assert!(labels(text), "{text}");
        }
        for text in ["gone", "app=db", "app=web,tier=back", "app notin (db,web)", "!app", "gone in (x)"] {
            assert!(!labels(text), "{text}");
        }
        let fields = |text| Selector::parse(None, Some(text)).matches(&object);
        assert!(fields("spec.nodeName=n1,metadata.name!=y") && fields("spec.other="));
        assert!(!fields("spec.nodeName=n2"));
    }
}

//! Label selectors: `app=web,tier in (a, b),!legacy`.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::SelectorError;
use crate::meta::v1::LabelSelector;
use crate::validate::name::{label_value, qualified};

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Greater,
    Less,
}

/// One requirement on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted; one value for `=` and `!=`.
    pub values: Vec<String>,
}

/// Requirements that must all hold; none selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelQuery {
    pub requirements: Vec<Requirement>,
}

impl LabelQuery {
    /// Reads the query parameter `labelSelector`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Parser { tokens: tokens(text), at: 0 }.parse()
    }

    /// Labels that must have exactly these values, such as a Service's selector.
    pub fn of_map(labels: &BTreeMap<String, String>) -> Self {
        let requirements = labels.iter().map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: vec![value.clone()],
        });
        Self { requirements: requirements.collect() }
    }

    /// The selector in the spec of a Deployment and its like. An unknown operator is an error.
    pub fn of_selector(selector: &LabelSelector) -> Result<Self, SelectorError> {
        let mut query = Self::of_map(&selector.match_labels);
        for expression in &selector.match_expressions {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!("\"{other}\" is not a valid label selector operator")));
                }
            };
            query.requirements.push(requirement(&expression.key, operator, expression.values.clone())?);
        }
        Ok(query)
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_by(|key| labels.get(key).map(String::as_str))
    }

    /// The same of labels in whatever form; `get` gives the value of one.
    pub fn matches_by<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| r.matches(get(&r.key)))
    }

    /// Whether an object's labels match.
    pub fn matches_object(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.matches_by(|key| labels.get(key).and_then(Value::as_str))
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|x| x == v);
        match self.operator {
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Greater => self.compared(value).is_some_and(|(v, bound)| v > bound),
            Operator::Less => self.compared(value).is_some_and(|(v, bound)| v < bound),
        }
    }

    fn compared(&self, value: Option<&str>) -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.values.first().map(String::as_str).unwrap_or_default();
        match (self.operator, self.values.len()) {
            (Operator::In, 1) => write!(f, "{}={first}", self.key),
            (Operator::NotIn, 1) => write!(f, "{}!={first}", self.key),
            (Operator::In, _) => write!(f, "{} in ({})", self.key, self.values.join(",")),
            (Operator::NotIn, _) => write!(f, "{} notin ({})", self.key, self.values.join(",")),
            (Operator::Exists, _) => write!(f, "{}", self.key),
            (Operator::DoesNotExist, _) => write!(f, "!{}", self.key),
            (Operator::Greater, _) => write!(f, "{}>{first}", self.key),
            (Operator::Less, _) => write!(f, "{}<{first}", self.key),
        }
    }
}

impl fmt::Display for LabelQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&Requirement> = self.requirements.iter().collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        let texts: Vec<String> = sorted.into_iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

/// A checked requirement.
fn requirement(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Requirement, SelectorError> {
    if let Some(wrong) = qualified(key).first() {
        return Err(SelectorError(format!("key: Invalid value: \"{key}\": {wrong}")));
    }
    if values.is_empty() && matches!(operator, Operator::In | Operator::NotIn) {
        let detail = "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty";
        return Err(SelectorError(detail.to_owned()));
    }
    if matches!(operator, Operator::Greater | Operator::Less)
        && values.iter().any(|v| v.parse::<i64>().is_err())
    {
        return Err(SelectorError(format!(
            "values[0]: Invalid value: \"{}\": for 'Gt', 'Lt' operators, the value must be an integer",
            values.join(",")
        )));
    }
    for (i, value) in values.iter().enumerate() {
        if let Some(wrong) = label_value(value).first() {
            return Err(SelectorError(format!("values[{i}][{key}]: Invalid value: \"{value}\": {wrong}")));
        }
    }
    values.sort();
    values.dedup();
    Ok(Requirement { key: key.to_owned(), operator, values })
}

/// Symbols and words. What stands between symbols and blanks is a word.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' | ')' | ',' | '<' | '>' => 1,
            '!' | '=' => 1 + usize::from(rest[1..].starts_with('=')),
            _ => rest.find(|c: char| c.is_whitespace() || "(),<>!=".contains(c)).unwrap_or(rest.len()),
        };
        tokens.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    tokens
}

fn is_symbol(token: &str) -> bool {
    matches!(token, "(" | ")" | "," | "<" | ">" | "!" | "=" | "==" | "!=")
}

struct Parser {
    tokens: Vec<String>,
    at: usize,
}

impl Parser {
    /// The next token; the end of the text is the empty one.
    fn peek(&self) -> &str {
        self.tokens.get(self.at).map(String::as_str).unwrap_or_default()
    }

    fn next(&mut self) -> String {
        let token = self.peek().to_owned();
        self.at += 1;
        token
    }

    fn word(&mut self) -> Result<String, SelectorError> {
        let token = self.next();
        if token.is_empty() || is_symbol(&token) {
            return Err(SelectorError(format!("found '{token}', expected: identifier")));
        }
        Ok(token)
    }

    fn parse(mut self) -> Result<LabelQuery, SelectorError> {
        let mut requirements = Vec::new();
        loop {
            let token = self.peek();
            if token.is_empty() {
                return Ok(LabelQuery { requirements });
            }
            if is_symbol(token) && token != "!" {
                let text = format!("found '{token}', expected: !, identifier, or 'end of string'");
                return Err(SelectorError(text));
            }
            let read = self.requirement();
            requirements.push(read.map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?);
            match self.next().as_str() {
                "" => return Ok(LabelQuery { requirements }),
                "," => {
                    let token = self.peek();
                    if token.is_empty() || (is_symbol(token) && token != "!") {
                        return Err(SelectorError(format!(
                            "found '{token}', expected: identifier after ','"
                        )));
                    }
                }
                other => {
                    return Err(SelectorError(format!("found '{other}', expected: ',' or 'end of string'")));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.peek() == "!" {
            self.next();
            let key = self.word()?;
            return requirement(&key, Operator::DoesNotExist, Vec::new());
        }
        let key = self.word()?;
        if matches!(self.peek(), "" | ",") {
            return requirement(&key, Operator::Exists, Vec::new());
        }
        let token = self.next();
        let operator = match token.as_str() {
            "=" | "==" | "in" => Operator::In,
            "!=" | "notin" => Operator::NotIn,
            ">" => Operator::Greater,
            "<" => Operator::Less,
            other => {
                let text = format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt");
                return Err(SelectorError(text));
            }
        };
        let values = if matches!(token.as_str(), "in" | "notin") { self.set()? } else { vec![self.exact()?] };
        requirement(&key, operator, values)
    }

    /// The value of `=`; it may be empty.
    fn exact(&mut self) -> Result<String, SelectorError> {
        if matches!(self.peek(), "" | ",") { Ok(String::new()) } else { self.word() }
    }

    /// `(a, b)`; an item may be empty.
    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        let open = self.next();
        if open != "(" {
            return Err(SelectorError(format!("found '{open}' expected: '('")));
        }
        let mut values = Vec::new();
        if self.peek() == ")" {
            self.next();
            return Ok(values);
        }
        loop {
            if matches!(self.peek(), "," | ")") {
                values.push(String::new());
            } else {
                let token = self.next();
                if token.is_empty() || is_symbol(&token) {
                    return Err(SelectorError(format!("found '{token}', expected: ',', ')' or identifier")));
                }
                values.push(token);
            }
            match self.next().as_str() {
                "," => {}
                ")" => return Ok(values),
                other => return Err(SelectorError(format!("found '{other}', expected: ',' or ')'"))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        LabelQuery::parse(selector).unwrap().matches(&labels)
    }

    #[test]
    fn selectors_match_as_kubernetes_reads_them() {
        let labels = [("app", "web"), ("size", "5")];
        for selector in [
            "",
            "app",
            "app=web",
            "app == web",
            "app!=db",
            "other!=x",
            "!other",
            "app in (web, db)",
            "app notin (db)",
            "other notin (x)",
            "size>4",
            "size<6",
            "app=web,size",
            "app in (web,)",
        ] {
            assert!(matches(selector, &labels), "{selector}");
        }
        for selector in [
            "app=db",
            "other",
            "!app",
            "app in (db)",
            "app notin (web,db)",
            "size>5",
            "app=",
            "app=web,!size",
        ] {
            assert!(!matches(selector, &labels), "{selector}");
        }
    }

    #[test]
    fn bad_selectors_are_refused_in_kubernetes_words() {
        for (selector, text) in [
            ("=x", "found '=', expected: !, identifier, or 'end of string'"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a=b,", "found '', expected: identifier after ','"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            (
                "a in ()",
                "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values \
              set can't be empty",
            ),
            ("a=(", "unable to parse requirement: found '(', expected: identifier"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ] {
            assert_eq!(LabelQuery::parse(selector).unwrap_err().0, text, "{selector}");
        }
        let error = LabelQuery::parse("-a=b").unwrap_err().0;
        assert!(
            error.starts_with("unable to parse requirement: key: Invalid value: \"-a\": name part must"),
            "{error}"
        );
    }

    #[test]
    fn a_struct_selector_reads_the_same() {
        let selector: LabelSelector = serde_json::from_str(
            r#"{"matchLabels":{"b":"c"},"matchExpressions":[{"key":"a","operator":"NotIn","values":["y","x"]}]}"#,
        )
        .unwrap();
        let query = LabelQuery::of_selector(&selector).unwrap();
        assert_eq!(query.to_string(), "a notin (x,y),b=c");
    }
}

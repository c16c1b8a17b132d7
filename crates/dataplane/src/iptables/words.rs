//! What our chains and rules are for, in plain words, and which of them concern a Service. For people; nothing here
//! decides anything.

use portolan_forward::ServiceTable;

use super::layout::{MARK_OTHERS, SERVICES};
use super::object::{Key, Object, Objects, Selector};
use super::rules::Rule;
use crate::Change;

/// Whether the change is about what the Service needs, or about something that should not be there and acts as the
/// Service's. `wanted`: every object that the Service and the node need.
pub fn concerns(change: &Change<Key, Object>, wanted: &Objects, service: Option<&ServiceTable>) -> bool {
    if change.to.is_some() || wanted.contains_key(&change.key) {
        return wanted.contains_key(&change.key);
    }
    let Some(service) = service else { return false };
    let name = service.key.to_string();
    let rules = change.from.iter().flat_map(|rules| rules.iter());
    let mut comments = rules.filter_map(|rule| match rule {
        Rule::Own { comment, .. } => comment.as_ref(),
        Rule::Foreign(_) => None,
    });
    // Without a frontend's rule nothing leads to a chain.
    comments.any(|comment| {
        comment.as_str().strip_prefix(&name).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    })
}

/// Whether the object follows from the proxy's settings rather than from a Service.
pub fn depends_on_settings(key: &Key) -> bool {
    matches!(key, Key::Chain(_, _, name) if [SERVICES, MARK_OTHERS].contains(&name.as_str()))
}

/// What the object is, with the rules it holds.
pub fn describe(key: &Key, object: Option<&Object>) -> String {
    let what = match key {
        Key::Hook(..) => "the way from iptables' own chains to Portolan's".to_owned(),
        Key::Chain(_, _, name) => format!("the rules of chain {name}"),
        Key::Member(_, table, _, selector) => {
            let what = if table.as_str() == "nat" { "where it is translated" } else { "what is refused" };
            match selector {
                Selector::Frontend { first, last, .. } if first == last => {
                    format!("{what}: {selector:?}")
                }
                Selector::Source(within) => format!("that {within} is masqueraded when it reaches itself"),
                Selector::Frontend { .. } | Selector::Destination(_) => format!("the way to {selector:?}"),
                Selector::Foreign(_) => "a rule of somebody else's".to_owned(),
            }
        }
    };
    let rules = object.into_iter().flat_map(|rules| rules.iter()).map(ToString::to_string);
    let rules: Vec<_> = rules.collect();
    if rules.is_empty() {
        format!("{what} [{key:?}]")
    } else {
        format!("{what} [{key:?}: {}]", rules.join("; "))
    }
}

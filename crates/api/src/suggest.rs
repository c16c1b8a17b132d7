//! What was probably meant: the nearest known name.

use crate::field::go_quote;

/// The wording of a hint.
pub fn did_you_mean(name: &str) -> String {
    format!("did you mean {}?", go_quote(name))
}

/// The allowed value that differs only in case, or by at most two letters.
pub fn near_value<'a>(value: &str, allowed: &[&'a str]) -> Option<&'a str> {
    if let Some(same) = allowed.iter().find(|a| a.eq_ignore_ascii_case(value)) {
        return Some(same);
    }
    nearest(value, allowed.iter().copied(), 2)
}

/// The known field name nearest to an unknown one. Long names may differ by more letters than short ones.
pub fn near_field<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    if let Some(same) = known.clone().find(|k| k.eq_ignore_ascii_case(name)) {
        return Some(same);
    }
    nearest(name, known, (name.len() / 3).clamp(1, 3))
}

/// The nearest by edit distance, if near enough; a very short word has no near ones.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>, distance_max: usize) -> Option<&'a str> {
    if word.len() < 3 || word.len() > 100 {
        return None;
    }
    known
        .map(|k| (distance(word, k), k))
        .filter(|(d, k)| *d <= distance_max && *d * 2 < k.len().min(word.len()))
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

/// Letters inserted, deleted, replaced, or swapped with a neighbour; letters that differ in case only count as equal.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().map(|c| c.to_ascii_lowercase()).collect();
    let b: Vec<char> = b.chars().map(|c| c.to_ascii_lowercase()).collect();
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = last;
        last = row;
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_the_word_that_was_meant() {
        let fields = ["ports", "selector", "publishNotReadyAddresses", "clusterIP", "clusterIPs", "type"];
        let near = |name| near_field(name, fields.iter().copied());
        assert_eq!(near("pubishNotReadyAddresses"), Some("publishNotReadyAddresses"));
        assert_eq!(near("clusterIp"), Some("clusterIP"));
        assert_eq!(near("prots"), Some("ports"));
        assert_eq!(near("tpye"), Some("type"));
        assert_eq!(near("foo"), None);
        assert_eq!(near("replicas"), None);
    }

    #[test]
    fn values_are_near_by_case_or_two_letters() {
        assert_eq!(near_value("ClientIp", &["ClientIP", "None"]), Some("ClientIP"));
        assert_eq!(near_value("tcp", &["SCTP", "TCP", "UDP"]), Some("TCP"));
        assert_eq!(near_value("LoadBalancr", &["ClusterIP", "LoadBalancer"]), Some("LoadBalancer"));
        assert_eq!(near_value("foo", &["ClientIP", "None"]), None);
    }
}

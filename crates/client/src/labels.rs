//! Labels, annotations and selectors as caches keep them: sorted pairs in one piece of text.
//!
//! A cluster has a few of them on each of its objects, and as a map of strings even one pair takes 600 bytes. Looking one
//! up walks the pairs, which are few. Start at [`Labels`].

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Keys and values, sorted by key. Read and written as a JSON object; of a key that is there twice the last one counts.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels {
    /// Each key and each value behind its length.
    text: Box<str>,
}

impl Labels {
    pub fn new() -> Labels {
        Labels::default()
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().take_while(|(own, _)| *own <= key).find(|(own, _)| *own == key).map(|(_, value)| value)
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// In order of the keys.
    pub fn iter(&self) -> Iter<'_> {
        Iter { rest: &self.text }
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(key, _)| key)
    }

    pub fn len(&self) -> usize {
        self.iter().count()
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Sets a value, whatever there was.
    pub fn insert(&mut self, key: &str, value: &str) {
        let mut new = Vec::with_capacity(self.len() + 1);
        new.extend(self.iter().filter(|(own, _)| *own != key));
        let at = new.partition_point(|(own, _)| *own < key);
        new.insert(at, (key, value));
        *self = sorted(&new);
    }

    pub fn remove(&mut self, key: &str) {
        if self.contains_key(key) {
            *self = sorted(&self.iter().filter(|(own, _)| *own != key).collect::<Vec<_>>());
        }
    }

    pub fn clear(&mut self) {
        *self = Labels::default();
    }
}

/// From pairs in order, each key once.
fn sorted(pairs: &[(&str, &str)]) -> Labels {
    let bytes = pairs.iter().map(|(key, value)| key.len() + value.len() + 4).sum();
    let mut text = String::with_capacity(bytes);
    for part in pairs.iter().flat_map(|(key, value)| [key, value]) {
        put_length(&mut text, part.len());
        text.push_str(part);
    }
    Labels { text: text.into() }
}

/// Bits of a length in one character, which so is ASCII; another bit says that more follow.
const LENGTH_BITS: u32 = 6;
const MORE: u8 = 1 << LENGTH_BITS;

fn put_length(text: &mut String, mut length: usize) {
    loop {
        let low = (length % usize::from(MORE)) as u8;
        length >>= LENGTH_BITS;
        if length == 0 {
            return text.push(char::from(low));
        }
        text.push(char::from(low | MORE));
    }
}

/// The pairs of [`Labels`], in order.
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    rest: &'a str,
}

impl<'a> Iter<'a> {
    /// The next key or value. Texts are made by [`sorted`] alone, so each length is whole and what it counts is there.
    fn part(&mut self) -> Option<&'a str> {
        let (mut length, mut shift) = (0, 0);
        for (at, byte) in self.rest.bytes().enumerate() {
            length |= usize::from(byte % MORE) << shift;
            shift += LENGTH_BITS;
            if byte < MORE {
                let (part, rest) = self.rest[at + 1..].split_at(length);
                self.rest = rest;
                return Some(part);
            }
        }
        None
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.part()?, self.part()?))
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Labels {
        let pairs: Vec<(K, V)> = pairs.into_iter().collect();
        let mut refs: Vec<(&str, &str)> =
            pairs.iter().map(|(key, value)| (key.as_ref(), value.as_ref())).collect();
        // The last of one key is to stay, and of equal ones the first does.
        refs.reverse();
        refs.sort_by_key(|(key, _)| *key);
        refs.dedup_by_key(|(key, _)| *key);
        sorted(&refs)
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self)
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Labels, D::Error> {
        deserializer.deserialize_map(Pairs)
    }
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Labels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
        let mut pairs: Vec<(Text<'de>, Text<'de>)> = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(pairs.into_iter().collect())
    }
}

/// Text that stays where it was read from, if it can.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl AsRef<str> for Text<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().copied().collect()
    }

    /// Keys of many lengths, among them none and those around where a length takes another character.
    fn keys() -> Vec<String> {
        [0, 1, 2, 5, 63, 64, 65, 4_095, 4_096, 300_000]
            .map(|length| "ä".repeat(length / 2) + &"x".repeat(length % 2))
            .into()
    }

    #[test]
    fn they_are_as_a_map_is() {
        let (mut own, mut map) = (Labels::new(), BTreeMap::new());
        for (number, key) in keys().into_iter().enumerate() {
            own.insert(&key, &number.to_string());
            map.insert(key, number.to_string());
        }
        own.insert("x", "again");
        map.insert("x".into(), "again".into());
        assert!(own.iter().eq(map.iter().map(|(key, value)| (key.as_str(), value.as_str()))));
        assert_eq!(own.len(), map.len());
        for key in keys() {
            assert_eq!(own.get(&key), map.get(&key).map(String::as_str));
            own.remove(&key);
            assert!(!own.contains_key(&key));
        }
        assert!(own.is_empty() && own == Labels::default());
        own.remove("x");
        assert_eq!(own.get("x"), None);
    }

    #[test]
    fn order_does_not_matter_and_the_last_of_a_key_counts() {
        let one = labels(&[("b", "1"), ("a", "2"), ("b", "3"), ("", "4")]);
        assert_eq!(one, labels(&[("", "4"), ("a", "2"), ("b", "3")]));
        assert_eq!(one.keys().collect::<Vec<_>>(), ["", "a", "b"]);
        assert_eq!(one.get("b"), Some("3"));
        assert_ne!(labels(&[("a", "bc")]), labels(&[("ab", "c")]));
    }

    #[test]
    fn json_comes_and_goes_as_an_object() {
        let text = r#"{"b":"\u0000ü","a":"1","b":"2 \"quoted\""}"#;
        let own: Labels = serde_json::from_str(text).unwrap();
        let map: BTreeMap<String, String> = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&own).unwrap(), serde_json::to_string(&map).unwrap());
        assert_eq!(own, serde_json::from_value(serde_json::to_value(&map).unwrap()).unwrap());
        assert_eq!(serde_json::from_slice::<Labels>(b"{}").unwrap(), Labels::new());
        assert!(serde_json::from_str::<Labels>(r#"{"a":1}"#).is_err());
        assert!(serde_json::from_str::<Labels>("[]").is_err());
    }
}

//! YAML as Kubernetes reads it: a value, and the keys that a strict reader finds twice.

use std::collections::HashSet;

use portolan_api::decode;
use portolan_api::field::go_quote;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// YAML, of which JSON is a part, as a value. `y`, `no` and `on` are text, as YAML 1.2 has them; of a key that is there
/// twice the last one counts.
pub(crate) fn value(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let options = serde_saphyr::options! {
        strict_booleans: true,
        legacy_octal_numbers: true,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
    };
    // The library's message continues with a picture of the source; the first line says it.
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| error.to_string().lines().next().unwrap_or_default().to_string())
}

/// `line 9: key "x" already set in map` for each key of a YAML document that its map has already.
pub(crate) fn keys_twice(bytes: &[u8]) -> Vec<String> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Vec::new() };
    let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough };
    let mut found = Vec::new();
    // What is not YAML at all is refused by whoever wants its value.
    _ = serde_saphyr::with_deserializer_from_str_with_options(text, options, |reader| {
        KeysTwice { found: &mut found }.deserialize(reader)
    });
    found
}

/// What Go's YAML library says of them all.
pub(crate) fn strict_error(twice: &[String]) -> String {
    format!("yaml: unmarshal errors:\n  {}", twice.join("\n  "))
}

/// Walks through a document and notes the keys that come again.
struct KeysTwice<'a> {
    found: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for KeysTwice<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for KeysTwice<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(KeysTwice { found: self.found })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<serde_saphyr::Spanned<String>>()? {
            let line = key.referenced.line();
            let name = key.value;
            if seen.contains(&name) {
                if self.found.len() < decode::PROBLEMS_MAX {
                    self.found.push(format!("line {line}: key {} already set in map", go_quote(&name)));
                }
            } else {
                seen.insert(name);
            }
            map.next_value_seed(KeysTwice { found: self.found })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_that_come_again_are_found_with_their_lines() {
        let text = b"a: 1\nb:\n  - {c: 1, c: 2}\n  - d: x\n    d: y\na: 2\n80: 1\n";
        assert_eq!(
            keys_twice(text),
            [
                "line 3: key \"c\" already set in map",
                "line 5: key \"d\" already set in map",
                "line 6: key \"a\" already set in map",
            ]
        );
        assert_eq!(value(text).unwrap(), json!({ "a": 2, "b": [{ "c": 2 }, { "d": "y" }], "80": 1 }));
        assert!(keys_twice(b"a: {b: 1}\nc: {b: 1}\n").is_empty());
        assert!(keys_twice(b"{").is_empty());
    }
}

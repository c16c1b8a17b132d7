//! Values as memory holds them: each as what tells it from samples of its kind.
//!
//! Objects of one kind are much alike: names of fields, managed fields, labels, addresses of one range. LZ4 with a
//! dictionary of such objects leaves a fifth of their text. Packing costs a few microseconds in the committer, opening
//! less than one for each kilobyte. What shares nothing, like sealed values, is held as it is.
//!
//! [`Packer`] packs, [`Packed`] opens; [`Held`] and [`Past`] are a key-value and an event with packed values.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use lz4_flex::block;

use crate::limits::{PACK_BYTES_MIN, SAMPLE_BYTES_MAX, SAMPLE_VALUES_MIN};
use crate::ring::Dated;
use crate::{Event, KeyValue, Revision};

/// One value. Cheap to clone, and small: there are some for each object.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    /// Where there are samples, behind the length of the value.
    bytes: Arc<[u8]>,
    /// What it was packed against; `None`: it is held as it is.
    samples: Option<Arc<Samples>>,
}

/// Some values of a kind, one behind the other.
type Samples = Box<[u8]>;

/// The length of a value, before what it was packed to.
const LENGTH_BYTES: usize = size_of::<u32>();

impl Packed {
    fn plain(value: &[u8]) -> Packed {
        Packed { bytes: value.into(), samples: None }
    }

    pub(super) fn open(&self) -> Bytes {
        let Some(samples) = &self.samples else { return Bytes::copy_from_slice(&self.bytes) };
        let value = block::decompress_size_prepended_with_dict(&self.bytes, samples);
        value.expect("was packed against these samples").into()
    }
}

/// A key's current value but for the key.
#[derive(Debug, Clone)]
pub(super) struct Held {
    value: Packed,
    create_revision: Revision,
    pub(super) mod_revision: Revision,
}

impl Held {
    pub(super) fn open(&self, key: &Arc<str>) -> KeyValue {
        KeyValue {
            key: key.clone(),
            value: self.value.open(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
        }
    }
}

/// An [`Event`] that has happened.
#[derive(Debug, Clone)]
pub(super) struct Past {
    pub(super) revision: Revision,
    pub(super) key: Arc<str>,
    value: Option<Packed>,
    pub(super) previous: Option<Held>,
    create_revision: Revision,
}

impl Past {
    pub(super) fn new(
        revision: Revision,
        key: Arc<str>,
        create_revision: Revision,
        value: Option<Packed>,
        previous: Option<Held>,
    ) -> Past {
        Past { revision, key, value, previous, create_revision }
    }

    pub(super) fn is_deletion(&self) -> bool {
        self.value.is_none()
    }

    /// What the key holds after it.
    pub(super) fn current(&self) -> Option<Held> {
        let (value, create_revision) = (self.value.clone()?, self.create_revision);
        Some(Held { value, create_revision, mod_revision: self.revision })
    }

    pub(super) fn open(&self) -> Event {
        Event {
            revision: self.revision,
            key: self.key.clone(),
            value: self.value.as_ref().map(Packed::open),
            previous: self.previous.as_ref().map(|previous| previous.open(&self.key)),
        }
    }
}

impl Dated for Past {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn size(&self) -> usize {
        let previous = self.previous.as_ref().map_or(0, |previous| previous.value.bytes.len());
        let value = self.value.as_ref().map_or(0, |value| value.bytes.len());
        size_of::<Past>() + self.key.len() + value + previous
    }
}

/// Packs values, and learns from them what values of each kind are like.
#[derive(Debug, Default)]
pub(super) struct Packer {
    kinds: HashMap<Box<str>, Kind>,
    scratch: Vec<u8>,
}

#[derive(Debug, Default)]
struct Kind {
    samples: Arc<Samples>,
    /// Values packed since the samples were begun anew.
    values: usize,
}

impl Packer {
    /// `previous` is what the key held, so that it is not packed twice.
    pub(super) fn past(&mut self, event: &Event, previous: Option<Held>) -> Past {
        let value = event.value.as_ref().map(|value| self.pack(&event.key, value));
        let create_revision = previous.as_ref().map_or(event.revision, |previous| previous.create_revision);
        Past::new(event.revision, event.key.clone(), create_revision, value, previous)
    }

    pub(super) fn pack(&mut self, key: &str, value: &[u8]) -> Packed {
        if value.len() < PACK_BYTES_MIN {
            return Packed::plain(value);
        }
        let directory = directory(key);
        if !self.kinds.contains_key(directory) {
            self.kinds.insert(directory.into(), Kind::default());
        }
        let Some(kind) = self.kinds.get_mut(directory) else { return Packed::plain(value) };
        kind.values += 1;
        let mut packed = compress(&mut self.scratch, value, &kind.samples);
        let worth = |len: usize| len < value.len() - value.len() / 8;
        // What a first value shares with itself says little of what it will share with others.
        let promising = worth(packed) || (kind.samples.is_empty() && packed < value.len());
        if packed > value.len() / 3 && promising && kind.learn(value) {
            packed = compress(&mut self.scratch, value, &kind.samples);
        }
        if !worth(packed) {
            return Packed::plain(value);
        }
        let bytes = self.scratch[..LENGTH_BYTES + packed].into();
        Packed { bytes, samples: Some(kind.samples.clone()) }
    }
}

impl Kind {
    /// Takes a value that the samples do not serve well among them. Whether it did.
    fn learn(&mut self, value: &[u8]) -> bool {
        if self.samples.len() + value.len() <= SAMPLE_BYTES_MAX {
            self.samples = Arc::new([&**self.samples, value].concat().into());
        } else if self.values >= SAMPLE_VALUES_MIN || self.samples.is_empty() {
            self.samples = Arc::new(value[..value.len().min(SAMPLE_BYTES_MAX)].into());
            self.values = 0;
        } else {
            return false;
        }
        true
    }
}

/// The length of the packed value, which is in `out`, behind that of the value.
fn compress(out: &mut Vec<u8>, value: &[u8], samples: &[u8]) -> usize {
    let room = LENGTH_BYTES + block::get_maximum_output_size(value.len());
    if out.len() < room {
        out.resize(room, 0);
    }
    let (length, packed) = out.split_at_mut(LENGTH_BYTES);
    length.copy_from_slice(&(value.len() as u32).to_le_bytes());
    // It has room for whatever comes; were it not so, the value would not be worth packing.
    block::compress_into_with_dict(value, packed, samples).unwrap_or(value.len())
}

/// Objects whose keys begin alike are of one kind: `/registry/configmaps` of `/registry/configmaps/default/a`.
fn directory(key: &str) -> &str {
    let mut slashes = key.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
    match (slashes.next(), slashes.next()) {
        (Some(_), Some(second)) => &key[..second],
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn service(number: usize) -> String {
        format!(
            r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"creationTimestamp":"2026-01-02T03:04:05Z","labels":{{"app":"app-{number}"}},"managedFields":[{{"apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{{"f:spec":{{"f:ports":{{}},"f:selector":{{}},"f:type":{{}}}}}},"manager":"kubectl","operation":"Update"}}],"name":"app-{number}","namespace":"default"}},"spec":{{"clusterIP":"10.96.{}.{}","internalTrafficPolicy":"Cluster","ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","ports":[{{"port":80,"protocol":"TCP"}}],"type":"ClusterIP"}}}}"#,
            number / 256,
            number % 256
        )
    }

    #[test]
    fn values_that_are_alike_take_little() {
        let mut packer = Packer::default();
        let (mut plain, mut held) = (0, 0);
        for number in 0..1000 {
            let value = service(number);
            let packed =
                packer.pack(&format!("/registry/services/specs/default/app-{number}"), value.as_bytes());
            assert_eq!(packed.open(), value);
            (plain, held) = (plain + value.len(), held + packed.bytes.len());
        }
        assert!(held * 5 < plain, "{held} bytes of {plain}");
    }

    #[test]
    fn values_that_are_alike_take_little_although_each_repeats_nothing() {
        let mut packer = Packer::default();
        let (mut plain, mut held) = (0, 0);
        for number in 0..1000 {
            let uid = format!("{:08x}-1b9d-4e1c-9f3a-7c5d8e2f6a4b", number * 2_654_435_761_u64 % (1 << 32));
            let value = format!(
                r#"{{"apiVersion":"networking.k8s.io/v1","kind":"IPAddress","metadata":{{"creationTimestamp":"2026-01-02T03:04:05Z","name":"10.96.0.{number}","uid":"{uid}"}},"spec":{{"parentRef":{{"name":"app-{number}"}}}}}}"#
            );
            let packed = packer.pack(&format!("/registry/ipaddresses/10.96.0.{number}"), value.as_bytes());
            assert_eq!(packed.open(), value);
            (plain, held) = (plain + value.len(), held + packed.bytes.len());
        }
        assert!(held * 3 < plain, "{held} bytes of {plain}");
    }

    #[test]
    fn what_shares_nothing_is_held_as_it_is() {
        let mut packer = Packer::default();
        for number in 0..100 {
            let value: Vec<u8> = (0..400).map(|_| rand::random()).collect();
            let packed = packer.pack(&format!("/registry/secrets/default/{number}"), &value);
            assert!(packed.samples.is_none() && packed.open() == value);
        }
        assert!(packer.kinds["/registry/secrets"].samples.is_empty(), "nothing was learnt from it");
    }

    #[test]
    fn samples_are_begun_anew_but_seldom() {
        let mut packer = Packer::default();
        let mut seen: Vec<Arc<Samples>> = Vec::new();
        for number in 0..10_000_u32 {
            // Each shares a little with itself and nothing with the others.
            let word: String = (0..40).map(|_| rand::random_range('a'..='z')).collect();
            let value =
                format!("{word}{word}{}", (0..40).map(|_| rand::random_range('a'..='z')).collect::<String>());
            let packed =
                packer.pack(&format!("/registry/odd/{number}/x"), &value.repeat(2).as_bytes()[..200]);
            if let Some(samples) =
                packed.samples.filter(|samples| !seen.iter().any(|s| Arc::ptr_eq(s, samples)))
            {
                seen.push(samples);
            }
        }
        let each = SAMPLE_BYTES_MAX / 200 + 1;
        assert!(seen.len() <= each * (10_000 / SAMPLE_VALUES_MIN + 1), "{} different samples", seen.len());
    }

    #[test]
    fn values_of_every_size_open_as_they_were() {
        let mut packer = Packer::default();
        for size in [0, 1, 127, 128, 4_095, 4_097, 65_535, 65_536, 200_000, crate::limits::VALUE_SIZE_MAX] {
            let services: String = (0..=size / 400).map(service).collect();
            for value in [&services[..size], &"x".repeat(size), &services[services.len() - size..]] {
                let packed = packer.pack("/registry/services/specs/default/large", value.as_bytes());
                assert!(packed.open() == value, "{size} bytes");
            }
        }
    }

    #[test]
    fn kinds_are_told_by_their_keys() {
        for (key, kind) in [
            ("/registry/pods/default/a", "/registry/pods"),
            ("/registry/nodes/a", "/registry/nodes"),
            ("/a", ""),
            ("/a/b", ""),
            ("", ""),
        ] {
            assert_eq!(directory(key), kind, "{key}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_packed_opens_as_it_was(values in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..2000),
                "(\\{\"metadata\":\\{\"name\":\"[a-z]{1,8}\"\\}\\},?){1,200}".prop_map(String::into_bytes),
            ],
            1..30,
        )) {
            let mut packer = Packer::default();
            for value in values {
                prop_assert_eq!(packer.pack("/registry/x/y", &value).open(), value);
            }
        }
    }
}

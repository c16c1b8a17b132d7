//! What is fed with arbitrary input by `tests/fuzz.rs` for a moment and by `cargo run -p xtask -- fuzz` for as long as one
//! likes: every decoder, patch engine and selector, and what reads the head of a request.
//!
//! A target takes bytes and panics if something does not hold. What must hold everywhere: no panic, no endless loop, no
//! stack overflow. Beyond that, each target says what it checks. [`Input`] makes inputs: changed seeds, and documents that
//! are very long or very deep.

use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use portolan_api::decode;
use portolan_api::resource::{PODS, RESOURCES, Resource, SERVICES};
use portolan_api::selector::{FieldQuery, LabelQuery};
use portolan_api::{Time, status};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

use crate::managed::{self, Apply, Manager, Operation, Scope};
use crate::patch::{self, Kind};
use crate::query::Query;
use crate::verbs::connect::target;
use crate::{negotiate, object, path, protobuf, yaml};

/// Something that takes arbitrary bytes.
#[derive(Debug)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Feeds it.
    pub run: fn(&[u8]),
    /// What inputs are made from.
    pub seeds: &'static [&'static [u8]],
}

/// All of them.
pub static TARGETS: &[Target] = &[
    Target { name: "json", run: json, seeds: OBJECTS },
    Target { name: "yaml", run: yaml, seeds: YAML },
    Target { name: "protobuf", run: protobuf, seeds: PROTOBUF },
    Target { name: "json-patch", run: |bytes| patched(Kind::Json, bytes), seeds: JSON_PATCHES },
    Target { name: "merge-patch", run: |bytes| patched(Kind::Merge, bytes), seeds: OBJECTS },
    Target { name: "strategic-patch", run: |bytes| patched(Kind::Strategic, bytes), seeds: STRATEGIC },
    Target { name: "apply", run: apply, seeds: OBJECTS },
    Target { name: "labels", run: labels, seeds: LABELS },
    Target { name: "fields", run: fields, seeds: FIELDS },
    Target { name: "request", run: request, seeds: REQUESTS },
    Target { name: "proxied", run: proxied, seeds: PROXIED },
    Target { name: "stored", run: stored, seeds: OBJECTS },
];

/// Seeds that are text.
const fn bytes<const N: usize>(texts: [&'static str; N]) -> [&'static [u8]; N] {
    let (mut all, mut n) = ([&[] as &[u8]; N], 0);
    while n < N {
        all[n] = texts[n].as_bytes();
        n += 1;
    }
    all
}

const OBJECTS: &[&[u8]] = &bytes([
    r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"a","labels":{"x":"y"},"finalizers":["f"]},"spec":{"type":"NodePort","selector":{"app":"a"},"ports":[{"name":"http","port":80,"targetPort":"web","nodePort":30080,"protocol":"TCP"},{"name":"dns","port":53,"protocol":"UDP"}],"sessionAffinityConfig":{"clientIP":{"timeoutSeconds":10}}},"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}}"#,
    r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","ownerReferences":[{"uid":"1","kind":"X","name":"x","apiVersion":"v1"}]},"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}],"env":[{"name":"A","value":"1"}],"args":["a","b"]}],"tolerations":[{"key":"k"}],"nodeSelector":{"a":"b"}}}"#,
    r#"{"metadata":{"creationTimestamp":null,"annotations":null},"spec":{"ports":null,"clusterIPs":["10.0.0.1"]}}"#,
    "[]",
    "null",
    "{}",
    "1e400",
    "\"\\ud800\"",
]);
const YAML: &[&[u8]] = &bytes([
    "apiVersion: v1\nkind: Service\nmetadata:\n  name: &n a\n  labels: {x: *n}\nspec:\n  ports:\n  - {port: 0x50, name: \"a\"}\n",
    "a: |\n  text\n  more\nb: >-\n  folded\n? complex\n: yes\n",
    "--- !!binary aGk=\n...\n---\n- a\n-\n  - b\n",
    "<<: {a: 1}\n",
]);
const PROTOBUF: &[&[u8]] = &bytes([
    "k8s\0\n\r\n\x02v1\x12\x07Service\x12\x10\n\x0e\n\x01a\x12\0\x1a\x07default",
    "k8s\0\n\x16\n\x02v1\x12\x10DeleteOptions\0\0\0\x12\x02\x08\x05",
    "k8s\0",
]);
const JSON_PATCHES: &[&[u8]] = &bytes([
    r#"[{"op":"add","path":"/metadata/labels/a~1b","value":{"c":[1]}},{"op":"remove","path":"/spec/ports/0"},{"op":"copy","from":"/spec","path":"/spec/x"},{"op":"move","from":"/spec/x","path":"/y"},{"op":"test","path":"","value":null},{"op":"replace","path":"/spec/ports/-","value":1}]"#,
    r#"[{"op":"add","path":"/spec/ports/-","value":{"port":1}}]"#,
    "[]",
]);
const STRATEGIC: &[&[u8]] = &bytes([
    r#"{"spec":{"ports":[{"port":80,"$patch":"delete"},{"$patch":"replace"},{"port":81}],"$setElementOrder/ports":[{"port":81}],"$retainKeys":["ports"]}}"#,
    r#"{"metadata":{"$deleteFromPrimitiveList/finalizers":["f"],"finalizers":["g"],"labels":{"$patch":"replace","a":"b"}}}"#,
    r#"{"$patch":"merge","spec":{"containers":[{"name":"c","env":[{"name":"A","$patch":"delete"}]}]}}"#,
]);
const LABELS: &[&[u8]] = &bytes([
    "a=b,c!=d",
    "x in (a,b,,c),!y",
    "a notin (b), z",
    "n>5,m<7",
    "example.com/name==v",
    " , ",
    "a in (",
]);
const FIELDS: &[&[u8]] =
    &bytes(["metadata.name=a,spec.nodeName!=b", "status.phase==R\\,x\\=\\\\", "metadata.name=", "=a", ",,"]);
const REQUESTS: &[&[u8]] = &bytes([
    "/api/v1/namespaces/default/pods/a/exec?command=ls&command=-l&container=c%20d\napplication/json;as=Table;v=v1;g=meta.k8s.io,application/json\ngzip;q=0.5",
    "/apis/apps/v1/watch/deployments?watch=1&labelSelector=a%3Db&limit=5&continue=e30\n*/*;q=0.1, application/vnd.kubernetes.protobuf\nidentity",
    "/api/v1/%zz?a=%ff&&=&b\napplication/yaml\n",
]);

const PROXIED: &[&[u8]] = &bytes([
    "/api/v1/namespaces/default/services/https:web:443/proxy/a/../b//c%2f%ff?x\nhttp://10.1.0.5:80/login?a=/b#c",
    "//api/v1/nodes/n1:10250/%70roxy\n/x/../y/",
    "/apis/g/v1/namespaces/proxy/pods/:p:/proxy/%2e%2e/\n//u@localhost:8001/api/v1/nodes/n1:10250/proxy/x",
]);

/// Whatever is decoded decodes to the same again, and without complaint.
fn json(bytes: &[u8]) {
    for resource in pick(bytes) {
        let Ok(first) = decode::decode(bytes, (resource.schema)()) else { continue };
        let again = decode::decode(&object::encode(&first.value), (resource.schema)());
        let again = again.unwrap_or_else(|e| panic!("{} does not decode again: {e:?}", first.value));
        assert_eq!(again.value, first.value);
        assert!(again.problems.is_empty(), "{:?}", again.problems);
    }
}

/// What YAML says can be said in JSON.
fn yaml(bytes: &[u8]) {
    _ = yaml::keys_twice(bytes);
    if let Ok(value) = yaml::value(bytes) {
        let again: Value = serde_json::from_slice(&object::encode(&value)).expect("written by us");
        assert_eq!(again, value);
    }
}

fn protobuf(bytes: &[u8]) {
    if let Ok(value) = protobuf::decode(bytes) {
        assert!(value.is_object());
    }
}

/// The current object stays as it is, and what comes out can be written.
fn patched(kind: Kind, bytes: &[u8]) {
    for (resource, seed) in [(&SERVICES, OBJECTS[0]), (&PODS, OBJECTS[1])] {
        let current: Value = serde_json::from_slice(seed).expect("a seed of ours");
        if let Ok(new) = patch::apply(kind, (resource.schema)(), &current, bytes) {
            let again: Value = serde_json::from_slice(&object::encode(&new)).expect("written by us");
            assert_eq!(again, new);
        }
    }
}

/// What was applied is applied again without changing anything.
fn apply(bytes: &[u8]) {
    let Ok(config) = yaml::value(bytes) else { return };
    if !config.is_object() || config["metadata"].get("managedFields").is_some() {
        return;
    }
    for (resource, seed) in [(&SERVICES, OBJECTS[0]), (&PODS, OBJECTS[1])] {
        let live: Value = serde_json::from_slice(seed).expect("a seed of ours");
        let manager = Manager {
            name: "fuzz".into(),
            operation: Operation::Apply,
            api_version: resource.api_version(),
            subresource: String::new(),
        };
        let how = Apply {
            schema: (resource.schema)(),
            scope: Scope::NotStatus,
            manager: &manager,
            force: true,
            about: "a/b; v1, Kind=X",
            now: Time::from_second(1),
        };
        if let Ok(once) = managed::apply(how, &live, &config) {
            let twice = managed::apply(how, &once, &config);
            let twice = twice.unwrap_or_else(|s| panic!("the second time: {} {config}", s.message));
            assert_eq!(twice, once, "applied twice: {config}");
        }
    }
}

/// What a selector says of itself selects the same.
fn labels(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(query) = LabelQuery::parse(text) {
        // In another order, perhaps: requirements hold together.
        let again = LabelQuery::parse(&query.to_string()).map(|again| again.to_string());
        assert_eq!(again.ok(), Some(query.to_string()), "{text:?}");
        query.matches_object(&serde_json::json!({"metadata": {"labels": {"a": "b", "n": "6"}}}));
    }
}

fn fields(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let object: Value = serde_json::from_slice(OBJECTS[1]).expect("a seed of ours");
    if let Ok(query) = FieldQuery::parse(text, &PODS) {
        query.matches(&object);
        query.exact("metadata.name");
    }
}

/// Path and query, Accept and Content-Type, Accept-Encoding: one line each.
fn request(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let target = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let (at, query) = target.split_once('?').unwrap_or((&target, ""));
    path::parse(at);
    let query = Query::parse(Some(query));
    for name in ["watch", "limit", "continue", "labelSelector"] {
        let (_, _, _) = (query.get(name), query.flag(name), query.number(name).is_ok());
    }
    let mut headers = HeaderMap::new();
    for (name, line) in [(ACCEPT, lines.next()), (ACCEPT_ENCODING, lines.next())] {
        if let Some(value) = line.and_then(|line| HeaderValue::from_bytes(line).ok()) {
            headers.insert(CONTENT_TYPE, value.clone());
            headers.insert(name, value);
        }
    }
    negotiate::accept(&headers, |_| true);
    negotiate::body_syntax(&headers);
    negotiate::accepts_gzip(&headers);
}

/// A path and, on the next line, a `Location` of the answer. What the target is asked for is an absolute path without
/// dots and nothing else; redirects that stay with the target stay in the proxy, however often they are told.
fn proxied(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (at, told) = text.split_once('\n').unwrap_or((&text, ""));
    let Ok(at) = at.parse::<http::Uri>() else { return };
    let at = at.path();
    let (own, beyond) = path::split_proxied(at);
    assert_eq!([own, beyond.unwrap_or_default()].concat(), at);
    let Some(beyond) = beyond else { return };
    if let Some(asked) = target::path(beyond) {
        assert!(
            asked.is_empty() == beyond.is_empty() && asked.bytes().all(|b| b.is_ascii_graphic()),
            "{asked:?}"
        );
        assert!(asked.is_empty() || asked.starts_with('/') && !asked.contains(['?', '#']), "{asked:?}");
        assert!(
            !asked.split('/').any(|part| matches!(part, "." | "..")) && !asked.contains("//"),
            "{asked:?}"
        );
        assert_eq!(target::path(&asked).as_ref(), Some(&asked));
    }
    if let Some(path::Target::Resource(parsed)) = path::parse(at) {
        assert_eq!((parsed.subresource.as_deref(), parsed.beyond.as_deref()), (Some("proxy"), Some(beyond)));
        target::Named::parse(&parsed.name.unwrap_or_default());
    }
    let prefix = format!("/{}", own.trim_start_matches('/'));
    let tell = |told: &str| target::location(told, &prefix, "10.1.0.5:80", "localhost:8001");
    let once = tell(told);
    assert_eq!(tell(&once), once, "{told:?}");
    assert!(once == told || once.contains(&prefix), "{once:?}");
}

/// Putting the version into stored bytes is the same as putting it into the object.
fn stored(bytes: &[u8]) {
    let mut out = Vec::new();
    if object::splice(&mut out, "/k", bytes, 7).is_ok()
        && let Ok(parsed) = object::parse("/k", bytes, 7)
        && let Ok(mut spliced) = serde_json::from_slice::<Value>(&out)
    {
        // A foreign writer may have left one of its own behind ours.
        object::meta_mut(&mut spliced).insert("resourceVersion".into(), "7".into());
        assert_eq!(spliced, parsed);
    }
    let _ = status::internal_error("x");
}

fn pick(bytes: &[u8]) -> [&'static Resource; 2] {
    let sum: usize = bytes.iter().map(|byte| usize::from(*byte)).sum();
    [RESOURCES[sum % RESOURCES.len()], &SERVICES]
}

/// Makes inputs for a target, the same ones for the same seed.
#[derive(Debug)]
pub struct Input {
    random: SmallRng,
}

/// Pieces that break things.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "null",
    "true",
    "-1",
    "1e999",
    "18446744073709551616",
    "0.1",
    "\\u0000",
    "\\ud800",
    "\u{feff}",
    "é",
    "\0",
    "\n",
    "$patch",
    "$retainKeys",
    "metadata",
    "managedFields",
    "name",
    "~1",
    "/-",
    "%00",
    "%",
    "&",
    "=",
    "!",
    " in (",
    ")",
    ">",
    ";q=",
    "*",
    "&a ",
    "*a ",
    "<<: ",
    "!!",
    "|\n",
    "- ",
    "k8s\0",
    "\x0a",
];

impl Input {
    /// From one seed, one sequence of inputs.
    pub fn new(seed: u64) -> Self {
        Self { random: SmallRng::seed_from_u64(seed) }
    }

    /// The next input for `target`.
    pub fn next(&mut self, target: &Target) -> Vec<u8> {
        let random = &mut self.random;
        if random.random_ratio(1, 64) {
            return vast(random);
        }
        let seed = target.seeds.choose(random).copied().unwrap_or_default();
        let mut bytes = seed.to_vec();
        for _ in 0..random.random_range(0..6) {
            change(&mut bytes, target, random);
        }
        bytes
    }
}

fn change(bytes: &mut Vec<u8>, target: &Target, random: &mut SmallRng) {
    let at = random.random_range(0..=bytes.len());
    let end = (at + random.random_range(0..24)).min(bytes.len());
    match random.random_range(0..7) {
        0 => drop(bytes.drain(at..end)),
        1 => {
            let piece = bytes[at..end].to_vec();
            let to = random.random_range(0..=bytes.len());
            bytes.splice(to..to, piece);
        }
        2 => {
            let other = target.seeds.choose(random).copied().unwrap_or_default();
            let from = random.random_range(0..=other.len());
            let piece = other[from..(from + 40).min(other.len())].to_vec();
            bytes.splice(at..end, piece);
        }
        3 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
        4 if at < bytes.len() => bytes[at] = random.random(),
        5 => bytes.truncate(at),
        _ => {
            let word = WORDS.choose(random).copied().unwrap_or_default();
            bytes.splice(at..at, word.bytes());
        }
    }
}

/// Long or deep.
fn vast(random: &mut SmallRng) -> Vec<u8> {
    let many = random.random_range(100..4000);
    let (open, inside, close) = *[
        ("[", "1", "]"),
        ("{\"spec\":", "1", "}"),
        ("{\"metadata\":{\"labels\":", "{}", "}}"),
        ("- ", "a", ""),
        ("{a: ", "1", "}"),
        ("\"", "", "\""),
        ("a,", "b", ""),
        ("/", "x", ""),
        ("a in (", "b", ")"),
    ]
    .choose(random)
    .unwrap_or(&("[", "", "]"));
    [open.repeat(many), inside.to_owned(), close.repeat(many)].concat().into_bytes()
}

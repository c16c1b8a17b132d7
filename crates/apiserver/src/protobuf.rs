//! Bodies in Kubernetes' protobuf, as `kubectl create` sends them: read into the same values as JSON.
//!
//! Only reading, and only the kinds that kubectl creates by name; every such client also takes JSON as the answer.
//! The tables below name the fields by their numbers in Kubernetes' `generated.proto` files. Start at [`decode`].

mod access;

use serde_json::{Map, Value};

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// First bytes of every such body.
const MAGIC: &[u8] = b"k8s\0";

/// Messages nest no deeper in the kinds below; a body that does is hostile.
const DEPTH_MAX: usize = 16;

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtobufError {
    /// Not the envelope, or cut off.
    #[error("the body is not valid protobuf")]
    Malformed,
    /// A field is set that the table of its kind lacks.
    #[error("a field that is not understood in protobuf; send it as application/json")]
    Lost,
    /// A kind without a table.
    #[error("{kind} of {api_version} is not understood in protobuf; send it as application/json")]
    UnknownKind {
        /// Its version.
        api_version: String,
        /// Its kind.
        kind: String,
    },
}

use ProtobufError::{Lost, Malformed};

/// How the value of a field is written.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Int,
    Bool,
    Time,
    IntOrString,
    TextMap,
    BytesMap,
    /// Each value is a message of texts.
    ListMap,
    Object(&'static [Field]),
}

/// Number, JSON name, kind, and whether it is a list.
type Field = (u32, &'static str, Kind, bool);

const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    (number, name, kind, false)
}

const fn many(number: u32, name: &'static str, kind: Kind) -> Field {
    (number, name, kind, true)
}

const OWNER: &[Field] = &[
    one(1, "kind", Kind::Text),
    one(3, "name", Kind::Text),
    one(4, "uid", Kind::Text),
    one(5, "apiVersion", Kind::Text),
    one(6, "controller", Kind::Bool),
    one(7, "blockOwnerDeletion", Kind::Bool),
];

const META: &[Field] = &[
    one(1, "name", Kind::Text),
    one(2, "generateName", Kind::Text),
    one(3, "namespace", Kind::Text),
    one(5, "uid", Kind::Text),
    one(6, "resourceVersion", Kind::Text),
    one(7, "generation", Kind::Int),
    one(8, "creationTimestamp", Kind::Time),
    one(9, "deletionTimestamp", Kind::Time),
    one(10, "deletionGracePeriodSeconds", Kind::Int),
    one(11, "labels", Kind::TextMap),
    one(12, "annotations", Kind::TextMap),
    many(13, "ownerReferences", Kind::Object(OWNER)),
    many(14, "finalizers", Kind::Text),
];

const NAMESPACE: &[Field] = &[
    one(1, "metadata", Kind::Object(META)),
    one(2, "spec", Kind::Object(&[many(1, "finalizers", Kind::Text)])),
    one(3, "status", Kind::Object(&[one(1, "phase", Kind::Text)])),
];

const CONFIG_MAP: &[Field] = &[
    one(1, "metadata", Kind::Object(META)),
    one(2, "data", Kind::TextMap),
    one(3, "binaryData", Kind::BytesMap),
    one(4, "immutable", Kind::Bool),
];

const SECRET: &[Field] = &[
    one(1, "metadata", Kind::Object(META)),
    one(2, "data", Kind::BytesMap),
    one(3, "type", Kind::Text),
    one(4, "stringData", Kind::TextMap),
    one(5, "immutable", Kind::Bool),
];

const OBJECT_REFERENCE: &[Field] = &[
    one(1, "kind", Kind::Text),
    one(2, "namespace", Kind::Text),
    one(3, "name", Kind::Text),
    one(4, "uid", Kind::Text),
    one(5, "apiVersion", Kind::Text),
    one(6, "resourceVersion", Kind::Text),
    one(7, "fieldPath", Kind::Text),
];

const SERVICE_ACCOUNT: &[Field] = &[
    one(1, "metadata", Kind::Object(META)),
    many(2, "secrets", Kind::Object(OBJECT_REFERENCE)),
    many(3, "imagePullSecrets", Kind::Object(&[one(1, "name", Kind::Text)])),
    one(4, "automountServiceAccountToken", Kind::Bool),
];

const SERVICE_PORT: &[Field] = &[
    one(1, "name", Kind::Text),
    one(2, "protocol", Kind::Text),
    one(3, "port", Kind::Int),
    one(4, "targetPort", Kind::IntOrString),
    one(5, "nodePort", Kind::Int),
    one(6, "appProtocol", Kind::Text),
];

const AFFINITY: &[Field] = &[one(1, "clientIP", Kind::Object(&[one(1, "timeoutSeconds", Kind::Int)]))];

const SERVICE_SPEC: &[Field] = &[
    many(1, "ports", Kind::Object(SERVICE_PORT)),
    one(2, "selector", Kind::TextMap),
    one(3, "clusterIP", Kind::Text),
    one(4, "type", Kind::Text),
    many(5, "externalIPs", Kind::Text),
    one(7, "sessionAffinity", Kind::Text),
    one(8, "loadBalancerIP", Kind::Text),
    many(9, "loadBalancerSourceRanges", Kind::Text),
    one(10, "externalName", Kind::Text),
    one(11, "externalTrafficPolicy", Kind::Text),
    one(12, "healthCheckNodePort", Kind::Int),
    one(13, "publishNotReadyAddresses", Kind::Bool),
    one(14, "sessionAffinityConfig", Kind::Object(AFFINITY)),
    one(17, "ipFamilyPolicy", Kind::Text),
    many(18, "clusterIPs", Kind::Text),
    many(19, "ipFamilies", Kind::Text),
    one(20, "allocateLoadBalancerNodePorts", Kind::Bool),
    one(21, "loadBalancerClass", Kind::Text),
    one(22, "internalTrafficPolicy", Kind::Text),
    one(23, "trafficDistribution", Kind::Text),
];

const SERVICE: &[Field] =
    &[one(1, "metadata", Kind::Object(META)), one(2, "spec", Kind::Object(SERVICE_SPEC))];

const SELECTOR_REQUIREMENT: &[Field] =
    &[one(1, "key", Kind::Text), one(2, "operator", Kind::Text), many(3, "values", Kind::Text)];

const LABEL_SELECTOR: &[Field] =
    &[one(1, "matchLabels", Kind::TextMap), many(2, "matchExpressions", Kind::Object(SELECTOR_REQUIREMENT))];

const CONTAINER_PORT: &[Field] = &[
    one(1, "name", Kind::Text),
    one(2, "hostPort", Kind::Int),
    one(3, "containerPort", Kind::Int),
    one(4, "protocol", Kind::Text),
    one(5, "hostIP", Kind::Text),
];

const CONTAINER: &[Field] = &[
    one(1, "name", Kind::Text),
    one(2, "image", Kind::Text),
    many(3, "command", Kind::Text),
    many(4, "args", Kind::Text),
    one(5, "workingDir", Kind::Text),
    many(6, "ports", Kind::Object(CONTAINER_PORT)),
    many(7, "env", Kind::Object(&[one(1, "name", Kind::Text), one(2, "value", Kind::Text)])),
    one(8, "resources", Kind::Object(&[])),
    one(14, "imagePullPolicy", Kind::Text),
];

const POD_SPEC: &[Field] = &[
    many(2, "containers", Kind::Object(CONTAINER)),
    one(3, "restartPolicy", Kind::Text),
    one(4, "terminationGracePeriodSeconds", Kind::Int),
    one(6, "dnsPolicy", Kind::Text),
    one(7, "nodeSelector", Kind::TextMap),
    one(8, "serviceAccountName", Kind::Text),
    one(10, "nodeName", Kind::Text),
    one(11, "hostNetwork", Kind::Bool),
    one(14, "securityContext", Kind::Object(&[])),
    one(16, "hostname", Kind::Text),
    one(17, "subdomain", Kind::Text),
    one(19, "schedulerName", Kind::Text),
];

const ROLLING_UPDATE: &[Field] =
    &[one(1, "maxUnavailable", Kind::IntOrString), one(2, "maxSurge", Kind::IntOrString)];

const DEPLOYMENT_SPEC: &[Field] = &[
    one(1, "replicas", Kind::Int),
    one(2, "selector", Kind::Object(LABEL_SELECTOR)),
    one(
        3,
        "template",
        Kind::Object(&[one(1, "metadata", Kind::Object(META)), one(2, "spec", Kind::Object(POD_SPEC))]),
    ),
    one(
        4,
        "strategy",
        Kind::Object(&[one(1, "type", Kind::Text), one(2, "rollingUpdate", Kind::Object(ROLLING_UPDATE))]),
    ),
    one(5, "minReadySeconds", Kind::Int),
    one(6, "revisionHistoryLimit", Kind::Int),
    one(7, "paused", Kind::Bool),
    one(9, "progressDeadlineSeconds", Kind::Int),
];

/// Only what `kubectl create deployment` sets: more of it is refused, never dropped.
const DEPLOYMENT: &[Field] = &[
    one(1, "metadata", Kind::Object(META)),
    one(2, "spec", Kind::Object(DEPLOYMENT_SPEC)),
    one(3, "status", Kind::Object(&[])),
];

const PRECONDITIONS: &[Field] = &[one(1, "uid", Kind::Text), one(2, "resourceVersion", Kind::Text)];

const DELETE_OPTIONS: &[Field] = &[
    one(1, "gracePeriodSeconds", Kind::Int),
    one(2, "preconditions", Kind::Object(PRECONDITIONS)),
    one(3, "orphanDependents", Kind::Bool),
    one(4, "propagationPolicy", Kind::Text),
    many(5, "dryRun", Kind::Text),
];

/// `Unknown` of Kubernetes' runtime: the type, and the object as bytes.
const ENVELOPE_TYPE: &[Field] = &[one(1, "apiVersion", Kind::Text), one(2, "kind", Kind::Text)];

fn table(kind: &str) -> Option<&'static [Field]> {
    Some(match kind {
        "Namespace" => NAMESPACE,
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "ServiceAccount" => SERVICE_ACCOUNT,
        "Service" => SERVICE,
        "DeleteOptions" => DELETE_OPTIONS,
        "Deployment" => DEPLOYMENT,
        _ => return None,
    })
}

/// A kind of which the tables do not hold every field: one that is set and not known there must not get lost.
fn is_partial(kind: &str) -> bool {
    kind == "Deployment"
}

/// Whether a field says anything: Go writes empty values too.
fn says_something(wire: Wire<'_>) -> bool {
    !matches!(wire, Wire::Number(0) | Wire::Bytes([]))
}

/// The object in a body.
pub(crate) fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let mut rest = body.strip_prefix(MAGIC).ok_or(Malformed)?;
    let (mut meta, mut raw) = (Map::new(), &[][..]);
    while !rest.is_empty() {
        match field(&mut rest)? {
            (1, Wire::Bytes(bytes)) => meta = object(bytes, ENVELOPE_TYPE, 0, false)?,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let text = |name| meta.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let plain = table(&kind)
        .filter(|_| !api_version.contains('/') || matches!(kind.as_str(), "DeleteOptions" | "Deployment"));
    let Some(table) = plain.or_else(|| access::table(&api_version, &kind)) else {
        return Err(ProtobufError::UnknownKind { api_version, kind });
    };
    let partial = is_partial(&kind);
    let mut object = match object(raw, table, 0, partial) {
        Ok(object) => object,
        Err(Lost) => return Err(ProtobufError::UnknownKind { api_version, kind }),
        Err(error) => return Err(error),
    };
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

/// `whole`: a field that says something and is not among `fields` makes the object unreadable.
fn object(
    mut rest: &[u8],
    fields: &[Field],
    depth: usize,
    whole: bool,
) -> Result<Map<String, Value>, ProtobufError> {
    if depth > DEPTH_MAX {
        return Err(Malformed);
    }
    let mut out = Map::new();
    while !rest.is_empty() {
        let (number, wire) = field(&mut rest)?;
        let Some((_, name, kind, list)) = fields.iter().find(|f| f.0 == number) else {
            if whole && says_something(wire) {
                return Err(Lost);
            }
            continue;
        };
        match kind {
            Kind::TextMap | Kind::BytesMap | Kind::ListMap => {
                let (key, value) = entry(wire, *kind)?;
                let map = out.entry(*name).or_insert_with(|| Value::Object(Map::new()));
                map[key] = value;
            }
            kind => {
                let value = value(wire, *kind, depth, whole)?;
                if *list {
                    let items = out.entry(*name).or_insert_with(|| Value::Array(Vec::new()));
                    items.as_array_mut().ok_or(Malformed)?.push(value);
                } else {
                    out.insert((*name).into(), value);
                }
            }
        }
    }
    Ok(out)
}

fn value(wire: Wire<'_>, kind: Kind, depth: usize, whole: bool) -> Result<Value, ProtobufError> {
    Ok(match (kind, wire) {
        (Kind::Text, Wire::Bytes(bytes)) => utf8(bytes)?.into(),
        (Kind::Int, Wire::Number(number)) => (number as i64).into(),
        (Kind::Bool, Wire::Number(number)) => (number != 0).into(),
        (Kind::Time, Wire::Bytes(bytes)) => time(bytes)?,
        (Kind::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes)?,
        (Kind::Object(fields), Wire::Bytes(bytes)) => Value::Object(object(bytes, fields, depth + 1, whole)?),
        _ => return Err(Malformed),
    })
}

/// An entry of a map: a message of key 1 and value 2.
fn entry(wire: Wire<'_>, kind: Kind) -> Result<(String, Value), ProtobufError> {
    use base64::Engine as _;
    let Wire::Bytes(mut rest) = wire else { return Err(Malformed) };
    let (mut key, mut value) = (String::new(), &[][..]);
    while !rest.is_empty() {
        match field(&mut rest)? {
            (1, Wire::Bytes(bytes)) => key = utf8(bytes)?,
            (2, Wire::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    let value = match kind {
        Kind::BytesMap => base64::engine::general_purpose::STANDARD.encode(value).into(),
        Kind::ListMap => {
            let items = object(value, &[many(1, "items", Kind::Text)], 0, false)?.remove("items");
            items.unwrap_or_else(|| Value::Array(Vec::new()))
        }
        _ => utf8(value)?.into(),
    };
    Ok((key, value))
}

/// Seconds since 1970; no seconds at all is no time.
fn time(mut rest: &[u8]) -> Result<Value, ProtobufError> {
    let mut seconds = None;
    while !rest.is_empty() {
        if let (1, Wire::Number(number)) = field(&mut rest)? {
            seconds = Some(number as i64);
        }
    }
    Ok(seconds.map_or(Value::Null, |seconds| portolan_api::Time::from_second(seconds).to_string().into()))
}

/// Type (0 number, 1 text), number, text.
fn int_or_string(mut rest: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    while !rest.is_empty() {
        match field(&mut rest)? {
            (1, Wire::Number(kind)) => is_text = kind == 1,
            (2, Wire::Number(value)) => number = value as i64,
            (3, Wire::Bytes(bytes)) => text = utf8(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

fn utf8(bytes: &[u8]) -> Result<String, ProtobufError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed)
}

/// A field's value on the wire.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Fixed-width numbers, which none of our fields are.
    Other,
}

/// Takes the next field off `rest`.
fn field<'a>(rest: &mut &'a [u8]) -> Result<(u32, Wire<'a>), ProtobufError> {
    let tag = varint(rest)?;
    let number = u32::try_from(tag >> 3).map_err(|_| Malformed)?;
    let wire = match tag & 7 {
        0 => Wire::Number(varint(rest)?),
        1 => take(rest, 8).map(|_| Wire::Other)?,
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|_| Malformed)?;
            Wire::Bytes(take(rest, length)?)
        }
        5 => take(rest, 4).map(|_| Wire::Other)?,
        _ => return Err(Malformed),
    };
    Ok((number, wire))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], ProtobufError> {
    let (head, tail) = rest.split_at_checked(length).ok_or(Malformed)?;
    *rest = tail;
    Ok(head)
}

fn varint(rest: &mut &[u8]) -> Result<u64, ProtobufError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What `kubectl create secret generic s --from-literal=a=b` sends.
    const SECRET: &[u8] =
        b"k8s\x00\x0a\x0c\x0a\x02v1\x12\x06Secret\x12\x1d\x0a\x11\x0a\x01s\x12\x00\x1a\x00\x22\x00*\
          \x002\x008\x00B\x00\x12\x06\x0a\x01a\x12\x01b\x1a\x00\x1a\x00\x22\x00";
    /// What `kubectl create service clusterip s --tcp=80:80` sends.
    const SERVICE: &[u8] =
        b"k8s\x00\x0a\x0d\x0a\x02v1\x12\x07Service\x12`\x0a\x1b\x0a\x01s\x12\x00\x1a\x00\x22\x00*\
          \x002\x008\x00B\x00Z\x08\x0a\x03app\x12\x01s\x12=\x0a\x18\x0a\x0580-80\x12\x03TCP\x18P\x22\
          \x06\x08\x00\x10P\x1a\x00(\x00\x12\x08\x0a\x03app\x12\x01s\x1a\x00\x22\x09ClusterIP:\x00B\
          \x00R\x00Z\x00`\x00h\x00\x1a\x02\x0a\x00\x1a\x00\x22\x00";

    #[test]
    fn what_kubectl_sends_is_read() {
        let secret = decode(SECRET).unwrap();
        assert_eq!((&secret["kind"], &secret["metadata"]["name"]), (&json!("Secret"), &json!("s")));
        assert_eq!(secret["data"], json!({ "a": "Yg==" }));
        let service = decode(SERVICE).unwrap();
        let port = &service["spec"]["ports"][0];
        assert_eq!(
            (&port["name"], &port["port"], &port["targetPort"]),
            (&json!("80-80"), &json!(80), &json!(80))
        );
        assert_eq!(service["spec"]["selector"], json!({ "app": "s" }));
        assert_eq!(service["spec"]["type"], "ClusterIP");
    }

    /// A field of bytes: number, length, content.
    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, content.len() as u8], content].concat()
    }

    fn deployment(container_more: &[u8]) -> Vec<u8> {
        let container = [bytes(1, b"c"), bytes(2, b"i"), container_more.to_vec()].concat();
        let template = bytes(2, &bytes(2, &container));
        let spec = [vec![8, 3], bytes(2, &[]), bytes(3, &template), bytes(4, &bytes(1, b""))].concat();
        let object = [bytes(1, &bytes(1, b"web")), bytes(2, &spec)].concat();
        let meta = [bytes(1, b"apps/v1"), bytes(2, b"Deployment")].concat();
        [MAGIC.to_vec(), bytes(1, &meta), bytes(2, &object)].concat()
    }

    #[test]
    fn a_deployment_is_read_whole_or_not_at_all() {
        let read = decode(&deployment(&[])).unwrap();
        assert_eq!(read["spec"]["replicas"], 3);
        assert_eq!(read["spec"]["template"]["spec"]["containers"], json!([{ "name": "c", "image": "i" }]));
        assert!(decode(&deployment(&bytes(13, b""))).is_ok(), "Go writes empty values too");
        let probe = decode(&deployment(&bytes(11, b"\x08\x01"))).unwrap_err().to_string();
        assert_eq!(probe, "Deployment of apps/v1 is not understood in protobuf; send it as application/json");
    }

    #[test]
    fn damage_is_refused() {
        assert_eq!(decode(b"{}"), Err(Malformed));
        for end in MAGIC.len() + 1..SERVICE.len() {
            // Cut anywhere: refused, or a shorter object; never a panic.
            let _ = decode(&SERVICE[..end]);
        }
        let pod = [MAGIC, b"\x0a\x09\x0a\x02v1\x12\x03Pod"].concat();
        let error = decode(&pod).unwrap_err().to_string();
        assert_eq!(error, "Pod of v1 is not understood in protobuf; send it as application/json");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(tail in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = decode(&[MAGIC, &tail].concat());
            let _ = decode(&[&SERVICE[..20], &tail].concat());
        }
    }
}

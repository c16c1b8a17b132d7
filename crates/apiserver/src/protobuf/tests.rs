//! What Go writes, and what is damaged.

use super::*;
use serde_json::json;

/// What `kubectl create secret generic s --from-literal=a=b` sends.
pub(super) const SECRET: &[u8] =
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
    assert_eq!(
        secret,
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" }, "data": { "a": "Yg==" } }),
        "nothing that is empty"
    );
    let service = decode(SERVICE).unwrap();
    assert_eq!(
        service["spec"],
        json!({
            "ports": [{ "name": "80-80", "protocol": "TCP", "port": 80, "targetPort": 80 }],
            "selector": { "app": "s" },
            "type": "ClusterIP",
        })
    );
}

/// `testdata` holds one object of each kind as Kubernetes' own codecs write it, in both forms.
#[test]
fn every_kind_reads_from_protobuf_as_go_writes_it_in_json() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/protobuf/testdata");
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "pb") {
            let read = decode(&std::fs::read(&path).unwrap()).unwrap();
            let json = std::fs::read_to_string(path.with_extension("json")).unwrap();
            let mut want: Value = serde_json::from_str(&json).unwrap();
            drop_nulls(&mut want);
            assert_eq!(read, want, "{}", path.display());
            count += 1;
        }
    }
    assert_eq!(count, 17);
}

/// Go writes a time that is not set as null.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[test]
fn older_versions_that_say_the_same_are_read_as_the_present_one() {
    let meta = [b"\x0a\x1b".as_slice(), b"coordination.k8s.io/v1beta1", b"\x12\x05Lease"].concat();
    let lease = [MAGIC, &[0x0a, meta.len() as u8], &meta, b"\x12\x05\x0a\x03\x0a\x01l"].concat();
    assert_eq!(
        decode(&lease).unwrap(),
        json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "l" } })
    );
}

#[test]
fn damage_is_refused() {
    assert_eq!(decode(b"{}"), Err(Malformed));
    for end in MAGIC.len() + 1..SERVICE.len() {
        // Cut anywhere: refused, or a shorter object; never a panic.
        let _ = decode(&SERVICE[..end]);
    }
    let job = [MAGIC, b"\x0a\x0f\x0a\x08batch/v1\x12\x03Job"].concat();
    let error = decode(&job).unwrap_err().to_string();
    assert_eq!(error, "Job of batch/v1 is not understood in protobuf; send it as application/json");
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(tail in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = decode(&[MAGIC, &tail].concat());
        let _ = decode(&[&SERVICE[..20], &tail].concat());
    }
}

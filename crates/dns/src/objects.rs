//! The fields of API objects that names are made of, straight from JSON into views. Odd values are left out, so that one
//! bad address does not hide an object.
//!
//! A JSON `null` reads like a missing field, since Go clients write both.

use std::borrow::Cow;
use std::net::IpAddr;

use portolan_client::{BoxError, Key};
use serde::{Deserialize, Deserializer};

use crate::zone::view::{EndpointView, PodView, PortView, Protocol, ServiceKind, ServiceView, SliceView};

fn nullable<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// Text of the message where it has no escapes, which is nearly always.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Service<'a> {
    #[serde(borrow, deserialize_with = "nullable")]
    spec: ServiceSpec<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec<'a> {
    #[serde(rename = "type", borrow, deserialize_with = "nullable")]
    kind: Text<'a>,
    #[serde(rename = "clusterIP", borrow, deserialize_with = "nullable")]
    cluster_ip: Text<'a>,
    #[serde(rename = "clusterIPs", borrow, deserialize_with = "nullable")]
    cluster_ips: Vec<Text<'a>>,
    #[serde(borrow, deserialize_with = "nullable")]
    external_name: Text<'a>,
    #[serde(borrow, deserialize_with = "nullable")]
    ports: Vec<Port<'a>>,
}

/// Of a Service or of a slice.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Port<'a> {
    #[serde(borrow, deserialize_with = "nullable")]
    name: Text<'a>,
    #[serde(borrow, deserialize_with = "nullable")]
    protocol: Text<'a>,
    #[serde(rename = "port")]
    number: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Slice<'a> {
    #[serde(borrow)]
    metadata: SliceMeta<'a>,
    #[serde(borrow, deserialize_with = "nullable")]
    endpoints: Vec<Endpoint<'a>>,
    #[serde(borrow, deserialize_with = "nullable")]
    ports: Vec<Port<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SliceMeta<'a> {
    #[serde(borrow, deserialize_with = "nullable")]
    namespace: Text<'a>,
    #[serde(borrow, deserialize_with = "nullable")]
    labels: SliceLabels<'a>,
    #[serde(borrow, deserialize_with = "nullable")]
    annotations: SliceAnnotations<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SliceLabels<'a> {
    #[serde(rename = "kubernetes.io/service-name", borrow)]
    service: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SliceAnnotations<'a> {
    #[serde(rename = "endpoints.kubernetes.io/last-change-trigger-time", borrow)]
    trigger: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Endpoint<'a> {
    #[serde(borrow, deserialize_with = "nullable")]
    addresses: Vec<Text<'a>>,
    #[serde(deserialize_with = "nullable")]
    conditions: Conditions,
    #[serde(borrow)]
    hostname: Option<Text<'a>>,
    #[serde(borrow)]
    target_ref: Option<Target<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Target<'a> {
    #[serde(borrow, deserialize_with = "nullable")]
    kind: Text<'a>,
    #[serde(borrow, deserialize_with = "nullable")]
    name: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pod<'a> {
    #[serde(borrow, deserialize_with = "nullable")]
    status: PodStatus<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodStatus<'a> {
    #[serde(borrow, deserialize_with = "nullable")]
    phase: Text<'a>,
    #[serde(rename = "podIP", borrow, deserialize_with = "nullable")]
    pod_ip: Text<'a>,
    #[serde(rename = "podIPs", borrow, deserialize_with = "nullable")]
    pod_ips: Vec<PodIp<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp<'a> {
    #[serde(borrow, deserialize_with = "nullable")]
    ip: Text<'a>,
}

/// A Service's JSON as a view.
pub fn service(json: &[u8]) -> Result<ServiceView, BoxError> {
    let spec = serde_json::from_slice::<Service<'_>>(json)?.spec;
    let kind = if spec.kind.0 == "ExternalName" {
        ServiceKind::External(spec.external_name.0.into_owned())
    } else if spec.cluster_ip.0 == "None" || spec.cluster_ips.first().is_some_and(|ip| ip.0 == "None") {
        ServiceKind::Headless
    } else {
        let mut ips: Vec<IpAddr> = spec.cluster_ips.iter().filter_map(|ip| ip.0.parse().ok()).collect();
        // Servers from before dual stack write the one field only.
        if ips.is_empty() {
            ips.extend(spec.cluster_ip.0.parse::<IpAddr>());
        }
        ServiceKind::Cluster(ips)
    };
    Ok(ServiceView { kind, ports: ports(&spec.ports).collect() })
}

/// An `EndpointSlice`'s JSON as a view.
pub fn slice(json: &[u8]) -> Result<SliceView, BoxError> {
    let slice = serde_json::from_slice::<Slice<'_>>(json)?;
    let meta = &slice.metadata;
    let key = |name: &Text<'_>| Key::new(&*meta.namespace.0, &*name.0);
    Ok(SliceView {
        service: meta.labels.service.as_ref().filter(|name| !name.0.is_empty()).map(key),
        trigger_ns: meta.annotations.trigger.as_ref().and_then(|at| nanoseconds(&at.0)),
        endpoints: slice.endpoints.iter().map(endpoint).collect(),
        ports: ports(&slice.ports).collect(),
    })
}

/// A pod's JSON as a view. Pods that have ended have no address.
pub fn pod(json: &[u8]) -> Result<PodView, BoxError> {
    let status = serde_json::from_slice::<Pod<'_>>(json)?.status;
    if matches!(&*status.phase.0, "Succeeded" | "Failed" | "Unknown") {
        return Ok(PodView { addresses: Vec::new() });
    }
    let texts = status.pod_ips.iter().map(|ip| &ip.ip).chain([&status.pod_ip]);
    let mut addresses: Vec<IpAddr> = texts.filter_map(|text| text.0.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(PodView { addresses })
}

fn ports<'a>(ports: &'a [Port<'_>]) -> impl Iterator<Item = PortView> + 'a {
    ports.iter().filter_map(|port| {
        let protocol = match &*port.protocol.0 {
            "" | "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => return None,
        };
        let number = u16::try_from(port.number?).ok().filter(|port| *port != 0)?;
        Some(PortView { name: (*port.name.0).into(), protocol, port: number })
    })
}

fn endpoint(endpoint: &Endpoint<'_>) -> EndpointView {
    let pod = endpoint.target_ref.as_ref().filter(|t| t.kind.0.is_empty() || t.kind.0 == "Pod");
    EndpointView {
        // Names of type FQDN are no addresses and have no records.
        addresses: endpoint.addresses.iter().filter_map(|a| a.0.parse().ok()).collect(),
        ready: endpoint.conditions.ready.unwrap_or(true),
        hostname: endpoint.hostname.as_ref().map(|h| (*h.0).into()),
        target: pod.map(|t| (*t.name.0).into()),
    }
}

fn nanoseconds(text: &str) -> Option<i128> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_nanosecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_says_whose_it_is_and_since_when() {
        let json = br#"{"metadata":{"namespace":"n","labels":{"kubernetes.io/service-name":"s"},
            "annotations":{"endpoints.kubernetes.io/last-change-trigger-time":"1970-01-01T00:00:01Z"}}}"#;
        let view = slice(json).unwrap();
        assert_eq!(view.service, Some(Key::new("n", "s")));
        assert_eq!(view.trigger_ns, Some(1_000_000_000));
    }

    #[test]
    fn odd_objects_keep_what_is_sound() {
        let view = service(br#"{"spec":{"type":null,"clusterIPs":["10.0.0.1","x"],"ports":[{"port":0},{"port":80,"protocol":"QUIC"},{"port":81,"name":null}]}}"#).unwrap();
        assert_eq!(view.kind, ServiceKind::Cluster(vec!["10.0.0.1".parse().unwrap()]));
        assert_eq!(view.ports, [PortView { name: "".into(), protocol: Protocol::Tcp, port: 81 }]);
        let view = slice(br#"{"metadata":{},"endpoints":[{"addresses":["a.example","::1"],"conditions":null}],"ports":null}"#).unwrap();
        assert_eq!(view.service, None);
        assert_eq!(view.endpoints[0].addresses, ["::1".parse::<IpAddr>().unwrap()]);
        assert!(view.endpoints[0].ready);
        assert!(service(b"5").is_err());
    }

    #[test]
    fn pods_that_ended_have_no_address() {
        let json = |phase: &str| {
            format!(
                r#"{{"status":{{"phase":"{phase}","podIP":"10.1.0.1","podIPs":[{{"ip":"10.1.0.1"}},{{"ip":"fd00::1"}}]}}}}"#
            )
        };
        assert_eq!(pod(json("Running").as_bytes()).unwrap().addresses.len(), 2);
        assert_eq!(pod(json("Succeeded").as_bytes()).unwrap().addresses.len(), 0);
    }
}

//! Reads a configuration file strictly: every field is known or an error, and the error says which was meant.

use std::path::Path;

use portolan_api::suggest;
use serde_json::{Map, Value};

use super::configuration::{API_VERSION, Configuration, KIND};
use super::duration::GoDuration;

/// A configuration, and what of it has no effect here.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) configuration: Configuration,
    pub(crate) meaningless: Vec<String>,
}

/// Fields that are known, and mean nothing here. A prefix stands for all below it.
const MEANINGLESS: [&str; 11] = [
    "featureGates",
    "clientConnection.acceptContentTypes",
    "clientConnection.contentType",
    "clientConnection.qps",
    "clientConnection.burst",
    "enableProfiling",
    "showHiddenMetricsForVersion",
    "winkernel",
    "configSyncPeriod",
    "portRange",
    "windowsRunAsService",
];
/// Fields that kube-proxy had until 1.16 and 1.25. Files that kubeadm wrote then have all of them, and stay when a cluster
/// is updated.
const FORMER: [&str; 2] = ["resourceContainer", "udpIdleTimeout"];
/// What belongs to other modes.
const OTHER_MODES: [&str; 2] = ["iptables", "ipvs"];
/// Of `logging` only the verbosity counts.
const LOGGING_USED: &str = "verbosity";

pub(crate) fn file(path: &Path) -> anyhow::Result<Read> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| anyhow::anyhow!("cannot read {name}: {e}"))?;
    parse(&text).map_err(|problems| anyhow::anyhow!("{name}: {}", problems.join("\n  ")))
}

/// Reads YAML or JSON; gives every problem found.
pub(crate) fn parse(text: &str) -> Result<Read, Vec<String>> {
    let value: Value = serde_saphyr::from_str(text).map_err(|e| vec![e.to_string()])?;
    let Value::Object(mut object) = value else {
        return Err(vec![format!("this is no {KIND}: it must be an object with apiVersion and kind")]);
    };
    check_kind(&object)?;
    drop_nulls(&mut object);
    let known = serde_json::to_value(Configuration::default()).unwrap_or_default();
    let mut walk = Walk::default();
    walk.object(&object, &known, "");
    if !walk.problems.is_empty() {
        return Err(walk.problems);
    }
    let mut configuration: Configuration =
        serde_json::from_value(Value::Object(object)).map_err(|e| vec![e.to_string()])?;
    configuration.fill_in();
    walk.meaningless.retain(|path| !means_something_in(&configuration.mode, path));
    walk.meaningless.sort_unstable();
    Ok(Read { configuration, meaningless: walk.meaningless })
}

fn check_kind(object: &Map<String, Value>) -> Result<(), Vec<String>> {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if (version.as_str(), kind.as_str()) == (API_VERSION, KIND) {
        return Ok(());
    }
    Err(vec![format!("this is apiVersion {version:?}, kind {kind:?}; it must be {API_VERSION:?}, {KIND:?}")])
}

/// A null is a field that is not there.
fn drop_nulls(object: &mut Map<String, Value>) {
    object.retain(|_, value| !value.is_null());
    for value in object.values_mut() {
        if let Value::Object(inner) = value {
            drop_nulls(inner);
        }
    }
}

/// Compares a file with the defaults, which have every field and its type.
#[derive(Default)]
struct Walk {
    problems: Vec<String>,
    meaningless: Vec<String>,
}

impl Walk {
    fn object(&mut self, found: &Map<String, Value>, known: &Value, path: &str) {
        let Value::Object(known) = known else { return };
        for (name, value) in found {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if let Some(default) = known.get(name) {
                self.field(value, default, &path);
            } else if FORMER.contains(&&*path) {
                if is_set(value, &Value::Null) {
                    self.meaningless.push(path);
                }
            } else {
                let near = suggest::near_field(name, known.keys().map(String::as_str));
                let hint = near.map(|near| format!(" ({})", suggest::did_you_mean(near)));
                self.problems.push(format!("unknown field {path:?}{}", hint.unwrap_or_default()));
            }
        }
    }

    fn field(&mut self, value: &Value, default: &Value, path: &str) {
        let name = path.rsplit('.').next().unwrap_or(path);
        // Free within: the names of feature gates, and what kinds of loggers take.
        let free = path == "featureGates" || path.starts_with("logging.");
        if !free {
            let wrong = match (value, default) {
                (Value::String(text), Value::String(_))
                    if name.ends_with("Period") || name.ends_with("Timeout") =>
                {
                    text.parse::<GoDuration>().err()
                }
                (Value::String(_), Value::String(_))
                | (Value::Bool(_), Value::Bool(_))
                | (Value::Array(_), Value::Array(_))
                | (Value::Object(_), Value::Object(_)) => None,
                (Value::Number(number), Value::Number(wanted)) => {
                    let whole = number.is_i64() || wanted.is_f64();
                    (!whole).then(|| "must be a whole number".to_owned())
                }
                (_, wanted) => Some(format!("must be {}", type_of(wanted))),
            };
            if let Some(wrong) = wrong {
                self.problems.push(format!("{path}: Invalid value: {value}: {wrong}"));
                return;
            }
        }
        if let (Value::Object(inner), false) = (value, free) {
            return self.object(inner, default, path);
        }
        if has_no_meaning(path, name) && is_set(value, default) {
            self.meaningless.push(path.to_owned());
        }
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::Array(_) => "a list",
        _ => "an object",
    }
}

fn has_no_meaning(path: &str, name: &str) -> bool {
    let below = |prefix: &&str| {
        path.strip_prefix(*prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    MEANINGLESS.iter().chain(&OTHER_MODES).any(&below) || (below(&"logging") && name != LOGGING_USED)
}

/// Fields of `iptables` and `ipvs` count in these modes. Node ports on loopback addresses are served in no mode.
fn means_something_in(mode: &str, path: &str) -> bool {
    match path {
        "iptables.localhostNodePorts" => false,
        "iptables.masqueradeAll" | "iptables.masqueradeBit" => matches!(mode, "iptables" | "ipvs"),
        "iptables.syncPeriod" | "iptables.minSyncPeriod" => mode == "iptables",
        path => path.starts_with("ipvs.") && mode == "ipvs",
    }
}

/// Neither the default nor empty: kubeadm writes every field.
fn is_set(value: &Value, default: &Value) -> bool {
    let empty = match value {
        Value::Null => true,
        Value::Bool(value) => !value && !default.as_bool().unwrap_or(false),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "0s" || text == "0",
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.values().all(|value| !is_set(value, &Value::Null)),
    };
    !empty && value != default
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Read, Vec<String>> {
        parse(&format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{body}"))
    }

    /// What kubeadm puts into the cluster.
    const KUBEADM: &str = r#"
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack: {maxPerCore: null, min: null, tcpBeLiberal: false, tcpCloseWaitTimeout: null, tcpEstablishedTimeout: null, udpStreamTimeout: 0s, udpTimeout: 0s}
detectLocal: {bridgeInterface: "", interfaceNamePrefix: ""}
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: "", strictARP: false, syncPeriod: 0s, tcpFinTimeout: 0s, tcpTimeout: 0s, udpTimeout: 0s}
logging: {flushFrequency: 0, options: {json: {infoBufferSize: "0"}, text: {infoBufferSize: "0"}}, verbosity: 0}
metricsBindAddress: ""
mode: ""
nftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel: {enableDSR: false, forwardHealthCheckVip: false, networkName: "", rootHnsEndpointName: "", sourceVip: ""}
"#;

    #[test]
    fn kubeadms_file_is_the_defaults_and_no_warning() {
        let Read { mut configuration, meaningless } = read(KUBEADM).unwrap();
        assert_eq!(meaningless, Vec::<String>::new());
        assert_eq!(configuration.cluster_cidr, "10.244.0.0/16");
        assert_eq!(configuration.client_connection.kubeconfig, "/var/lib/kube-proxy/kubeconfig.conf");
        let default = Configuration::default();
        configuration.cluster_cidr.clear();
        configuration.client_connection.kubeconfig.clear();
        configuration.logging.clone_from(&default.logging);
        // kubeadm sets it, and 0 is taken at its word.
        configuration.iptables.min_sync_period = default.iptables.min_sync_period;
        assert_eq!(configuration, default);
    }

    #[test]
    fn files_of_old_clusters_are_read() {
        let old = |more: &str| read(&format!("{KUBEADM}{more}")).unwrap().meaningless;
        assert_eq!(old("udpIdleTimeout: 0s\nresourceContainer: ''\n"), Vec::<String>::new());
        let set = "udpIdleTimeout: 250ms\nresourceContainer: /kube-proxy\n";
        assert_eq!(old(set), ["resourceContainer", "udpIdleTimeout"]);
        assert!(read("conntrack: {udpIdleTimeout: 0s}").is_err());
    }

    #[test]
    fn unknown_fields_and_wrong_types_are_named_all_at_once() {
        let problems = read("clusterCidr: x\nnftables: {syncPerod: 1s, masqueradeBit: '3', syncPeriod: 30}\nmode: true\noomScoreAdj: 1.5\nconntrack: {min: many, udpTimeout: 5}\nnodePortAddresses: a\nipvs: {udpTimeout: 5x}\nblah: 1\n").unwrap_err();
        for expected in [
            r#"unknown field "clusterCidr" (did you mean "clusterCIDR"?)"#,
            r#"unknown field "nftables.syncPerod" (did you mean "syncPeriod"?)"#,
            r#"nftables.masqueradeBit: Invalid value: "3": must be a number"#,
            "nftables.syncPeriod: Invalid value: 30: must be text",
            "mode: Invalid value: true: must be text",
            "oomScoreAdj: Invalid value: 1.5: must be a whole number",
            r#"conntrack.min: Invalid value: "many": must be a number"#,
            r#"nodePortAddresses: Invalid value: "a": must be a list"#,
            r#"ipvs.udpTimeout: Invalid value: "5x": "5x" is not a duration such as 30s or 1h15m"#,
            r#"unknown field "blah""#,
        ] {
            assert!(
                problems.iter().any(|problem| problem == expected),
                "{expected}\nis not in {problems:#?}"
            );
        }
        assert_eq!(problems.len(), 11);
    }

    #[test]
    fn fields_without_meaning_are_named() {
        let text = "featureGates: {A: true}\nclientConnection: {qps: 50}\niptables: {masqueradeBit: 15, localhostNodePorts: false}\nipvs: {scheduler: rr, strictARP: true}\nwinkernel: {networkName: blue}\nlogging: {verbosity: 4, format: json}\nnftables: {masqueradeBit: 3}\nportRange: 1-2\n";
        let Read { configuration, meaningless } = read(text).unwrap();
        assert_eq!(
            meaningless,
            [
                "clientConnection.qps",
                "featureGates",
                "iptables.localhostNodePorts",
                "iptables.masqueradeBit",
                "ipvs.scheduler",
                "ipvs.strictARP",
                "logging.format",
                "portRange",
                "winkernel.networkName",
            ]
        );
        assert_eq!((configuration.nftables.masquerade_bit, configuration.verbosity()), (3, 4));
        let text = "mode: iptables\niptables: {masqueradeBit: 15, localhostNodePorts: false}\n";
        assert_eq!(read(text).unwrap().meaningless, ["iptables.localhostNodePorts"]);
        let text = "mode: ipvs\nipvs: {scheduler: wlc, strictARP: true, udpTimeout: 10s}\n";
        assert!(read(text).unwrap().meaningless.is_empty());
    }

    #[test]
    fn other_kinds_and_other_texts_are_refused() {
        let wrong =
            parse("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n").unwrap_err();
        assert!(wrong[0].contains("KubeletConfiguration") && wrong[0].contains(API_VERSION), "{wrong:?}");
        for text in ["", "[]", "a: [", "mode: a\nmode: b"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_manifest_has_a_configuration_that_can_be_used() {
        let manifest = include_str!("../../../../deploy/proxy.yaml");
        let documents: Vec<Value> =
            manifest.split("\n---\n").skip(1).map(|text| serde_saphyr::from_str(text).unwrap()).collect();
        let map = documents.iter().find(|document| document["kind"] == "ConfigMap").unwrap();
        let Read { configuration, meaningless } =
            parse(map["data"]["config.conf"].as_str().unwrap()).unwrap();
        assert_eq!(meaningless, Vec::<String>::new());
        assert!(super::super::settings(&configuration).is_ok());
        let kubeconfig = std::path::Path::new(&configuration.client_connection.kubeconfig);
        assert!(map["data"].get(kubeconfig.file_name().unwrap().to_str().unwrap()).is_some());
        assert_eq!(documents.len(), 4);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let configuration = Configuration { mode: "nftables".into(), ..Configuration::default() };
        let text = serde_saphyr::to_string(&configuration).unwrap();
        let Read { configuration: read, meaningless } = parse(&text).unwrap();
        assert_eq!((read, meaningless.len()), (configuration, 0));
    }
}

//! Each refusal of a Service, word by word.

use serde_json::{Value, json};

use super::*;
use crate::service::defaults;
use crate::service::validate_update::{status_update, update};

/// A valid Service of each type, with what allocation would have added; `patch` is merged into its spec.
fn service(kind: &str, patch: &Value) -> Value {
    let mut object = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u"},
        "spec": {"type": kind, "ports": [{"port": 80}]},
    });
    if kind == "ExternalName" {
        object["spec"]["externalName"] = json!("a.example.com");
    } else {
        object["spec"]["clusterIP"] = json!("10.0.0.1");
        object["spec"]["clusterIPs"] = json!(["10.0.0.1"]);
        object["spec"]["ipFamilies"] = json!(["IPv4"]);
        object["spec"]["ipFamilyPolicy"] = json!("SingleStack");
    }
    merge(&mut object["spec"], patch);
    object
}

fn merge(target: &mut Value, patch: &Value) {
    for (key, value) in patch.as_object().unwrap() {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            target[key] = value.clone();
        }
    }
}

fn read(mut object: Value) -> Service {
    defaults::apply(&mut object);
    crate::service::read(&object).unwrap()
}

fn texts(errors: &FieldErrors) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn refused(kind: &str, patch: &Value) -> Vec<String> {
    texts(&create(&read(service(kind, patch))))
}

#[test]
fn plain_services_are_taken() {
    for kind in ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] {
        assert!(refused(kind, &json!({})).is_empty(), "{kind}");
    }
    assert!(
        refused("ClusterIP", &json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": null})).is_empty()
    );
    let longest = json!({"clientIP": {"timeoutSeconds": 86400}});
    assert!(
        refused("ClusterIP", &json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": longest}))
            .is_empty()
    );
}

#[test]
#[allow(clippy::too_many_lines)] // A table, one row per text.
fn a_new_service_is_refused_in_kubernetes_words() {
    let cases = [
        ("ClusterIP", json!({"ports": null}), "spec.ports: Required value"),
        (
            "LoadBalancer",
            json!({"clusterIP": "None", "clusterIPs": ["None"]}),
            "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for LoadBalancer services",
        ),
        (
            "NodePort",
            json!({"clusterIP": "None", "clusterIPs": ["None"]}),
            "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
        ),
        (
            "ExternalName",
            json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}),
            "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
        ),
        (
            "ExternalName",
            json!({"ipFamilies": ["IPv4"]}),
            "spec.ipFamilies: Forbidden: may not be set for ExternalName services",
        ),
        (
            "ExternalName",
            json!({"ipFamilyPolicy": "SingleStack"}),
            "spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services",
        ),
        ("ExternalName", json!({"externalName": null}), "spec.externalName: Required value"),
        (
            "ClusterIP",
            json!({"ports": [{"port": 80, "name": "a"}, {"port": 81}]}),
            "spec.ports[1].name: Required value",
        ),
        (
            "ClusterIP",
            json!({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]}),
            "spec.ports[1].name: Duplicate value: \"a\"",
        ),
        (
            "ClusterIP",
            json!({"ports": [{"port": 70000}]}),
            "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            "ClusterIP",
            json!({"ports": [{"port": 80, "protocol": "HTTP"}]}),
            "spec.ports[0].protocol: Unsupported value: \"HTTP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (
            "ClusterIP",
            json!({"ports": [{"port": 80, "protocol": "tcp"}]}),
            "spec.ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\" \
          (did you mean \"TCP\"?)",
        ),
        (
            "ClusterIP",
            json!({"ports": [{"port": 80, "targetPort": 70000}]}),
            "spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            "ClusterIP",
            json!({"ports": [{"port": 80, "targetPort": "a--b"}]}),
            "spec.ports[0].targetPort: Invalid value: \"a--b\": must not contain consecutive hyphens",
        ),
        (
            "ClusterIP",
            json!({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}),
            "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\
          \"TargetPort\":0,\"NodePort\":0}",
        ),
        (
            "NodePort",
            json!({"ports": [{"port": 80, "name": "a", "nodePort": 30080},
                                      {"port": 81, "name": "b", "nodePort": 30080}]}),
            "spec.ports[1].nodePort: Duplicate value: 30080",
        ),
        (
            "ClusterIP",
            json!({"ports": [{"port": 80, "nodePort": 30080}]}),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            "ClusterIP",
            json!({"sessionAffinity": "Sticky"}),
            "spec.sessionAffinity: Unsupported value: \"Sticky\": supported values: \"ClientIP\", \"None\"",
        ),
        (
            "ClusterIP",
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than \
          86400",
        ),
        (
            "ClusterIP",
            json!({"type": "X"}),
            "spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \
          \"NodePort\"",
        ),
        (
            "ClusterIP",
            json!({"externalIPs": ["x"]}),
            "spec.externalIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        (
            "ClusterIP",
            json!({"externalIPs": ["127.0.0.1"]}),
            "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ),
        (
            "ClusterIP",
            json!({"loadBalancerSourceRanges": ["10.0.0.0/8"]}),
            "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ),
        (
            "LoadBalancer",
            json!({"loadBalancerSourceRanges": ["10.0.0.0"]}),
            "spec.LoadBalancerSourceRanges[0]: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. \
          10.9.8.0/24 or 2001:db8::/64)",
        ),
        (
            "ClusterIP",
            json!({"allocateLoadBalancerNodePorts": false}),
            "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ),
        (
            "ClusterIP",
            json!({"loadBalancerClass": "a/b"}),
            "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ),
        (
            "ClusterIP",
            json!({"externalTrafficPolicy": "Local"}),
            "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
        ),
        (
            "NodePort",
            json!({"externalTrafficPolicy": "Nope"}),
            "spec.externalTrafficPolicy: Unsupported value: \"Nope\": supported values: \"Cluster\", \"Local\"",
        ),
        (
            "NodePort",
            json!({"healthCheckNodePort": 31000}),
            "spec.healthCheckNodePort: Invalid value: 31000: may only be set when `type` is 'LoadBalancer' and \
          `externalTrafficPolicy` is 'Local'",
        ),
        (
            "LoadBalancer",
            json!({"externalTrafficPolicy": "Local"}),
            "spec.healthCheckNodePort: Required value",
        ),
        (
            "ClusterIP",
            json!({"internalTrafficPolicy": "Nope"}),
            "spec.internalTrafficPolicy: Unsupported value: \"Nope\": supported values: \"Cluster\", \"Local\"",
        ),
        (
            "ClusterIP",
            json!({"trafficDistribution": "Nope"}),
            "spec.trafficDistribution: Unsupported value: \"Nope\": supported values: \"PreferClose\", \
          \"PreferSameZone\", \"PreferSameNode\"",
        ),
        (
            "ClusterIP",
            json!({"selector": {"a": "b c"}}),
            "spec.selector: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric \
          characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
          'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
        ("ClusterIP", json!({"clusterIPs": null}), "spec.clusterIPs: Required value"),
        (
            "ClusterIP",
            json!({"clusterIP": "10.0.0.2"}),
            "spec.clusterIPs: Invalid value: [\"10.0.0.1\"]: first value must match `clusterIP`",
        ),
        (
            "ClusterIP",
            json!({"clusterIP": null}),
            "spec.clusterIPs: Invalid value: [\"10.0.0.1\"]: must be empty when `clusterIP` is not specified",
        ),
        (
            "ClusterIP",
            json!({"ipFamilies": ["IPv5"]}),
            "spec.ipFamilies[0]: Unsupported value: \"IPv5\": supported values: \"IPv4\", \"IPv6\" (did you mean \
          \"IPv4\"?)",
        ),
        (
            "ClusterIP",
            json!({"ipFamilies": ["IPv4", "IPv4"]}),
            "spec.ipFamilies[1]: Duplicate value: \"IPv4\"",
        ),
        (
            "ClusterIP",
            json!({"ipFamilyPolicy": "Nope"}),
            "spec.ipFamilyPolicy: Unsupported value: \"Nope\": supported values: \"PreferDualStack\", \
          \"RequireDualStack\", \"SingleStack\"",
        ),
        (
            "ClusterIP",
            json!({"clusterIP": "None", "clusterIPs": ["None", "10.0.0.1"]}),
            "spec.clusterIPs: Invalid value: [\"None\",\"10.0.0.1\"]: 'None' must be the first and only value",
        ),
        (
            "ClusterIP",
            json!({"clusterIPs": ["10.0.0.1", "fd00::1", "10.0.0.2"]}),
            "spec.clusterIPs: Invalid value: [\"10.0.0.1\",\"fd00::1\",\"10.0.0.2\"]: may only hold up to 2 values",
        ),
        (
            "ClusterIP",
            json!({"clusterIPs": ["10.0.0.1", "10.0.0.2"]}),
            "spec.clusterIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.2\"]: may specify no more than one IP for each IP \
          family",
        ),
        (
            "ClusterIP",
            json!({"ipFamilies": ["IPv6"]}),
            "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`",
        ),
    ];
    for (kind, patch, text) in cases {
        let errors = refused(kind, &patch);
        assert_eq!(errors.first().map(String::as_str), Some(text), "{kind} {patch}: {errors:?}");
    }
}

#[test]
fn affinity_levels_are_required_one_by_one() {
    let path = "spec.sessionAffinityConfig";
    for (config, field) in [
        (Value::Null, path.to_owned()),
        (json!({}), format!("{path}.clientIP")),
        (json!({"clientIP": {}}), format!("{path}.clientIP.timeoutSeconds")),
    ] {
        // Defaulting would fill these in, so the struct is read without it.
        let mut object = service("ClusterIP", &json!({"sessionAffinity": "ClientIP"}));
        defaults::apply(&mut object);
        object["spec"]["sessionAffinityConfig"] = config;
        let service = crate::service::read(&object).unwrap();
        let expected = format!("{field}: Required value: when session affinity type is ClientIP");
        assert_eq!(texts(&create(&service)), [expected]);
    }
}

#[test]
fn names_and_annotations_are_checked() {
    let mut object = service("ClusterIP", &json!({}));
    object["metadata"]["name"] = json!("1-web");
    assert!(texts(&create(&read(object.clone()))).is_empty());
    object["metadata"]["name"] = json!("a.b");
    assert_eq!(
        texts(&create(&read(object.clone()))),
        ["metadata.name: Invalid value: \"a.b\": must not contain dots"]
    );
    object["metadata"]["name"] = json!("a");
    object["metadata"]["annotations"] = json!({HINTS: "Auto", MODE: "Disabled"});
    assert_eq!(
        texts(&create(&read(object.clone()))),
        [
            "metadata.annotations[service.kubernetes.io/topology-mode]: Invalid value: \"Disabled\": must match \
         annotations[service.kubernetes.io/topology-aware-hints] when both are specified"
        ]
    );
    object["metadata"]["annotations"] = json!({SOURCE_RANGES: "10.0.0.0/8"});
    assert_eq!(
        texts(&create(&read(object))),
        [
            "metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]: Forbidden: may only be used \
         when `type` is 'LoadBalancer'"
        ]
    );
}

#[test]
fn a_change_is_refused_in_kubernetes_words() {
    let two = json!({"clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"],
                     "ipFamilyPolicy": "PreferDualStack"});
    let local =
        json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 31000, "loadBalancerClass": "a/b"});
    let cases = [
        (
            "ClusterIP",
            json!({}),
            json!({"clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9"]}),
            "spec.clusterIPs[0]: Invalid value: [\"10.0.0.9\"]: may not change once set",
        ),
        (
            "ClusterIP",
            json!({}),
            json!({"clusterIP": null, "clusterIPs": null}),
            "spec.clusterIPs[0]: Invalid value: []: primary clusterIP can not be unset",
        ),
        (
            "ClusterIP",
            two.clone(),
            json!({"ipFamilyPolicy": "PreferDualStack"}),
            "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when releasing the \
          secondary clusterIP",
        ),
        (
            "ClusterIP",
            two,
            json!({"clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilyPolicy": "PreferDualStack"}),
            "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when releasing the \
          secondary ipFamily",
        ),
        (
            "ClusterIP",
            json!({}),
            json!({"ipFamilies": ["IPv6"]}),
            "spec.ipFamilies[0]: Invalid value: [\"IPv6\"]: may not change once set",
        ),
        (
            "ClusterIP",
            json!({}),
            json!({"clusterIP": null, "clusterIPs": null, "ipFamilies": null}),
            "spec.ipFamilies[0]: Invalid value: []: primary ipFamily can not be unset",
        ),
        (
            "ClusterIP",
            json!({}),
            json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1", "10.0.0.1"], "ipFamilies": ["IPv6", "IPv4"]}),
            "spec.ipFamilies[0]: Invalid value: [\"fd00::1\",\"10.0.0.1\"]: may not change once set",
        ),
        (
            "LoadBalancer",
            local.clone(),
            json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 31001,
                                               "loadBalancerClass": "a/b"}),
            "spec.healthCheckNodePort: Forbidden: field is immutable",
        ),
        (
            "LoadBalancer",
            local,
            json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
                                       "loadBalancerClass": "a/c"}),
            "spec.loadBalancerClass: Invalid value: \"a/c\": may not change once set",
        ),
    ];
    for (kind, old, new, text) in cases {
        let (old, new) = (read(service(kind, &old)), read(service(kind, &new)));
        let errors = texts(&update(&new, &old));
        assert!(errors.iter().any(|error| error == text), "{text}: {errors:?}");
    }
}

#[test]
fn values_that_were_taken_once_stay_valid() {
    let odd = json!({"externalIPs": ["010.1.1.1"]});
    assert_eq!(
        refused("ClusterIP", &odd),
        ["spec.externalIPs[0]: Invalid value: \"010.1.1.1\": must not have leading 0s"]
    );
    let old = read(service("ClusterIP", &odd));
    assert!(update(&old, &old).is_empty());

    let bits = |range: &str| json!({"loadBalancerSourceRanges": [range]});
    assert_eq!(
        refused("LoadBalancer", &bits(" 10.0.0.1/8")),
        [
            "spec.LoadBalancerSourceRanges[0]: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the prefix \
             length"
        ]
    );
    let old = read(service("LoadBalancer", &bits(" 10.0.0.1/8")));
    assert!(update(&read(service("LoadBalancer", &bits("10.0.0.1/8 "))), &old).is_empty());

    let annotated = |ranges: &str| {
        let mut object = service("LoadBalancer", &json!({}));
        object["metadata"]["annotations"] = json!({ SOURCE_RANGES: ranges });
        read(object)
    };
    let old = annotated("10.0.0.1/8");
    assert_eq!(texts(&create(&old)).len(), 1);
    assert!(update(&old, &old).is_empty());
    assert_eq!(texts(&update(&annotated("10.0.0.1/8,"), &old)).len(), 2);
}

/// Defaulting fills these in, so that nobody is told; what is read without it must be refused nevertheless.
#[test]
fn what_defaulting_gives_is_required() {
    let cases = [
        ("LoadBalancer", "allocateLoadBalancerNodePorts", "allocateLoadBalancerNodePorts: Required value"),
        ("NodePort", "externalTrafficPolicy", "spec.externalTrafficPolicy: Required value"),
        ("ClusterIP", "internalTrafficPolicy", "spec.internalTrafficPolicy: Required value"),
        ("ClusterIP", "sessionAffinity", "spec.sessionAffinity: Required value"),
        ("ClusterIP", "type", "spec.type: Required value"),
    ];
    for (kind, field, text) in cases {
        let mut object = service(kind, &json!({}));
        defaults::apply(&mut object);
        object["spec"].as_object_mut().unwrap().remove(field);
        assert_eq!(texts(&create(&crate::service::read(&object).unwrap())), [text]);
    }
    let mut object = service("ClusterIP", &json!({}));
    defaults::apply(&mut object);
    object["spec"]["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 1}});
    object["spec"]["ports"][0].as_object_mut().unwrap().remove("protocol");
    assert_eq!(
        texts(&create(&crate::service::read(&object).unwrap())),
        [
            "spec.ports[0].protocol: Required value",
            "spec.sessionAffinityConfig: Forbidden: must not be set when session affinity is None",
        ]
    );
}

#[test]
fn a_status_is_checked_too() {
    let old = read(service("LoadBalancer", &json!({})));
    let with = |kind: &str, ingress: Value| {
        let mut object = service(kind, &json!({}));
        defaults::apply(&mut object);
        object["status"]["loadBalancer"]["ingress"] = json!([ingress]);
        texts(&status_update(&crate::service::read(&object).unwrap(), &old))
    };
    let path = "status.loadBalancer.ingress";
    assert_eq!(
        with("ClusterIP", json!({"ip": "1.2.3.4", "ipMode": "VIP"})),
        [format!("{path}: Forbidden: may only be used when `spec.type` is 'LoadBalancer'")]
    );
    assert!(with("LoadBalancer", json!({"ip": "1.2.3.4", "ipMode": "VIP"})).is_empty());
    assert_eq!(
        with("LoadBalancer", json!({"ip": "1.2.3.4"})),
        [format!("{path}[0].ipMode: Required value: must be specified when `ip` is set")]
    );
    assert_eq!(
        with("LoadBalancer", json!({"hostname": "a.b", "ipMode": "VIP"})),
        [format!("{path}[0].ipMode: Forbidden: may not be specified when `ip` is not set")]
    );
    assert_eq!(
        with("LoadBalancer", json!({"hostname": "1.2.3.4"})),
        [format!("{path}[0].hostname: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address")]
    );
}

//! Services, their endpoints and their address ranges.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    AGE, Column, NAME, NONE, UNKNOWN, age, column, first_few, items, labels, name, or_none, text, wide,
};

const SHOWN_MAX: usize = 3;

pub static SERVICE: &[Column] = &[
    NAME,
    column("Type", "How the Service is reached."),
    column("Cluster-IP", "Its first address in the cluster."),
    column("External-IP", "Where it is reached from outside."),
    column("Port(s)", "Its ports, with node ports and protocols."),
    AGE,
    wide("Selector", "Labels of the pods behind it."),
];

pub fn service(object: &Value, now: i64) -> Vec<Value> {
    let first_ip = items(object, "/spec/clusterIPs").first().and_then(Value::as_str).unwrap_or_default();
    vec![
        name(object),
        text(object, "/spec/type").into(),
        or_none(first_ip).into(),
        external_ip(object).into(),
        ports(object).into(),
        age(object, now),
        labels(&object["spec"]["selector"]).into(),
    ]
}

fn external_ip(object: &Value) -> String {
    let own: Vec<&str> = items(object, "/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    match text(object, "/spec/type") {
        "ClusterIP" | "NodePort" => or_none(&own.join(",")),
        "LoadBalancer" => {
            let ingress: BTreeSet<&str> = items(object, "/status/loadBalancer/ingress")
                .iter()
                .map(|i| {
                    Some(text(i, "/ip")).filter(|ip| !ip.is_empty()).unwrap_or_else(|| text(i, "/hostname"))
                })
                .filter(|a| !a.is_empty())
                .collect();
            let all: Vec<&str> = ingress.into_iter().chain(own).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => text(object, "/spec/externalName").to_owned(),
        _ => UNKNOWN.to_owned(),
    }
}

fn ports(object: &Value) -> String {
    let texts: Vec<String> = items(object, "/spec/ports")
        .iter()
        .map(|p| {
            let protocol = text(p, "/protocol");
            match p["nodePort"].as_i64().unwrap_or(0) {
                0 => format!("{}/{protocol}", p["port"]),
                node_port => format!("{}:{node_port}/{protocol}", p["port"]),
            }
        })
        .collect();
    or_none(&texts.join(","))
}

pub static ENDPOINTS: &[Column] =
    &[NAME, column("Endpoints", "Addresses that take traffic, with their ports."), AGE];

pub fn endpoints(object: &Value, now: i64) -> Vec<Value> {
    let subsets = items(object, "/subsets");
    let shown = if subsets.is_empty() {
        NONE.to_owned()
    } else {
        let all: Vec<String> = subsets.iter().flat_map(subset).collect();
        first_few(&all, SHOWN_MAX)
    };
    vec![name(object), shown.into(), age(object, now)]
}

fn subset(subset: &Value) -> Vec<String> {
    let addresses = items(subset, "/addresses").iter().map(|a| text(a, "/ip"));
    let ports = items(subset, "/ports");
    if ports.is_empty() {
        return addresses.map(str::to_owned).collect();
    }
    let addresses: Vec<&str> = addresses.collect();
    ports
        .iter()
        .flat_map(|p| addresses.iter().map(move |ip| host_port(ip, p["port"].as_i64().unwrap_or(0))))
        .collect()
}

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

pub static ENDPOINT_SLICE: &[Column] = &[
    NAME,
    column("AddressType", "Family of the addresses."),
    column("Ports", "Ports that all of its endpoints serve."),
    column("Endpoints", "Addresses, whether or not they are ready."),
    AGE,
];

pub fn endpoint_slice(object: &Value, now: i64) -> Vec<Value> {
    let ports: Vec<String> = items(object, "/ports").iter().map(slice_port).collect();
    let addresses: Vec<String> = items(object, "/endpoints")
        .iter()
        .flat_map(|e| items(e, "/addresses"))
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let shown = |all: &[String]| {
        if all.is_empty() { "<unset>".to_owned() } else { first_few(all, SHOWN_MAX) }
    };
    vec![
        name(object),
        text(object, "/addressType").into(),
        shown(&ports).into(),
        shown(&addresses).into(),
        age(object, now),
    ]
}

fn slice_port(port: &Value) -> String {
    match (port["port"].as_i64(), text(port, "/name")) {
        (Some(number), _) => number.to_string(),
        (None, "") => "*".to_owned(),
        (None, name) => name.to_owned(),
    }
}

pub static SERVICE_CIDR: &[Column] = &[NAME, column("CIDRs", "Ranges from which addresses are given."), AGE];

pub fn service_cidr(object: &Value, now: i64) -> Vec<Value> {
    let ranges: Vec<&str> = items(object, "/spec/cidrs").iter().filter_map(Value::as_str).collect();
    vec![name(object), ranges.join(",").into(), age(object, now)]
}

pub static IP_ADDRESS: &[Column] = &[NAME, column("ParentRef", "The object that holds the address.")];

/// Kubernetes sends an age as a third cell that no column names; clients ignore it.
pub fn ip_address(object: &Value, now: i64) -> Vec<Value> {
    vec![name(object), parent(&object["spec"]["parentRef"]).into(), age(object, now)]
}

fn parent(reference: &Value) -> String {
    let resource = text(reference, "/resource");
    if resource.is_empty() {
        return NONE.to_owned();
    }
    let group = text(reference, "/group");
    let kind = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    let parts =
        [kind.to_lowercase(), text(reference, "/namespace").to_owned(), text(reference, "/name").to_owned()];
    parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/")
}

pub static LOAD_BALANCER_POOL: &[Column] = &[
    NAME,
    column("Addresses", "Ranges that Services get their addresses from."),
    column("Auto-Assign", "Whether Services that ask for nothing get addresses of it."),
    column("Assigned", "How many addresses Services hold."),
    column("Available", "How many addresses are left."),
    AGE,
];

pub fn load_balancer_pool(object: &Value, now: i64) -> Vec<Value> {
    let ranges: Vec<String> = items(object, "/spec/addresses")
        .iter()
        .filter_map(|range| range.as_str().map(str::to_owned))
        .collect();
    let count = |field: &str| -> Value {
        let of = |family: &str| object["status"][format!("{field}{family}")].as_i64();
        match (of("IPv4"), of("IPv6")) {
            (None, None) => UNKNOWN.into(),
            (v4, v6) => v4.unwrap_or(0).saturating_add(v6.unwrap_or(0)).to_string().into(),
        }
    };
    let auto = object["spec"]["autoAssign"].as_bool().unwrap_or(true);
    vec![
        name(object),
        or_none(&first_few(&ranges, SHOWN_MAX)).into(),
        auto.to_string().into(),
        count("assigned"),
        count("available"),
        age(object, now),
    ]
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // Tables of json! values read better unborrowed.
mod tests {
    use super::*;
    use serde_json::json;

    fn cells(spec: Value, ingress: Value) -> Vec<Value> {
        let object = json!({"metadata": {"name": "web", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": spec, "status": {"loadBalancer": {"ingress": ingress}}});
        service(&object, 60)
    }

    #[test]
    fn services_show_where_they_are_reached() {
        assert_eq!(
            cells(
                json!({"type": "NodePort", "clusterIPs": ["10.0.0.1"], "selector": {"b": "2", "a": "1"},
                "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}),
                json!([])
            ),
            ["web", "NodePort", "10.0.0.1", "<none>", "80:30080/TCP,53/UDP", "60s", "a=1,b=2"]
        );
        let balancer =
            json!({"type": "LoadBalancer", "clusterIPs": ["10.0.0.1"], "externalIPs": ["9.9.9.9"]});
        assert_eq!(
            cells(balancer.clone(), json!([{"ip": "2.2.2.2"}, {"hostname": "a.b"}, {"ip": "1.1.1.1"}]))[3],
            "1.1.1.1,2.2.2.2,a.b,9.9.9.9"
        );
        assert_eq!(cells(json!({"type": "LoadBalancer"}), json!([]))[3], "<pending>");
        assert_eq!(
            cells(json!({"type": "ExternalName", "externalName": "a.b"}), json!([])),
            ["web", "ExternalName", "<none>", "a.b", "<none>", "60s", "<none>"]
        );
        assert_eq!(cells(json!({"type": "ClusterIP", "clusterIPs": ["None"]}), json!([]))[2], "None");
        let external = json!({"type": "ClusterIP", "externalIPs": ["9.9.9.9", "8.8.8.8"]});
        assert_eq!(
            cells(external, json!([{"ip": "1.1.1.1"}]))[3],
            "9.9.9.9,8.8.8.8",
            "in the order of the spec"
        );
        assert_eq!(cells(json!({"type": "ExternalName"}), json!([]))[3], "");
        assert_eq!(cells(json!({"type": "Odd", "externalIPs": ["9.9.9.9"]}), json!([]))[3], "<unknown>");
        let twice = json!([{"ip": "1.1.1.1", "hostname": "a.b"}, {"ip": "1.1.1.1"}]);
        assert_eq!(cells(json!({"type": "LoadBalancer"}), twice)[3], "1.1.1.1");
        let long = json!([{"hostname": "a-name-of-more-than-sixteen.example"}]);
        assert_eq!(cells(json!({"type": "LoadBalancer"}), long)[3], "a-name-of-more-than-sixteen.example");
    }

    #[test]
    fn endpoints_show_the_first_three() {
        let show =
            |subsets: Value| endpoints(&json!({"metadata": {"name": "a"}, "subsets": subsets}), 0)[1].clone();
        assert_eq!(show(json!([])), "<none>");
        assert_eq!(show(json!([{"notReadyAddresses": [{"ip": "1.1.1.1"}]}])), "");
        assert_eq!(show(json!([{"addresses": [{"ip": "1.1.1.1"}, {"ip": "fd00::1"}]}])), "1.1.1.1,fd00::1");
        assert_eq!(
            show(
                json!([{"addresses": [{"ip": "1.1.1.1"}, {"ip": "fd00::1"}], "ports": [{"port": 80}, {"port": 81}]}])
            ),
            "1.1.1.1:80,[fd00::1]:80,1.1.1.1:81 + 1 more..."
        );
        let portless = json!([{"addresses": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.2"}]},
            {"addresses": [{"ip": "1.1.1.3"}, {"ip": "1.1.1.4"}, {"ip": "1.1.1.5"}]}]);
        assert_eq!(show(portless), "1.1.1.1,1.1.1.2,1.1.1.3 + 2 more...");
    }

    #[test]
    fn slices_show_ports_and_addresses() {
        let object = json!({"metadata": {"name": "a"}, "addressType": "IPv4",
            "ports": [{"port": 80}, {"name": "x"}, {}],
            "endpoints": [{"addresses": ["1.1.1.1"]}, {"addresses": ["1.1.1.2"], "conditions": {"ready": false}}]});
        assert_eq!(endpoint_slice(&object, 0)[1..4], ["IPv4", "80,x,*", "1.1.1.1,1.1.1.2"]);
        assert_eq!(endpoint_slice(&json!({"metadata": {}}), 0)[2..4], ["<unset>", "<unset>"]);
        let many = json!({"metadata": {}, "ports": [{"port": 1}, {"port": 2}, {"port": 3}, {"port": 4}],
            "endpoints": [{"addresses": ["a", "b"]}, {"addresses": ["c"]}, {"addresses": ["d", "e"]}]});
        assert_eq!(endpoint_slice(&many, 0)[2..4], ["1,2,3 + 1 more...", "a,b,c + 2 more..."]);
    }

    #[test]
    fn ranges_are_shown_in_their_order() {
        let object = json!({"metadata": {"name": "kubernetes", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"cidrs": ["10.96.0.0/16", "fd00::/112"]}});
        assert_eq!(service_cidr(&object, 60), ["kubernetes", "10.96.0.0/16,fd00::/112", "60s"]);
    }

    #[test]
    fn addresses_show_their_parent() {
        let show =
            |parent: Value| ip_address(&json!({"metadata": {}, "spec": {"parentRef": parent}}), 0)[1].clone();
        assert_eq!(show(json!({"resource": "services", "namespace": "d", "name": "a"})), "services/d/a");
        assert_eq!(show(json!({"resource": "Gateways", "group": "x.io", "name": "a"})), "gateways.x.io/a");
        assert_eq!(show(Value::Null), "<none>");
    }
}

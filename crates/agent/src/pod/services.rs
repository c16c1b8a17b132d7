//! Environment variables about Services, as containers have had them since before there was DNS.

use portolan_client::{BoxError, Cache, Key};
use serde::Deserialize;

/// What the variables are made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServiceView {
    /// Empty for those without an address of their own.
    cluster_ip: String,
    ports: Vec<Port>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Port {
    name: Option<String>,
    protocol: Option<String>,
    #[serde(rename = "port")]
    number: u16,
}

impl ServiceView {
    /// Reads a Service's JSON.
    pub(crate) fn project(bytes: &[u8]) -> Result<Self, BoxError> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Service {
            spec: Spec,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Spec {
            #[serde(rename = "clusterIP")]
            cluster_ip: Option<String>,
            ports: Option<Vec<Port>>,
        }
        let spec = serde_json::from_slice::<Service>(bytes)?.spec;
        let cluster_ip = spec.cluster_ip.filter(|ip| ip != "None").unwrap_or_default();
        Ok(Self { cluster_ip, ports: spec.ports.unwrap_or_default() })
    }
}

/// The variables of a pod that starts now: of the Services of its namespace if it wants links, and of
/// `default/kubernetes` in any case. Sorted by name of the Service.
pub(crate) fn variables(
    services: &Cache<ServiceView>,
    namespace: &str,
    links: bool,
) -> Vec<(String, String)> {
    let mut all: Vec<_> = services
        .all()
        .into_iter()
        .filter(|(key, _)| (links && *key.namespace == *namespace) || is_api(key))
        .collect();
    // A Service of the pod's own namespace wins over the API's if it has the same name.
    all.sort_by(|(a, _), (b, _)| {
        (&a.name, &*a.namespace != namespace).cmp(&(&b.name, &*b.namespace != namespace))
    });
    all.dedup_by(|(later, _), (earlier, _)| later.name == earlier.name);
    all.iter().flat_map(|(key, service)| of(&key.name, service)).collect()
}

fn is_api(key: &Key) -> bool {
    (&*key.namespace, &*key.name) == ("default", "kubernetes")
}

fn of(name: &str, service: &ServiceView) -> Vec<(String, String)> {
    let (Some(first), false) = (service.ports.first(), service.cluster_ip.is_empty()) else {
        return Vec::new();
    };
    let prefix = upper(name);
    let ip = &service.cluster_ip;
    let mut list = vec![
        (format!("{prefix}_SERVICE_HOST"), ip.clone()),
        (format!("{prefix}_SERVICE_PORT"), first.number.to_string()),
    ];
    for port in &service.ports {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            list.push((format!("{prefix}_SERVICE_PORT_{}", upper(name)), port.number.to_string()));
        }
    }
    let url = |port: &Port| {
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
        format!("{}://{host}:{}", port.protocol().to_ascii_lowercase(), port.number)
    };
    list.push((format!("{prefix}_PORT"), url(first)));
    for port in &service.ports {
        let base = format!("{prefix}_PORT_{}_{}", port.number, port.protocol());
        list.push((base.clone(), url(port)));
        list.push((format!("{base}_PROTO"), port.protocol().to_ascii_lowercase()));
        list.push((format!("{base}_PORT"), port.number.to_string()));
        list.push((format!("{base}_ADDR"), ip.clone()));
    }
    list
}

impl Port {
    fn protocol(&self) -> &str {
        self.protocol.as_deref().filter(|protocol| !protocol.is_empty()).unwrap_or("TCP")
    }
}

fn upper(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_client::testing::FakeApi;
    use portolan_client::{Selectors, paths};
    use serde_json::{Value, json};

    fn service(name: &str, namespace: &str, ip: &str, ports: &Value) -> Value {
        json!({"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": ip, "ports": ports}})
    }

    async fn found(services: Vec<Value>, namespace: &str, links: bool) -> Vec<String> {
        let api = FakeApi::new();
        for service in services {
            api.put(&paths::SERVICES, service);
        }
        let cache = Cache::start(api.client(), paths::SERVICES, Selectors::default(), ServiceView::project);
        cache.synced().await;
        variables(&cache, namespace, links)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    #[tokio::test]
    async fn a_service_is_described_as_docker_links_were() {
        let ports = json!([{"name": "http", "port": 80}, {"name": "dns-udp", "port": 53, "protocol": "UDP"}]);
        let headless = service("headless", "shop", "None", &ports);
        let external =
            json!({"metadata": {"name": "out", "namespace": "shop"}, "spec": {"type": "ExternalName"}});
        let other = service("other", "elsewhere", "10.96.0.9", &ports);
        let web = service("my-web", "shop", "10.96.0.5", &ports);
        assert_eq!(
            found(vec![web, headless, external, other], "shop", true).await,
            [
                "MY_WEB_SERVICE_HOST=10.96.0.5",
                "MY_WEB_SERVICE_PORT=80",
                "MY_WEB_SERVICE_PORT_HTTP=80",
                "MY_WEB_SERVICE_PORT_DNS_UDP=53",
                "MY_WEB_PORT=tcp://10.96.0.5:80",
                "MY_WEB_PORT_80_TCP=tcp://10.96.0.5:80",
                "MY_WEB_PORT_80_TCP_PROTO=tcp",
                "MY_WEB_PORT_80_TCP_PORT=80",
                "MY_WEB_PORT_80_TCP_ADDR=10.96.0.5",
                "MY_WEB_PORT_53_UDP=udp://10.96.0.5:53",
                "MY_WEB_PORT_53_UDP_PROTO=udp",
                "MY_WEB_PORT_53_UDP_PORT=53",
                "MY_WEB_PORT_53_UDP_ADDR=10.96.0.5",
            ]
        );
    }

    #[tokio::test]
    async fn ipv6_is_bracketed_in_urls_only() {
        let web = service("web", "shop", "fd00::5", &json!([{"port": 80}]));
        let all = found(vec![web], "shop", true).await;
        assert!(all.contains(&"WEB_SERVICE_HOST=fd00::5".to_owned()), "{all:?}");
        assert!(all.contains(&"WEB_PORT=tcp://[fd00::5]:80".to_owned()), "{all:?}");
    }

    #[tokio::test]
    async fn the_api_is_always_there_and_an_own_service_of_its_name_wins() {
        let port = json!([{"name": "https", "port": 443}]);
        let api = || service("kubernetes", "default", "10.96.0.1", &port);
        let own = || service("kubernetes", "shop", "10.96.0.7", &port);
        let host = |all: Vec<String>| {
            let hosts: Vec<String> =
                all.into_iter().filter(|line| line.starts_with("KUBERNETES_SERVICE_HOST")).collect();
            hosts.join(" ")
        };
        let of = |ip: &str| format!("KUBERNETES_SERVICE_HOST={ip}");
        assert_eq!(host(found(vec![api()], "shop", false).await), of("10.96.0.1"));
        assert_eq!(host(found(vec![api(), own()], "shop", true).await), of("10.96.0.7"));
        assert_eq!(host(found(vec![api(), own()], "shop", false).await), of("10.96.0.1"), "without links");
    }
}

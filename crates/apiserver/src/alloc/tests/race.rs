//! Many clients of several API servers on one store, in random order: never one address or port twice, nothing lost.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use bitmap::Bitmap;

const PORTS: RangeInclusive<u16> = 30000..=30011;

#[derive(Debug, Clone)]
enum Act {
    Create { name: u8, node_port: Option<u16>, address: Option<u8> },
    ToNodePort { name: u8, port: u16 },
    ToClusterIp { name: u8 },
    ToExternalName { name: u8 },
    Delete { name: u8 },
}

fn act() -> impl Strategy<Value = Act> {
    let name = 0..8u8;
    let port = 30000..30012u16;
    prop_oneof![
        4 => (name.clone(), prop::option::of(port.clone()), prop::option::weighted(0.3, 1..15u8))
            .prop_map(|(name, node_port, address)| Act::Create { name, node_port, address }),
        1 => (name.clone(), port).prop_map(|(name, port)| Act::ToNodePort { name, port }),
        1 => name.clone().prop_map(|name| Act::ToClusterIp { name }),
        1 => name.clone().prop_map(|name| Act::ToExternalName { name }),
        3 => name.prop_map(|name| Act::Delete { name }),
    ]
}

/// Refusals are part of the game; what counts is what the store holds.
async fn perform(allocator: &Allocator, store: &Memory, act: Act) {
    let ports =
        |node_port: u16| json!([{"name": "a", "port": 80, "nodePort": node_port}, {"name": "b", "port": 81}]);
    let named = |name: u8, spec: Value| (format!("s{name}"), service(&format!("s{name}"), spec));
    let (name, object) = match act {
        Act::Create { name, node_port, address } => {
            let mut spec = match node_port {
                Some(port) => json!({"type": "NodePort", "ports": ports(port)}),
                None => {
                    json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]})
                }
            };
            if let Some(host) = address {
                spec["clusterIP"] = format!("10.0.0.{host}").into();
            }
            _ = create(allocator, store, &named(name, spec).1).await;
            return;
        }
        Act::ToNodePort { name, port } => named(name, json!({"type": "NodePort", "ports": ports(port)})),
        Act::ToClusterIp { name } => named(name, json!({"type": "ClusterIP", "ports": [{"port": 80}]})),
        Act::ToExternalName { name } => named(name, json!({"type": "ExternalName"})),
        Act::Delete { name } => {
            _ = change(allocator, store, &format!("s{name}"), None).await;
            return;
        }
    };
    _ = change(allocator, store, &name, Some(&object)).await;
}

/// Who holds what: every address and port of the stored Services, and that no two have the same.
fn holders(store: &Memory) -> (HashMap<IpAddr, String>, HashMap<u16, String>) {
    let (mut addresses, mut ports) = (HashMap::new(), HashMap::new());
    for stored in store.all("/registry/services/specs/") {
        let spec = read(&serde_json::from_slice(&stored.value).unwrap()).unwrap().spec;
        for address in demand::addresses_of(&spec) {
            let other = addresses.insert(address, stored.key.to_string());
            assert_eq!(other, None, "{address} is given twice, also to {}", stored.key);
        }
        for port in demand::node_ports(&spec).into_iter().chain(demand::health_check_port(&spec)) {
            let other = ports.insert(port, stored.key.to_string());
            assert_eq!(other, None, "{port} is given twice, also to {}", stored.key);
        }
    }
    (addresses, ports)
}

async fn run(scripts: Vec<Vec<Act>>, seed: u64) {
    let store = Memory::new(seed);
    let start = || allocator_of(&store, config(&["10.0.0.0/28"], PORTS));
    let servers = [Arc::new(start().await), Arc::new(start().await)];
    let mut clients = tokio::task::JoinSet::new();
    for (number, script) in scripts.into_iter().enumerate() {
        let (allocator, store) = (servers[number % 2].clone(), store.clone());
        clients.spawn(async move {
            for act in script {
                perform(&allocator, &store, act).await;
                holders(&store);
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    settle().await;
    let (addresses, ports) = holders(&store);
    let mut stored: Vec<IpAddr> =
        store.all(objects::ADDRESSES).iter().filter_map(|kv| objects::address_of_key(&kv.key)).collect();
    let mut held: Vec<IpAddr> = addresses.into_keys().collect();
    stored.sort_unstable();
    held.sort_unstable();
    assert_eq!(stored, held, "an IPAddress for every address in use, and no other");
    let bitmap = Bitmap::decode(&store.all(bitmap::KEY)[0].value, &PORTS).unwrap();
    let mut held: Vec<u16> = ports.into_keys().collect();
    held.sort_unstable();
    assert_eq!(bitmap.ports().collect::<Vec<_>>(), held, "a bit for every port in use, and no other");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn nothing_is_given_twice_and_nothing_is_lost(
        scripts in prop::collection::vec(prop::collection::vec(act(), 1..12), 2..6),
        seed in any::<u64>(),
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(scripts, seed));
    }
}

/// Cost as well as result: creates that arrive together share the writes of the bitmap.
#[tokio::test]
async fn creates_that_arrive_together_share_bitmap_writes() {
    let store = Memory::new(9);
    let allocator = Arc::new(allocator(&store, &["10.0.0.0/16"]).await);
    let before = store.all(bitmap::KEY)[0].mod_revision;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..64 {
        let (allocator, store) = (allocator.clone(), store.clone());
        clients.spawn(async move {
            for number in 0..8 {
                let object = service(
                    &format!("s{client}-{number}"),
                    json!({"type": "NodePort", "ports": [{"port": 80}]}),
                );
                create(&allocator, &store, &object).await.unwrap();
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    assert_eq!(holders(&store).1.len(), 512);
    let writes = store.revision().await.unwrap() - before - 512;
    assert!(writes < 128, "{writes} writes of the bitmap for 512 creates");
}

//! What Services may ask for by annotation, as far as each data plane offers it.

use std::collections::{BTreeMap, BTreeSet};

use portolan_dataplane::ipvs::layout::is_ours;
use portolan_dataplane::{Driver, iptables};
use portolan_forward::{Algorithm, NoteKind, Protocol};
use portolan_netlink::ipvs::{Ipvs as _, Socket};

use super::common::planes::{Iptables, IpvsBehindIptables, IpvsBehindNftables, Plane};
use super::common::{Case, World, in_kernel, ip, node, synthetic};
use super::net::{PATIENT, Seen};
use super::semantics::{CLUSTER_IP, at, frontends, full};
use super::{ELSEWHERE, Lab, POD_1, POD_2, server_of};

fn asking_for(algorithm: Algorithm) -> Case {
    let mut case = full();
    case.service.algorithm = Some(algorithm);
    case
}

/// The servers that one host meets, connection by connection.
fn servers<P: Plane>(lab: &Lab<P>, from: &str, to: std::net::SocketAddr, count: usize) -> Vec<String> {
    let seen = lab.net.connect_all(from, Protocol::Tcp, to, count, PATIENT);
    seen.iter().map(|seen| server_of(seen).to_owned()).collect()
}

/// By a client of its own for each frontend: IPVS gives a port of a client that is used again the endpoint that it had a second
/// ago, and different frontends may well be called from one port.
fn round_robin_takes_one_after_the_other<P: Plane>() {
    let lab = Lab::<P>::new(node(), [asking_for(Algorithm::RoundRobin)]);
    for family in [0, 1] {
        for (from, to) in ["outside", "node", "pod-1"].into_iter().zip(frontends(family)) {
            let seen = servers(&lab, from, to, 9);
            assert_eq!(seen[..3].iter().collect::<BTreeSet<_>>().len(), 3, "{seen:?}");
            assert!(seen[..3] == seen[3..6] && seen[..3] == seen[6..], "{seen:?}");
        }
    }
}

fn source_hash_gives_a_client_one_endpoint<P: Plane>() {
    let lab = Lab::<P>::new(node(), [asking_for(Algorithm::SourceHash)]);
    for family in [0, 1] {
        for from in ["outside", "pod-1", "pod-2", "elsewhere"] {
            let seen = frontends(family).into_iter().flat_map(|to| servers(&lab, from, to, 8));
            assert_eq!(seen.collect::<BTreeSet<_>>().len(), 1, "{from}");
        }
    }
}

/// With affinity and policy Local besides: the pools of both, and both ways of picking.
fn algorithms_go_with_affinity_and_policies<P: Plane>() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::SourceHash] {
        let lab = Lab::<P>::new(node(), [asking_for(algorithm).affinity(60).external_local()]);
        for family in [0, 1] {
            for to in frontends(family) {
                let seen: BTreeSet<_> = servers(&lab, "outside", to, 6).into_iter().collect();
                assert_eq!(seen.len(), 1, "{algorithm} from outside to {to}");
            }
        }
    }
}

fn what_is_not_offered_is_said_and_chance_decides<P: Plane>() {
    let mut driver = Driver::new(P::fake());
    let report = driver.sync(&World::with([asking_for(Algorithm::LeastConnection)]).table).unwrap();
    let [note] = &report.notes[..] else { panic!("{report:?}") };
    assert!(matches!(note.kind, NoteKind::NotOffered { .. }), "{note:?}");
    assert!(note.to_string().contains("algorithm lc cannot be done here"), "{note}");
    for offered in [Algorithm::Random, Algorithm::RoundRobin, Algorithm::SourceHash] {
        let mut driver = Driver::new(P::fake());
        let report = driver.sync(&World::with([asking_for(offered)]).table).unwrap();
        assert!(report.notes.is_empty(), "{report:?}");
    }
}

super::common::on_plane! {
    nftables,
    Nftables,
    round_robin_takes_one_after_the_other,
    source_hash_gives_a_client_one_endpoint,
    algorithms_go_with_affinity_and_policies,
    what_is_not_offered_is_said_and_chance_decides,
}

/// Affinity and policy Local besides: turns are for those who were nowhere before.
fn turns_go_with_affinity<P: Plane>() {
    let lab = Lab::<P>::new(node(), [asking_for(Algorithm::RoundRobin).affinity(60).external_local()]);
    for family in [0, 1] {
        for to in frontends(family) {
            let seen: BTreeSet<_> = servers(&lab, "outside", to, 6).into_iter().collect();
            assert_eq!(seen.len(), 1, "from outside to {to}");
        }
    }
}

/// Turns go on while other Services change.
fn turns_survive_changes_of_others<P: Plane>() {
    let mut lab = Lab::<P>::new(node(), [asking_for(Algorithm::RoundRobin)]);
    let to = at(CLUSTER_IP[0], 80);
    let seen: Vec<_> = (0..6)
        .flat_map(|n| {
            let delta = lab.world.put([synthetic(n, 3)]);
            lab.driver.apply(&delta).unwrap();
            servers(&lab, "outside", to, 1)
        })
        .collect();
    assert!(seen[..3].iter().collect::<BTreeSet<_>>().len() == 3 && seen[..3] == seen[3..], "{seen:?}");
}

fn iptables_says_what_it_cannot_do() {
    let note = |case: Case, forgets_counts: bool| {
        let mut kernel = iptables::Fake::new();
        kernel.forgets_counts = forgets_counts;
        let mut driver = Driver::new(iptables::Iptables::new(kernel, iptables::Config::default()));
        let report = driver.sync(&World::with([case]).table).unwrap();
        let scripts = driver.plane_mut().kernel().scripts.concat();
        let takes_turns = scripts.contains("--mode nth");
        (takes_turns, report.notes.iter().map(ToString::to_string).collect::<String>())
    };
    assert_eq!(note(asking_for(Algorithm::RoundRobin), false), (true, String::new()));
    let large = (0..17).fold(asking_for(Algorithm::RoundRobin), |case, n| {
        case.endpoint(&format!("10.3.0.{n}"), 8080).endpoint(&format!("fd00:10:3::{n}"), 8080)
    });
    for (case, forgets_counts, instead) in [
        (asking_for(Algorithm::RoundRobin), true, "as its turns would begin anew"),
        (large, false, "among more than 16 endpoints"),
        (asking_for(Algorithm::SourceHash), false, "mode iptables chooses at random"),
    ] {
        let (takes_turns, said) = note(case, forgets_counts);
        assert!(!takes_turns && said.contains(instead), "{said}");
        assert!(said.contains("cannot be done here"), "{said}");
    }
}

mod iptables_nft {
    #[test]
    fn round_robin_takes_one_after_the_other() {
        super::round_robin_takes_one_after_the_other::<super::Iptables>();
    }

    #[test]
    fn turns_go_with_affinity_and_survive_changes_of_others() {
        super::turns_go_with_affinity::<super::Iptables>();
        super::turns_survive_changes_of_others::<super::Iptables>();
    }

    #[test]
    fn what_is_not_offered_is_said() {
        super::iptables_says_what_it_cannot_do();
    }
}

/// Every scheduler of the kernel takes connections, a change of the annotation reaches it, and the rest is said.
fn every_scheduler_by_name<P: Plane>() {
    let mut lab = Lab::<P>::new(node(), [full()]);
    for algorithm in Algorithm::ALL {
        let delta = lab.world.put([asking_for(algorithm)]);
        let report = lab.driver.apply(&delta).unwrap();
        let scheduler = algorithm.scheduler().unwrap_or("rr");
        assert_eq!(report.notes.is_empty(), algorithm != Algorithm::Random, "{algorithm}: {report:?}");
        let servers = lab.net.within("node", || Socket::open().unwrap().unwrap().servers().unwrap());
        let mut ours = servers.iter().filter(|server| is_ours(&server.key)).peekable();
        assert!(ours.peek().is_some() && ours.all(|server| *server.scheduler == *scheduler), "{servers:?}");
        let mut counts = BTreeMap::new();
        for family in [0, 1] {
            for server in self::servers(&lab, "outside", at(CLUSTER_IP[family], 80), 9) {
                *counts.entry(server).or_insert(0) += 1;
            }
        }
        assert_eq!(counts.values().sum::<i32>(), 18, "{algorithm}: {counts:?}");
    }
}

/// Whatever chooses, and however lately it had connections, an endpoint that has left is not chosen.
fn ct_4_an_endpoint_that_leaves_takes_no_client_with_it<P: Plane>() {
    let mut lab = Lab::<P>::new(node(), [full()]);
    let to = at(CLUSTER_IP[0], 80);
    for algorithm in Algorithm::ALL {
        let all = asking_for(algorithm);
        for leaving in [POD_1, POD_2, ELSEWHERE] {
            lab.put([all.clone()]);
            let clients = ["outside", "node", "pod-1", "pod-2", "elsewhere"];
            for from in clients {
                servers(&lab, from, to, 2);
            }
            lab.put([all.clone().without(leaving[0])]);
            let gone =
                lab.net.hosts.iter().find(|host| host.addresses.contains(&ip(leaving[0]))).unwrap().name;
            for from in clients {
                let seen = lab.net.connect_all(from, Protocol::Tcp, to, 2, PATIENT);
                let lives = |seen: &Seen| matches!(seen, Seen::Answer { server, .. } if server != gone);
                assert!(seen.iter().all(lives), "{algorithm}: without {gone} {from} met {seen:?}");
            }
        }
    }
}

fn round_robin_and_source_hash<P: Plane>() {
    round_robin_takes_one_after_the_other::<P>();
    source_hash_gives_a_client_one_endpoint::<P>();
    algorithms_go_with_affinity_and_policies::<P>();
}

mod ipvs {
    use super::{IpvsBehindIptables, every_scheduler_by_name as every, round_robin_and_source_hash as both};

    super::in_kernel!(with_ipvs, every_scheduler_by_name, every::<IpvsBehindIptables>);
    super::in_kernel!(
        with_ipvs,
        ct_4_an_endpoint_that_leaves_takes_no_client_with_it,
        super::ct_4_an_endpoint_that_leaves_takes_no_client_with_it::<IpvsBehindIptables>
    );
    super::in_kernel!(with_ipvs, round_robin_and_source_hash, both::<IpvsBehindIptables>);
}

mod behind_nftables {
    use super::{IpvsBehindNftables, every_scheduler_by_name as every, round_robin_and_source_hash as both};

    super::in_kernel!(with_ipvs_and_nftables, every_scheduler_by_name, every::<IpvsBehindNftables>);
    super::in_kernel!(
        with_ipvs_and_nftables,
        ct_4_an_endpoint_that_leaves_takes_no_client_with_it,
        super::ct_4_an_endpoint_that_leaves_takes_no_client_with_it::<IpvsBehindNftables>
    );
    super::in_kernel!(with_ipvs_and_nftables, round_robin_and_source_hash, both::<IpvsBehindNftables>);
}

//! A balancer outside of the cluster that only learns from failures: nginx from Debian, as in
//! `docs/external-load-balancer.md`.

use std::process::Command;

use portolan_lab::Host;
use portolan_netlink::rt::Rt;

use super::{Balancer, documented};
use crate::bed::{Bed, at, settles, web_pod};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  loadBalancerClass: example.com/nginx
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http, nodePort: 32080}]
";

#[test]
fn nginx_goes_on_to_another_node_when_one_is_gone() {
    let bed = Bed::up(3);
    let pods = [1, 2].map(|node| web_pod(&format!("web-{node}"), "app: web", Some(&format!("node-{node}"))));
    bed.apply(&format!("{}---{SERVICE}", pods.concat()));
    bed.wait_ready("app=web");
    let dir = bed.lab.layout.dir();
    std::fs::write(dir.join("nginx.conf"), documented("nginx")).unwrap();
    let place = bed.lab.place("server").unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(dir.join("nginx.conf"));
    let own = format!("daemon off; error_log stderr; pid {};", dir.join("nginx.pid").display());
    command.args(["-e", "stderr", "-g", &own]);
    let _nginx = Balancer(place.spawn(&mut command).unwrap());

    let balancer = at(Host::Server.ip(), 80);
    // Every node leads to every pod.
    bed.until_answerers("client", balancer, &["web-1", "web-2"]);
    // No address is taken from a pool, and none is missed.
    assert_eq!(bed.field("service web", "{.status}"), r#"{"loadBalancer":{}}"#);
    // A node that is gone without a word; its pods are not at stake.
    let mut segment = Rt::open_in(&bed.lab.host(Host::Segment).unwrap()).unwrap();
    segment.set_down("node-3").unwrap();
    settles(|| bed.http("client", balancer), |answer| answer.text().is_some());
    segment.set_up("node-3").unwrap();
    bed.until_answerers("client", balancer, &["web-1", "web-2"]);
}

//! A balancer outside of the cluster that only learns from failures: nginx from Debian, as in
//! `docs/external-load-balancer.md`.

use std::process::Command;

use portolan_lab::Host;
use portolan_netlink::rt::Rt;

use super::balanced;
use crate::bed::settles;

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
    let (bed, _nginx, balancer) = balanced("nginx", SERVICE, |file| {
        let own = format!("daemon off; error_log stderr; pid {};", file.with_extension("pid").display());
        let mut command = Command::new("nginx");
        command.arg("-c").arg(file).args(["-e", "stderr", "-g", &own]);
        command
    });
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

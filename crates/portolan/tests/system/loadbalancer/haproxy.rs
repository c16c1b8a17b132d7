//! A balancer outside of the cluster, spreading over node ports: HAProxy from Debian, as in
//! `docs/external-load-balancer.md`.

use std::process::Command;
use std::time::Instant;

use portolan_lab::Host;

use super::balanced;
use crate::bed::{PATIENCE, at, who};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  loadBalancerClass: example.com/haproxy
  externalTrafficPolicy: Local
  healthCheckNodePort: 32100
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http, nodePort: 32080}]
";

#[test]
fn haproxy_follows_the_health_check_node_ports() {
    let (bed, _haproxy, balancer) = balanced("haproxy", SERVICE, |file| {
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(file);
        command
    });
    bed.until_answerers("client", balancer, &["web-1", "web-2"]);
    // The third node has no pod of the Service: it is never asked, so nothing is lost.
    assert_eq!(bed.answerers("client", balancer, 40), ["web-1", "web-2"]);
    bed.post("node-1", at(bed.pod_ip("web-1"), 80), "/ready?value=false");
    bed.until_answerers("client", balancer, &["web-2"]);
    bed.post("node-1", at(bed.pod_ip("web-1"), 80), "/ready?value=true");
    bed.until_answerers("client", balancer, &["web-1", "web-2"]);
    // A node that is gone altogether.
    bed.lab.host(Host::Node(1)).unwrap().kill_processes(PATIENCE).unwrap();
    let begin = Instant::now();
    loop {
        let answers: Vec<_> = (0..20).map(|_| bed.http("client", balancer)).collect();
        if answers.iter().all(|answer| answer.text().is_some() && who(answer) == "web-2") {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{answers:?}");
    }
}

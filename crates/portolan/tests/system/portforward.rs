//! `kubectl port-forward`: a pod's port, or a Service's, on the machine of who asks.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Stdio};

use portolan_lab::Host;

use crate::bed::{Bed, PATIENCE, web_pod};

/// A Service that leads to another port; and a pod that listens on its loopback only, echoes, and ends first.
const REST: &str = r#"---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 8080, targetPort: http}]
---
apiVersion: v1
kind: Pod
metadata: {name: inner, labels: {app: inner}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: portolan.dev/host
    command:
    - python3
    - -c
    - |
      import socket
      listener = socket.create_server(("127.0.0.1", 7000))
      while True:
          peer, _ = listener.accept()
          heard = bytearray()
          while not heard.endswith(b"."):
              heard += peer.recv(1 << 16)
          peer.sendall(heard)
          peer.close()
    readinessProbe: {exec: {command: [sh, -c, "grep -q 0100007F:1B58 /proc/net/tcp"]}, periodSeconds: 1}
"#;

struct Forwarding {
    child: Child,
    address: SocketAddr,
}

impl Forwarding {
    fn start(bed: &Bed, carrier: &str, what: &str, port: u16) -> Self {
        let kubectl = bed.kubectl();
        let mut command = kubectl.command(&["port-forward", what, &format!(":{port}")]);
        command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", carrier);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = bed.lab.host(Host::ControlPlane).unwrap().run(|| command.spawn()).unwrap().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        // Forwarding from 127.0.0.1:40001 -> 80
        let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        let Some(port) = port else {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("{what}: {line} {said}");
        };
        Self { child, address: (Ipv4Addr::LOCALHOST, port).into() }
    }

    /// Says something and hears everything.
    fn ask(&self, bed: &Bed, what: &[u8]) -> Vec<u8> {
        let ask = || {
            let mut stream = TcpStream::connect(self.address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut writer = stream.try_clone().unwrap();
            let mut heard = Vec::new();
            std::thread::scope(|scope| {
                scope.spawn(|| drop(writer.write_all(what)));
                // A port that nobody serves may end with a reset.
                let _ = stream.read_to_end(&mut heard);
            });
            heard
        };
        bed.lab.host(Host::ControlPlane).unwrap().run(ask).unwrap()
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn ports_of_pods_and_services_are_forwarded() {
    let bed = Bed::up(2);
    bed.apply(&format!("{}{REST}", web_pod("web-1", "app: web", Some("node-2"))));
    bed.wait_ready("app in (web, inner)");
    for carrier in ["true", "false"] {
        let http = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        for (what, port) in [("pod/web-1", 80), ("service/web", 8080)] {
            let forwarding = Forwarding::start(&bed, carrier, what, port);
            for _ in 0..3 {
                let answer = String::from_utf8(forwarding.ask(&bed, http)).unwrap();
                assert!(answer.contains("web-1"), "{what}: {answer}");
            }
        }
        // Many at once and much in each, both ways, to what only the pod itself can reach.
        let forwarding = Forwarding::start(&bed, carrier, "pod/inner", 7000);
        let much = [b"0123456789abcdef".repeat(60_000), b".".to_vec()].concat();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert!(forwarding.ask(&bed, &much) == much));
            }
        });
    }
}

#[test]
fn a_port_that_nobody_serves_is_told() {
    let bed = Bed::up(1);
    bed.apply(&web_pod("web-1", "app: web", None));
    bed.wait_ready("app=web");
    for carrier in ["true", "false"] {
        let mut forwarding = Forwarding::start(&bed, carrier, "pod/web-1", 81);
        assert_eq!(forwarding.ask(&bed, b"hello"), b"");
        let mut said = String::new();
        let mut stderr = BufReader::new(forwarding.child.stderr.take().unwrap());
        while !said.contains("refused") {
            assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "{said}");
        }
        assert!(said.contains("error forwarding port 81 to pod web-1, uid"), "{said}");
        assert!(said.contains("dial tcp 127.0.0.1:81: connect: connection refused"), "{said}");
    }
    let output = bed.kubectl().output(&["port-forward", "pod/none", ":80"], "").unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("pods \"none\" not found"), "{said}");
}

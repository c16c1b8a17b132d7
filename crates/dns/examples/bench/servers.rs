//! Every server under test, configured with the same records: ours, the others, and one that looks nothing up.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use portolan_client::Key;
use portolan_dns::metrics::Tally;
use portolan_dns::server::limit::Limiter;
use portolan_dns::server::udp::{Shared, Workers};
use portolan_dns::server::{Handler, Snapshot};
use portolan_dns::zone::view::{PortView, Protocol, ServiceKind, ServiceView};
use portolan_dns::zone::{Catalogue, Options};

use crate::{PORT, SERVICES, dotted};

pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) command: Vec<String>,
}

fn address(n: u32) -> [u8; 4] {
    (0x0a60_0000 + n + 1).to_be_bytes()
}

/// The server under test, until it is killed.
pub(crate) fn serve() {
    let mut catalogue = Catalogue::new(Options::new("cluster.local").expect("a name")).expect("options");
    catalogue.set_namespace("default", true);
    for n in 0..SERVICES {
        let port = PortView { name: "http".into(), protocol: Protocol::Tcp, port: 80 };
        let kind = ServiceKind::Cluster(vec![address(n).into()]);
        let view = ServiceView { kind, ports: vec![port] };
        catalogue.set_service(&Key::new("default", format!("service-{n}")), Some(&Arc::new(view)));
    }
    let zone = catalogue.commit(1).expect("there are Services");
    let handler = Arc::new(Handler::new(zone.clone(), None, 1232));
    handler.set_snapshot(Snapshot { zone, synced: true });
    let limiter = Arc::new(Limiter::new(&["127.0.0.0/8".parse().expect("a range")], 100));
    let shared = Shared { handler, limiter, later: Arc::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listen: SocketAddr = ([127, 0, 0, 1], PORT).into();
        let _workers = Workers::start(listen, &shared, &[Arc::new(Tally::default())]).expect("a socket");
        std::future::pending::<()>().await;
    });
}

/// Configures every server with the same records.
pub(crate) fn all(directory: &Path) -> Vec<Server> {
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let zone = |n: u32| (format!("service-{n}.default.svc.cluster.local"), dotted(n));
    let mut knot_zone = String::from(
        "$ORIGIN cluster.local.\n$TTL 5\n@ SOA ns.dns hostmaster 1 7200 1800 86400 5\n@ NS ns.dns\nns.dns A 127.0.0.1\n",
    );
    let (mut unbound, mut hosts, mut dnsmasq) = (String::new(), String::new(), String::new());
    for n in 0..SERVICES {
        let (name, ip) = zone(n);
        _ = writeln!(knot_zone, "{name}. A {ip}\n_http._tcp.{name}. SRV 0 100 80 {name}.");
        _ = writeln!(unbound, "local-data: \"{name}. 5 A {ip}\"");
        _ = writeln!(unbound, "local-data: \"_http._tcp.{name}. 5 SRV 0 100 80 {name}.\"");
        _ = writeln!(hosts, "{ip} {name}");
        _ = writeln!(dnsmasq, "srv-host=_http._tcp.{name},{name},80,0,100");
    }
    let knot_zone = write("cluster.zone", &knot_zone);
    let storage = directory.display();
    let knot = write(
        "knot.conf",
        &format!(
            "server:\n  rundir: {storage}\n  listen: 127.0.0.1@{PORT}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
             database:\n  storage: {storage}\nzone:\n  - domain: cluster.local\n    file: {knot_zone}\n"
        ),
    );
    let unbound = write(
        "unbound.conf",
        &format!(
            "server:\n interface: 127.0.0.1@{PORT}\n num-threads: 1\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n directory: \"{storage}\"\n \
             pidfile: \"\"\n use-syslog: no\n access-control: 127.0.0.0/8 allow\n module-config: \"iterator\"\n so-rcvbuf: 4m\n \
             local-zone: \"cluster.local.\" static\n local-data: \"cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5\"\n{unbound}\
             remote-control:\n control-enable: no\n"
        ),
    );
    let hosts = write("hosts", &hosts);
    let dnsmasq = write(
        "dnsmasq.conf",
        &format!(
            "keep-in-foreground\nport={PORT}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\naddn-hosts={hosts}\n\
             local=/cluster.local/\nlocal-ttl=5\ncache-size=20000\nuser=root\npid-file=\n{dnsmasq}"
        ),
    );
    let me = std::env::current_exe().expect("this program has a path").display().to_string();
    let server =
        |name, command: &[&str]| Server { name, command: command.iter().map(ToString::to_string).collect() };
    vec![
        server("portolan", &[&me, "serve"]),
        server("echo", &[&me, "echo"]),
        server("knot", &["knotd", "--config", &knot]),
        server("unbound", &["unbound", "-c", &unbound]),
        server("dnsmasq", &["dnsmasq", "-C", &dnsmasq]),
    ]
}

//! The name servers of a `resolv.conf`.

use std::net::{IpAddr, SocketAddr};

/// Every `nameserver` line that has an address. Zones of link-local addresses (`%eth0`) cannot be used and are left out.
pub(super) fn parse(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let line = line.split(['#', ';']).next()?;
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    };
    text.lines().filter_map(server).map(|ip| SocketAddr::new(ip, 53)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_name_servers_count() {
        let text = "# nameserver 192.0.2.1\nsearch a b\nnameserver 192.0.2.2 # here\n\tnameserver\t2001:db8::1\n\
                    nameserver fe80::1%eth0\nnameserver\nnameservers 192.0.2.3\noptions ndots:5\n";
        let all: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(all, ["192.0.2.2:53", "[2001:db8::1]:53"]);
    }
}

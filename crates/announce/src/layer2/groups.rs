//! Membership of the groups in which questions about IPv6 addresses are asked, so that switches pass them on: a packet
//! socket hears a group, and says nothing of it to a switch that listens for reports (MLD, RFC 3810). The kernel reports
//! for sockets of its own kind.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv6Addr, UdpSocket};

use super::ndp::solicited_group;

/// The kernel bounds what one socket may join (`net.core.optmem_max`).
const GROUPS_PER_SOCKET: usize = 100;

/// What this node has joined: link and group. Several addresses may share a group.
#[derive(Debug, Default)]
pub struct Groups {
    joined: HashMap<(u32, Ipv6Addr), Joined>,
    sockets: Vec<(UdpSocket, usize)>,
}

#[derive(Debug)]
struct Joined {
    addresses: usize,
    socket: usize,
}

impl Groups {
    pub fn join(&mut self, index: u32, ip: Ipv6Addr) -> io::Result<()> {
        let group = solicited_group(ip);
        if let Some(joined) = self.joined.get_mut(&(index, group)) {
            joined.addresses += 1;
            return Ok(());
        }
        let free = self.sockets.iter().position(|(_, count)| *count < GROUPS_PER_SOCKET);
        let at = if let Some(at) = free {
            at
        } else {
            self.sockets.push((UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?, 0));
            self.sockets.len() - 1
        };
        let (socket, count) = &mut self.sockets[at];
        socket.join_multicast_v6(&group, index)?;
        *count += 1;
        self.joined.insert((index, group), Joined { addresses: 1, socket: at });
        Ok(())
    }

    /// A link that is gone took its memberships with it: that is no error.
    pub fn leave(&mut self, index: u32, ip: Ipv6Addr) {
        let group = solicited_group(ip);
        let Some(joined) = self.joined.get_mut(&(index, group)) else { return };
        joined.addresses -= 1;
        if joined.addresses > 0 {
            return;
        }
        let at = joined.socket;
        self.joined.remove(&(index, group));
        let (socket, count) = &mut self.sockets[at];
        let _ = socket.leave_multicast_v6(&group, index);
        *count -= 1;
    }
}

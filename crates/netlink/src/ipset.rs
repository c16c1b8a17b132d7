//! The kernel's sets of addresses for iptables, as far as needed to remove what another proxy left.

use std::io;

use crate::codec::flags;
use crate::socket::{NetlinkSocket, Protocol};

/// `NFNL_SUBSYS_IPSET`, `IPSET_CMD_DESTROY` and its attributes.
const SUBSYS: u16 = 6;
const DESTROY: u16 = 3;
const PROTOCOL: u16 = 1;
const SETNAME: u16 = 2;
/// Of `ipset` 6.0 and up.
const VERSION: u8 = 6;

/// Removes a set of the caller's network namespace. `false`: there is none, or the kernel has no such sets.
pub fn destroy(name: &str) -> io::Result<bool> {
    let mut socket = NetlinkSocket::open(Protocol::Netfilter)?;
    let result = socket.request(|w, seq| {
        // Without EXCL a set that is not there would be no error.
        w.message(SUBSYS << 8 | DESTROY, flags::EXCL, seq, &[libc::AF_INET as u8, 0, 0, 0], |w| {
            w.u8(PROTOCOL, VERSION);
            w.string(SETNAME, name);
        });
    });
    match result {
        Ok(()) => Ok(true),
        // A kernel without them does not know the subsystem.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::EINVAL) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_that_is_not_there_is_no_error() {
        assert!(!destroy("portolan-no-such-set").unwrap());
    }
}

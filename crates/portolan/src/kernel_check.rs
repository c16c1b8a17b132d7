//! Whether this kernel can do what a node needs, asked before anything is started.

use portolan_netlink::nft::{NfTables as _, Socket};
use portolan_proxy::Mode;

use crate::failure::Failure;

/// What the proxy's mode needs; other modes say so themselves, before they change anything.
pub(crate) fn of_mode(mode: Mode) -> Result<(), Failure> {
    match mode {
        Mode::Nftables => nf_tables(),
        Mode::Iptables | Mode::Ipvs => Ok(()),
    }
}

/// Asks the kernel for its tables: without `nf_tables`, or without the right to use it, it says so here.
fn nf_tables() -> Result<(), Failure> {
    let why = match Socket::open() {
        Ok(mut socket) => match socket.tables() {
            Ok(_) => return Ok(()),
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    Err(Failure::NoNfTables { why })
}

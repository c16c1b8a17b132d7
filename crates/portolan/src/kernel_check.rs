//! Whether this kernel can do what a node needs, asked before anything is started.

use portolan_netlink::nft::{NfTables as _, Socket};

use crate::failure::Failure;

/// Asks the kernel for its tables: without nf_tables, or without the right to use it, it says so here.
pub(crate) fn nf_tables() -> Result<(), Failure> {
    let why = match Socket::open() {
        Ok(mut socket) => match socket.tables() {
            Ok(_) => return Ok(()),
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    Err(Failure::NoNfTables { why })
}

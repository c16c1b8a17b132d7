//! IPVS, as far as needed to remove what another proxy left.

use std::io;

use crate::socket::{NetlinkSocket, Protocol};

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY` and its attributes.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `IPVS_CMD_FLUSH`.
const FLUSH: u8 = 17;

/// Removes all virtual servers of the caller's network namespace. `false`: the kernel has no IPVS.
pub fn flush() -> io::Result<bool> {
    let mut socket = NetlinkSocket::open(Protocol::Generic)?;
    let Some(family) = family(&mut socket, "IPVS")? else { return Ok(false) };
    socket.request(|w, seq| {
        w.message(family, 0, seq, &[FLUSH, 1, 0, 0], |_| {});
    })?;
    Ok(true)
}

/// The number of a generic netlink family; `None` where the kernel does not have it.
fn family(socket: &mut NetlinkSocket, name: &str) -> io::Result<Option<u16>> {
    let mut id = None;
    let asked = socket.ask(
        |w, seq| {
            w.message(CONTROL, 0, seq, &[GET_FAMILY, 1, 0, 0], |w| w.string(FAMILY_NAME, name));
        },
        |message| {
            let attr = message.attrs(4).get(FAMILY_ID);
            id = attr.and_then(|attr| attr.payload.try_into().ok()).map(u16::from_ne_bytes);
        },
    );
    match asked {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(|()| id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_found_by_name() {
        let mut socket = NetlinkSocket::open(Protocol::Generic).unwrap();
        assert_eq!(family(&mut socket, "nlctrl").unwrap(), Some(CONTROL));
        assert_eq!(family(&mut socket, "no-such-family").unwrap(), None);
    }
}

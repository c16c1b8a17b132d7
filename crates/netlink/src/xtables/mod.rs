//! The kernel's interface to the tables of iptables-legacy: a whole table is read and a whole table replaces it, as
//! bytes.
//!
//! Here: the socket options, and the lock that all who write take ([`Lock`]). Not here: what the bytes mean; that is the
//! data plane's. Layouts are those of `linux/netfilter_ipv4/ip_tables.h` and `ip6_tables.h` for programs of 64 bits,
//! which are alike but for the numbers of the level and the raw socket.

mod lock;

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

pub use lock::{Lock, LockError};

/// `IPT_SO_SET_REPLACE` and those beside it; `IP6T_...` are the same numbers.
const SET_REPLACE: i32 = 64;
const SET_ADD_COUNTERS: i32 = 65;
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;

const NAME_LEN: usize = 32;
/// `struct ipt_getinfo`.
const INFO_LEN: usize = 84;
/// `struct ipt_get_entries` and `struct xt_counters_info` before their lists.
const ENTRIES_AT: usize = 40;
/// `struct ipt_replace` before the entries.
const REPLACE_LEN: usize = 96;
/// Packets and bytes of one entry.
pub const COUNTERS_LEN: usize = 16;

/// Packets and bytes that met a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    pub packets: u64,
    pub bytes: u64,
}

/// What the kernel says of a table beside its entries, and wants to be told with new ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Info {
    pub valid_hooks: u32,
    /// Where the chain of each hook begins, and where its policy is, in bytes.
    pub hook_entry: [u32; 5],
    pub underflow: [u32; 5],
    pub entries: u32,
    pub size: u32,
}

/// New entries, with room before them for what the kernel wants to know first, so that no copy is needed. To be used
/// again: fresh memory is what costs most about megabytes.
#[derive(Debug, Default)]
pub struct Blob(Vec<u8>);

impl Blob {
    /// Without entries, and with room for so many bytes.
    pub fn clear(&mut self, size: usize) {
        self.0.clear();
        self.0.reserve(REPLACE_LEN + size);
        self.0.resize(REPLACE_LEN, 0);
    }

    pub fn len(&self) -> usize {
        self.0.len().saturating_sub(REPLACE_LEN)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Those pushed since [`Blob::clear`].
    pub fn entries(&mut self) -> &mut [u8] {
        &mut self.0[REPLACE_LEN..]
    }
}

/// One family's tables in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    level: i32,
}

impl Socket {
    /// Whether a program like this one can speak to the kernel so: the layouts differ for 32 bits.
    pub const CAN: bool = cfg!(target_pointer_width = "64");

    pub fn v4() -> io::Result<Self> {
        Self::open(AddressFamily::INET, libc::IPPROTO_IP)
    }

    pub fn v6() -> io::Result<Self> {
        Self::open(AddressFamily::INET6, libc::IPPROTO_IPV6)
    }

    fn open(family: AddressFamily, level: i32) -> io::Result<Self> {
        if !Self::CAN {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let raw = Some(ipproto::RAW);
        let fd = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, raw)?;
        Ok(Self { fd, level })
    }

    /// Makes the table if the kernel can.
    pub fn info(&self, table: &str) -> io::Result<Info> {
        let mut bytes = vec![0; INFO_LEN];
        put_name(&mut bytes, table);
        self.get(GET_INFO, &mut bytes)?;
        let word = |at: usize| ne32(&bytes, at);
        let five = |at: usize| std::array::from_fn(|n| word(at + 4 * n));
        Ok(Info {
            valid_hooks: word(32),
            hook_entry: five(36),
            underflow: five(56),
            entries: word(76),
            size: word(80),
        })
    }

    /// All entries, one behind the other, with their counters; `EAGAIN` when the size is not what [`Socket::info`] said.
    /// `buffer` may be used again, too.
    pub fn entries<'a>(&self, table: &str, size: u32, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        // The kernel writes nothing behind the end of a name, so what was there would come back as part of the entry.
        buffer.clear();
        buffer.resize(ENTRIES_AT + size as usize, 0);
        put_name(buffer, table);
        buffer[NAME_LEN..NAME_LEN + 4].copy_from_slice(&size.to_ne_bytes());
        self.get(GET_ENTRIES, buffer)?;
        Ok(&buffer[ENTRIES_AT..])
    }

    /// Puts other entries in place of all, at once. What the old ones, `old_entries` of them, had counted by that very
    /// moment is the answer. `EAGAIN`: there are not as many any more.
    pub fn replace(
        &self,
        table: &str,
        info: &Info,
        blob: &mut Blob,
        old_entries: u32,
    ) -> io::Result<Vec<Counters>> {
        let mut counted = vec![Counters::default(); old_entries as usize];
        let head = &mut blob.0[..REPLACE_LEN];
        head.fill(0);
        put_name(head, table);
        let words = [info.valid_hooks, info.entries, info.size]
            .into_iter()
            .chain(info.hook_entry)
            .chain(info.underflow)
            .chain([old_entries]);
        for (word, place) in words.zip(head[NAME_LEN..].chunks_exact_mut(4)) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        let address = counted.as_mut_ptr().expose_provenance();
        head[REPLACE_LEN - 8..].copy_from_slice(&(address as u64).to_ne_bytes());
        self.set(SET_REPLACE, &blob.0)?;
        Ok(counted)
    }

    /// Adds to the counters of all entries, in their order.
    pub fn add_counters(&self, table: &str, counters: &[Counters]) -> io::Result<()> {
        let mut bytes = vec![0; ENTRIES_AT];
        put_name(&mut bytes, table);
        bytes[NAME_LEN..NAME_LEN + 4].copy_from_slice(&(counters.len() as u32).to_ne_bytes());
        bytes.reserve(counters.len() * COUNTERS_LEN);
        for counter in counters {
            bytes.extend_from_slice(&counter.packets.to_ne_bytes());
            bytes.extend_from_slice(&counter.bytes.to_ne_bytes());
        }
        self.set(SET_ADD_COUNTERS, &bytes)
    }

    fn get(&self, option: i32, bytes: &mut [u8]) -> io::Result<()> {
        let mut length = bytes.len() as libc::socklen_t;
        // SAFETY: the pointer and the length describe `bytes`, which outlives the call; the kernel writes no more.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                self.level,
                option,
                bytes.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn set(&self, option: i32, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and the length describe `bytes`, which outlives the call. Of the two options used here,
        // the one that has the kernel write (`SET_REPLACE`) names memory for as many counters as it says, which
        // `replace` keeps until the call has returned.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                self.level,
                option,
                bytes.as_ptr().cast(),
                bytes.len() as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// The names of tables are ours, and short.
fn put_name(bytes: &mut [u8], name: &str) {
    bytes[..name.len()].copy_from_slice(name.as_bytes());
}

/// Four bytes in the machine's order.
fn ne32(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(std::array::from_fn(|n| bytes[at + n]))
}

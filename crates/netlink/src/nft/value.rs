//! Bytes of a key, of an element's data or of an operand, as the kernel keeps them in registers.
//!
//! Two layouts exist. A *single* value has exactly the length of its type: a port is two bytes. In a *concatenation*
//! every field starts at a four-byte register and is padded with zeroes to a multiple of four: a port takes four.
//! `Value::from(..)` and [`Value::port_only`] make single values; the chained methods ([`Value::addr`],
//! [`Value::port`], ...) append padded fields.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Enough for an IPv6 address, a protocol, a port and an index, so that the common keys need no allocation.
const INLINE: usize = 30;

/// The kernel's limit for one value: sixteen registers of four bytes.
pub const LEN_MAX: usize = 64;

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE] },
    Heap(Vec<u8>),
}

/// A short byte string; the usual keys are held without allocation.
#[derive(Clone)]
pub struct Value(Repr);

impl Value {
    pub const fn new() -> Self {
        Self(Repr::Inline { len: 0, bytes: [0; INLINE] })
    }

    /// The bytes as they are.
    pub fn from_slice(bytes: &[u8]) -> Self {
        let mut value = Self::new();
        value.push(bytes);
        value
    }

    /// A single host-endian integer: a mark, an interface index, a number generator's result.
    pub fn host32(number: u32) -> Self {
        Self::from_slice(&number.to_ne_bytes())
    }

    /// A single port, two bytes in network order (not padded: for sets whose key is the port alone, and for `cmp`).
    pub fn port_only(port: u16) -> Self {
        Self::from_slice(&port.to_be_bytes())
    }

    /// A single protocol number, one byte.
    pub fn proto_only(proto: u8) -> Self {
        Self::from_slice(&[proto])
    }

    /// An interface name as the kernel compares it: sixteen bytes, filled with zeroes. Longer names are cut, as no
    /// interface can have one.
    pub fn ifname(name: &str) -> Self {
        let mut bytes = [0u8; 16];
        let len = name.len().min(15);
        bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
        Self::from_slice(&bytes)
    }

    /// Appends bytes without padding.
    pub fn push(&mut self, more: &[u8]) {
        match &mut self.0 {
            Repr::Inline { len, bytes } => {
                let start = usize::from(*len);
                let end = start + more.len();
                if end <= INLINE {
                    bytes[start..end].copy_from_slice(more);
                    *len = end as u8;
                } else {
                    let mut heap = Vec::with_capacity(end);
                    heap.extend_from_slice(&bytes[..start]);
                    heap.extend_from_slice(more);
                    self.0 = Repr::Heap(heap);
                }
            }
            Repr::Heap(heap) => heap.extend_from_slice(more),
        }
    }

    /// Appends a field of a concatenation, padded to a multiple of four bytes.
    #[must_use]
    pub fn field(mut self, bytes: &[u8]) -> Self {
        self.push(bytes);
        let padding = bytes.len().next_multiple_of(4) - bytes.len();
        self.push(&[0; 3][..padding]);
        self
    }

    #[must_use]
    pub fn addr(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.field(&address.octets()),
            IpAddr::V6(address) => self.field(&address.octets()),
        }
    }

    #[must_use]
    pub fn proto(self, proto: u8) -> Self {
        self.field(&[proto])
    }

    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.field(&port.to_be_bytes())
    }

    /// Appends a host-endian integer: a mark, an index, a number generator's result.
    #[must_use]
    pub fn mark(self, number: u32) -> Self {
        self.field(&number.to_ne_bytes())
    }

    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Heap(heap) => heap,
        }
    }

    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Value {
    fn default() -> Self {
        Self::new()
    }
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Self {
        Self::new().addr(address)
    }
}

impl From<Ipv4Addr> for Value {
    fn from(address: Ipv4Addr) -> Self {
        Self::from_slice(&address.octets())
    }
}

impl From<Ipv6Addr> for Value {
    fn from(address: Ipv6Addr) -> Self {
        Self::from_slice(&address.octets())
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::from_slice(bytes)
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.as_slice().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_padded_to_registers_and_single_values_are_not() {
        let key = Value::new().addr("10.0.0.1".parse().unwrap()).proto(6).port(80);
        assert_eq!(key.as_slice(), [10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0]);
        assert_eq!(Value::port_only(80).as_slice(), [0, 80]);
    }

    #[test]
    fn long_values_move_to_the_heap_and_stay_equal() {
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        let long = Value::new().addr(address).addr(address).port(1);
        assert_eq!(long.len(), 36);
        assert_eq!(long, Value::from_slice(long.as_slice()));
        assert!(long > Value::new());
        assert_eq!(size_of::<Value>(), 32);
    }
}

//! The set of node ports in use, as it is kept in the store: one `v1 RangeAllocation` whose `data` is a big-endian number
//! with bit `port - first` set. Pure.

use std::ops::RangeInclusive;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::Rng;
use serde_json::{Value, json};

use super::band::{self, NODE_PORTS};

/// Where the object is kept.
pub const KEY: &str = "/registry/ranges/servicenodeports";

/// Which ports of a range are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    first: u16,
    last: u16,
    /// Bit `n` of byte `m` is port `first + 8*m + n`.
    bits: Vec<u8>,
}

/// Why a port was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    #[error("provided port is already allocated")]
    Allocated,
    #[error("provided port is not in the valid range. The range of valid ports is {0}-{1}")]
    NotInRange(u16, u16),
    #[error("range is full")]
    Full,
    /// Somebody took the stored bitmap away: what is in use is not known until repair has looked.
    #[error("cannot allocate resources of type servicenodeportallocations at this time")]
    Absent,
}

impl Bitmap {
    pub fn new(range: &RangeInclusive<u16>) -> Bitmap {
        let (first, last) = (*range.start(), *range.end());
        let size = usize::from(last.saturating_sub(first)) + 1;
        Bitmap { first, last, bits: vec![0; size.div_ceil(8)] }
    }

    /// Reads the stored object. Ports outside `range` are left out: the administrator moved the range.
    /// None: not such an object.
    pub fn decode(value: &[u8], range: &RangeInclusive<u16>) -> Option<Bitmap> {
        let object: Value = serde_json::from_slice(value).ok()?;
        let (first, _) = object["range"].as_str()?.split_once('-')?;
        let first: u16 = first.parse().ok()?;
        let data = STANDARD.decode(object["data"].as_str().unwrap_or_default()).ok()?;
        let mut bitmap = Bitmap::new(range);
        for (position, byte) in data.iter().rev().enumerate() {
            for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                if let Ok(port) = u16::try_from(usize::from(first) + position * 8 + bit) {
                    _ = bitmap.take(port);
                }
            }
        }
        Some(bitmap)
    }

    /// The object to store.
    pub fn encode(&self) -> Vec<u8> {
        let length = self.bits.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let data: Vec<u8> = self.bits[..length].iter().rev().copied().collect();
        let object = json!({
            "kind": "RangeAllocation",
            "apiVersion": "v1",
            "metadata": {},
            "range": self.range(),
            "data": STANDARD.encode(data),
        });
        object.to_string().into_bytes()
    }

    /// Whether the port is of the range.
    pub fn covers(&self, port: u16) -> bool {
        self.place(port).is_some()
    }

    pub fn has(&self, port: u16) -> bool {
        self.place(port).is_some_and(|(byte, bit)| self.bits[byte] & bit != 0)
    }

    /// Takes one port.
    pub fn take(&mut self, port: u16) -> Result<(), PortError> {
        let (byte, bit) = self.place(port).ok_or(PortError::NotInRange(self.first, self.last))?;
        if self.bits[byte] & bit != 0 {
            return Err(PortError::Allocated);
        }
        self.bits[byte] |= bit;
        Ok(())
    }

    /// Takes the port a client asks for, which may be no port at all.
    pub fn take_asked(&mut self, number: i32) -> Result<u16, PortError> {
        let port = u16::try_from(number).map_err(|_| PortError::NotInRange(self.first, self.last))?;
        self.take(port).map(|()| port)
    }

    /// Takes any free port, by the rule of the bands.
    pub fn take_any(&mut self, rng: &mut impl Rng) -> Result<u16, PortError> {
        let size = u128::from(self.last.saturating_sub(self.first)) + 1;
        let taken = |place: u128| self.has(self.first + place as u16);
        let place = band::pick(size, NODE_PORTS.lower(size), rng, taken).ok_or(PortError::Full)?;
        let port = self.first + place as u16;
        self.take(port).map(|()| port)
    }

    /// Gives a port back; nothing happens if it was free or is of no range.
    pub fn release(&mut self, port: u16) {
        if let Some((byte, bit)) = self.place(port) {
            self.bits[byte] &= !bit;
        }
    }

    /// The range, as the object and messages have it.
    pub fn range(&self) -> String {
        format!("{}-{}", self.first, self.last)
    }

    /// How many ports there are, taken or not.
    pub fn size(&self) -> usize {
        usize::from(self.last.saturating_sub(self.first)) + 1
    }

    /// All ports taken, in order.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        (self.first..=self.last).filter(|port| self.has(*port))
    }

    fn place(&self, port: u16) -> Option<(usize, u8)> {
        if !(self.first..=self.last).contains(&port) {
            return None;
        }
        let place = usize::from(port - self.first);
        Some((place / 8, 1 << (place % 8)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: RangeInclusive<u16> = 30000..=32767;

    #[test]
    fn the_stored_form_is_a_big_endian_number() {
        let mut bitmap = Bitmap::new(&RANGE);
        bitmap.take(30000).unwrap();
        bitmap.take(30009).unwrap();
        let object: Value = serde_json::from_slice(&bitmap.encode()).unwrap();
        assert_eq!(object["range"], "30000-32767");
        assert_eq!(STANDARD.decode(object["data"].as_str().unwrap()).unwrap(), [0b10, 0b1]);
        assert_eq!(Bitmap::decode(&bitmap.encode(), &RANGE), Some(bitmap));
    }

    #[test]
    fn a_moved_range_keeps_the_ports_it_still_has() {
        let mut bitmap = Bitmap::new(&RANGE);
        bitmap.take(30000).unwrap();
        bitmap.take(31000).unwrap();
        let moved = Bitmap::decode(&bitmap.encode(), &(30500..=31500)).unwrap();
        assert_eq!(moved.ports().collect::<Vec<_>>(), [31000]);
    }

    #[test]
    fn ports_are_given_once_and_from_the_upper_band_first() {
        let mut bitmap = Bitmap::new(&RANGE);
        let mut rng = rand::rng();
        assert_eq!(bitmap.take(80), Err(PortError::NotInRange(30000, 32767)));
        bitmap.take(32767).unwrap();
        assert_eq!(bitmap.take(32767), Err(PortError::Allocated));
        for _ in 0..2768 - 86 - 1 {
            assert!(bitmap.take_any(&mut rng).unwrap() >= 30086);
        }
        for _ in 0..86 {
            assert!(bitmap.take_any(&mut rng).unwrap() < 30086);
        }
        assert_eq!(bitmap.take_any(&mut rng), Err(PortError::Full));
        bitmap.release(30001);
        assert_eq!(bitmap.take_any(&mut rng), Ok(30001));
    }

    #[test]
    fn a_range_to_the_last_port_works() {
        let mut bitmap = Bitmap::new(&(65535..=65535));
        assert_eq!(bitmap.take_any(&mut rand::rng()), Ok(65535));
        assert_eq!(Bitmap::decode(&bitmap.encode(), &(65535..=65535)), Some(bitmap));
    }
}

//! What nodes tell each other, ten times a second and at every change: that they live, and what they answer for.
//!
//! A beat is one UDP datagram, authenticated with a key that all announcers share (HMAC-SHA-256, RFC 2104); it is not
//! secret. Incarnation and sequence only grow, so a beat that was recorded cannot be played to those who heard a later one.

use std::net::IpAddr;

use sha2::{Digest, Sha256};

const MAGIC: [u8; 4] = *b"PTLB";
const VERSION: u8 = 1;
const TAG_BYTES: usize = 32;
/// Fits every Ethernet, also through a tunnel.
const BYTES_MAX: usize = 1200;
const NAME_BYTES_MAX: usize = 253;
const MACS_MAX: usize = 8;
/// The largest entry: kind, IPv6 address, epoch.
const ENTRY_BYTES_MAX: usize = 1 + 16 + 8;

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Listens before it takes anything.
    Joining,
    Ready,
    /// Did not run for a while, and is asked only where nobody else is ready.
    Doubtful,
    /// Goes, and answers until others have taken over.
    Leaving,
}

/// What a node says about one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It answers, since this epoch.
    Holds(u64),
    /// It answered until now.
    Released(u64),
    /// It cannot answer: it has no link there.
    Unable,
    /// It can again.
    Able,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    pub node: String,
    /// When the program started, in microseconds since 1970.
    pub incarnation: u64,
    pub sequence: u64,
    pub stage: Stage,
    /// Of the links it answers on: not to be taken for strangers.
    pub macs: Vec<[u8; 6]>,
    pub words: Vec<(IpAddr, Word)>,
}

/// Why a datagram is no beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BeatError {
    #[error("not a beat")]
    Foreign,
    #[error("wrong key: the Secret kube-system/portolan-announce must be the same on all nodes")]
    WrongKey,
    #[error("malformed")]
    Malformed,
}

/// How many words certainly fit beside a name.
pub fn words_max(name: &str) -> usize {
    let fixed = MAGIC.len() + 1 + TAG_BYTES + 8 + 8 + 1 + 1 + name.len() + 1 + MACS_MAX * 6 + 1;
    (BYTES_MAX.saturating_sub(fixed) / ENTRY_BYTES_MAX).min(255)
}

impl Beat {
    pub fn encode(&self, key: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend(MAGIC);
        out.push(VERSION);
        out.extend([0; TAG_BYTES]);
        out.extend(self.incarnation.to_be_bytes());
        out.extend(self.sequence.to_be_bytes());
        out.push(match self.stage {
            Stage::Joining => 0,
            Stage::Ready => 1,
            Stage::Leaving => 2,
            Stage::Doubtful => 3,
        });
        let name = &self.node.as_bytes()[..self.node.len().min(NAME_BYTES_MAX)];
        out.push(name.len() as u8);
        out.extend(name);
        let macs = &self.macs[..self.macs.len().min(MACS_MAX)];
        out.push(macs.len() as u8);
        out.extend(macs.as_flattened());
        let words = &self.words[..self.words.len().min(words_max(&self.node))];
        out.push(words.len() as u8);
        for (ip, word) in words {
            let (kind, epoch) = match word {
                Word::Holds(epoch) => (0, *epoch),
                Word::Released(epoch) => (1, *epoch),
                Word::Unable => (2, 0),
                Word::Able => (3, 0),
            };
            match ip {
                IpAddr::V4(ip) => {
                    out.push(kind);
                    out.extend(ip.octets());
                }
                IpAddr::V6(ip) => {
                    out.push(kind | 0x80);
                    out.extend(ip.octets());
                }
            }
            out.extend(epoch.to_be_bytes());
        }
        let tag = hmac(key, &out[MAGIC.len() + 1 + TAG_BYTES..]);
        out[MAGIC.len() + 1..][..TAG_BYTES].copy_from_slice(&tag);
        out
    }

    pub fn decode(bytes: &[u8], key: &[u8]) -> Result<Self, BeatError> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(BeatError::Foreign)?;
        let ([VERSION], rest) = rest.split_first_chunk().ok_or(BeatError::Foreign)? else {
            return Err(BeatError::Foreign);
        };
        let (tag, body) = rest.split_first_chunk::<TAG_BYTES>().ok_or(BeatError::Malformed)?;
        if !same(tag, &hmac(key, body)) {
            return Err(BeatError::WrongKey);
        }
        let mut reader = Reader(body);
        reader.beat().ok_or(BeatError::Malformed)
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*chunk)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn beat(&mut self) -> Option<Beat> {
        let (incarnation, sequence) = (self.number()?, self.number()?);
        let stage = match self.byte()? {
            0 => Stage::Joining,
            1 => Stage::Ready,
            2 => Stage::Leaving,
            3 => Stage::Doubtful,
            _ => return None,
        };
        let length = usize::from(self.byte()?);
        let name = self.0.get(..length)?;
        self.0 = &self.0[length..];
        let node = std::str::from_utf8(name).ok()?.to_owned();
        let macs = (0..self.byte()?).map(|_| self.take()).collect::<Option<Vec<_>>>()?;
        let words = (0..self.byte()?).map(|_| self.word()).collect::<Option<Vec<_>>>()?;
        self.0.is_empty().then_some(Beat { node, incarnation, sequence, stage, macs, words })
    }

    fn word(&mut self) -> Option<(IpAddr, Word)> {
        let kind = self.byte()?;
        let ip =
            if kind & 0x80 == 0 { IpAddr::from(self.take::<4>()?) } else { IpAddr::from(self.take::<16>()?) };
        let epoch = self.number()?;
        let word = match kind & 0x7f {
            0 => Word::Holds(epoch),
            1 => Word::Released(epoch),
            2 => Word::Unable,
            3 => Word::Able,
            _ => return None,
        };
        Some((ip, word))
    }
}

/// Without telling by its duration where the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |found, (a, b)| found | (a ^ b)) == 0
}

/// HMAC-SHA-256, RFC 2104.
fn hmac(key: &[u8], message: &[u8]) -> [u8; TAG_BYTES] {
    const BLOCK: usize = 64;
    let mut block = [0; BLOCK];
    if key.len() > BLOCK {
        block[..TAG_BYTES].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn beat() -> Beat {
        Beat {
            node: "node-1".into(),
            incarnation: 7,
            sequence: 9,
            stage: Stage::Ready,
            macs: vec![[2, 0, 0, 0, 0, 1]],
            words: vec![
                (IpAddr::from([192, 0, 2, 1]), Word::Holds(5)),
                ("fd00::1".parse().unwrap(), Word::Released(6)),
                (IpAddr::from([192, 0, 2, 2]), Word::Unable),
                (IpAddr::from([192, 0, 2, 2]), Word::Able),
            ],
        }
    }

    #[test]
    fn beats_survive_the_wire_and_nothing_else_does() {
        let bytes = beat().encode(b"key");
        assert_eq!(Beat::decode(&bytes, b"key"), Ok(beat()));
        assert_eq!(Beat::decode(&bytes, b"other"), Err(BeatError::WrongKey));
        assert_eq!(Beat::decode(b"GET / HTTP/1.1", b"key"), Err(BeatError::Foreign));
        for at in 5..bytes.len() {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            assert_eq!(Beat::decode(&forged, b"key"), Err(BeatError::WrongKey), "{at}");
        }
    }

    #[test]
    fn the_most_words_fit_a_datagram() {
        let node = "n".repeat(NAME_BYTES_MAX);
        let words = vec![("fd00::1".parse().unwrap(), Word::Holds(u64::MAX)); words_max(&node)];
        let beat = Beat { node, macs: vec![[0; 6]; MACS_MAX], words, ..beat() };
        assert!(beat.words.len() > 30);
        let bytes = beat.encode(b"key");
        assert!(bytes.len() <= BYTES_MAX, "{}", bytes.len());
        assert_eq!(Beat::decode(&bytes, b"key"), Ok(beat));
    }

    /// RFC 4231, cases 2 and 6.
    #[test]
    fn the_code_is_hmac_sha_256() {
        let hex = |bytes: [u8; 32]| bytes.map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(
            hex(hmac(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = MAGIC.to_vec();
            bytes.push(VERSION);
            bytes.extend(hmac(b"key", &body));
            bytes.extend(&body);
            let _ = Beat::decode(&bytes, b"key");
        }
    }
}

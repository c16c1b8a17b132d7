//! Names and values of a stream's header block: zlib over the whole connection, with the dictionary that SPDY/3 names
//! (draft-mbelshe-httpbis-spdy-00, 2.6.10.1).

use std::sync::LazyLock;

use bytes::Buf as _;
use flate2::{Decompress, FlushDecompress};

use super::frame::Malformed;
use crate::limits::SPDY_HEADER_BYTES_MAX;

/// The dictionary's first part: words, each behind its length.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host if-match \
    if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";

/// Its second part, as it is.
const TEXT: &str = "10010120120220520630030230330430530630740240540640740840941041141241341441541641750250450520\
    3 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not \
    Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov \
    Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,\
    application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1\
    ,utf-,*,enq=0.";

pub(super) static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = Vec::new();
    for word in WORDS.split(' ') {
        let len = u32::try_from(word.len()).unwrap_or_default();
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend(word.bytes().map(|byte| if byte == b'_' { b' ' } else { byte }));
    }
    bytes.extend_from_slice(TEXT.as_bytes());
    bytes
});

/// The compressed block that names nothing: all that is ever sent. Zlib's own head, a stored piece of four zeros (the
/// number of pairs), and an empty one, at which readers give out what they hold. Later blocks have no head.
pub(super) const FIRST_EMPTY: &[u8] = &[0x78, 0x01, 0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
pub(super) const EMPTY: &[u8] = FIRST_EMPTY.split_at(2).1;

/// What one side of a connection has said about its streams so far, which later blocks refer to.
#[derive(Debug)]
pub(super) struct Unpacker(Decompress);

impl Unpacker {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// The pairs of the next block, names in lower case.
    pub(super) fn pairs(&mut self, block: &[u8]) -> Result<Vec<(String, String)>, Malformed> {
        parse(&self.unpack(block)?)
    }

    fn unpack(&mut self, mut block: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::with_capacity(512);
        loop {
            if out.len() == out.capacity() {
                if out.len() >= SPDY_HEADER_BYTES_MAX {
                    return Err(Malformed("a header block is too large"));
                }
                out.reserve(out.len());
            }
            let (before, was) = (self.0.total_in(), out.len());
            let result = self.0.decompress_vec(block, &mut out, FlushDecompress::Sync);
            let taken = usize::try_from(self.0.total_in() - before).unwrap_or(usize::MAX);
            block = block.get(taken..).unwrap_or_default();
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(&DICTIONARY)
                        .map_err(|_| Malformed("headers are packed with another dictionary"))?;
                }
                Err(_) => return Err(Malformed("a header block does not unpack")),
                // All that there is has been given when there is room left, or nothing comes any more.
                Ok(_) if block.is_empty() && out.len() < out.capacity() => return Ok(out),
                Ok(_) if taken == 0 && out.len() == was && out.len() < out.capacity() => {
                    return Err(Malformed("a header block does not unpack"));
                }
                Ok(_) => {}
            }
        }
    }
}

fn parse(mut block: &[u8]) -> Result<Vec<(String, String)>, Malformed> {
    let cut_off = Malformed("a header block is cut off");
    let number = |block: &mut &[u8]| block.try_get_u32().map_err(|_| cut_off);
    let text = |block: &mut &[u8]| -> Result<String, Malformed> {
        let len = number(block)? as usize;
        let (text, rest) = block.split_at_checked(len).ok_or(cut_off)?;
        *block = rest;
        String::from_utf8(text.to_vec()).map_err(|_| Malformed("a header is no text"))
    };
    let count = number(&mut block)?;
    let mut pairs = Vec::new();
    for _ in 0..count {
        let name = text(&mut block)?.to_ascii_lowercase();
        pairs.push((name, text(&mut block)?));
    }
    Ok(pairs)
}

#[cfg(test)]
pub(super) mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    /// Packs blocks as clients do.
    pub(in crate::serving::spdy) struct Packer(Compress);

    impl Packer {
        pub(in crate::serving::spdy) fn new() -> Self {
            let mut compress = Compress::new(Compression::best(), true);
            compress.set_dictionary(&DICTIONARY).unwrap();
            Self(compress)
        }

        pub(in crate::serving::spdy) fn pack(&mut self, pairs: &[(&str, &str)]) -> Vec<u8> {
            let mut plain = u32::try_from(pairs.len()).unwrap().to_be_bytes().to_vec();
            for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
                plain.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                plain.extend(text.as_bytes());
            }
            let mut block = Vec::with_capacity(plain.len() * 2 + 100);
            self.0.compress_vec(&plain, &mut block, FlushCompress::Sync).unwrap();
            block
        }
    }

    #[test]
    fn the_dictionary_is_the_one_that_spdy_names() {
        // What zlib streams that were packed with it name in their head.
        assert_eq!(DICTIONARY.len(), 1423);
        let adler = |bytes: &[u8]| {
            let (low, high) = bytes.iter().fold((1_u32, 0_u32), |(low, high), byte| {
                let low = (low + u32::from(*byte)) % 65521;
                (low, (high + low) % 65521)
            });
            high << 16 | low
        };
        assert_eq!(adler(&DICTIONARY), 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_refer_to_those_before() {
        let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
        let long = "x".repeat(5_000);
        for pairs in [vec![("streamtype", "error"), ("port", "80")], vec![], vec![("streamtype", &*long)]] {
            let want: Vec<_> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            assert_eq!(unpacker.pairs(&packer.pack(&pairs)), Ok(want));
        }
        let huge = "y".repeat(SPDY_HEADER_BYTES_MAX);
        assert!(unpacker.pairs(&packer.pack(&[("a", &huge)])).is_err());
    }

    #[test]
    fn what_we_send_unpacks_to_nothing() {
        let mut unpacker = Unpacker::new();
        assert_eq!(unpacker.pairs(FIRST_EMPTY), Ok(vec![]));
        assert_eq!(unpacker.pairs(EMPTY), Ok(vec![]));
    }

    #[test]
    fn nonsense_is_refused() {
        for block in [&b"\x78\xbb"[..], b"abc", b"", &[0x78, 0x01, 0, 4, 0, 0xfb, 0xff, 0, 0, 0, 9]] {
            assert!(Unpacker::new().pairs(block).is_err(), "{block:?}");
        }
    }
}

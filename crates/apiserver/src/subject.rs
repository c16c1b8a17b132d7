//! Subjects with several organizations: the certificate library keeps one attribute of each type, and Kubernetes reads
//! every organization as a group. The certificate is made without them, its subject is exchanged, and it is signed again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{KeyPair, SigningKey as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const BIT_STRING: u8 = 0x03;
const UTF8_STRING: u8 = 0x0c;
/// `id-at-organizationName` and `id-at-commonName`, with tag and length.
const ORGANIZATION: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x0a];
const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];

/// The certificate (DER) with this user and these groups as its subject, signed by `key`, as PEM.
pub(crate) fn exchange(
    der: &[u8],
    user: &str,
    groups: &[String],
    key: &KeyPair,
) -> Result<String, rcgen::Error> {
    let unreadable = || rcgen::Error::CouldNotParseCertificate;
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| unreadable())?;
    let signed = certificate.tbs_certificate.as_ref();
    let old = certificate.subject().as_raw();
    let at = signed.windows(old.len()).rposition(|window| window == old).ok_or_else(unreadable)?;
    // The outer header goes; what it contains is wrapped anew, as its length changes.
    let content = signed.len() - content_length(signed).ok_or_else(unreadable)?;
    let body = [&signed[content..at], &name(user, groups), &signed[at + old.len()..]].concat();
    let signed = wrap(SEQUENCE, &body);
    let mut signature = vec![0];
    signature.extend(key.sign(&signed)?);
    // RFC 5758 section 3.2: ecdsa-with-SHA256 has no parameters.
    let algorithm = wrap(SEQUENCE, &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]);
    let whole = wrap(SEQUENCE, &[signed, algorithm, wrap(BIT_STRING, &signature)].concat());
    Ok(pem(&whole))
}

/// A name: each attribute in a set of its own (RFC 5280 section 4.1.2.4).
fn name(user: &str, groups: &[String]) -> Vec<u8> {
    let attribute = |kind: &[u8], text: &str| {
        let pair = [kind, &wrap(UTF8_STRING, text.as_bytes())].concat();
        wrap(SET, &wrap(SEQUENCE, &pair))
    };
    let mut parts: Vec<u8> = groups.iter().flat_map(|group| attribute(ORGANIZATION, group)).collect();
    parts.extend(attribute(COMMON_NAME, user));
    wrap(SEQUENCE, &parts)
}

/// Tag, length, content.
fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len();
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
        out.push(0x80 | bytes.len() as u8);
        out.extend_from_slice(bytes);
    }
    out.extend_from_slice(content);
    out
}

/// The length that the header of a DER value states.
fn content_length(der: &[u8]) -> Option<usize> {
    let first = usize::from(*der.get(1)?);
    if first < 0x80 {
        return Some(first);
    }
    let bytes = der.get(2..2 + (first & 0x7f))?;
    Some(bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
}

fn pem(der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

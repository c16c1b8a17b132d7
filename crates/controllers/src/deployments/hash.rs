//! A short name for a template.

use portolan_api::core::v1::PodTemplateSpec;

/// Letters and digits that form no words.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The name of a template: the same for equal templates. `collisions` changes it where another has the name.
pub fn of(template: &PodTemplateSpec, collisions: i32) -> String {
    // The order of fields and keys in this text is fixed, so equal templates have equal texts.
    let text = serde_json::to_vec(template).unwrap_or_default();
    let salt = if collisions > 0 { collisions.to_le_bytes().to_vec() } else { Vec::new() };
    let hash = text
        .iter()
        .chain(&salt)
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    let digit = |byte: u8| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]);
    hash.to_string().bytes().map(digit).collect()
}

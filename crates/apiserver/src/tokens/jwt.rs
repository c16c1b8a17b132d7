//! Signed tokens (RFC 7519, ES256): the keys, writing and checking a signature. What claims mean is `tokens`' own.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use rcgen::{KeyPair, PublicKeyData as _};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Keys for tokens: the first signs, all are trusted.
pub struct TokenKeys {
    signer: EcdsaKeyPair,
    trusted: Vec<Trusted>,
}

/// Why keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("key {0} for service account tokens is no ECDSA P-256 key in PEM")]
pub struct BadKey(usize);

struct Trusted {
    id: String,
    /// X and Y, 32 bytes each, after a byte 4.
    point: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

impl std::fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.trusted.iter().map(|key| &key.id)).finish()
    }
}

impl TokenKeys {
    /// Private keys as PEM (PKCS #8); the first signs.
    pub fn new<'a>(pems: impl IntoIterator<Item = &'a str>) -> Result<Self, BadKey> {
        let (mut signer, mut trusted) = (None, Vec::new());
        for (index, pem) in pems.into_iter().enumerate() {
            let bad = || BadKey(index);
            let pair = KeyPair::from_pem(pem).map_err(|_| bad())?;
            let own = EcdsaKeyPair::from_pkcs8(
                &ECDSA_P256_SHA256_FIXED_SIGNING,
                pair.serialized_der(),
                &SystemRandom::new(),
            );
            let own = own.map_err(|_| bad())?;
            let id = BASE64URL.encode(Sha256::digest(pair.subject_public_key_info()));
            trusted.push(Trusted { id, point: own.public_key().as_ref().to_vec() });
            signer.get_or_insert(own);
        }
        Ok(Self { signer: signer.ok_or(BadKey(0))?, trusted })
    }

    /// The token with these claims; `None` if the system has no random numbers.
    pub(super) fn sign(&self, claims: &Value) -> Option<String> {
        let header = json!({ "alg": "ES256", "kid": self.trusted.first()?.id });
        let part = |value: &Value| BASE64URL.encode(value.to_string());
        let mut token = format!("{}.{}", part(&header), part(claims));
        let signature = self.signer.sign(&SystemRandom::new(), token.as_bytes()).ok()?;
        token.push('.');
        token.push_str(&BASE64URL.encode(signature));
        Some(token)
    }

    /// The claims of a token that one of the keys signed.
    pub(super) fn open(&self, token: &str) -> Option<Value> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = serde_json::from_slice(&BASE64URL.decode(header).ok()?).ok()?;
        if header.alg != "ES256" {
            return None;
        }
        let signature = BASE64URL.decode(signature).ok()?;
        let named = |key: &&Trusted| header.kid.is_empty() || key.id == header.kid;
        let signs = |key: &Trusted| {
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point);
            key.verify(signed.as_bytes(), &signature).is_ok()
        };
        if !self.trusted.iter().filter(named).any(signs) {
            return None;
        }
        serde_json::from_slice(&BASE64URL.decode(claims).ok()?).ok()
    }

    /// The public keys as a JSON Web Key Set (RFC 7517).
    pub(crate) fn published(&self) -> Value {
        let key = |key: &Trusted| {
            let (x, y) = key.point[1..].split_at(32);
            json!({
                "use": "sig", "kty": "EC", "kid": key.id, "alg": "ES256", "crv": "P-256",
                "x": BASE64URL.encode(x), "y": BASE64URL.encode(y),
            })
        };
        json!({ "keys": self.trusted.iter().map(key).collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem() -> String {
        KeyPair::generate().unwrap().serialize_pem()
    }

    #[test]
    fn what_is_signed_can_be_opened_and_nothing_else() {
        let (old, new, other) = (pem(), pem(), pem());
        let before = TokenKeys::new([old.as_str()]).unwrap();
        let claims = json!({ "sub": "somebody" });
        let token = before.sign(&claims).unwrap();
        assert_eq!(before.open(&token), Some(claims.clone()));
        // After a rotation the old key is still trusted; a stranger's never was.
        let after = TokenKeys::new([new.as_str(), old.as_str()]).unwrap();
        assert_eq!(after.open(&token), Some(claims));
        assert_eq!(TokenKeys::new([other.as_str()]).unwrap().open(&token), None);
        let parts: Vec<&str> = token.split('.').collect();
        let none = BASE64URL.encode(r#"{"alg":"none"}"#);
        let forged = BASE64URL.encode(r#"{"sub":"admin"}"#);
        for bad in [
            String::new(),
            "a.b.c".into(),
            format!("{none}.{}.", parts[1]),
            format!("{}.{forged}.{}", parts[0], parts[2]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}.{}", parts[0], parts[1]),
        ] {
            assert_eq!(before.open(&bad), None, "{bad}");
        }
        assert!(TokenKeys::new([]).is_err() && TokenKeys::new(["x"]).is_err());
    }

    #[test]
    fn published_keys_have_the_ids_that_tokens_name() {
        let keys = TokenKeys::new([pem().as_str()]).unwrap();
        let token = keys.sign(&json!({})).unwrap();
        let header = BASE64URL.decode(token.split('.').next().unwrap()).unwrap();
        let header: Value = serde_json::from_slice(&header).unwrap();
        assert_eq!(keys.published()["keys"][0]["kid"], header["kid"]);
    }
}

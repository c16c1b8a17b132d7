//! The key that announcers know each other by: a Secret `portolan-announce` in `kube-system`, made once by whoever
//! runs the controllers. Everybody who may read it may speak as an announcer, and nobody else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portolan_client::{Client, Error, paths};
use serde_json::{Value, json};

pub const NAMESPACE: &str = "kube-system";
pub const NAME: &str = "portolan-announce";
const FIELD: &str = "key";
const KEY_BYTES: usize = 32;

/// Makes the Secret if it is missing.
pub async fn ensure(client: &Client) -> Result<(), Error> {
    match client.get::<Value>(&paths::SECRETS, Some(NAMESPACE), NAME).await {
        Err(error) if error.is_not_found() => {}
        other => return other.map(drop),
    }
    let key: [u8; KEY_BYTES] = rand::random();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": { "name": NAME, "namespace": NAMESPACE },
        "data": { FIELD: STANDARD.encode(key) },
    });
    match client.create::<Value>(&paths::SECRETS, Some(NAMESPACE), &secret).await {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(()),
    }
}

/// Reads the key.
pub(crate) async fn read(client: &Client) -> Result<Vec<u8>, Error> {
    let secret: Value = client.get(&paths::SECRETS, Some(NAMESPACE), NAME).await?;
    let text = secret["data"][FIELD].as_str().unwrap_or_default();
    match STANDARD.decode(text) {
        Ok(key) if key.len() >= KEY_BYTES => Ok(key),
        _ => Err(Error::Config(format!(
            "Secret {NAMESPACE}/{NAME}: {FIELD} must hold at least {KEY_BYTES} bytes; delete it, and it is made anew"
        ))),
    }
}

//! Bearer tokens: whose they are. Those of service accounts are signed, expire, and end with what they are bound to.
//!
//! `jwt` is the signature. Here are the claims, as Kubernetes writes them, and the look into the store at every use:
//! a token is nobody's when its service account, pod, secret or node has gone or is another of the same name.

mod jwt;

use portolan_api::Time;
use portolan_api::resource::{NODES, PODS, Resource, SECRETS, SERVICE_ACCOUNTS};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::authn::{self, User, account_of, account_user};
use crate::metadata;
use crate::server::ApiServer;

pub use jwt::{BadKey, TokenKeys};

/// What a token says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Claims {
    #[serde(deserialize_with = "one_or_many")]
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    nbf: i64,
    iss: String,
    jti: String,
    sub: String,
    #[serde(rename = "kubernetes.io")]
    private: Private,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Private {
    namespace: String,
    serviceaccount: Named,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Named>,
}

/// An object that is that and no other of its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// RFC 7519 lets a single audience stand by itself.
fn one_or_many<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Either::deserialize(from)? {
        Either::One(one) => vec![one],
        Either::Many(many) => many,
    })
}

/// What a new token is for.
#[derive(Debug, Default)]
pub(crate) struct Wish {
    pub(crate) namespace: String,
    pub(crate) account: Named,
    pub(crate) audiences: Vec<String>,
    pub(crate) seconds: i64,
    pub(crate) pod: Option<Named>,
    pub(crate) secret: Option<Named>,
    pub(crate) node: Option<Named>,
}

/// A new token and when it ends; `None` if this server signs none.
pub(crate) fn issue(server: &ApiServer, wish: Wish) -> Option<(String, Time)> {
    let keys = server.config().token_keys.as_ref()?;
    let now = jiff::Timestamp::now().as_second();
    let claims = Claims {
        aud: wish.audiences,
        exp: now.saturating_add(wish.seconds),
        iat: now,
        nbf: now,
        iss: server.config().issuer.clone(),
        jti: metadata::uid(),
        sub: account_user(&wish.namespace, &wish.account.name),
        private: Private {
            namespace: wish.namespace,
            serviceaccount: wish.account,
            pod: wish.pod,
            secret: wish.secret,
            node: wish.node,
        },
    };
    let end = Time(jiff::Timestamp::from_second(claims.exp).ok()?);
    Some((keys.sign(&json!(claims))?, end))
}

impl ApiServer {
    /// Whose token it is, and which of the audiences that were asked for it is meant for; without any, the server itself
    /// is meant. The error is why it is nobody's.
    pub(crate) async fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<(User, Vec<String>), String> {
        let own = std::slice::from_ref(&self.config().issuer);
        let wanted = if audiences.is_empty() { own } else { audiences };
        if let Some(user) = authn::owner(token, &self.config().tokens) {
            // Tokens of a file say nothing of audiences: they are for this server.
            let meant: Vec<String> = wanted.iter().filter(|a| own.contains(a)).cloned().collect();
            return if meant.is_empty() {
                Err(refused("token audiences do not match"))
            } else {
                Ok((user, meant))
            };
        }
        let claims = self.config().token_keys.as_ref().and_then(|keys| keys.open(token));
        let claims: Claims = claims
            .and_then(|claims| serde_json::from_value(claims).ok())
            .ok_or_else(|| "invalid bearer token".to_string())?;
        let now = jiff::Timestamp::now().as_second();
        let meant = valid(&claims, own, wanted, now).map_err(refused)?;
        self.lives(&claims.private).await.map_err(|why| refused(&why))?;
        Ok((user(claims), meant))
    }

    /// Whether everything that the token is bound to is there.
    async fn lives(&self, private: &Private) -> Result<(), String> {
        let space = private.namespace.as_str();
        let bound: [(&Resource, &str, Option<&Named>); 4] = [
            (&SERVICE_ACCOUNTS, space, Some(&private.serviceaccount)),
            (&PODS, space, private.pod.as_ref()),
            (&SECRETS, space, private.secret.as_ref()),
            // A pod's node is only told, not bound: it goes when the pod goes.
            (&NODES, "", private.node.as_ref().filter(|_| private.pod.is_none())),
        ];
        for (resource, namespace, named) in bound {
            let Some(Named { name, uid }) = named else { continue };
            let found = self.store().get(&resource.key(namespace, name)).await;
            let (found, _) = found.map_err(|error| error.to_string())?;
            if found.and_then(|kv| uid_of(&kv.value)).as_deref() != Some(uid) {
                return Err(format!("{} {name:?} is gone", resource.singular));
            }
        }
        Ok(())
    }
}

fn refused(why: &str) -> String {
    format!("invalid bearer token: {why}")
}

fn uid_of(json: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        uid: String,
    }
    Some(serde_json::from_slice::<Object>(json).ok()?.metadata.uid)
}

/// Which of the wanted audiences the token is meant for, if it holds now.
fn valid(
    claims: &Claims,
    issuer: &[String],
    wanted: &[String],
    now: i64,
) -> Result<Vec<String>, &'static str> {
    if !issuer.contains(&claims.iss) {
        return Err("it is another issuer's");
    }
    if now >= claims.exp {
        return Err("service account token has expired");
    }
    if now < claims.nbf {
        return Err("service account token is not valid yet");
    }
    let expected = (claims.private.namespace.as_str(), claims.private.serviceaccount.name.as_str());
    if account_of(&claims.sub) != Some(expected) {
        return Err("its subject is not its service account");
    }
    let meant: Vec<String> = wanted.iter().filter(|wanted| claims.aud.contains(wanted)).cloned().collect();
    if meant.is_empty() { Err("token audiences do not match") } else { Ok(meant) }
}

fn user(claims: Claims) -> User {
    let Private { namespace, serviceaccount, pod, node, .. } = claims.private;
    let mut user = User::account(&namespace, &serviceaccount.name);
    user.uid = serviceaccount.uid;
    let mut tell = |key: &str, value: String| {
        user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
    };
    tell("credential-id", format!("JTI={}", claims.jti));
    if let Some(Named { name, uid }) = pod {
        tell("pod-name", name);
        tell("pod-uid", uid);
    }
    if let Some(Named { name, uid }) = node {
        tell("node-name", name);
        tell("node-uid", uid);
    }
    user
}

/// What `/.well-known/openid-configuration` says, for whoever checks tokens without asking this server.
pub(crate) fn discovery(issuer: &str, server: &str) -> Value {
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{server}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            aud: vec!["api".into(), "other".into()],
            exp: 200,
            iat: 100,
            nbf: 100,
            iss: "us".into(),
            jti: "1".into(),
            sub: "system:serviceaccount:shop:robot".into(),
            private: Private {
                namespace: "shop".into(),
                serviceaccount: Named { name: "robot".into(), uid: "u".into() },
                ..Private::default()
            },
        }
    }

    #[test]
    fn a_token_holds_for_its_time_its_issuer_and_its_audiences() {
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let ask = |claims: &Claims, wanted: &[&str], now| valid(claims, &list(&["us"]), &list(wanted), now);
        assert_eq!(ask(&claims(), &["api"], 150), Ok(list(&["api"])));
        assert_eq!(ask(&claims(), &["other", "third"], 199), Ok(list(&["other"])));
        assert_eq!(ask(&claims(), &["third"], 150), Err("token audiences do not match"));
        assert_eq!(ask(&claims(), &["api"], 200), Err("service account token has expired"));
        assert_eq!(ask(&claims(), &["api"], 99), Err("service account token is not valid yet"));
        assert!(ask(&Claims { iss: "them".into(), ..claims() }, &["api"], 150).is_err());
        let other = "system:serviceaccount:shop:admin".into();
        assert!(ask(&Claims { sub: other, ..claims() }, &["api"], 150).is_err());
    }

    #[test]
    fn claims_are_written_as_kubernetes_does_and_read_with_one_audience() {
        let mut value = json!(claims());
        assert_eq!(
            value["kubernetes.io"],
            json!({"namespace": "shop", "serviceaccount": {"name": "robot", "uid": "u"}})
        );
        value["aud"] = "api".into();
        assert_eq!(serde_json::from_value::<Claims>(value).unwrap().aud, ["api"]);
    }
}

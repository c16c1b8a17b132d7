//! Who is asking: the subject of a client certificate, or the owner of a bearer token.
//!
//! Certificates were verified against the cluster's authority by the TLS layer before they get here.

use std::collections::{BTreeMap, HashMap};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Every caller with a name belongs to this group.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Name of callers that showed nothing.
pub const ANONYMOUS: &str = "system:anonymous";
/// Group of callers that showed nothing.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Members may do everything.
pub const MASTERS: &str = "system:masters";

/// Every service account belongs to this group, and to one of its namespace.
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// The user that a service account is.
pub fn account_user(namespace: &str, name: &str) -> String {
    format!("{ACCOUNT_PREFIX}{namespace}:{name}")
}

/// Namespace and name of the service account that a user is, if it is one.
pub fn account_of(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(ACCOUNT_PREFIX)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// The groups of the service accounts of a namespace.
pub fn account_groups(namespace: &str) -> [String; 2] {
    [SERVICE_ACCOUNTS.into(), format!("{SERVICE_ACCOUNTS}:{namespace}")]
}

/// The caller, as an extension of the request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User name.
    pub name: String,
    /// What tells users of the same name apart; may be empty.
    pub uid: String,
    /// Groups, [`AUTHENTICATED`] among them.
    pub groups: Vec<String>,
    /// What else is known of the caller.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A known caller.
    pub fn new(name: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        if !groups.iter().any(|g| g == AUTHENTICATED) {
            groups.push(AUTHENTICATED.into());
        }
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// A caller that showed nothing.
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..Self::default() }
    }

    /// A service account.
    pub fn account(namespace: &str, name: &str) -> Self {
        Self::new(account_user(namespace, name), account_groups(namespace))
    }

    /// The subject of a verified client certificate (DER).
    pub fn from_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let (name, groups) = crate::pki::subject(&certificate);
        Some(Self::new(name?, groups))
    }

    /// Whether the caller is in `group`.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// A bearer token was shown and nobody owns it.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownToken;

/// The caller by bearer token; `None` if the request carries none.
pub(crate) fn from_token(
    headers: &HeaderMap,
    tokens: &HashMap<String, User>,
) -> Result<Option<User>, UnknownToken> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let Some((scheme, token)) = value.to_str().ok().and_then(|v| v.split_once(' ')) else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    let token = token.trim();
    // Every token is compared, and every comparison looks at every byte: time tells nothing.
    let mut owner = None;
    for (known, user) in tokens {
        if same(known.as_bytes(), token.as_bytes()) {
            owner = Some(user);
        }
    }
    owner.cloned().map(Some).ok_or(UnknownToken)
}

fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn tokens_name_their_owner() {
        let user = User::new("prober", ["monitoring"]);
        let tokens = HashMap::from([("s3cret".to_string(), user.clone())]);
        assert_eq!(from_token(&headers("Bearer s3cret"), &tokens), Ok(Some(user.clone())));
        assert_eq!(from_token(&headers("bearer  s3cret"), &tokens), Ok(Some(user)));
        assert_eq!(from_token(&headers("Bearer s3cres"), &tokens), Err(UnknownToken));
        assert_eq!(from_token(&headers("Basic abc"), &tokens), Ok(None));
        assert_eq!(from_token(&HeaderMap::new(), &tokens), Ok(None));
    }

    #[test]
    fn a_certificate_names_user_and_groups() {
        let dir = tempfile::tempdir().unwrap();
        let pki = crate::pki::Pki::open(dir.path()).unwrap();
        let made = pki.client(&crate::pki::Identity::admin()).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(made.cert_pem.as_bytes()).unwrap();
        let user = User::from_certificate(&pem.contents).unwrap();
        assert_eq!(user, User::new("kubernetes-admin", [MASTERS, AUTHENTICATED]));
    }
}

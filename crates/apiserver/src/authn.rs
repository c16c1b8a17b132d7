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

/// The bearer token that a request carries.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Whose token of a file it is.
pub(crate) fn owner(token: &str, tokens: &HashMap<String, User>) -> Option<User> {
    // Every token is compared, and every comparison looks at every byte: time tells nothing.
    let mut owner = None;
    for (known, user) in tokens {
        if same(known.as_bytes(), token.as_bytes()) {
            owner = Some(user);
        }
    }
    owner.cloned()
}

/// A line of a token file that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}; a line is TOKEN,USER,UID and optionally \"GROUP,GROUP\"")]
pub struct BadTokenFile {
    line: usize,
    why: &'static str,
}

/// Reads a token file as kube-apiserver does: lines of token, user, uid, and groups in quotes.
pub fn token_file(text: &str) -> Result<HashMap<String, User>, BadTokenFile> {
    let mut tokens = HashMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let bad = |why| BadTokenFile { line: index + 1, why };
        let fields = csv(line).ok_or_else(|| bad("a quote is not closed"))?;
        let [token, name, uid, rest @ ..] = fields.as_slice() else { return Err(bad("too few fields")) };
        if token.is_empty() || name.is_empty() {
            return Err(bad("token and user must not be empty"));
        }
        let groups = rest.first().map_or("", String::as_str).split(',').map(str::trim);
        let mut user = User::new(name, groups.filter(|group| !group.is_empty()));
        user.uid.clone_from(uid);
        if tokens.insert(token.clone(), user).is_some() {
            return Err(bad("the token is there already"));
        }
    }
    Ok(tokens)
}

/// The fields of one line; `None` if a quote is not closed.
fn csv(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.trim().chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                fields.last_mut()?.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.last_mut()?.push(c),
        }
    }
    (!quoted).then(|| fields.into_iter().map(|field| field.trim().to_string()).collect())
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
        let ask = |value| bearer(&headers(value)).and_then(|token| owner(token, &tokens));
        assert_eq!(ask("Bearer s3cret"), Some(user.clone()));
        assert_eq!(ask("bearer  s3cret"), Some(user));
        assert_eq!(ask("Bearer s3cres"), None);
        assert_eq!(bearer(&headers("Basic abc")), None);
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn token_files_are_read_or_refused_by_line() {
        let file = "t1,ann,u1,\"dev,ops\"\n\nt2,\"b \"\"ob\"\"\",u2\n";
        let tokens = token_file(file).unwrap();
        let ann = User { uid: "u1".into(), ..User::new("ann", ["dev", "ops"]) };
        assert_eq!(tokens["t1"], ann);
        assert_eq!(tokens["t2"].name, "b \"ob\"");
        for (file, line) in [("a,b", 1), ("t,u,i\n\"a,b,c", 2), ("t,u,i\nt,v,j", 2), (",u,i", 1)] {
            assert_eq!(token_file(file).unwrap_err().line, line, "{file}");
        }
    }

    #[test]
    fn service_accounts_are_users_of_their_namespace() {
        assert_eq!(account_of(&account_user("shop", "robot")), Some(("shop", "robot")));
        for name in [
            "system:serviceaccount:a",
            "system:serviceaccount::b",
            "system:node:a",
            "system:serviceaccount:a:b:c",
        ] {
            assert_eq!(account_of(name), None, "{name}");
        }
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

//! Acting as somebody else, by the headers that `kubectl --as` sends: whoever may `impersonate` a user, group, service
//! account, uid or extra is that for one request.

use std::collections::BTreeMap;

use http::HeaderMap;
use portolan_api::status;

use super::{Attributes, authorize};
use crate::authn::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User, account_groups, account_of};
use crate::call::refused;
use crate::errors::Result;
use crate::path::ResourcePath;
use crate::server::ApiServer;
use portolan_api::percent::decode;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Who the request is from: `user`, or whom they ask to be.
pub(crate) async fn apply(server: &ApiServer, user: User, headers: &mut HeaderMap) -> Result<User> {
    let Some(wanted) = wanted(headers)? else { return Ok(user) };
    if let Some((namespace, name)) = account_of(&wanted.name) {
        may(server, &user, ("", "serviceaccounts", None), Some(namespace), name).await?;
    } else {
        may(server, &user, ("", "users", None), None, &wanted.name).await?;
    }
    for group in &wanted.groups {
        may(server, &user, ("", "groups", None), None, group).await?;
    }
    if !wanted.uid.is_empty() {
        may(server, &user, (AUTHENTICATION, "uids", None), None, &wanted.uid).await?;
    }
    for (key, values) in &wanted.extra {
        for value in values {
            may(server, &user, (AUTHENTICATION, "userextras", Some(key)), None, value).await?;
        }
    }
    headers.remove(USER);
    headers.remove(GROUP);
    headers.remove(UID);
    tracing::debug!(user = %user.name, as_user = %wanted.name, "impersonation");
    Ok(complete(wanted))
}

/// Whom the headers name; groups as they are named.
fn wanted(headers: &HeaderMap) -> Result<Option<User>> {
    let texts = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter();
        values.filter_map(|value| value.to_str().ok()).map(str::to_string).collect()
    };
    let first = |name: &str| texts(name).into_iter().next().unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            extra.insert(decode(key).unwrap_or_else(|| key.into()), texts(name.as_str()));
        }
    }
    let wanted = User { name: first(USER), uid: first(UID), groups: texts(GROUP), extra };
    if !wanted.name.is_empty() {
        return Ok(Some(wanted));
    }
    if wanted == User::default() {
        return Ok(None);
    }
    Err(status::internal_error(
        "requested impersonation of groups, a uid or extras without impersonating a user",
    )
    .into())
}

/// Adds the groups that a user of the name always has.
fn complete(mut user: User) -> User {
    if let Some((namespace, _)) = account_of(&user.name)
        && user.groups.is_empty()
    {
        user.groups.extend(account_groups(namespace));
    }
    let placed = user.groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED);
    if user.name == ANONYMOUS {
        if !user.in_group(UNAUTHENTICATED) {
            user.groups.push(UNAUTHENTICATED.into());
        }
    } else if !placed {
        user.groups.push(AUTHENTICATED.into());
    }
    user
}

async fn may(
    server: &ApiServer,
    user: &User,
    (group, resource, subresource): (&str, &str, Option<&str>),
    namespace: Option<&str>,
    name: &str,
) -> Result<()> {
    let name = Some(name);
    let (verb, on_node) = ("impersonate", None);
    let what = Attributes::Resource { verb, group, resource, subresource, namespace, name, on_node };
    let Err(why) = authorize(server, user, what).await else { return Ok(()) };
    let path = ResourcePath {
        group: group.into(),
        resource: resource.into(),
        name: name.map(str::to_string),
        ..ResourcePath::default()
    };
    Err(refused(&path, &why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in list {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn headers_name_a_whole_user() {
        assert_eq!(wanted(&HeaderMap::new()).unwrap(), None);
        assert!(wanted(&headers(&[(GROUP, "dev")])).is_err());
        let list = [(USER, "ann"), (GROUP, "dev"), (GROUP, "ops"), ("impersonate-extra-acme%2fscope", "x")];
        let user = complete(wanted(&headers(&list)).unwrap().unwrap());
        assert_eq!(
            (user.name.as_str(), user.groups.as_slice()),
            ("ann", &["dev", "ops", AUTHENTICATED].map(String::from)[..])
        );
        assert_eq!(user.extra["acme/scope"], ["x"]);
    }

    #[test]
    fn service_accounts_and_strangers_get_their_groups() {
        let as_user = |name: &str| complete(wanted(&headers(&[(USER, name)])).unwrap().unwrap()).groups;
        assert_eq!(
            as_user("system:serviceaccount:shop:robot"),
            ["system:serviceaccounts", "system:serviceaccounts:shop", AUTHENTICATED]
        );
        assert_eq!(as_user(ANONYMOUS), [UNAUTHENTICATED]);
    }
}

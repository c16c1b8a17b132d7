//! Who may do what: roles and bindings as Kubernetes defines them, and what nodes may do for being what they are.
//!
//! `policy` decides, purely; `follow` keeps it as the store has it; `defaults` are the roles that every cluster has;
//! `node` is about nodes, `grant` about who may hand out permissions. Members of `system:masters` may do everything,
//! whatever the roles say: nobody can lock the administrator out.

pub(crate) mod defaults;
pub(crate) mod follow;
pub(crate) mod grant;
pub(crate) mod node;
pub(crate) mod policy;

use std::sync::{PoisonError, RwLock};

use portolan_api::rbac::v1::{PolicyRule, RoleRef};

use crate::authn::{MASTERS, User};
use crate::server::ApiServer;
use policy::Policy;

/// A request, as far as its permission is concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attributes<'a> {
    /// Objects.
    Resource {
        /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
        verb: &'a str,
        /// API group.
        group: &'a str,
        /// Plural name.
        resource: &'a str,
        /// Subresource.
        subresource: Option<&'a str>,
        /// Namespace.
        namespace: Option<&'a str>,
        /// Object.
        name: Option<&'a str>,
    },
    /// Any other path.
    Path {
        /// The method in lower case.
        verb: &'a str,
        /// The path.
        path: &'a str,
    },
}

/// The policy that all requests share.
#[derive(Debug, Default)]
pub(crate) struct Shared(RwLock<Policy>);

impl Shared {
    fn read<T>(&self, ask: impl FnOnce(&Policy) -> T) -> T {
        ask(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Policy) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over another policy.
    pub(crate) fn replace(&self, policy: Policy) {
        self.write(|own| *own = policy);
    }

    /// See [`Policy::put`].
    pub(crate) fn put(&self, key: &str, value: Option<&[u8]>) -> bool {
        self.write(|policy| policy.put(key, value))
    }

    /// See [`Policy::stale`].
    pub(crate) fn stale(&self) -> Vec<(String, Vec<PolicyRule>)> {
        self.read(Policy::stale)
    }

    /// Whether roles allow it, or the user may do everything.
    pub(crate) fn allows(&self, user: &User, what: Attributes<'_>) -> bool {
        user.in_group(MASTERS) || self.read(|policy| policy.allows(user, what))
    }

    /// The rules of a user.
    pub(crate) fn rules(&self, user: &User, namespace: Option<&str>) -> Vec<PolicyRule> {
        self.read(|policy| policy.rules(user, namespace).into_iter().cloned().collect())
    }

    /// The rules of a role that a binding in `namespace` names.
    pub(crate) fn rules_of(&self, role: &RoleRef, namespace: &str) -> Vec<PolicyRule> {
        self.read(|policy| policy.rules_of(role, namespace).to_vec())
    }
}

/// Whether `user` may do `what`.
pub(crate) async fn allowed(server: &ApiServer, user: &User, what: Attributes<'_>) -> bool {
    if server.policy().allows(user, what) {
        return true;
    }
    match node::name_of(user) {
        Some(name) => node::allows(server, name, what).await,
        None => false,
    }
}

/// Whether `user` may do `what`; the error is the text for the client.
pub(crate) async fn authorize(server: &ApiServer, user: &User, what: Attributes<'_>) -> Result<(), String> {
    if allowed(server, user, what).await { Ok(()) } else { Err(refusal(user, what)) }
}

/// What a client is told who may not.
pub(crate) fn refusal(user: &User, what: Attributes<'_>) -> String {
    match what {
        Attributes::Path { verb, path } => {
            format!("forbidden: User {:?} cannot {verb} path {path:?}", user.name)
        }
        Attributes::Resource { verb, group, resource, subresource, namespace, name } => {
            let kind = if group.is_empty() { resource.to_string() } else { format!("{resource}.{group}") };
            let subject = name.map_or_else(|| kind.clone(), |name| format!("{kind} {name:?}"));
            let full = subresource.map_or(resource.to_string(), |sub| format!("{resource}/{sub}"));
            let place = namespace.map_or("at the cluster scope".to_string(), |namespace| {
                format!("in the namespace {namespace:?}")
            });
            format!(
                "{subject} is forbidden: User {:?} cannot {verb} resource {full:?} in API group {group:?} {place}",
                user.name
            )
        }
    }
}

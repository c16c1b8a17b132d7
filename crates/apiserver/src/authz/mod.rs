//! Who may do what: roles and bindings as Kubernetes defines them, and what nodes may do for being what they are.
//!
//! `policy` decides, purely; `follow` keeps it as the store has it; `defaults` are the roles that every cluster has;
//! `node` is about nodes, `grant` about who may hand out permissions. Members of `system:masters` may do everything,
//! whatever the roles say: nobody can lock the administrator out.

pub(crate) mod defaults;
pub(crate) mod follow;
pub(crate) mod grant;
pub(crate) mod impersonate;
pub(crate) mod node;
pub(crate) mod policy;

use std::sync::{PoisonError, RwLock};

use portolan_api::rbac::v1::{PolicyRule, RoleRef};

use crate::authn::{MASTERS, User};
use crate::server::ApiServer;
use follow::Progress;
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
        /// Object; of lists and watches, the one that their field selector leaves.
        name: Option<&'a str>,
        /// The node whose pods alone a list or watch asks for.
        on_node: Option<&'a str>,
    },
    /// Any other path.
    Path {
        /// The method in lower case.
        verb: &'a str,
        /// The path.
        path: &'a str,
    },
}

impl<'a> Attributes<'a> {
    /// The namespace whose bindings count.
    fn namespace(&self) -> Option<&'a str> {
        match self {
            Self::Resource { namespace, .. } => *namespace,
            Self::Path { .. } => None,
        }
    }
}

/// The policy that all requests share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    policy: RwLock<Policy>,
    progress: Progress,
}

impl Shared {
    fn read<T>(&self, ask: impl FnOnce(&Policy) -> T) -> T {
        ask(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Policy) -> T) -> T {
        change(&mut self.policy.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// How far the policy is behind the store.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
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

    /// The rules of a user, and what is wrong with them.
    pub(crate) fn rules(&self, user: &User, namespace: Option<&str>) -> (Vec<PolicyRule>, String) {
        self.read(|policy| {
            let rules = policy.rules(user, namespace).into_iter().cloned().collect();
            (rules, policy.missing_roles(user, namespace))
        })
    }

    /// The rules of a role that a binding in `namespace` names.
    pub(crate) fn rules_of(&self, role: &RoleRef, namespace: &str) -> Option<Vec<PolicyRule>> {
        self.read(|policy| policy.find(role, namespace).map(<[_]>::to_vec))
    }
}

/// Whether something is allowed, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) allowed: bool,
    /// In Kubernetes' words; may be empty.
    pub(crate) reason: String,
}

/// Whether `user` may do `what`, with the reason.
pub(crate) async fn decide(server: &ApiServer, user: &User, what: Attributes<'_>) -> Decision {
    if user.in_group(MASTERS) {
        return Decision { allowed: true, reason: String::new() };
    }
    if let Some(reason) = server.policy().read(|policy| policy.why(user, what)) {
        return Decision { allowed: true, reason };
    }
    let mut reasons = Vec::new();
    if let Some(node) = node::name_of(user) {
        match node::allows(server, node, what).await {
            Ok(()) => return Decision { allowed: true, reason: String::new() },
            Err(why) => reasons.push(why),
        }
    }
    let missing = server.policy().read(|policy| policy.missing_roles(user, what.namespace()));
    if !missing.is_empty() {
        reasons.push(format!("RBAC: {missing}"));
    }
    reasons.retain(|reason| !reason.is_empty());
    Decision { allowed: false, reason: reasons.join("\n") }
}

/// Whether `user` may do `what`; the error is the text for the client.
pub(crate) async fn authorize(server: &ApiServer, user: &User, what: Attributes<'_>) -> Result<(), String> {
    if server.policy().allows(user, what) {
        return Ok(());
    }
    let decision = decide(server, user, what).await;
    if decision.allowed { Ok(()) } else { Err(refusal(user, what, &decision.reason)) }
}

/// What a client is told who may not.
pub(crate) fn refusal(user: &User, what: Attributes<'_>, reason: &str) -> String {
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    match what {
        Attributes::Path { verb, path } => {
            format!("forbidden: User {:?} cannot {verb} path {path:?}{reason}", user.name)
        }
        Attributes::Resource { verb, group, resource, subresource, namespace, name, .. } => {
            let kind = if group.is_empty() { resource.to_string() } else { format!("{resource}.{group}") };
            let subject = name.map_or_else(|| kind.clone(), |name| format!("{kind} {name:?}"));
            let full = subresource.map_or(resource.to_string(), |sub| format!("{resource}/{sub}"));
            let place = namespace.map_or("at the cluster scope".to_string(), |namespace| {
                format!("in the namespace {namespace:?}")
            });
            format!(
                "{subject} is forbidden: User {:?} cannot {verb} resource {full:?} in API group {group:?} {place}{reason}",
                user.name
            )
        }
    }
}

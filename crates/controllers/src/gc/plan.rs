//! Who owns what, and whether an object has outlived its owners.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use portolan_client::{ApiPath, Key, paths};

use crate::objects::Owner;

/// The kinds of object that are collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dependent {
    EndpointSlice,
    Endpoints,
    Pod,
    Lease,
    ReplicaSet,
}

impl Dependent {
    pub fn path(self) -> ApiPath {
        match self {
            Self::EndpointSlice => paths::ENDPOINT_SLICES,
            Self::Endpoints => paths::ENDPOINTS,
            Self::Pod => paths::PODS,
            Self::Lease => paths::LEASES,
            Self::ReplicaSet => paths::REPLICA_SETS,
        }
    }
}

/// An owner by name; whether it is the one that is meant, its UID says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnerKey {
    pub kind: &'static str,
    pub object: Key,
}

/// The owners whose existence is known here: kind and path, and whether they live in the namespace of what they own.
pub fn known(owner: &Owner) -> Option<ApiPath> {
    let path = match (&*owner.api_version, &*owner.kind) {
        ("v1", "Service") => paths::SERVICES,
        ("v1", "Endpoints") => paths::ENDPOINTS,
        ("v1", "Pod") => paths::PODS,
        ("v1", "Node") => paths::NODES,
        ("apps/v1", "Deployment") => paths::DEPLOYMENTS,
        ("apps/v1", "ReplicaSet") => paths::REPLICA_SETS,
        _ => return None,
    };
    Some(path)
}

/// The name under which to look for an owner of something in `namespace`.
pub fn key(owner: &Owner, path: &ApiPath, namespace: &Arc<str>) -> Key {
    let namespace = if path.namespaced { Arc::clone(namespace) } else { Arc::default() };
    Key { namespace, name: Arc::clone(&owner.name) }
}

/// Objects by owner and back.
#[derive(Debug, Default)]
pub struct Owners {
    owners: HashMap<(Dependent, Key), Arc<[Owner]>>,
    /// In one piece: most owners have one or two.
    dependents: BTreeSet<(OwnerKey, Dependent, Key)>,
}

impl Owners {
    /// Records the owners of an object; an empty list also stands for an object that is gone. Returns whether there is
    /// an owner to check.
    pub fn update(&mut self, kind: Dependent, object: &Key, owners: &Arc<[Owner]>) -> bool {
        let id = (kind, object.clone());
        for owner_key in owner_keys(&self.owners.remove(&id).unwrap_or_default(), object) {
            self.dependents.remove(&(owner_key, kind, object.clone()));
        }
        self.dependents.extend(owner_keys(owners, object).map(|owner| (owner, kind, object.clone())));
        if !owners.is_empty() {
            self.owners.insert(id, Arc::clone(owners));
        }
        !owners.is_empty()
    }

    pub fn owners_of(&self, kind: Dependent, object: &Key) -> Arc<[Owner]> {
        self.owners.get(&(kind, object.clone())).cloned().unwrap_or_default()
    }

    pub fn dependents(&self, owner: &OwnerKey) -> Vec<(Dependent, Key)> {
        let first = (owner.clone(), Dependent::EndpointSlice, Key::new("", ""));
        let own = self.dependents.range(first..).take_while(|(of, ..)| of == owner);
        own.map(|(_, kind, key)| (*kind, key.clone())).collect()
    }
}

/// Those of known kinds.
fn owner_keys(owners: &[Owner], object: &Key) -> impl Iterator<Item = OwnerKey> {
    owners.iter().filter_map(|owner| {
        let path = known(owner)?;
        Some(OwnerKey { kind: path.kind, object: key(owner, &path, &object.namespace) })
    })
}

/// Whether all owners are gone. `uid_of` gives the UID of the object of that path and name, if there is one.
pub fn orphaned(owners: &[Owner], object: &Key, uid_of: impl Fn(&ApiPath, &Key) -> Option<String>) -> bool {
    let gone = |owner: &Owner| {
        known(owner).is_some_and(|path| {
            uid_of(&path, &key(owner, &path, &object.namespace)).is_none_or(|uid| *uid != *owner.uid)
        })
    };
    !owners.is_empty() && owners.iter().all(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(kind: &str, name: &str, uid: &str) -> Owner {
        Owner {
            api_version: "v1".into(),
            kind: kind.into(),
            name: name.into(),
            uid: uid.into(),
            controller: true,
        }
    }

    #[test]
    fn orphaned_when_no_owner_is_left() {
        let slice = Key::new("ns", "web-1");
        let exists = |path: &ApiPath, key: &Key| {
            (path.kind == "Service" && *key == Key::new("ns", "web")).then(|| "u1".to_owned())
        };
        assert!(!orphaned(&[owner("Service", "web", "u1")], &slice, exists));
        assert!(orphaned(&[owner("Service", "web", "u0")], &slice, exists), "another object of that name");
        assert!(orphaned(&[owner("Service", "api", "u1")], &slice, exists));
        assert!(!orphaned(&[owner("Service", "api", "u1"), owner("Service", "web", "u1")], &slice, exists));
        assert!(!orphaned(&[owner("Unknown", "x", "u")], &slice, exists), "nothing is known of that kind");
        assert!(!orphaned(&[], &slice, exists));
    }

    #[test]
    fn dependents_are_found_by_owner_and_forgotten() {
        let mut owners = Owners::default();
        let (slice, lease) = (Key::new("ns", "web-1"), Key::new("kube-node-lease", "n1"));
        let other = Key::new("ns", "web-2");
        for slice in [&slice, &other] {
            assert!(owners.update(Dependent::EndpointSlice, slice, &[owner("Service", "web", "u1")].into()));
        }
        assert!(owners.update(Dependent::Lease, &lease, &[owner("Node", "n1", "u2")].into()));
        let web = OwnerKey { kind: "Service", object: Key::new("ns", "web") };
        let dependents = [slice.clone(), other].map(|key| (Dependent::EndpointSlice, key));
        assert_eq!(owners.dependents(&web), dependents);
        let node = OwnerKey { kind: "Node", object: Key::new("", "n1") };
        assert_eq!(owners.dependents(&node), [(Dependent::Lease, lease)]);
        assert!(!owners.update(Dependent::EndpointSlice, &slice, &Arc::default()));
        assert_eq!(owners.dependents(&web), dependents[1..]);
        assert!(owners.owners_of(Dependent::EndpointSlice, &slice).is_empty());
    }
}

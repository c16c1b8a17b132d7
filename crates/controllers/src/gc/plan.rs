//! Who owns what, and whether an object has outlived its owners.

use std::collections::{HashMap, HashSet};

use portolan_client::{ApiPath, Key, paths};

use crate::objects::Owner;

/// The kinds of object that are collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OwnerKey {
    pub kind: String,
    pub object: Key,
}

/// The owners whose existence is known here: kind and path, and whether they live in the namespace of what they own.
pub fn known(owner: &Owner) -> Option<ApiPath> {
    let path = match (owner.api_version.as_str(), owner.kind.as_str()) {
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
pub fn key(owner: &Owner, path: &ApiPath, namespace: &str) -> Key {
    Key::new(if path.namespaced { namespace } else { "" }, owner.name.as_str())
}

/// Objects by owner and back.
#[derive(Debug, Default)]
pub struct Owners {
    owners: HashMap<(Dependent, Key), Vec<Owner>>,
    dependents: HashMap<OwnerKey, HashSet<(Dependent, Key)>>,
}

impl Owners {
    /// Records the owners of an object; an empty list also stands for an object that is gone. Returns whether there is
    /// an owner to check.
    pub fn update(&mut self, kind: Dependent, object: &Key, owners: &[Owner]) -> bool {
        let id = (kind, object.clone());
        for owner in self.owners.remove(&id).unwrap_or_default() {
            let owner_key = owner_key(&owner, object);
            let Some(dependents) = owner_key.as_ref().and_then(|key| self.dependents.get_mut(key)) else {
                continue;
            };
            dependents.remove(&id);
            if let Some(key) = owner_key.filter(|_| dependents.is_empty()) {
                self.dependents.remove(&key);
            }
        }
        for owner_key in owners.iter().filter_map(|owner| owner_key(owner, object)) {
            self.dependents.entry(owner_key).or_default().insert(id.clone());
        }
        if !owners.is_empty() {
            self.owners.insert(id, owners.to_vec());
        }
        !owners.is_empty()
    }

    pub fn owners_of(&self, kind: Dependent, object: &Key) -> Vec<Owner> {
        self.owners.get(&(kind, object.clone())).cloned().unwrap_or_default()
    }

    pub fn dependents(&self, owner: &OwnerKey) -> Vec<(Dependent, Key)> {
        self.dependents.get(owner).into_iter().flatten().cloned().collect()
    }
}

fn owner_key(owner: &Owner, object: &Key) -> Option<OwnerKey> {
    let path = known(owner)?;
    Some(OwnerKey { kind: owner.kind.clone(), object: key(owner, &path, &object.namespace) })
}

/// Whether all owners are gone. `uid_of` gives the UID of the object of that path and name, if there is one.
pub fn orphaned(owners: &[Owner], object: &Key, uid_of: impl Fn(&ApiPath, &Key) -> Option<String>) -> bool {
    let gone = |owner: &Owner| {
        known(owner).is_some_and(|path| {
            uid_of(&path, &key(owner, &path, &object.namespace)).is_none_or(|uid| uid != owner.uid)
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
        assert!(owners.update(Dependent::EndpointSlice, &slice, &[owner("Service", "web", "u1")]));
        assert!(owners.update(Dependent::Lease, &lease, &[owner("Node", "n1", "u2")]));
        let web = OwnerKey { kind: "Service".into(), object: Key::new("ns", "web") };
        assert_eq!(owners.dependents(&web), [(Dependent::EndpointSlice, slice.clone())]);
        let node = OwnerKey { kind: "Node".into(), object: Key::new("", "n1") };
        assert_eq!(owners.dependents(&node), [(Dependent::Lease, lease)]);
        assert!(!owners.update(Dependent::EndpointSlice, &slice, &[]));
        assert!(owners.dependents(&web).is_empty());
    }
}

//! Slices and Endpoints as the caches keep them: the little that is asked for all the time as fields, the rest as text,
//! which is read when somebody plans with it.
//!
//! A cluster has as many of these objects as Services and more, and almost all of them rest. As text one takes a quarter
//! of what its fields take, and what nobody here writes keeps no text at all. Start at [`Kept`].

use std::marker::PhantomData;
use std::sync::Arc;

use portolan_client::BoxError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::objects::Owner;
use crate::pending::Seen;
use crate::written::{EndpointSlice, Endpoints, MANAGED_BY_LABEL, ObjectMeta, SERVICE_NAME_LABEL};
use crate::{endpointslice, mirroring};

/// An object at rest.
#[derive(Debug)]
pub struct Kept<T> {
    pub uid: Box<str>,
    resource_version: Box<str>,
    deleting: bool,
    pub owners: Box<[Owner]>,
    text: Box<[u8]>,
    whole: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Kept<T> {
    fn new(object: &T, meta: &ObjectMeta, with_text: bool) -> Result<Self, serde_json::Error> {
        let text = if with_text { serde_json::to_vec(object)? } else { Vec::new() };
        Ok(Self {
            uid: meta.uid.as_str().into(),
            resource_version: meta.resource_version.as_str().into(),
            deleting: meta.deleting(),
            owners: owners(meta),
            text: text.into(),
            whole: PhantomData,
        })
    }

    pub fn seen(&self) -> Seen<'_> {
        Seen { uid: &self.uid, resource_version: &self.resource_version, deleting: self.deleting }
    }

    /// The object, but for its `managedFields`.
    pub fn open(&self) -> T {
        serde_json::from_slice(&self.text).expect("the text was written from a value of this type")
    }
}

/// The cache's projection of Endpoints.
pub(crate) fn endpoints(json: &[u8]) -> Result<Kept<Endpoints>, BoxError> {
    let object: Endpoints = serde_json::from_slice(json)?;
    Ok(Kept::new(&object, &object.metadata, true)?)
}

/// A slice at rest, with what it is found by.
#[derive(Debug)]
pub struct KeptSlice {
    /// The Service that its label names.
    pub service: Option<Arc<str>>,
    pub manager: Manager,
    object: Kept<EndpointSlice>,
}

/// Who looks after a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    EndpointSlices,
    Mirroring,
    /// Not us: nobody here reads its endpoints.
    Other,
}

impl Manager {
    fn of(meta: &ObjectMeta) -> Self {
        match meta.labels.get(MANAGED_BY_LABEL).map(String::as_str) {
            Some(endpointslice::MANAGED_BY) => Self::EndpointSlices,
            Some(mirroring::MANAGED_BY) => Self::Mirroring,
            _ => Self::Other,
        }
    }
}

impl KeptSlice {
    pub fn new(slice: &EndpointSlice) -> Result<Self, serde_json::Error> {
        let (meta, manager) = (&slice.metadata, Manager::of(&slice.metadata));
        let service = meta.labels.get(SERVICE_NAME_LABEL).map(|name| name.as_str().into());
        Ok(Self { service, manager, object: Kept::new(slice, meta, manager != Manager::Other)? })
    }

    pub fn seen(&self) -> Seen<'_> {
        self.object.seen()
    }

    pub fn owners(&self) -> &[Owner] {
        &self.object.owners
    }

    /// The whole slice; `None` for one that is not ours.
    pub fn open(&self) -> Option<EndpointSlice> {
        (self.manager != Manager::Other).then(|| self.object.open())
    }
}

/// The cache's projection of EndpointSlices.
pub(crate) fn slice(json: &[u8]) -> Result<KeptSlice, BoxError> {
    Ok(KeptSlice::new(&serde_json::from_slice(json)?)?)
}

fn owners(meta: &ObjectMeta) -> Box<[Owner]> {
    let owners = meta.owner_references.iter().map(|owner| Owner {
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        controller: owner.controller.unwrap_or_default(),
    });
    owners.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(manager: &str) -> String {
        serde_json::json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": "web-1", "namespace": "ns", "uid": "u", "resourceVersion": "7",
                "labels": {SERVICE_NAME_LABEL: "web", MANAGED_BY_LABEL: manager},
                "finalizers": ["x/y"], "managedFields": [{"manager": "m"}],
                "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "s", "controller": true}],
            },
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}],
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        })
        .to_string()
    }

    #[test]
    fn what_is_ours_opens_as_it_was() {
        for manager in [endpointslice::MANAGED_BY, mirroring::MANAGED_BY] {
            let text = text(manager);
            let kept = slice(text.as_bytes()).unwrap();
            assert_eq!(kept.open(), Some(serde_json::from_str::<EndpointSlice>(&text).unwrap()));
            assert_eq!(kept.seen(), Seen { uid: "u", resource_version: "7", deleting: false });
        }
    }

    #[test]
    fn of_what_is_others_only_the_head_is_kept() {
        let kept = slice(text("somebody").as_bytes()).unwrap();
        assert_eq!(kept.open(), None);
        assert!(kept.object.text.is_empty());
        assert_eq!((kept.service.as_deref(), kept.owners().len()), (Some("web"), 1));
        assert_eq!(kept.owners()[0].name, "web");
    }
}

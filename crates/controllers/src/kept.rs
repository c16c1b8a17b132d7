//! Slices and Endpoints as the caches keep them: the little that is asked for all the time as fields, the rest as packed
//! text, which is read when somebody plans with it.
//!
//! A cluster has as many of these objects as Services and more, and almost all of them rest. As text one takes a quarter
//! of what its fields take, packed against a sample of its kind a third of that, and what nobody here writes keeps no
//! text at all. Start at [`Kept`].

use std::marker::PhantomData;
use std::sync::Arc;

use lz4_flex::block;
use portolan_client::BoxError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::objects::Owner;
use crate::pending::{Seen, version};
use crate::written::{EndpointSlice, Endpoints, MANAGED_BY_LABEL, ObjectMeta, SERVICE_NAME_LABEL};
use crate::{endpointslice, mirroring};

/// An object at rest.
#[derive(Debug)]
pub struct Kept<T> {
    pub uid: Box<str>,
    version: u64,
    deleting: bool,
    pub owners: Arc<[Owner]>,
    text: Option<Packed>,
    whole: PhantomData<fn() -> T>,
}

/// What can rest.
pub trait Rests: Serialize + DeserializeOwned {
    /// How the text of most objects of the kind reads.
    const SAMPLE: &str;
}

impl Rests for EndpointSlice {
    const SAMPLE: &str = r#"{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"a","generateName":"a-","namespace":"default","uid":"0","resourceVersion":"1","labels":{"app":"a","endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io","kubernetes.io/service-name":"a"},"annotations":{"endpoints.kubernetes.io/last-change-trigger-time":"20"},"ownerReferences":[{"apiVersion":"v1","kind":"Service","name":"a","uid":"0","controller":true,"blockOwnerDeletion":true}],"creationTimestamp":"20","generation":1},"addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true,"serving":true,"terminating":false},"targetRef":{"kind":"Pod","namespace":"default","name":"a","uid":"0"},"nodeName":"a","zone":"a"}],"ports":[{"name":"http","protocol":"TCP","port":8080}]}"#;
}

impl Rests for Endpoints {
    const SAMPLE: &str = r#"{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"a","namespace":"default","uid":"0","resourceVersion":"1","labels":{"app":"a","endpoints.kubernetes.io/managed-by":"endpoint-controller"},"annotations":{"endpoints.kubernetes.io/last-change-trigger-time":"20"},"creationTimestamp":"20"},"subsets":[{"addresses":[{"ip":"10.0.0.1","nodeName":"a","targetRef":{"kind":"Pod","namespace":"default","name":"a","uid":"0"}}],"ports":[{"name":"http","port":8080,"protocol":"TCP"}]}]}"#;
}

/// JSON text as what tells it from [`Rests::SAMPLE`].
#[derive(Debug)]
struct Packed {
    bytes: Box<[u8]>,
    /// How long the text is.
    len: usize,
}

impl Packed {
    fn new<T: Rests>(object: &T) -> Result<Self, serde_json::Error> {
        let text = serde_json::to_vec(object)?;
        let bytes = block::compress_with_dict(&text, T::SAMPLE.as_bytes());
        Ok(Self { bytes: bytes.into(), len: text.len() })
    }

    fn open<T: Rests>(&self) -> T {
        let text = block::decompress_with_dict(&self.bytes, self.len, T::SAMPLE.as_bytes());
        let text = text.expect("it was packed against the sample of this type");
        serde_json::from_slice(&text).expect("the text was written from a value of this type")
    }
}

impl<T: Rests> Kept<T> {
    /// `service` is a name that its owner may have too.
    fn new(meta: &ObjectMeta, service: Option<&Arc<str>>) -> Self {
        Self {
            uid: meta.uid.as_str().into(),
            version: version(&meta.resource_version),
            deleting: meta.deleting(),
            owners: owners(meta, service),
            text: None,
            whole: PhantomData,
        }
    }

    fn with_text(self, object: &T) -> Result<Self, serde_json::Error> {
        Ok(Self { text: Some(Packed::new(object)?), ..self })
    }

    pub fn seen(&self) -> Seen<'_> {
        Seen { uid: &self.uid, version: self.version, deleting: self.deleting }
    }

    /// The object, but for its `managedFields`; `None` if its text was not kept.
    pub fn open(&self) -> Option<T> {
        self.text.as_ref().map(Packed::open)
    }
}

/// The cache's projection of Endpoints.
pub(crate) fn endpoints(json: &[u8]) -> Result<Kept<Endpoints>, BoxError> {
    let object: Endpoints = serde_json::from_slice(json)?;
    Ok(Kept::new(&object.metadata, None).with_text(&object)?)
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
        match meta.labels.get(MANAGED_BY_LABEL) {
            Some(endpointslice::MANAGED_BY) => Self::EndpointSlices,
            Some(mirroring::MANAGED_BY) => Self::Mirroring,
            _ => Self::Other,
        }
    }
}

impl KeptSlice {
    pub fn new(slice: &EndpointSlice) -> Result<Self, serde_json::Error> {
        let (meta, manager) = (&slice.metadata, Manager::of(&slice.metadata));
        let service = meta.labels.get(SERVICE_NAME_LABEL).map(Arc::from);
        let mut object = Kept::new(meta, service.as_ref());
        if manager != Manager::Other {
            object = object.with_text(slice)?;
        }
        Ok(Self { service, manager, object })
    }

    pub fn seen(&self) -> Seen<'_> {
        self.object.seen()
    }

    pub fn owners(&self) -> &Arc<[Owner]> {
        &self.object.owners
    }

    /// The whole slice; `None` for one that is not ours.
    pub fn open(&self) -> Option<EndpointSlice> {
        self.object.open()
    }
}

/// The cache's projection of EndpointSlices.
pub(crate) fn slice(json: &[u8]) -> Result<KeptSlice, BoxError> {
    Ok(KeptSlice::new(&serde_json::from_slice(json)?)?)
}

fn owners(meta: &ObjectMeta, service: Option<&Arc<str>>) -> Arc<[Owner]> {
    let owners = meta.owner_references.iter().map(|owner| Owner {
        api_version: owner.api_version.as_str().into(),
        kind: owner.kind.as_str().into(),
        name: service
            .filter(|name| ***name == owner.name)
            .map_or_else(|| owner.name.as_str().into(), Arc::clone),
        uid: owner.uid.as_str().into(),
        controller: owner.controller.unwrap_or_default(),
    });
    if owners.len() == 0 { Arc::default() } else { owners.collect() }
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
            assert_eq!(kept.seen(), Seen { uid: "u", version: 7, deleting: false });
        }
    }

    #[test]
    fn of_what_is_others_only_the_head_is_kept() {
        let kept = slice(text("somebody").as_bytes()).unwrap();
        assert_eq!(kept.open(), None);
        assert!(kept.object.text.is_none());
        assert_eq!((kept.service.as_deref(), kept.owners().len()), (Some("web"), 1));
        assert_eq!(&*kept.owners()[0].name, "web");
    }

    #[test]
    fn what_is_like_its_sample_takes_little() {
        let text = text(endpointslice::MANAGED_BY);
        let Kept { text: packed, .. } = slice(text.as_bytes()).unwrap().object;
        let packed = packed.unwrap();
        assert!(packed.bytes.len() * 2 < packed.len, "{} bytes of {}", packed.bytes.len(), packed.len);
        for sample in [EndpointSlice::SAMPLE, Endpoints::SAMPLE] {
            assert!(serde_json::from_str::<serde_json::Value>(sample).is_ok());
        }
    }
}

//! Which objects of a kind a request is about: label and field selectors, applied to stored bytes.

use portolan_api::resource::Resource;

use crate::errors::Result;
use crate::query::Query;

/// Selectors of a list or watch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    name: Option<String>,
}

impl Selection {
    pub(crate) fn read(_resource: &'static Resource, _query: &Query) -> Result<Self> {
        Ok(Self::default())
    }
    pub(crate) fn with_name(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }
    pub(crate) fn is_everything(&self) -> bool {
        true
    }
    pub(crate) fn matches(&self, _json: &[u8]) -> bool {
        true
    }
    pub(crate) fn narrow(&self, _resource: &Resource, _namespace: Option<&str>, base: &str) -> String {
        base.to_string()
    }
}

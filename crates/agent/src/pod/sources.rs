//! The `ConfigMap`s and Secrets that a container's environment comes from: which they are, and fetching them.

use std::collections::{BTreeMap, BTreeSet};

use portolan_api::core::v1::{ConfigMap, Container, EnvVarSource, Secret};
use portolan_client::{ApiPath, Client, Error, paths};
use serde::Deserialize;

/// Kind and name of one of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    ConfigMap(String),
    Secret(String),
}

impl Source {
    /// As messages about missing ones spell it.
    pub(crate) fn not_found(&self) -> String {
        match self {
            Self::ConfigMap(name) => format!("configmap {name:?} not found"),
            Self::Secret(name) => format!("secret {name:?} not found"),
        }
    }

    pub(crate) fn of(from: &EnvVarSource) -> Option<Self> {
        let config_map = from.config_map_key_ref.as_ref().map(|key| Self::ConfigMap(key.name.clone()));
        config_map.or_else(|| from.secret_key_ref.as_ref().map(|key| Self::Secret(key.name.clone())))
    }
}

/// An entry of `envFrom`: all keys of one object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EnvFrom {
    pub(crate) prefix: String,
    config_map_ref: Option<Reference>,
    secret_ref: Option<Reference>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Reference {
    name: String,
    optional: Option<bool>,
}

impl EnvFrom {
    pub(crate) fn list(container: &Container) -> impl Iterator<Item = Self> {
        container.env_from.iter().filter_map(|value| Self::deserialize(value).ok())
    }

    pub(crate) fn source(&self) -> Option<Source> {
        let config_map = self.config_map_ref.as_ref().map(|it| Source::ConfigMap(it.name.clone()));
        config_map.or_else(|| self.secret_ref.as_ref().map(|it| Source::Secret(it.name.clone())))
    }

    pub(crate) fn is_optional(&self) -> bool {
        let reference = self.config_map_ref.as_ref().or(self.secret_ref.as_ref());
        reference.is_some_and(|reference| reference.optional == Some(true))
    }
}

/// What was found; keys whose values are no text are left out.
pub(crate) type Sources = BTreeMap<Source, Option<BTreeMap<String, String>>>;

/// What the environment of a container needs.
pub(crate) fn needed(container: &Container) -> BTreeSet<Source> {
    let mut all: BTreeSet<Source> =
        container.env.iter().filter_map(|var| Source::of(var.value_from.as_ref()?)).collect();
    all.extend(EnvFrom::list(container).filter_map(|from| from.source()));
    all
}

/// Fetches what a container needs. What is not there is in the answer as such.
pub(crate) async fn fetch(client: &Client, namespace: &str, container: &Container) -> Result<Sources, Error> {
    let mut found = Sources::new();
    for source in needed(container) {
        let values = match &source {
            Source::ConfigMap(name) => get::<ConfigMap>(client, &paths::CONFIG_MAPS, namespace, name)
                .await?
                .map(|config_map| config_map.data),
            Source::Secret(name) => {
                get::<Secret>(client, &paths::SECRETS, namespace, name).await?.map(|secret| {
                    secret.data.into_iter().filter_map(|(key, value)| Some((key, text(&value)?))).collect()
                })
            }
        };
        found.insert(source, values);
    }
    Ok(found)
}

fn text(bytes: &portolan_api::Bytes) -> Option<String> {
    String::from_utf8(bytes.0.clone()).ok()
}

async fn get<T: for<'de> Deserialize<'de>>(
    client: &Client,
    path: &ApiPath,
    namespace: &str,
    name: &str,
) -> Result<Option<T>, Error> {
    match client.get(path, Some(namespace), name).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

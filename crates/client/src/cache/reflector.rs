//! The task that keeps a cache true: list, then watch, and again whenever the watch cannot be resumed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use http_body_util::BodyExt;
use serde_json::value::RawValue;

use super::backoff::Backoff;
use super::store::{Change, Entry, Store};
use super::wire::{self, Event, HeadMeta, Lines};
use super::{Key, Selectors};
use crate::client::{ListOptions, WatchOptions};
use crate::limits::{HEALTHY_WATCH, LIST_PAGE_ITEMS, WATCH_SECONDS_MIN};
use crate::{ApiPath, BoxError, Client, Error, Versions};

pub(super) struct Reflector<T, P> {
    client: Client,
    api: ApiPath,
    /// The other version of the resource, if there is one.
    other: Option<ApiPath>,
    selectors: Selectors,
    project: P,
    store: Arc<Store<T>>,
    /// Namespaces are few and objects many: their names are shared.
    namespaces: HashSet<Arc<str>>,
}

/// What an old API server needs to hear of: it is never going to serve the list.
fn advice(error: &Error) -> &'static str {
    if error.is_not_found() {
        "; the API server is older than this version of the resource, or has it switched off"
    } else {
        ""
    }
}

impl<T, P> Reflector<T, P>
where
    T: Send + Sync + 'static,
    P: Fn(&[u8]) -> Result<T, BoxError> + Send + Sync + 'static,
{
    pub(super) fn new(
        client: Client,
        api: Versions,
        selectors: Selectors,
        project: P,
        store: Arc<Store<T>>,
    ) -> Self {
        let Versions { newest, older } = api;
        Reflector { client, api: newest, other: older, selectors, project, store, namespaces: HashSet::new() }
    }

    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        // What can fail for ever, such as a kind that an older server does not have, is said once.
        let mut told = String::new();
        loop {
            match self.list_what_there_is().await {
                Ok(version) => {
                    told.clear();
                    self.watch_from(version, &mut backoff).await;
                }
                Err(error) => {
                    let advice = advice(&error);
                    let (resource, version) = (self.api.plural, self.api.api_version());
                    let error = error.to_string();
                    if error == told {
                        tracing::debug!(resource, version, error, "list failed again");
                    } else {
                        tracing::warn!(resource, version, error, "list failed, trying again{advice}");
                        told = error;
                    }
                    wait(&mut backoff).await;
                }
            }
        }
    }

    /// Lists in the way that the server can do it: an old one does not have the newest version, or cannot select by the
    /// fields of a Service; one that has become newer meanwhile has lost the older version.
    async fn list_what_there_is(&mut self) -> Result<String, Error> {
        let listed = self.list().await;
        let code = listed.as_ref().err().and_then(Error::status).map(|status| status.code);
        if code == Some(404)
            && let Some(other) = self.other
        {
            self.other = Some(std::mem::replace(&mut self.api, other));
            let again = self.list().await;
            if again.as_ref().is_err_and(Error::is_not_found) {
                // What is asked for in vain is the first one, again and again.
                self.other = Some(std::mem::replace(&mut self.api, self.other.unwrap_or(other)));
                return listed;
            }
            tracing::info!(
                resource = self.api.plural,
                version = self.api.version,
                "the API server has it in this version"
            );
            return again;
        }
        if code == Some(400)
            && let Some(fields) = self.selectors.spared.take()
        {
            tracing::info!(
                resource = self.api.plural,
                fields,
                "the API server does not select by these fields: asking for all"
            );
            return self.list().await;
        }
        listed
    }

    /// Watch for as long as the watch can be resumed where it ended.
    async fn watch_from(&mut self, mut version: String, backoff: &mut Backoff) {
        loop {
            let started = Instant::now();
            let before = version.clone();
            let outcome = self.watch(&mut version).await;
            let healthy = version != before || started.elapsed() >= HEALTHY_WATCH;
            if healthy {
                backoff.reset();
            }
            match outcome {
                // Ended by the server, as it does from time to time.
                Ok(()) if healthy => continue,
                Ok(()) => {}
                Err(error) if error.is_expired() => {
                    tracing::info!(resource = self.api.plural, version, "watch expired, listing again");
                    if !healthy {
                        wait(backoff).await;
                    }
                    return;
                }
                // An event that cannot be read would come again and again: go round it.
                Err(error @ Error::Decode(_)) => {
                    tracing::warn!(resource = self.api.plural, %error, "watch cannot be read, listing again");
                    wait(backoff).await;
                    return;
                }
                // The server is another one, without this version.
                Err(error) if error.is_not_found() => {
                    tracing::warn!(resource = self.api.plural, %error, "watch is not there, listing again");
                    wait(backoff).await;
                    return;
                }
                Err(error) => {
                    tracing::warn!(resource = self.api.plural, %error, "watch broke off, resuming");
                }
            }
            wait(backoff).await;
        }
    }

    fn fields(&self) -> Option<String> {
        let Selectors { fields, spared, .. } = &self.selectors;
        let both: Vec<&str> = [fields, spared].into_iter().flatten().map(String::as_str).collect();
        (!both.is_empty()).then(|| both.join(","))
    }

    /// Read the whole list and swap it in. Returns the version to watch from.
    async fn list(&mut self) -> Result<String, Error> {
        let mut options = ListOptions {
            label_selector: self.selectors.labels.clone(),
            field_selector: self.fields(),
            limit: LIST_PAGE_ITEMS,
            ..ListOptions::default()
        };
        let mut new = HashMap::new();
        // Names of namespaces long gone go with the list that had them.
        self.namespaces.clear();
        loop {
            let namespace = self.selectors.namespace.clone();
            let body = self.client.list_raw(&self.api, namespace.as_deref(), &options).await;
            let body = match body {
                // The pages took longer than the server keeps history: take everything in one.
                Err(error) if error.is_expired() && options.limit > 0 => {
                    new.clear();
                    options.limit = 0;
                    options.continue_token = None;
                    continue;
                }
                body => body?,
            };
            let list = wire::parse_list(&body)?;
            for raw in list.items.into_iter().flatten() {
                if let Some((key, Some(entry))) = self.change(raw, false) {
                    new.insert(key, entry);
                }
            }
            if list.metadata.continue_token.is_empty() {
                self.store.replace(new);
                return Ok(list.metadata.resource_version);
            }
            options.continue_token = Some(list.metadata.continue_token);
        }
    }

    /// Follow one watch to its end. `version` follows what has been applied.
    async fn watch(&mut self, version: &mut String) -> Result<(), Error> {
        let options = WatchOptions {
            label_selector: self.selectors.labels.clone(),
            field_selector: self.fields(),
            resource_version: version.clone(),
            timeout_seconds: WATCH_SECONDS_MIN + rand::random_range(0..=WATCH_SECONDS_MIN),
        };
        let namespace = self.selectors.namespace.clone();
        let mut body = self.client.watch_raw(&self.api, namespace.as_deref(), &options).await?;
        let mut lines = Lines::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| Error::Transport(format!("the watch broke off: {e}")))?;
            let Ok(chunk) = frame.into_data() else { continue };
            // Everything that came together is applied together, also when the last of it is an error.
            let mut changes = Vec::new();
            let outcome = lines.feed(&chunk, |line| self.event(line, version, &mut changes));
            self.store.apply(changes);
            outcome?;
        }
        Ok(())
    }

    fn event(
        &mut self,
        line: &[u8],
        version: &mut String,
        changes: &mut Vec<Change<T>>,
    ) -> Result<(), Error> {
        let (raw, deleted) = match wire::parse_event(line)? {
            Event::Applied(raw) => (raw, false),
            Event::Deleted(raw) => (raw, true),
            Event::Bookmark(seen) => {
                if !seen.is_empty() {
                    *version = seen;
                }
                return Ok(());
            }
            Event::Failed(status) => return Err(Error::Api(Box::new(status))),
        };
        if let Ok(head) = wire::parse_head(raw)
            && !head.resource_version.is_empty()
        {
            (*head.resource_version).clone_into(version);
        }
        changes.extend(self.change(raw, deleted));
        Ok(())
    }

    /// What an object means for the content; `None` if not even its name can be read.
    fn change(&mut self, raw: &RawValue, deleted: bool) -> Option<Change<T>> {
        let head = match wire::parse_head(raw) {
            Ok(head) => head,
            Err(error) => {
                self.failed(&"an object without readable metadata", &error);
                return None;
            }
        };
        let key = self.key(&head);
        if deleted {
            return Some((key, None));
        }
        let version = wire::version(&head.resource_version);
        if let Some(value) = self.store.same(&key, version) {
            return Some((key, Some(Entry { version, value })));
        }
        match (self.project)(raw.get().as_bytes()) {
            Ok(value) => Some((key, Some(Entry { version, value: Arc::new(value) }))),
            Err(error) => {
                self.failed(&key, &error);
                Some((key, None))
            }
        }
    }

    fn failed(&self, what: &dyn std::fmt::Display, error: &dyn std::fmt::Display) {
        let failures = self.store.count_failure();
        // The first ones, then one for each doubling: a kind that never decodes must not fill the log.
        if failures <= 10 || failures.is_power_of_two() {
            tracing::warn!(resource = self.api.plural, object = %what, %error, failures, "cannot decode, left out");
        }
    }

    fn key(&mut self, head: &HeadMeta<'_>) -> Key {
        let known = self.namespaces.get(&*head.namespace).cloned();
        let namespace = known.unwrap_or_else(|| {
            let new: Arc<str> = (&*head.namespace).into();
            self.namespaces.insert(new.clone());
            new
        });
        Key { namespace, name: (&*head.name).into() }
    }
}

async fn wait(backoff: &mut Backoff) {
    tokio::time::sleep(backoff.next(rand::random())).await;
}

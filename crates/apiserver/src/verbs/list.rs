//! GET of many objects: resource versions, selectors, pages.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Response;
use portolan_api::field::FieldError;
use portolan_api::status;
use portolan_store::{KeyValue, Revision};
use serde::{Deserialize, Serialize};

use crate::body::Body;
use crate::call::Call;
use crate::errors::{ApiError, Result, invalid_options};
use crate::limits::{FUTURE_REVISION_WAIT, LIST_CHUNK};
use crate::query::Query;
use crate::respond::{self, ListMeta};
use crate::select::Selection;
use crate::server::ApiServer;
use crate::view;

/// `resourceVersion` of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// Not given: the newest.
    Unset,
    /// `0`: whatever is at hand.
    Any,
    /// A revision.
    At(Revision),
}

impl Version {
    /// Reads the parameter.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self> {
        match text {
            None => Ok(Self::Unset),
            Some(text) => match text.parse() {
                Ok(0) => Ok(Self::Any),
                Ok(revision) => Ok(Self::At(revision)),
                Err(_) => Err(status::bad_request(format!(
                    "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: \
                     invalid syntax"
                ))
                .into()),
            },
        }
    }
}

/// Where a list goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Token {
    v: String,
    /// The revision of the first page; -1 is the newest.
    rv: i64,
    /// The first key that may follow, relative to the prefix.
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

impl Token {
    fn after(key: &str, prefix: &str, rv: i64) -> Self {
        let relative = key.strip_prefix(prefix).unwrap_or(key);
        Self { v: TOKEN_VERSION.into(), rv, start: format!("{relative}\0") }
    }

    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(text: &str) -> Result<Self> {
        let bad = |why: &str| ApiError::from(status::bad_request(format!("invalid continue token: {why}")));
        let invalid = "continue key is not valid";
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| bad(invalid))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|_| bad(invalid))?;
        if token.v != TOKEN_VERSION {
            let why = format!("{invalid}: server does not recognize this encoded version {}", token.v);
            return Err(bad(&why));
        }
        if token.rv == 0 {
            let why = format!("{invalid}: incorrect encoded start resourceVersion (version {TOKEN_VERSION})");
            return Err(bad(&why));
        }
        if token.start.is_empty() {
            return Err(bad(&format!("{invalid}: encoded start key empty (version {TOKEN_VERSION})")));
        }
        if token.start.starts_with('/') || token.start.split('/').any(|part| part == "..") {
            return Err(bad(invalid));
        }
        Ok(token)
    }
}

/// What to list.
struct Options {
    selection: Selection,
    limit: usize,
    token: Option<Token>,
    /// The content of exactly this revision.
    at: Option<Revision>,
    /// Content not older than this.
    at_least: Option<Revision>,
}

impl Options {
    fn read(call: &Call) -> Result<Self> {
        let query = &call.query;
        check(query)?;
        let selection = Selection::read(call.resource, query)?;
        let limit = usize::try_from(query.number("limit")?.unwrap_or(0).max(0)).unwrap_or(usize::MAX);
        let token = query.get("continue").map(Token::decode).transpose()?;
        let version = Version::parse(query.get("resourceVersion"))?;
        if token.is_some() && matches!(version, Version::At(_)) {
            let why = "specifying resource version is not allowed when using continue";
            return Err(status::bad_request(why).into());
        }
        let mut options = Self { selection, limit, token, at: None, at_least: None };
        if let Some(token) = &options.token {
            options.at = u64::try_from(token.rv).ok();
        } else if let Version::At(revision) = version {
            // Without a word about it, a page asks for that very revision, a whole list for at least that one.
            let exact = match query.get("resourceVersionMatch") {
                Some(word) => word == "Exact",
                None => limit > 0,
            };
            if exact {
                options.at = Some(revision);
            } else {
                options.at_least = Some(revision);
            }
        }
        Ok(options)
    }
}

/// Combinations of options that make no sense.
fn check(query: &Query) -> Result<()> {
    let forbidden =
        |path: &str, why: &str| Err(invalid_options("ListOptions", FieldError::forbidden(path, why)));
    let version = query.get("resourceVersion");
    if let Some(word) = query.get("resourceVersionMatch") {
        let path = "resourceVersionMatch";
        if query.get("continue").is_some() {
            return forbidden(path, "resourceVersionMatch is forbidden when continue is provided");
        }
        if version.is_none() {
            return forbidden(path, "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if word != "Exact" && word != "NotOlderThan" {
            let error = FieldError::not_supported(path, word, &["Exact", "NotOlderThan", ""]);
            return Err(invalid_options("ListOptions", error));
        }
        if word == "Exact" && version == Some("0") {
            return forbidden(path, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
    }
    if query.flag("sendInitialEvents").is_some() {
        return forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list");
    }
    Ok(())
}

/// Answers with the list.
pub(crate) async fn run(call: &Call) -> Result<Response<Body>> {
    let options = Options::read(call)?;
    let (meta, items) = collect(call, &options).await?;
    respond::list(call, &meta, &items, &[])
}

/// All objects that the selection of `call` has now, for a deletion.
pub(crate) async fn selected(call: &Call) -> Result<(Revision, Vec<KeyValue>)> {
    let options = Options::read(call)?;
    let (meta, items) = collect(call, &options).await?;
    Ok((meta.revision, items))
}

async fn collect(call: &Call, options: &Options) -> Result<(ListMeta, Vec<KeyValue>)> {
    let server = &call.server;
    if let Some(revision) = options.at_least.or(options.at) {
        wait_for(server, revision).await?;
    }
    let base = call.resource.key_prefix(call.namespace.as_deref());
    let prefix = options.selection.narrow(call.resource, call.namespace.as_deref(), &base);
    let mut after =
        options.token.as_ref().map(|token| format!("{base}{}", token.start.trim_end_matches('\0')));
    let (mut at, mut items) = (options.at, Vec::new());
    let selective = !options.selection.is_everything();
    loop {
        let wanted = if selective { LIST_CHUNK } else { options.limit };
        let page = server.store().list(&prefix, after.as_deref(), wanted, at).await;
        let page = page.map_err(|error| too_old(error, options, after.as_deref(), &base))?;
        at = Some(page.revision);
        let last_page = page.remaining == 0;
        let count = page.items.len();
        for (index, kv) in page.items.into_iter().enumerate() {
            after = Some(kv.key.to_string());
            let kv = view::shown(call.resource, kv);
            if !options.selection.matches(&kv.value) {
                continue;
            }
            items.push(kv);
            if options.limit > 0 && items.len() == options.limit {
                let more = !last_page || index + 1 < count;
                let remaining = (!selective && more).then_some(page.remaining);
                let next = more.then(|| {
                    let key = items.last().map_or("", |kv: &KeyValue| &*kv.key);
                    Token::after(key, &base, page.revision as i64).encode()
                });
                return Ok((ListMeta { revision: page.revision, next, remaining }, items));
            }
        }
        if last_page || count == 0 {
            return Ok((ListMeta { revision: page.revision, next: None, remaining: None }, items));
        }
    }
}

/// A revision that is forgotten is 410; in the middle of paging with a token to go on from there anyhow.
fn too_old(error: portolan_store::Error, options: &Options, after: Option<&str>, base: &str) -> ApiError {
    let portolan_store::Error::Compacted { .. } = error else { return error.into() };
    let (Some(_), Some(after)) = (&options.token, after) else { return error.into() };
    let mut gone = status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    gone.metadata.continue_ = Token::after(after, base, -1).encode();
    gone.into()
}

/// Waits a moment for a revision that this server has not reached yet.
pub(crate) async fn wait_for(server: &ApiServer, revision: Revision) -> Result<()> {
    let deadline = tokio::time::Instant::now() + FUTURE_REVISION_WAIT;
    loop {
        let current = server.store().revision().await?;
        if current >= revision {
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(status::version_too_large(revision, current).into());
        }
        // Rare: a client that saw a newer revision on another server.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_their_journey() {
        let token = Token::after("/registry/pods/ns/a", "/registry/pods/", 7);
        assert_eq!(token.start, "ns/a\0");
        assert_eq!(Token::decode(&token.encode()).unwrap(), token);
        let message = |text: &str| Token::decode(text).unwrap_err().0.message.clone();
        assert_eq!(message("!!"), "invalid continue token: continue key is not valid");
        let zero = Token { rv: 0, ..token.clone() }.encode();
        assert_eq!(
            message(&zero),
            "invalid continue token: continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)"
        );
        let outside = Token { start: "../secrets".into(), ..token }.encode();
        assert_eq!(message(&outside), "invalid continue token: continue key is not valid");
    }

    #[test]
    fn senseless_options_are_refused() {
        let message = |query: &str| check(&Query::parse(Some(query))).unwrap_err().0.message.clone();
        assert_eq!(
            message("resourceVersionMatch=Exact"),
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        );
        assert!(message("resourceVersionMatch=Exact&resourceVersion=0").ends_with(
            "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""
        ));
        assert!(message("sendInitialEvents=true").ends_with("sendInitialEvents is forbidden for list"));
        assert!(check(&Query::parse(Some("resourceVersion=5&resourceVersionMatch=NotOlderThan"))).is_ok());
    }
}

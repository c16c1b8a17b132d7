//! `/healthz`, `/livez`, `/readyz` and `/version`.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::json;

use crate::body::Body;
use crate::limits::HEALTH_STORE_WAIT;
use crate::object;
use crate::query::Query;
use crate::server::{ApiServer, text};

/// The Kubernetes version whose API this is, so that clients judge their skew rightly.
pub(crate) const KUBERNETES: (&str, &str) = ("1", "36");

/// The answer of `/version`.
pub(crate) fn version() -> Bytes {
    let (major, minor) = KUBERNETES;
    object::encode(&json!({
        "major": major,
        "minor": minor,
        "gitVersion": format!("v{major}.{minor}.0+portolan-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "x86_64") { "amd64" } else { std::env::consts::ARCH }),
    }))
}

/// Answers a health path, with the single check that it may name; `None` for any other path.
pub(crate) async fn answer(server: &ApiServer, path: &str, query: &Query) -> Option<Response<Body>> {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let endpoint = parts.next().filter(|name| matches!(*name, "healthz" | "livez" | "readyz"))?;
    let mut checks = vec![("ping", true)];
    if endpoint != "livez" {
        let answer = tokio::time::timeout(HEALTH_STORE_WAIT, server.store().revision()).await;
        checks.push(("store", matches!(answer, Ok(Ok(_)))));
    }
    if endpoint == "readyz" {
        checks.push(("bootstrap", server.is_ready()));
    }
    if let Some(one) = parts.next() {
        checks.retain(|(name, _)| *name == one);
        if checks.is_empty() {
            return Some(text(StatusCode::NOT_FOUND, "404 page not found\n"));
        }
    }
    let well = checks.iter().all(|(_, ok)| *ok);
    if well && query.flag("verbose").is_none() {
        return Some(text(StatusCode::OK, "ok"));
    }
    let lines: Vec<String> = checks
        .iter()
        .map(
            |(name, ok)| {
                if *ok { format!("[+]{name} ok\n") } else { format!("[-]{name} failed: reason withheld\n") }
            },
        )
        .collect();
    let verdict = if well { "passed" } else { "failed" };
    let report = format!("{}{endpoint} check {verdict}\n", lines.concat());
    let code = if well { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    Some(text(code, &report))
}

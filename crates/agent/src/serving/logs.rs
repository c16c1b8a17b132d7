//! `/containerLogs/NAMESPACE/POD/CONTAINER`: what a container wrote.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use portolan_client::Key;

use super::request::Logs;
use super::{Body, Refusal, World, stream, waiting};
use crate::log::Reader;
use crate::registry::Container;

pub(super) async fn answer(
    world: &World,
    key: &Key,
    name: &str,
    container: &Container,
    asked: Logs,
) -> Result<Response<Body>, Refusal> {
    let latest = container.run.ok_or_else(|| waiting(container, name, key))?;
    let run = if asked.previous { latest - 1 } else { latest };
    let path = world.dirs.pod(key).log_path(name, run);
    if asked.previous && (run < 0 || !path.exists()) {
        let text = format!("previous terminated container {name:?} in pod {:?} not found", key.name);
        return Err(Refusal::new(StatusCode::BAD_REQUEST, text));
    }
    let news = container.news.clone().filter(|_| asked.follow && !asked.previous);
    let failed = |why: String| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, why);
    let open = move || Reader::open(&path, asked.options, news);
    let reader = tokio::task::spawn_blocking(open).await.map_err(|e| failed(e.to_string()))?;
    let reader = reader.map_err(|e| failed(format!("the log of container {name:?} cannot be read: {e}")))?;
    let pieces = futures_util::stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await?.map(|piece| (Bytes::from(piece), reader)))
    });
    let mut response = Response::new(stream(pieces));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

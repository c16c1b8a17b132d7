//! The few requests that are not plain verbs on an object: subresources, and lists of kinds known only by discovery.

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::BodyExt;
use portolan_client::{ApiPath, Client, Error, Status};
use serde_json::Value;

/// Writes to a subresource of an object: POST for `binding`, PUT for `finalize`.
pub(crate) async fn write_subresource(
    client: &Client,
    method: Method,
    object: (&ApiPath, Option<&str>, &str),
    subresource: &str,
    body: &Value,
) -> Result<(), Error> {
    let (api, namespace, name) = object;
    let path = format!("{}/{subresource}", api.object(namespace, name));
    send(client, method, path, Some(body)).await
}

/// Deletes the object at a path.
pub(crate) async fn delete(client: &Client, path: String) -> Result<(), Error> {
    send(client, Method::DELETE, path, None).await
}

async fn send(client: &Client, method: Method, path: String, body: Option<&Value>) -> Result<(), Error> {
    let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/json")
        .body(bytes)
        .map_err(|error| Error::Config(format!("cannot form the request: {error}")))?;
    let response = client.send(request).await?;
    let code = response.status();
    if code.is_success() {
        return Ok(());
    }
    let body = response.into_body().collect().await.map_err(|error| Error::Transport(error.to_string()))?;
    let status = serde_json::from_slice::<Status>(&body.to_bytes()).unwrap_or_default();
    Err(Error::Api(Box::new(Status { code: code.as_u16(), ..status })))
}

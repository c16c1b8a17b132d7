//! `/attach/NAMESPACE/POD/CONTAINER`: what a running container writes from now on. Containers have no input.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use portolan_client::Key;

use super::request::Streams;
use super::session::{Channel, Client, Input, success};
use super::{Body, Refusal, World, upgrade, waiting};
use crate::log::{Options, Reader};
use crate::registry::Container;

pub(super) fn answer(
    world: &World,
    request: Request<Incoming>,
    key: &Key,
    name: &str,
    container: &Container,
    streams: Streams,
) -> Result<Response<Body>, Refusal> {
    let run = container.run.ok_or_else(|| waiting(container, name, key))?;
    if container.launch.is_none() {
        let text = format!("container {name:?} in pod {:?} is not running", key.name);
        return Err(Refusal::new(StatusCode::BAD_REQUEST, text));
    }
    if streams.tty {
        let text = format!("container {name:?} has no terminal: attach without -t");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, text));
    }
    let path = world.dirs.pod(key).log_path(name, run);
    let options = Options { tail: Some(0), ..Options::default() };
    let news = container.news.clone();
    upgrade::session(request, streams, move |client| async move {
        let opened = tokio::task::spawn_blocking(move || Reader::open(&path, options, news)).await;
        if let Ok(Ok(reader)) = opened {
            show(reader, client).await;
        }
    })
}

/// Until the container ends or the client has seen enough.
async fn show(mut reader: Reader, mut client: Client) {
    loop {
        tokio::select! {
            piece = reader.next() => match piece {
                Ok(Some(piece)) => {
                    if client.send(Channel::Stdout, Bytes::from(piece)).await.is_err() {
                        return;
                    }
                }
                _ => break,
            },
            input = client.input.recv() => if matches!(input, None | Some(Input::Gone)) {
                return;
            },
        }
    }
    let _ = client.send(Channel::Error, success()).await;
}

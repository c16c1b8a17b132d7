//! `/exec/NAMESPACE/POD/CONTAINER`: a process beside a container's, in its namespaces and with its environment.

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use portolan_client::Key;

use super::request::Exec;
use super::{Body, Refusal, World, session, upgrade};
use crate::registry::Container;

pub(super) fn answer(
    world: &World,
    request: Request<Incoming>,
    key: &Key,
    name: &str,
    container: Container,
    asked: Exec,
) -> Result<Response<Body>, Refusal> {
    let Some(mut launch) = container.launch else {
        let text = format!("container {name:?} in pod {:?} is not running", key.name);
        return Err(Refusal::new(StatusCode::BAD_REQUEST, text));
    };
    let mut command = asked.command.into_iter();
    launch.program = command.next().unwrap_or_default();
    launch.args = command.collect();
    if asked.streams.tty && !launch.env.iter().any(|(name, _)| name == "TERM") {
        launch.env.push(("TERM".into(), "xterm".into()));
    }
    let spawner = world.spawner.clone();
    upgrade::session(request, asked.streams, move |client| {
        session::run(launch, asked.streams, spawner, client)
    })
}

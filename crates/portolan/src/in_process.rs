//! The way to the API server of the same process: the same verbs under an identity, without a socket.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt as _;
use portolan_apiserver::ApiServer;
use portolan_apiserver::authn::User;
use portolan_client::{Body, Client, Error, Transport};

struct InProcess {
    server: Arc<ApiServer>,
    user: User,
}

/// A client that is `user` to the server.
pub(crate) fn client(server: &Arc<ApiServer>, user: User, user_agent: &str) -> Client {
    Client::from_transport(Arc::new(InProcess { server: server.clone(), user }), user_agent)
}

impl Transport for InProcess {
    fn call(&self, mut request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<Body>, Error>> {
        request.extensions_mut().insert(self.user.clone());
        Box::pin(async move {
            let response = self.server.handle(request).await;
            Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
        })
    }
}

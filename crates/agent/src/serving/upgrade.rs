//! Taking a connection over: what the client offers, and the answer that ends HTTP.

use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use super::request::Streams;
use super::session::Client;
use super::{Body, Refusal, channels, spdy, websocket, whole};

/// The connection below whatever is spoken now.
pub(super) type Io = TokioIo<Upgraded>;

/// What a client wants to go on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Websocket,
    Spdy,
}

impl Protocol {
    pub(super) fn asked(headers: &HeaderMap) -> Result<Self, Refusal> {
        let upgrade = words(headers, &UPGRADE).join(", ");
        if upgrade.eq_ignore_ascii_case("websocket") {
            Ok(Self::Websocket)
        } else if upgrade.eq_ignore_ascii_case(spdy::NAME) {
            Ok(Self::Spdy)
        } else {
            let text = format!("Upgrade: {upgrade:?} is not known; known are websocket and {}", spdy::NAME);
            Err(Refusal::new(StatusCode::BAD_REQUEST, text))
        }
    }
}

/// Takes the connection over for a session with a process.
pub(super) fn session<F: Future<Output = ()> + Send + 'static>(
    request: Request<Incoming>,
    streams: Streams,
    session: impl FnOnce(Client) -> F + Send + 'static,
) -> Result<Response<Body>, Refusal> {
    match Protocol::asked(request.headers())? {
        Protocol::Websocket => websocket::accept(request, streams, session),
        Protocol::Spdy => channels::accept(request, streams, session),
    }
}

/// Answers that the protocol changes, with these headers, and goes on with `then`.
pub(super) fn take_over<F: Future<Output = ()> + Send + 'static>(
    mut request: Request<Incoming>,
    upgrade: &'static str,
    more: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    then: impl FnOnce(Io) -> F + Send + 'static,
) -> Response<Body> {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            then(TokioIo::new(upgraded)).await;
        }
    });
    let mut response = Response::new(whole(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(upgrade));
    headers.extend(more);
    response
}

/// What a header lists, in one line or in several.
pub(super) fn words(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|word| word.trim().to_owned()).collect()
}

/// The best of ours that the client offers, too.
pub(super) fn common(ours: &[&'static str], offered: &[String]) -> Result<&'static str, Refusal> {
    let common = ours.iter().find(|ours| offered.iter().any(|offer| offer == *ours));
    common.copied().ok_or_else(|| {
        let text = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            offered.join(" "),
            ours.join(" ")
        );
        Refusal::new(StatusCode::FORBIDDEN, text)
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::serving) fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn two_protocols_are_known() {
        let asked = |upgrade| Protocol::asked(&headers(&[(UPGRADE, upgrade)]));
        assert_eq!(asked("WebSocket").unwrap(), Protocol::Websocket);
        assert_eq!(asked("SPDY/3.1").unwrap(), Protocol::Spdy);
        assert!(asked("h2c").unwrap_err().text.contains("\"h2c\" is not known"));
    }

    #[test]
    fn the_best_common_protocol_is_taken() {
        let offered = ["a", "b"].map(str::to_owned);
        assert_eq!(common(&["c", "b", "a"], &offered).unwrap(), "b");
        let refused = common(&["c"], &offered).unwrap_err();
        assert!(refused.text.ends_with("client supports [a b], server accepts [c]"), "{}", refused.text);
    }
}

//! What is asked: kubelet's paths and queries taken apart. Pure.

use http::{Request, StatusCode};
use portolan_api::percent::decode;
use portolan_client::Key;

use super::Refusal;
use crate::log::{self, Stream};

/// A request about a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) about: About,
    pub(super) key: Key,
    /// The pod that is meant, where several have had its name.
    pub(super) uid: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum About {
    Container(String, Action),
    /// Its ports; which ones, where the client does not say so later.
    Ports(Vec<u16>),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    Logs(Logs),
    Exec(Exec),
    Attach(Streams),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Logs {
    pub(super) follow: bool,
    pub(super) previous: bool,
    pub(super) options: log::Options,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Exec {
    pub(super) command: Vec<String>,
    pub(super) streams: Streams,
}

/// What of a process the client wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Streams {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

/// `None`: a question for health.
pub(super) fn read<T>(request: &Request<T>) -> Result<Option<Asked>, Refusal> {
    parse(request.uri().path(), request.uri().query().unwrap_or_default())
}

fn parse(path: &str, query: &str) -> Result<Option<Asked>, Refusal> {
    let none = || Refusal::new(StatusCode::NOT_FOUND, format!("nothing is served at {path}"));
    let parts: Option<Vec<String>> = path.trim_matches('/').split('/').map(decode).collect();
    let parts = parts.ok_or_else(none)?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (action, namespace, pod, uid, container) = match parts[..] {
        ["healthz"] => return Ok(None),
        ["portForward", namespace, pod, ref uid @ ..] if uid.len() < 2 => {
            let uid = uid.first().map(|uid| (*uid).to_owned());
            let about = About::Ports(ports(&Query::parse(query))?);
            return Ok(Some(Asked { about, key: Key::new(namespace, pod), uid }));
        }
        [action, namespace, pod, container] => (action, namespace, pod, None, container),
        [action @ ("exec" | "attach"), namespace, pod, uid, container] => {
            (action, namespace, pod, Some(uid.to_owned()), container)
        }
        _ => return Err(none()),
    };
    let query = Query::parse(query);
    let action = match action {
        "containerLogs" => Action::Logs(logs(&query)?),
        "exec" => {
            let command: Vec<String> = query.all("command").map(str::to_owned).collect();
            if command.is_empty() {
                return Err(bad("you must specify at least 1 command for the container"));
            }
            Action::Exec(Exec { command, streams: streams(&query)? })
        }
        "attach" => Action::Attach(streams(&query)?),
        _ => return Err(none()),
    };
    let about = About::Container(container.to_owned(), action);
    Ok(Some(Asked { about, key: Key::new(namespace, pod), uid }))
}

fn bad(text: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, text)
}

fn ports(query: &Query) -> Result<Vec<u16>, Refusal> {
    let port = |text: &str| text.parse().ok().filter(|port| *port != 0);
    let ports = query.all("port").map(|text| port(text).ok_or_else(|| bad(format!("{text:?} is no port"))));
    ports.collect()
}

fn logs(query: &Query) -> Result<Logs, Refusal> {
    let since = match (query.one("sinceTime"), query.number("sinceSeconds")?) {
        (Some(time), _) => {
            let time: jiff::Timestamp =
                time.parse().map_err(|e| bad(format!("sinceTime {time:?} is no time: {e}")))?;
            Some(time)
        }
        (None, Some(seconds)) => {
            let now = jiff::Timestamp::now().as_second();
            let second = now.saturating_sub(i64::try_from(seconds).unwrap_or(i64::MAX)).max(0);
            jiff::Timestamp::from_second(second).ok()
        }
        (None, None) => None,
    };
    let stream = match query.one("stream") {
        Some("Stdout") => Some(Stream::Stdout),
        Some("Stderr") => Some(Stream::Stderr),
        _ => None,
    };
    let options = log::Options {
        since: since.map(|since| format!("{since:.9}")),
        tail: query.number("tailLines")?,
        limit_bytes: query.number("limitBytes")?,
        timestamps: query.flag("timestamps"),
        stream,
    };
    Ok(Logs { follow: query.flag("follow"), previous: query.flag("previous"), options })
}

fn streams(query: &Query) -> Result<Streams, Refusal> {
    // Kubelet's words, and the API's.
    let either = |short: &str, long: &str| query.flag(short) || query.flag(long);
    let streams = Streams {
        stdin: either("input", "stdin"),
        stdout: either("output", "stdout"),
        stderr: either("error", "stderr"),
        tty: query.flag("tty"),
    };
    if !(streams.stdin || streams.stdout || streams.stderr) {
        return Err(bad("you must specify at least 1 of stdin, stdout, stderr"));
    }
    // A terminal has one output.
    Ok(Streams { stderr: streams.stderr && !streams.tty, ..streams })
}

struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(&name.replace('+', " "))?, decode(&value.replace('+', " "))?))
        };
        Self(text.split('&').filter(|pair| !pair.is_empty()).filter_map(pair).collect())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    fn one(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, value)| n == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|(n, value)| n == name && !matches!(value.as_str(), "0" | "false" | "False"))
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let parse = |text: &str| text.parse().map_err(|_| bad(format!("{name} {text:?} is no number")));
        self.one(name).map(parse).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(path: &str, query: &str) -> Result<Asked, String> {
        parse(path, query).map(Option::unwrap).map_err(|refusal| refusal.text)
    }

    #[test]
    fn paths_and_queries_are_kubelets() {
        let logs = asked("/containerLogs/shop/web-1/c", "follow=true&tailLines=3&timestamps=true").unwrap();
        assert_eq!(logs.key, Key::new("shop", "web-1"));
        let options = log::Options { tail: Some(3), timestamps: true, ..log::Options::default() };
        let want = Action::Logs(Logs { follow: true, previous: false, options });
        assert_eq!(logs.about, About::Container("c".into(), want));
        let exec =
            asked("/exec/shop/web-1/c", "command=sh&command=-c&command=echo+a%26b&output=1&tty=1&error=1");
        let streams = Streams { stdout: true, tty: true, ..Streams::default() };
        let command = ["sh", "-c", "echo a&b"].map(String::from).to_vec();
        let want = Action::Exec(Exec { command, streams });
        assert_eq!(exec.unwrap().about, About::Container("c".into(), want));
        assert_eq!(asked("/attach/shop/p/u-1/c", "output=1").unwrap().uid, Some("u-1".into()));
        assert!(parse("/healthz", "").unwrap().is_none());
        let ports = |uid: Option<&str>, ports: &[u16]| Asked {
            about: About::Ports(ports.to_vec()),
            key: Key::new("shop", "p"),
            uid: uid.map(str::to_owned),
        };
        assert_eq!(asked("/portForward/shop/p", "").unwrap(), ports(None, &[]));
        assert_eq!(asked("/portForward/shop/p", "port=80&port=81").unwrap(), ports(None, &[80, 81]));
        assert_eq!(asked("/portForward/shop/p/u-1", "").unwrap(), ports(Some("u-1"), &[]));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (path, query, text) in [
            ("/exec/a/b/c", "output=1", "at least 1 command"),
            ("/portForward/a/b", "port=0", "\"0\" is no port"),
            ("/portForward/a/b", "port=http", "\"http\" is no port"),
            ("/exec/a/b/c", "command=x", "at least 1 of stdin"),
            ("/containerLogs/a/b/c", "tailLines=x", "tailLines \"x\""),
            ("/containerLogs/a/b/c", "sinceTime=noon", "sinceTime \"noon\""),
            ("/pods", "", "nothing is served at /pods"),
            ("/exec/a/%zz/c", "", "nothing is served"),
        ] {
            let error = asked(path, query).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}

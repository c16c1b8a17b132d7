//! One run of one container: how it is launched, and what hangs on its process.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use portolan_api::core::v1::{Container, LifecycleHandler, Probe};
use portolan_netlink::cgroup::Group;
use tokio::task::AbortHandle;

use super::env::{self, Facts, Given};
use super::hosts;
use super::image::{self, Refusal};
use crate::Config;
use crate::limits::LOG_DRAIN;
use crate::probe::Check;
use crate::process::{Drained, Exit, Handle, Launch, Signaller, Spawner};

/// Where programs are looked for unless the container says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the exit code of a container that could not be started is.
pub(super) const START_ERROR: i32 = 128;

/// A running process and the tasks about it, which end with it.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) signaller: Signaller,
    pub(super) launch: Launch,
    /// Startup and liveness: these end when the pod is asked to.
    pub(super) guards: Vec<AbortHandle>,
    pub(super) readiness: Vec<AbortHandle>,
}

impl Life {
    pub(super) fn abort_guards(&mut self) {
        self.guards.drain(..).for_each(|task| task.abort());
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.abort_guards();
        self.readiness.drain(..).for_each(|task| task.abort());
    }
}

/// How to start `container`: the program, its arguments and environment with all variables filled in.
/// Namespaces and files are for the caller to add.
pub(super) fn launch(
    container: &Container,
    facts: &Facts<'_>,
    given: &Given,
    config: &Config,
) -> Result<Launch, Refusal> {
    let spec_env = env::environment(container, facts, given).map_err(Refusal::config)?;
    let known: BTreeMap<&str, &str> = spec_env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let expand = |list: &[String]| -> Vec<String> {
        list.iter().map(|text| env::expand(text, |name| known.get(name).map(ToString::to_string))).collect()
    };
    let (command, args) = (expand(&container.command), expand(&container.args));
    let program = image::program(container, &command, &args, &config.self_exe)?;
    let meta = &facts.pod.metadata;
    let hostname = hosts::hostname(facts.pod, facts.node_name, &config.names).map_err(Refusal::config)?;
    let mut env = vec![("PATH".to_owned(), PATH.to_owned()), ("HOSTNAME".to_owned(), hostname)];
    if program.is_echo {
        let own = [
            ("POD_NAME", meta.name.as_str()),
            ("POD_NAMESPACE", &meta.namespace),
            ("POD_IP", facts.pod_ip),
            ("NODE_NAME", facts.node_name),
        ];
        env.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    env.extend(spec_env);
    Ok(Launch {
        program: program.path,
        args: program.args,
        env,
        working_dir: Some(&container.working_dir).filter(|dir| !dir.is_empty()).map(PathBuf::from),
        netns: None,
        hostname: None,
        mounts: Arc::default(),
        space: None,
        group: None,
    })
}

/// Waits for a container's first process, ends what it left behind, and lets the rest of its output reach the log.
pub(super) async fn end(mut process: Handle, group: Option<Arc<Group>>, drained: Drained) -> Exit {
    let realm = process.realm();
    let exit = process.wait().await.unwrap_or(Exit { code: START_ERROR, signal: 0 });
    let end = move || match (group, realm) {
        (Some(group), _) => group.end(),
        (None, Some(realm)) => match realm.end() {
            0 => Ok(()),
            left => Err(io::Error::other(format!("{left} processes do not end"))),
        },
        (None, None) => Ok(()),
    };
    if let Ok(Err(error)) = tokio::task::spawn_blocking(end).await {
        tracing::warn!(%error, "what a container left behind stays");
    }
    drop(tokio::time::timeout(LOG_DRAIN, drained).await);
    exit
}

/// Why a program did not start, in the words that people search for.
pub(crate) fn start_error(program: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound if !program.contains('/') => {
            format!("exec: {program:?}: executable file not found in $PATH")
        }
        io::ErrorKind::NotFound => format!("exec: {program:?}: stat {program}: no such file or directory"),
        io::ErrorKind::PermissionDenied => format!("exec: {program:?}: permission denied"),
        _ => format!("exec: {program:?}: {error}"),
    }
}

/// Runs what is to run before a container is asked to stop. Its failure changes nothing, so it has no result.
pub(super) async fn pre_stop(
    handler: LifecycleHandler,
    container: Container,
    pod_ip: std::net::IpAddr,
    launch: Launch,
    grace: Duration,
    spawner: Spawner,
) {
    if let Some(sleep) = handler.sleep {
        let pause = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
        return tokio::time::sleep(pause.min(grace)).await;
    }
    let probe = Probe { exec: handler.exec, http_get: handler.http_get, ..Probe::default() };
    Check::of(&probe, &container, pod_ip, &launch).ask(grace, &spawner).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_api::core::v1::Pod;
    use serde_json::json;

    fn pod(spec: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-1", "namespace": "shop"}, "spec": spec}))
            .unwrap()
    }

    fn facts(pod: &Pod) -> Facts<'_> {
        Facts { pod, pod_ip: "10.1.0.5", host_ip: "192.0.2.1", node_name: "node-a" }
    }

    fn config() -> Config {
        Config::new("node-a", "192.0.2.1".parse().unwrap(), "/d", "/bin/portolan")
    }

    #[test]
    fn the_echo_image_is_told_who_it_is() {
        let pod = pod(&json!({}));
        let container: Container = serde_json::from_value(json!({
            "name": "c", "image": "portolan.dev/echo", "args": ["--http", "$(PORT)"],
            "env": [{"name": "PORT", "value": "80"}, {"name": "POD_NAME", "value": "mine"}],
        }))
        .unwrap();
        let launch = launch(&container, &facts(&pod), &Given::default(), &config()).unwrap();
        assert_eq!(
            (launch.program.as_str(), launch.args.join(" ").as_str()),
            ("/bin/portolan", "echo --http 80")
        );
        let env: BTreeMap<_, _> = launch.env.into_iter().collect();
        assert_eq!((env["POD_NAME"].as_str(), env["POD_IP"].as_str()), ("mine", "10.1.0.5"));
        assert_eq!(env["HOSTNAME"], "web-1");
    }

    #[test]
    fn start_errors_are_the_usual_ones() {
        let error = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(start_error("nosuch", &error), "exec: \"nosuch\": executable file not found in $PATH");
        let path = start_error("/no/such", &error);
        assert_eq!(path, "exec: \"/no/such\": stat /no/such: no such file or directory");
    }
}

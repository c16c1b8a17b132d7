//! What program an image stands for on a node without an image store.
//!
//! Two images are built in. `portolan.dev/echo` answers over HTTP, TCP and UDP (see [`crate::echo`]).
//! `portolan.dev/host` has nothing of its own: `command` runs a program of the node, such as a shell script.

use std::path::Path;
use std::time::{Duration, Instant};

use portolan_api::core::v1::Container;

const ECHO: &str = "portolan.dev/echo";
const HOST: &str = "portolan.dev/host";

/// A program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
    /// It is the built-in image and wants to know which pod it is.
    pub(crate) is_echo: bool,
}

/// Why an image cannot be run: the reason as one word, and a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// When to try again; absent: not before the pod changes.
    pub(crate) retry_at: Option<Instant>,
}

/// How long a container waits for a `ConfigMap` or Secret that is not there.
const CONFIG_RETRY: Duration = Duration::from_secs(2);

impl Refusal {
    /// Something that the container's settings name is missing; somebody may yet make it.
    pub(crate) fn config(message: String) -> Self {
        let retry_at = Some(Instant::now() + CONFIG_RETRY);
        Self { reason: "CreateContainerConfigError", message, retry_at }
    }
}

/// The image without tag and digest.
fn repository(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

/// The program that `container` runs; `command` and `args` are given with their variables filled in.
pub(crate) fn program(
    container: &Container,
    command: &[String],
    args: &[String],
    self_exe: &Path,
) -> Result<Program, Refusal> {
    match (repository(&container.image), command) {
        (ECHO, []) => Ok(Program {
            path: self_exe.to_string_lossy().into_owned(),
            args: std::iter::once("echo".to_owned()).chain(args.iter().cloned()).collect(),
            is_echo: true,
        }),
        (ECHO | HOST, [path, rest @ ..]) => Ok(Program {
            path: path.clone(),
            args: rest.iter().chain(args).cloned().collect(),
            is_echo: repository(&container.image) == ECHO,
        }),
        (HOST, []) => Err(Refusal {
            reason: "CreateContainerError",
            message: format!(
                "image {:?} has no program of its own: set the container's command to a program of the node",
                container.image
            ),
            retry_at: None,
        }),
        (_, _) => Err(Refusal {
            reason: "ErrImageNeverPull",
            message: format!(
                "image {:?} cannot be run: this node has no image store; only {ECHO} is built in \
                 (and {HOST}, which runs a program of the node)",
                container.image
            ),
            retry_at: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(image: &str, command: &[&str], args: &[&str]) -> Result<(String, Vec<String>), &'static str> {
        let container = Container { image: image.into(), ..Container::default() };
        let own = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        program(&container, &own(command), &own(args), Path::new("/bin/portolan"))
            .map(|p| (p.path, p.args))
            .map_err(|r| r.reason)
    }

    fn expect(path: &str, args: &[&str]) -> (String, Vec<String>) {
        (path.into(), args.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_echo_image_runs_this_program_whatever_its_tag() {
        for image in ["portolan.dev/echo", "portolan.dev/echo:v1", "portolan.dev/echo@sha256:00"] {
            assert_eq!(
                run(image, &[], &["--http", "80"]),
                Ok(expect("/bin/portolan", &["echo", "--http", "80"]))
            );
        }
        assert_eq!(run("portolan.dev/echo", &["sleep"], &["9"]), Ok(expect("sleep", &["9"])));
    }

    #[test]
    fn the_host_image_runs_what_the_command_says() {
        assert_eq!(
            run("portolan.dev/host:1", &["sh", "-c"], &["exit 3"]),
            Ok(expect("sh", &["-c", "exit 3"]))
        );
        assert_eq!(run("portolan.dev/host", &[], &[]), Err("CreateContainerError"));
    }

    #[test]
    fn other_images_are_refused_with_the_reason() {
        for image in ["nginx:1.27", "portolan.dev/echoes", "localhost:5000/portolan.dev/echo", ""] {
            assert_eq!(run(image, &["sh"], &[]), Err("ErrImageNeverPull"), "{image}");
        }
        let container = Container { image: "nginx".into(), ..Container::default() };
        let refusal = program(&container, &[], &[], Path::new("/x")).unwrap_err();
        assert!(refusal.message.starts_with(
            "image \"nginx\" cannot be run: this node has no image store; only portolan.dev/echo is built in"
        ));
    }
}

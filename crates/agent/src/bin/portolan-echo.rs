//! The built-in image as a program of its own, for container images and tests. `portolan echo` is the same.

use std::process::ExitCode;

use portolan_agent::echo::{self, Options};

fn main() -> ExitCode {
    // The agent runs images as `PROGRAM echo ARGS`.
    let args = std::env::args().skip(1).skip_while(|arg| arg == "echo");
    let result = Options::from_args(args).and_then(|options| echo::run(&options).map_err(|e| e.to_string()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}

//! `portolan echo`: the built-in image.

use std::process::ExitCode;

use clap::Args;
use portolan_agent::echo::{self, Options};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// [--http PORT]... [--tcp PORT]... [--udp PORT]... [--set-ready true|false]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let options = Options::from_args(arguments.options).map_err(anyhow::Error::msg)?;
    echo::run(&options)?;
    Ok(ExitCode::SUCCESS)
}

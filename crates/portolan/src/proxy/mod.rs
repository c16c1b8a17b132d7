//! `portolan proxy`: the node proxy alone, in place of kube-proxy, against any Kubernetes API server.
//!
//! [`flags`] and [`read`] give a [`configuration`] in kube-proxy's own form; [`settings`] checks it and says what it
//! means; [`serve`] runs it. [`cleanup`] takes everything out of the kernel again, [`status`] says how it stands.

mod cleanup;
mod configuration;
mod duration;
mod flags;
mod read;
mod restart;
mod serve;
mod settings;
mod status;
mod sysctls;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::logging;
use crate::up::hostname;

pub(crate) use configuration::Configuration;
use flags::Flags;
pub(crate) use flags::LocalTraffic;
use settings::Settings;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    flags: Box<Flags>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Remove everything that the proxy made in this host's kernel
    Cleanup(cleanup::Arguments),
    /// Show how the proxy on this host stands, and what the kernel can do
    Status(status::Arguments),
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.verb {
        Some(Verb::Cleanup(arguments)) => cleanup::run(&arguments),
        Some(Verb::Status(arguments)) => status::run(&arguments),
        None if arguments.flags.cleanup == Some(true) => cleanup::run(&cleanup::Arguments::everything()),
        None => start(&arguments.flags),
    }
}

fn start(flags: &Flags) -> anyhow::Result<ExitCode> {
    let (configuration, warnings) = configuration(flags)?;
    if let Some(path) = &flags.write_config_to {
        write(&configuration, path)?;
        println!("wrote the configuration to {}", path.display());
        return Ok(ExitCode::SUCCESS);
    }
    let settings = settings(&configuration)?;
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::NotRoot { verb: "portolan proxy" }.into());
    }
    logging::start_at(settings::log_level(flags.verbosity.unwrap_or_else(|| configuration.verbosity())));
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    serve::run(settings, flags)
}

/// What the flags and the file say, and what of it has no effect.
fn configuration(flags: &Flags) -> anyhow::Result<(Configuration, Vec<String>)> {
    let mut warnings = Vec::new();
    let list = |what: &str, names: &[String]| format!("{what}: {}", names.join(", "));
    let dashed = |names: Vec<&str>| names.into_iter().map(|name| format!("--{name}")).collect::<Vec<_>>();
    let meaningless = dashed(flags.meaningless());
    if !meaningless.is_empty() {
        warnings.push(list("flags that mean nothing here", &meaningless));
    }
    let mut configuration = Configuration::default();
    if let Some(path) = &flags.config {
        let read = read::file(path)?;
        if !read.meaningless.is_empty() {
            warnings
                .push(list(&format!("{}: fields that mean nothing here", path.display()), &read.meaningless));
        }
        configuration = read.configuration;
        let ignored = dashed(flags.apply(&mut Configuration::default()));
        if !ignored.is_empty() {
            warnings.push(list("flags that do not count beside --config", &ignored));
        }
    } else {
        flags.apply(&mut configuration);
    }
    if let Some(name) = &flags.hostname_override {
        configuration.hostname_override.clone_from(name);
    }
    Ok((configuration, warnings))
}

fn settings(configuration: &Configuration) -> anyhow::Result<Settings> {
    Settings::of(configuration, &hostname())
        .map_err(|problems| anyhow::anyhow!("the configuration is not valid:\n  {}", problems.join("\n  ")))
}

/// A configuration file, for those who only want to know what a proxy does with it.
pub(crate) fn file(path: &Path) -> anyhow::Result<Configuration> {
    Ok(read::file(path)?.configuration)
}

/// What the proxy makes of a configuration.
pub(crate) fn meant(configuration: &Configuration) -> anyhow::Result<portolan_proxy::Config> {
    Ok(settings(configuration)?.proxy)
}

fn write(configuration: &Configuration, path: &Path) -> anyhow::Result<()> {
    let text = serde_saphyr::to_string(configuration)?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

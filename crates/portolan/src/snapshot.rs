//! `portolan snapshot`: the whole store in one file.
//!
//! A store in use belongs to its server, so `save` asks that server; a store that nobody uses is read directly.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, Subcommand};
use http_body_util::BodyExt as _;
use portolan_client::Client;
use portolan_store::Error;
use portolan_store::embedded::Embedded;
use portolan_store::snapshot::{self, FileWriter, Summary};

use crate::failure::Failure;
use crate::{store, up};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write a snapshot of the store to a file; the control plane may run
    Save {
        file: PathBuf,
        #[command(flatten)]
        data: Data,
    },
    /// Make a store of a snapshot; the control plane must not run
    Restore {
        file: PathBuf,
        #[command(flatten)]
        data: Data,
        /// Replace the store that is there
        #[arg(long)]
        force: bool,
    },
    /// Check a snapshot and say what it holds
    Status { file: PathBuf },
}

#[derive(Debug, Args)]
struct Data {
    /// Where `portolan up` keeps its state
    #[arg(long, default_value = up::DATA_DIR)]
    data_dir: PathBuf,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.verb {
        Verb::Save { file, data } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            print(&file, &runtime.block_on(save(&file, &data.data_dir))?);
        }
        Verb::Restore { file, data, force } => {
            let dir = &data.data_dir;
            let summary = snapshot::restore(&file, &store::dir(dir), force)?;
            print(&file, &summary);
            println!("restored; next: portolan up --data-dir {}", dir.display());
        }
        Verb::Status { file } => print(&file, &snapshot::status(&file)?),
    }
    Ok(ExitCode::SUCCESS)
}

async fn save(file: &Path, data_dir: &Path) -> anyhow::Result<Summary> {
    if store::exists(data_dir) {
        match Embedded::open(store::dir(data_dir)) {
            Ok(store) => return Ok(snapshot::save(Arc::new(store), file).await?),
            Err(Error::InUse { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let kubeconfig = data_dir.join("kubeconfig");
    if !kubeconfig.exists() {
        return Err(Failure::NoDataDir { path: data_dir.into() }.into());
    }
    let client = Client::from_kubeconfig(&kubeconfig, "portolan-snapshot")?;
    fetch(&client, file).await.context("the control plane's answer")
}

async fn fetch(client: &Client, file: &Path) -> anyhow::Result<Summary> {
    let request = http::Request::get(portolan_apiserver::SNAPSHOT_PATH).body(Bytes::new())?;
    let response = client.send(request).await?;
    anyhow::ensure!(response.status().is_success(), "{}", response.status());
    let mut writer = FileWriter::create(file)?;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| anyhow::anyhow!("{error}"))?;
        if let Ok(piece) = frame.into_data() {
            writer.write(&piece)?;
        }
    }
    Ok(writer.finish()?)
}

fn print(file: &Path, summary: &Summary) {
    let Summary { revision, saved_at, keys, bytes, hash } = summary;
    println!(
        "{}: {keys} keys at revision {revision}, {bytes} bytes, saved at {saved_at} (Unix time)",
        file.display()
    );
    println!("sha256 {hash}");
}

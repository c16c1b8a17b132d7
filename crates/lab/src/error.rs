//! What can go wrong with a lab, each with the way out.

use std::io;
use std::path::PathBuf;

use portolan_netlink::{netns, rt};

#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error("a lab needs root: run it with sudo")]
    NotRoot,
    #[error("lab name {name:?} is not usable: take 1 to 20 lower-case letters, digits and dashes")]
    BadName { name: String },
    #[error("a lab has 1 to {max} nodes, not {nodes}")]
    BadNodeCount { nodes: u8, max: u8 },
    #[error(
        "lab {name:?} is up already; look at it with `portolan lab status --name {name}` or end it with `portolan lab down --name {name}`"
    )]
    AlreadyUp { name: String },
    #[error("there is no lab {name:?}; start one with `portolan lab up --name {name}`")]
    NoSuchLab { name: String },
    #[error("lab {name:?} has no place {place:?}; it has: {places}")]
    NoSuchPlace { name: String, place: String, places: String },
    #[error("{what} did not come up: {why}\nthe end of its log {}:\n{tail}", log.display())]
    NotReady { what: String, why: String, log: PathBuf, tail: String },
    #[error("cannot start {program}: {source}")]
    Spawn { program: String, source: io::Error },
    #[error("kubectl {args} failed:\n{stderr}")]
    Kubectl { args: String, stderr: String },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Netns(#[from] netns::Error),
    #[error(transparent)]
    Rt(#[from] rt::Error),
}

impl LabError {
    pub(crate) fn file(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::File { path: path.to_owned(), source }
    }
}

//! What containers wrote, for readers; how it is kept is [`crate::process`]'s, in its `log`.
//!
//! `line` is the form of a line, `read` gives a log back as `kubectl logs` asks for it. A log that is still written tells
//! its readers of news through a channel; the channel closes with the last writer.

mod line;
mod read;

pub(crate) use line::Stream;
pub(crate) use read::{Options, Reader};

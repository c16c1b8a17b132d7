//! A process for a client: its input, its output, its terminal, its end. How the client is spoken to is not here.

use std::io;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::pipe::{PipeFlags, pipe_with};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::request::Streams;
use super::terminal::{Terminal, Upper};
use crate::limits::{SESSION_DRAIN, SESSION_QUEUE, SESSION_READ_BYTES};
use crate::process::{Exit, Handle, Launch, Output, Spawner};

/// Where something goes to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    Stdout,
    Stderr,
    /// How it ended, as a Status.
    Error,
}

/// What comes from the client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Data(Bytes),
    /// Nothing more to read for the process.
    End,
    Resize {
        columns: u16,
        rows: u16,
    },
    /// The connection is gone.
    Gone,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// An order to resize the terminal, as clients write it; `None` when it is none.
pub(super) fn resize(order: &[u8]) -> Option<Input> {
    let size: Size = serde_json::from_slice(order).ok()?;
    Some(Input::Resize { columns: size.width, rows: size.height })
}

/// The client as a session sees it.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) input: mpsc::Receiver<Input>,
    pub(super) output: mpsc::Sender<(Channel, Bytes)>,
}

/// Nobody listens any more.
#[derive(Debug)]
pub(super) struct Gone;

impl Client {
    pub(super) async fn send(&self, channel: Channel, bytes: Bytes) -> Result<(), Gone> {
        self.output.send((channel, bytes)).await.map_err(|_| Gone)
    }
}

/// Runs the process to its end, or until the client is gone: then it is killed.
pub(super) async fn run(launch: Launch, streams: Streams, spawner: Spawner, mut client: Client) {
    let program = launch.program.clone();
    let status = match start(launch, streams, &spawner).await {
        Ok(running) => match running.carry(&mut client).await {
            Ok(exit) => ended(exit),
            Err(Gone) => return,
        },
        Err(error) => failed(&crate::pod::start_error(&program, &error)),
    };
    let _ = client.send(Channel::Error, status).await;
}

/// A process with the ends of its streams.
struct Running {
    process: Handle,
    stdin: Option<Upper>,
    stdout: Option<Upper>,
    stderr: Option<Upper>,
    terminal: bool,
}

async fn start(launch: Launch, streams: Streams, spawner: &Spawner) -> io::Result<Running> {
    if streams.tty {
        let Terminal { upper, lower } = Terminal::open()?;
        let process = spawner.spawn(launch, Output::Terminal(lower)).await?;
        let input = upper.again()?;
        return Ok(Running {
            process,
            stdin: Some(input),
            stdout: Some(upper),
            stderr: None,
            terminal: true,
        });
    }
    let pipe = || -> io::Result<(OwnedFd, OwnedFd)> { Ok(pipe_with(PipeFlags::CLOEXEC)?) };
    let (stdout, stdout_lower) = pipe()?;
    let (stderr, stderr_lower) = pipe()?;
    let (stdin_lower, stdin) =
        if streams.stdin { pipe().map(|(r, w)| (Some(r), Some(w)))? } else { (None, None) };
    let output = Output::Streams { stdin: stdin_lower, stdout: stdout_lower, stderr: stderr_lower };
    let process = spawner.spawn(launch, output).await?;
    Ok(Running {
        process,
        stdin: stdin.map(Upper::new).transpose()?,
        stdout: Some(Upper::new(stdout)?),
        stderr: Some(Upper::new(stderr)?),
        terminal: false,
    })
}

impl Running {
    /// Carries everything between process and client. Input has a task of its own: a process that does not read must
    /// not keep its output from the client.
    async fn carry(mut self, client: &mut Client) -> Result<Exit, Gone> {
        let (feed, mut input) = mpsc::channel::<Bytes>(SESSION_QUEUE);
        let stdin = self.stdin.take();
        let terminal =
            self.terminal.then(|| self.stdout.as_ref().and_then(|upper| upper.again().ok())).flatten();
        let writing = tokio::spawn(async move {
            let Some(stdin) = stdin else { return };
            while let Some(bytes) = input.recv().await {
                if stdin.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        });
        let mut feed = Some(feed);
        let mut exit = None;
        let mut deadline = None;
        while exit.is_none() || self.stdout.is_some() || self.stderr.is_some() {
            let room = async {
                match &feed {
                    Some(feed) => feed.reserve().await.ok(),
                    None => None,
                }
            };
            tokio::select! {
                bytes = read(self.stdout.as_ref()), if self.stdout.is_some() => match bytes {
                    Some(bytes) => client.send(Channel::Stdout, bytes).await?,
                    None => self.stdout = None,
                },
                bytes = read(self.stderr.as_ref()), if self.stderr.is_some() => match bytes {
                    Some(bytes) => client.send(Channel::Stderr, bytes).await?,
                    None => self.stderr = None,
                },
                input = next(room, &mut client.input) => match input {
                    Input::Data(_) | Input::End if feed.is_none() => {}
                    Input::Data(bytes) => if let Some(feed) = &feed {
                        // There is room: it was waited for, and nobody else sends.
                        let _ = feed.try_send(bytes);
                    },
                    Input::End => feed = None,
                    Input::Resize { columns, rows } => if let Some(terminal) = &terminal {
                        terminal.resize(columns, rows);
                    },
                    Input::Gone => {
                        writing.abort();
                        return Err(Gone);
                    }
                },
                end = self.process.wait(), if exit.is_none() => {
                    exit = Some(end.unwrap_or(Exit { code: 255, signal: 0 }));
                    deadline = Some(tokio::time::Instant::now() + SESSION_DRAIN);
                }
                () = until(deadline), if deadline.is_some() => break,
            }
        }
        writing.abort();
        Ok(exit.unwrap_or(Exit { code: 255, signal: 0 }))
    }
}

/// The client's next word, once there is room for it.
async fn next<T>(room: impl Future<Output = T>, input: &mut mpsc::Receiver<Input>) -> Input {
    drop(room.await);
    input.recv().await.unwrap_or(Input::Gone)
}

async fn read(from: Option<&Upper>) -> Option<Bytes> {
    let mut buffer = vec![0; SESSION_READ_BYTES];
    // A terminal that nobody has open any more says so with an error.
    match from?.read(&mut buffer).await {
        Ok(len @ 1..) => {
            buffer.truncate(len);
            Some(buffer.into())
        }
        _ => None,
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The words of kubelet for each end.
pub(super) fn success() -> Bytes {
    json!({"metadata": {}, "status": "Success"}).to_string().into()
}

fn ended(exit: Exit) -> Bytes {
    if exit.code == 0 {
        return success();
    }
    let code = exit.code.to_string();
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code}]},
    })
    .to_string()
    .into()
}

fn failed(why: &str) -> Bytes {
    json!({
        "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
        "message": format!("Internal error occurred: error executing command in container: {why}"),
        "details": {"causes": [{"message": why}]},
    })
    .to_string()
    .into()
}

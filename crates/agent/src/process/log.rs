//! What containers print, kept within bounds.
//!
//! A container writes into two pipes. One thread of the agent reads the pipes of all containers and writes each record
//! as the container runtime interface has it, so that every log reader of the field understands it:
//!
//! ```text
//! 2026-01-02T03:04:05.678901234Z stdout F a whole line
//! 2026-01-02T03:04:05.678901234Z stderr P the beginning of a line that is too long, or the end of output without one
//! ```
//!
//! Nothing here grows with what a container prints: a line is cut, a file moves aside when it is full, and a container
//! that prints faster than its share waits in its own `write`. A disk that stalls holds up this thread and no other.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe::Receiver;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::spawner::Output;
use crate::limits::{LOG_BURST_BYTES_MAX, LOG_BYTES_PER_SECOND_MAX, LOG_FILE_BYTES_MAX, LOG_LINE_BYTES_MAX};

/// Read at once; the kernel's pipe holds four times as much.
const READ_BYTES: usize = 16 << 10;

/// Writes the logs of all containers. The last clone dropped ends the thread.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    thread: Handle,
    _alive: Arc<oneshot::Sender<()>>,
}

/// Changes when something was written to a log; closed when nobody writes to it any more.
pub(crate) type LogNews = watch::Receiver<u64>;

/// Ready when the last process that could write to the log has closed its end, and all is in the file.
pub(crate) type Drained = oneshot::Receiver<()>;

impl Logs {
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = runtime.handle().clone();
        let (alive, ended) = oneshot::channel::<()>();
        std::thread::Builder::new().name("pod-logs".into()).spawn(move || {
            // An error is how the end of the senders shows.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { thread, _alive: Arc::new(alive) })
    }

    /// Opens a log at `path`: where a process may write to, the end of it, and news of it.
    pub(crate) fn open(&self, path: &Path) -> io::Result<(Output, Drained, LogNews)> {
        let (out, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (err, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let log = LogFile::open(path)?;
        let (drained, end) = oneshot::channel();
        let news = log.news.subscribe();
        self.thread.spawn(async move {
            if let Err(error) = keep(out, err, log).await {
                tracing::warn!(%error, "a container's output is not kept");
            }
            drop(drained);
        });
        Ok((Output::Streams { stdin: None, stdout, stderr }, end, news))
    }
}

/// Reads both pipes to their ends.
async fn keep(out: OwnedFd, err: OwnedFd, mut log: LogFile) -> io::Result<()> {
    let (out, err) = (Receiver::from_owned_fd(out)?, Receiver::from_owned_fd(err)?);
    let mut lines = [Lines::new("stdout"), Lines::new("stderr")];
    let mut open = [true, true];
    let mut share = Share::new(Instant::now());
    while open[0] || open[1] {
        let which = tokio::select! {
            ready = out.readable(), if open[0] => ready.map(|()| 0),
            ready = err.readable(), if open[1] => ready.map(|()| 1),
        }?;
        let written = match lines[which].read([&out, &err][which], &mut log) {
            Ok(Some(written)) => written,
            Ok(None) => {
                open[which] = false;
                lines[which].end(&mut log)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(e) => return Err(e),
        };
        let pause = share.spend(written, Instant::now());
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    Ok(())
}

/// Cuts one stream into records.
#[derive(Debug)]
struct Lines {
    stream: &'static str,
    /// The beginning of a line whose end has not come yet; shorter than [`LOG_LINE_BYTES_MAX`].
    begun: Vec<u8>,
}

impl Lines {
    fn new(stream: &'static str) -> Self {
        Self { stream, begun: Vec::new() }
    }

    /// Reads once. A function of its own, so that the buffer is on the stack for this moment only.
    fn read(&mut self, from: &Receiver, log: &mut LogFile) -> io::Result<Option<u64>> {
        let mut buffer = [0; READ_BYTES];
        let len = from.try_read(&mut buffer)?;
        Ok((len > 0).then(|| self.take(&buffer[..len], log)))
    }

    /// Takes in what was read; returns how many bytes went into the log.
    fn take(&mut self, mut bytes: &[u8], log: &mut LogFile) -> u64 {
        let now = format!("{:.9}", jiff::Timestamp::now());
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let room = LOG_LINE_BYTES_MAX - self.begun.len();
            let window = &bytes[..bytes.len().min(room)];
            let (len, skip, whole) = match window.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end, end + 1, true),
                None if window.len() == room => (room, room, false),
                None => {
                    self.begun.extend_from_slice(window);
                    break;
                }
            };
            record(&mut records, (&now, self.stream, whole), &self.begun, &window[..len]);
            self.begun = Vec::new();
            bytes = &bytes[skip..];
        }
        log.write(&records)
    }

    fn end(&mut self, log: &mut LogFile) -> u64 {
        if self.begun.is_empty() {
            return 0;
        }
        let (now, mut records) = (format!("{:.9}", jiff::Timestamp::now()), Vec::new());
        record(&mut records, (&now, self.stream, false), &std::mem::take(&mut self.begun), &[]);
        log.write(&records)
    }
}

fn record(out: &mut Vec<u8>, (now, stream, whole): (&str, &str, bool), begun: &[u8], rest: &[u8]) {
    let tag = if whole { "F" } else { "P" };
    for part in [now.as_bytes(), b" ", stream.as_bytes(), b" ", tag.as_bytes(), b" ", begun, rest, b"\n"] {
        out.extend_from_slice(part);
    }
}

/// A log file and the full one before it.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    len: u64,
    /// The last write failed, and that was said.
    failed: bool,
    news: watch::Sender<u64>,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, len, failed: false, news: watch::Sender::new(0) })
    }

    /// Writes whole records. What cannot be written is lost, so that the container does not hang for it.
    fn write(&mut self, records: &[u8]) -> u64 {
        let len = records.len() as u64;
        let moved = if self.len > 0 && self.len + len > LOG_FILE_BYTES_MAX { self.rotate() } else { Ok(()) };
        match moved.and_then(|()| self.file.write_all(records)) {
            Ok(()) => (self.len, self.failed) = (self.len + len, false),
            Err(error) if !self.failed => {
                tracing::warn!(path = %self.path.display(), %error, "cannot write a container's output; it is lost");
                self.failed = true;
            }
            Err(_) => {}
        }
        self.news.send_modify(|written| *written += len);
        len
    }

    fn rotate(&mut self) -> io::Result<()> {
        fs::rename(&self.path, rotated(&self.path))?;
        let Self { file, len, .. } = Self::open(&self.path)?;
        (self.file, self.len) = (file, len);
        Ok(())
    }
}

/// Where the file goes when it is full.
pub(crate) fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// What a container may write: a bucket that fills at a steady rate.
#[derive(Debug)]
struct Share {
    /// Negative: it wrote ahead, and waits.
    left: f64,
    at: Instant,
}

impl Share {
    fn new(now: Instant) -> Self {
        Self { left: LOG_BURST_BYTES_MAX as f64, at: now }
    }

    /// Takes from the bucket; returns how long to wait before the next read.
    fn spend(&mut self, bytes: u64, now: Instant) -> Duration {
        let rate = LOG_BYTES_PER_SECOND_MAX as f64;
        let filled = self.left + rate * now.saturating_duration_since(self.at).as_secs_f64();
        self.left = filled.min(LOG_BURST_BYTES_MAX as f64) - bytes as f64;
        self.at = now;
        Duration::from_secs_f64((-self.left / rate).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> (tempfile::TempDir, LogFile) {
        let dir = tempfile::tempdir().unwrap();
        let log = LogFile::open(&dir.path().join("0.log")).unwrap();
        (dir, log)
    }

    /// The records without their times.
    fn written(log: &LogFile) -> Vec<String> {
        let text = fs::read_to_string(&log.path).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn lines_become_records_however_they_come() {
        for size in [1, 3, 100] {
            let (_dir, mut log) = log();
            let mut lines = Lines::new("stdout");
            for part in b"one\n\ntwo\nend".chunks(size) {
                lines.take(part, &mut log);
            }
            lines.end(&mut log);
            assert_eq!(
                written(&log),
                ["stdout F one", "stdout F ", "stdout F two", "stdout P end"],
                "{size}"
            );
        }
    }

    #[test]
    fn times_are_in_nanoseconds() {
        let (_dir, mut log) = log();
        Lines::new("stderr").take(b"x\n", &mut log);
        let text = fs::read_to_string(&log.path).unwrap();
        let time = text.split_once(' ').unwrap().0;
        assert_eq!(
            (time.len(), time.ends_with('Z')),
            ("2026-01-02T03:04:05.678901234Z".len(), true),
            "{text}"
        );
        assert!(time.parse::<jiff::Timestamp>().is_ok());
    }

    #[test]
    fn a_long_line_is_cut_and_nothing_of_it_is_lost() {
        let (_dir, mut log) = log();
        let mut lines = Lines::new("stdout");
        let long = vec![b'x'; 2 * LOG_LINE_BYTES_MAX + 5];
        for part in long.chunks(5000) {
            lines.take(part, &mut log);
            assert!(lines.begun.len() < LOG_LINE_BYTES_MAX);
        }
        lines.take(b"\n", &mut log);
        let lens: Vec<(String, usize)> =
            written(&log).iter().map(|r| (r[..8].to_owned(), r.len() - 9)).collect();
        let expected = [("stdout P", LOG_LINE_BYTES_MAX), ("stdout P", LOG_LINE_BYTES_MAX), ("stdout F", 5)];
        assert_eq!(lens, expected.map(|(tag, len)| (tag.to_owned(), len)));
    }

    #[test]
    fn a_full_file_moves_aside_and_two_are_kept() {
        let (dir, mut log) = log();
        let mut lines = Lines::new("stdout");
        let chunk = [&[b'x'; 9_999][..], b"\n"].concat();
        for _ in 0..3500 {
            lines.take(&chunk, &mut log);
        }
        let mut sizes: Vec<(String, u64)> = fs::read_dir(dir.path())
            .unwrap()
            .flatten()
            .map(|e| (e.file_name().into_string().unwrap(), e.metadata().unwrap().len()))
            .collect();
        sizes.sort();
        assert_eq!(sizes.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["0.log", "0.log.1"]);
        assert!(sizes.iter().all(|(_, len)| *len <= LOG_FILE_BYTES_MAX), "{sizes:?}");
        let text = fs::read_to_string(rotated(&log.path)).unwrap();
        assert!(text.ends_with('\n') && text.starts_with("20"), "records are whole in both");
    }

    #[test]
    fn a_share_lets_a_burst_through_and_then_a_rate() {
        let start = Instant::now();
        let mut share = Share::new(start);
        assert_eq!(share.spend(LOG_BURST_BYTES_MAX, start), Duration::ZERO);
        assert_eq!(share.spend(LOG_BYTES_PER_SECOND_MAX, start), Duration::from_secs(1));
        let later = start + Duration::from_secs(1);
        assert_eq!(share.spend(LOG_BYTES_PER_SECOND_MAX / 2, later), Duration::from_millis(500));
        let rested = later + Duration::from_hours(1);
        assert_eq!(
            share.spend(LOG_BURST_BYTES_MAX, rested),
            Duration::ZERO,
            "it is full again, and no fuller"
        );
        assert!(share.spend(1, rested) > Duration::ZERO);
    }
}

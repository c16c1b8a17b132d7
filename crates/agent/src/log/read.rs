//! From a log to a reader, as `kubectl logs` asks for it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::line::{Line, Stream};
use crate::limits::LOG_CHUNK_BYTES;
use crate::process::rotated;

/// What part of a log is wanted, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Not before this, in the form of the lines' own times.
    pub(crate) since: Option<String>,
    /// So many lines at the end.
    pub(crate) tail: Option<u64>,
    pub(crate) limit_bytes: Option<u64>,
    pub(crate) timestamps: bool,
    /// One of the two outputs only.
    pub(crate) stream: Option<Stream>,
}

/// Reads a log from where the options say to its end, or on and on.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    /// Files still to be read before the present one.
    file: Option<File>,
    next: Vec<File>,
    options: Options,
    /// Absent: to the present end only.
    news: Option<watch::Receiver<u64>>,
    /// Lines not to be shown.
    skip: u64,
    /// Bytes that may still be sent.
    left: u64,
    pending: Vec<u8>,
    /// The last line shown was a piece; its continuation gets no time.
    inside: bool,
    ended: bool,
}

impl Reader {
    /// Opens the log at `path`; with `news` it is followed. Reads what it must count: for a thread that may block.
    pub(crate) fn open(
        path: &Path,
        options: Options,
        news: Option<watch::Receiver<u64>>,
    ) -> io::Result<Self> {
        let present = File::open(path)?;
        let skip = match options.tail {
            Some(tail) => count(path, &options).saturating_sub(tail),
            None => 0,
        };
        let mut files = vec![present];
        files.extend(File::open(rotated(path)).ok());
        let file = files.pop();
        let left = options.limit_bytes.unwrap_or(u64::MAX);
        Ok(Self {
            path: path.to_owned(),
            file,
            next: files,
            news,
            skip,
            left,
            options,
            pending: Vec::new(),
            inside: false,
            ended: false,
        })
    }

    /// The next piece; `None` at the end. A piece may be empty.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if self.ended || self.left == 0 {
                return Ok(None);
            }
            // Before reading: what is written after it is news.
            let seen = self.news.as_mut().map(|news| *news.borrow_and_update());
            if let Some(chunk) = self.read()? {
                return Ok(Some(chunk));
            }
            let Some(news) = &mut self.news else {
                self.ended = true;
                continue;
            };
            debug_assert!(seen.is_some());
            if news.changed().await.is_err() {
                // Nobody writes any more: once more for what came last.
                self.news = None;
            }
        }
    }

    /// What can be read now; `None` at the present end.
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let Some(file) = &mut self.file else { return Ok(None) };
            let start = self.pending.len();
            self.pending.resize(start + LOG_CHUNK_BYTES, 0);
            let got = file.read(&mut self.pending[start..])?;
            self.pending.truncate(start + got);
            if got > 0 {
                return Ok(Some(self.shown()));
            }
            if let Some(next) = self.next.pop() {
                self.file = Some(next);
            } else if !self.turned_over()? {
                return Ok(None);
            }
        }
    }

    /// The file was put aside for a new one, and all of it has been read: goes on with the new one.
    fn turned_over(&mut self) -> io::Result<bool> {
        let Some(file) = &mut self.file else { return Ok(false) };
        let Ok(present) = File::open(&self.path) else { return Ok(false) };
        if present.metadata()?.ino() == file.metadata()?.ino() {
            return Ok(false);
        }
        // Nothing is added to the old one from here on, but something may have been since it was read to its end.
        let mut rest = Vec::new();
        file.read_to_end(&mut rest)?;
        self.pending.append(&mut rest);
        self.file = Some(present);
        Ok(true)
    }

    fn shown(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let pending = std::mem::take(&mut self.pending);
        let mut rest = &pending[..];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            if let Some(line) = Line::parse(&rest[..end]) {
                self.show(&line, &mut out);
            }
            rest = &rest[end + 1..];
        }
        self.pending = rest.to_vec();
        out.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= out.len() as u64;
        out
    }

    fn show(&mut self, line: &Line<'_>, out: &mut Vec<u8>) {
        if !wanted(line, &self.options) {
            return;
        }
        if self.skip > 0 {
            self.skip -= u64::from(line.whole);
            return;
        }
        if self.options.timestamps && !self.inside {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if line.whole {
            out.push(b'\n');
        }
        self.inside = !line.whole;
    }
}

fn wanted(line: &Line<'_>, options: &Options) -> bool {
    options.since.as_deref().is_none_or(|since| line.time >= since)
        && options.stream.is_none_or(|stream| stream == line.stream)
}

/// The number of lines that could be shown.
fn count(path: &Path, options: &Options) -> u64 {
    let (mut lines, mut inside) = (0, false);
    for path in [rotated(path), path.to_owned()] {
        let Ok(text) = std::fs::read(path) else { continue };
        let all = text.split(|byte| *byte == b'\n').filter_map(Line::parse);
        for line in all.filter(|line| wanted(line, options)) {
            lines += u64::from(line.whole);
            inside = !line.whole;
        }
    }
    // The output may end without the end of a line.
    lines + u64::from(inside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn line(time: &str, stream: Stream, whole: bool, text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        Line { time, stream, whole, text: text.as_bytes() }.write(&mut out);
        out
    }

    fn log() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let old = [line("1", Stream::Stdout, true, "one"), line("2", Stream::Stderr, true, "two")].concat();
        std::fs::write(rotated(&path), old).unwrap();
        let new = [line("3", Stream::Stdout, false, "thr"), line("3", Stream::Stdout, true, "ee")].concat();
        std::fs::write(&path, new).unwrap();
        (dir, path)
    }

    async fn all(path: &Path, options: Options) -> String {
        let mut reader = Reader::open(path, options, None).unwrap();
        let mut out = Vec::new();
        while let Some(chunk) = reader.next().await.unwrap() {
            out.extend(chunk);
        }
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn what_is_asked_for_is_shown() {
        let (_dir, path) = log();
        let with = |set: fn(&mut Options)| {
            let mut options = Options::default();
            set(&mut options);
            options
        };
        for (options, expected) in [
            (Options::default(), "one\ntwo\nthree\n"),
            (with(|o| o.tail = Some(2)), "two\nthree\n"),
            (with(|o| o.tail = Some(1)), "three\n"),
            (with(|o| o.tail = Some(0)), ""),
            (with(|o| o.tail = Some(9)), "one\ntwo\nthree\n"),
            (with(|o| o.since = Some("2".into())), "two\nthree\n"),
            (with(|o| o.timestamps = true), "1 one\n2 two\n3 three\n"),
            (with(|o| o.limit_bytes = Some(6)), "one\ntw"),
            (with(|o| o.stream = Some(Stream::Stderr)), "two\n"),
        ] {
            assert_eq!(all(&path, options.clone()).await, expected, "{options:?}");
        }
    }

    #[tokio::test]
    async fn a_follower_sees_all_across_files_and_ends_with_the_writer() {
        let (_dir, path) = log();
        let news = watch::Sender::new(0_u64);
        let mut reader = Reader::open(&path, Options::default(), Some(news.subscribe())).unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"three\n") {
            seen.extend(reader.next().await.unwrap().unwrap());
        }
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(&line("4", Stream::Stdout, true, "four")).unwrap();
        std::fs::rename(&path, rotated(&path)).unwrap();
        std::fs::write(&path, line("5", Stream::Stdout, true, "five")).unwrap();
        news.send_modify(|count| *count += 1);
        drop(news);
        while let Some(chunk) = reader.next().await.unwrap() {
            seen.extend(chunk);
        }
        assert_eq!(String::from_utf8(seen).unwrap(), "one\ntwo\nthree\nfour\nfive\n");
    }
}

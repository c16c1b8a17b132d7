//! One line of a log, in the form that container runtimes share: `TIME STREAM F|P TEXT`. `P` is a piece of a longer
//! line that goes on in the stream's next one.

/// Which of its two outputs a container wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    #[cfg(test)]
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// RFC 3339 with nine digits, in UTC: texts sort as times do.
    pub(crate) time: &'a str,
    pub(crate) stream: Stream,
    /// The line ends here.
    pub(crate) whole: bool,
    pub(crate) text: &'a [u8],
}

impl<'a> Line<'a> {
    /// `None` for what is no line of ours.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
        let stream = match stream {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let whole = match tag {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Self { time: std::str::from_utf8(time).ok()?, stream, whole, text: parts.next()? })
    }

    #[cfg(test)]
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let tag = if self.whole { "F" } else { "P" };
        for part in [self.time, " ", self.stream.name(), " ", tag, " "] {
            out.extend_from_slice(part.as_bytes());
        }
        out.extend_from_slice(self.text);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_back_as_it_went() {
        let time = format!("{:.9}", jiff::Timestamp::from_second(1).unwrap());
        let line = Line { time: &time, stream: Stream::Stderr, whole: false, text: b"a  b \xff" };
        let mut out = Vec::new();
        line.write(&mut out);
        assert_eq!(Line::parse(&out[..out.len() - 1]), Some(line));
        for text in ["", "x", "x stdout F", "x stdout Q y", "x stdin F y"] {
            assert_eq!(Line::parse(text.as_bytes()), None, "{text}");
        }
    }
}

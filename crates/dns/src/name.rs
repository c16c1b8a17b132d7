//! Domain names in wire form, lower case: [`Name`] for those that stay, [`QName`] for the one in a question.
//!
//! Names compare without regard to case (RFC 4343), so both are lower case from the start; a question's own spelling is
//! kept by the codec, which copies it into the answer.

use std::fmt;
use std::sync::Arc;

/// The longest name, with its length bytes and the root (RFC 1035, 2.3.4).
pub const NAME_MAX: usize = 255;
/// The longest label.
pub const LABEL_MAX: usize = 63;
/// A name of 255 bytes has at most so many labels.
pub const LABELS_MAX: usize = 127;

/// Why a text or some bytes are no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a label is empty")]
    EmptyLabel,
    #[error("a label is longer than 63 bytes")]
    LabelTooLong,
    #[error("the name is longer than 255 bytes")]
    TooLong,
    #[error("the message ends within a name")]
    Cut,
    #[error("a pointer where none may be, or one that does not point back")]
    Pointer,
}

/// A domain name that stays: cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<[u8]>);

impl Name {
    pub fn root() -> Name {
        Name(Arc::from([0]))
    }

    /// From text such as `cluster.local`, with or without the last dot. Backslashes are not special: nothing of
    /// Kubernetes' has them.
    pub fn parse(text: &str) -> Result<Name, NameError> {
        let mut name = Builder::default();
        let text = text.strip_suffix('.').unwrap_or(text);
        if !text.is_empty() {
            for label in text.split('.') {
                name.label(label.as_bytes())?;
            }
        }
        Ok(name.finish())
    }

    /// The name made of labels, first to last, under a parent.
    pub fn under<'a>(labels: impl IntoIterator<Item = &'a [u8]>, parent: &Name) -> Result<Name, NameError> {
        let mut name = Builder::default();
        for label in labels {
            name.label(label)?;
        }
        name.append(parent.labels())?;
        Ok(name.finish())
    }

    /// Trusts that the bytes are a name in lower case.
    pub(crate) fn from_wire(wire: &[u8]) -> Name {
        Name(wire.into())
    }

    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        labels(&self.0)
    }

    pub fn label_count(&self) -> usize {
        self.labels().count()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_labels(f, labels(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The labels of a name in wire form.
pub(crate) fn labels(mut wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (&length, rest) = wire.split_first()?;
        if length == 0 || rest.len() < usize::from(length) {
            return None;
        }
        let (label, rest) = rest.split_at(usize::from(length));
        wire = rest;
        Some(label)
    })
}

fn write_labels<'a>(f: &mut fmt::Formatter<'_>, labels: impl Iterator<Item = &'a [u8]>) -> fmt::Result {
    let mut any = false;
    for label in labels {
        any = true;
        for &byte in label {
            match byte {
                b'.' | b'\\' => write!(f, "\\{}", byte as char)?,
                b'!'..=b'~' => write!(f, "{}", byte as char)?,
                _ => write!(f, "\\{byte:03}")?,
            }
        }
        f.write_str(".")?;
    }
    if any { Ok(()) } else { f.write_str(".") }
}

/// Puts a name together, checking every limit.
#[derive(Default)]
pub(crate) struct Builder(Vec<u8>);

impl Builder {
    pub(crate) fn label(&mut self, label: &[u8]) -> Result<(), NameError> {
        let length = u8::try_from(label.len()).map_err(|_| NameError::LabelTooLong)?;
        match label.len() {
            0 => return Err(NameError::EmptyLabel),
            1..=LABEL_MAX => {}
            _ => return Err(NameError::LabelTooLong),
        }
        // One byte is left for the root.
        if self.0.len() + 1 + label.len() + 1 > NAME_MAX {
            return Err(NameError::TooLong);
        }
        self.0.push(length);
        self.0.extend(label.iter().map(u8::to_ascii_lowercase));
        Ok(())
    }

    pub(crate) fn append<'a>(&mut self, labels: impl Iterator<Item = &'a [u8]>) -> Result<(), NameError> {
        for label in labels {
            self.label(label)?;
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Name {
        self.0.push(0);
        Name(self.0.into())
    }
}

/// The name in a question, lower case, with the place of each label: no allocation.
#[derive(Clone)]
pub struct QName {
    bytes: [u8; NAME_MAX],
    length: u8,
    starts: [u8; LABELS_MAX + 1],
    count: u8,
}

impl QName {
    /// Reads a name that is not compressed, as a question's never is. Gives the offset after it too.
    pub fn read(message: &[u8], mut at: usize) -> Result<(QName, usize), NameError> {
        let mut name = QName { bytes: [0; NAME_MAX], length: 0, starts: [0; LABELS_MAX + 1], count: 0 };
        let mut filled = 0;
        loop {
            let length = usize::from(*message.get(at).ok_or(NameError::Cut)?);
            if length > LABEL_MAX {
                return Err(NameError::Pointer);
            }
            let end = at + 1 + length;
            let label = message.get(at..end).ok_or(NameError::Cut)?;
            let into = name.bytes.get_mut(filled..filled + label.len()).ok_or(NameError::TooLong)?;
            // The length byte is at most 63: below the capitals, so it stays as it is.
            for (to, from) in into.iter_mut().zip(label) {
                *to = from.to_ascii_lowercase();
            }
            at = end;
            if length == 0 {
                name.length = filled as u8 + 1;
                return Ok((name, at));
            }
            name.starts[usize::from(name.count)] = filled as u8;
            name.count += 1;
            filled += label.len();
        }
    }

    pub fn from_name(name: &Name) -> QName {
        // A `Name` is within every limit.
        match QName::read(name.as_wire(), 0) {
            Ok((name, _)) => name,
            Err(_) => QName { bytes: [0; NAME_MAX], length: 1, starts: [0; LABELS_MAX + 1], count: 0 },
        }
    }

    pub fn as_wire(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    pub fn label_count(&self) -> usize {
        usize::from(self.count)
    }

    /// Label number `index`, from the left.
    pub fn label(&self, index: usize) -> &[u8] {
        let start = usize::from(self.starts[index]);
        let length = usize::from(self.bytes[start]);
        &self.bytes[start + 1..start + 1 + length]
    }

    /// From where label number `index` starts; the root for the number of labels.
    pub fn start(&self, index: usize) -> usize {
        if index >= self.label_count() {
            usize::from(self.length) - 1
        } else {
            usize::from(self.starts[index])
        }
    }

    /// A label, or the root, starts at this offset.
    pub fn is_start(&self, offset: usize) -> bool {
        offset + 1 == usize::from(self.length)
            || u8::try_from(offset)
                .is_ok_and(|offset| self.starts[..self.label_count()].binary_search(&offset).is_ok())
    }

    /// The name from label number `index` on.
    pub fn tail(&self, index: usize) -> &[u8] {
        &self.as_wire()[self.start(index)..]
    }

    /// How many labels stand before `zone`, if this name is in it.
    pub fn labels_before(&self, zone: &[u8], zone_labels: usize) -> Option<usize> {
        let before = self.label_count().checked_sub(zone_labels)?;
        (self.tail(before) == zone).then_some(before)
    }

    pub fn to_name(&self) -> Name {
        Name::from_wire(self.as_wire())
    }
}

impl fmt::Display for QName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_labels(f, labels(self.as_wire()))
    }
}

impl fmt::Debug for QName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_wire_form_and_back() {
        let name = Name::parse("Web.Default.svc.cluster.local").unwrap();
        assert_eq!(name.as_wire(), b"\x03web\x07default\x03svc\x07cluster\x05local\0");
        assert_eq!(name.to_string(), "web.default.svc.cluster.local.");
        assert_eq!(Name::parse("a.b."), Name::parse("a.b"));
        assert_eq!(Name::parse("").unwrap(), Name::root());
        assert_eq!(Name::root().to_string(), ".");
    }

    #[test]
    fn every_limit_is_kept() {
        let label = "a".repeat(63);
        assert_eq!(Name::parse(&format!("{label}a")), Err(NameError::LabelTooLong));
        assert_eq!(Name::parse("a..b"), Err(NameError::EmptyLabel));
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(Name::parse(&longest).unwrap().as_wire().len(), NAME_MAX);
        assert_eq!(Name::parse(&format!("{longest}a")), Err(NameError::TooLong));
    }

    #[test]
    fn a_question_name_keeps_its_labels_apart() {
        let (name, end) = QName::read(b"xx\x03WEB\x02ns\0rest", 2).unwrap();
        assert_eq!((name.as_wire(), end), (&b"\x03web\x02ns\0"[..], 10));
        assert_eq!((name.label(0), name.label(1), name.label_count()), (&b"web"[..], &b"ns"[..], 2));
        assert_eq!((name.tail(1), name.tail(2)), (&b"\x02ns\0"[..], &b"\0"[..]));
        let zone = Name::parse("ns").unwrap();
        assert_eq!(name.labels_before(zone.as_wire(), 1), Some(1));
        // Bytes that end alike do not make a name of the zone: a label boundary must be there.
        let (other, _) = QName::read(b"\x05x\x02ns\x00\0", 0).unwrap();
        assert_eq!(other.labels_before(zone.as_wire(), 1), None);
    }

    #[test]
    fn broken_names_are_refused() {
        assert_eq!(QName::read(b"\x03we", 0).unwrap_err(), NameError::Cut);
        assert_eq!(QName::read(b"\x01a", 0).unwrap_err(), NameError::Cut);
        assert_eq!(QName::read(b"\xc0\x00", 0).unwrap_err(), NameError::Pointer);
        let long = [[63u8; 64]; 4].concat();
        assert_eq!(QName::read(&long, 0).unwrap_err(), NameError::TooLong);
        let many: Vec<u8> = std::iter::repeat_n([1, b'a'], 127).flatten().chain([0]).collect();
        assert_eq!(QName::read(&many, 0).unwrap().0.label_count(), 127);
    }
}

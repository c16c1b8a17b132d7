//! Takes a table apart: where its chains begin and end, and which rules lead somewhere.
//!
//! A chain of `iptables` is an entry that names it, rules, and an entry that returns. A hook's chain has no name in the
//! table: the kernel says where it begins, and where its policy is, which ends it.

use std::borrow::Cow;
use std::collections::HashMap;

use portolan_netlink::xtables::Info;

use super::encode::{ERROR, EXTENSION_HEADER, Layout};
use super::ruleset::{Chain, Jump, Part, Rules, Ruleset, Span};

/// By the kernel's numbers.
const HOOKS: [&[u8]; 5] = [b"PREROUTING", b"INPUT", b"FORWARD", b"OUTPUT", b"POSTROUTING"];

/// One entry.
pub(super) struct Seen<'a> {
    pub(super) span: Span,
    /// Where its target is, in the table.
    pub(super) target: usize,
    name: &'a [u8],
}

impl<'a> Seen<'a> {
    pub(super) fn read(layout: Layout, bytes: &'a [u8], start: usize, number: usize) -> Option<Self> {
        let entry = bytes.get(start..)?;
        let next = half(entry, layout.next_offset)?;
        let target = half(entry, layout.target_offset)?;
        if target < layout.header || target + EXTENSION_HEADER > next || next > entry.len() {
            return None;
        }
        let name = text(&entry[target + 2..target + EXTENSION_HEADER - 1]);
        let span = Span { start, end: start + next, first: number, count: 1 };
        Some(Self { span, target: start + target, name })
    }
}

/// A verdict that is a place, before all chains are known.
struct Verdict {
    at: usize,
    /// Where the next entry begins.
    next: usize,
    place: usize,
}

struct Reader<'a> {
    info: Info,
    bytes: &'a [u8],
    chains: Vec<Chain<'a>>,
    verdicts: Vec<Verdict>,
    /// Where the rules of the chain begin that is being read.
    rules: Span,
    /// The entry before, unless it names a chain.
    before: Option<Span>,
    last: Option<Span>,
}

impl<'a> Ruleset<'a> {
    /// `None`: something is not as we know it.
    pub(super) fn parse(layout: Layout, info: Info, bytes: &'a [u8]) -> Option<Self> {
        let nowhere = Span { start: 0, end: 0, first: 0, count: 0 };
        let (chains, verdicts) = (Vec::new(), Vec::new());
        let mut reader = Reader { info, bytes, chains, verdicts, rules: nowhere, before: None, last: None };
        let mut offset = 0;
        for number in 0..info.entries as usize {
            let seen = Seen::read(layout, bytes, offset, number)?;
            offset = seen.span.end;
            reader.take(&seen)?;
        }
        let jumps = reader.jumps()?;
        let Reader { chains, last, .. } = reader;
        let is_whole = chains.iter().all(|chain| match (chain.hook, &chain.tail) {
            (Some(hook), Part::Old(tail)) => info.underflow[hook] as usize == tail.start,
            _ => true,
        });
        let named = |(number, chain): (usize, &Chain<'a>)| match chain.hook {
            Some(hook) => (Cow::Borrowed(HOOKS[hook]), number),
            None => (chain.name.clone(), number),
        };
        let by_name = chains.iter().enumerate().map(named).collect();
        let last = last.filter(|last| is_whole && last.end == bytes.len())?;
        Some(Self { layout, info, bytes, chains, by_name, jumps, last })
    }
}

impl<'a> Reader<'a> {
    fn take(&mut self, seen: &Seen<'a>) -> Option<()> {
        let span = seen.span;
        let begins = |hook: &usize| {
            self.info.valid_hooks >> hook & 1 == 1 && self.info.hook_entry[*hook] as usize == span.start
        };
        let hook = (0..HOOKS.len()).find(begins);
        let is_head = hook.is_none() && seen.name == ERROR;
        if hook.is_some() || is_head {
            self.close()?;
            if is_head && span.end == self.bytes.len() {
                self.last = Some(span);
                return Some(());
            }
            self.begin(seen, hook)?;
        }
        if seen.name.is_empty() {
            let at = seen.target + EXTENSION_HEADER;
            if let Ok(place) = usize::try_from(word(self.bytes, at)?) {
                self.verdicts.push(Verdict { at, next: span.end, place });
            }
        }
        self.before = (!is_head).then_some(span);
        Some(())
    }

    fn begin(&mut self, seen: &Seen<'a>, hook: Option<usize>) -> Option<()> {
        let span = seen.span;
        let (start, first, name, head) = if hook.is_some() {
            (span.start, span.first, &[][..], None)
        } else {
            let name = text(self.bytes.get(seen.target + EXTENSION_HEADER..span.end)?);
            (span.end, span.first + 1, name, Some(Part::Old(span)))
        };
        self.rules = Span { start, end: start, first, count: 0 };
        self.chains.push(Chain {
            name: Cow::Borrowed(name),
            hook,
            head,
            rules: Rules::Same(self.rules),
            tail: Part::Old(span),
            is_gone: false,
        });
        Some(())
    }

    /// All entries of the chain are read: the one before is its tail, what is between are rules.
    fn close(&mut self) -> Option<()> {
        let Some(chain) = self.chains.last_mut() else { return Some(()) };
        let tail = self.before?;
        let count = tail.first.checked_sub(self.rules.first)?;
        chain.tail = Part::Old(tail);
        chain.rules = Rules::Same(Span { end: tail.start, count, ..self.rules });
        Some(())
    }

    fn jumps(&self) -> Option<Vec<Jump>> {
        let starts = self.chains.iter().enumerate().filter_map(|(number, chain)| match chain.head {
            Some(Part::Old(head)) => Some((head.end, number)),
            _ => None,
        });
        let starts: HashMap<usize, usize> = starts.collect();
        let jump = |verdict: &Verdict| {
            let is_next = verdict.place == verdict.next;
            let to = if is_next { None } else { Some(*starts.get(&verdict.place)?) };
            Some(Jump { at: verdict.at, to })
        };
        self.verdicts.iter().map(jump).collect()
    }
}

/// Up to the first zero.
fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

pub(super) fn half(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?).into())
}

pub(super) fn word(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

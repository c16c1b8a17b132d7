//! A table as the kernel gave it, changed chain by chain, and put together again. What nobody touched keeps its bytes,
//! whoever wrote it; only where a rule leads is counted anew, as chains move.

use std::borrow::Cow;
use std::collections::HashMap;

use portolan_netlink::xtables::{Blob, COUNTERS_LEN, Counters, Info};

use super::encode::{EXTENSION_HEADER, Entry, Layout, Leads};
use super::read::{Seen, half, word};
use crate::iptables::rules::Name;

const VERDICT_LEN: usize = 4;

/// Some entries of the old table, one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    /// The number of the first one, and how many there are.
    pub(super) first: usize,
    pub(super) count: usize,
}

#[derive(Debug)]
pub(super) enum Part {
    Old(Span),
    New(Entry),
}

impl Part {
    fn new(bytes: Vec<u8>) -> Self {
        Self::New(Entry { bytes, leads: Leads::Nowhere })
    }

    fn len(&self) -> usize {
        match self {
            Self::Old(span) => span.end - span.start,
            Self::New(entry) => entry.bytes.len(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Chain<'a> {
    pub(super) name: Cow<'a, [u8]>,
    /// The hook whose chain it is; others have a head.
    pub(super) hook: Option<usize>,
    pub(super) head: Option<Part>,
    pub(super) rules: Rules,
    pub(super) tail: Part,
    pub(super) is_gone: bool,
}

/// Most chains stay as they were, and cost no memory of their own.
#[derive(Debug)]
pub(super) enum Rules {
    Same(Span),
    Changed(Vec<Part>),
}

impl Rules {
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In bytes.
    fn len(&self) -> usize {
        match self {
            Self::Same(span) => span.end - span.start,
            Self::Changed(parts) => parts.iter().map(Part::len).sum(),
        }
    }

    fn changed(&mut self) -> &mut Vec<Part> {
        if let Self::Same(span) = self {
            let span = Some(*span).filter(|span| span.count > 0);
            *self = Self::Changed(span.map(Part::Old).into_iter().collect());
        }
        match self {
            Self::Changed(parts) => parts,
            Self::Same(_) => unreachable!("made so above"),
        }
    }
}

/// A rule of the old table that leads somewhere within it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Jump {
    /// Where it says so.
    pub(super) at: usize,
    /// The chain; `None` is the next rule.
    pub(super) to: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Ruleset<'a> {
    pub(super) layout: Layout,
    pub(super) info: Info,
    pub(super) bytes: &'a [u8],
    pub(super) chains: Vec<Chain<'a>>,
    pub(super) by_name: HashMap<Cow<'a, [u8]>, usize>,
    /// By place.
    pub(super) jumps: Vec<Jump>,
    /// The entry behind all chains.
    pub(super) last: Span,
}

/// The table to be.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) info: Info,
    pub(super) origins: Origins,
}

/// Whose counters the entries take over: so many from this number on, or those of nobody.
#[derive(Debug, Default)]
pub(super) struct Origins(Vec<(Option<usize>, usize)>);

impl Origins {
    fn carry(&mut self, span: Span) {
        match self.0.last_mut() {
            Some((Some(first), count)) if *first + *count == span.first => *count += span.count,
            _ => self.0.push((Some(span.first), span.count)),
        }
    }

    fn begin(&mut self) {
        match self.0.last_mut() {
            Some((None, count)) => *count += 1,
            _ => self.0.push((None, 1)),
        }
    }

    fn len(&self) -> usize {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// The counters of the new table, given those of the old one.
    pub(super) fn counters(&self, old: &[Counters]) -> Vec<Counters> {
        let mut counters = Vec::with_capacity(self.len());
        for (first, count) in &self.0 {
            match first.and_then(|first| old.get(first..first + count)) {
                Some(old) => counters.extend_from_slice(old),
                None => counters.resize(counters.len() + count, Counters::default()),
            }
        }
        counters
    }
}

impl<'a> Ruleset<'a> {
    fn chain(&mut self, name: &str) -> Option<&mut Chain<'a>> {
        let number = *self.by_name.get(name.as_bytes())?;
        Some(&mut self.chains[number])
    }

    /// Makes a chain, or empties it.
    pub(super) fn declare(&mut self, name: &str) -> Option<()> {
        if let Some(chain) = self.chain(name) {
            chain.rules = Rules::Changed(Vec::new());
            // What `iptables-restore` would do to the policy is not ours to know.
            return (chain.hook.is_none()).then(|| chain.is_gone = false);
        }
        let owned: Cow<'a, [u8]> = Cow::Owned(name.as_bytes().to_vec());
        self.by_name.insert(owned.clone(), self.chains.len());
        self.chains.push(Chain {
            name: owned,
            hook: None,
            head: Some(Part::new(self.layout.chain_head(name))),
            rules: Rules::Changed(Vec::new()),
            tail: Part::new(self.layout.chain_tail()),
            is_gone: false,
        });
        Some(())
    }

    pub(super) fn append(&mut self, name: &str, entry: Entry) -> Option<()> {
        self.chain(name)?.rules.changed().push(Part::New(entry));
        Some(())
    }

    pub(super) fn insert(&mut self, name: &str, entry: Entry) -> Option<()> {
        self.chain(name)?.rules.changed().insert(0, Part::New(entry));
        Some(())
    }

    /// Removes the first rule that is this one.
    pub(super) fn delete(&mut self, name: &str, entry: &Entry) -> Option<()> {
        let number = *self.by_name.get(name.as_bytes())?;
        self.chains[number].rules.changed();
        let Rules::Changed(rules) = &self.chains[number].rules else { return None };
        let (place, span) = rules.iter().enumerate().find_map(|(place, part)| match part {
            Part::New(new) => (new == entry).then_some((place, None)),
            Part::Old(span) => Some((place, Some(self.find(*span, entry)?))),
        })?;
        let rules = self.chains[number].rules.changed();
        let part = rules.remove(place);
        if let (Part::Old(whole), Some(found)) = (part, span) {
            let count = found.first - whole.first;
            let before = Span { end: found.start, count, ..whole };
            let after = Span {
                start: found.end,
                first: found.first + 1,
                count: whole.count - count - 1,
                end: whole.end,
            };
            let parts = [before, after].into_iter().filter(|span| span.count > 0).map(Part::Old);
            rules.splice(place..place, parts);
        }
        Some(())
    }

    fn find(&self, within: Span, entry: &Entry) -> Option<Span> {
        let mut offset = within.start;
        for number in within.first..within.first + within.count {
            let Seen { span, target, .. } = Seen::read(self.layout, self.bytes, offset, number)?;
            if self.is_same(span, target + EXTENSION_HEADER, entry) {
                return Some(span);
            }
            offset = span.end;
        }
        None
    }

    /// Without what the kernel counts and notes for itself.
    fn is_same(&self, span: Span, verdict_at: usize, entry: &Entry) -> bool {
        let old = &self.bytes[span.start..span.end];
        if old.len() != entry.bytes.len() {
            return false;
        }
        let jump = self.jumps.binary_search_by_key(&verdict_at, |jump| jump.at).ok();
        let to = jump.map(|number| self.jumps[number].to);
        let leads_there = match (&entry.leads, to) {
            (Leads::Nowhere, None) | (Leads::Next, Some(None)) => true,
            (Leads::To(name), Some(Some(chain))) => *self.chains[chain].name == *name.as_str().as_bytes(),
            _ => false,
        };
        let mut old = old.to_vec();
        old[self.layout.next_offset + 2..self.layout.counters + COUNTERS_LEN].fill(0);
        if to.is_some() {
            old[verdict_at - span.start..][..VERDICT_LEN].fill(0);
        }
        leads_there && old == entry.bytes
    }

    /// Removes a chain that has no rules.
    pub(super) fn remove(&mut self, name: &str) -> Option<()> {
        let chain = self.chain(name).filter(|chain| chain.hook.is_none() && chain.rules.is_empty())?;
        chain.is_gone = true;
        Some(())
    }

    /// `None`: a rule leads to a chain that is not there.
    pub(super) fn build(mut self, blob: &mut Blob) -> Option<Built> {
        let order = self.order();
        let mut starts: Vec<Option<usize>> = vec![None; self.chains.len()];
        let mut size = 0;
        for number in &order {
            let chain = &mut self.chains[*number];
            size += chain.head.as_ref().map_or(0, Part::len);
            starts[*number] = Some(size);
            size += chain.rules.len();
            if let Some(hook) = chain.hook {
                self.info.hook_entry[hook] = starts[*number]? as u32;
                self.info.underflow[hook] = size as u32;
            }
            size += chain.tail.len();
        }
        blob.clear(size + self.last.end - self.last.start);
        let mut origins = Origins::default();
        for number in order {
            let chain = &self.chains[number];
            if let Some(head) = &chain.head {
                self.put(blob, &mut origins, head, &starts)?;
            }
            match &chain.rules {
                Rules::Same(span) => self.put_old(blob, &mut origins, *span, &starts)?,
                Rules::Changed(parts) => {
                    parts.iter().try_for_each(|part| self.put(blob, &mut origins, part, &starts))?;
                }
            }
            self.put(blob, &mut origins, &chain.tail, &starts)?;
        }
        self.put_old(blob, &mut origins, self.last, &starts)?;
        self.info.size = u32::try_from(blob.len()).ok()?;
        self.info.entries = u32::try_from(origins.len()).ok()?;
        Some(Built { info: self.info, origins })
    }

    /// Chains of hooks as they are; the others by name, if they are sorted now, as `iptables` keeps them.
    fn order(&self) -> Vec<usize> {
        let there = (0..self.chains.len()).filter(|number| !self.chains[*number].is_gone);
        let (mut order, mut named): (Vec<_>, Vec<_>) =
            there.partition(|number| self.chains[*number].hook.is_some());
        let is_old = |number: &&usize| matches!(self.chains[**number].head, Some(Part::Old(_)));
        if named.iter().filter(is_old).is_sorted_by_key(|number| &self.chains[*number].name) {
            named.sort_by(|one, other| self.chains[*one].name.cmp(&self.chains[*other].name));
        }
        order.append(&mut named);
        order
    }

    fn put(
        &self,
        blob: &mut Blob,
        origins: &mut Origins,
        part: &Part,
        starts: &[Option<usize>],
    ) -> Option<()> {
        let entry = match part {
            Part::Old(span) => return self.put_old(blob, origins, *span, starts),
            Part::New(entry) => entry,
        };
        let place = blob.len();
        blob.push(&entry.bytes);
        origins.begin();
        let verdict = match &entry.leads {
            Leads::Nowhere => return Some(()),
            Leads::Next => blob.len(),
            Leads::To(chain) => self.start_of(chain, starts)?,
        };
        let target = half(&entry.bytes, self.layout.target_offset)?;
        put_word(blob.entries(), place + target + EXTENSION_HEADER, verdict);
        Some(())
    }

    fn put_old(
        &self,
        blob: &mut Blob,
        origins: &mut Origins,
        span: Span,
        starts: &[Option<usize>],
    ) -> Option<()> {
        let place = blob.len();
        blob.push(&self.bytes[span.start..span.end]);
        origins.carry(span);
        let first = self.jumps.partition_point(|jump| jump.at < span.start);
        for jump in self.jumps[first..].iter().take_while(|jump| jump.at < span.end) {
            let verdict = match jump.to {
                Some(chain) => starts[chain]?,
                None => word(self.bytes, jump.at)? as usize - span.start + place,
            };
            put_word(blob.entries(), jump.at - span.start + place, verdict);
        }
        Some(())
    }

    fn start_of(&self, chain: &Name, starts: &[Option<usize>]) -> Option<usize> {
        starts[*self.by_name.get(chain.as_str().as_bytes())?]
    }
}

fn put_word(bytes: &mut [u8], at: usize, value: usize) {
    bytes[at..at + VERDICT_LEN].copy_from_slice(&(value as u32).to_ne_bytes());
}

//! From a batch to the one datagram that carries it.
//!
//! Every operation becomes one message, except element lists, which are split so that no attribute outgrows its
//! sixteen-bit length. The last message asks for an acknowledgement; see [`super::kernel`] for why that one.

use crate::codec::{Attrs, HEADER_LEN, TooLong, Writer, flags};

use super::encode_expr::put_exprs;
use super::error::{CommitError, CommitErrorKind};
use super::object::{Chain, Data, Element, Rule, Set, SetData, Table, Verdict};
use super::op::{Batch, Op};
use super::userdata;
use super::value::Value;
use super::wire::{self, BATCH_BEGIN, BATCH_END, SUBSYS, msg};
use super::{datatype, expr::Reg};

/// Elements of one message stay below this many bytes.
const ELEMENTS_BYTES_MAX: usize = 60_000;
/// The kernel's limit for names, with the zero byte at the end.
const NAME_LEN_MAX: usize = 255;

/// Where a message of the datagram comes from.
#[derive(Debug, Clone, Copy)]
struct Origin {
    op: u32,
    /// Index within the operation of the first element the message carries.
    first_element: u32,
    /// Where the message starts in the datagram.
    start: usize,
}

#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    /// One per message between begin and end.
    origins: Vec<Origin>,
}

impl Encoded {
    /// Number of messages, with begin and end.
    pub(super) fn messages(&self) -> u32 {
        self.origins.len() as u32 + 2
    }

    /// Which operation, and which of its elements, the attribute at `offset` of the `index`th message belongs to.
    pub(super) fn blame(&self, index: usize, offset: Option<u32>) -> Option<(usize, Option<usize>)> {
        let origin = self.origins.get(index.checked_sub(1)?)?;
        let element = offset.and_then(|offset| self.element_at(*origin, offset as usize));
        Some((origin.op as usize, element))
    }

    fn element_at(&self, origin: Origin, offset: usize) -> Option<usize> {
        let message = &self.bytes[origin.start..];
        let body = message.get(HEADER_LEN + wire::FIXED..)?;
        let list = Attrs(body).get(wire::elem_list::ELEMENTS)?.payload;
        let list_start = list.as_ptr() as usize - message.as_ptr() as usize;
        let wanted = offset.checked_sub(list_start)?;
        let mut position = 0;
        for (index, element) in Attrs(list).enumerate() {
            position += 4 + element.payload.len().next_multiple_of(4);
            if wanted < position {
                return Some(origin.first_element as usize + index);
            }
        }
        None
    }

    /// Writes the sequence numbers, from `first` for the begin message on.
    pub(super) fn number(&mut self, first: u32) {
        let mut seq = first;
        let mut at = 0;
        while let Some(len) = self.bytes.get(at..at + 4).and_then(|len| len.try_into().ok()) {
            self.bytes[at + 8..at + 12].copy_from_slice(&seq.to_ne_bytes());
            seq = seq.wrapping_add(1);
            at += u32::from_ne_bytes(len) as usize;
        }
    }
}

/// Encodes the batch, sequence numbers still to be filled in.
pub(super) fn encode(batch: &Batch) -> Result<Encoded, CommitError> {
    let mut encoder = Encoder {
        out: Writer::with_capacity(256 + batch.weight() * 96),
        origins: Vec::with_capacity(batch.len()),
        op: 0,
    };
    // `res_id` of the fixed part names the subsystem, in network order.
    encoder.out.message(BATCH_BEGIN, 0, 0, &[0, 0, 0, SUBSYS as u8], |_| {});
    for (index, op) in batch.ops.iter().enumerate() {
        encoder.op = index as u32;
        check(op).map_err(|detail| invalid(index, op, detail))?;
        encoder.op(op);
    }
    if let Some(last) = encoder.origins.last() {
        encoder.out.add_flags(last.start, flags::ACK);
    }
    encoder.out.message(BATCH_END, 0, 0, &[0, 0, 0, SUBSYS as u8], |_| {});
    let bytes = encoder.out.finish().map_err(|TooLong| CommitError {
        kind: CommitErrorKind::Invalid,
        op_index: None,
        op: String::new(),
        errno: libc::EMSGSIZE,
        extack: Some(TooLong.to_string()),
    })?;
    Ok(Encoded { bytes, origins: encoder.origins })
}

fn invalid(index: usize, op: &Op, detail: &str) -> CommitError {
    CommitError {
        kind: CommitErrorKind::Invalid,
        op_index: Some(index),
        op: op.to_string(),
        errno: libc::EINVAL,
        extack: Some(detail.to_owned()),
    }
}

/// Refuses names that would be cut off on the way, and so mean something else.
fn check(op: &Op) -> Result<(), &'static str> {
    let (table, name) = op.names();
    for name in [Some(&table.name), name].into_iter().flatten() {
        if name.is_empty() || name.len() > NAME_LEN_MAX || name.bytes().any(|byte| byte == 0) {
            return Err("a name must have 1 to 255 bytes, none of them zero");
        }
    }
    Ok(())
}

struct Encoder {
    out: Writer,
    origins: Vec<Origin>,
    op: u32,
}

impl Encoder {
    fn op(&mut self, op: &Op) {
        match op {
            Op::AddTable { table, comment } => self.message(msg::NEWTABLE, flags::CREATE, table, |w| {
                w.string(wire::table::NAME, &table.name);
                put_comment(w, wire::table::USERDATA, comment.as_deref());
            }),
            Op::AddOwnedTable(table) => {
                self.message(msg::NEWTABLE, flags::CREATE | flags::EXCL, table, |w| {
                    w.string(wire::table::NAME, &table.name);
                    w.be32(wire::table::FLAGS, wire::table::OWNER);
                });
            }
            Op::DelTable(table) => self.message(msg::DELTABLE, 0, table, |w| {
                w.string(wire::table::NAME, &table.name);
            }),
            Op::AddChain(chain) => {
                self.message(msg::NEWCHAIN, flags::CREATE, &chain.table, |w| put_chain(w, chain));
            }
            Op::DelChain { table, chain } => self.message(msg::DELCHAIN, 0, table, |w| {
                w.string(wire::chain::TABLE, &table.name);
                w.string(wire::chain::NAME, chain);
            }),
            Op::FlushChain { table, chain } => {
                self.message(msg::DELRULE, 0, table, |w| put_rule_place(w, table, chain));
            }
            Op::AddRule(rule) => self.rule(flags::CREATE | flags::APPEND, rule, None),
            Op::InsertRule { rule, before } => {
                self.rule(flags::CREATE, rule, before.map(|handle| (wire::rule::POSITION, handle)));
            }
            Op::ReplaceRule { rule, handle } => {
                self.rule(flags::REPLACE, rule, Some((wire::rule::HANDLE, *handle)));
            }
            Op::DelRule { table, chain, handle } => self.message(msg::DELRULE, 0, table, |w| {
                put_rule_place(w, table, chain);
                w.be64(wire::rule::HANDLE, *handle);
            }),
            Op::AddSet(set) => {
                // Any number that no other set of the batch has.
                let id = self.op + 1;
                self.message(msg::NEWSET, flags::CREATE, &set.table, |w| put_set(w, set, id));
            }
            Op::DelSet { table, set } => self.message(msg::DELSET, 0, table, |w| {
                w.string(wire::set::TABLE, &table.name);
                w.string(wire::set::NAME, set);
            }),
            Op::FlushSet { table, set } => self.message(msg::DELSETELEM, 0, table, |w| {
                w.string(wire::elem_list::TABLE, &table.name);
                w.string(wire::elem_list::SET, set);
            }),
            Op::AddElements { table, set, elements } => {
                self.elements(msg::NEWSETELEM, flags::CREATE, table, set, elements, put_element);
            }
            Op::DelElements { table, set, elements } => {
                self.elements(msg::DELSETELEM, 0, table, set, elements, put_element_key);
            }
        }
    }

    fn message(&mut self, kind: u16, flags: u16, table: &Table, body: impl FnOnce(&mut Writer)) {
        self.origins.push(Origin { op: self.op, first_element: 0, start: self.out.len() });
        self.out.message(SUBSYS << 8 | kind, flags, 0, &wire::fixed(table.family.number()), body);
    }

    fn rule(&mut self, flags: u16, rule: &Rule, place: Option<(u16, u64)>) {
        self.message(msg::NEWRULE, flags, &rule.table, |w| {
            put_rule_place(w, &rule.table, &rule.chain);
            if let Some((attr, handle)) = place {
                w.be64(attr, handle);
            }
            put_exprs(w, wire::rule::EXPRESSIONS, &rule.exprs);
            put_comment(w, wire::rule::USERDATA, rule.comment.as_deref());
        });
    }

    fn elements(
        &mut self,
        kind: u16,
        flags: u16,
        table: &Table,
        set: &str,
        elements: &[Element],
        put: fn(&mut Writer, &Element),
    ) {
        let mut next = 0;
        // An empty list would flush the set when deleting, so no message is sent for it.
        while next < elements.len() {
            let first = next;
            self.message(kind, flags, table, |w| {
                w.string(wire::elem_list::TABLE, &table.name);
                w.string(wire::elem_list::SET, set);
                w.nested(wire::elem_list::ELEMENTS, |w| {
                    let start = w.len();
                    while next < elements.len() && w.len() - start < ELEMENTS_BYTES_MAX {
                        w.nested(wire::list::ELEM, |w| put(w, &elements[next]));
                        next += 1;
                    }
                });
            });
            if let Some(origin) = self.origins.last_mut() {
                origin.first_element = first as u32;
            }
        }
    }
}

fn put_rule_place(w: &mut Writer, table: &Table, chain: &str) {
    w.string(wire::rule::TABLE, &table.name);
    w.string(wire::rule::CHAIN, chain);
}

fn put_chain(w: &mut Writer, chain: &Chain) {
    w.string(wire::chain::TABLE, &chain.table.name);
    w.string(wire::chain::NAME, &chain.name);
    if let Some(base) = chain.base {
        w.nested(wire::chain::HOOK, |w| {
            w.be32(wire::hook::NUM, base.hook as u32);
            w.be32(wire::hook::PRIORITY, base.priority as u32);
        });
        w.be32(wire::chain::POLICY, base.policy as u32);
        w.string(wire::chain::TYPE, base.kind.as_str());
    }
    put_comment(w, wire::chain::USERDATA, chain.comment.as_deref());
}

fn put_set(w: &mut Writer, set: &Set, id: u32) {
    w.string(wire::set::TABLE, &set.table.name);
    w.string(wire::set::NAME, &set.name);
    w.be32(wire::set::ID, id);
    w.be32(wire::set::FLAGS, set_flags(set));
    w.be32(wire::set::KEY_TYPE, set.key.id());
    w.be32(wire::set::KEY_LEN, set.key.len() as u32);
    match &set.data {
        SetData::None => {}
        // The length of a verdict is the kernel's own affair.
        SetData::Verdict => w.be32(wire::set::DATA_TYPE, datatype::DATA_VERDICT),
        SetData::Value(data) => {
            w.be32(wire::set::DATA_TYPE, data.id());
            w.be32(wire::set::DATA_LEN, data.len() as u32);
        }
    }
    if let Some(timeout) = set.timeout {
        w.be64(wire::set::TIMEOUT, timeout.as_millis() as u64);
    }
    if let Some(interval) = set.gc_interval {
        w.be32(wire::set::GC_INTERVAL, interval.as_millis() as u32);
    }
    if set.size.is_some() || set.is_concat_interval() {
        w.nested(wire::set::DESC, |w| put_set_description(w, set));
    }
    w.attr(wire::set::USERDATA, &userdata::of_set(set));
}

fn put_set_description(w: &mut Writer, set: &Set) {
    if let Some(size) = set.size {
        w.be32(wire::desc::SIZE, size);
    }
    if set.is_concat_interval() {
        w.nested(wire::desc::CONCAT, |w| {
            for field in set.key.fields() {
                w.nested(wire::list::ELEM, |w| w.be32(wire::desc::FIELD_LEN, field.len() as u32));
            }
        });
    }
}

fn set_flags(set: &Set) -> u32 {
    use wire::set_flag::{ANONYMOUS, CONCAT, CONSTANT, EVAL, INTERVAL, MAP, TIMEOUT};
    [
        (set.flags.anonymous, ANONYMOUS),
        (set.flags.constant, CONSTANT),
        (set.flags.interval, INTERVAL),
        (set.data != SetData::None, MAP),
        (set.flags.timeout, TIMEOUT),
        (set.flags.dynamic, EVAL),
        (set.is_concat_interval(), CONCAT),
    ]
    .into_iter()
    .filter_map(|(set, flag)| set.then_some(flag))
    .sum()
}

fn put_element(w: &mut Writer, element: &Element) {
    put_element_key(w, element);
    match &element.data {
        Data::None => {}
        Data::Value(value) => put_value(w, wire::elem::DATA, value),
        Data::Verdict(verdict) => w.nested(wire::elem::DATA, |w| put_verdict(w, verdict)),
    }
    if let Some(timeout) = element.timeout {
        w.be64(wire::elem::TIMEOUT, timeout.as_millis() as u64);
    }
    if let Some(expires) = element.expires {
        w.be64(wire::elem::EXPIRATION, expires.as_millis() as u64);
    }
    put_comment(w, wire::elem::USERDATA, element.comment.as_deref());
}

fn put_element_key(w: &mut Writer, element: &Element) {
    let flag = if element.catchall {
        wire::elem_flag::CATCHALL
    } else {
        put_value(w, wire::elem::KEY, &element.key);
        if element.interval_end { wire::elem_flag::INTERVAL_END } else { 0 }
    };
    if flag != 0 {
        w.be32(wire::elem::FLAGS, flag);
    }
    if let Some(end) = &element.key_end {
        put_value(w, wire::elem::KEY_END, end);
    }
}

pub(super) fn put_value(w: &mut Writer, kind: u16, value: &Value) {
    w.nested(kind, |w| w.attr(wire::data::VALUE, value.as_slice()));
}

pub(super) fn put_verdict(w: &mut Writer, verdict: &Verdict) {
    w.nested(wire::data::VERDICT, |w| {
        w.be32(wire::verdict::CODE, verdict.code() as u32);
        if let Some(chain) = verdict.chain() {
            w.string(wire::verdict::CHAIN, chain);
        }
    });
}

fn put_comment(w: &mut Writer, kind: u16, comment: Option<&str>) {
    if let Some(comment) = comment {
        let mut notes = Vec::with_capacity(comment.len() + 3);
        userdata::put_comment(&mut notes, comment);
        w.attr(kind, &notes);
    }
}

/// The kernel's number of a register: the four-byte ones begin at 8.
pub(super) fn register(reg: Reg) -> u32 {
    if reg == Reg::VERDICT { 0 } else { u32::from(reg.number()) + 8 }
}

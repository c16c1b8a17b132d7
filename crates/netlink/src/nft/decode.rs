//! From dumped messages to objects. `None` means that a message makes no sense.

use std::time::Duration;

use crate::codec::{Attr, Attrs};

use super::datatype::{DATA_VERDICT, KeyType};
use super::decode_expr::exprs;
use super::object::{
    Base, Chain, ChainKind, Data, Element, Family, Handled, Hook, Policy, Rule, Set, SetData, SetFlags,
    Table, TableInfo, Verdict,
};
use super::userdata;
use super::value::Value;
use super::wire;

pub(super) fn table(family: Family, attrs: &Attrs<'_>) -> Option<TableInfo> {
    Some(TableInfo {
        table: Table::new(family, attrs.get(wire::table::NAME)?.text()?),
        comment: attrs
            .get(wire::table::USERDATA)
            .and_then(|notes| userdata::comment(notes.payload))
            .map(Into::into),
        handle: attrs.get(wire::table::HANDLE)?.be64()?,
    })
}

/// Chains of other tables are passed over: the kernel does not filter this dump.
pub(super) fn chain(table: &Table, attrs: &Attrs<'_>, found: &mut Vec<Chain>) -> Option<()> {
    if attrs.get(wire::chain::TABLE)?.text()? != &*table.name {
        return Some(());
    }
    let mut chain = Chain::regular(table, attrs.get(wire::chain::NAME)?.text()?);
    if let Some(hook) = attrs.get(wire::chain::HOOK) {
        let Some(base) = base(attrs, &hook.nested()) else { return Some(()) };
        chain.base = Some(base);
    }
    chain.comment =
        attrs.get(wire::chain::USERDATA).and_then(|notes| userdata::comment(notes.payload)).map(Into::into);
    found.push(chain);
    Some(())
}

fn base(attrs: &Attrs<'_>, hook: &Attrs<'_>) -> Option<Base> {
    let kind = match attrs.get(wire::chain::TYPE)?.text()? {
        "filter" => ChainKind::Filter,
        "nat" => ChainKind::Nat,
        "route" => ChainKind::Route,
        _ => return None,
    };
    let number = match hook.get(wire::hook::NUM)?.be32()? {
        0 => Hook::Prerouting,
        1 => Hook::Input,
        2 => Hook::Forward,
        3 => Hook::Output,
        4 => Hook::Postrouting,
        _ => return None,
    };
    let policy = match attrs.get(wire::chain::POLICY)?.be32()? {
        0 => Policy::Drop,
        _ => Policy::Accept,
    };
    let priority = hook.get(wire::hook::PRIORITY)?.be32()? as i32;
    Some(Base { kind, hook: number, priority, policy })
}

pub(super) fn rule(
    table: &Table,
    only: Option<&str>,
    attrs: &Attrs<'_>,
    found: &mut Vec<Handled<Rule>>,
) -> Option<()> {
    let chain = attrs.get(wire::rule::CHAIN)?.text()?;
    let elsewhere = attrs.get(wire::rule::TABLE)?.text()? != &*table.name;
    if elsewhere || only.is_some_and(|only| only != chain) {
        return Some(());
    }
    let mut rule = Rule::new(table, chain, Vec::new());
    if let Some(list) = attrs.get(wire::rule::EXPRESSIONS) {
        rule.exprs = exprs(list.nested())?;
    }
    rule.comment =
        attrs.get(wire::rule::USERDATA).and_then(|notes| userdata::comment(notes.payload)).map(Into::into);
    found.push(Handled { handle: attrs.get(wire::rule::HANDLE)?.be64()?, item: rule });
    Some(())
}

pub(super) fn set(table: &Table, attrs: &Attrs<'_>, found: &mut Vec<Set>) -> Option<()> {
    use wire::set_flag::{ANONYMOUS, CONSTANT, EVAL, INTERVAL, MAP, TIMEOUT};
    if attrs.get(wire::set::TABLE)?.text()? != &*table.name {
        return Some(());
    }
    let number = |kind| attrs.get(kind).and_then(|attr| attr.be32());
    let flags = number(wire::set::FLAGS).unwrap_or(0);
    let description = attrs.get(wire::set::DESC).map(|attr| attr.nested());
    let key_len = number(wire::set::KEY_LEN)? as usize;
    let field_lens = description.as_ref().map(field_lens).unwrap_or_default();
    let key = KeyType::from_id(number(wire::set::KEY_TYPE)?, key_len, &field_lens);
    let data = match number(wire::set::DATA_TYPE) {
        Some(DATA_VERDICT) => SetData::Verdict,
        Some(id) if flags & MAP != 0 => {
            SetData::Value(KeyType::from_id(id, number(wire::set::DATA_LEN)? as usize, &[]))
        }
        _ => SetData::None,
    };
    found.push(Set {
        table: table.clone(),
        name: attrs.get(wire::set::NAME)?.text()?.into(),
        key,
        data,
        flags: SetFlags {
            interval: flags & INTERVAL != 0,
            timeout: flags & TIMEOUT != 0,
            dynamic: flags & EVAL != 0,
            constant: flags & CONSTANT != 0,
            anonymous: flags & ANONYMOUS != 0,
        },
        timeout: attrs.get(wire::set::TIMEOUT).and_then(millis),
        gc_interval: number(wire::set::GC_INTERVAL).map(|ms| Duration::from_millis(ms.into())),
        size: description.and_then(|attrs| attrs.get(wire::desc::SIZE)?.be32()),
        comment: attrs
            .get(wire::set::USERDATA)
            .and_then(|notes| userdata::set_comment(notes.payload))
            .map(Into::into),
    });
    Some(())
}

fn field_lens(description: &Attrs<'_>) -> Vec<u32> {
    let Some(concat) = description.get(wire::desc::CONCAT) else { return Vec::new() };
    concat.nested().filter_map(|field| field.nested().get(wire::desc::FIELD_LEN)?.be32()).collect()
}

pub(super) fn elements(attrs: &Attrs<'_>, found: &mut Vec<Element>) -> Option<()> {
    let Some(list) = attrs.get(wire::elem_list::ELEMENTS) else {
        return Some(());
    };
    for attr in list.nested() {
        found.push(element(&attr.nested())?);
    }
    Some(())
}

fn element(attrs: &Attrs<'_>) -> Option<Element> {
    let mut element = Element::default();
    for attr in attrs.clone() {
        match attr.kind {
            wire::elem::KEY => element.key = value(attr)?,
            wire::elem::KEY_END => element.key_end = Some(value(attr)?),
            wire::elem::DATA => element.data = data(attr)?,
            wire::elem::FLAGS => {
                let flags = attr.be32()?;
                element.interval_end = flags & wire::elem_flag::INTERVAL_END != 0;
                element.catchall = flags & wire::elem_flag::CATCHALL != 0;
            }
            wire::elem::TIMEOUT => element.timeout = millis(attr),
            wire::elem::EXPIRATION => element.expires = millis(attr),
            wire::elem::USERDATA => element.comment = userdata::comment(attr.payload).map(Into::into),
            _ => {}
        }
    }
    Some(element)
}

fn millis(attr: Attr<'_>) -> Option<Duration> {
    attr.be64().map(Duration::from_millis)
}

fn data(attr: Attr<'_>) -> Option<Data> {
    let inner = attr.nested().next()?;
    match inner.kind {
        wire::data::VALUE => Some(Data::Value(Value::from_slice(inner.payload))),
        wire::data::VERDICT => Some(Data::Verdict(verdict(&inner.nested())?)),
        _ => None,
    }
}

/// The bytes in an attribute that holds data which is no verdict.
pub(super) fn value(attr: Attr<'_>) -> Option<Value> {
    attr.nested().get(wire::data::VALUE).map(|bytes| Value::from_slice(bytes.payload))
}

pub(super) fn verdict(attrs: &Attrs<'_>) -> Option<Verdict> {
    let code = attrs.get(wire::verdict::CODE)?.be32()? as i32;
    let chain = attrs.get(wire::verdict::CHAIN).and_then(|chain| chain.text());
    Some(Verdict::from_code(code, chain))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::{Message, Messages};
    use crate::nft::encode::encode;
    use crate::nft::{Batch, Expr, FieldType, Op, Reg};

    /// One message of every kind that dumps have, with what is nested deepest.
    fn messages() -> Vec<u8> {
        let table = Table::new(Family::Inet, "t");
        let base = Base { kind: ChainKind::Nat, hook: Hook::Output, priority: -100, policy: Policy::Accept };
        let reg = Reg::new(0);
        let exprs = vec![
            Expr::daddr(Family::Ip, reg),
            Expr::eq(reg, Value::host32(1)),
            Expr::NumgenRandom { modulus: 2, offset: 0, dreg: reg },
            Expr::map("m", reg, reg),
            Expr::jump("c"),
        ];
        let range = Element::range(Value::new().mark(1).port(2), Value::new().mark(3).port(4));
        let batch = Batch::from_iter([
            Op::AddTable { table: table.clone(), comment: Some("a comment".into()) },
            Op::AddChain(Chain::base(&table, "c", base).with_comment("of a chain")),
            Op::AddRule(Rule::new(&table, "c", exprs).with_comment("of a rule")),
            Op::AddSet(Set::vmap(&table, "m", [FieldType::Mark, FieldType::InetService]).with_interval()),
            Op::AddElements {
                table,
                set: "m".into(),
                elements: vec![Element { data: Data::Verdict(Verdict::goto("c")), ..range }],
            },
        ]);
        encode(&batch).unwrap().bytes
    }

    fn decode_all(message: &Message<'_>) {
        let attrs = message.attrs(wire::FIXED);
        let wanted = Table::new(Family::Inet, "t");
        let _ = table(Family::Inet, &attrs);
        let _ = chain(&wanted, &attrs, &mut Vec::new());
        let _ = rule(&wanted, None, &attrs, &mut Vec::new());
        let _ = set(&wanted, &attrs, &mut Vec::new());
        let _ = elements(&attrs, &mut Vec::new());
    }

    proptest! {
        #[test]
        fn damaged_messages_never_panic(damage in prop::collection::vec((any::<usize>(), any::<u8>()), 1..8)) {
            let mut bytes = messages();
            for (at, byte) in damage {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            Messages(&bytes).for_each(|message| decode_all(&message));
        }

        #[test]
        fn random_attributes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            decode_all(&Message { kind: 0, flags: 0, seq: 0, payload: &bytes });
        }
    }
}

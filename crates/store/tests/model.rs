//! Any sequence of writes, reopenings and compactions, against the simplest store there is: a copy of the whole
//! content for each revision.

use std::collections::BTreeMap;

use portolan_store::embedded::{Embedded, RingLimits};
use portolan_store::{Commit, Error, Revision, Store, Txn};
use proptest::prelude::*;

/// Small enough that histories of a few dozen steps lose their beginning.
const LIMITS: RingLimits = RingLimits { events: 12, bytes: 1 << 20 };

/// key -> (value, create revision, mod revision)
type Content = BTreeMap<String, (u8, Revision, Revision)>;

#[derive(Debug, Clone)]
enum Step {
    Write { ops: Vec<(u8, Option<u8>)>, compare: Option<(u8, CompareKind)> },
    Reopen,
    Compact { back: u64 },
}

#[derive(Debug, Clone, Copy)]
enum CompareKind {
    Absent,
    Current,
    Wrong,
}

fn step() -> impl Strategy<Value = Step> {
    let ops = prop::collection::btree_map(0..6u8, prop::option::of(any::<u8>()), 1..4);
    let kind = prop_oneof![Just(CompareKind::Absent), Just(CompareKind::Current), Just(CompareKind::Wrong)];
    prop_oneof![
        12 => (ops, prop::option::of((0..6u8, kind)))
            .prop_map(|(ops, compare)| Step::Write { ops: ops.into_iter().collect(), compare }),
        1 => Just(Step::Reopen),
        1 => (0..5u64).prop_map(|back| Step::Compact { back }),
    ]
}

fn key(n: u8) -> String {
    // Two prefixes, so that every read also has keys that it must leave out.
    format!("/{}/{n}", if n.is_multiple_of(2) { "even" } else { "odd" })
}

struct Model {
    /// Content by revision, the first at revision 1.
    history: Vec<Content>,
    oldest: Revision,
}

impl Model {
    fn revision(&self) -> Revision {
        self.history.len() as Revision
    }

    fn at(&self, revision: Revision) -> &Content {
        &self.history[revision as usize - 1]
    }

    /// Applies a write; `None` is a conflict.
    fn write(&mut self, ops: &[(u8, Option<u8>)], holds: bool) -> Option<Revision> {
        if !holds {
            return None;
        }
        let revision = self.revision() + 1;
        let mut content = self.at(self.revision()).clone();
        let mut changed = false;
        for (n, value) in ops {
            if let Some(value) = value {
                let created = content.get(&key(*n)).map_or(revision, |c| c.1);
                content.insert(key(*n), (*value, created, revision));
                changed = true;
            } else {
                changed |= content.remove(&key(*n)).is_some();
            }
        }
        if changed {
            self.history.push(content);
        }
        Some(self.revision())
    }
}

async fn apply(store: &mut Option<Embedded>, dir: &std::path::Path, model: &mut Model, step: &Step) {
    match step {
        Step::Reopen => {
            drop(store.take());
            *store = Some(Embedded::open_with(dir, LIMITS).expect("opens again"));
        }
        Step::Compact { back } => {
            let before = model.revision().saturating_sub(*back).max(1);
            let outcome = store.as_ref().expect("open").compact(before).await;
            match outcome {
                Ok(()) => model.oldest = model.oldest.max(before),
                Err(Error::Compacted { oldest }) => assert!(oldest > before),
                Err(e) => panic!("{e}"),
            }
        }
        Step::Write { ops, compare } => {
            let mut txn = Txn::new();
            let mut holds = true;
            if let Some((n, kind)) = compare {
                let now = model.at(model.revision()).get(&key(*n)).map(|c| c.2);
                (txn, holds) = match kind {
                    CompareKind::Absent => (txn.if_absent(key(*n)), now.is_none()),
                    CompareKind::Current => (txn.if_revision(key(*n), now.unwrap_or(0)), now.is_some()),
                    CompareKind::Wrong => (txn.if_revision(key(*n), now.unwrap_or(0) + 1_000), false),
                };
            }
            for (n, value) in ops {
                txn = match value {
                    Some(value) => txn.put(key(*n), vec![*value]),
                    None => txn.delete(key(*n)),
                };
            }
            let expected = model.write(ops, holds);
            match (store.as_ref().expect("open").commit(txn).await.expect("commits"), expected) {
                (Commit::Done(revision), Some(expected)) => assert_eq!(revision, expected),
                (Commit::Conflict { .. }, None) => {}
                (outcome, expected) => panic!("{outcome:?} where the model has {expected:?}"),
            }
        }
    }
}

/// Every readable revision lists as the model has it, whole and in pages of two, and every watch from it brings
/// the model's content from there to now.
async fn check(store: &Embedded, model: &mut Model) {
    assert_eq!(store.revision().await, Ok(model.revision()));
    for at in 1..=model.revision() {
        for prefix in ["/even/", "/odd/", "/"] {
            let expected: Vec<_> = model.at(at).iter().filter(|(k, _)| k.starts_with(prefix)).collect();
            let whole = match store.list(prefix, None, 0, Some(at)).await {
                Ok(page) => page.items,
                Err(Error::Compacted { oldest }) => {
                    assert!(at < oldest);
                    continue;
                }
                Err(e) => panic!("{e}"),
            };
            assert!(at >= model.oldest, "revision {at} was compacted");
            let flat: Vec<_> =
                whole.iter().map(|kv| (kv.value[0], kv.create_revision, kv.mod_revision)).collect();
            assert_eq!(flat, expected.iter().map(|(_, c)| **c).collect::<Vec<_>>(), "{prefix} at {at}");
            assert!(whole.iter().map(|kv| &*kv.key).eq(expected.iter().map(|(k, _)| k.as_str())));
            check_pages(store, prefix, at, &whole).await;
            check_watch(store, prefix, at, model).await;
        }
    }
}

async fn check_pages(store: &Embedded, prefix: &str, at: Revision, whole: &[portolan_store::KeyValue]) {
    let mut paged = Vec::new();
    loop {
        let after = paged.last().map(|kv: &portolan_store::KeyValue| kv.key.clone());
        let page = store.list(prefix, after.as_deref(), 2, Some(at)).await.expect("lists");
        paged.extend(page.items);
        assert_eq!(page.remaining as usize, whole.len() - paged.len());
        if page.remaining == 0 {
            break;
        }
    }
    assert_eq!(paged, whole);
}

async fn check_watch(store: &Embedded, prefix: &str, after: Revision, model: &Model) {
    let mut watch = store.watch(prefix, after).await.expect("watches");
    let mut content = model.at(after).clone();
    content.retain(|k, _| k.starts_with(prefix));
    let mut last = after;
    while watch.progress().is_none() {
        for event in watch.next().await.expect("not ended").expect("events").iter() {
            assert!(event.revision >= last && event.revision > after);
            last = event.revision;
            let before = content.get(&*event.key).copied();
            let previous = event.previous.as_ref().map(|p| (p.value[0], p.create_revision, p.mod_revision));
            assert_eq!(previous, before);
            match event.current() {
                Some(kv) => {
                    let now = (kv.value[0], kv.create_revision, kv.mod_revision);
                    content.insert(event.key.to_string(), now);
                }
                None => _ = content.remove(&*event.key),
            }
        }
    }
    let mut expected = model.at(model.revision()).clone();
    expected.retain(|k, _| k.starts_with(prefix));
    assert_eq!(content, expected, "{prefix} from {after}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_behaves_as_the_model(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let dir = tempfile::tempdir().expect("a directory");
            let mut store = Some(Embedded::open_with(dir.path(), LIMITS).expect("opens"));
            let mut model = Model { history: vec![Content::new()], oldest: 1 };
            for step in &steps {
                apply(&mut store, dir.path(), &mut model, step).await;
            }
            check(store.as_ref().expect("open"), &mut model).await;
            apply(&mut store, dir.path(), &mut model, &Step::Reopen).await;
            check(store.as_ref().expect("open"), &mut model).await;
        });
    }
}

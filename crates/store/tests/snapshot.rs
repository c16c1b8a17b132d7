//! Saving, checking, restoring and moving a store.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use portolan_store::embedded::Embedded;
use portolan_store::limits::RESTORE_REVISIONS;
use portolan_store::migrate::{self, Fate, MigrateError};
use portolan_store::snapshot::{self, SnapshotError};
use portolan_store::{Error, KeyValue, Store, Txn};

async fn filled(dir: &Path, keys: usize) -> Arc<Embedded> {
    let store = Arc::new(Embedded::open(dir).unwrap());
    for n in 0..keys {
        store.commit(Txn::new().put(format!("/registry/{n:05}"), format!("{{\"n\":{n}}}"))).await.unwrap();
    }
    if keys > 2 {
        store.commit(Txn::new().put("/registry/00000", "changed").delete("/registry/00001")).await.unwrap();
    }
    store
}

async fn content(store: &dyn Store) -> Vec<KeyValue> {
    store.list("", None, 0, None).await.unwrap().items
}

#[tokio::test]
async fn a_restored_store_has_the_content_and_sends_all_clients_to_list_again() {
    let dir = tempfile::tempdir().unwrap();
    let (file, target) = (dir.path().join("snapshot"), dir.path().join("target"));
    // More than one piece.
    let store = filled(&dir.path().join("source"), 1_203).await;
    let saved = snapshot::save(store.clone(), &file).await.unwrap();
    let before = content(&*store).await;
    let revision = store.revision().await.unwrap();
    assert_eq!((saved.keys, saved.revision), (1_202, revision));
    assert_eq!(snapshot::status(&file).unwrap(), saved);
    // What is written after the snapshot is lost; its revisions are not used again.
    store.commit(Txn::new().put("/registry/late", "x")).await.unwrap();
    assert_eq!(snapshot::restore(&file, &target, false).unwrap(), saved);
    let restored = Embedded::open(&target).unwrap();
    assert_eq!(content(&restored).await, before);
    let now = restored.revision().await.unwrap();
    assert_eq!(now, revision + RESTORE_REVISIONS);
    for known in [revision, revision + 1] {
        assert_eq!(restored.watch("/", known).await.map(drop), Err(Error::Compacted { oldest: now }));
    }
    restored.commit(Txn::new().put("/registry/00002", "x")).await.unwrap();
    drop(restored);
    assert_eq!(Embedded::open(&target).unwrap().revision().await.unwrap(), now + 1);
}

#[tokio::test]
async fn a_snapshot_of_a_store_that_is_written_to_is_of_one_revision() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(&dir.path().join("source"), 1_100).await;
    let mut saver = snapshot::Saver::new(store.clone());
    let mut writer = snapshot::FileWriter::create(&dir.path().join("snapshot")).unwrap();
    let before = content(&*store).await;
    while let Some(piece) = saver.next().await.unwrap() {
        writer.write(&piece).unwrap();
        store
            .commit(
                Txn::new().put("/registry/00900", "later").delete("/registry/00901").put("/registry/x", "x"),
            )
            .await
            .unwrap();
    }
    writer.finish().unwrap();
    snapshot::restore(&dir.path().join("snapshot"), &dir.path().join("target"), false).unwrap();
    assert_eq!(content(&Embedded::open(dir.path().join("target")).unwrap()).await, before);
}

#[tokio::test]
async fn a_store_is_replaced_only_by_force_and_never_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (file, target) = (dir.path().join("snapshot"), dir.path().join("target"));
    let store = filled(&dir.path().join("source"), 10).await;
    snapshot::save(store, &file).await.unwrap();
    let old = filled(&target, 1).await;
    let error = snapshot::restore(&file, &target, true).unwrap_err();
    assert!(matches!(error, SnapshotError::Store(Error::InUse { .. })), "{error}");
    drop(old);
    let error = snapshot::restore(&file, &target, false).unwrap_err();
    assert!(matches!(error, SnapshotError::NotEmpty { .. }), "{error}");
    assert_eq!(content(&Embedded::open(&target).unwrap()).await.len(), 1);
    snapshot::restore(&file, &target, true).unwrap();
    assert_eq!(content(&Embedded::open(&target).unwrap()).await.len(), 9);
}

/// Every place at which the file can be cut, and every byte of it changed.
#[tokio::test]
async fn a_snapshot_that_is_not_whole_is_refused_and_nothing_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let (file, target) = (dir.path().join("snapshot"), dir.path().join("target"));
    snapshot::save(filled(&dir.path().join("source"), 5).await, &file).await.unwrap();
    let good = std::fs::read(&file).unwrap();
    let refused = |bytes: &[u8], what: &str| {
        std::fs::write(&file, bytes).unwrap();
        let error = snapshot::restore(&file, &target, true).expect_err(what);
        assert!(matches!(error, SnapshotError::Damaged { .. }), "{what}: {error}");
        assert!(!target.exists(), "{what}");
    };
    for length in 0..good.len() {
        refused(&good[..length], &format!("cut at {length}"));
    }
    for index in 0..good.len() {
        for change in [0x01, 0x80] {
            let mut bytes = good.clone();
            bytes[index] ^= change;
            refused(&bytes, &format!("byte {index} changed"));
        }
    }
    refused(&[good.as_slice(), b"x"].concat(), "longer");
    std::fs::write(&file, &good).unwrap();
    snapshot::restore(&file, &target, false).unwrap();
}

#[tokio::test]
async fn a_move_may_be_repeated_and_minds_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let from = filled(&dir.path().join("from"), 350).await;
    let to = Embedded::open(dir.path().join("to")).unwrap();
    let fate = |kv: &KeyValue| if &*kv.key == "/registry/00007" { Fate::Leave } else { Fate::Keep };
    // As an interrupted move leaves it.
    to.commit(Txn::new().put("/registry/00005", "{\"n\":5}")).await.unwrap();
    let moved = migrate::copy(&*from, &to, fate).await.unwrap();
    assert_eq!((moved.keys, moved.present), (348, 1));
    let pairs = |items: Vec<KeyValue>| items.into_iter().map(|kv| (kv.key, kv.value)).collect::<Vec<_>>();
    let mut expected = pairs(content(&*from).await);
    expected.retain(|(key, _)| &**key != "/registry/00007");
    assert_eq!(pairs(content(&to).await), expected);
    assert_eq!(migrate::copy(&*from, &to, fate).await.unwrap().present, 348);
    to.commit(Txn::new().put("/registry/00005", "other")).await.unwrap();
    let error = migrate::copy(&*from, &to, fate).await.unwrap_err();
    assert!(matches!(error, MigrateError::Occupied { count: 1, .. }), "{error}");
}

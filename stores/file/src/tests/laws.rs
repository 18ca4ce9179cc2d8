//! Random histories against a map, and what every store promises.

use std::collections::HashMap;

use bytes::Bytes;
use larder::{ClearPrefix, Entry, ErrorKind, Lifetime, SetOutcome, Store, Timestamp};
use proptest::prelude::*;

use super::{entry, now, on_disk, open, scratch, unbounded};
use crate::{Durability, FileStore};

/// Keys that other ways of naming files would mix up, put in danger or refuse.
fn hostile_keys() -> Vec<String> {
    let mut keys: Vec<String> = [
        "",
        ".",
        "..",
        "/",
        "//",
        "../../etc/passwd",
        "a",
        "A",
        "a/",
        "/a",
        "a/b",
        "a\\b",
        "a\0b",
        "\0",
        "a*",
        "*",
        "?",
        "[a]",
        "a:b",
        "🦀",
        "é",
        "e\u{301}",
        "larder-format",
        "larder-tmp",
        "con",
        " ",
        "a ",
        "\n",
        "\u{7f}",
        "%2e%2e",
        "~",
    ]
    .map(str::to_owned)
    .into();
    keys.push("x".repeat(255));
    keys.push("x".repeat(256));
    keys.push("k".repeat(64 * 1024));
    keys.push(format!("{}l", "k".repeat(64 * 1024 - 1)));
    keys
}

#[test]
fn s6_hostile_keys_never_meet_and_never_leave_the_directory() {
    let outside = scratch();
    let dir = outside.path().join("inner");
    let store = open(&dir);
    let keys = hostile_keys();
    for key in &keys {
        assert_eq!(now(store.set(key, entry(key.clone()))).unwrap(), SetOutcome::Stored);
    }
    for store in [&store, &open(&dir)] {
        for key in &keys {
            let found = now(store.get(key)).unwrap().expect("it was stored");
            assert_eq!(found.value(), key.as_bytes(), "{key:?}");
        }
        assert_eq!(store.len(), Some(keys.len() as u64));
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    for (removed, key) in keys.iter().enumerate() {
        now(store.remove(key)).unwrap();
        for (other, key) in keys.iter().enumerate() {
            assert_eq!(now(store.get(key)).unwrap().is_some(), other > removed, "{key:?}");
        }
    }
}

#[test]
fn values_of_every_size_come_back_whole() {
    let dir = scratch();
    let store = open(dir.path());
    // Around the sizes at which the way of reading changes, the header included.
    let sizes = [0, 1, 4_050, 4_096, 65_400, 65_485, 65_490, 65_495, 65_536, 65_537, 1_000_003];
    for size in sizes {
        let value = Bytes::from((0..=250).cycle().take(size).collect::<Vec<u8>>());
        for key in ["k".to_owned(), "k".repeat(10_000)] {
            now(store.set(&key, entry(value.clone()))).unwrap();
            assert_eq!(now(store.get(&key)).unwrap(), Some(entry(value.clone())), "{size}");
        }
    }
}

#[test]
fn every_mode_of_durability_keeps_the_laws() {
    for durability in [Durability::None, Durability::File, Durability::Full] {
        let dir = scratch();
        let store = unbounded(dir.path()).durability(durability).open_blocking().unwrap();
        now(store.set("a", entry("1"))).unwrap();
        now(store.set("a", entry("2"))).unwrap();
        now(store.set("b", entry("3"))).unwrap();
        now(store.remove("b")).unwrap();
        now(store.remove("never there")).unwrap();
        now(store.flush()).unwrap();
        assert_eq!(now(store.get("a")).unwrap(), Some(entry("2")));
        assert_eq!(now(store.get("b")).unwrap(), None);
        now(store.clear()).unwrap();
        now(store.clear()).unwrap();
        assert_eq!((store.len(), store.weight()), (Some(0), Some(0)));
    }
}

#[test]
fn a_description_says_what_was_chosen() {
    let dir = scratch();
    let builder =
        FileStore::at(dir.path()).max_entries(10_000).max_bytes(3 << 20).durability(Durability::File);
    let store = builder.open_blocking().unwrap();
    let text = store.describe().to_string();
    let expected = format!(
        "file (dir {}, max_entries 10,000, max_bytes 3 MiB, durability file) holds 0 entries, 0 B",
        dir.path().display()
    );
    assert_eq!(text, expected);
}

#[tokio::test]
async fn s11_bulk_calls_equal_their_single_calls() {
    let dir = scratch();
    let store = unbounded(dir.path()).open().await.unwrap();
    std::fs::create_dir_all(super::file_of(dir.path(), "blocked")).unwrap();
    let given = [("a", entry("1")), ("blocked", entry("2")), ("a", entry("3")), ("b", entry("4"))];
    let stored = store.set_many(&given).await;
    assert_eq!(stored.len(), 4);
    assert_eq!(stored[1].as_ref().unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(stored[0].is_ok() && stored[2].is_ok() && stored[3].is_ok(), "an error stops nobody else");
    let found = store.get_many(&["b", "blocked", "none", "a"], Timestamp::EPOCH).await;
    assert_eq!(found[0].as_ref().unwrap(), &Some(entry("4")));
    assert!(found[1].is_err());
    assert_eq!(found[2].as_ref().unwrap(), &None);
    assert_eq!(found[3].as_ref().unwrap(), &Some(entry("3")));
    let removed = store.remove_many(&["a", "blocked", "none"]).await;
    assert!(removed[0].is_ok() && removed[1].is_err() && removed[2].is_ok());
    assert_eq!(store.get("a").await.unwrap(), None);
    assert_eq!(store.len(), Some(1));
}

#[derive(Clone, Debug)]
enum Step {
    Get(usize),
    Set(usize, Entry<Bytes>),
    SetMany(Vec<(usize, Entry<Bytes>)>),
    Remove(usize),
    Clear,
    ClearPrefix(&'static str),
    Reopen,
}

const KEYS: [&str; 6] = ["", "a", "a/", "a/b", "ab", "🦀"];

prop_compose! {
    fn any_entry()(
        value in prop::collection::vec(any::<u8>(), 0..80),
        instants in any::<[u64; 4]>(),
        tags in prop::collection::vec("[a-c]{0,2}", 0..3),
        version in prop::option::of("[a-c]{0,2}"),
    ) -> Entry<Bytes> {
        let [created_at, fresh_until, stale_until, keep_until] = instants.map(Timestamp::from_nanos);
        let life = Lifetime::new(created_at, fresh_until, stale_until, keep_until);
        let entry = Entry::new(Bytes::from(value), life).with_tags(tags);
        match version {
            Some(version) => entry.with_version(version),
            None => entry,
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS.len();
    prop_oneof![
        4 => key.clone().prop_map(Step::Get),
        6 => (key.clone(), any_entry()).prop_map(|(key, entry)| Step::Set(key, entry)),
        1 => prop::collection::vec((key.clone(), any_entry()), 0..4).prop_map(Step::SetMany),
        2 => key.prop_map(Step::Remove),
        1 => Just(Step::Clear),
        1 => prop::sample::select(vec!["", "a", "a/", "b"]).prop_map(Step::ClearPrefix),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// S1, S3, S5, S9: with room for all, a directory is a map that survives.
    #[test]
    fn a_history_equals_that_of_a_map(steps in prop::collection::vec(step(), 1..25)) {
        let dir = scratch();
        let mut store = open(dir.path());
        let mut model: HashMap<&str, Entry<Bytes>> = HashMap::new();
        for step in steps {
            match step {
                Step::Get(key) => {
                    prop_assert_eq!(now(store.get(KEYS[key])).unwrap(), model.get(KEYS[key]).cloned());
                }
                Step::Set(key, entry) => {
                    let outcome = now(store.set(KEYS[key], entry.clone())).unwrap();
                    prop_assert_eq!(outcome, SetOutcome::Stored);
                    model.insert(KEYS[key], entry);
                }
                Step::SetMany(entries) => {
                    let entries: Vec<_> = entries.into_iter().map(|(key, entry)| (KEYS[key], entry)).collect();
                    prop_assert!(now(store.set_many(&entries)).iter().all(Result::is_ok));
                    model.extend(entries);
                }
                Step::Remove(key) => {
                    now(store.remove(KEYS[key])).unwrap();
                    model.remove(KEYS[key]);
                }
                Step::Clear => {
                    now(store.clear()).unwrap();
                    model.clear();
                }
                Step::ClearPrefix(prefix) => {
                    now(store.clear_prefix(prefix)).unwrap();
                    model.retain(|key, _| !key.starts_with(prefix));
                }
                Step::Reopen => {
                    drop(store);
                    store = open(dir.path());
                }
            }
            prop_assert_eq!(store.len(), Some(model.len() as u64));
            let files = on_disk(dir.path());
            prop_assert_eq!(store.weight(), Some(files.iter().sum()));
        }
        for key in KEYS {
            prop_assert_eq!(now(store.get(key)).unwrap(), model.get(key).cloned());
        }
    }

    /// S3, S10: in a small store an entry may be missing, never wrong, and the bounds hold after each call.
    #[test]
    fn s10_a_bounded_history_stays_within_its_bounds(
        steps in prop::collection::vec(step(), 1..40),
        max_entries in 1u64..5,
        max_bytes in 1u64..400,
    ) {
        let dir = scratch();
        let bounded = || FileStore::at(dir.path()).max_entries(max_entries).max_bytes(max_bytes).open_blocking().unwrap();
        let mut store = bounded();
        let mut model: HashMap<&str, Entry<Bytes>> = HashMap::new();
        for step in steps {
            match step {
                Step::Get(key) => {
                    if let Some(found) = now(store.get(KEYS[key])).unwrap() {
                        prop_assert_eq!(Some(&found), model.get(KEYS[key]));
                    }
                }
                Step::Set(key, entry) => {
                    let len = larder::wire::encoded_len(KEYS[key].as_bytes(), &entry);
                    let outcome = now(store.set(KEYS[key], entry.clone())).unwrap();
                    prop_assert_eq!(outcome == SetOutcome::Stored, len <= max_bytes);
                    let found = now(store.get(KEYS[key])).unwrap();
                    prop_assert_eq!(found.is_some(), len <= max_bytes, "kept, or refused and the old one gone");
                    model.insert(KEYS[key], entry);
                }
                Step::SetMany(entries) => {
                    for (key, entry) in entries {
                        now(store.set(KEYS[key], entry.clone())).unwrap();
                        model.insert(KEYS[key], entry);
                    }
                }
                Step::Remove(key) => {
                    now(store.remove(KEYS[key])).unwrap();
                    model.remove(KEYS[key]);
                }
                Step::Clear | Step::ClearPrefix(_) => {
                    now(store.clear()).unwrap();
                    model.clear();
                }
                Step::Reopen => {
                    drop(store);
                    store = bounded();
                }
            }
            let files = on_disk(dir.path());
            prop_assert_eq!(store.len(), Some(files.len() as u64));
            prop_assert_eq!(store.weight(), Some(files.iter().sum()));
            prop_assert!(files.len() as u64 <= max_entries);
            prop_assert!(files.iter().sum::<u64>() <= max_bytes);
        }
    }
}

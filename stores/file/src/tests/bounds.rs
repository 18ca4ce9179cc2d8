//! What a full store gives up, and what not.

use std::fs::File;

use bytes::Bytes;
use larder::{Entry, ErrorKind, Lifetime, ManualClock, Refusal, SetOutcome, Store, Timestamp, wire};

use super::{at, entry, file_of, now, on_disk, open, scratch, unbounded};
use crate::FileStore;

fn holds(store: &FileStore, keys: &str) -> String {
    let kept = |key: &char| now(store.get(key.to_string().as_str())).unwrap().is_some();
    keys.chars().filter(kept).collect()
}

fn fill(store: &FileStore, keys: &str) {
    for key in keys.chars() {
        now(store.set(key.to_string().as_str(), entry("value"))).unwrap();
    }
}

#[test]
fn what_was_read_outlives_what_was_not() {
    let dir = scratch();
    let store = FileStore::at(dir.path()).max_entries(4).open_blocking().unwrap();
    fill(&store, "abcd");
    assert_eq!(holds(&store, "ac"), "ac");
    fill(&store, "ef");
    assert_eq!(holds(&store, "abcdef"), "acef");
}

#[test]
fn a_scan_does_not_drive_out_what_is_read() {
    let dir = scratch();
    let store = FileStore::at(dir.path()).max_entries(8).open_blocking().unwrap();
    fill(&store, "abcd");
    for passer in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ".chars() {
        assert_eq!(holds(&store, "abcd"), "abcd");
        fill(&store, &passer.to_string());
    }
    assert_eq!(holds(&store, "abcd"), "abcd");
}

#[test]
fn s12_dead_entries_go_first_and_never_before_their_time() {
    let dir = scratch();
    let clock = ManualClock::new(at(100));
    let store = FileStore::at(dir.path()).max_entries(3).clock(clock.clone()).open_blocking().unwrap();
    let until = |second| Lifetime::new(at(100), at(100), at(100), at(second));
    let set = |key: &str, life| now(store.set(key, Entry::new(Bytes::new(), life))).unwrap();
    // Looked up without the store, which would count it as a use.
    let there = |keys: &str| -> String {
        keys.chars().filter(|key| file_of(dir.path(), &key.to_string()).exists()).collect()
    };
    set("a", until(10_000));
    set("b", Lifetime::forever(Timestamp::EPOCH));
    set("c", until(200));
    // Its deadline itself still belongs to its life: the oldest goes.
    clock.set(at(200));
    set("d", until(10_000));
    assert_eq!(there("abcd"), "bcd");
    // Now it is dead: it goes, though another is older.
    clock.set(at(202));
    set("e", until(10_000));
    assert_eq!(there("bcde"), "bde");
    // Without need of room nothing goes, dead or not.
    clock.set(at(20_000));
    assert_eq!(holds(&store, "bde"), "bde");
    assert_eq!(store.len(), Some(3));
}

#[test]
fn an_entry_above_the_bound_is_refused_and_the_old_one_gone() {
    let dir = scratch();
    let limit = wire::encoded_len(b"a", &entry(vec![0; 1000]));
    let store = FileStore::at(dir.path()).max_bytes(limit).open_blocking().unwrap();
    assert_eq!(
        now(store.set("a", entry(vec![0; 1000]))).unwrap(),
        SetOutcome::Stored,
        "the bound itself fits"
    );
    assert_eq!(store.weight(), Some(limit));
    let refused = now(store.set("a", entry(vec![0; 1001]))).unwrap();
    assert_eq!(refused, SetOutcome::Refused(Refusal::TooLarge));
    assert_eq!(now(store.get("a")).unwrap(), None);
    assert_eq!((store.len(), store.weight()), (Some(0), Some(0)));
    assert!(on_disk(dir.path()).is_empty());
}

#[test]
fn only_as_many_go_as_need_be() {
    let dir = scratch();
    let one = wire::encoded_len(b"a", &entry(vec![0; 100]));
    let store = FileStore::at(dir.path()).max_bytes(10 * one).open_blocking().unwrap();
    for key in "abcdefghij".chars() {
        now(store.set(key.to_string().as_str(), entry(vec![0; 100]))).unwrap();
    }
    now(store.set("k", entry(vec![0; 100]))).unwrap();
    assert_eq!(store.len(), Some(10), "one for one");
    now(store.set("l", entry(vec![0; usize::try_from(one).unwrap() + 80]))).unwrap();
    assert_eq!(store.len(), Some(9), "two for one of twice the size");
    // To overwrite needs no room but the difference.
    now(store.set("l", entry(vec![1; usize::try_from(one).unwrap() + 80]))).unwrap();
    assert_eq!(store.len(), Some(9));
}

#[test]
fn a_bound_of_zero_is_an_error_that_names_it_and_a_huge_one_is_none() {
    let dir = scratch();
    let entries = FileStore::at(dir.path()).max_entries(0).open_blocking().unwrap_err();
    let bytes = FileStore::at(dir.path()).max_bytes(0).open_blocking().unwrap_err();
    for (error, argument) in [(entries, "max_entries"), (bytes, "max_bytes")] {
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(argument), "{error}");
    }
    let store = unbounded(dir.path()).open_blocking().unwrap();
    fill(&store, "abc");
    assert_eq!(holds(&store, "abc"), "abc");
    assert!(!store.describe().to_string().contains("max"));
}

#[test]
fn s10_a_lower_bound_holds_when_opening_has_returned_and_the_newest_stay() {
    let dir = scratch();
    fill(&open(dir.path()), "abcdefghij");
    // Files that were written within one tick of the disk's clock have no order among them.
    for (age, key) in "abcdefghij".chars().enumerate() {
        let file = File::options().append(true).open(file_of(dir.path(), &key.to_string())).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(age as u64)).unwrap();
    }
    let store = FileStore::at(dir.path()).max_entries(3).open_blocking().unwrap();
    assert_eq!((store.len(), on_disk(dir.path()).len()), (Some(3), 3));
    assert_eq!(holds(&store, "abcdefghij"), "hij");
}

#[test]
fn opening_lists_the_files_and_reads_none() {
    let dir = scratch();
    let path = file_of(dir.path(), "huge");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    // A tebibyte of nothing: whoever tried to read it would not be back today.
    File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let store = open(dir.path());
    assert_eq!((store.len(), store.weight()), (Some(1), Some(1 << 40)));
    assert_eq!(now(store.get("huge")).unwrap_err().kind(), ErrorKind::Corrupt);
    now(store.set("huge", entry("small"))).unwrap();
    assert!(store.weight() < Some(100));
}

#[test]
fn empty_values_count_as_their_headers() {
    let dir = scratch();
    let store = FileStore::at(dir.path()).max_entries(5).open_blocking().unwrap();
    for key in 0..100 {
        now(store.set(&format!("{key}"), entry(""))).unwrap();
    }
    assert_eq!(store.len(), Some(5));
    assert_eq!(store.weight(), Some(on_disk(dir.path()).iter().sum()));
    assert!(store.weight() > Some(5 * 42));
}

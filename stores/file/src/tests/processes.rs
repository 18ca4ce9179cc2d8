//! Two openings of one directory: they behave as two processes do, locks included.

use std::fs;

use larder::Store;

use super::{entry, file_of, names, now, on_disk, open, scratch, temporaries, unbounded};
use crate::FileStore;

#[test]
fn each_sees_what_the_other_wrote_and_removed() {
    let dir = scratch();
    let (here, there) = (open(dir.path()), open(dir.path()));
    now(here.set("k", entry("1"))).unwrap();
    assert_eq!(there.len(), Some(0), "not known yet");
    assert_eq!(now(there.get("k")).unwrap(), Some(entry("1")));
    assert_eq!((there.len(), there.weight()), (Some(1), here.weight()), "known since it was read");
    now(there.set("k", entry("longer than before"))).unwrap();
    assert_eq!(now(here.get("k")).unwrap(), Some(entry("longer than before")));
    assert_eq!(here.weight(), there.weight(), "the new size is noticed");
    now(here.remove("k")).unwrap();
    assert_eq!(now(there.get("k")).unwrap(), None);
    assert_eq!((there.len(), there.weight()), (Some(0), Some(0)));
    now(there.remove("k")).unwrap();
}

#[test]
fn clear_takes_what_the_other_wrote_and_forgets_what_the_other_removed() {
    let dir = scratch();
    let (here, there) = (open(dir.path()), open(dir.path()));
    now(here.set("mine", entry("1"))).unwrap();
    now(here.set("gone", entry("2"))).unwrap();
    now(there.set("yours", entry("3"))).unwrap();
    now(there.remove("gone")).unwrap();
    now(here.clear()).unwrap();
    assert!(on_disk(dir.path()).is_empty());
    assert_eq!((here.len(), here.weight()), (Some(0), Some(0)));
    assert_eq!(now(there.get("yours")).unwrap(), None);
    assert_eq!(there.len(), Some(0));
}

#[test]
fn an_eviction_of_what_is_already_gone_is_no_error() {
    let dir = scratch();
    let here = FileStore::at(dir.path()).max_entries(2).open_blocking().unwrap();
    let there = open(dir.path());
    now(here.set("a", entry("1"))).unwrap();
    now(here.set("b", entry("2"))).unwrap();
    now(there.clear()).unwrap();
    now(here.set("c", entry("3"))).unwrap();
    now(here.set("d", entry("4"))).unwrap();
    assert_eq!(here.len(), Some(2));
    assert_eq!(now(here.get("c")).unwrap(), Some(entry("3")));
}

#[test]
fn s10_reading_what_the_other_wrote_keeps_the_bound() {
    let dir = scratch();
    let here = FileStore::at(dir.path()).max_entries(2).max_bytes(1_000).open_blocking().unwrap();
    let there = open(dir.path());
    for key in ["a", "b", "c"] {
        now(there.set(key, entry("x"))).unwrap();
        assert_eq!(now(here.get(key)).unwrap(), Some(entry("x")));
        assert!(here.len() <= Some(2));
    }
    // What this one would have refused may be right for the other: it is served, not counted, not deleted.
    now(there.set("c", entry(vec![0; 2_000]))).unwrap();
    assert_eq!(now(here.get("c")).unwrap(), Some(entry(vec![0; 2_000])));
    assert!(here.weight() <= Some(1_000));
    assert_eq!(now(there.get("c")).unwrap(), Some(entry(vec![0; 2_000])));
}

#[test]
fn temporary_files_of_the_living_stay_and_of_the_dead_go() {
    let dir = scratch();
    let living = open(dir.path());
    let being_written = living.shelf.directory().write([b"not yet", &[]]).unwrap();
    let temp = dir.path().join("larder-tmp");
    // Of processes that ended without a trace, with their lock file left behind, and of none of ours.
    fs::write(temp.join("4000000000-0.7.tmp"), "orphan").unwrap();
    fs::write(temp.join("4000000000-1.7.tmp"), "orphan").unwrap();
    fs::write(temp.join("4000000000-1.lock"), "").unwrap();
    fs::write(temp.join("notes.tmp"), "mine").unwrap();
    let other = open(dir.path());
    let mut left = temporaries(dir.path());
    left.sort();
    let ours = format!("{}-0.", std::process::id());
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left[0].starts_with(&ours) && left[1] == "notes.tmp", "{left:?}");
    assert!(!temp.join("4000000000-1.lock").exists());
    drop(being_written);
    drop((living, other));
    let locks: Vec<_> = names(dir.path(), "lock");
    assert!(locks.is_empty(), "{locks:?}");
}

#[test]
fn a_store_mends_what_was_deleted_under_its_feet() {
    let dir = scratch();
    let store = unbounded(dir.path()).open_blocking().unwrap();
    now(store.set("k", entry("1"))).unwrap();
    fs::remove_dir_all(dir.path()).unwrap();
    assert_eq!(now(store.get("k")).unwrap(), None);
    now(store.set("k", entry("2"))).unwrap();
    assert_eq!(now(store.get("k")).unwrap(), Some(entry("2")));
    assert!(file_of(dir.path(), "k").exists());
}

//! Files that are not what was written: changed, cut, swapped, foreign, newer.

use std::fs::{self, File};
use std::path::Path;

use bytes::Bytes;
use larder::{ClearPrefix, ErrorKind, Operation, Store, wire};
use proptest::prelude::*;
use proptest::sample::Index;

use super::{entry, file_of, now, on_disk, open, scratch};
use crate::FileStore;

/// The entry of "k" as bytes that the format of a later program might have.
fn newer(key: &str) -> Vec<u8> {
    let mut bytes = wire::encode(key.as_bytes(), &entry("from the future")).to_vec();
    bytes[4] = bytes[4].wrapping_add(1);
    bytes
}

fn put(dir: &Path, key: &str, bytes: &[u8]) {
    let path = file_of(dir, key);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Whatever stood in its place: an entry can be written over it, read, and removed.
fn is_usable(store: &FileStore, key: &str) {
    now(store.set(key, entry("again"))).unwrap();
    assert_eq!(now(store.get(key)).unwrap(), Some(entry("again")));
    now(store.remove(key)).unwrap();
    assert_eq!(now(store.get(key)).unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// S7, for files of the size that is read at once and of one that is not.
    #[test]
    fn s7_a_damaged_file_is_an_error_and_can_be_overwritten(
        size in prop_oneof![0usize..100, Just(70_000)],
        at: Index,
        damage in 0..4,
        more in prop::collection::vec(any::<u8>(), 1..10),
    ) {
        let dir = scratch();
        let store = open(dir.path());
        now(store.set("k", entry(vec![7; size]))).unwrap();
        let path = file_of(dir.path(), "k");
        let mut bytes = fs::read(&path).unwrap();
        match damage {
            0 => {
                let bit = at.index(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            1 => bytes.truncate(at.index(bytes.len())),
            2 => bytes.extend(more),
            _ => bytes.fill(0),
        }
        fs::write(&path, &bytes).unwrap();
        for store in [&store, &open(dir.path())] {
            let error = now(store.get("k")).unwrap_err();
            prop_assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NewerVersion));
            prop_assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
        is_usable(&store, "k");
    }

    #[test]
    fn s7_a_foreign_file_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let dir = scratch();
        let store = open(dir.path());
        put(dir.path(), "k", &bytes);
        prop_assert_eq!(now(store.get("k")).unwrap_err().kind(), ErrorKind::Corrupt);
        is_usable(&store, "k");
    }
}

#[test]
fn s6_a_file_moved_to_another_key_is_refused() {
    let dir = scratch();
    let store = open(dir.path());
    now(store.set("alice", entry("hers"))).unwrap();
    now(store.set("bob", entry("his"))).unwrap();
    fs::copy(file_of(dir.path(), "alice"), file_of(dir.path(), "bob")).unwrap();
    assert_eq!(now(store.get("bob")).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(now(store.get("alice")).unwrap(), Some(entry("hers")));
    is_usable(&store, "bob");
}

#[test]
fn an_entry_of_a_newer_version_is_told_from_damage_and_can_be_overwritten() {
    let dir = scratch();
    let store = open(dir.path());
    put(dir.path(), "k", &newer("k"));
    let error = now(store.get("k")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NewerVersion);
    is_usable(&store, "k");
}

/// Nobody here can tell whether its key has the prefix, so the answer is an error and not a lie.
#[test]
fn clear_prefix_does_all_it_can_and_reports_a_newer_entry() {
    let dir = scratch();
    let store = open(dir.path());
    put(dir.path(), "a/newer", &newer("a/newer"));
    put(dir.path(), "a/corrupt", b"garbage");
    for key in ["a/1", "a/2", "b/1"] {
        now(store.set(key, entry("x"))).unwrap();
    }
    let error = now(store.clear_prefix("a/")).unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::NewerVersion, Operation::Clear));
    assert_eq!(now(store.get("a/1")).unwrap(), None);
    assert_eq!(now(store.get("a/2")).unwrap(), None);
    assert_eq!(now(store.get("b/1")).unwrap(), Some(entry("x")));
    now(store.remove("a/newer")).unwrap();
    now(store.clear_prefix("a/")).unwrap();
}

#[test]
fn clear_prefix_reads_keys_of_every_length() {
    let dir = scratch();
    let store = open(dir.path());
    let long = "p".repeat(64 * 1024);
    let (near, far) = (format!("{long}x"), format!("{}y", &long[1..]));
    now(store.set(&near, entry("x"))).unwrap();
    now(store.set(&far, entry("y"))).unwrap();
    now(store.clear_prefix(&long)).unwrap();
    assert_eq!(now(store.get(&near)).unwrap(), None);
    assert_eq!(now(store.get(&far)).unwrap(), Some(entry("y")));
}

#[test]
fn a_directory_of_a_newer_version_is_refused_untouched() {
    let dir = scratch();
    now(open(dir.path()).set("k", entry("x"))).unwrap();
    fs::write(dir.path().join("larder-format"), "larder-file 2\nwith more to say\n").unwrap();
    fs::remove_dir_all(dir.path().join("larder-tmp")).unwrap();
    let error = FileStore::at(dir.path()).open_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NewerVersion);
    assert!(error.to_string().contains("larder-format"), "{error}");
    assert!(!dir.path().join("larder-tmp").exists());
    assert_eq!(on_disk(dir.path()).len(), 1);
}

#[test]
fn a_marker_that_makes_no_sense_is_an_error_with_a_remedy() {
    for text in ["", "2", "larder-file", "larder-file -1", "larder-file 0", "hello\n", "\u{1F980}"] {
        let dir = scratch();
        fs::write(dir.path().join("larder-format"), text).unwrap();
        let error = FileStore::at(dir.path()).open_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{text:?}");
        assert!(error.to_string().contains("delete this file"), "{error}");
    }
}

#[test]
fn s5_clear_touches_nothing_that_is_not_ours() {
    let dir = scratch();
    let store = open(dir.path());
    for key in 0..20 {
        now(store.set(&format!("{key}"), entry("x"))).unwrap();
    }
    let lane = file_of(dir.path(), "0").parent().unwrap().to_owned();
    let ours = file_of(dir.path(), "0").file_name().unwrap().to_str().unwrap().to_owned();
    let foreign = [
        dir.path().join("notes.txt"),
        dir.path().join(&ours),
        lane.join("notes.txt"),
        lane.join(ours.to_uppercase()),
        lane.join(format!("{ours}.bak")),
        lane.join(format!("{}0", &ours[..63])).with_extension("tmp"),
        dir.path().join("larder-tmp").join("notes.txt"),
    ];
    for path in &foreign {
        fs::write(path, "mine").unwrap();
    }
    fs::create_dir(dir.path().join("zz")).unwrap();
    now(store.clear()).unwrap();
    let again = open(dir.path());
    now(again.clear()).unwrap();
    for path in &foreign {
        assert_eq!(fs::read(path).unwrap(), b"mine", "{}", path.display());
    }
    assert!(dir.path().join("zz").exists());
    assert_eq!((store.len(), again.len()), (Some(0), Some(0)));
}

#[test]
fn what_is_no_file_is_an_error_and_not_a_hang() {
    let dir = scratch();
    let store = open(dir.path());
    fs::create_dir_all(file_of(dir.path(), "folder")).unwrap();
    let pipe = file_of(dir.path(), "pipe");
    fs::create_dir_all(pipe.parent().unwrap()).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for store in [&store, &open(dir.path())] {
        assert_eq!(store.len(), Some(0));
        for key in ["folder", "pipe"] {
            assert_eq!(now(store.get(key)).unwrap_err().kind(), ErrorKind::Corrupt, "{key}");
        }
    }
    is_usable(&store, "pipe");
    assert_eq!(now(store.set("folder", entry("x"))).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(store.len(), Some(0));
}

/// A read that finds a whole entry serves it, whatever stands in the way of counting it.
#[test]
fn a_read_does_not_fail_for_what_cannot_be_evicted() {
    let dir = scratch();
    let (full, there) = (FileStore::at(dir.path()).max_entries(1).open_blocking().unwrap(), open(dir.path()));
    now(full.set("victim", entry("1"))).unwrap();
    let place = file_of(dir.path(), "victim");
    fs::remove_file(&place).unwrap();
    fs::create_dir(&place).unwrap();
    now(there.set("k", entry("2"))).unwrap();
    for _ in 0..2 {
        assert_eq!(now(full.get("k")).unwrap(), Some(entry("2")));
        assert_eq!(full.len(), Some(1), "it is not counted, so the bound holds");
    }
    fs::remove_dir(&place).unwrap();
    assert_eq!(now(full.get("k")).unwrap(), Some(entry("2")));
    assert_eq!((full.len(), full.weight()), (Some(1), there.weight()), "and counted when there is room");
}

#[test]
fn a_file_named_like_a_lane_blocks_its_keys_and_no_others() {
    let dir = scratch();
    let lane = file_of(dir.path(), "k").parent().unwrap().to_owned();
    fs::write(&lane, "mine").unwrap();
    let store = open(dir.path());
    assert_eq!(now(store.get("k")).unwrap_err().kind(), ErrorKind::Corrupt);
    let error = now(store.set("k", entry("x"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("remove it"), "{error}");
    is_usable(&store, "other");
    now(store.clear()).unwrap();
    assert_eq!(fs::read(&lane).unwrap(), b"mine");
}

#[test]
fn a_lying_header_costs_no_memory() {
    let dir = scratch();
    let store = open(dir.path());
    // A header that announces a key of four exbibytes, in a file long enough to be looked at in parts.
    let mut bytes = wire::encode(b"", &entry(Bytes::new()))[..42].to_vec();
    bytes.extend([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40, 0, 0]);
    put(dir.path(), "k", &bytes);
    File::options().append(true).open(file_of(dir.path(), "k")).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(now(store.get("k")).unwrap_err().kind(), ErrorKind::Corrupt);
    now(store.clear_prefix("x")).unwrap();
    // A header that is right, before a tebibyte that it does not speak of.
    now(store.set("k", entry("x"))).unwrap();
    File::options().append(true).open(file_of(dir.path(), "k")).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(now(store.get("k")).unwrap_err().kind(), ErrorKind::Corrupt);
}

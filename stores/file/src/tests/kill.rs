//! A writer that is killed in the middle of it, again and again.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use bytes::Bytes;
use larder::Store;

use super::{another_process, entry, given_dir, now, on_disk, own_program, scratch, temporaries};
use crate::{Durability, FileStore};

const FIRST: &str = "LARDER_FILE_TEST_FIRST";
const MODE: &str = "LARDER_FILE_TEST_MODE";
const KEYS: u64 = 24;

/// What the writer does in its step `number`: a pure function, so that the parent knows it too.
enum Step {
    Set(String, Bytes),
    Remove(String),
    Clear,
}

fn step(number: u64) -> Step {
    let chance = mixed(number);
    let key = format!("key {}", chance % KEYS);
    match (chance >> 8) % 64 {
        0 => Step::Clear,
        1..=8 => Step::Remove(key),
        _ => {
            let words = (chance >> 16) % 2_500;
            Step::Set(key, (0..words).flat_map(|word| (number ^ word).to_le_bytes()).collect())
        }
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): the same numbers in every run.
fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn opened(dir: &std::path::Path, mode: &str) -> FileStore {
    let builder = FileStore::at(dir);
    let builder = match mode {
        "file" => builder.durability(Durability::File),
        "full" => builder.durability(Durability::Full),
        "bounded" => builder.max_entries(6).max_bytes(60_000),
        _ => builder,
    };
    builder.open_blocking().expect("a directory that a killed process left opens")
}

/// Not a test of its own: what the killed process runs.
#[test]
fn writer() {
    let (Some(dir), Ok(mode)) = (given_dir(), std::env::var(MODE)) else { return };
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let store = opened(&dir, &mode);
    // Straight to the pipe: what is acknowledged is out, whatever happens to this process.
    let mut acknowledge = std::io::stdout();
    for number in first.. {
        match step(number) {
            Step::Set(key, value) => drop(now(store.set(&key, entry(value))).unwrap()),
            Step::Remove(key) => now(store.remove(&key)).unwrap(),
            Step::Clear => now(store.clear()).unwrap(),
        }
        // The parent has gone: so do we.
        if writeln!(acknowledge, "\nstep {number}").and_then(|()| acknowledge.flush()).is_err() {
            return;
        }
    }
}

#[derive(Default)]
struct Model(BTreeMap<String, Bytes>);

impl Model {
    fn apply(&mut self, step: Step) {
        match step {
            Step::Set(key, value) => drop(self.0.insert(key, value)),
            Step::Remove(key) => drop(self.0.remove(&key)),
            Step::Clear => self.0.clear(),
        }
    }
}

fn rounds(mode: &str, default: u64) {
    let rounds = std::env::var("LARDER_KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let dir = scratch();
    let (mut model, mut next) = (Model::default(), 0);
    for round in 0..rounds.unwrap_or(default) {
        let kill_after = 1 + mixed(round ^ u64::from(mode.as_bytes()[1]) << 32) % 60;
        let acknowledged = killed_writer(dir.path(), mode, next, kill_after);
        assert!(acknowledged >= kill_after, "round {round}: the writer ended by itself");
        for number in next..next + acknowledged {
            model.apply(step(number));
        }
        next += acknowledged;

        let store = opened(dir.path(), mode);
        assert_eq!(temporaries(dir.path()), [""; 0], "round {round}: swept");
        let files = on_disk(dir.path());
        assert_eq!((store.len(), store.weight()), (Some(files.len() as u64), Some(files.iter().sum())));
        check(&store, &mut model, next, mode == "bounded", round);
        // The step after the last acknowledged one may have been done or not; do it now.
        next += 1;
    }
}

/// Starts a writer at step `first`, kills it after so many acknowledgements, and returns how many it gave.
fn killed_writer(dir: &std::path::Path, mode: &str, first: u64, kill_after: u64) -> u64 {
    let mut writer = another_process(&[], &own_program(), "tests::kill::writer", dir)
        .env(MODE, mode)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(writer.stdout.take().unwrap());
    let mut acknowledged = 0;
    for line in output.lines() {
        // The last line may be cut: then the step was not acknowledged.
        if line.unwrap() == format!("step {}", first + acknowledged) {
            acknowledged += 1;
            if acknowledged == kill_after {
                writer.kill().unwrap();
            }
        }
    }
    writer.wait().unwrap();
    acknowledged
}

/// Every acknowledged entry is there and whole, and the step `unsure` was done or not, for each key of it.
fn check(store: &FileStore, model: &mut Model, unsure: u64, may_forget: bool, round: u64) {
    for key in (0..KEYS).map(|key| format!("key {key}")) {
        let found = now(store.get(&key)).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let found = found.map(larder::Entry::into_value);
        let before = model.0.get(&key).cloned();
        let after = match step(unsure) {
            Step::Set(changed, value) if changed == key => Some(value),
            Step::Remove(changed) if changed == key => None,
            Step::Clear => None,
            _ => before.clone(),
        };
        let forgotten = may_forget && found.is_none();
        assert!(found == before || found == after || forgotten, "round {round}, {key:?}: torn or lost");
        match found {
            Some(found) => drop(model.0.insert(key, found)),
            None => drop(model.0.remove(&key)),
        }
    }
}

#[test]
fn acknowledged_entries_outlive_kill_9_without_fsync() {
    rounds("none", 20);
}

#[test]
fn acknowledged_entries_outlive_kill_9_with_fsync_of_files() {
    rounds("file", 20);
}

#[test]
fn acknowledged_entries_outlive_kill_9_with_fsync_of_folders() {
    rounds("full", 20);
}

#[test]
fn a_full_store_outlives_kill_9_within_its_bounds() {
    rounds("bounded", 20);
}

/// The rename is what counts: were the file written in place, a kill would leave a torn one.
#[test]
fn what_a_killed_writer_had_not_renamed_is_no_entry() {
    let dir = scratch();
    let store = super::open(dir.path());
    now(store.set("k", entry("old"))).unwrap();
    std::mem::forget(store.shelf.directory().write([b"half of a ", &[]]).unwrap());
    assert_eq!(temporaries(dir.path()).len(), 1);
    assert_eq!(now(store.get("k")).unwrap(), Some(entry("old")));
    drop(store);
    let store = super::open(dir.path());
    assert!(temporaries(dir.path()).is_empty());
    assert_eq!(now(store.get("k")).unwrap(), Some(entry("old")));
    assert_eq!(store.len(), Some(1));
}

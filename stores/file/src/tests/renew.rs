//! Renewals (law S13): a lifetime written in place, where that is all that is new.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use larder::codec::Raw;
use larder::{Cache, Computed, Entry, Lifetime, ManualClock, Memory, SetOutcome, Store, StoreExt, wire};
use proptest::prelude::*;

use super::{at, file_of, now, on_disk, open, scratch, unbounded};
use crate::{Durability, FileStore};

/// What a renewal in place writes.
const LIFETIME: u64 = 36;

fn of(value: impl Into<Bytes>, second: u64) -> Entry<Bytes> {
    let life = Lifetime::new(at(second), at(second + 1), at(second + 2), at(second + 3));
    Entry::new(value.into(), life).with_version("v1").with_tags(["a", "b"])
}

fn written(store: &FileStore, call: impl FnOnce()) -> (u64, u64) {
    let before = store.stats();
    call();
    let after = store.stats();
    (after.bytes_written - before.bytes_written, after.renewals - before.renewals)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// S13: the file is what a write makes of the entry, byte for byte, and no byte of the value was written
    /// if it was there.
    #[test]
    fn s13_a_renewed_file_is_what_a_write_makes_of_it(
        held in prop::option::of((0..3u8, 0..3usize)),
        (value, length) in (0..3u8, 0..3usize),
        labels: bool,
        durability in 0..3usize,
    ) {
        let dir = scratch();
        let modes = [Durability::None, Durability::File, Durability::Full];
        let store = unbounded(dir.path()).durability(modes[durability]).open_blocking().unwrap();
        let bytes = |(value, length): (u8, usize)| vec![value; [0, 100, 200_000][length]];
        if let Some(held) = held {
            now(store.set("k", of(bytes(held), 1))).unwrap();
        }
        let mut renewed = of(bytes((value, length)), 7);
        if labels {
            renewed = renewed.with_version("v2");
        }
        let (bytes_written, renewals) = written(&store, || {
            assert_eq!(now(store.renew("k", renewed.clone())).unwrap(), SetOutcome::Stored);
        });
        let expected = wire::encode(b"k", &renewed);
        prop_assert_eq!(&fs::read(file_of(dir.path(), "k")).unwrap(), &expected.to_vec());
        let same = held.is_some_and(|held| bytes(held) == *renewed.value()) && !labels;
        let all = expected.len() as u64;
        prop_assert_eq!((bytes_written, renewals), if same { (LIFETIME, 1) } else { (all, 0) });
        for store in [&store, &open(dir.path())] {
            prop_assert_eq!(now(store.get("k")).unwrap(), Some(renewed.clone()));
            prop_assert_eq!((store.len(), store.weight()), (Some(1), Some(all)));
        }
    }
}

/// S7: what only looks like the entry is written anew, and is an entry afterwards.
#[test]
fn s7_a_damaged_file_is_not_renewed_but_written() {
    let whole = wire::encode(b"k", &of("value", 1));
    for damaged in 0..whole.len() {
        let dir = scratch();
        let store = open(dir.path());
        now(store.set("k", of("value", 1))).unwrap();
        let mut bytes = whole.to_vec();
        bytes[damaged] ^= 0x10;
        fs::write(file_of(dir.path(), "k"), bytes).unwrap();
        let (_, renewals) = written(&store, || _ = now(store.renew("k", of("value", 5))).unwrap());
        assert_eq!(now(store.get("k")).unwrap(), Some(of("value", 5)));
        // Damage to what is written anyway is mended by it.
        assert_eq!(renewals == 1, wire::RENEWED.contains(&damaged), "byte {damaged}");
    }
}

/// S10, S12: a renewed entry counts once, is the newest, and dies when it says.
#[test]
fn s10_a_renewed_entry_counts_once_and_is_the_newest() {
    let dir = scratch();
    let store = unbounded(dir.path()).max_entries(2).open_blocking().unwrap();
    now(store.set("old", of("1", 1))).unwrap();
    now(store.set("young", of("2", 1))).unwrap();
    now(store.renew("old", of("1", u64::from(u32::MAX)))).unwrap();
    assert_eq!(store.len(), Some(2));
    now(store.set("new", of("3", 1))).unwrap();
    assert!(now(store.get("old")).unwrap().is_some(), "it was renewed after the other was written");
    assert!(now(store.get("young")).unwrap().is_none());
    let small = unbounded(dir.path()).max_bytes(10).open_blocking().unwrap();
    assert!(matches!(now(small.renew("old", of("1", 2))).unwrap(), SetOutcome::Refused(_)));
    assert_eq!(on_disk(dir.path()), [0; 0], "what is refused leaves nothing");
}

/// An eviction takes no turn: what was renewed and lost its name is written.
#[test]
fn s13_what_is_evicted_while_it_is_renewed_is_written() {
    let dir = scratch();
    let store = open(dir.path());
    now(store.set("k", of("value", 1))).unwrap();
    let renewed = {
        let changes = store.shelf.hold_changes();
        let other = store.clone();
        let renewing = thread::spawn(move || now(other.renew("k", of("value", 5))));
        while store.stats().renewals == 0 {
            thread::yield_now();
        }
        fs::remove_file(file_of(dir.path(), "k")).unwrap();
        drop(changes);
        renewing.join().unwrap()
    };
    assert_eq!(renewed.unwrap(), SetOutcome::Stored);
    assert_eq!(now(store.get("k")).unwrap(), Some(of("value", 5)));
}

/// S4, S7, between processes: whoever renews, writes and reads at once sees whole entries.
#[test]
fn s7_other_processes_never_see_a_renewal_half_done() {
    let dir = scratch();
    let (renewer, other, writer, reader) =
        (open(dir.path()), open(dir.path()), open(dir.path()), open(dir.path()));
    now(writer.set("k", of("value", 0))).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|threads| {
        for store in [&renewer, &other] {
            threads.spawn(|| {
                for second in 1..4_000 {
                    now(store.renew("k", of("value", second))).unwrap();
                }
                done.store(true, Ordering::SeqCst);
            });
        }
        threads.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                now(writer.set("k", of("other", 5_000))).unwrap();
                thread::yield_now();
                now(writer.set("k", of("value", 0))).unwrap();
                thread::yield_now();
            }
        });
        while !done.load(Ordering::SeqCst) {
            let found = now(reader.get("k")).expect("never corrupt").expect("never gone");
            let second = found.created_at().as_nanos() / 1_000_000_000;
            assert!(second < 4_000 || *found.value() == "other");
            assert_eq!(found, of(found.value().clone(), second), "one entry, whole");
        }
    });
}

/// E22, S13: a load that finds its value unchanged writes no byte of it to the disk, and every tier has the
/// new lifetime.
#[tokio::test]
async fn e22_an_unchanged_load_writes_no_value_bytes() {
    let dir = scratch();
    let clock = ManualClock::new(at(1_000));
    let file = open(dir.path());
    let memory = || Memory::<str, Bytes>::new(10);
    let second = Duration::from_secs(1);
    let stack = memory().chain(file.clone()).chain(memory());
    let cache = Cache::builder(stack.encoded(Raw)).clock(clock.clone()).ttl(second);
    let cache = cache.keep_stale_on_error(60 * second);
    let cache = cache.build().unwrap();
    let value = Bytes::from(vec![7; 1 << 20]);
    let load =
        async |answer: Computed<Bytes>| cache.get_or_compute("k", || async move { answer }).await.unwrap();
    load(Computed::new(value.clone()).version("v1").tags(["t"])).await;
    let first = file.get("k").await.unwrap().unwrap();
    clock.advance(second + Duration::from_millis(500));
    let before = file.stats();
    assert_eq!(load(Computed::unchanged()).await, value);
    let after = file.stats();
    assert_eq!(after.bytes_written - before.bytes_written, LIFETIME);
    assert_eq!(after.renewals - before.renewals, 1);
    let renewed = file.get("k").await.unwrap().unwrap();
    assert_eq!(renewed.created_at(), clock_now(&clock));
    assert_eq!(renewed.lifetime().fresh_until(), clock_now(&clock).saturating_add(second));
    assert_eq!(renewed.clone().with_lifetime(first.lifetime()), first, "its version and tags stay");
}

fn clock_now(clock: &ManualClock) -> larder::Timestamp {
    larder::Clock::now(clock)
}

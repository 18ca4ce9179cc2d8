//! What a hit and an entry cost, counted and not timed.

use std::sync::Arc;

use super::entry;
use crate::entry::Entry;
use crate::memory::{Lru, Memory, Single};
use crate::store::Store;
use crate::tests::alloc::{allocations, bytes_kept};
use crate::tests::ready;

fn hits_without_allocating(store: &impl Store<Key = str, Value = Arc<str>>) {
    ready(store.set("key", entry(Arc::from("value")))).unwrap();
    // The first read of a thread may set something up.
    store.peek_with("key", |_| ()).unwrap();
    let count = allocations(|| {
        for _ in 0..10 {
            assert_eq!(store.peek_with("key", |entry| entry.value().len()), Some(5));
            assert_eq!(store.peek_with("other", |_| ()), None);
        }
    });
    assert_eq!(count, 0, "peek_with");
    let count = allocations(|| {
        for _ in 0..10 {
            assert!(ready(store.get("key")).unwrap().is_some());
            assert!(ready(store.get("other")).unwrap().is_none());
        }
    });
    assert_eq!(count, 0, "get");
}

#[test]
fn a_hit_does_not_allocate() {
    hits_without_allocating(&Memory::new(10));
    hits_without_allocating(&Memory::new(100_000));
    hits_without_allocating(&Lru::new(10));
    hits_without_allocating(&Lru::new(10).sample_recency(4));
    hits_without_allocating(&Single::new());
}

/// What is read without a lock costs an allocation, so it is few entries at any time.
#[test]
fn few_entries_are_read_without_a_lock() {
    let store = Memory::<u64, u64>::new(1_000).in_shards(1).eager();
    for key in 0..1_000 {
        ready(store.set(&key, entry(key))).unwrap();
    }
    for key in (0..1_000).chain(0..1_000).chain(0..1_000) {
        assert_eq!(store.peek_with(&key, |entry| *entry.value()), Some(key));
    }
    assert_eq!(store.hot(), 16, "as many as there are cells");
    let seldom = Memory::<u64, u64>::new(1_000);
    ready(seldom.set(&1, entry(1))).unwrap();
    for hits in 1..=64 {
        assert_eq!((hits, seldom.hot()), (hits, 0));
        assert!(seldom.peek_with(&1, |_| ()).is_some());
    }
    assert_eq!(seldom.hot(), 1, "one in 64 hits asks");
    ready(seldom.set(&1, entry(2))).unwrap();
    assert_eq!(seldom.hot(), 0, "a write brings it back");
}

/// Bytes an entry that a full store keeps after `rounds` times its capacity went through it.
#[expect(clippy::cast_precision_loss, reason = "a ratio to be read")]
fn bytes_an_entry<S: Store<Key = u64, Value = u64>>(build: impl FnOnce() -> S, keys: u64) -> f64 {
    let mut kept = None;
    let bytes = bytes_kept(|| {
        let store = build();
        for key in 0..keys {
            ready(store.set(&key, entry(key))).unwrap();
        }
        kept = Some(store);
    });
    let len = kept.and_then(|store| store.len()).unwrap();
    bytes as f64 / len as f64
}

#[test]
fn an_entry_costs_what_the_documentation_says() {
    let payload = 8 + size_of::<Entry<u64>>();
    assert_eq!(payload, 8 + 8 + 40);
    for capacity in [1_000, 7_000, 8_000, 14_000, 15_000] {
        for rounds in [1, 4] {
            let keys = capacity as u64 * rounds;
            let memory = bytes_an_entry(|| Memory::new(capacity).in_shards(1), keys);
            let lru = bytes_an_entry(|| Lru::new(capacity), keys);
            println!("{capacity} entries, {rounds} rounds: memory {memory:.1}, lru {lru:.1} bytes an entry");
            assert!((77.0..=88.0).contains(&memory), "{memory}");
            assert!((99.0..=120.0).contains(&lru), "{lru}");
        }
    }
    // The first use in a thread may leave something behind for all later ones; the second does not.
    bytes_an_entry(Single::new, 1);
    let single = bytes_an_entry(Single::new, 10);
    assert!((72.0..=72.0).contains(&single), "{single}");
}

#[test]
fn a_huge_bound_costs_nothing_by_itself() {
    assert!(bytes_kept(|| std::mem::forget(Memory::<u64, u64>::new(usize::MAX))) < 64 << 10);
    assert!(bytes_kept(|| std::mem::forget(Lru::<u64, u64>::new(usize::MAX))) < 1 << 10);
}

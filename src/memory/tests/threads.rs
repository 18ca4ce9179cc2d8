//! Real threads: bounds at every instant, and registers that never go back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::{Item, by_weight, entry};
use crate::memory::{Lru, Memory, Single};
use crate::store::{Evict, Store};
use crate::tests::ready;

const THREADS: u8 = 8;
const STEPS: u64 = 2_000;

/// A stream of numbers that is the same in every run.
fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

/// S10 while eight threads write; whatever is read was written for that key.
fn stays_within_bounds<S: Store<Key = u64, Value = Item>>(
    store: &S,
    max_len: u64,
    max_weight: Option<u64>,
    evict: impl Fn(&S) -> bool + Sync,
    left: &AtomicU64,
) {
    let token = Arc::new(());
    let stored = AtomicU64::new(0);
    let (evict, token_of_all, stored_by_all) = (&evict, &token, &stored);
    thread::scope(|scope| {
        for seed in 0..u64::from(THREADS) {
            scope.spawn(move || {
                let mut number = numbers(seed + 1);
                for _ in 0..STEPS {
                    let key = number(64);
                    match number(20) {
                        0 => ready(store.remove(&key)).unwrap(),
                        1 => _ = evict(store),
                        2 if number(20) == 0 => ready(store.clear()).unwrap(),
                        2..10 => {
                            let id = store.peek_with(&key, |entry| entry.value().id);
                            assert!(id.is_none_or(|id| id % 64 == key), "E14: {id:?} under {key}");
                        }
                        _ => {
                            // Now and then one as heavy as the whole bound, to make every shard give way.
                            let weight = if number(50) == 0 { 100 } else { number(30) };
                            let item =
                                Item { id: key + 64 * number(1_000), weight, token: token_of_all.clone() };
                            ready(store.set(&key, entry(item))).unwrap();
                            stored_by_all.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    assert!(store.len() <= Some(max_len));
                    assert!(max_weight.is_none() || store.weight() <= max_weight);
                }
            });
        }
    });
    let len = store.len().unwrap();
    assert_eq!(Arc::strong_count(&token) as u64, 1 + len, "each value that left was dropped");
    assert_eq!(stored.load(Ordering::Relaxed), left.load(Ordering::Relaxed) + len, "each was told of once");
    let weight = (0..64).filter_map(|key| store.peek_with(&key, |entry| entry.value().weight)).sum::<u64>();
    assert!(max_weight.is_none() || store.weight() == Some(weight), "S9: exact at rest");
}

#[test]
fn bounds_hold_at_every_instant_under_eight_writers() {
    let counter = || {
        let left = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&left);
        (left, move || _ = count.fetch_add(1, Ordering::Relaxed))
    };
    for shards in [1, 8] {
        let (left, count) = counter();
        let memory = Memory::new(32).in_shards(shards).on_removal(move |_, _, _| count());
        stays_within_bounds(&memory, 32, None, Memory::evict, &left);

        let (left, count) = counter();
        let memory = Memory::new(32).in_shards(shards).eager().on_removal(move |_, _, _| count());
        stays_within_bounds(&memory, 32, None, Memory::evict, &left);

        let (left, count) = counter();
        let memory =
            Memory::weighing(100, by_weight()).in_shards(shards).eager().on_removal(move |_, _, _| count());
        stays_within_bounds(&memory, 64, Some(100), Memory::evict, &left);

        let (left, count) = counter();
        let memory = Memory::weighing(100, by_weight()).in_shards(shards).on_removal(move |_, _, _| count());
        stays_within_bounds(&memory, 64, Some(100), Memory::evict, &left);
    }
    let (left, count) = counter();
    let lru = Lru::weighing(100, by_weight()).max_entries(32).on_removal(move |_, _, _| count());
    stays_within_bounds(&lru, 32, Some(100), Lru::evict, &left);

    let (left, count) = counter();
    let single = Single::new().on_removal(move |_, _, _| count());
    stays_within_bounds(&single, 1, None, |_| false, &left);
}

/// S3: one writer a key counts upwards; nobody sees it go back, and the writer sees its own last write
/// or nothing.
fn never_goes_back<S: Store<Key = u64, Value = u64>>(store: &S) {
    thread::scope(|scope| {
        for own in 0..u64::from(THREADS) {
            scope.spawn(move || {
                let mut number = numbers(own + 1);
                let mut seen = [0; THREADS as usize];
                for version in 1..STEPS {
                    match number(8) {
                        0 => ready(store.remove(&own)).unwrap(),
                        _ => drop(ready(store.set(&own, entry(version))).unwrap()),
                    }
                    let mine = store.peek_with(&own, |entry| *entry.value());
                    assert!(mine.is_none_or(|mine| mine == version));
                    let key = number(THREADS.into());
                    if let Some(other) = ready(store.get(&key)).unwrap() {
                        let last = &mut seen[usize::try_from(key).unwrap()];
                        assert!(*other.value() >= *last, "{key}: {} after {last}", other.value());
                        *last = *other.value();
                    }
                }
            });
        }
    });
}

#[test]
fn a_key_never_goes_back_to_an_older_entry() {
    never_goes_back(&Memory::new(6));
    never_goes_back(&Memory::new(16).in_shards(4));
    never_goes_back(&Lru::new(6));
    never_goes_back(&Lru::new(6).sample_recency(3));
    never_goes_back(&Single::new());
}

//! What a hit costs, counted and not timed: allocations, and the size of the future that callers hold.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use crate::codec::Raw;
use crate::tests::alloc::{allocations, bytes_allocated};
use crate::tests::ready;
use crate::{Cache, Lru, Memory, Sharded, Single, Store, StoreExt, Timestamp};

const HOUR: Duration = Duration::from_secs(60 * 60);

fn memory() -> Memory<u64, u64> {
    Memory::new(1024)
}

/// Runs `$check` on a cache over each stack whose hits have to be free.
macro_rules! over_each_stack {
    ($check:ident) => {
        $check("memory", memory());
        $check("lru", Lru::new(1024));
        $check("lru, sampled", Lru::new(1024).sample_recency(2));
        $check("single", Single::new());
        $check("sharded", Sharded::new(4, |share| Memory::new(share.entries(1024))).unwrap());
        $check("1 adapter", memory().fresh_for_at_most(HOUR));
        $check("3 adapters", memory().byte_limited(1 << 20).fresh_for_at_most(HOUR).inspect(|_| {}));
        $check(
            "5 adapters",
            memory()
                .byte_limited(1 << 20)
                .fresh_for_at_most(HOUR)
                .inspect(|_| {})
                .fresh_for_at_most(HOUR)
                .inspect(|_| {}),
        );
        $check("tagged", memory().tagged(Memory::<str, Timestamp>::new(64)));
        $check("chain", memory().chain(memory()));
        $check("three tiers", memory().chain(memory()).chain(memory()));
        $check("boxed", memory().fresh_for_at_most(HOUR).inspect(|_| {}).boxed());
    };
}

fn cache<S: Store<Key = u64, Value = u64> + 'static>(store: S) -> Cache<S> {
    let cache = Cache::builder(store).ttl(HOUR).build().unwrap();
    ready(cache.set(&1, 10)).unwrap();
    cache
}

fn size_of_future<S: Store<Key = u64, Value = u64> + 'static>(store: S) -> usize {
    let cache = cache(store);
    size_of_val(&cache.get_or_compute(&1, || async { 10 }))
}

#[test]
fn d3_a_hit_allocates_nothing_through_any_stack() {
    fn check(stack: &str, store: impl Store<Key = u64, Value = u64> + 'static) {
        let cache = cache(store);
        let by = |hit: &dyn Fn() -> Option<u64>| {
            assert_eq!(hit(), Some(10), "{stack}: a hit");
            allocations(|| _ = hit())
        };
        let unreached = || async { 0 };
        assert_eq!(by(&|| ready(cache.get_or_compute(&1, unreached)).ok()), 0, "{stack}: get_or_compute");
        assert_eq!(by(&|| ready(cache.get(&1)).unwrap()), 0, "{stack}: get");
        assert_eq!(by(&|| cache.peek(&1)), 0, "{stack}: peek");
        assert_eq!(by(&|| cache.peek_with(&1, |value| *value)), 0, "{stack}: peek_with");
    }
    over_each_stack!(check);
}

/// A task that is ten times as large as it need be shows nowhere else.
#[test]
fn a_miss_allocates_little() {
    let cache = cache(memory());
    let origin = 20;
    let miss = || assert_eq!(ready(cache.get_or_compute(&2, move || async move { origin })).unwrap(), 20);
    let forget = || ready(cache.remove(&2)).unwrap();
    // The first one makes room that stays.
    miss();
    forget();
    assert_eq!(allocations(miss), 6);
    forget();
    let bytes = bytes_allocated(miss);
    println!("a miss allocates {bytes} bytes");
    assert!(bytes < 3 << 10, "{bytes}");
}

#[test]
fn d3_a_hit_on_a_text_key_makes_no_owned_key() {
    let cache = Cache::builder(Memory::<str, u64>::new(16)).ttl(HOUR).build().unwrap();
    ready(cache.set("ada", 1)).unwrap();
    let hit = || ready(cache.get_or_compute("ada", || async { 2 }));
    assert_eq!(hit().unwrap(), 1);
    assert_eq!(allocations(|| _ = hit()), 0);
}

/// The adapters of text keys: also they make no key of their own on a hit, up to 1,024 bytes of it.
#[test]
fn d3_a_hit_through_prefix_and_codec_allocates_nothing() {
    fn check(stack: &str, key: &str, store: impl Store<Key = str, Value = Bytes> + 'static) {
        let cache = Cache::builder(store).ttl(HOUR).build().unwrap();
        let value = Bytes::from(vec![7; 100]);
        ready(cache.set(key, value.clone())).unwrap();
        let unreached = || async { Bytes::new() };
        let get_or_compute = || ready(cache.get_or_compute(key, unreached)).unwrap();
        assert_eq!(get_or_compute(), value, "{stack}: a hit");
        assert_eq!(allocations(|| drop(get_or_compute())), 0, "{stack}: get_or_compute");
        assert_eq!(allocations(|| drop(ready(cache.get(key)).unwrap())), 0, "{stack}: get");
        assert_eq!(allocations(|| drop(cache.peek(key))), 0, "{stack}: peek");
        assert_eq!(allocations(|| _ = cache.peek_with(key, Bytes::len)), 0, "{stack}: peek_with");
    }
    let bytes = || Memory::<str, Bytes>::new(16);
    for key in ["", "ada", &"k".repeat(1_000)] {
        check("prefixed", key, bytes().prefixed("users:"));
        check("encoded", key, bytes().encoded(Raw));
        check("encoded, prefixed", key, bytes().prefixed("users:").encoded(Raw));
        check("prefixed twice", key, bytes().prefixed("users:").prefixed("v1:"));
    }
}

/// T5: a hit whose tags are known looks at them where they stand.
#[test]
fn t5_a_tagged_hit_allocates_nothing() {
    for tags in [vec![], vec!["a"], vec!["a", "b", "c", "d"]] {
        for by_instant in [false, true] {
            let store = memory().tagged(Memory::<str, Timestamp>::new(1024));
            let store = if by_instant { store.clear_by_instant() } else { store };
            let own = tags.clone();
            let builder = Cache::builder(store).ttl(HOUR).tags_of(move |_| own.clone());
            let cache = builder.build().unwrap();
            ready(cache.remove_tags(&["a", "d"])).unwrap();
            // Later than the removal, whatever the clock's step.
            let get_or_compute = || ready(cache.get_or_compute(&1, || async { 10 })).unwrap();
            while cache.peek(&1).is_none() {
                get_or_compute();
            }
            let case = format!("{tags:?}, cleared by instant: {by_instant}");
            assert_eq!(allocations(|| assert_eq!(get_or_compute(), 10)), 0, "{case}: get_or_compute");
            assert_eq!(allocations(|| assert_eq!(ready(cache.get(&1)).unwrap(), Some(10))), 0, "{case}: get");
            assert_eq!(allocations(|| assert_eq!(cache.peek(&1), Some(10))), 0, "{case}: peek");
            let by_read = || cache.peek_with(&1, |value| *value);
            assert_eq!(allocations(|| assert_eq!(by_read(), Some(10))), 0, "{case}: peek_with");
        }
    }
}

/// The slow path is boxed, so callers never carry the futures of the stack, however deep it is.
#[test]
fn the_future_of_a_call_is_small_and_the_same_over_any_stack() {
    fn check(stack: &str, store: impl Store<Key = u64, Value = u64> + 'static) {
        let size = size_of_future(store);
        assert_eq!(size, size_of_future(memory()), "{stack}");
        assert!(size <= 40, "{stack}: {size} bytes");
    }
    over_each_stack!(check);
}

/// What a call's closure captures is part of the caller's future, and nothing else grows with it.
#[test]
fn the_future_of_a_call_grows_by_what_the_computation_captures() {
    fn size(future: &impl Future) -> usize {
        size_of_val(future)
    }
    let cache = cache(memory());
    let captured = [0u64; 8];
    let small = size(&cache.get_or_compute(&1, || async { 10 }));
    let large = size(&cache.get_or_compute(&1, move || async move { captured[0] }));
    assert_eq!(large, small + size_of_val(&captured));
}

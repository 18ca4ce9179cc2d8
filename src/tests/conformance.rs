//! Every tier of this crate under the kit. Its adapters, chains, stacks and engine have files of their own.

use bytes::Bytes;

use crate::adapters::Null;
use crate::ext::StoreExt;
use crate::memory::{Lru, Memory, Single};
use crate::testkit::{Model, Order, check, conformance};
use crate::weigh::Weigher;

conformance! {
    name: the_model,
    store: |_site| Model::<str, String>::new(),
    promises: |check| check.peeks().counts().evicts_on_demand(),
}

conformance! {
    name: memory,
    store: |_site| Memory::<str, Bytes>::new(5_000),
    promises: |check| check.peeks().counts().max_entries(5_000).evicts_on_demand().clears_prefixes(),
}

conformance! {
    name: lru,
    store: |_site| Lru::<str, Bytes>::new(5_000),
    promises: |check| check.peeks().counts().max_entries(5_000).evicts_on_demand().clears_prefixes(),
}

conformance! {
    name: single,
    store: |_site| Single::<str, Bytes>::new(),
    promises: |check| check.peeks().counts().max_entries(1).clears_prefixes(),
}

#[test]
fn a_small_memory() {
    check("small memory", |_| Memory::<str, String>::new(3)).peeks().counts().max_entries(3).run().assert();
    let hot = check("hot memory", |_| Memory::<str, String>::new(3).eager());
    hot.peeks().counts().max_entries(3).run().assert();
}

#[test]
fn a_small_lru() {
    let check = check("small lru", |_| Lru::<str, String>::new(3));
    check.peeks().counts().max_entries(3).evicts(Order::LeastRecentlyUsed).run().assert();
}

/// The bound is of what the values weigh, to the byte.
#[test]
fn tiers_that_weigh() {
    let by_length = || Weigher::new(|key: &str, value: &String| (key.len() + value.len()) as u64);
    check("weighed memory", move |_| Memory::<str, String>::weighing(8_192, by_length()))
        .peeks()
        .counts()
        .weighs()
        .max_bytes(8_192)
        .evicts_on_demand()
        .run()
        .assert();
    check("weighed lru", move |_| Lru::<str, String>::weighing(8_192, by_length()))
        .peeks()
        .counts()
        .weighs()
        .max_bytes(8_192)
        .evicts_on_demand()
        .run()
        .assert();
    let limited = check("limited memory", |_| Memory::<str, Bytes>::new(1_000).byte_limited(16_384));
    limited.peeks().counts().weighs().max_bytes(16_384).evicts_on_demand().clears_prefixes().run().assert();
}

/// Keys and values of other types: bytes, numbers, pairs.
#[test]
fn keys_of_any_type() {
    check("bytes", |_| Memory::<[u8], Vec<u8>>::new(5_000)).peeks().counts().run().assert();
    check("numbers", |_| Memory::<u64, u64>::new(5_000)).peeks().counts().run().assert();
    check("pairs", |_| Lru::<(String, i32), String>::new(5_000)).peeks().counts().run().assert();
    check("owned", |_| Memory::<String, std::sync::Arc<str>>::new(5_000)).peeks().counts().run().assert();
}

/// A store that keeps nothing breaks no law of a store that may forget.
#[test]
fn null() {
    check("null", |_| Null::<str, String>::new()).forgets().counts().weighs().run().assert();
}

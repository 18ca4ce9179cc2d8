//! cached: `ShardedLruTtlCache`, shards with locks, exact LRU in each. It has lifetimes and reads the precise
//! clock; it hashes with its own hasher (ahash). A get-or-compute owns its key, and two that begin at once both
//! compute; one flight for both is a matter of its macros, which memoize functions.

use std::future::Future;

use cached::ShardedLruTtlCache;

use super::{Key, Rival, TTL, Value, at_once};

pub(crate) struct Cached<K: Key, V: Value>(ShardedLruTtlCache<K, V>);

impl<K: Key, V: Value> Rival for Cached<K, V> {
    type Key = K;
    type Value = V;

    const NAME: &'static str = "cached";

    fn new(capacity: usize) -> Self {
        Self(ShardedLruTtlCache::new(capacity, TTL))
    }

    #[inline]
    fn get(&self, key: &K) -> Option<V> {
        self.0.get(key)
    }

    #[inline]
    fn set(&self, key: &K, value: V) {
        drop(self.0.set(key.clone(), value));
    }

    #[inline]
    async fn get_or_compute<F, Fut>(&self, key: &K, compute: F) -> V
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = V> + Send + 'static,
    {
        self.0.get_or_set_with(key.clone(), || at_once(compute()))
    }

    fn expire(&self, _key: &K) {}

    fn lesser(work: &str) -> Option<&'static str> {
        let is_shared = matches!(work, "compute-hit" | "miss-compute" | "zipf-compute");
        is_shared.then_some("computes once for each caller")
    }

    fn lacks(work: &str) -> Option<&'static str> {
        match work {
            "stampede" => Some("no async get-or-compute but that of its macros"),
            "stale" => Some("no stale window"),
            _ => None,
        }
    }
}

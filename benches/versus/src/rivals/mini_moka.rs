//! mini-moka: moka's smaller sister, over dashmap. It has lifetimes, and no get-or-compute.

use std::future::Future;

use super::{Hasher, Key, Rival, TTL, Value};

pub(crate) struct MiniMoka<K: Key, V: Value>(mini_moka::sync::Cache<K, V, Hasher>);

impl<K: Key, V: Value> Rival for MiniMoka<K, V> {
    type Key = K;
    type Value = V;

    const NAME: &'static str = "mini-moka";

    fn new(capacity: usize) -> Self {
        let cache = mini_moka::sync::Cache::builder().max_capacity(capacity as u64).time_to_live(TTL);
        Self(cache.build_with_hasher(Hasher::default()))
    }

    #[inline]
    fn get(&self, key: &K) -> Option<V> {
        self.0.get(key)
    }

    #[inline]
    fn set(&self, key: &K, value: V) {
        self.0.insert(key.clone(), value);
    }

    async fn get_or_compute<F, Fut>(&self, _key: &K, compute: F) -> V
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = V> + Send + 'static,
    {
        compute().await
    }

    fn expire(&self, _key: &K) {}

    fn lacks(work: &str) -> Option<&'static str> {
        match work {
            "compute-hit" | "miss-compute" | "zipf-compute" | "stampede" => Some("no get-or-compute"),
            "stale" => Some("no stale window"),
            _ => None,
        }
    }
}

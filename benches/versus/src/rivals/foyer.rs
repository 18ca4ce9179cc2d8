//! foyer: `foyer-memory`, its tier in memory, as it comes: eight shards, LRU. It has no lifetimes: a deadline
//! stands beside each value, and is checked by larder's clock. A hit is a handle that counts references; the value is
//! read through it without a clone.
//! An expired entry is removed before it is fetched again, in two steps, so a get-or-compute looks with `get` first.

use std::convert::Infallible;
use std::future::Future;

use foyer_memory::{Cache, CacheBuilder};

use super::{Dated, Hasher, Key, Rival, Value};

pub(crate) struct Foyer<K: Key, V: Value>(Cache<K, Dated<V>, Hasher>);

impl<K: Key, V: Value> Rival for Foyer<K, V> {
    type Key = K;
    type Value = V;

    const NAME: &'static str = "foyer";

    fn new(capacity: usize) -> Self {
        Self(CacheBuilder::new(capacity).with_hash_builder(Hasher::default()).build())
    }

    #[inline]
    fn get(&self, key: &K) -> Option<V> {
        self.0.get(key)?.value().fresh().cloned()
    }

    #[inline]
    fn read<T>(&self, key: &K, read: impl FnOnce(&V) -> T) -> Option<T> {
        self.0.get(key)?.value().fresh().map(read)
    }

    #[inline]
    fn set(&self, key: &K, value: V) {
        drop(self.0.insert(key.clone(), Dated::new(value)));
    }

    #[inline]
    async fn get_or_compute<F, Fut>(&self, key: &K, compute: F) -> V
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = V> + Send + 'static,
    {
        if let Some(found) = self.0.get(key) {
            if let Some(value) = found.value().fresh() {
                return value.clone();
            }
            drop(found);
            self.0.remove(key);
        }
        let fetch = || async { Ok::<_, Infallible>(Dated::new(compute().await)) };
        let found = self.0.get_or_fetch(key, fetch).await.expect("the computation does not fail");
        found.value().fresh().expect("just computed").clone()
    }

    fn expire(&self, key: &K) {
        drop(self.0.insert(key.clone(), Dated::expired(V::of(u64::MAX))));
    }

    fn lacks(work: &str) -> Option<&'static str> {
        (work == "stale").then_some("no stale window")
    }
}

//! moka: a lock-free map, TinyLFU, reads and writes recorded in channels that callers drain. It has lifetimes
//! and its own clock. There is no read without a clone, and no stale window.

use std::future::Future;
use std::time::{Duration, Instant};

use moka::Expiry;

use super::{Hasher, Key, Rival, TTL, Value, at_once};

/// Gives the marker a lifetime that is over at once, and every other value the usual one.
struct ByMarker;

impl ByMarker {
    fn ttl(value: &impl Value) -> Duration {
        if value.is_expired_marker() { Duration::from_nanos(1) } else { TTL }
    }
}

impl<K, V: Value> Expiry<K, V> for ByMarker {
    fn expire_after_create(&self, _key: &K, value: &V, _now: Instant) -> Option<Duration> {
        Some(Self::ttl(value))
    }

    fn expire_after_update(
        &self,
        _key: &K,
        value: &V,
        _now: Instant,
        _left: Option<Duration>,
    ) -> Option<Duration> {
        Some(Self::ttl(value))
    }
}

/// `moka::sync`, `get_with`.
pub(crate) struct Moka<K: Key, V: Value>(moka::sync::Cache<K, V, Hasher>);

impl<K: Key, V: Value> Rival for Moka<K, V> {
    type Key = K;
    type Value = V;

    const NAME: &'static str = "moka";

    fn new(capacity: usize) -> Self {
        let cache = moka::sync::Cache::builder().max_capacity(capacity as u64).time_to_live(TTL);
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

    #[inline]
    async fn get_or_compute<F, Fut>(&self, key: &K, compute: F) -> V
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = V> + Send + 'static,
    {
        self.0.get_with_by_ref(key, || at_once(compute()))
    }

    fn expire(&self, _key: &K) {}

    fn settle(&self) {
        self.0.run_pending_tasks();
    }

    fn lacks(work: &str) -> Option<&'static str> {
        match work {
            "stampede" => Some("blocks its thread; see `moka future`"),
            "stale" => Some("no stale window"),
            _ => None,
        }
    }
}

/// `moka::future`, `get_with`.
pub(crate) struct MokaFuture<K: Key, V: Value>(moka::future::Cache<K, V, Hasher>);

impl<K: Key, V: Value> Rival for MokaFuture<K, V> {
    type Key = K;
    type Value = V;

    const NAME: &'static str = "moka future";

    fn new(capacity: usize) -> Self {
        let cache = moka::future::Cache::builder().max_capacity(capacity as u64).time_to_live(TTL);
        Self(cache.build_with_hasher(Hasher::default()))
    }

    fn expiring(capacity: usize) -> Self {
        let cache = moka::future::Cache::builder().max_capacity(capacity as u64).expire_after(ByMarker);
        Self(cache.build_with_hasher(Hasher::default()))
    }

    #[inline]
    fn get(&self, key: &K) -> Option<V> {
        at_once(self.0.get(key))
    }

    #[inline]
    fn set(&self, key: &K, value: V) {
        at_once(self.0.insert(key.clone(), value));
    }

    #[inline]
    async fn get_or_compute<F, Fut>(&self, key: &K, compute: F) -> V
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = V> + Send + 'static,
    {
        self.0.get_with_by_ref(key, async { compute().await }).await
    }

    fn expire(&self, key: &K) {
        at_once(self.0.insert(key.clone(), V::of(u64::MAX)));
    }

    fn settle(&self) {
        at_once(self.0.run_pending_tasks());
    }

    fn lacks(work: &str) -> Option<&'static str> {
        (work == "stale").then_some("no stale window")
    }
}

//! larder, as its users call it: the whole engine, which judges freshness on every call.

use std::future::{Future, pending};
use std::hint::black_box;
use std::sync::Arc;

use larder::{Cache, Clock, Entry, Lifetime, Memory, Single, Store, SystemClock};
use tokio::runtime::Runtime;

use super::{Key, Rival, Stale, TTL, Value, at_once};

/// `Cache` over `Memory`.
pub(crate) struct Larder<K: Key, V: Value>(Cache<Memory<K, V>>);

impl<K: Key, V: Value> Rival for Larder<K, V> {
    type Key = K;
    type Value = V;

    const NAME: &'static str = "larder";

    fn new(capacity: usize) -> Self {
        Self(Cache::builder(Memory::new(capacity)).ttl(TTL).build().expect("a ttl is a policy"))
    }

    #[inline]
    fn get(&self, key: &K) -> Option<V> {
        self.0.peek(key)
    }

    #[inline]
    fn read<T>(&self, key: &K, read: impl FnOnce(&V) -> T) -> Option<T> {
        self.0.peek_with(key, read)
    }

    #[inline]
    fn set(&self, key: &K, value: V) {
        at_once(self.0.set(key, value)).expect("memory does not fail");
    }

    #[inline]
    async fn get_or_compute<F, Fut>(&self, key: &K, compute: F) -> V
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = V> + Send + 'static,
    {
        self.0.get_or_compute(key, compute).await.expect("memory does not fail")
    }

    fn expire(&self, key: &K) {
        let past = SystemClock.now().saturating_sub(TTL);
        let entry = Entry::new(V::of(u64::MAX), Lifetime::new(past, past, past, past));
        at_once(self.0.store().set(key, entry)).expect("memory does not fail");
    }
}

/// `Cache` over `Single`.
pub(crate) struct LarderSingle<V: Value>(Cache<Single<(), V>>);

impl<V: Value> Rival for LarderSingle<V> {
    type Key = ();
    type Value = V;

    const NAME: &'static str = "larder";

    fn new(_capacity: usize) -> Self {
        Self(Cache::builder(Single::new()).ttl(TTL).build().expect("a ttl is a policy"))
    }

    #[inline]
    fn get(&self, key: &()) -> Option<V> {
        self.0.peek(key)
    }

    #[inline]
    fn read<T>(&self, key: &(), read: impl FnOnce(&V) -> T) -> Option<T> {
        self.0.peek_with(key, read)
    }

    fn set(&self, key: &(), value: V) {
        at_once(self.0.set(key, value)).expect("memory does not fail");
    }

    async fn get_or_compute<F, Fut>(&self, key: &(), compute: F) -> V
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = V> + Send + 'static,
    {
        self.0.get_or_compute(key, compute).await.expect("memory does not fail")
    }

    fn expire(&self, _key: &()) {}
}

/// `Cache` over `Memory` with one stale entry, whose refresh has begun and does not end.
pub(crate) struct StaleLarder<V: Value> {
    cache: Cache<Memory<String, V>>,
    key: String,
    /// Where the refresh hangs.
    _refresh: Arc<Runtime>,
}

impl<V: Value> Stale for StaleLarder<V> {
    type Value = V;

    const NAME: &'static str = "larder";

    fn new(key: String, value: V) -> Self {
        let refresh = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build();
        let refresh = refresh.expect("a runtime of one thread");
        let cache = Cache::builder(Memory::new(100)).ttl(TTL).stale(TTL * 24).refresh_timeout(TTL);
        let cache = cache.build().expect("a ttl is a policy");
        let now = SystemClock.now();
        let (created, late) = (now.saturating_sub(TTL * 2), now.saturating_add(TTL));
        let life = Lifetime::new(created, now.saturating_sub(TTL), late, late);
        at_once(cache.store().set(&key, Entry::new(value, life))).expect("memory does not fail");
        refresh.block_on(cache.get_or_compute(&key, pending::<V>)).expect("a stale value");
        Self { cache, key, _refresh: Arc::new(refresh) }
    }

    #[inline]
    async fn get(&self) -> V {
        self.cache.get_or_compute(black_box(&self.key), pending::<V>).await.expect("a stale value")
    }
}

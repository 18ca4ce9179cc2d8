//! cachet: a tier of moka behind a boxed interface, which clones the key and reads the clock several times. It has
//! lifetimes, and a stale window (`time_to_refresh`) for entries whose refresh a tier below answers. Stampede
//! protection is on, as get-or-compute has it elsewhere; it is entered on hits too.

use std::future::{Future, pending};
use std::hint::black_box;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use anyspawn::Spawner;
use cachet::{CacheEntry, CacheTier, Error, InsertOutcome, TimeToRefresh};
use tick::Clock;
use tokio::runtime::Runtime;

use super::{Key, Rival, Stale, TTL, Value, at_once};

/// Where its clock ticks and its refreshes run.
static BACKGROUND: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build();
    runtime.expect("a runtime of one thread")
});

pub(crate) struct Cachet<K: Key, V: Value>(cachet::Cache<K, V>);

impl<K: Key, V: Value> Rival for Cachet<K, V> {
    type Key = K;
    type Value = V;

    const NAME: &'static str = "cachet";

    fn new(capacity: usize) -> Self {
        let _in_background = BACKGROUND.enter();
        let cache = cachet::Cache::builder(Clock::new_tokio());
        let cache = cache.memory_with(|memory| memory.max_capacity(capacity as u64));
        Self(cache.ttl(TTL).stampede_protection().build())
    }

    #[inline]
    fn get(&self, key: &K) -> Option<V> {
        at_once(self.0.get(key)).expect("memory does not fail").map(CacheEntry::into_value)
    }

    #[inline]
    fn read<T>(&self, key: &K, read: impl FnOnce(&V) -> T) -> Option<T> {
        at_once(self.0.get(key)).expect("memory does not fail").map(|entry| read(entry.value()))
    }

    #[inline]
    fn set(&self, key: &K, value: V) {
        at_once(self.0.insert(key.clone(), CacheEntry::new(value))).expect("memory does not fail");
    }

    #[inline]
    async fn get_or_compute<F, Fut>(&self, key: &K, compute: F) -> V
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = V> + Send + 'static,
    {
        self.0.get_or_insert(key, compute).await.expect("memory does not fail").into_value()
    }

    fn expire(&self, key: &K) {
        let past = SystemTime::UNIX_EPOCH + TTL;
        let entry = CacheEntry::expires_at(V::of(u64::MAX), Duration::from_secs(1), past);
        at_once(self.0.insert(key.clone(), entry)).expect("memory does not fail");
    }
}

/// One stale entry, whose refresh has begun and does not end.
pub(crate) struct StaleCachet<V: Value> {
    cache: cachet::Cache<String, V>,
    key: String,
}

impl<V: Value> Stale for StaleCachet<V> {
    type Value = V;

    const NAME: &'static str = "cachet";

    fn new(key: String, value: V) -> Self {
        let _in_background = BACKGROUND.enter();
        let clock = Clock::new_tokio();
        let below = cachet::Cache::builder(clock.clone()).storage(Hung);
        let cache = cachet::Cache::builder(clock).memory().ttl(TTL).fallback(below);
        let refresh = TimeToRefresh::new(Duration::ZERO, Spawner::new_tokio());
        let cache = cache.time_to_refresh(refresh).stampede_protection().build();
        at_once(cache.insert(key.clone(), CacheEntry::new(value))).expect("memory does not fail");
        Self { cache, key }
    }

    #[inline]
    async fn get(&self) -> V {
        let found = self.cache.get_or_insert(black_box(self.key.as_str()), pending::<V>).await;
        found.expect("memory does not fail").into_value()
    }
}

/// A tier that accepts everything and never answers.
struct Hung;

impl<K: Key, V: Value> CacheTier<K, V> for Hung {
    async fn get(&self, _key: &K) -> Result<Option<CacheEntry<V>>, Error> {
        pending().await
    }

    async fn insert(&self, _key: K, _entry: CacheEntry<V>) -> Result<InsertOutcome, Error> {
        Ok(InsertOutcome::Accepted)
    }

    async fn invalidate(&self, _key: &K) -> Result<(), Error> {
        Ok(())
    }

    async fn clear(&self) -> Result<(), Error> {
        Ok(())
    }
}

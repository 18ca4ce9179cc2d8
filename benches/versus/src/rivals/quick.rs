//! quick_cache: shards of read-write locks, Clock-PRO. It has no lifetimes: a deadline stands beside each
//! value, and is checked by larder's clock. An expired entry is replaced through `entry_async`, which locks for
//! writing. There is no read without a clone.

use std::convert::Infallible;
use std::future::Future;

use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle, EntryAction, EntryResult};

use super::{Dated, Hasher, Key, Rival, Value, at_once};

/// `quick_cache::sync`, `get_or_insert_with`.
pub(crate) struct QuickCache<K: Key, V: Value>(Cache<K, Dated<V>, UnitWeighter, Hasher>);

impl<K: Key, V: Value> Rival for QuickCache<K, V> {
    type Key = K;
    type Value = V;

    const NAME: &'static str = "quick_cache";

    fn new(capacity: usize) -> Self {
        let weight = capacity as u64;
        Self(Cache::with(capacity, weight, UnitWeighter, Hasher::default(), DefaultLifecycle::default()))
    }

    #[inline]
    fn get(&self, key: &K) -> Option<V> {
        self.0.get(key)?.into_fresh()
    }

    #[inline]
    fn set(&self, key: &K, value: V) {
        self.0.insert(key.clone(), Dated::new(value));
    }

    #[inline]
    async fn get_or_compute<F, Fut>(&self, key: &K, compute: F) -> V
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = V> + Send + 'static,
    {
        let compute = || Ok::<_, Infallible>(Dated::new(at_once(compute())));
        let Ok(found) = self.0.get_or_insert_with(key, compute);
        found.into_fresh().expect("nothing expires in the work that it takes part in")
    }

    fn expire(&self, key: &K) {
        self.0.insert(key.clone(), Dated::expired(V::of(u64::MAX)));
    }

    fn lacks(work: &str) -> Option<&'static str> {
        match work {
            "stampede" => Some("blocks its thread; see `quick_cache async`"),
            "stale" => Some("no stale window"),
            _ => None,
        }
    }
}

/// The same cache, `get_or_insert_async`.
pub(crate) struct QuickCacheAsync<K: Key, V: Value>(QuickCache<K, V>);

impl<K: Key, V: Value> Rival for QuickCacheAsync<K, V> {
    type Key = K;
    type Value = V;

    const NAME: &'static str = "quick_cache async";

    fn new(capacity: usize) -> Self {
        Self(QuickCache::new(capacity))
    }

    fn get(&self, key: &K) -> Option<V> {
        self.0.get(key)
    }

    fn set(&self, key: &K, value: V) {
        self.0.set(key, value);
    }

    #[inline]
    async fn get_or_compute<F, Fut>(&self, key: &K, compute: F) -> V
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = V> + Send + 'static,
    {
        let mut given = Some(compute);
        let compute = async { Ok::<_, Infallible>(Dated::new(given.take().expect("asked once")().await)) };
        let Ok(found) = self.0.0.get_or_insert_async(key, compute).await;
        if let Some(value) = found.into_fresh() {
            return value;
        }
        let judge = |_: &K, held: &mut Dated<V>| match held.fresh() {
            Some(value) => EntryAction::Retain(value.clone()),
            None => EntryAction::ReplaceWithGuard,
        };
        match self.0.0.entry_async(key, judge).await {
            EntryResult::Retained(value) => value,
            EntryResult::Vacant(place) | EntryResult::Replaced(place, _) => {
                let compute = given.take().expect("an expired entry was found, not computed");
                let computed = Dated::new(compute().await);
                // A write that overtook the computation stays; the caller gets what was computed.
                drop(place.insert(computed.clone()));
                computed.into_value()
            }
            EntryResult::Removed(..) | EntryResult::Timeout => unreachable!("neither was asked for"),
        }
    }

    fn expire(&self, key: &K) {
        self.0.expire(key);
    }

    fn lacks(work: &str) -> Option<&'static str> {
        match work {
            "compute-hit" | "miss-compute" | "zipf-compute" | "stampede" => None,
            "stale" => Some("no stale window"),
            _ => Some("the same call as `quick_cache`"),
        }
    }
}

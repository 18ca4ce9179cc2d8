//! Who is compared, and how each of them is asked.

use std::num::NonZeroUsize;
use std::pin::pin;
use std::task::{Context, Waker};

use foyer_memory::{CacheBuilder, EvictionConfig, LfuConfig, S3FifoConfig, SieveConfig};
use larder::policy::{Adaptive, Lru, Policy, S3Fifo, Sieve};
use larder::{Entry, Lifetime, Memory, Store, Timestamp};

/// A cache by its name.
#[derive(Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    /// Whether it is larder's.
    pub(crate) ours: bool,
    /// Hits on these requests with room for so many entries.
    pub(crate) replay: fn(&[u32], usize) -> usize,
}

/// Larder's are `Memory` as it is built by default, in as many shards as it takes for the capacity.
pub(crate) const CACHES: [Subject; 11] = [
    ours("larder", memory::<Adaptive>),
    ours("larder-lru", memory::<Lru>),
    ours("larder-s3fifo", memory::<S3Fifo>),
    ours("larder-sieve", memory::<Sieve>),
    theirs("lru", lru),
    theirs("quick_cache", quick_cache),
    theirs("moka", moka),
    theirs("foyer-lfu", |requests, capacity| foyer(requests, capacity, LfuConfig::default())),
    theirs("foyer-s3fifo", |requests, capacity| foyer(requests, capacity, S3FifoConfig::default())),
    theirs("foyer-sieve", |requests, capacity| foyer(requests, capacity, SieveConfig {})),
    theirs("tinyufo", tinyufo),
];

const fn ours(name: &'static str, replay: fn(&[u32], usize) -> usize) -> Subject {
    Subject { name, ours: true, replay }
}

const fn theirs(name: &'static str, replay: fn(&[u32], usize) -> usize) -> Subject {
    Subject { name, ours: false, replay }
}

/// How many requests are hits, where `get` says whether its key is there and `insert` puts it in.
fn count(requests: &[u32], mut get: impl FnMut(u32) -> bool, mut insert: impl FnMut(u32)) -> usize {
    let hit = |key: &&u32| {
        let hit = get(**key);
        if !hit {
            insert(**key);
        }
        hit
    };
    requests.iter().filter(hit).count()
}

fn memory<P: Policy>(requests: &[u32], capacity: usize) -> usize {
    let store = Memory::<u32, ()>::new(capacity).ordered_by::<P>();
    let mut context = Context::from_waker(Waker::noop());
    let insert = |key| {
        let set = pin!(store.set(&key, Entry::new((), Lifetime::forever(Timestamp::EPOCH))));
        assert!(set.poll(&mut context).is_ready(), "memory does not wait");
    };
    count(requests, |key| store.peek_with(&key, |_| ()).is_some(), insert)
}

fn lru(requests: &[u32], capacity: usize) -> usize {
    let cache =
        std::cell::RefCell::new(lru::LruCache::new(NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN)));
    let insert = |key| {
        cache.borrow_mut().put(key, ());
    };
    count(requests, |key| cache.borrow_mut().get(&key).is_some(), insert)
}

/// In one shard, which is its best.
fn quick_cache(requests: &[u32], capacity: usize) -> usize {
    let cache = std::cell::RefCell::new(quick_cache::unsync::Cache::new(capacity));
    count(requests, |key| cache.borrow_mut().get(&key).is_some(), |key| cache.borrow_mut().insert(key, ()))
}

/// Its housekeeping runs after each operation; left to itself it overruns its capacity.
fn moka(requests: &[u32], capacity: usize) -> usize {
    let cache = moka::sync::Cache::new(capacity as u64);
    let get = |key| {
        let hit = cache.get(&key).is_some();
        cache.run_pending_tasks();
        hit
    };
    let insert = |key| {
        cache.insert(key, ());
        cache.run_pending_tasks();
    };
    count(requests, get, insert)
}

/// In one shard.
fn foyer(requests: &[u32], capacity: usize, policy: impl Into<EvictionConfig>) -> usize {
    let builder = CacheBuilder::new(capacity).with_shards(1).with_eviction_config(policy);
    let cache: foyer_memory::Cache<u32, ()> = builder.build();
    let insert = |key| {
        cache.insert(key, ());
    };
    count(requests, |key| cache.get(&key).is_some(), insert)
}

fn tinyufo(requests: &[u32], capacity: usize) -> usize {
    let cache = tinyufo::TinyUfo::new(capacity, capacity);
    let insert = |key| {
        cache.put(key, (), 1);
    };
    count(requests, |key| cache.get(&key).is_some(), insert)
}

//! The same caches, counting what they are asked: for the tests of the rows.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::ops::Sub;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Rival, Stale};

pub(crate) type Larder<K, V> = Counted<super::Larder<K, V>>;
pub(crate) type LarderSingle<V> = Counted<super::LarderSingle<V>>;
pub(crate) type QuickCache<K, V> = Counted<super::QuickCache<K, V>>;
pub(crate) type QuickCacheAsync<K, V> = Counted<super::QuickCacheAsync<K, V>>;
pub(crate) type Moka<K, V> = Counted<super::Moka<K, V>>;
pub(crate) type MokaFuture<K, V> = Counted<super::MokaFuture<K, V>>;
pub(crate) type MiniMoka<K, V> = Counted<super::MiniMoka<K, V>>;
pub(crate) type Foyer<K, V> = Counted<super::Foyer<K, V>>;
pub(crate) type Cached<K, V> = Counted<super::Cached<K, V>>;
pub(crate) type Cachet<K, V> = Counted<super::Cachet<K, V>>;
pub(crate) type StaleLarder<V> = Counted<super::StaleLarder<V>>;
pub(crate) type StaleCachet<V> = Counted<super::StaleCachet<V>>;

/// What a cache was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Caches that were made, and the entries that they have room for, together.
    pub(crate) made: u64,
    pub(crate) room: u64,
    /// Gets and reads.
    pub(crate) lookups: u64,
    pub(crate) hits: u64,
    pub(crate) sets: u64,
    /// Get-or-computes, and the computations that they began.
    pub(crate) asked: u64,
    pub(crate) computed: u64,
    pub(crate) expired: u64,
    /// The hashes of the keys that were looked up, asked for or expired, added up.
    pub(crate) keys: u64,
    /// The hashes of the keys that were set, added up.
    pub(crate) set_keys: u64,
}

impl Counts {
    /// What does not depend on what a cache answers.
    pub(crate) fn questions(self) -> Self {
        let sets_what_is_missing = self.lookups > self.hits;
        let (sets, set_keys) = if sets_what_is_missing { (0, 0) } else { (self.sets, self.set_keys) };
        Self { hits: 0, computed: 0, sets, set_keys, ..self }
    }

    fn zip(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            made: with(self.made, other.made),
            room: with(self.room, other.room),
            lookups: with(self.lookups, other.lookups),
            hits: with(self.hits, other.hits),
            sets: with(self.sets, other.sets),
            asked: with(self.asked, other.asked),
            computed: with(self.computed, other.computed),
            expired: with(self.expired, other.expired),
            keys: with(self.keys, other.keys),
            set_keys: with(self.set_keys, other.set_keys),
        }
    }
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        self.zip(earlier, u64::wrapping_sub)
    }
}

#[derive(Default)]
struct Tally {
    made: AtomicU64,
    room: AtomicU64,
    lookups: AtomicU64,
    hits: AtomicU64,
    sets: AtomicU64,
    asked: AtomicU64,
    computed: AtomicU64,
    expired: AtomicU64,
    keys: AtomicU64,
    set_keys: AtomicU64,
}

thread_local! {
    /// By the name of the cache, for the caches that this thread has made: tests run side by side.
    static TALLIES: RefCell<BTreeMap<&'static str, Arc<Tally>>> = RefCell::default();
}

/// What the caches of this name were asked that this thread has made.
pub(crate) fn counts(name: &'static str) -> Counts {
    let tally = tally(name);
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Counts {
        made: of(&tally.made),
        room: of(&tally.room),
        lookups: of(&tally.lookups),
        hits: of(&tally.hits),
        sets: of(&tally.sets),
        asked: of(&tally.asked),
        computed: of(&tally.computed),
        expired: of(&tally.expired),
        keys: of(&tally.keys),
        set_keys: of(&tally.set_keys),
    }
}

/// Counts from 0 again, for the caches that are made from now on.
pub(crate) fn forget() {
    TALLIES.with_borrow_mut(BTreeMap::clear);
}

fn tally(name: &'static str) -> Arc<Tally> {
    TALLIES.with_borrow_mut(|tallies| Arc::clone(tallies.entry(name).or_default()))
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

fn hash(key: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// A cache, and what it was asked.
pub(crate) struct Counted<R> {
    cache: R,
    tally: Arc<Tally>,
}

impl<R> Counted<R> {
    fn counting(name: &'static str, room: usize, cache: R) -> Self {
        let tally = tally(name);
        add(&tally.made, 1);
        add(&tally.room, room as u64);
        Self { cache, tally }
    }

    fn looked_up<T>(&self, key: &impl Hash, found: Option<T>) -> Option<T> {
        add(&self.tally.lookups, 1);
        add(&self.tally.keys, hash(key));
        add(&self.tally.hits, found.is_some().into());
        found
    }

    fn asked(&self, key: &impl Hash) {
        add(&self.tally.asked, 1);
        add(&self.tally.keys, hash(key));
    }
}

impl<R: Rival> Rival for Counted<R> {
    type Key = R::Key;
    type Value = R::Value;

    const NAME: &'static str = R::NAME;

    fn new(capacity: usize) -> Self {
        Self::counting(R::NAME, capacity, R::new(capacity))
    }

    fn expiring(capacity: usize) -> Self {
        Self::counting(R::NAME, capacity, R::expiring(capacity))
    }

    fn get(&self, key: &R::Key) -> Option<R::Value> {
        self.looked_up(key, self.cache.get(key))
    }

    fn read<T>(&self, key: &R::Key, read: impl FnOnce(&R::Value) -> T) -> Option<T> {
        self.looked_up(key, self.cache.read(key, read))
    }

    fn set(&self, key: &R::Key, value: R::Value) {
        add(&self.tally.sets, 1);
        add(&self.tally.set_keys, hash(key));
        self.cache.set(key, value);
    }

    async fn get_or_compute<F, Fut>(&self, key: &R::Key, compute: F) -> R::Value
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = R::Value> + Send + 'static,
    {
        self.asked(key);
        let tally = Arc::clone(&self.tally);
        let counted = move || {
            add(&tally.computed, 1);
            compute()
        };
        self.cache.get_or_compute(key, counted).await
    }

    fn expire(&self, key: &R::Key) {
        add(&self.tally.expired, 1);
        add(&self.tally.keys, hash(key));
        self.cache.expire(key);
    }

    fn settle(&self) {
        self.cache.settle();
    }

    fn lesser(work: &str) -> Option<&'static str> {
        R::lesser(work)
    }

    fn lacks(work: &str) -> Option<&'static str> {
        R::lacks(work)
    }
}

impl<S: Stale> Stale for Counted<S> {
    type Value = S::Value;

    const NAME: &'static str = S::NAME;

    fn new(key: String, value: S::Value) -> Self {
        Self::counting(S::NAME, 1, S::new(key, value))
    }

    async fn get(&self) -> S::Value {
        add(&self.tally.asked, 1);
        self.cache.get().await
    }
}

//! The caches, each behind the same few calls.

mod cached;
mod cachet;
#[cfg(test)]
pub(crate) mod counted;
mod foyer;
mod larder;
mod mini_moka;
mod moka;
mod quick;

use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ::larder::{Clock, SystemClock, Timestamp};

pub(crate) use self::cached::Cached;
pub(crate) use self::cachet::{Cachet, StaleCachet};
pub(crate) use self::foyer::Foyer;
pub(crate) use self::larder::{Larder, LarderSingle, StaleLarder};
pub(crate) use self::mini_moka::MiniMoka;
pub(crate) use self::moka::{Moka, MokaFuture};
pub(crate) use self::quick::{QuickCache, QuickCacheAsync};

/// All of them, by the names in the tables; `arc-swap` is no cache, and stands for the least that a read can do.
pub(crate) const NAMES: [&str; 10] = [
    "larder",
    "quick_cache",
    "quick_cache async",
    "moka",
    "moka future",
    "mini-moka",
    "foyer",
    "cached",
    "cachet",
    "arc-swap",
];

/// How long entries are fresh: longer than any run.
pub(crate) const TTL: Duration = Duration::from_hours(1);

/// What hashes keys, wherever a cache lets its caller choose: what larder uses.
pub(crate) type Hasher = foldhash::quality::RandomState;

/// What each of them does of what is measured, and what it lacks.
pub(crate) const NOTES: [(&str, &str); 7] = [
    (
        "larder",
        "`Cache` over `Memory` or `Single`, every call through the engine: lifetimes, one computation for all who ask, a \
         stale window. Reads are `peek` and `peek_with`. Its computations run in tasks of their own, and run on when \
         their caller goes away: a cost of its get-or-compute that most others do not bear.",
    ),
    (
        "quick_cache",
        "No lifetimes: a deadline stands beside each value and is checked by larder's clock. No stale window, no read \
         without a clone. `get_or_insert_with`, and `get_or_insert_async` as `quick_cache async`.",
    ),
    (
        "moka",
        "Lifetimes by a precise clock, `sync` and `future`, `get_with_by_ref`. No stale window, no read without a clone. \
         Evicts while its callers drain its channels.",
    ),
    ("mini-moka", "Lifetimes. No get-or-compute, no stale window, no read without a clone."),
    (
        "foyer",
        "Its tier in memory as it comes: eight shards, LRU. No lifetimes: a deadline as with quick_cache. A hit is a \
         handle that counts references. An expired entry is removed before it is fetched again.",
    ),
    (
        "cached",
        "`ShardedLruTtlCache`: lifetimes by a precise clock, its own hasher. Get-or-compute owns its key and computes once \
         for each caller, so there it is no rival; one computation for all is a matter of its macros.",
    ),
    (
        "cachet",
        "moka behind a boxed tier, stampede protection on, its own hasher. Lifetimes, and a stale window \
         (`time_to_refresh`) whose refreshes a tier below answers.",
    ),
];

/// A key: `u64`, `String`, or `()` where there is only one.
pub(crate) trait Key: Hash + Eq + Clone + Debug + Send + Sync + 'static {}

impl<K: Hash + Eq + Clone + Debug + Send + Sync + 'static> Key for K {}

/// A value, made of a number so that it can be checked.
pub(crate) trait Value: Clone + PartialEq + Debug + Send + Sync + 'static {
    fn of(number: u64) -> Self;

    /// A word of the value: what a reader looks at.
    fn word(&self) -> u64;

    /// Whether this is what [`Rival::expire`] stores in caches whose deadlines depend on the value.
    fn is_expired_marker(&self) -> bool {
        *self == Self::of(u64::MAX)
    }
}

impl Value for u64 {
    fn of(number: u64) -> Self {
        number
    }

    fn word(&self) -> u64 {
        *self
    }
}

impl Value for Arc<str> {
    fn of(number: u64) -> Self {
        format!("value {number}, as long as a short sentence").into()
    }

    fn word(&self) -> u64 {
        self.len() as u64
    }
}

impl Value for String {
    fn of(number: u64) -> Self {
        format!("value {number}, as long as a short sentence")
    }

    fn word(&self) -> u64 {
        self.len() as u64
    }
}

/// A cache to compare. Every call answers fresh values only.
pub(crate) trait Rival: Send + Sync + Sized + 'static {
    type Key: Key;
    type Value: Value;

    const NAME: &'static str;

    /// Holds `capacity` entries, fresh for [`TTL`].
    fn new(capacity: usize) -> Self;

    /// Like `new`, for a cache that [`expire`](Self::expire) will be called on.
    fn expiring(capacity: usize) -> Self {
        Self::new(capacity)
    }

    /// A clone of the fresh value.
    fn get(&self, key: &Self::Key) -> Option<Self::Value>;

    /// Shows the fresh value to `read`, without a clone where the cache can.
    fn read<T>(&self, key: &Self::Key, read: impl FnOnce(&Self::Value) -> T) -> Option<T> {
        self.get(key).map(|value| read(&value))
    }

    fn set(&self, key: &Self::Key, value: Self::Value);

    /// The fresh value, or what one computation answers to all who ask meanwhile.
    fn get_or_compute<F, Fut>(&self, key: &Self::Key, compute: F) -> impl Future<Output = Self::Value>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Self::Value> + Send + 'static;

    /// Leaves an entry under `key` that is past its deadline.
    fn expire(&self, key: &Self::Key);

    /// Does what it has put off.
    fn settle(&self) {}

    /// What it leaves out of this work, if it does less than the others: then it is shown, and no rival.
    fn lesser(work: &str) -> Option<&'static str> {
        let _ = work;
        None
    }

    /// Why it takes no part in this work, if it does not.
    fn lacks(work: &str) -> Option<&'static str> {
        let _ = work;
        None
    }
}

/// A cache with one stale entry, whose refresh has begun and does not end.
pub(crate) trait Stale: Send + Sync + Sized + 'static {
    type Value: Value;

    const NAME: &'static str;

    fn new(key: String, value: Self::Value) -> Self;

    /// The stale value. Its refresh is under way, and so nothing is computed.
    fn get(&self) -> impl Future<Output = Self::Value>;
}

/// A value and its deadline, for caches without lifetimes: checked by the clock that larder reads.
#[derive(Clone)]
pub(crate) struct Dated<V> {
    value: V,
    until: Timestamp,
}

impl<V> Dated<V> {
    pub(crate) fn new(value: V) -> Self {
        Self { value, until: SystemClock.now().saturating_add(TTL) }
    }

    pub(crate) fn expired(value: V) -> Self {
        Self { value, until: Timestamp::EPOCH }
    }

    #[inline]
    pub(crate) fn is_fresh(&self) -> bool {
        SystemClock.now() < self.until
    }

    #[inline]
    pub(crate) fn fresh(&self) -> Option<&V> {
        self.is_fresh().then_some(&self.value)
    }

    #[inline]
    pub(crate) fn into_fresh(self) -> Option<V> {
        self.is_fresh().then_some(self.value)
    }

    pub(crate) fn into_value(self) -> V {
        self.value
    }
}

/// The answer of a future that waits for other threads at most, and for those not long.
#[inline]
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => std::thread::yield_now(),
        }
    }
}

//! Exact least-recently-used order.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::RandomState;
use lru::LruCache;

use crate::describe::Description;
use crate::entry::Entry;
use crate::error::Result;
use crate::key::{Key, Value};
use crate::memory::concurrent::bounds;
use crate::memory::removal::{Cause, Departed, Listener};
use crate::memory::scales::Scales;
use crate::store::{ClearPrefix, Evict, Refusal, SetOutcome, Store};
use crate::sync::RwLock;
use crate::weigh::Weigher;

/// Entries in memory, in the exact order of their last use: the one unused for longest goes first.
///
/// Take it where that order is the requirement. [`Memory`](crate::Memory) is faster with several
/// threads, hits more often on most work, and lets no scan empty it.
///
/// ```
/// use larder::Lru;
///
/// let sessions = Lru::<str, String>::new(1_000);
/// # drop(sessions);
/// ```
///
/// # Order
///
/// A `set` and every read that hits (`get`, `peek_with`, and so each hit of a cache on top) make the
/// entry the most recent one. See [`sample_recency`](Lru::sample_recency) for less. Bounds, refusals and
/// causes are those of [`Memory`](crate::Memory).
///
/// # Cost
///
/// One lock over everything, exclusive for a read that moves its entry; a hit allocates nothing. `set`
/// allocates the entry's node. Memory per entry: `size_of::<K::Owned>() + size_of::<V>()` and what these
/// own, 40 bytes for the rest of the [`Entry`], 8 for its weight, 16 of links, what the allocator puts
/// in front of a block, and 20 to 40 bytes of table. So a `u64` to `u64` takes 100 to 120 bytes. It grows
/// with what it holds: a huge bound costs nothing by itself.
#[must_use = "a store does nothing until it is asked"]
pub struct Lru<K: Key + ?Sized, V> {
    held: RwLock<Order<K, V>>,
    max_entries: usize,
    scales: Option<Scales<K, V>>,
    listener: Option<Listener<K, V>>,
    every: u32,
    hits: AtomicU64,
}

type Order<K, V> = LruCache<<K as ToOwned>::Owned, Held<V>, RandomState>;

struct Held<V> {
    entry: Entry<V>,
    weight: u64,
}

impl<K: Key + ?Sized, V: Value> Lru<K, V> {
    /// Holds at most `max_entries` entries; zero keeps nothing, `usize::MAX` is no bound.
    pub fn new(max_entries: usize) -> Self {
        Self::assemble(max_entries, None)
    }

    /// Holds entries of at most `max_weight` together, as `weigher` weighs them: bytes if it is
    /// [`Weigher::of_type`], 96 of which for the store's own part of each entry. Zero keeps nothing.
    pub fn weighing(max_weight: u64, weigher: Weigher<K, V>) -> Self {
        Self::assemble(usize::MAX, Some(Scales::new(weigher, max_weight)))
    }

    /// Holds at most `max_entries` entries, besides any bound by weight. For assembly: what the store
    /// held is cleared.
    pub fn max_entries(mut self, max_entries: usize) -> Self {
        self.clear_all();
        self.max_entries = max_entries;
        self
    }

    /// Moves an entry on one hit in `every`, counted over all keys, and lets the other hits share the
    /// lock: more reads at once, and an order that is right only for what is read often. One, the
    /// default, is exact; zero never moves an entry by reading it, which makes the order that of the
    /// last `set`.
    pub fn sample_recency(mut self, every: u32) -> Self {
        self.every = every;
        self
    }

    /// Calls `listener` for each entry that leaves the store, with the cause, once, in the call that
    /// made it leave, after the store's lock is free: it may call the store. If it panics, the store
    /// is as it would be without it, and the panic goes to the caller. The last listener given is the
    /// one that is called.
    pub fn on_removal(mut self, listener: impl Fn(&K, &Entry<V>, Cause) + Send + Sync + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    fn assemble(max_entries: usize, scales: Option<Scales<K, V>>) -> Self {
        Self {
            // The bound is kept here and not by the crate, which would allocate for it at once.
            held: RwLock::new(LruCache::unbounded_with_hasher(RandomState::default())),
            max_entries,
            scales,
            listener: None,
            every: 1,
            hits: AtomicU64::new(0),
        }
    }

    fn put(&self, key: &K, entry: Entry<V>) -> SetOutcome {
        // The caller's code runs before anything is locked or changed: it may panic.
        let weight = Evict::weigh(self, key, &entry);
        let max_weight = self.max_weight();
        if self.max_entries == 0 || max_weight == Some(0) {
            return SetOutcome::Refused(Refusal::KeepsNothing);
        }
        let owned = key.to_owned();
        let too_large = max_weight.is_some_and(|max| weight > max);
        let mut departed = Departed::of(key);
        let mut held = self.held.write();
        let cause = if too_large { Cause::TooLarge } else { Cause::Replaced };
        self.take(&mut held, key, cause, &mut departed);
        if !too_large {
            // Weight within the bound fits at the latest when nothing else is held.
            while held.len() >= self.max_entries || !self.reserve(weight) {
                self.pop(&mut held, Cause::Evicted, &mut departed);
            }
            held.push(owned, Held { entry, weight });
        }
        drop(held);
        departed.report(self.listener.as_ref());
        if too_large { SetOutcome::Refused(Refusal::TooLarge) } else { SetOutcome::Stored }
    }

    fn take(&self, held: &mut Order<K, V>, key: &K, cause: Cause, departed: &mut Departed<'_, K, V>) {
        if let Some((key, before)) = held.pop_entry(key) {
            self.release(before.weight);
            departed.push(key, before.entry, cause);
        }
    }

    /// Takes the least recent entry out; `false` if there is none.
    fn pop(&self, held: &mut Order<K, V>, cause: Cause, departed: &mut Departed<'_, K, V>) -> bool {
        let Some((key, least)) = held.pop_lru() else { return false };
        self.release(least.weight);
        departed.push(key, least.entry, cause);
        true
    }

    fn clear_all(&self) {
        let mut departed = Departed::of_any();
        let mut held = self.held.write();
        while self.pop(&mut held, Cause::Cleared, &mut departed) {}
        drop(held);
        departed.report(self.listener.as_ref());
    }

    fn moves(&self) -> bool {
        match self.every {
            0 => false,
            1 => true,
            every => self.hits.fetch_add(1, Ordering::Relaxed) % u64::from(every) == u64::from(every) - 1,
        }
    }

    fn max_weight(&self) -> Option<u64> {
        self.scales.as_ref().map(Scales::max)
    }

    fn reserve(&self, weight: u64) -> bool {
        self.scales.as_ref().is_none_or(|scales| scales.reserve(weight))
    }

    fn release(&self, weight: u64) {
        if let Some(scales) = &self.scales {
            scales.release(weight);
        }
    }
}

impl<K: Key + ?Sized, V: Value> Store for Lru<K, V> {
    type Key = K;
    type Value = V;

    async fn get(&self, key: &K) -> Result<Option<Entry<V>>> {
        Ok(self.peek_with(key, Entry::clone))
    }

    async fn set(&self, key: &K, entry: Entry<V>) -> Result<SetOutcome> {
        Ok(self.put(key, entry))
    }

    async fn remove(&self, key: &K) -> Result<()> {
        let mut departed = Departed::of(key);
        self.take(&mut self.held.write(), key, Cause::Removed, &mut departed);
        departed.report(self.listener.as_ref());
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        self.clear_all();
        Ok(())
    }

    fn peek_with<R>(&self, key: &K, read: impl FnOnce(&Entry<V>) -> R) -> Option<R> {
        if self.moves() {
            self.held.write().get(key).map(|held| read(&held.entry))
        } else {
            self.held.read().peek(key).map(|held| read(&held.entry))
        }
    }

    fn len(&self) -> Option<u64> {
        Some(self.held.read().len() as u64)
    }

    fn weight(&self) -> Option<u64> {
        self.scales.as_ref().map(Scales::total)
    }

    fn describe(&self) -> Description {
        let mut layer = bounds(Description::new("lru"), self.max_entries, self.max_weight());
        if self.every != 1 {
            layer = layer.with("recency every", self.every);
        }
        layer.holding(self.len(), self.weight())
    }
}

impl<K: Key + ?Sized, V: Value> Evict for Lru<K, V> {
    /// For assembly: what the store held is cleared. A bound by weight stays, in what `weigher` counts.
    fn weighed_by(mut self, weigher: Weigher<K, V>) -> Self {
        self.clear_all();
        self.scales = Some(Scales::new(weigher, self.max_weight().unwrap_or(u64::MAX)));
        self
    }

    /// Without a weigher, zero. With one, what it says, and 96 bytes for the store's own part of the entry
    /// if it counts bytes.
    fn weigh(&self, key: &K, entry: &Entry<V>) -> u64 {
        self.scales.as_ref().map_or(0, |scales| scales.weigh(key, entry))
    }

    /// The least recent entry goes.
    fn evict(&self) -> bool {
        let mut departed = Departed::of_any();
        let evicted = self.pop(&mut self.held.write(), Cause::Evicted, &mut departed);
        departed.report(self.listener.as_ref());
        evicted
    }
}

impl<V: Value> ClearPrefix for Lru<str, V> {
    /// Looks at every key: time in proportion to what the store holds.
    async fn clear_prefix(&self, prefix: &str) -> Result<()> {
        let mut departed = Departed::of_any();
        let mut held = self.held.write();
        let keys: Vec<String> =
            held.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(key, _)| key.clone()).collect();
        for key in &keys {
            self.take(&mut held, key, Cause::Cleared, &mut departed);
        }
        drop(held);
        departed.report(self.listener.as_ref());
        Ok(())
    }
}

impl<K: Key + ?Sized, V: Value> fmt::Debug for Lru<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lru")
            .field("max_entries", &self.max_entries)
            .field("max_weight", &self.max_weight())
            .field("len", &self.len())
            .field("weight", &self.weight())
            .finish_non_exhaustive()
    }
}

//! The default tier.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::quality::RandomState;

use crate::describe::Description;
use crate::entry::Entry;
use crate::error::Result;
use crate::key::{Key, Value};
use crate::memory::front::{ASK, Front};
use crate::memory::policy::{DefaultPolicy, Policy};
use crate::memory::removal::{Cause, Departed, Listener};
use crate::memory::scales::Scales;
use crate::memory::shard::{Around, Set, Shard, Write, half};
use crate::store::{ClearPrefix, Evict, Refusal, SetOutcome, Store};
use crate::sync::RwLock;
use crate::weigh::Weigher;

/// Entries in memory, for many threads at once, bounded by number or by weight.
///
/// ```
/// use larder::{Memory, Weigher};
///
/// let users = Memory::<u64, String>::new(10_000);
/// let pages = Memory::<str, String>::weighing(64 << 20, Weigher::of_type())
///     .on_removal(|key, _page, cause| println!("{key} left: {cause:?}"));
/// # drop((users, pages));
/// ```
///
/// # What stays
///
/// A full store gives up entries by [`Adaptive`](crate::policy::Adaptive): entries that are read again stay, a
/// long scan of keys that are read once does not push them out, and where recency is the better guide it
/// follows that. [`ordered_by`](Memory::ordered_by) takes another policy. The store is never above a bound,
/// not even while a call runs. It looks at no clock: an entry leaves by its bound or by the caller's
/// wish only.
///
/// # Refusals
///
/// An entry that alone exceeds the weight bound is [`TooLarge`](Refusal::TooLarge), and what its key
/// held before is gone. A store whose bound is zero [`KeepsNothing`](Refusal::KeepsNothing).
///
/// # Cost
///
/// The keys that are read most are read without a lock, and nothing that threads share is written: so the key that
/// all of them ask for costs each of them the same, however many there are. There are 8 to 16 such keys a shard. Any other
/// hit is one hash, a shared lock on one shard, one comparison of keys, and at most two relaxed stores. A hit allocates
/// nothing, but that one in 64 of those under a lock asks for its key to be among the first: that moves the entry, and
/// clones the one whose place it takes if that was not read since the last one asked.
///
/// `get` clones the entry where it finds it, under that lock or without, `peek_with` reads it in place. `set`
/// and `remove` lock one shard; with a weight bound, `set` locks others in turn if its own is empty and
/// it still needs room. `len` and [`clear`](Store::clear) visit the shards one after another.
///
/// Memory per entry: `size_of::<K::Owned>() + size_of::<V>()` and what these own, 40 bytes for the rest
/// of the [`Entry`] and 16 for the slot, rounded up to 8; 6 to 12 bytes of table; and up to 4 bytes for
/// what the policy remembers of entries that it gave up. So a full store of `u64` to `u64` takes 78 to
/// 88 bytes an entry. It grows with what it holds, doubling, and takes the room for all that its bound by number allows
/// when an eighth of that is used: a huge bound costs nothing by itself.
///
/// Small stores are one shard, so that a bound of ten is ten entries whatever their keys. Above 2,048
/// entries (or 512 KiB of weight) there are up to sixteen shards a core, and a bound by number is split
/// among them: with random keys a full store then holds a few percent less than its bound. A shard holds
/// 2^31 - 2 entries at most.
#[must_use = "a store does nothing until it is asked"]
pub struct Memory<K: Key + ?Sized, V, P: Policy = DefaultPolicy> {
    shards: Shards<K, V, P>,
    hasher: RandomState,
    max_entries: usize,
    scales: Option<Scales<K, V>>,
    listener: Option<Listener<K, V>>,
    /// Which shard gives up the next entry that nobody's key decides.
    turn: AtomicUsize,
}

type Shards<K, V, P> = Box<[Line<K, V, P>]>;

/// A shard has its cache lines to itself (two, as they are fetched in pairs), so that the lock of one
/// does not slow its neighbour's.
#[repr(align(128))]
struct Line<K: Key + ?Sized, V, P: Policy> {
    front: Front<K, V, P>,
    shard: RwLock<Shard<K, V, P>>,
}

impl<K: Key + ?Sized, V: Value, P: Policy> Line<K, V, P> {
    /// Moves an entry that was read to where readers take no lock, if its cell is to be had. Whoever reads does not
    /// wait for that.
    #[cold]
    fn promote(&self, key: &K, hash: u64) {
        if self.front.yields(half(hash)) {
            let left = self.shard.try_write().and_then(|mut shard| shard.promote(key, hash, &self.front));
            // Now that the lock is free.
            drop(left);
        }
    }
}

impl<K: Key + ?Sized, V: Value> Memory<K, V> {
    /// Holds at most `max_entries` entries; zero keeps nothing, `usize::MAX` is no bound.
    pub fn new(max_entries: usize) -> Self {
        Self::assemble(max_entries, None)
    }

    /// Holds entries of at most `max_weight` together, as `weigher` weighs them: bytes if it is
    /// [`Weigher::of_type`], 96 of which for the store's own part of each entry. Zero keeps nothing.
    pub fn weighing(max_weight: u64, weigher: Weigher<K, V>) -> Self {
        Self::assemble(usize::MAX, Some(Scales::new(weigher, max_weight)))
    }
}

impl<K: Key + ?Sized, V: Value, P: Policy> Memory<K, V, P> {
    /// Gives up entries by the policy `Q`, in place of the one it had: one of [`policy`](crate::policy), or
    /// your own. For assembly: what the store held is cleared.
    ///
    /// ```
    /// use larder::{Memory, policy::S3Fifo};
    ///
    /// let users = Memory::<u64, String>::new(10_000).ordered_by::<S3Fifo>();
    /// # drop(users);
    /// ```
    pub fn ordered_by<Q: Policy>(self) -> Memory<K, V, Q> {
        self.clear_all();
        Memory {
            shards: shards(self.shards.len(), self.max_entries, self.scales.is_some(), ASK),
            hasher: self.hasher,
            max_entries: self.max_entries,
            scales: self.scales,
            listener: self.listener,
            turn: self.turn,
        }
    }

    /// Holds at most `max_entries` entries, besides any bound by weight. For assembly: what the store
    /// held is cleared.
    pub fn max_entries(self, max_entries: usize) -> Self {
        self.clear_all();
        let max_weight = self.scales.as_ref().map(Scales::max);
        Self { max_entries, ..self }.made_anew(shard_count(max_entries, max_weight), ASK)
    }

    /// Calls `listener` for each entry that leaves the store, with the cause, once, in the call that
    /// made it leave, after the store's locks are free: it may call the store. If it panics, the store
    /// is as it would be without it, and the panic goes to the caller. The last listener given is the
    /// one that is called.
    pub fn on_removal(mut self, listener: impl Fn(&K, &Entry<V>, Cause) + Send + Sync + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    fn assemble(max_entries: usize, scales: Option<Scales<K, V>>) -> Self {
        let count = shard_count(max_entries, scales.as_ref().map(Scales::max));
        Self {
            shards: shards(count, max_entries, scales.is_some(), ASK),
            hasher: RandomState::default(),
            max_entries,
            scales,
            listener: None,
            turn: AtomicUsize::new(0),
        }
    }

    /// With empty shards that follow its settings.
    fn made_anew(self, count: usize, ask: u32) -> Self {
        Self { shards: shards(count, self.max_entries, self.scales.is_some(), ask), ..self }
    }

    #[cfg(test)]
    pub(crate) fn in_shards(self, count: usize) -> Self {
        self.made_anew(count, ASK)
    }

    /// Hashes as `other` does, so that policies which remember hashes choose alike.
    #[cfg(test)]
    pub(crate) fn hashing_like(self, other: &Self) -> Self {
        Self { hasher: other.hasher.clone(), ..self }
    }

    /// How many entries are read without a lock, or would be if their cell had not been lost.
    #[cfg(test)]
    pub(crate) fn hot(&self) -> usize {
        self.shards.iter().map(|line| line.shard.read().moved()).sum()
    }

    /// Every hit that takes a lock asks for a place where it takes none, so that short histories come to that.
    #[cfg(any(test, feature = "testkit"))]
    pub(crate) fn eager(self) -> Self {
        let count = self.shards.len();
        self.made_anew(count, 1)
    }

    /// Takes the entry out of `entry`, where it need not be moved again to take another's place.
    fn put(&self, key: &K, entry: &mut Option<Entry<V>>) -> SetOutcome {
        // The weigher runs before anything is locked or changed: it may panic.
        let weight = entry.as_ref().map_or(0, |entry| Evict::weigh(self, key, entry));
        let max_weight = self.max_weight();
        if self.max_entries == 0 || max_weight == Some(0) {
            return SetOutcome::Refused(Refusal::KeepsNothing);
        }
        let hash = self.hasher.hash_one(key);
        let mut departed = Departed::of(key);
        if max_weight.is_some_and(|max| weight > max) {
            self.take(key, hash, Cause::TooLarge, &mut departed);
            departed.report(self.listener.as_ref());
            return SetOutcome::Refused(Refusal::TooLarge);
        }
        let write = Write { key, hash, weight };
        let own = self.index(hash);
        let line = &self.shards[own];
        loop {
            let set = line.shard.write().set(&write, &self.around(line), entry, &mut departed);
            match set {
                Set::Stored => break,
                Set::Swapped => {
                    if let (Some(before), Some(_)) = (entry.take(), &self.listener) {
                        departed.push_asked(before, Cause::Replaced);
                    }
                    break;
                }
                // The own shard is empty now, so the weight is elsewhere. Locks are held one at a time.
                Set::NoRoom => _ = self.evict_from(own + 1, &mut departed),
            }
        }
        departed.report(self.listener.as_ref());
        SetOutcome::Stored
    }

    fn take(&self, key: &K, hash: u64, cause: Cause, departed: &mut Departed<'_, K, V, P>) {
        let line = self.line(hash);
        line.shard.write().remove(key, hash, &self.around(line), cause, departed);
    }

    fn clear_all(&self) {
        self.clear_by(Shard::clear);
    }

    /// Clears shard by shard, and reports each before it locks the next: the entries of one shard at a
    /// time are held beside the store.
    fn clear_by(
        &self,
        clear: impl Fn(&mut Shard<K, V, P>, &Around<'_, K, V, P>, &mut Departed<'_, K, V, P>),
    ) {
        for line in &self.shards {
            let mut departed = Departed::of_any();
            clear(&mut line.shard.write(), &self.around(line), &mut departed);
            departed.report(self.listener.as_ref());
        }
    }

    /// Gives up one entry of the first shard that has any, in the order from `start`.
    fn evict_from(&self, start: usize, departed: &mut Departed<'_, K, V, P>) -> bool {
        let count = self.shards.len();
        (0..count).any(|step| {
            let line = &self.shards[start.wrapping_add(step) & (count - 1)];
            line.shard.write().evict(&self.around(line), departed)
        })
    }

    fn around<'a>(&'a self, line: &'a Line<K, V, P>) -> Around<'a, K, V, P> {
        Around { scales: self.scales.as_ref(), front: &line.front }
    }

    fn max_weight(&self) -> Option<u64> {
        self.scales.as_ref().map(Scales::max)
    }

    /// The bits above those that find the slot inside the shard. A count is a power of two.
    #[inline]
    fn index(&self, hash: u64) -> usize {
        (hash >> 40) as usize & (self.shards.len() - 1)
    }

    #[inline]
    fn line(&self, hash: u64) -> &Line<K, V, P> {
        &self.shards[self.index(hash)]
    }
}

impl<K: Key + ?Sized, V: Value, P: Policy> Store for Memory<K, V, P> {
    type Key = K;
    type Value = V;

    async fn get(&self, key: &K) -> Result<Option<Entry<V>>> {
        Ok(self.peek_with(key, Entry::clone))
    }

    async fn set(&self, key: &K, entry: Entry<V>) -> Result<SetOutcome> {
        Ok(self.put(key, &mut Some(entry)))
    }

    async fn remove(&self, key: &K) -> Result<()> {
        let mut departed = Departed::of(key);
        self.take(key, self.hasher.hash_one(key), Cause::Removed, &mut departed);
        departed.report(self.listener.as_ref());
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        self.clear_all();
        Ok(())
    }

    #[inline]
    fn peek_with<R>(&self, key: &K, read: impl FnOnce(&Entry<V>) -> R) -> Option<R> {
        let hash = self.hasher.hash_one(key);
        let line = self.line(hash);
        let hot = line.front.find(key, half(hash));
        let shard = hot.is_none().then(|| line.shard.read());
        // In one place, so that the caller's code is compiled into it.
        let shown = read(match &shard {
            Some(shard) => shard.read(key, hash)?,
            None => &hot.as_deref()?.as_deref()?.entry,
        });
        if shard.is_some() && line.front.counts() {
            drop(shard);
            line.promote(key, hash);
        }
        Some(shown)
    }

    fn len(&self) -> Option<u64> {
        Some(self.shards.iter().map(|line| line.shard.read().len() as u64).sum())
    }

    fn weight(&self) -> Option<u64> {
        self.scales.as_ref().map(Scales::total)
    }

    fn describe(&self) -> Description {
        bounds(Description::new("memory"), self.max_entries, self.max_weight())
            .holding(self.len(), self.weight())
    }
}

impl<K: Key + ?Sized, V: Value, P: Policy> Evict for Memory<K, V, P> {
    /// For assembly: what the store held is cleared. A bound by weight stays, in what `weigher` counts.
    fn weighed_by(mut self, weigher: Weigher<K, V>) -> Self {
        self.clear_all();
        self.scales = Some(Scales::new(weigher, self.max_weight().unwrap_or(u64::MAX)));
        let count = self.shards.len();
        self.made_anew(count, ASK)
    }

    /// Without a weigher, zero. With one, what it says, and 96 bytes for the store's own part of the entry
    /// if it counts bytes.
    fn weigh(&self, key: &K, entry: &Entry<V>) -> u64 {
        self.scales.as_ref().map_or(0, |scales| scales.weigh(key, entry))
    }

    /// The shards take turns.
    fn evict(&self) -> bool {
        let mut departed = Departed::of_any();
        let evicted = self.evict_from(self.turn.fetch_add(1, Ordering::Relaxed), &mut departed);
        departed.report(self.listener.as_ref());
        evicted
    }
}

impl<V: Value, P: Policy> ClearPrefix for Memory<str, V, P> {
    /// Looks at every key: time in proportion to what the store holds.
    async fn clear_prefix(&self, prefix: &str) -> Result<()> {
        self.clear_by(|shard, around, departed| {
            shard.clear_where(|key| key.starts_with(prefix), around, departed);
        });
        Ok(())
    }
}

impl<K: Key + ?Sized, V: Value, P: Policy> fmt::Debug for Memory<K, V, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("max_entries", &self.max_entries)
            .field("max_weight", &self.max_weight())
            .field("len", &self.len())
            .field("weight", &self.weight())
            .finish_non_exhaustive()
    }
}

/// The bounds of a memory tier, for people.
pub(super) fn bounds(mut layer: Description, max_entries: usize, max_weight: Option<u64>) -> Description {
    if max_entries < usize::MAX {
        layer = layer.with_count("max_entries", max_entries as u64);
    }
    match max_weight {
        Some(max) if max < u64::MAX => layer.with_size("max_weight", max),
        _ => layer,
    }
}

/// Entries, or units of weight, below which a shard of its own is not worth the uneven split.
const ENTRIES_A_SHARD: usize = 1_024;
const WEIGHT_A_SHARD: u64 = 256 << 10;
/// Two threads that read 10,000 keys of a store for 100,000 took 0.7 to 0.9 of the time that they take with four, and a
/// mix of reads and writes 0.8 to 1.0; one thread takes the same.
const SHARDS_A_CORE: usize = 16;
/// The bits that choose a shard end where the table's begin.
const MOST_SHARDS: usize = 1 << 16;

/// How many shards: a power of two, one for a small store.
fn shard_count(max_entries: usize, max_weight: Option<u64>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let by_weight = max_weight.map_or(u64::MAX, |max| max / WEIGHT_A_SHARD);
    let most = (max_entries / ENTRIES_A_SHARD).min(usize::try_from(by_weight).unwrap_or(usize::MAX));
    let wanted = (SHARDS_A_CORE * cores).next_power_of_two().min(MOST_SHARDS);
    match most.min(wanted).checked_ilog2() {
        Some(log) => 1 << log,
        None => 1,
    }
}

/// `count` shards whose capacities differ by one at most and make up `max_entries`.
fn shards<K: Key + ?Sized, V, P: Policy>(
    count: usize,
    max_entries: usize,
    weighs: bool,
    ask: u32,
) -> Shards<K, V, P> {
    let capacity = |index| max_entries / count + usize::from(index < max_entries % count);
    let line = |index| {
        let ticks = Arc::default();
        Line {
            front: Front::new(capacity(index), ask, Arc::clone(&ticks)),
            shard: RwLock::new(Shard::new(capacity(index), weighs, ticks)),
        }
    };
    (0..count).map(line).collect()
}

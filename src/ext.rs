//! One method per adapter; each adapter's manual stands on its method.

use std::time::Duration;

use bytes::Bytes;

use crate::adapters::{Access, ByteLimited, Chain, Encoded, FreshForAtMost, Inspect, Prefixed, Tagged};
use crate::codec::Codec;
use crate::dynamic::BoxStore;
use crate::entry::Entry;
use crate::key::Value;
use crate::store::{ClearPrefix, Evict, Store};
use crate::time::Timestamp;
use crate::weigh::{Weigh, Weigher};

/// The adapters: every method but [`peek`](StoreExt::peek) takes a store and returns a store.
///
/// Every [`Store`] has them; there is nothing to implement. A stack reads from the inside out, like an
/// iterator: what is written last is asked first.
///
/// ```
/// use larder::codec::Postcard;
/// use larder::{Memory, Store, StoreExt};
///
/// let users = Memory::<str, bytes::Bytes>::new(1_000)
///     .byte_limited(64 << 20)
///     .prefixed("users:")
///     .encoded::<(String, u32), _>(Postcard);
///
/// let layers = users.describe().to_string();
/// let names: Vec<_> = layers.lines().map(|line| line.trim_start_matches(['└', '─', ' '])).collect();
/// assert_eq!(names[0], "encoded (postcard)");
/// assert_eq!(names[1], r#"prefixed ("users:")"#);
/// assert_eq!(names[2], "byte_limited (max_bytes 64 MiB)");
/// assert!(names[3].starts_with("memory"));
/// ```
pub trait StoreExt: Store {
    /// The entry of `key`, whatever its freshness, if the store can tell without waiting.
    ///
    /// A copy of what [`peek_with`](Store::peek_with) shows: it costs a clone of the value. `None` is no
    /// proof of absence; only [`get`](Store::get) knows.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use larder::{Entry, Lifetime, Memory, Store, StoreExt, Timestamp};
    ///
    /// let pages = Memory::<str, String>::new(1_000);
    /// pages.set("/", Entry::new("home".to_owned(), Lifetime::forever(Timestamp::EPOCH))).await?;
    /// assert_eq!(pages.peek("/").unwrap().into_value(), "home");
    /// assert!(pages.peek("/about").is_none());
    /// # Ok::<(), larder::Error>(()) }).unwrap();
    /// ```
    fn peek(&self, key: &Self::Key) -> Option<Entry<Self::Value>> {
        self.peek_with(key, Entry::clone)
    }

    /// Puts this store in front of `lower`, a deeper and slower one.
    ///
    /// Reads ask this tier first and fall through to `lower`; what `lower` answers is copied upwards as
    /// the same entry. Writes and removals reach both (laws C1 to C9 of
    /// [`guide::semantics`](crate::guide::semantics)):
    ///
    /// - A copy that is no longer fresh never hides a fresh one below (C1).
    /// - What was removed, cleared or replaced is never copied upwards by a reader that began before (C3).
    /// - A tier that fails a read counts as a miss; the deepest tier's outage is an error, not a miss (C5).
    /// - If `lower` fails to store an entry, the error is reported and this tier holds the entry all the
    ///   same; [`Chain::strict`] takes it back instead (C5).
    /// - Where a write or removal failed, the copy counts as absent until one gets through (C6). This is
    ///   remembered for 65,536 keys a tier; beyond that, and after a failed `clear`, everything in the tier
    ///   that was created up to then counts as absent.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use larder::{Entry, Lifetime, Memory, Store, StoreExt, Timestamp};
    ///
    /// let deep = Memory::<str, String>::new(1_000_000);
    /// let stack = Memory::<str, String>::new(1_000).chain(&deep);
    ///
    /// deep.set("/", Entry::new("home".to_owned(), Lifetime::forever(Timestamp::EPOCH))).await?;
    /// assert!(stack.peek("/").is_none()); // not in the upper tier yet
    /// assert!(stack.get("/").await?.is_some()); // from the deep tier, and copied upwards
    /// assert!(stack.peek("/").is_some());
    /// # Ok::<(), larder::Error>(()) }).unwrap();
    /// ```
    ///
    /// `a.chain(b).chain(c)` and `a.chain(b.chain(c))` behave alike (C7). [`Chain::stats`] and `describe`
    /// tell of backfills and failures.
    ///
    /// Costs: a hit in the upper tier one atomic load. A read of the lower tier takes an entry in a
    /// table of the keys at work there; writers of one key take turns, readers never wait for them (C8).
    /// A write is three calls: one below, two above. A batch costs as many calls as one key, however many keys
    /// it has: `get_many` one a tier and one to write upwards what came from below, `set_many` three,
    /// `remove_many` two. A key that stands in it twice goes through the tiers twice. `renew` is one call a tier;
    /// while it runs, hits in this chain also look into the table of keys at work.
    ///
    /// # Order
    ///
    /// The faster tier first. `disk.chain(memory)` reads the disk on every call, and the memory holds what
    /// nobody asks it for.
    fn chain<B>(self, lower: B) -> Chain<Self, B>
    where
        Self: Sized,
        B: Store<Key = Self::Key, Value = Self::Value>,
    {
        Chain::new(self, lower)
    }

    /// Holds at most `bound` bytes, at every instant.
    ///
    /// Entries are weighed by [`Weigh`], heap included, plus what the store adds for its own part of an entry
    /// (96 bytes in the memory tiers).
    /// Before an entry goes in, the store gives up what it would miss least, until there is room. An entry
    /// that is heavier than `bound` is [refused](crate::SetOutcome::Refused), and the old entry of its key
    /// is gone; that is an answer and no error, and other tiers may still take the entry. A bound of zero
    /// holds nothing.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use larder::{Entry, Lifetime, Memory, Refusal, SetOutcome, Store, StoreExt, Timestamp};
    ///
    /// let pages = Memory::<str, String>::new(1_000_000).byte_limited(100_000);
    /// let page = |bytes| Entry::new("x".repeat(bytes), Lifetime::forever(Timestamp::EPOCH));
    /// for number in 0..100 {
    ///     assert_eq!(pages.set(&format!("/{number}"), page(9_500)).await?, SetOutcome::Stored);
    ///     assert!(pages.weight().unwrap() <= 100_000);
    /// }
    /// assert_eq!(pages.len(), Some(10));
    ///
    /// assert_eq!(pages.set("/", page(100_001)).await?, SetOutcome::Refused(Refusal::TooLarge));
    /// # Ok::<(), larder::Error>(()) }).unwrap();
    /// ```
    ///
    /// Costs: readers nothing. Writers take turns: they share one lock, held while the store inside takes
    /// the entry. Where that is too narrow, put shards around limited stores ([`Sharded`](crate::Sharded)).
    ///
    /// # Order
    ///
    /// Next to the memory tier. It takes a store that can give up entries ([`Evict`]); a tier that is no
    /// memory of this process has bounds of its own, and a chain has no entry that it would miss least:
    ///
    /// ```compile_fail
    /// use larder::{Memory, StoreExt};
    ///
    /// let l1 = Memory::<str, String>::new(1_000);
    /// let l2 = Memory::<str, String>::new(100_000);
    /// l1.chain(l2).byte_limited(64 << 20); // which of the two?
    /// ```
    ///
    /// Under [`encoded`](StoreExt::encoded) it counts encoded bytes, and over it there is nothing it could
    /// weigh:
    ///
    /// ```
    /// use larder::codec::Postcard;
    /// use larder::{Memory, StoreExt};
    ///
    /// let store = Memory::<str, bytes::Bytes>::new(1_000).byte_limited(64 << 20).encoded::<u64, _>(Postcard);
    /// # let _ = store;
    /// ```
    /// ```compile_fail
    /// use larder::codec::Postcard;
    /// use larder::{Memory, StoreExt};
    ///
    /// let store = Memory::<str, bytes::Bytes>::new(1_000).encoded::<u64, _>(Postcard).byte_limited(64 << 20);
    /// ```
    fn byte_limited(self, bound: u64) -> ByteLimited<Self>
    where
        Self: Evict + Sized,
        Self::Key: Weigh,
        Self::Value: Weigh,
    {
        ByteLimited::new(self, bound)
    }

    /// [`byte_limited`](StoreExt::byte_limited) for keys or values that do not implement [`Weigh`]:
    /// `weigh` tells the bytes of an entry, or whatever else there are `bound` of.
    ///
    /// It must answer the same for equal entries. The memory tier calls it on every write and on every
    /// replacement, so it should be quick. If it panics, the entry is not stored and the bound holds.
    ///
    /// ```
    /// use larder::{Memory, StoreExt};
    ///
    /// #[derive(Clone)]
    /// struct Image { pixels: std::sync::Arc<[u32]> }
    ///
    /// let images = Memory::<u64, Image>::new(10_000)
    ///     .byte_limited_by(256 << 20, |_, image| 4 * image.pixels.len() as u64);
    /// # let _ = images;
    /// ```
    fn byte_limited_by<F>(self, bound: u64, weigh: F) -> ByteLimited<Self>
    where
        Self: Evict + Sized,
        F: Fn(&Self::Key, &Self::Value) -> u64 + Send + Sync + 'static,
    {
        ByteLimited::weighed(self, bound, Weigher::new(weigh))
    }

    /// Makes a typed store of a store of bytes under text: values go through `codec`.
    ///
    /// The type of the values is inferred, from the tier above in a chain or from the first call. Keys are
    /// `str` and stay as they are; [`.keys(..)`](Encoded::keys) takes another key type and a
    /// [`KeyCodec`](crate::codec::KeyCodec) for it. Lifetime, version and tags pass unchanged.
    ///
    /// A value that does not decode is a miss, not an error, so that a deploy that changes a struct costs
    /// recomputations and not an outage. It is counted ([`undecodable`](Encoded::undecodable), and in
    /// `describe`), shown to [`.on_undecodable(..)`](Encoded::on_undecodable), and overwritten by the next
    /// `set`. A value that does not *encode* is an error of kind `InvalidInput`, and the old entry stays.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use larder::codec::{Postcard, Readable};
    /// use larder::{Entry, Lifetime, Memory, Store, StoreExt, Timestamp};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    /// struct User { name: String, age: u8 }
    ///
    /// // In place of this memory: files, Redis, S3.
    /// let bytes = Memory::<str, bytes::Bytes>::new(1_000);
    /// let users = (&bytes).encoded(Postcard).keys::<(String, u32), _>(Readable);
    ///
    /// let ada = User { name: "Ada".to_owned(), age: 36 };
    /// let key = ("acme".to_owned(), 7);
    /// users.set(&key, Entry::new(ada.clone(), Lifetime::forever(Timestamp::EPOCH))).await?;
    /// assert_eq!(users.get(&key).await?.unwrap().into_value(), ada);
    /// assert!(bytes.peek("(acme,7)").is_some());
    /// # Ok::<(), larder::Error>(()) }).unwrap();
    /// ```
    ///
    /// Costs: the codec, on every call; a `peek` too decodes what the store inside can show.
    /// [`Raw`](crate::codec::Raw) and `str` keys cost nothing and copy nothing. Mind the note on byte
    /// fields at [`Postcard`](crate::codec::Postcard).
    ///
    /// # Order
    ///
    /// Under the memory tier, not around it. Around it, every hit decodes:
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    /// use larder::codec::{self, Codec, Postcard};
    /// use larder::{Entry, Lifetime, Memory, Store, StoreExt, Timestamp};
    ///
    /// let decoded = AtomicU32::new(0);
    /// let counting = || codec::from_fns(
    ///     |value: &u64| Postcard.encode(value),
    ///     |bytes| { decoded.fetch_add(1, Relaxed); Codec::<u64>::decode(&Postcard, bytes) },
    /// );
    /// let entry = Entry::new(42, Lifetime::forever(Timestamp::EPOCH));
    ///
    /// let right = Memory::<str, u64>::new(10)
    ///     .chain(Memory::<str, bytes::Bytes>::new(10).encoded(counting()));
    /// right.set("a", entry.clone()).await?;
    /// for _ in 0..1_000 { right.get("a").await?; }
    /// assert_eq!(decoded.swap(0, Relaxed), 0);
    ///
    /// let wrong = Memory::<str, bytes::Bytes>::new(10)
    ///     .chain(Memory::<str, bytes::Bytes>::new(10))
    ///     .encoded(counting());
    /// wrong.set("a", entry).await?;
    /// for _ in 0..1_000 { wrong.get("a").await?; }
    /// assert_eq!(decoded.swap(0, Relaxed), 1_000);
    /// # Ok::<(), larder::Error>(()) }).unwrap();
    /// ```
    ///
    /// A store of anything but bytes under text is refused:
    ///
    /// ```compile_fail
    /// use larder::codec::Postcard;
    /// use larder::{Memory, StoreExt};
    ///
    /// let store = Memory::<str, String>::new(1_000).encoded::<u64, _>(Postcard);
    /// ```
    fn encoded<V, C>(self, codec: C) -> Encoded<Self, V, C>
    where
        Self: Store<Key = str, Value = Bytes> + Sized,
        V: Value,
        C: Codec<V>,
    {
        Encoded::new(self, codec)
    }

    /// The part of this store whose keys begin with `prefix`: `get("7")` asks for `users:7`, and `clear`
    /// removes what begins with `users:` and nothing else.
    ///
    /// A scope is a prefix of text, no more: the scope `user` contains the scope `users`. End a prefix
    /// with a separator, and no other scope can lie in it by accident. The empty prefix is the whole store.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use larder::{Entry, Lifetime, Memory, Store, StoreExt, Timestamp};
    ///
    /// let shared = Memory::<str, String>::new(1_000);
    /// let users = (&shared).prefixed("users:");
    /// let pages = (&shared).prefixed("pages:");
    ///
    /// let entry = Entry::new("ada".to_owned(), Lifetime::forever(Timestamp::EPOCH));
    /// users.set("7", entry.clone()).await?;
    /// pages.set("7", entry).await?;
    ///
    /// users.clear().await?;
    /// assert!(users.get("7").await?.is_none());
    /// assert!(pages.get("7").await?.is_some());
    /// # Ok::<(), larder::Error>(()) }).unwrap();
    /// ```
    ///
    /// It takes a store that can remove a range of keys ([`ClearPrefix`]); with another, `clear` would
    /// take the neighbours along. `len` and `weight` are `None`, because the store inside counts the
    /// neighbours too; the empty prefix knows them.
    ///
    /// Costs: one allocation a call and key, for the longer key; `peek` allocates only if prefix and key
    /// exceed 1,024 bytes.
    ///
    /// # Order
    ///
    /// Prefixes read from the inside out, as they stand in the key: `.prefixed("a:").prefixed("b:")` is
    /// `.prefixed("a:b:")`. A bound in bytes goes inside, because it bounds the store that is shared;
    /// outside it would have to evict the neighbours:
    ///
    /// ```compile_fail
    /// use larder::{Memory, StoreExt};
    ///
    /// let users = Memory::<str, String>::new(1_000).prefixed("users:").byte_limited(64 << 20);
    /// ```
    fn prefixed(self, prefix: impl Into<String>) -> Prefixed<Self>
    where
        Self: ClearPrefix + Sized,
    {
        Prefixed::new(self, prefix)
    }

    /// Entries are fresh for at most `limit` after they entered this store, whatever their own deadlines.
    ///
    /// An entry's deadlines are absolute and travel with it; this is about one tier's *copy*, such as a
    /// memory tier that is to look at the shared tier below now and then. All three deadlines move earlier
    /// together, so that the stale window neither grows nor vanishes (law C9). They never move later, and a
    /// limit of [`Duration::MAX`] is none. When the limit has passed, one read of the tier below renews
    /// the copy for another period.
    ///
    /// The time is the system's; [`.clock(..)`](FreshForAtMost::clock) takes another clock.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use std::time::Duration;
    /// use larder::{Entry, ManualClock, Memory, Store, StoreExt, Timestamp};
    ///
    /// let clock = ManualClock::new(Timestamp::EPOCH);
    /// let tier = Memory::<str, u64>::new(10).fresh_for_at_most(Duration::from_secs(5)).clock(clock.clone());
    ///
    /// tier.set("a", Entry::fresh_for(1, Timestamp::EPOCH, Duration::from_secs(60))).await?;
    /// let copy = tier.get("a").await?.unwrap();
    /// assert_eq!(copy.lifetime().fresh_until().since(Timestamp::EPOCH), Duration::from_secs(5));
    /// # Ok::<(), larder::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Order
    ///
    /// On the tier that it is meant for, before `chain`. After `chain` it caps every tier below as well, and
    /// an entry that could be shared for a minute is computed again every five seconds:
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use std::time::Duration;
    /// use larder::{Entry, Freshness, ManualClock, Memory, Store, StoreExt, Timestamp};
    ///
    /// let clock = ManualClock::new(Timestamp::EPOCH);
    /// let memory = || Memory::<str, u64>::new(10);
    /// let five = Duration::from_secs(5);
    /// let entry = Entry::fresh_for(1, Timestamp::EPOCH, Duration::from_secs(60));
    ///
    /// let right = memory().fresh_for_at_most(five).clock(clock.clone()).chain(memory());
    /// let wrong = memory().chain(memory()).fresh_for_at_most(five).clock(clock.clone());
    /// right.set("a", entry.clone()).await?;
    /// wrong.set("a", entry).await?;
    ///
    /// let later = Timestamp::EPOCH.saturating_add(Duration::from_secs(6));
    /// assert_eq!(right.get_at("a", later).await?.unwrap().freshness(later), Freshness::Fresh);
    /// assert!(wrong.get_at("a", later).await?.is_none_or(|found| found.freshness(later) == Freshness::Dead));
    /// # Ok::<(), larder::Error>(()) }).unwrap();
    /// ```
    fn fresh_for_at_most(self, limit: Duration) -> FreshForAtMost<Self>
    where
        Self: Sized,
    {
        FreshForAtMost::new(self, limit)
    }

    /// Lets entries be invalidated by their tags: one write to `tag_store`, however many entries carry the tag
    /// (laws T1 to T5 of [`guide::semantics`](crate::guide::semantics)).
    ///
    /// An invalidation is an instant. What carries the tag and was created up to it counts as absent
    /// ([`remove_tags`](crate::InvalidateTags::remove_tags)) or as no longer fresh
    /// ([`expire_tags`](crate::InvalidateTags::expire_tags)) wherever it is held and whenever it was written,
    /// and its room is freed when it is replaced, evicted or dead; [`len`](Store::len) and
    /// [`weight`](Store::weight) count it until then. [`guide::tags`](crate::guide::tags) leads through it.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use std::time::Duration;
    /// use larder::{Cache, Computed, Memory, StoreExt};
    ///
    /// let pages = Memory::<str, String>::new(1_000).tagged(Memory::new(100_000));
    /// let cache = Cache::builder(pages).ttl(Duration::from_secs(60)).build()?;
    ///
    /// let page = || async { Computed::new("<h1>Ada</h1>".to_owned()).tags(["user:42", "home"]) };
    /// cache.get_or_compute("/", page).await?;
    /// assert!(cache.peek("/").is_some());
    ///
    /// cache.remove_tag("user:42").await?;
    /// assert!(cache.peek("/").is_none());
    /// # Ok::<(), larder::Error>(()) }).unwrap();
    /// ```
    ///
    /// The tag store is any store of instants under text: a [`Memory`](crate::Memory) for one process,
    /// [`encoded`](StoreExt::encoded) over a directory for one that starts again, a chain of both. What it
    /// loses (by eviction, say) still holds in the process that knows it, and is lost when that ends. If it
    /// fails, an entry whose instants are not known is not served ([`Tagged::open_on_failure`] serves it).
    ///
    /// Costs: a tagged hit one look-up a tag in a sharded table, and one of the clock; an entry without tags
    /// nothing. A tag that this process does not know costs whoever first writes or reads it one call to the
    /// tag store, for all unknown tags of all entries of the call at once; hits wait for nothing. An invalidation costs one
    /// write, and one read before it of what is not known yet; invalidations take turns. The table holds
    /// 65,536 tags ([`Tagged::known_tags`]), about 100 bytes each and the text. A tagged entry older than 30
    /// days counts as absent ([`Tagged::max_age`]), so that the tag store may forget.
    ///
    /// # Order
    ///
    /// Outermost, around the whole stack: only what passes through it is judged. Around the lower tier of a
    /// chain it judges what that tier answers, and the upper tier goes on serving its copies; and the cache
    /// over it has no `remove_tag`, because a chain does not pass the capability on:
    ///
    /// ```compile_fail
    /// use larder::{InvalidateTags, Memory, StoreExt, Timestamp};
    ///
    /// let deep = Memory::<str, String>::new(1_000_000).tagged(Memory::new(1_000));
    /// let stack = Memory::<str, String>::new(1_000).chain(deep);
    /// let _ = stack.remove_tags(&["user:42"], Timestamp::MAX);
    /// ```
    fn tagged<T>(self, tag_store: T) -> Tagged<Self, T>
    where
        Self: Sized,
        T: Store<Key = str, Value = Timestamp>,
    {
        Tagged::new(self, tag_store)
    }

    /// Calls `look` after each access to this store: what was asked, for which key, and what came of it.
    /// For counters, logs and tests; it never changes an answer.
    ///
    /// A bulk call is one access a key. A `peek` is seen only if it was answered: whoever peeks in vain
    /// goes on to `get`, and that is seen. So hits are the hits of both, and misses are those of `get`.
    /// `len`, `weight`, `describe` and evictions are not accesses. A call whose future is dropped is not
    /// seen.
    ///
    /// `look` runs on every hit, in the caller's task: it should be quick and must not block. If it panics,
    /// it does so in the caller, when the call has already taken effect.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    /// use larder::{AccessOutcome, Entry, Lifetime, Memory, Store, StoreExt, Timestamp};
    ///
    /// let (hits, misses) = (AtomicU32::new(0), AtomicU32::new(0));
    /// let pages = Memory::<str, String>::new(1_000).inspect(|access| match access.outcome {
    ///     AccessOutcome::Hit(_) => { hits.fetch_add(1, Relaxed); }
    ///     AccessOutcome::Miss => { misses.fetch_add(1, Relaxed); }
    ///     _ => {}
    /// });
    ///
    /// pages.get("/").await?;
    /// pages.set("/", Entry::new("home".to_owned(), Lifetime::forever(Timestamp::EPOCH))).await?;
    /// pages.get("/").await?;
    /// pages.peek("/");
    /// assert_eq!((hits.load(Relaxed), misses.load(Relaxed)), (2, 1));
    /// # Ok::<(), larder::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Order
    ///
    /// It sees what passes at its place: on a tier the accesses to that tier, backfills included, and
    /// around a chain those to the chain.
    fn inspect<F>(self, look: F) -> Inspect<Self, F>
    where
        Self: Sized,
        F: Fn(&Access<'_, Self::Key>) + Send + Sync,
    {
        Inspect::new(self, look)
    }

    /// Forgets the type of this store: for a stack that a setting decides, or one that a struct holds
    /// without naming its layers.
    ///
    /// ```
    /// use larder::{BoxStore, Memory, Null, StoreExt};
    ///
    /// fn tier(enabled: bool) -> BoxStore<str, String> {
    ///     if enabled { Memory::<str, String>::new(1_000).boxed() } else { Null::new().boxed() }
    /// }
    /// # tier(true);
    /// # tier(false);
    /// ```
    ///
    /// Costs: one allocation a call that may wait; `peek` is a call through a pointer and allocates
    /// nothing.
    ///
    /// # Order
    ///
    /// Last, because the capabilities of the store inside ([`Evict`], [`ClearPrefix`]) are forgotten too:
    ///
    /// ```compile_fail
    /// use larder::{Memory, StoreExt};
    ///
    /// let users = Memory::<str, String>::new(1_000).boxed().prefixed("users:");
    /// ```
    fn boxed(self) -> BoxStore<Self::Key, Self::Value>
    where
        Self: Sized + 'static,
    {
        BoxStore::new(self)
    }
}

impl<S: Store + ?Sized> StoreExt for S {}

//! The heart of the crate: what a store is.

use std::future::Future;

use crate::describe::Description;
use crate::entry::Entry;
use crate::error::Result;
use crate::key::{Key, Value};
use crate::time::Timestamp;
use crate::weigh::Weigher;

/// What became of an entry that was given to a store. A refusal is an answer, not an error: other tiers
/// may still take the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SetOutcome {
    /// The store holds the entry.
    Stored,
    /// The store does not hold the entry, nor what it held before under this key.
    Refused(Refusal),
}

/// Why a store did not take an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The entry alone exceeds a bound of the store.
    TooLarge,
    /// The store keeps nothing: its capacity is zero, or the cache is set to bypass it.
    KeepsNothing,
}

/// A place that holds entries: memory, a directory, a server, or any stack of these.
///
/// # Contract
///
/// Laws S1 to S13 of [`guide::semantics`](crate::guide::semantics), in short: what `get` returns is what
/// `set` was given, bit for bit, or nothing; per key a store is a linearizable register that may forget
/// at any moment but never goes back; different keys never meet; a store never judges freshness; a
/// future that is dropped leaves a legal state and has no effect afterwards.
///
/// # For callers
///
/// A miss is `Ok(None)`. A value too large for a tier is `Ok(SetOutcome::Refused(_))`. An error means
/// that the store could not tell or could not do it; its [kind](crate::ErrorKind) says what to do.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use larder::{Entry, ErrorKind, Lifetime, Memory, SetOutcome, Store, Timestamp};
///
/// let pages = Memory::<str, String>::new(1_000);
/// match pages.set("/", Entry::new("home".to_owned(), Lifetime::forever(Timestamp::EPOCH))).await {
///     Ok(SetOutcome::Stored) => {}
///     Ok(SetOutcome::Refused(why)) => println!("not in this tier: {why:?}"),
///     Err(error) if error.kind() == ErrorKind::Unavailable => println!("serve without it: {error}"),
///     Err(error) => return Err(error),
/// }
/// match pages.get("/").await? {
///     Some(entry) => assert_eq!(entry.value(), "home"),
///     None => println!("a miss: nothing is wrong"),
/// }
/// # Ok::<(), larder::Error>(()) }).unwrap();
/// ```
///
/// # For store authors
///
/// Write the four required methods; that is a whole store. Override a provided method where your store
/// can do better than its default: `peek_with` if it can answer without waiting, the bulk calls if it has
/// any, `renew` if it can move an entry's deadlines and leave its value, `len` and `weight` if it knows them. Here is all of one:
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::{Mutex, PoisonError};
/// use larder::{Description, Entry, Result, SetOutcome, Store};
///
/// #[derive(Debug, Default)]
/// struct Shelf {
///     entries: Mutex<HashMap<String, Entry<String>>>,
/// }
///
/// impl Shelf {
///     fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<String, Entry<String>>> {
///         self.entries.lock().unwrap_or_else(PoisonError::into_inner)
///     }
/// }
///
/// impl Store for Shelf {
///     type Key = str;
///     type Value = String;
///
///     async fn get(&self, key: &str) -> Result<Option<Entry<String>>> {
///         Ok(self.entries().get(key).cloned())
///     }
///
///     async fn set(&self, key: &str, entry: Entry<String>) -> Result<SetOutcome> {
///         self.entries().insert(key.to_owned(), entry);
///         Ok(SetOutcome::Stored)
///     }
///
///     async fn remove(&self, key: &str) -> Result<()> {
///         self.entries().remove(key);
///         Ok(())
///     }
///
///     async fn clear(&self) -> Result<()> {
///         self.entries().clear();
///         Ok(())
///     }
///
///     fn describe(&self) -> Description {
///         Description::new("shelf").holding(Some(self.entries().len() as u64), None)
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use larder::{Cache, Memory, StoreExt};
/// use std::time::Duration;
///
/// // A tier like any other:
/// let stack = Memory::<str, String>::new(1_000).chain(Shelf::default());
/// let cache = Cache::builder(stack).ttl(Duration::from_secs(60)).build()?;
/// let page = cache.get_or_compute("/", || async { "<h1>larder</h1>".to_owned() }).await?;
/// assert_eq!(page, "<h1>larder</h1>");
/// # Ok::<(), larder::Error>(()) }).unwrap();
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a store",
    note = "implement `larder::Store` for it: `get`, `set`, `remove`, `clear`"
)]
#[expect(clippy::len_without_is_empty, reason = "what is not known is not empty either")]
pub trait Store: Send + Sync {
    /// What entries are looked up by, borrowed: `str`, `u64`, a tuple.
    type Key: Key + ?Sized;
    /// What entries hold.
    type Value: Value;

    /// The entry of `key`, whatever its freshness, or `None`.
    fn get(&self, key: &Self::Key) -> impl Future<Output = Result<Option<Entry<Self::Value>>>> + Send;

    /// Stores `entry` under `key` in place of what was there.
    fn set(
        &self,
        key: &Self::Key,
        entry: Entry<Self::Value>,
    ) -> impl Future<Output = Result<SetOutcome>> + Send;

    /// [`set`](Store::set), where the store may hold this very value already, under other deadlines: after
    /// "not modified". It says nothing more than that. A store that can tell so writes the deadlines and no
    /// value bytes; the others, and one that holds something else or nothing, do as `set`, which is the
    /// default (law S13).
    fn renew(
        &self,
        key: &Self::Key,
        entry: Entry<Self::Value>,
    ) -> impl Future<Output = Result<SetOutcome>> + Send {
        self.set(key, entry)
    }

    /// Removes the entry of `key`; succeeds when there is none.
    fn remove(&self, key: &Self::Key) -> impl Future<Output = Result<()>> + Send;

    /// Removes every entry of this store, and nothing else.
    fn clear(&self) -> impl Future<Output = Result<()>> + Send;

    /// The best entry of `key` for a reader at `now`. A single place has no choice and answers as
    /// [`get`](Store::get) does, which is the default; a chain looks past a copy that is not fresh.
    fn get_at(
        &self,
        key: &Self::Key,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<Entry<Self::Value>>>> + Send {
        let _ = now;
        self.get(key)
    }

    /// Shows the entry of `key` to `read` if the store can tell without waiting, and answers `None` if it
    /// holds none or cannot tell at once (the default). The engine tries it first on every call: it must
    /// not block, and it counts as a use of the entry.
    ///
    /// `read` may run under a lock of the store: it must be short and must not call the store.
    fn peek_with<R>(&self, key: &Self::Key, read: impl FnOnce(&Entry<Self::Value>) -> R) -> Option<R> {
        let _ = (key, read);
        None
    }

    /// [`get_at`](Store::get_at) for many keys: one result a key, in order.
    fn get_many(
        &self,
        keys: &[&Self::Key],
        now: Timestamp,
    ) -> impl Future<Output = Vec<Result<Option<Entry<Self::Value>>>>> + Send {
        async move {
            let mut results = Vec::with_capacity(keys.len());
            for key in keys {
                results.push(self.get_at(key, now).await);
            }
            results
        }
    }

    /// [`set`](Store::set) for many entries, in order: one result an entry.
    fn set_many(
        &self,
        entries: &[(&Self::Key, Entry<Self::Value>)],
    ) -> impl Future<Output = Vec<Result<SetOutcome>>> + Send {
        async move {
            let mut results = Vec::with_capacity(entries.len());
            for (key, entry) in entries {
                results.push(self.set(key, entry.clone()).await);
            }
            results
        }
    }

    /// [`remove`](Store::remove) for many keys: one result a key, in order.
    fn remove_many(&self, keys: &[&Self::Key]) -> impl Future<Output = Vec<Result<()>>> + Send {
        async move {
            let mut results = Vec::with_capacity(keys.len());
            for key in keys {
                results.push(self.remove(key).await);
            }
            results
        }
    }

    /// How many entries the store holds, if it knows without asking anyone. Exact when nothing runs.
    fn len(&self) -> Option<u64> {
        None
    }

    /// How many bytes the entries weigh, if the store knows without asking anyone. Exact when nothing
    /// runs.
    fn weight(&self) -> Option<u64> {
        None
    }

    /// Returns once everything acknowledged so far is as durable as this store makes it.
    fn flush(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// The store and what is inside it, for people: name, parameters, what it holds.
    fn describe(&self) -> Description {
        Description::new("store").holding(self.len(), self.weight())
    }
}

/// A store that can bound itself by weight, giving up the entries that it would miss least.
///
/// The capability behind [`byte_limited`](crate::StoreExt::byte_limited). Memory tiers have it.
pub trait Evict: Store {
    /// Weighs every entry by `weigher` from now on, as part of [`Store::weight`]. Called once, at
    /// assembly, on an empty store.
    #[must_use = "this returns the store that weighs"]
    fn weighed_by(self, weigher: Weigher<Self::Key, Self::Value>) -> Self
    where
        Self: Sized;

    /// What `entry` weighs or would weigh in this store: what the weigher says, and the overhead of an
    /// entry if the store counts it.
    fn weigh(&self, key: &Self::Key, entry: &Entry<Self::Value>) -> u64;

    /// Gives up the entry that the store would miss least. `false` if it holds none.
    fn evict(&self) -> bool;
}

/// A store whose entries can be invalidated by their tags, however many they are, with one write.
///
/// The capability behind [`Cache::remove_tag`](crate::Cache::remove_tag), which
/// [`tagged`](crate::StoreExt::tagged) gives. Laws T1 to T5 of [`guide::semantics`](crate::guide::semantics).
///
/// An error says that the invalidation may hold or not: call again (T3).
pub trait InvalidateTags: Store {
    /// Whatever was created up to `at` and carries one of `tags` counts as absent from now on. An empty tag
    /// is an error of kind [`InvalidInput`](crate::ErrorKind::InvalidInput).
    fn remove_tags(&self, tags: &[&str], at: Timestamp) -> impl Future<Output = Result<()>> + Send;

    /// The same, but it counts as no longer fresh: it is served stale within its window, while it is
    /// computed anew, and an entry without a window is dead.
    fn expire_tags(&self, tags: &[&str], at: Timestamp) -> impl Future<Output = Result<()>> + Send;
}

/// A store with text keys that can remove a whole range of them.
///
/// The capability behind [`prefixed`](crate::StoreExt::prefixed): without it, clearing one prefix would
/// take its neighbours along.
pub trait ClearPrefix: Store<Key = str> {
    /// Removes every entry whose key begins with `prefix`, and nothing else.
    fn clear_prefix(&self, prefix: &str) -> impl Future<Output = Result<()>> + Send;
}

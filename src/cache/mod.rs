//! The engine: the only place that judges freshness.
//!
//! A hit reads the store and the clock, and nothing else. Whoever finds nothing joins the key's flight
//! (`flight.rs`) or runs one (`load.rs`). A write fences the flights that it overtakes. `policy.rs`
//! computes lifetimes and judges them; `ahead.rs` says which fresh entries are due; `background.rs` and
//! `budget.rs` bound what runs behind the callers.

pub(crate) mod ahead;
mod answers;
pub(crate) mod background;
mod batch;
pub(crate) mod budget;
mod builder;

pub(crate) mod computed;
pub(crate) mod core;
pub(crate) mod errors;
pub(crate) mod event;
mod flight;
mod gather;
mod load;
mod load_many;
pub(crate) mod patience;
pub(crate) mod places;
pub(crate) mod policy;
mod run;
mod tags;
#[cfg(test)]
mod tests;
pub(crate) mod trouble;
mod within;

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub use answers::Answers;
pub use background::ShutdownReport;
pub use builder::CacheBuilder;
pub use computed::Computed;
pub use event::{Event, EventKind};
pub use gather::BatchLoader;
pub use patience::Patience;

use crate::describe::Description;
use crate::entry::{Entry, Freshness};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::runtime::BoxFuture;
use crate::store::{Refusal, SetOutcome, Store};
use crate::time::Timestamp;
use answers::failed;
use background::Alive;
use core::Core;
use load::{Compute, Owned};

/// A cache over any stack: fresh values from the store, one computation for the rest.
///
/// A handle, cheap to clone. When the last one is dropped, what runs in the background stops.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use std::time::Duration;
/// use larder::{Cache, Memory};
///
/// let cache = Cache::builder(Memory::<str, String>::new(10_000))
///     .ttl(Duration::from_secs(60))
///     .stale(Duration::from_secs(300))
///     .build()?;
///
/// let user = cache.get_or_compute("42", || async { "Ada".to_owned() }).await?;
/// assert_eq!(user, "Ada");
/// assert_eq!(cache.peek("42").as_deref(), Some("Ada"));
///
/// cache.remove("42").await?;
/// assert_eq!(cache.peek("42"), None);
/// # Ok::<(), larder::Error>(()) }).unwrap();
/// ```
///
/// # Outcomes
///
/// | found | `get_or_compute` answers |
/// | --- | --- |
/// | fresh | the value |
/// | fresh, and due for an [early refresh](CacheBuilder::refresh_ahead) | the value at once; one refresh runs |
/// | stale, within its window | the value at once; one refresh runs |
/// | expired or nothing | what one computation for all callers answers |
/// | expired, and the computation fails | the error, or the value if [`keep_stale_on_error`](CacheBuilder::keep_stale_on_error) reaches that far |
/// | the store fails | as if nothing were found, with an event; an error if [`strict`](CacheBuilder::strict) |
///
/// # Asking for a key within its own computation
///
/// would wait for itself. It is answered with an error of kind [`Cycle`](ErrorKind::Cycle), also through
/// the computations of other keys, as long as they run within each other. A circle that is closed from
/// two ends (a waits for b while b waits for a), or through tasks which the computations spawned, is ended by
/// [`load_timeout`](CacheBuilder::load_timeout).
pub struct Cache<S: Store, L = NoLoader> {
    pub(crate) core: Arc<Core<S>>,
    pub(crate) alive: Arc<Alive>,
    pub(crate) patience: Patience,
    loader: L,
}

/// The loader of a cache that has none: its callers bring their computations.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLoader;

/// The loader of a cache that owns one. See [`CacheBuilder::loader`].
pub struct Loader<S: Store>(Arc<Load<S>>);

type Load<S> = dyn Fn(
        Owned<S>,
        Option<Entry<<S as Store>::Value>>,
    ) -> BoxFuture<'static, Result<Computed<<S as Store>::Value>>>
    + Send
    + Sync;

impl<S: Store> Cache<S> {
    /// Begins a cache over `store`.
    pub fn builder(store: S) -> CacheBuilder<S> {
        CacheBuilder::new(store)
    }
}

impl<S: Store + 'static, L> Cache<S, L> {
    /// The fresh value of `key` if a fast tier can tell at once. Starts nothing and waits for nothing: no refresh
    /// either, however due it is.
    pub fn peek(&self, key: &S::Key) -> Option<S::Value> {
        self.core.peek(key, S::Value::clone)
    }

    /// Shows the fresh value of `key` to `read`, without cloning it.
    ///
    /// `read` may run under a lock of the store: it must be short and must not call the cache.
    pub fn peek_with<R>(&self, key: &S::Key, read: impl FnOnce(&S::Value) -> R) -> Option<R> {
        self.core.peek(key, read)
    }

    /// The fresh value of `key` from whichever tier holds it. Computes nothing, and joins no flight: each
    /// caller reads the tiers. A store that fails is an error, whether the cache is strict or not.
    pub async fn get(&self, key: &S::Key) -> Result<Option<S::Value>> {
        if self.core.policy.bypass {
            return Ok(None);
        }
        if let Some(value) = self.peek(key) {
            return Ok(Some(value));
        }
        let found = self.core.store.get_at(key, self.core.clock.now()).await;
        self.was_got(key, found, self.core.clock.now())
    }

    /// What a read for [`get`](Self::get) comes to, judged at `now`.
    fn was_got(
        &self,
        key: &S::Key,
        found: Result<Option<Entry<S::Value>>>,
        now: Timestamp,
    ) -> Result<Option<S::Value>> {
        let found = found.inspect_err(|error| self.tell_failure(key, Operation::Get, error))?;
        let fresh = found.filter(|entry| self.core.policy.judge(entry.lifetime(), now) == Freshness::Fresh);
        self.core
            .listener
            .tell(key, fresh.as_ref().map_or(EventKind::Miss, |entry| EventKind::Hit(entry.lifetime())));
        Ok(fresh.map(Entry::into_value))
    }

    /// The value of `key`: from the store if it is fresh or within its stale window, else from `compute`.
    ///
    /// Concurrent callers share one computation and its outcome (E3). It runs on when its caller goes
    /// away, bounded by [`load_timeout`](CacheBuilder::load_timeout) (E5). If it panics, the panic goes on
    /// in the caller that brought it and waits for it, and the others carry on with their own (E7); the panic
    /// of a refresh is an event.
    pub async fn get_or_compute<F, Fut, C>(&self, key: &S::Key, compute: F) -> Result<S::Value>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = C> + Send + 'static,
        C: Into<Computed<S::Value>> + 'static,
    {
        if let Some(value) = self.core.hit(key) {
            return Ok(value);
        }
        let compute: Compute<S::Value> = Box::new(|_| Box::pin(async { Ok(compute().await.into()) }));
        self.core.miss(key, compute, self.patience).await
    }

    /// The same for a computation that may fail. Its error is the source of one of kind
    /// [`Computation`](ErrorKind::Computation), shared by everyone who waited; it is not cached (E6).
    pub async fn get_or_try_compute<F, Fut, C, E>(&self, key: &S::Key, compute: F) -> Result<S::Value>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<C, E>> + Send + 'static,
        C: Into<Computed<S::Value>> + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    {
        if let Some(value) = self.core.hit(key) {
            return Ok(value);
        }
        let compute: Compute<S::Value> = Box::new(|_| Box::pin(async { answer(compute()).await }));
        self.core.miss(key, compute, self.patience).await
    }

    /// The same for a computation that is given the entry still held, stale or expired, and may answer
    /// [`Computed::unchanged`]. What is past its `keep_until` is not given: with a ttl alone that is everything
    /// past its ttl.
    pub async fn get_or_recompute<F, Fut, C, E>(&self, key: &S::Key, compute: F) -> Result<S::Value>
    where
        F: FnOnce(Option<Entry<S::Value>>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<C, E>> + Send + 'static,
        C: Into<Computed<S::Value>> + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    {
        if let Some(value) = self.core.hit(key) {
            return Ok(value);
        }
        let compute: Compute<S::Value> = Box::new(|held| Box::pin(async { answer(compute(held)).await }));
        self.core.miss(key, compute, self.patience).await
    }

    /// Stores `value` under `key`, created now, for the cache's ttl. Overtakes a running computation.
    pub async fn set(&self, key: &S::Key, value: S::Value) -> Result<SetOutcome> {
        self.set_with(key, Computed::new(value)).await
    }

    /// The same with a lifetime, version or tags of its own.
    pub async fn set_with(&self, key: &S::Key, value: Computed<S::Value>) -> Result<SetOutcome> {
        if self.core.policy.bypass {
            return Ok(SetOutcome::Refused(Refusal::KeepsNothing));
        }
        let entry = self.core.entry(key, value, None, self.core.at_once())?;
        let mut fence = self.core.flights.fence(key);
        if fence.waits() {
            fence.landed().await;
        }
        self.core.forget_error(key);
        let outcome = self.core.store.set(key, entry).await;
        match &outcome {
            Ok(SetOutcome::Stored) => self.core.listener.tell(key, EventKind::Set),
            Ok(SetOutcome::Refused(why)) => self.core.listener.tell(key, EventKind::Refused(*why)),
            Err(error) => self.tell_failure(key, Operation::Set, error),
        }
        outcome
    }

    /// Removes `key` from every tier. Once acknowledged, no computation that began before is stored or
    /// given to later callers (E4). An error says that a tier may still hold the entry: call again.
    pub async fn remove(&self, key: &S::Key) -> Result<()> {
        if self.core.policy.bypass {
            return Ok(());
        }
        let mut fence = self.core.flights.fence(key);
        fence.landed().await;
        self.core.forget_error(key);
        let outcome = self.core.store.remove(key).await;
        match &outcome {
            Ok(()) => self.core.listener.tell(key, EventKind::Removed),
            Err(error) => self.tell_failure(key, Operation::Remove, error),
        }
        outcome
    }

    /// Removes everything, as [`remove`](Self::remove) does one key.
    pub async fn clear(&self) -> Result<()> {
        if self.core.policy.bypass {
            return Ok(());
        }
        let _fence = self.core.flights.write_all().await;
        if let Some(errors) = &self.core.errors {
            errors.forget_all();
        }
        let outcome = self.core.store.clear().await;
        self.core.listener.tell_of_all(match &outcome {
            Ok(()) => EventKind::Cleared,
            Err(error) => EventKind::StoreFailed(Operation::Clear, error),
        });
        outcome
    }

    /// Starts no further computation, waits for those that run until `deadline`, cuts off the rest, and
    /// flushes the store within the same time again. Hits are served on; a miss is then an error of kind
    /// [`ShutDown`](ErrorKind::ShutDown).
    pub async fn shutdown(&self, deadline: Duration) -> Result<ShutdownReport> {
        let report = self.core.background.shutdown(deadline, &self.alive).await;
        match self.core.background.within(deadline, self.core.store.flush()).await {
            Ok(flushed) => flushed.map(|()| report),
            Err(_) => Err(Error::new(ErrorKind::Timeout, "cache", Operation::Flush)
                .with_message(format!("the store did not flush within {deadline:?}"))),
        }
    }

    /// The cache and its stack as a tree, with what each tier holds.
    pub fn describe(&self) -> Description {
        self.core.policy.describe(Description::new("cache")).over(self.core.store.describe())
    }

    /// The stack that the cache was built over. What is written to it directly the cache does not fence.
    pub fn store(&self) -> &S {
        &self.core.store
    }

    fn tell_failure(&self, key: &S::Key, operation: Operation, error: &Error) {
        self.core.listener.tell(key, EventKind::StoreFailed(operation, error));
    }

    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.core.flights.is_idle() && self.core.invalidations.is_idle()
    }
}

impl<S: Store + 'static> Cache<S, Loader<S>> {
    /// The value of `key`, computed by the cache's own loader where [`get_or_compute`](Self::get_or_compute)
    /// would ask its caller.
    pub async fn fetch(&self, key: &S::Key) -> Result<S::Value> {
        if let Some(value) = self.core.hit(key) {
            return Ok(value);
        }
        let (loader, owned) = (Arc::clone(&self.loader.0), key.to_owned());
        let compute: Compute<S::Value> = Box::new(move |held| loader(owned, held));
        self.core.miss(key, compute, self.patience).await
    }
}

impl<S: Store> Loader<S> {
    fn new(
        load: impl Fn(Owned<S>, Option<Entry<S::Value>>) -> BoxFuture<'static, Result<Computed<S::Value>>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self(Arc::new(load))
    }
}

/// A computation's answer in the engine's words.
async fn answer<V, C, E>(computation: impl Future<Output = std::result::Result<C, E>>) -> Result<Computed<V>>
where
    C: Into<Computed<V>>,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    match computation.await {
        Ok(value) => Ok(value.into()),
        Err(error) => Err(failed(error)),
    }
}

impl<S: Store, L: Clone> Clone for Cache<S, L> {
    fn clone(&self) -> Self {
        let (core, alive) = (Arc::clone(&self.core), Arc::clone(&self.alive));
        Self { core, alive, patience: self.patience, loader: self.loader.clone() }
    }
}

impl<S: Store> Clone for Loader<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Store + 'static, L> fmt::Debug for Cache<S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({})", self.describe())
    }
}

impl<S: Store> fmt::Debug for Loader<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loader")
    }
}

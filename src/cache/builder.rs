//! How a cache is told what to do.

use std::future::Future;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::{FixedState, RandomState};

use crate::cache::ahead::{Ahead, Rule};
use crate::cache::answers::Answers;
use crate::cache::background::Background;
use crate::cache::batch::compute_many;
use crate::cache::budget::{Budget, Rate};
use crate::cache::computed::{Computed, Keep, Ttl};
use crate::cache::core::Core;
use crate::cache::errors::Errors;
use crate::cache::event::{Event, Listener};
use crate::cache::flight::Flights;
use crate::cache::gather::BatchLoader;
use crate::cache::load::Owned;
use crate::cache::places::Places;
use crate::cache::policy::{CLOCK_SKEW, Jitter, MAX_REFRESHES, Policy, TIMEOUT};
use crate::cache::tags::{Invalidations, TagsOf};
use crate::cache::trouble;
use crate::cache::{Cache, Loader, NoLoader, answer};
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::runtime::{Runtime, TokioRuntime};
use crate::store::Store;
use crate::time::{AnyClock, Clock};

/// Builds a [`Cache`]: choose a policy ([`ttl`](Self::ttl), [`no_expiration`](Self::no_expiration) or
/// [`bypass`](Self::bypass)), then [`build`](Self::build). Everything else has a default.
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct CacheBuilder<S: Store, L = NoLoader> {
    store: S,
    loader: L,
    pub(super) settings: Settings<S>,
}

/// Whatever is not told is left to [`build`](CacheBuilder::build), which says what contradicts what.
#[derive(Debug)]
pub(super) struct Settings<S: Store> {
    ttl: Option<Duration>,
    no_expiration: bool,
    bypass: bool,
    stale: Option<Duration>,
    keep: Keep,
    tags_of: TagsOf<S>,
    jitter: Option<f64>,
    seed: Option<u64>,
    ahead: Option<f64>,
    ahead_by_cost: Option<f64>,
    clock_skew: Duration,
    strict: bool,
    gather: Option<(Duration, usize)>,
    pub(super) trouble: trouble::Settings<S>,
    load_timeout: Duration,
    refresh_timeout: Duration,
    max_refreshes: usize,
    refreshes_per_second: Option<f64>,
    clock: AnyClock,
    listener: Listener<S>,
    runtime: AnyRuntime,
}

impl<S: Store> Default for Settings<S> {
    fn default() -> Self {
        Self {
            ttl: None,
            no_expiration: false,
            bypass: false,
            stale: None,
            keep: Keep::No,
            tags_of: TagsOf::default(),
            jitter: None,
            seed: None,
            ahead: None,
            ahead_by_cost: None,
            clock_skew: CLOCK_SKEW,
            strict: false,
            gather: None,
            trouble: trouble::Settings::default(),
            load_timeout: TIMEOUT,
            refresh_timeout: TIMEOUT,
            max_refreshes: MAX_REFRESHES,
            refreshes_per_second: None,
            clock: AnyClock::default(),
            listener: Listener::default(),
            runtime: AnyRuntime(Arc::new(TokioRuntime::current())),
        }
    }
}

struct AnyRuntime(Arc<dyn Runtime>);

impl std::fmt::Debug for AnyRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Runtime")
    }
}

impl<S: Store> CacheBuilder<S> {
    pub(crate) fn new(store: S) -> Self {
        Self { store, loader: NoLoader, settings: Settings::default() }
    }

    /// Gives the cache its loader, so that [`Cache::fetch`] needs no closure.
    pub fn loader<F, Fut, C, E>(self, load: F) -> CacheBuilder<S, Loader<S>>
    where
        F: Fn(Owned<S>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<C, E>> + Send + 'static,
        C: Into<Computed<S::Value>> + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        self.reloader(move |key, _| load(key))
    }

    /// Gives the cache a loader that is also given the entry still held, stale or expired, so that it can
    /// ask its origin "changed since this version?" and answer [`Computed::unchanged`]. What is past its
    /// `keep_until` is not given: with a ttl alone that is everything past its ttl.
    pub fn reloader<F, Fut, C, E>(self, load: F) -> CacheBuilder<S, Loader<S>>
    where
        F: Fn(Owned<S>, Option<Entry<S::Value>>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<C, E>> + Send + 'static,
        C: Into<Computed<S::Value>> + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let loader = Loader::new(move |key, held| Box::pin(answer(load(key, held))));
        CacheBuilder { loader, store: self.store, settings: self.settings }
    }
}

impl<S: Store> CacheBuilder<S> {
    /// Gives the cache a loader of many keys, for [`Cache::fetch_many`] and [`Cache::fetch`]: it is given the keys in
    /// their owned form, none twice, and answers what can be made [`Answers`] of, in any order. What it says
    /// of each key, and what it leaves out, is treated as by
    /// [`get_or_try_compute_many`](Cache::get_or_try_compute_many).
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use std::collections::HashMap;
    /// use std::time::Duration;
    /// use larder::{Cache, Memory};
    ///
    /// async fn names(ids: Vec<u64>) -> Result<HashMap<u64, String>, std::io::Error> {
    ///     Ok(ids.into_iter().map(|id| (id, format!("user {id}"))).collect())
    /// }
    ///
    /// let users = Cache::builder(Memory::<u64, String>::new(10_000))
    ///     .ttl(Duration::from_secs(60))
    ///     .batch_loader(names)
    ///     .gather(Duration::from_millis(2), 100)
    ///     .build()?;
    /// assert_eq!(users.fetch(&7).await?, "user 7");
    /// assert_eq!(users.fetch_many(&[&7, &8]).await[1].as_deref().ok(), Some("user 8"));
    /// # Ok::<(), larder::Error>(()) }).unwrap();
    /// ```
    pub fn batch_loader<F, Fut, A, E>(self, load: F) -> CacheBuilder<S, BatchLoader<S>>
    where
        F: Fn(Vec<Owned<S>>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<A, E>> + Send + 'static,
        A: Into<Answers<Owned<S>, S::Value>> + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let loader = BatchLoader::new(compute_many::<S, _, _, _, _>(load));
        CacheBuilder { loader, store: self.store, settings: self.settings }
    }
}

impl<S: Store> CacheBuilder<S, BatchLoader<S>> {
    /// Gathers single loads and refreshes: one that comes to its computation waits for `window` for others, and all of
    /// them are one call of the loader. A call has at most `most` keys: when there are as many, it begins at once.
    /// Off unless told.
    ///
    /// Each load pays up to `window` of waiting, so choose a small part of what the loader takes; it counts within
    /// [`load_timeout`](Self::load_timeout), than which it must be shorter. Neither is zero. Without a
    /// runtime or a timer each key is loaded alone. [`Cache::fetch_many`] does not wait: it has its company.
    pub fn gather(mut self, window: Duration, most: usize) -> Self {
        self.settings.gather = Some((window, most));
        self.loader = self.loader.gathering(window, most);
        self
    }
}

impl<S: Store, L> CacheBuilder<S, L> {
    /// Values are fresh for this long after their computation ended. Not zero.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = Some(ttl);
        self
    }

    /// Values are fresh for ever, until they are evicted, removed or replaced.
    pub fn no_expiration(mut self) -> Self {
        self.settings.no_expiration = true;
        self
    }

    /// Computes on every call and touches no store (E10): the cache switched off, whatever else is set.
    pub fn bypass(mut self) -> Self {
        self.settings.bypass = true;
        self
    }

    /// For this long after the end of freshness a value is served at once while one refresh runs
    /// (`stale-while-revalidate` of RFC 5861). Needs a ttl.
    pub fn stale(mut self, window: Duration) -> Self {
        self.settings.stale = Some(window);
        self
    }

    /// For this long after the end of freshness a value is served if a computation failed
    /// (`stale-if-error` of RFC 5861, law E8). Stores keep entries for as long.
    pub fn keep_stale_on_error(mut self, age: Duration) -> Self {
        self.settings.keep = Keep::For(age);
        self
    }

    /// The same without end: the last entry held is served if a computation failed, however old it is.
    /// Stores then drop entries only to make room.
    pub fn keep_stale_on_error_forever(mut self) -> Self {
        self.settings.keep = Keep::Forever;
        self
    }

    /// Gives every entry the tags that are a function of its value, after those of its computation and without
    /// duplicates: what [`Cache::remove_tag`] then removes. An entry has 1,024 tags at most, none of them empty;
    /// a computation whose entry would have others fails with an error of kind
    /// [`InvalidInput`](crate::ErrorKind).
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use larder::{Cache, Memory, StoreExt};
    ///
    /// let orders = Memory::<u64, Vec<u32>>::new(1_000).tagged(Memory::new(100_000));
    /// let cache = Cache::builder(orders)
    ///     .no_expiration()
    ///     .tags_of(|articles: &Vec<u32>| articles.iter().map(|article| format!("article:{article}")).collect::<Vec<_>>())
    ///     .build()?;
    /// cache.set(&1, vec![7, 8]).await?;
    /// cache.remove_tag("article:8").await?;
    /// assert_eq!(cache.get(&1).await?, None);
    /// # Ok::<(), larder::Error>(()) }).unwrap();
    /// ```
    pub fn tags_of<F, T>(mut self, tags_of: F) -> Self
    where
        F: Fn(&S::Value) -> T + Send + Sync + 'static,
        T: IntoIterator<Item: Into<Arc<str>>>,
    {
        let tags_of = move |value: &S::Value| tags_of(value).into_iter().map(Into::into).collect();
        self.settings.tags_of = TagsOf(Some(Box::new(tags_of)));
        self
    }

    /// Shortens each ttl by a chance part of this fraction of it, 0 to 1, so that values computed
    /// together do not expire together. Needs a ttl.
    pub fn jitter(mut self, fraction: f64) -> Self {
        self.settings.jitter = Some(fraction);
        self
    }

    /// Makes chance repeatable: the same seed, key and instant give the same [jitter](Self::jitter) and the same
    /// [early refresh](Self::refresh_ahead_by_cost). Chosen anew for each cache unless told.
    pub fn jitter_seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }

    /// Refreshes a fresh value early: a hit past this fraction of its lifetime is answered at once and starts one
    /// refresh behind it, as a stale hit does, so that nobody waits for a value that is asked for often enough.
    /// Between 0 and 1, such as 0.8; needs a ttl. Laws E18 and E19.
    ///
    /// Due is what has less than `1 - fraction` of its lifetime left, to the nanosecond: at 0.8 a value with a ttl of
    /// a minute has exactly 12 s left for the last time when it is not due yet. The lifetime counts from the beginning
    /// of the load, and is the cache's ttl at most. What never expires is never due. [`peek`](Cache::peek) and
    /// [`get`](Cache::get) start nothing.
    ///
    /// The refresh asks deeper tiers first and takes a copy that stays fresh for longer and is not due itself. If it
    /// fails, the value stays as it is, and the same value is tried again no sooner than a second after the refresh
    /// began. How many run is bounded by [`max_refreshes`](Self::max_refreshes) and
    /// [`refreshes_per_second`](Self::refreshes_per_second).
    ///
    /// Costs one comparison a hit, and 128 KiB a cache.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use std::time::Duration;
    /// use larder::{Cache, Clock, ManualClock, Memory, SystemClock};
    ///
    /// let clock = ManualClock::new(SystemClock.now());
    /// let cache = Cache::builder(Memory::<str, u64>::new(10_000))
    ///     .ttl(Duration::from_secs(60))
    ///     .refresh_ahead(0.8)
    ///     .clock(clock.clone())
    ///     .build()?;
    /// cache.set("visitors", 1).await?;
    /// clock.advance(Duration::from_secs(49));
    /// // Fresh, and due: the answer is there at once, and the next one is on its way.
    /// assert_eq!(cache.get_or_compute("visitors", || async { 2 }).await?, 1);
    /// tokio::task::yield_now().await;
    /// assert_eq!(cache.peek("visitors"), Some(2));
    /// # Ok::<(), larder::Error>(()) }).unwrap();
    /// ```
    pub fn refresh_ahead(mut self, fraction: f64) -> Self {
        self.settings.ahead = Some(fraction);
        self
    }

    /// Refreshes a fresh value early by chance, the likelier the nearer its deadline and the dearer its load: due if
    /// `now + cost * beta * -ln(u) >= fresh_until`, with `u` uniform between 0 and 1 (XFetch: Vattani, Chierichetti
    /// and Lowenstein, Optimal Probabilistic Cache Stampede Prevention, VLDB 2015). Positive; 1 unless there is a
    /// reason, more for earlier; needs a ttl. Values computed together are refreshed apart, and those that are cheap
    /// live nearly as long as they may.
    ///
    /// The cost is the time that loads of the key took, by the cache's clock, a new one counting a quarter; of all
    /// keys, if this cache never loaded that one; before the first load nothing is due. `u` is a hash of key and
    /// instant: one draw a tick of the clock, repeatable by [`jitter_seed`](Self::jitter_seed). What a due hit does,
    /// and what bounds it, is told at [`refresh_ahead`](Self::refresh_ahead), which is the other choice.
    ///
    /// Costs a comparison a hit, near a deadline two hashes and a logarithm, and 384 KiB a cache: 128 KiB as there,
    /// and 65,536 measurements of 4 bytes. Keys that share a place there are measured as one.
    ///
    /// ```
    /// use std::time::Duration;
    /// use larder::{Cache, Memory};
    ///
    /// let cache = Cache::builder(Memory::<str, String>::new(10_000))
    ///     .ttl(Duration::from_secs(60))
    ///     .refresh_ahead_by_cost(1.0)
    ///     .refreshes_per_second(100.0)
    ///     .build()?;
    /// # let _ = cache;
    /// # Ok::<(), larder::Error>(())
    /// ```
    pub fn refresh_ahead_by_cost(mut self, beta: f64) -> Self {
        self.settings.ahead_by_cost = Some(beta);
        self
    }

    /// By how much another host's clock may run ahead (5 s unless told): an entry from beyond it is not
    /// taken for fresh (E12).
    pub fn clock_skew(mut self, most: Duration) -> Self {
        self.settings.clock_skew = most;
        self
    }

    /// Fails a computation whose entry could not be read or written (E11 says what happens otherwise).
    pub fn strict(mut self) -> Self {
        self.settings.strict = true;
        self
    }

    /// How long a computation that somebody waits for may take (30 s unless told), and as long again each
    /// for the read before and the write after it. Not zero.
    pub fn load_timeout(mut self, limit: Duration) -> Self {
        self.settings.load_timeout = limit;
        self
    }

    /// How long a refresh may take (30 s unless told). Not zero.
    pub fn refresh_timeout(mut self, limit: Duration) -> Self {
        self.settings.refresh_timeout = limit;
        self
    }

    /// How many refreshes may run at once, stale or early (64 unless told). Not zero. One that may not begin is
    /// skipped, which is an event: the value is served all the same, and the next call tries again (E19).
    pub fn max_refreshes(mut self, most: usize) -> Self {
        self.settings.max_refreshes = most;
        self
    }

    /// How many refreshes may begin a second, stale or early; without end unless told. A positive number, such as 0.1
    /// or 1,000. In any span of `t` seconds by the cache's clock at most `rate * t + burst` begin, where the burst
    /// is a tenth of a second's worth, at least 1 (E19; the generic cell rate algorithm of ITU-T I.371). What a skipped
    /// one means is told at [`max_refreshes`](Self::max_refreshes).
    ///
    /// A jump of the clock ahead is worth one burst at most; after a step back, however far, the next refresh waits
    /// for a second and `1 / rate` seconds at most. Loads that somebody waits for are not counted.
    pub fn refreshes_per_second(mut self, rate: f64) -> Self {
        self.settings.refreshes_per_second = Some(rate);
        self
    }

    /// The clock by which the cache judges; the system's unless told.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.settings.clock = AnyClock::of(clock);
        self
    }

    /// Tells `listen` what happens, where it happens: it should be short, and must not call the cache. If
    /// it panics, the call that it listened to does.
    pub fn events(mut self, listen: impl Fn(&Event<'_, S::Key>) + Send + Sync + 'static) -> Self {
        self.settings.listener = Listener::new(listen);
        self
    }

    /// Where detached work runs: tokio's current runtime unless told.
    pub fn runtime(mut self, runtime: impl Runtime) -> Self {
        self.settings.runtime = AnyRuntime(Arc::new(runtime));
        self
    }

    /// The cache, or an error of kind [`InvalidInput`](crate::ErrorKind) that names the setting at fault.
    pub fn build(self) -> Result<Cache<S, L>> {
        let settings = self.settings;
        let policy = settings.policy()?;
        let budget = Budget::new(policy.max_refreshes, policy.refreshes);
        let (background, alive) = Background::new(settings.runtime.0, budget);
        let seed = settings.seed.unwrap_or_else(|| RandomState::default().hash_one(0));
        let chance = FixedState::with_seed(seed);
        let ahead = match (policy.ahead, policy.ttl) {
            (Some(rule), Ttl::For(ttl)) => Some(Box::new(Ahead::new(rule, ttl, chance.clone()))),
            _ => None,
        };
        let trouble::Settings { negative, errors, .. } = settings.trouble;
        let core = Core {
            store: self.store,
            negative: negative.map(|(_, negative)| negative),
            errors: policy.trouble.backoff.map(|backoff| Errors::new(backoff, errors.only)),
            places: policy.trouble.limit.map(Places::new),
            policy,
            clock: settings.clock,
            listener: settings.listener,
            flights: Flights::new(),
            background,
            invalidations: Invalidations::default(),
            tags_of: settings.tags_of,
            ahead,
            chance,
        };
        let patience = core.policy.trouble.patience;
        Ok(Cache { core: Arc::new(core), alive: Arc::new(alive), patience, loader: self.loader })
    }
}

impl<S: Store> Settings<S> {
    /// The settings in the engine's words, or what is wrong with them.
    fn policy(&self) -> Result<Policy> {
        let invalid = |message: &'static str| Err(Error::invalid("cache", message));
        let ttl = match (self.ttl, self.no_expiration) {
            (None, false) if !self.bypass => {
                return invalid("policy: none chosen; call `ttl`, `no_expiration` or `bypass`");
            }
            (Some(_), true) => return invalid("no_expiration: contradicts the ttl; choose one"),
            (Some(Duration::ZERO), _) => {
                return invalid("ttl: zero; to switch the cache off, call `bypass`");
            }
            (Some(ttl), false) => Ttl::For(ttl),
            (None, _) => Ttl::Never,
        };
        if self.ttl.is_none() && !self.bypass {
            if self.stale.is_some() {
                return invalid("stale: a stale window needs a ttl before it");
            }
            if self.jitter.is_some() && self.trouble.negative.is_none() {
                return invalid("jitter: there is no ttl to spread");
            }
            if self.ahead.is_some() {
                return invalid("refresh_ahead: there is no ttl to be ahead of");
            }
            if self.ahead_by_cost.is_some() {
                return invalid("refresh_ahead_by_cost: there is no ttl to be ahead of");
            }
        }
        let Some(jitter) = Jitter::of(self.jitter.unwrap_or(0.0)) else {
            return invalid("jitter: not a fraction from 0 to 1");
        };
        let ahead = match (self.ahead, self.ahead_by_cost) {
            (Some(_), Some(_)) => {
                return invalid("refresh_ahead: contradicts refresh_ahead_by_cost; choose one");
            }
            (Some(fraction), None) => {
                let Some(rule) = Rule::fraction(fraction) else {
                    return invalid("refresh_ahead: not a fraction between 0 and 1");
                };
                Some(rule)
            }
            (None, Some(beta)) => {
                let Some(rule) = Rule::cost(beta) else {
                    return invalid("refresh_ahead_by_cost: not a positive number; 1 is usual");
                };
                Some(rule)
            }
            (None, None) => None,
        };
        let refreshes = self.refreshes_per_second.map(Rate::of);
        if refreshes == Some(None) {
            return invalid(
                "refreshes_per_second: not a positive number; for no refresh at all, choose none",
            );
        }
        if self.load_timeout.is_zero() {
            return invalid("load_timeout: zero; no computation could end");
        }
        match self.gather {
            Some((_, 0)) => return invalid("gather: at most zero keys a call; no key could be loaded"),
            Some((Duration::ZERO, _)) => {
                return invalid("gather: a window of zero; to load each key alone, do not gather");
            }
            Some((window, _)) if window >= self.load_timeout => {
                return invalid("gather: a window as long as `load_timeout`; no load could end");
            }
            _ => {}
        }
        if self.refresh_timeout.is_zero() {
            return invalid("refresh_timeout: zero; no refresh could end");
        }
        if self.max_refreshes == 0 {
            return invalid("max_refreshes: zero; for no refresh at all, set no stale window");
        }
        let trouble = self.trouble.policy().map_err(|message| Error::invalid("cache", message))?;
        Ok(Policy {
            bypass: self.bypass,
            ttl,
            stale: self.stale.unwrap_or_default(),
            keep: self.keep,
            jitter,
            ahead,
            skew: self.clock_skew,
            strict: self.strict,
            gather: self.gather,
            trouble,
            load_timeout: self.load_timeout,
            refresh_timeout: self.refresh_timeout,
            max_refreshes: self.max_refreshes,
            refreshes: refreshes.flatten(),
        })
    }
}

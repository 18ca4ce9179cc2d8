//! How a cache is told what to do.

use std::future::Future;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::{FixedState, RandomState};

use crate::cache::background::Background;
use crate::cache::computed::{Computed, Keep, Ttl};
use crate::cache::core::Core;
use crate::cache::errors::Errors;
use crate::cache::event::{Event, Listener};
use crate::cache::flight::Flights;
use crate::cache::load::Owned;
use crate::cache::places::Places;
use crate::cache::policy::{CLOCK_SKEW, Jitter, MAX_REFRESHES, Policy, TIMEOUT};
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
    jitter: Option<f64>,
    seed: Option<u64>,
    clock_skew: Duration,
    strict: bool,
    pub(super) trouble: trouble::Settings<S>,
    load_timeout: Duration,
    refresh_timeout: Duration,
    max_refreshes: usize,
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
            jitter: None,
            seed: None,
            clock_skew: CLOCK_SKEW,
            strict: false,
            trouble: trouble::Settings::default(),
            load_timeout: TIMEOUT,
            refresh_timeout: TIMEOUT,
            max_refreshes: MAX_REFRESHES,
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
        let loader = Loader::new(move |key, held| answer(load(key, held)));
        CacheBuilder { loader, store: self.store, settings: self.settings }
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

    /// Shortens each ttl by a chance part of this fraction of it, 0 to 1, so that values computed
    /// together do not expire together. Needs a ttl.
    pub fn jitter(mut self, fraction: f64) -> Self {
        self.settings.jitter = Some(fraction);
        self
    }

    /// Makes jitter repeatable: the same seed, key and instant give the same deadline. Chosen anew for each
    /// cache unless told.
    pub fn jitter_seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
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

    /// How many refreshes may run at once (64 unless told). Not zero. One that may not begin is skipped:
    /// the stale value is served, and the next call tries again.
    pub fn max_refreshes(mut self, most: usize) -> Self {
        self.settings.max_refreshes = most;
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
        let (background, alive) = Background::new(settings.runtime.0);
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
            chance: FixedState::with_seed(
                settings.seed.unwrap_or_else(|| RandomState::default().hash_one(0)),
            ),
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
        }
        let Some(jitter) = Jitter::of(self.jitter.unwrap_or(0.0)) else {
            return invalid("jitter: not a fraction from 0 to 1");
        };
        if self.load_timeout.is_zero() {
            return invalid("load_timeout: zero; no computation could end");
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
            skew: self.clock_skew,
            strict: self.strict,
            trouble,
            load_timeout: self.load_timeout,
            refresh_timeout: self.refresh_timeout,
            max_refreshes: self.max_refreshes,
        })
    }
}

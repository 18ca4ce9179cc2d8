//! What is done when an origin is slow, down, or says "not found": the settings of E16, E17, E20 and E21.

use std::fmt;
use std::time::Duration;

use crate::cache::builder::CacheBuilder;
use crate::cache::computed::{Keep, Terms, Ttl};
use crate::cache::errors::{self, Backoff};
use crate::cache::patience::Patience;
use crate::cache::places::{self, Limit};
use crate::store::Store;

/// The part of the policy that is about origins in trouble. By default there is nothing to it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trouble {
    pub(crate) negative_ttl: Option<Duration>,
    pub(crate) backoff: Option<Backoff>,
    pub(crate) patience: Patience,
    pub(crate) limit: Option<Limit>,
}

impl Trouble {
    /// The settings for people, by name.
    pub(crate) fn describe(&self) -> impl Iterator<Item = (&'static str, Option<String>)> + use<> {
        let length = |length: Option<Duration>| length.map(|length| format!("{length:?}"));
        [
            ("negative_ttl", length(self.negative_ttl)),
            (
                "error_ttl",
                self.backoff.map(|Backoff { first, most, .. }| {
                    if first == most { format!("{first:?}") } else { format!("{first:?} to {most:?}") }
                }),
            ),
            ("soft_timeout", length(self.patience.soft())),
            ("hard_timeout", length(self.patience.hard())),
            ("drop_load", self.patience.drops().then(String::new)),
            ("max_loads", self.limit.map(|limit| crate::describe::grouped(limit.loads as u64))),
            (
                "max_waiting_loads",
                self.limit
                    .and_then(|limit| limit.waiting)
                    .map(|waiting| crate::describe::grouped(waiting as u64)),
            ),
        ]
        .into_iter()
    }
}

/// What the builder was told of it.
pub(crate) struct Settings<S: Store> {
    pub(crate) negative: Option<(Duration, Negative<S::Value>)>,
    pub(crate) errors: errors::Settings,
    pub(crate) patience: Patience,
    pub(crate) loads: places::Settings,
}

impl<S: Store> fmt::Debug for Settings<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { negative, errors, patience, loads } = self;
        let negative_ttl = negative.as_ref().map(|(ttl, _)| ttl);
        let mut debug = f.debug_struct("Trouble");
        debug.field("negative_ttl", &negative_ttl).field("errors", errors).field("patience", patience);
        debug.field("loads", loads).finish()
    }
}

impl<S: Store> Default for Settings<S> {
    fn default() -> Self {
        Self {
            negative: None,
            errors: errors::Settings::default(),
            patience: Patience::new(),
            loads: places::Settings::default(),
        }
    }
}

impl<S: Store> Settings<S> {
    /// The settings in the engine's words, or what is wrong with them.
    pub(crate) fn policy(&self) -> Result<Trouble, &'static str> {
        let negative_ttl = self.negative.as_ref().map(|(ttl, _)| *ttl);
        if negative_ttl == Some(Duration::ZERO) {
            return Err(
                "negative_ttl: zero; to remember no absence, leave it out and give `None` a ttl of zero",
            );
        }
        self.patience.check()?;
        Ok(Trouble {
            negative_ttl,
            backoff: self.errors.backoff()?,
            patience: self.patience,
            limit: self.loads.limit()?,
        })
    }
}

/// What "not found" is among the values of a cache.
pub(crate) struct Negative<V> {
    pub(crate) is: fn(&V) -> bool,
    /// The value to store for a key that is absent.
    pub(crate) absent: fn() -> V,
}

impl<V> Negative<V> {
    /// What an absent value says of its life, if it says nothing itself: this ttl, and no windows after it. An
    /// absence is out of date as soon as the thing exists, so it is neither served stale nor in place of an error.
    pub(crate) fn terms(&self, value: &V, ttl: Duration, mut terms: Terms) -> Terms {
        if (self.is)(value) {
            terms.ttl = terms.ttl.or(Some(Ttl::For(ttl)));
            terms.stale = terms.stale.or(Some(Duration::ZERO));
            terms.keep = terms.keep.or(Some(Keep::No));
        }
        terms
    }
}

impl<V> Clone for Negative<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Negative<V> {}

impl<S: Store, L> CacheBuilder<S, L> {
    /// The same for values that say "not found" in another way.
    pub(crate) fn negative(mut self, ttl: Duration, negative: Negative<S::Value>) -> Self {
        self.settings.trouble.negative = Some((ttl, negative));
        self
    }
}

impl<S: Store<Value = Option<T>>, T, L> CacheBuilder<S, L> {
    /// How long "not found" is remembered (E16): a `None`, computed or set, is fresh for this long in place of the
    /// cache's ttl, unless the answer has a ttl of its own. Not zero. [Jitter](Self::jitter) applies.
    ///
    /// When it has passed, the next caller computes again: a `None` has no [stale](Self::stale) window and is not
    /// [kept for errors](Self::keep_stale_on_error), unless the answer says so itself, because it is wrong from
    /// the moment at which the thing exists, and nobody may notice. In every other way `None` is a value: it goes
    /// through each codec and tier, `get_or_compute` answers `Ok(None)`, and [`get`](crate::Cache::get) and
    /// [`peek`](crate::Cache::peek) answer `Some(None)` for "it is known that there is none".
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use std::time::Duration;
    /// use larder::{Cache, ManualClock, Memory};
    ///
    /// let clock = ManualClock::default();
    /// let users = Cache::builder(Memory::<str, Option<String>>::new(10_000))
    ///     .ttl(Duration::from_secs(3600))
    ///     .negative_ttl(Duration::from_secs(10))
    ///     .clock(clock.clone())
    ///     .build()?;
    ///
    /// assert_eq!(users.get_or_compute("ada", || async { None }).await?, None);
    /// assert_eq!(users.peek("ada"), Some(None), "known not to exist");
    ///
    /// clock.advance(Duration::from_secs(11));
    /// let found = users.get_or_compute("ada", || async { Some("Ada".to_owned()) }).await?;
    /// assert_eq!(found.as_deref(), Some("Ada"));
    /// # Ok::<(), larder::Error>(()) }).unwrap();
    /// ```
    pub fn negative_ttl(self, ttl: Duration) -> Self {
        self.negative(ttl, Negative { is: Option::is_none, absent: || None })
    }
}

//! Errors that are remembered for a while, by choice (E17).

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use foldhash::quality::RandomState;

use crate::cache::builder::CacheBuilder;
use crate::error::{Error, ErrorKind};
use crate::store::Store;
use crate::sync::{Mutex, MutexGuard};
use crate::time::Timestamp;

/// How many keys are remembered, unless told.
const KEYS: usize = 65_536;
const SHARDS: usize = 64;

impl<S: Store, L> CacheBuilder<S, L> {
    /// Remembers errors (E17): when the computation of a key has failed, none is begun for this key until `first`
    /// has passed. Each failure in a row doubles that time, up to `most`. Neither is zero, and `first` is not
    /// above `most`; the same twice is no back-off.
    ///
    /// Meanwhile every caller gets what he would get if the computation had failed again with this very error: the stale
    /// value without a refresh, what [`keep_stale_on_error`](Self::keep_stale_on_error) holds,
    /// or the error. The stack is read as ever, so that what another host has computed is found. A
    /// success, `set`, `remove` or `clear` forgets the error, and what they overtake is not remembered.
    ///
    /// Failures are in a row if each was within `most` of the end of the time before; after that the next one
    /// is the first again. Counted are errors that computations return and computations that
    /// ran out of time, those of refreshes too. Not counted are panics, a load that found no place or lost time in
    /// waiting for one, an end by shutdown, and errors whose source is such an error of another cache.
    ///
    /// The memory is bounded ([`max_remembered_errors`](Self::max_remembered_errors)) and belongs to this cache alone: no store sees it.
    pub fn error_ttl(mut self, first: Duration, most: Duration) -> Self {
        self.settings.trouble.errors.ttl = Some((first, most));
        self
    }

    /// Which of these errors are remembered: those for which `remember` says so; all of them unless told. For
    /// errors that say themselves that trying again is of use. Needs [`error_ttl`](Self::error_ttl).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use larder::{Cache, Memory};
    /// let cache = Cache::builder(Memory::<str, String>::new(10_000))
    ///     .ttl(Duration::from_secs(60))
    ///     .error_ttl(Duration::from_secs(1), Duration::from_secs(60))
    ///     .error_ttl_if(|error| {
    ///         let source = error.source_as::<std::io::Error>();
    ///         source.is_none_or(|source| source.kind() != std::io::ErrorKind::Interrupted)
    ///     })
    ///     .build()?;
    /// # Ok::<(), larder::Error>(())
    /// ```
    pub fn error_ttl_if(mut self, remember: impl Fn(&Error) -> bool + Send + Sync + 'static) -> Self {
        self.settings.trouble.errors.only = Some(Box::new(remember));
        self
    }

    /// For how many keys an error may be remembered (65,536 unless told). Not zero. Beyond it, those whose time ends first
    /// go. The table is divided by hash, so that a part may be full before the whole is.
    /// Needs [`error_ttl`](Self::error_ttl).
    pub fn max_remembered_errors(mut self, keys: usize) -> Self {
        self.settings.trouble.errors.keys = Some(keys);
        self
    }
}

/// Says whether an error is remembered.
type Only = dyn Fn(&Error) -> bool + Send + Sync;

/// What the builder was told.
#[derive(Default)]
pub(crate) struct Settings {
    ttl: Option<(Duration, Duration)>,
    pub(crate) only: Option<Box<Only>>,
    keys: Option<usize>,
}

impl Settings {
    pub(crate) fn backoff(&self) -> Result<Option<Backoff>, &'static str> {
        match (self.ttl, self.keys) {
            (None, _) if self.only.is_some() => Err("error_ttl_if: without error_ttl nothing is remembered"),
            (None, Some(_)) => Err("max_remembered_errors: without error_ttl nothing is remembered"),
            (Some((Duration::ZERO, _)), _) => Err("error_ttl: zero; to remember no errors, leave it out"),
            (Some((first, most)), _) if first > most => Err("error_ttl: the first time is above the most"),
            (_, Some(0)) => Err("max_remembered_errors: zero; to remember no errors, leave error_ttl out"),
            (ttl, keys) => Ok(ttl.map(|(first, most)| Backoff {
                first,
                most,
                keys: keys.unwrap_or(KEYS),
                chosen: self.only.is_some(),
            })),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Errors").field("ttl", &self.ttl).field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// For how long errors are remembered, and of how many keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) most: Duration,
    pub(crate) keys: usize,
    /// A predicate chooses among them.
    pub(crate) chosen: bool,
}

impl Backoff {
    /// How long the last of so many failures in a row is remembered.
    fn after(self, failures: u32) -> Duration {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1));
        doubled.map_or(self.most, |times| self.first.saturating_mul(times)).min(self.most)
    }
}

/// Whether an error is about the origin of its key, and not about this cache or the load upon it.
fn counts(error: &Error) -> bool {
    let passing = |kind| matches!(kind, ErrorKind::Overloaded | ErrorKind::ShutDown | ErrorKind::Cycle);
    match error.kind() {
        ErrorKind::Timeout => true,
        ErrorKind::Computation => !error.source_as::<Error>().is_some_and(|source| passing(source.kind())),
        _ => false,
    }
}

/// The errors of a cache, by key.
pub(crate) struct Errors<O> {
    backoff: Backoff,
    only: Option<Box<Only>>,
    hasher: RandomState,
    shards: Box<[Mutex<Shard<O>>]>,
    /// How many keys a shard holds at most.
    share: usize,
}

type Shard<O> = HashMap<O, Memory, RandomState>;

struct Memory {
    error: Error,
    until: Timestamp,
    /// The latest instant at which anybody looked. A clock that is behind it has been set back.
    seen: Timestamp,
    failures: u32,
}

impl Memory {
    /// Looks at the clock. If it was set back, the end moves with it: nothing is remembered for longer.
    fn look(&mut self, now: Timestamp) {
        if now < self.seen {
            self.until = self.until.saturating_sub(self.seen.since(now));
        }
        self.seen = now;
    }
}

impl<O: Hash + Eq> Errors<O> {
    pub(crate) fn new(backoff: Backoff, only: Option<Box<Only>>) -> Self {
        let shards = backoff.keys.clamp(1, SHARDS);
        Self {
            backoff,
            only,
            hasher: RandomState::default(),
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            share: backoff.keys / shards,
        }
    }

    fn shard<K: Hash + ?Sized>(&self, key: &K) -> MutexGuard<'_, Shard<O>> {
        #[expect(clippy::cast_possible_truncation, reason = "a remainder of 64 at most")]
        let shard = (self.hasher.hash_one(key) % self.shards.len() as u64) as usize;
        self.shards[shard].lock()
    }

    /// The error with which the computation of `key` counts as failed at this instant. The end itself
    /// belongs to the time before it, as every deadline does.
    pub(crate) fn remembered<K>(&self, key: &K, now: Timestamp) -> Option<Error>
    where
        O: Borrow<K>,
        K: Hash + Eq + ?Sized,
    {
        let mut shard = self.shard(key);
        let memory = shard.get_mut(key)?;
        memory.look(now);
        (now <= memory.until).then(|| memory.error.clone())
    }

    /// The computation of `key` has failed now. The user's predicate runs under no lock of this table.
    pub(crate) fn wants(&self, error: &Error) -> bool {
        counts(error) && self.only.as_ref().is_none_or(|only| only(error))
    }

    pub(crate) fn failed<K>(&self, key: &K, error: &Error, now: Timestamp)
    where
        O: Borrow<K>,
        K: Hash + Eq + ToOwned<Owned = O> + ?Sized,
    {
        let mut shard = self.shard(key);
        let failures = shard.get_mut(key).map_or(1, |before| {
            before.look(now);
            let in_a_row = now <= before.until.saturating_add(self.backoff.most);
            if in_a_row { before.failures.saturating_add(1) } else { 1 }
        });
        let until = now.saturating_add(self.backoff.after(failures));
        let memory = Memory { error: error.clone(), until, seen: now, failures };
        if let Some(held) = shard.get_mut(key) {
            *held = memory;
            return;
        }
        if shard.len() >= self.share {
            // The failures that are past count least; a scan of a share is cheap beside a failed computation.
            shard.retain(|_, memory| now <= memory.until.saturating_add(self.backoff.most));
            let first = shard.values().map(|memory| memory.until).min();
            if shard.len() >= self.share
                && let Some(first) = first
            {
                let mut gone = false;
                shard.retain(|_, memory| {
                    gone || {
                        gone = memory.until == first;
                        !gone
                    }
                });
            }
        }
        shard.insert(key.to_owned(), memory);
    }

    pub(crate) fn forget<K>(&self, key: &K)
    where
        O: Borrow<K>,
        K: Hash + Eq + ?Sized,
    {
        self.shard(key).remove(key);
    }

    pub(crate) fn forget_all(&self) {
        for shard in &self.shards {
            shard.lock().clear();
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Operation;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TICK: Duration = Duration::from_nanos(1);

    fn errors(first: u32, most: u32, keys: usize) -> Errors<String> {
        Errors::new(Backoff { first: SECOND * first, most: SECOND * most, keys, chosen: false }, None)
    }

    fn broke() -> Error {
        Error::new(ErrorKind::Computation, "cache", Operation::Compute)
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn e17_the_time_doubles_up_to_the_most_to_the_tick() {
        let errors = errors(1, 5, 64);
        let mut now = at(100);
        for lasts in [1, 2, 4, 5, 5, 5] {
            errors.failed("k", &broke(), now);
            now = now.saturating_add(SECOND * lasts);
            assert!(errors.remembered("k", now).is_some(), "{lasts}");
            now = now.saturating_add(TICK);
            assert!(errors.remembered("k", now).is_none(), "{lasts}");
            assert!(errors.remembered("l", now).is_none(), "another key");
        }
        let backoff = Backoff { first: SECOND, most: Duration::MAX, keys: 1, chosen: false };
        assert!((0..200).map(|failures| backoff.after(failures)).is_sorted(), "no overflow");
    }

    #[test]
    fn e17_failures_are_in_a_row_within_the_most_of_the_end_before() {
        let errors = errors(1, 10, 64);
        let lasts = |from: Timestamp, seconds| {
            let end = from.saturating_add(SECOND * seconds);
            errors.remembered("k", end).is_some()
                && errors.remembered("k", end.saturating_add(TICK)).is_none()
        };
        errors.failed("k", &broke(), at(0));
        errors.failed("k", &broke(), at(11));
        assert!(lasts(at(11), 2), "10 s after the end");
        let late = at(13 + 10).saturating_add(TICK);
        errors.failed("k", &broke(), late);
        assert!(lasts(late, 1), "a tick later");
        errors.forget("k");
        errors.failed("k", &broke(), at(30));
        assert!(lasts(at(30), 1), "forgotten");
    }

    #[test]
    fn e17_beyond_the_bound_those_that_end_first_go() {
        let errors = errors(10, 100, 1);
        errors.failed("a", &broke(), at(0));
        errors.failed("a", &broke(), at(1));
        errors.failed("b", &broke(), at(2));
        assert!(errors.remembered("a", at(2)).is_none(), "one place only");
        assert!(errors.remembered("b", at(2)).is_some());
        let errors =
            super::Errors::new(Backoff { first: SECOND, most: SECOND * 50, keys: 100, chosen: false }, None);
        for key in 0..10_000 {
            errors.failed(&key.to_string(), &broke(), at(key / 50));
            assert!(errors.remembered(&key.to_string(), at(key / 50)).is_some(), "the newest");
            assert!(errors.len() <= 100);
        }
    }

    #[test]
    fn e17_the_first_to_end_goes() {
        let errors = Errors { share: 2, ..errors(10, 100, 1) };
        errors.failed("long", &broke(), at(0));
        errors.failed("long", &broke(), at(1));
        errors.failed("short", &broke(), at(2));
        errors.failed("new", &broke(), at(3));
        let held = |key: &str| errors.remembered(key, at(3)).is_some();
        assert!(held("long") && held("new") && !held("short"));
    }

    #[test]
    fn e17_what_is_about_the_moment_is_not_remembered() {
        let errors = errors(1, 1, 1);
        let of = |kind| Error::new(kind, "cache", Operation::Compute);
        assert!(errors.wants(&broke()) && errors.wants(&of(ErrorKind::Timeout)));
        for kind in [ErrorKind::Overloaded, ErrorKind::ShutDown, ErrorKind::Cycle] {
            assert!(!errors.wants(&of(kind)));
            assert!(!errors.wants(&broke().with_source(of(kind))), "within a computation");
        }
        assert!(errors.wants(&broke().with_source(of(ErrorKind::Timeout))));
        let only =
            Errors::<String>::new(errors.backoff, Some(Box::new(|error| error.kind() == ErrorKind::Timeout)));
        assert!(!only.wants(&broke()) && only.wants(&of(ErrorKind::Timeout)));
    }

    proptest! {
        /// However the clock jumps, from any look on an error is remembered for no longer than the most.
        #[test]
        fn e17_a_clock_that_steps_back_prolongs_nothing(
            jumps in prop::collection::vec((0..40u64, 0..40u64), 1..20),
        ) {
            let errors = errors(5, 20, 8);
            let mut now = at(1000);
            errors.failed("k", &broke(), now);
            let mut left = 5 * 1_000_000_000;
            for (ahead, back) in jumps {
                now = now.saturating_add(SECOND * u32::try_from(ahead).unwrap());
                left -= i128::from(ahead) * 1_000_000_000;
                prop_assert_eq!(errors.remembered("k", now).is_some(), left >= 0);
                now = now.saturating_sub(SECOND * u32::try_from(back).unwrap());
                prop_assert_eq!(errors.remembered("k", now).is_some(), left >= 0);
            }
        }
    }
}

//! Invalidation by tags: the calls, and the order in which they stand to the computations (E4, T2).
//!
//! Which tags a result will carry nobody knows before its computation has ended, so an invalidation fences
//! no flight. It is written down, in a list that each flight holds on to from its birth ([`Record`]): what was
//! removed since is neither stored nor given to whoever came later. A record that no flight holds is gone.
//! The clock may be coarse and may step back, so instants are handed out in order ([`Invalidations`]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::cache::Cache;
use crate::cache::core::Core;
use crate::cache::event::EventKind;
use crate::cache::flight::Flight;
use crate::entry::{Entry, Freshness, Lifetime};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::store::{InvalidateTags, Store};
use crate::sync::Mutex;
use crate::time::Timestamp;

/// The most tags that one entry may have: each costs a lookup on a hit.
pub(crate) const MOST_TAGS: usize = 1_024;

impl<S: InvalidateTags + 'static, L> Cache<S, L> {
    /// [`remove_tags`](Self::remove_tags) for one.
    pub async fn remove_tag(&self, tag: &str) -> Result<()> {
        self.remove_tags(&[tag]).await
    }

    /// Removes every entry that carries one of `tags`, in every tier, with one write. Once acknowledged, no
    /// computation that began before is stored or given to later callers (E4, T2).
    ///
    /// An error says that others may still be served what was removed, and so may this process once it has
    /// started again: call again. An empty tag is an error of kind [`InvalidInput`](ErrorKind::InvalidInput).
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use larder::{Cache, Computed, Memory, StoreExt};
    ///
    /// let store = Memory::<u64, String>::new(1_000).tagged(Memory::new(100_000));
    /// let cache = Cache::builder(store).no_expiration().build()?;
    /// cache.set_with(&1, Computed::new("one".to_owned()).tags(["odd"])).await?;
    /// cache.set_with(&2, Computed::new("two".to_owned()).tags(["even"])).await?;
    /// cache.remove_tags(&["odd", "prime"]).await?;
    /// assert_eq!((cache.get(&1).await?, cache.get(&2).await?), (None, Some("two".to_owned())));
    /// # Ok::<(), larder::Error>(()) }).unwrap();
    /// ```
    pub async fn remove_tags(&self, tags: &[&str]) -> Result<()> {
        self.invalidate(tags, Kind::Removed).await
    }

    /// [`expire_tags`](Self::expire_tags) for one.
    pub async fn expire_tag(&self, tag: &str) -> Result<()> {
        self.expire_tags(&[tag]).await
    }

    /// Ends the freshness of every entry that carries one of `tags`: within its stale window it is served at
    /// once while it is computed anew, without one it is gone. For the rest as
    /// [`remove_tags`](Self::remove_tags).
    pub async fn expire_tags(&self, tags: &[&str]) -> Result<()> {
        self.invalidate(tags, Kind::Expired).await
    }

    async fn invalidate(&self, tags: &[&str], kind: Kind) -> Result<()> {
        if self.core.policy.bypass || tags.is_empty() {
            return Ok(());
        }
        for tag in tags {
            check(tag).map_err(|message| invalid(Operation::Invalidate, message))?;
        }
        let core = &self.core;
        let at = core.invalidations.invalidate(core.clock.now());
        let underway = Underway::begin(&core.invalidations, tags, kind, at);
        let outcome = match kind {
            Kind::Removed => core.store.remove_tags(tags, at).await,
            Kind::Expired => core.store.expire_tags(tags, at).await,
        };
        drop(underway);
        core.listener.tell_of_all(match (&outcome, kind) {
            (Ok(()), Kind::Removed) => EventKind::TagsRemoved(tags),
            (Ok(()), Kind::Expired) => EventKind::TagsExpired(tags),
            (Err(error), _) => EventKind::StoreFailed(Operation::Invalidate, error),
        });
        outcome
    }
}

impl<S: Store> Core<S> {
    /// When a computation begins that begins now: after every invalidation so far.
    pub(crate) fn began(&self) -> Timestamp {
        self.invalidations.begin(self.clock.now(), self.policy.skew)
    }

    /// When something began and ended that takes no time.
    pub(crate) fn at_once(&self) -> (Timestamp, Timestamp) {
        let now = self.clock.now();
        (self.invalidations.begin(now, self.policy.skew), now)
    }

    /// The entry with the tags of its answer, and those that are a function of its value. `None` for `told`
    /// leaves the tags that it has.
    pub(crate) fn tagged(
        &self,
        entry: Entry<S::Value>,
        told: Option<Vec<Arc<str>>>,
    ) -> Result<Entry<S::Value>> {
        let mut entry = match told {
            Some(tags) => entry.with_tags(tags),
            None => entry,
        };
        if let Some(tags_of) = &self.tags_of.0 {
            let mut tags = entry.tags().to_vec();
            for tag in tags_of(entry.value()) {
                if !tags.contains(&tag) {
                    tags.push(tag);
                }
            }
            entry = entry.with_tags(tags);
        }
        let wrong = entry.tags().iter().find_map(|tag| check(tag).err());
        let many = || {
            let count = entry.tags().len();
            (count > MOST_TAGS).then(|| format!("tags: {count} on one entry; {MOST_TAGS} at most"))
        };
        match wrong.map(str::to_owned).or_else(many) {
            Some(message) => Err(invalid(Operation::Compute, message)),
            None => Ok(entry),
        }
    }

    /// What is left of the life of an entry that a flight holds, after whatever was invalidated since the
    /// flight could be joined; `None` if a tag of it was removed.
    pub(crate) fn left_of(&self, flight: &Flight<S::Value>, entry: &Entry<S::Value>) -> Option<Lifetime> {
        if entry.tags().is_empty() {
            return Some(entry.lifetime());
        }
        flight.born().leaves(None, entry, self.clock.now())
    }

    /// Whether a flight's entry may be given to whoever arrived when `arrived` was the last invalidation: what
    /// was removed before is not, and what was expired is within its stale window.
    pub(crate) fn admits(
        &self,
        flight: &Flight<S::Value>,
        arrived: &Arc<Record>,
        entry: &Entry<S::Value>,
    ) -> bool {
        if entry.tags().is_empty() {
            return true;
        }
        let now = self.clock.now();
        match flight.born().leaves(Some(arrived), entry, now) {
            Some(life) if life == entry.lifetime() => true,
            Some(life) => self.policy.judge(life, now) <= Freshness::Stale,
            None => false,
        }
    }
}

/// A function from values to tags, if there is one.
pub(crate) struct TagsOf<S: Store>(pub(crate) Option<Box<Function<S>>>);

type Function<S> = dyn Fn(&<S as Store>::Value) -> Vec<Arc<str>> + Send + Sync;

impl<S: Store> Default for TagsOf<S> {
    fn default() -> Self {
        Self(None)
    }
}

impl<S: Store> std::fmt::Debug for TagsOf<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "TagsOf" } else { "none" })
    }
}

fn check(tag: &str) -> Result<(), &'static str> {
    if tag.is_empty() { Err("tag: empty; a tag has at least one character") } else { Ok(()) }
}

fn invalid(operation: Operation, message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidInput, "cache", operation).with_message(message)
}

/// What an invalidation does to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Removed,
    Expired,
}

/// An invalidation, and what came after it.
#[derive(Debug)]
pub(crate) struct Record {
    tags: Box<[Box<str>]>,
    kind: Kind,
    at: Timestamp,
    next: OnceLock<Arc<Record>>,
}

impl Record {
    fn new(tags: &[&str], kind: Kind, at: Timestamp) -> Self {
        let tags = tags.iter().map(|tag| Box::from(*tag)).collect();
        Self { tags, kind, at, next: OnceLock::new() }
    }

    /// What is left of the life of `entry` after the invalidations that came after this one, up to `until` or up
    /// to now. `None` if a tag of it was removed, and not before the entry was created.
    fn leaves<V>(
        self: &Arc<Self>,
        until: Option<&Arc<Self>>,
        entry: &Entry<V>,
        now: Timestamp,
    ) -> Option<Lifetime> {
        let (mut life, mut record) = (entry.lifetime(), self);
        while !until.is_some_and(|until| Arc::ptr_eq(record, until)) {
            let Some(next) = record.next.get() else { break };
            let met = |tag: &Arc<str>| next.tags.iter().any(|invalidated| **invalidated == **tag);
            if entry.created_at() <= next.at && entry.tags().iter().any(met) {
                match next.kind {
                    Kind::Removed => return None,
                    Kind::Expired => life = life.not_fresh_at(next.at, now)?,
                }
            }
            record = next;
        }
        Some(life)
    }
}

impl Drop for Record {
    /// One after the other: a long list that drops its own rest would use up the stack.
    fn drop(&mut self) {
        let mut rest = self.next.take();
        while let Some(record) = rest {
            rest = Arc::into_inner(record).and_then(|mut record| record.next.take());
        }
    }
}

/// The invalidations so far, as far as a flight still asks, and the instants that put them in order.
#[derive(Debug)]
pub(crate) struct Invalidations {
    last: ArcSwap<Record>,
    /// One at a time, so that the list does not fork.
    turn: Mutex<()>,
    /// The latest instant at which a computation began.
    began: AtomicU64,
    /// The latest instant of an invalidation; 0 if there was none.
    invalidated: AtomicU64,
}

impl Default for Invalidations {
    fn default() -> Self {
        Self {
            last: ArcSwap::from_pointee(Record::new(&[], Kind::Expired, Timestamp::EPOCH)),
            turn: Mutex::default(),
            began: AtomicU64::new(0),
            invalidated: AtomicU64::new(0),
        }
    }
}

impl Invalidations {
    /// The end of the list: whoever holds it can tell what comes after it.
    pub(crate) fn last(&self) -> Arc<Record> {
        self.last.load_full()
    }

    /// The instant at which a computation begins: now, and after every invalidation so far. A clock that has
    /// stepped back by more than hosts may differ is followed all the same: an entry from further ahead would
    /// not be taken for fresh (E12).
    fn begin(&self, now: Timestamp, skew: Duration) -> Timestamp {
        loop {
            let before = self.invalidated.load(Ordering::SeqCst);
            let next = if before == 0 { 0 } else { before.saturating_add(1) };
            let began = if next <= now.saturating_add(skew).as_nanos() {
                next.max(now.as_nanos())
            } else {
                now.as_nanos()
            };
            // Most begin at an instant at which another has begun, and then nothing shared is written.
            if self.began.load(Ordering::SeqCst) < began {
                self.began.fetch_max(began, Ordering::SeqCst);
            }
            // An invalidation that came in between may not have seen this beginning.
            if self.invalidated.load(Ordering::SeqCst) == before {
                return Timestamp::from_nanos(began);
            }
        }
    }

    /// The instant of an invalidation: now, and not before any computation that has begun.
    fn invalidate(&self, now: Timestamp) -> Timestamp {
        loop {
            let at = self.began.load(Ordering::SeqCst).max(now.as_nanos()).max(1);
            let at = at.max(self.invalidated.fetch_max(at, Ordering::SeqCst));
            if self.began.load(Ordering::SeqCst) <= at {
                return Timestamp::from_nanos(at);
            }
        }
    }

    fn record(&self, tags: &[&str], kind: Kind, at: Timestamp) {
        let record = Arc::new(Record::new(tags, kind, at));
        let _turn = self.turn.lock();
        // Nobody else writes at the end of the list, so its place is free.
        let _ = self.last.load().next.set(Arc::clone(&record));
        self.last.store(record);
    }

    /// Whether nobody holds an invalidation but the list.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.last.load_full()) == 2
    }
}

/// An invalidation on its way to the store. Its end is written down like its beginning, also when it is dropped:
/// what began in between may have read what was not judged yet.
struct Underway<'a> {
    list: &'a Invalidations,
    tags: &'a [&'a str],
    kind: Kind,
    at: Timestamp,
}

impl<'a> Underway<'a> {
    fn begin(list: &'a Invalidations, tags: &'a [&'a str], kind: Kind, at: Timestamp) -> Self {
        list.record(tags, kind, at);
        Self { list, tags, kind, at }
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.list.record(self.tags, self.kind, self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKEW: Duration = Duration::from_secs(5);

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    fn entry(created: u64) -> Entry<u64> {
        Entry::new(1, Lifetime::forever(at(created))).with_tags(["t"])
    }

    /// T2: within one tick of a coarse clock, and after it stepped back.
    #[test]
    fn t2_what_begins_before_an_invalidation_is_created_before_it_and_what_begins_after_it_later() {
        let list = Invalidations::default();
        let now = at(10_000_000_000);
        for clock in [now, now, at(now.as_nanos() - 1_000), now] {
            let before = list.begin(clock, SKEW);
            let instant = list.invalidate(clock);
            let after = list.begin(clock, SKEW);
            assert!(before <= instant && instant < after, "{before} {instant} {after}");
        }
        assert_eq!(list.begin(at(1), SKEW), at(1), "E12: far back, the clock is followed");
        assert!(list.invalidate(at(1)) > now);
    }

    /// E4: what counts is whether the removal came between the flight and the caller.
    #[test]
    fn e4_a_removal_is_seen_by_whoever_came_after_it() {
        let list = Invalidations::default();
        let born = list.last();
        list.record(&["other"], Kind::Removed, at(9));
        let between = list.last();
        list.record(&["t"], Kind::Removed, at(9));
        let after = list.last();
        let leaves =
            |until: &Arc<Record>, created| born.leaves(Some(until), &entry(created), at(9)).is_some();
        assert!(leaves(&born, 9) && leaves(&between, 9) && !leaves(&after, 9));
        assert!(leaves(&after, 10), "it was created later");
        assert_eq!(born.leaves(None, &entry(9), at(9)), None);
        drop((born, between));
        assert_eq!(after.leaves(None, &entry(9), at(9)), Some(entry(9).lifetime()), "it came before");
    }

    #[test]
    fn nothing_is_kept_of_an_invalidation_that_no_flight_holds() {
        let list = Invalidations::default();
        let born = list.last();
        for _ in 0..200_000 {
            list.record(&["t"], Kind::Removed, at(9));
        }
        assert!(!list.is_idle());
        drop(born);
        assert!(list.is_idle());
    }
}

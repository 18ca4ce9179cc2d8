//! Invalidation by tags: when it happened among the computations, and what it does to those that run.
//!
//! An invalidation is an instant; the store judges what it holds by it. That leaves two things to the
//! engine. Its clock may be coarse and may step back, so instants are handed out in order ([`Order`]):
//! what began before an invalidation was created at or before it, what began after it later. And what is
//! on its way through a flight no store judges any more, so an invalidation is remembered (a fence) as
//! long as there are flights that began before its end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::cache::Cache;
use crate::cache::event::EventKind;
use crate::entry::{Entry, Freshness, Lifetime};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::store::{InvalidateTags, Store};
use crate::sync::Mutex;
use crate::time::Timestamp;

use super::core::Core;

/// The most tags that one entry may have.
pub(crate) const MOST_TAGS: usize = 1_024;
/// How many tags are fenced one by one. Beyond it all of them are.
const MOST_FENCES: usize = 65_536;

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
        let at = core.order.invalidate(core.clock.now(), core.policy.skew, tags, kind);
        let outcome = match kind {
            Kind::Removed => core.store.remove_tags(tags, at).await,
            Kind::Expired => core.store.expire_tags(tags, at).await,
        };
        // Again, for the flights that began meanwhile: they may have read what was not judged yet.
        core.order.fence(tags, kind, at);
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
        self.order.began(self.clock.now(), self.policy.skew)
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

    /// Whether an entry that a flight holds may not be stored, because one of its tags was removed meanwhile.
    pub(crate) fn is_removed(&self, entry: &Entry<S::Value>) -> bool {
        self.left_of(entry).is_none()
    }

    /// What is left of the life of an entry that a flight holds, after whatever was invalidated meanwhile.
    pub(crate) fn left_of(&self, entry: &Entry<S::Value>) -> Option<Lifetime> {
        self.order.shade(entry).cast_on(entry.lifetime(), Timestamp::MAX, self.clock.now())
    }

    /// Whether whoever arrived when `arrived` was the latest invalidation may be given an entry on which
    /// this shade lies. An entry that was expired meanwhile may be served in its stale window.
    pub(crate) fn admits(&self, entry: &Entry<S::Value>, shade: Shade, arrived: Timestamp) -> bool {
        if shade.is_none() {
            return true;
        }
        let now = self.clock.now();
        match shade.cast_on(entry.lifetime(), arrived, now) {
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

/// The first and the last instant at which something was invalidated while flights ran. What was between
/// them is not kept: whoever came between may be sent round once in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: Timestamp,
    last: Timestamp,
}

impl Span {
    fn with(span: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (span, other) {
            (Some(a), Some(b)) => Some(Self { first: a.first.min(b.first), last: a.last.max(b.last) }),
            (one, other) => one.or(other),
        }
    }

    /// An instant between the creation of an entry and the arrival of a caller, if there may be one.
    fn between(self, created_at: Timestamp, arrived: Timestamp) -> Option<Timestamp> {
        let last = self.last.min(arrived);
        (self.first <= arrived && created_at <= last).then_some(last)
    }
}

/// What was invalidated of an entry while its flight ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shade {
    removed: Option<Span>,
    expired: Option<Span>,
}

impl Shade {
    fn is_none(self) -> bool {
        self == Self::default()
    }

    fn add(&mut self, other: Self) {
        self.removed = Span::with(self.removed, other.removed);
        self.expired = Span::with(self.expired, other.expired);
    }

    /// What it leaves of a life, for whoever arrived then.
    fn cast_on(self, life: Lifetime, arrived: Timestamp, now: Timestamp) -> Option<Lifetime> {
        let between = |span: Option<Span>| span?.between(life.created_at(), arrived);
        if between(self.removed).is_some() {
            return None;
        }
        match between(self.expired) {
            Some(at) => life.not_fresh_at(at, now),
            None => Some(life),
        }
    }
}

/// The fences of one generation: by tag, and beyond the bound for all tags.
#[derive(Debug, Default)]
struct Fences {
    tags: HashMap<Arc<str>, Shade>,
    all: Shade,
}

impl Fences {
    fn is_empty(&self) -> bool {
        self.tags.is_empty() && self.all.is_none()
    }

    fn clear(&mut self) {
        // Not `clear`: a burst of invalidations is not to hold its room for ever.
        *self = Self::default();
    }

    fn add(&mut self, tag: &str, shade: Shade) {
        if let Some(known) = self.tags.get_mut(tag) {
            known.add(shade);
        } else if self.tags.len() < MOST_FENCES {
            self.tags.insert(Arc::from(tag), shade);
        } else {
            self.all.add(shade);
        }
    }
}

/// The order of computations and invalidations, and the fences.
///
/// Flights are counted by generation, two of which exist at a time. A fence goes when the flights of its
/// own generation and of the one before have landed: none is left that began before it.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// Whether there are fences: all that most flights ask.
    fenced: AtomicBool,
    /// The latest invalidation: what a caller notes when it arrives.
    latest: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The earliest instant at which a computation may begin: after the latest invalidation.
    next: Timestamp,
    /// The latest instant at which one began.
    began: Timestamp,
    generation: usize,
    running: [usize; 2],
    fences: [Fences; 2],
}

impl Order {
    /// The latest invalidation so far.
    pub(crate) fn arrive(&self) -> Timestamp {
        Timestamp::from_nanos(self.latest.load(Ordering::SeqCst))
    }

    /// A flight begins; returns its generation.
    pub(crate) fn enter(&self) -> usize {
        let mut state = self.state.lock();
        let generation = state.generation % 2;
        state.running[generation] += 1;
        generation
    }

    /// A flight has landed.
    pub(crate) fn leave(&self, generation: usize) {
        let mut state = self.state.lock();
        state.running[generation] -= 1;
        if self.fenced.load(Ordering::SeqCst) {
            state.retire();
            self.fenced.store(state.is_fenced(), Ordering::SeqCst);
        }
    }

    /// The instant at which a computation begins. A clock that has stepped back by more than hosts may
    /// differ is followed all the same: an entry from further ahead would not be taken for fresh (E12).
    fn began(&self, now: Timestamp, skew: Duration) -> Timestamp {
        let mut state = self.state.lock();
        let began = if state.next <= now.saturating_add(skew) { now.max(state.next) } else { now };
        state.began = state.began.max(began);
        began
    }

    /// The instant of an invalidation: not before any computation that has begun.
    fn invalidate(&self, now: Timestamp, skew: Duration, tags: &[&str], kind: Kind) -> Timestamp {
        let mut state = self.state.lock();
        let next = if state.next <= now.saturating_add(skew) { state.next } else { now };
        let at = now.max(next).max(state.began);
        state.next = state.next.max(after(at));
        self.latest.fetch_max(at.as_nanos(), Ordering::SeqCst);
        self.add(&mut state, tags, kind, at);
        at
    }

    fn fence(&self, tags: &[&str], kind: Kind, at: Timestamp) {
        let mut state = self.state.lock();
        self.add(&mut state, tags, kind, at);
    }

    fn add(&self, state: &mut State, tags: &[&str], kind: Kind, at: Timestamp) {
        if state.running == [0, 0] {
            return;
        }
        let span = Some(Span { first: at, last: at });
        let shade = match kind {
            Kind::Removed => Shade { removed: span, expired: None },
            Kind::Expired => Shade { removed: None, expired: span },
        };
        let fences = &mut state.fences[state.generation % 2];
        for tag in tags {
            fences.add(tag, shade);
        }
        self.fenced.store(true, Ordering::SeqCst);
    }

    /// What was invalidated of this entry while the flight ran that holds it.
    pub(crate) fn shade<V>(&self, entry: &Entry<V>) -> Shade {
        let mut shade = Shade::default();
        if entry.tags().is_empty() || !self.fenced.load(Ordering::SeqCst) {
            return shade;
        }
        let state = self.state.lock();
        for fences in &state.fences {
            shade.add(fences.all);
            for tag in entry.tags() {
                if let Some(known) = fences.tags.get(tag) {
                    shade.add(*known);
                }
            }
        }
        shade
    }

    /// Whether nothing runs and nothing is fenced.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.running == [0, 0] && !state.is_fenced() && !self.fenced.load(Ordering::SeqCst)
    }
}

impl State {
    fn is_fenced(&self) -> bool {
        self.fences.iter().any(|fences| !fences.is_empty())
    }

    /// Drops the fences that no flight needs any more.
    fn retire(&mut self) {
        // Twice: a generation has to end, and then the next one may have ended already.
        for _ in 0..2 {
            let older = (self.generation + 1) % 2;
            if self.running[older] > 0 {
                return;
            }
            self.fences[older].clear();
            self.generation += 1;
        }
    }
}

/// The next instant.
fn after(at: Timestamp) -> Timestamp {
    at.saturating_add(Duration::from_nanos(1))
}

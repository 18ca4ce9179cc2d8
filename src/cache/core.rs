//! What the handles of a cache and its flights share.

use std::future::poll_fn;
use std::hash::BuildHasher;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::task::Poll;

use foldhash::quality::FixedState;

use crate::cache::ahead::Ahead;
use crate::cache::background::Background;
use crate::cache::computed::{Computed, Terms};
use crate::cache::errors::Errors;
use crate::cache::event::{EventKind, Listener};
use crate::cache::flight::{Flight, Flights, Joined, Landing};
use crate::cache::load::{Compute, Owned, Ticket, fly};
use crate::cache::patience::{Patience, Waiting};
use crate::cache::places::Places;
use crate::cache::policy::Policy;
use crate::cache::run::shut_down;
use crate::cache::tags::{Invalidations, TagsOf};
use crate::cache::trouble::Negative;
use crate::cache::within::Within;
use crate::entry::{Entry, Freshness, Lifetime};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::runtime::BoxFuture;
use crate::store::Store;
use crate::time::{AnyClock, Timestamp};

pub(crate) struct Core<S: Store> {
    pub(crate) store: S,
    pub(crate) policy: Policy,
    pub(crate) clock: AnyClock,
    pub(crate) listener: Listener<S>,
    pub(crate) flights: Flights<Owned<S>, S::Value>,
    pub(crate) background: Background,
    pub(crate) invalidations: Invalidations,
    pub(crate) tags_of: TagsOf<S>,
    /// Whether and when fresh entries are refreshed early.
    pub(crate) ahead: Option<Box<Ahead>>,
    /// What "not found" is, if it has a lifetime of its own (E16).
    pub(crate) negative: Option<Negative<S::Value>>,
    /// The errors that are remembered, if any are (E17).
    pub(crate) errors: Option<Errors<Owned<S>>>,
    /// The places of loads, if they are limited (E21).
    pub(crate) places: Option<Places>,
    /// Spreads deadlines.
    pub(crate) chance: FixedState,
}

/// An entry that is served at once, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// Fresh, and not to be refreshed.
    Fresh,
    /// Fresh, and to be refreshed early.
    Due,
    Stale,
}

impl Shown {
    /// The event of serving an entry of this life.
    pub(super) const fn told(self, life: Lifetime) -> EventKind<'static> {
        match self {
            Self::Fresh | Self::Due => EventKind::Hit(life),
            Self::Stale => EventKind::StaleHit(life),
        }
    }
}

impl<S: Store> Core<S> {
    /// Shows a fresh value to `read`, if the store can tell at once.
    #[inline]
    pub(crate) fn peek<R>(&self, key: &S::Key, read: impl FnOnce(&S::Value) -> R) -> Option<R> {
        if self.policy.bypass {
            return None;
        }
        let (mut told, listens) = (None, self.listener.is_there());
        let answer = self.store.peek_with(key, |entry| {
            let life = entry.lifetime();
            let fresh = self.policy.judge(life, self.clock.now()) == Freshness::Fresh;
            if listens {
                told = Some(life);
            }
            fresh.then(|| read(entry.value()))
        })??;
        if let Some(life) = told {
            self.listener.tell(key, EventKind::Hit(life));
        }
        Some(answer)
    }

    /// The value that a caller gets at once: a fresh one that nobody has to refresh, or a stale one of which a computation
    /// is under way. That may be a load too, which brought the entry here itself and has not landed yet.
    #[inline]
    pub(crate) fn hit(&self, key: &S::Key) -> Option<S::Value> {
        if self.policy.bypass {
            return None;
        }
        // Most hits are fresh, and nobody asks for more than their value: what is moved is waited for.
        let (mut more, asks) = (None, self.listener.is_there() || self.ahead.is_some());
        let value = self.store.peek_with(key, |entry| {
            let (life, now) = (entry.lifetime(), self.clock.now());
            let freshness = self.policy.judge(life, now);
            if asks || freshness != Freshness::Fresh {
                more = Some((life, freshness, now));
            }
            (freshness <= Freshness::Stale).then(|| entry.value().clone())
        })??;
        if let Some((life, freshness, now)) = more {
            if freshness == Freshness::Fresh {
                // One that is due is served too, by whoever starts its refresh (E18).
                if self.is_due(key, life, now) && !self.flights.flies(key) {
                    return None;
                }
                self.listener.tell(key, EventKind::Hit(life));
            } else if self.flights.flies(key) {
                self.listener.tell(key, EventKind::StaleHit(life));
            } else {
                return None;
            }
        }
        Some(value)
    }

    /// Whether a fresh entry of this life is to be refreshed by who finds it.
    #[inline]
    pub(crate) fn is_due(&self, key: &S::Key, life: Lifetime, now: Timestamp) -> bool {
        let Some(ahead) = &self.ahead else { return false };
        ahead.wants(key, life, now) && !self.background.is_closing()
    }

    /// An entry of the answer of a computation that ran from the first instant to the second.
    #[inline]
    pub(crate) fn entry(
        &self,
        key: &S::Key,
        answer: Computed<S::Value>,
        held: Option<&Entry<S::Value>>,
        (began, ended): (Timestamp, Timestamp),
    ) -> Result<Entry<S::Value>> {
        match answer.into_parts() {
            // Nothing is special about most answers.
            (Some(value), None) if self.takes_as_they_are() => {
                let chance = self.chance(key, began);
                Ok(Entry::new(value, self.policy.lifetime(began, ended, &Terms::default(), chance)))
            }
            (value, terms) => {
                let terms = terms.map_or_else(Terms::default, |terms| *terms);
                self.special_entry(key, value, terms, held, (began, ended))
            }
        }
    }

    fn special_entry(
        &self,
        key: &S::Key,
        value: Option<S::Value>,
        mut terms: Terms,
        held: Option<&Entry<S::Value>>,
        (began, ended): (Timestamp, Timestamp),
    ) -> Result<Entry<S::Value>> {
        if let (Some(negative), Some(ttl)) = (&self.negative, self.policy.trouble.negative_ttl)
            && let Some(value) = value.as_ref().or(held.map(Entry::value))
        {
            terms = negative.terms(value, ttl, terms);
        }
        let life = self.policy.lifetime(began, ended, &terms, self.chance(key, began));
        if let Some(ahead) = &self.ahead {
            ahead.born(key, life, ended);
        }
        let mut entry = match (value, held) {
            (Some(value), _) => Entry::new(value, life),
            (None, Some(held)) => held.clone().with_lifetime(life),
            (None, None) => {
                return Err(Error::new(ErrorKind::InvalidInput, "cache", Operation::Compute)
                    .with_message("the computation answered `unchanged`, but was given no entry"));
            }
        };
        if let Some(version) = terms.version {
            entry = entry.with_version(version);
        }
        self.tagged(entry, terms.tags)
    }

    /// Whether a plain answer gains no terms and tags by its value, and is not noted for an early refresh.
    const fn takes_as_they_are(&self) -> bool {
        self.negative.is_none() && self.tags_of.0.is_none() && self.ahead.is_none()
    }

    /// A hash of key and instant is all the chance that jitter needs.
    fn chance(&self, key: &S::Key, began: Timestamp) -> u64 {
        if self.policy.jitter.is_none() { 0 } else { self.chance.hash_one((key, began)) }
    }

    /// The error with which the computation of `key` counts as failed now (E17).
    pub(crate) fn remembered_error(&self, key: &S::Key) -> Option<Error> {
        self.errors.as_ref()?.remembered(key, self.clock.now())
    }

    /// Whatever failed before is no reason any more not to compute.
    pub(crate) fn forget_error(&self, key: &S::Key) {
        if let Some(errors) = &self.errors {
            errors.forget(key);
        }
    }
}

impl<S: Store + 'static> Core<S> {
    /// What a caller does who found nothing at once, out of the way of those who do.
    #[cold]
    pub(crate) fn miss<'a>(
        self: &'a Arc<Self>,
        key: &'a S::Key,
        compute: Compute<S::Value>,
        patience: Patience,
    ) -> BoxFuture<'a, Result<S::Value>> {
        Box::pin(self.fetch(key, compute, Waiting::new(patience)))
    }

    /// Joins the key's flight or runs one.
    async fn fetch(
        self: &Arc<Self>,
        key: &S::Key,
        compute: Compute<S::Value>,
        mut waiting: Waiting,
    ) -> Result<S::Value> {
        if self.policy.bypass {
            let answer = compute(None).await?;
            return self.entry(key, answer, None, self.at_once()).map(Entry::into_value);
        }
        let arrived = self.invalidations.last();
        loop {
            let flight = match self.flights.join(key, &arrived) {
                Joined::Lead(flight) => return self.lead(key, flight, compute, &mut waiting).await,
                Joined::Follow(flight) => flight,
            };
            let caller = flight.caller();
            let within = Within::current();
            if within.contains(&flight) {
                return Err(Error::new(ErrorKind::Cycle, "cache", Operation::Compute)
                    .with_message("the computation of a key asked for that key again"));
            }
            // A flight that is still reading does not know what a fast tier holds by now (E2), and whoever came
            // because a fresh entry is due waits for nobody (E18).
            if let Some((entry, shown)) = self.shown(key) {
                self.listener.tell(key, shown.told(entry.lifetime()));
                return Ok(entry.into_value());
            }
            if within.is_within() {
                flight.excuse();
            }
            self.listener.tell(key, EventKind::Joined);
            match self.wait(key, &flight, caller, &mut waiting, &arrived).await? {
                Landing::Found(entry) | Landing::Value(entry) => return Ok(entry.into_value()),
                Landing::Failed(error) => return Err(error),
                // Whoever ran it is gone, or what it brought was invalidated before this caller came: the next
                // to come runs its own computation.
                Landing::Panicked | Landing::Vanished => {}
            }
            if let Some(value) = self.hit(key) {
                return Ok(value);
            }
        }
    }

    async fn lead(
        self: &Arc<Self>,
        key: &S::Key,
        flight: Arc<Flight<S::Value>>,
        compute: Compute<S::Value>,
        waiting: &mut Waiting,
    ) -> Result<S::Value> {
        let caller = flight.caller();
        let ticket = Ticket::new(Arc::clone(self), key, Arc::clone(&flight));
        if self.background.is_closing() {
            // The flight lands first: nobody is to join one that does not fly.
            drop(ticket);
            return self.serve_on(key).await;
        }
        // Looked at only now that the flight can be joined: a write that comes later overtakes it (E4).
        let shown = match self.shown(key) {
            // Refreshed meanwhile, or not due any more.
            Some((entry, Shown::Fresh)) => {
                ticket.land(Landing::Found(entry.clone()));
                self.listener.tell(key, EventKind::Hit(entry.lifetime()));
                return Ok(entry.into_value());
            }
            shown => shown,
        };
        if let Some((entry, _)) = &shown {
            flight.refresh_behind(entry.clone());
        }
        let mut task: BoxFuture<'static, ()> = Box::pin(fly(ticket, compute, Within::current()));
        // What ends at its first poll needs no task. What does not goes on without this caller.
        let first = poll_fn(|context| Poll::Ready(task.as_mut().poll(context))).await;
        let mut grounded = false;
        if first.is_pending()
            && let Err(mut task) = self.background.runtime.spawn(task)
        {
            // Nothing to run it on. A refresh has stepped aside and may yet end at its next poll.
            grounded = poll_fn(|context| Poll::Ready(task.as_mut().poll(context))).await.is_pending();
        }
        if let Some((entry, shown)) = shown {
            // A deeper tier that answered at once may have known better (C1).
            let (entry, shown) = match flight.found() {
                Some(fresh) => (fresh, Shown::Fresh),
                None => (entry, shown),
            };
            self.listener.tell(key, shown.told(entry.lifetime()));
            return Ok(entry.into_value());
        }
        // Whatever was invalidated came later than this caller.
        match self.wait(key, &flight, caller, waiting, flight.born()).await? {
            Landing::Found(entry) | Landing::Value(entry) => Ok(entry.into_value()),
            Landing::Failed(error) => Err(error),
            Landing::Panicked => match flight.take_panic() {
                Some(payload) => resume_unwind(payload),
                None => Err(Error::new(ErrorKind::Computation, "cache", Operation::Compute)
                    .with_message("the computation panicked")),
            },
            Landing::Vanished => Err(vanished(grounded)),
        }
    }

    /// A stale entry that may be served, if the store can tell at once: nobody waits for slower tiers to
    /// say whether they know better (E2). Where entries are refreshed early, a fresh one too.
    pub(super) fn shown(&self, key: &S::Key) -> Option<(Entry<S::Value>, Shown)> {
        let (entry, freshness, now) = self.store.peek_with(key, |entry| {
            let now = self.clock.now();
            let freshness = self.policy.judge(entry.lifetime(), now);
            let shows =
                freshness == Freshness::Stale || (freshness == Freshness::Fresh && self.ahead.is_some());
            shows.then(|| (entry.clone(), freshness, now))
        })??;
        let shown = match freshness {
            Freshness::Fresh if self.is_due(key, entry.lifetime(), now) => Shown::Due,
            Freshness::Fresh => Shown::Fresh,
            _ => Shown::Stale,
        };
        Some((entry, shown))
    }

    /// What is left to do after a shutdown: hits are served, nothing is computed.
    async fn serve_on(&self, key: &S::Key) -> Result<S::Value> {
        let read = self.store.get_at(key, self.clock.now());
        let found = self.background.within(self.policy.load_timeout, read).await;
        self.serve_after_the_end(key, found.ok().and_then(Result::ok).flatten())
    }

    pub(super) fn serve_after_the_end(
        &self,
        key: &S::Key,
        found: Option<Entry<S::Value>>,
    ) -> Result<S::Value> {
        if let Some(entry) = found {
            let life = entry.lifetime();
            let freshness = self.policy.judge(life, self.clock.now());
            if freshness <= Freshness::Stale {
                let fresh = freshness == Freshness::Fresh;
                let hit = if fresh { EventKind::Hit(life) } else { EventKind::StaleHit(life) };
                self.listener.tell(key, hit);
                return Ok(entry.into_value());
            }
        }
        Err(shut_down(Operation::Compute))
    }
}

/// Why a flight of one's own came to nothing: there was nothing to run it on, or the cache is shut down.
pub(super) fn vanished(grounded: bool) -> Error {
    if !grounded {
        return shut_down(Operation::Compute);
    }
    Error::new(ErrorKind::Unsupported, "cache", Operation::Compute).with_message(
        "no runtime to run the computation on: call from a tokio task, or build the cache with `runtime(..)`",
    )
}

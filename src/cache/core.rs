//! What the handles of a cache and its flights share.

use std::future::poll_fn;
use std::hash::BuildHasher;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::task::Poll;

use foldhash::quality::FixedState;

use crate::cache::background::Background;
use crate::cache::computed::Computed;
use crate::cache::errors::Errors;
use crate::cache::event::{EventKind, Listener};
use crate::cache::flight::{Flight, Flights, Joined, Landing};
use crate::cache::load::{Compute, Owned, Ticket, Within, fly, shut_down};
use crate::cache::patience::{Patience, Waiting};
use crate::cache::places::Places;
use crate::cache::policy::Policy;
use crate::cache::trouble::Negative;
use crate::entry::{Entry, Freshness};
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
    /// What "not found" is, if it has a lifetime of its own (E16).
    pub(crate) negative: Option<Negative<S::Value>>,
    /// The errors that are remembered, if any are (E17).
    pub(crate) errors: Option<Errors<Owned<S>>>,
    /// The places of loads, if they are limited (E21).
    pub(crate) places: Option<Places>,
    /// Spreads deadlines: a hash of key and instant is all the chance that jitter needs.
    pub(crate) chance: FixedState,
}

impl<S: Store> Core<S> {
    /// Shows a fresh value to `read`, if the store can tell at once.
    #[inline]
    pub(crate) fn peek<R>(&self, key: &S::Key, read: impl FnOnce(&S::Value) -> R) -> Option<R> {
        if self.policy.bypass {
            return None;
        }
        let (answer, life) = self.store.peek_with(key, |entry| {
            let life = entry.lifetime();
            let fresh = self.policy.judge(life, self.clock.now()) == Freshness::Fresh;
            fresh.then(|| (read(entry.value()), life))
        })??;
        self.listener.tell(key, EventKind::Hit(life));
        Some(answer)
    }

    /// The value that a caller gets at once: a fresh one, or a stale one of which a computation is under way. That may be
    /// a load too, which brought the entry here itself and has not landed yet.
    #[inline]
    pub(crate) fn hit(&self, key: &S::Key) -> Option<S::Value> {
        if self.policy.bypass {
            return None;
        }
        let (value, life, freshness) = self.store.peek_with(key, |entry| {
            let life = entry.lifetime();
            let freshness = self.policy.judge(life, self.clock.now());
            (freshness <= Freshness::Stale).then(|| (entry.value().clone(), life, freshness))
        })??;
        if freshness == Freshness::Fresh {
            self.listener.tell(key, EventKind::Hit(life));
        } else if self.flights.flies(key) {
            self.listener.tell(key, EventKind::StaleHit(life));
        } else {
            return None;
        }
        Some(value)
    }

    /// An entry of a computation's answer, which ended now.
    pub(crate) fn entry(
        &self,
        key: &S::Key,
        answer: Computed<S::Value>,
        held: Option<&Entry<S::Value>>,
        began: Timestamp,
    ) -> Result<Entry<S::Value>> {
        let Computed { value, mut terms } = answer;
        if let (Some(negative), Some(ttl)) = (&self.negative, self.policy.trouble.negative_ttl)
            && let Some(value) = value.as_ref().or(held.map(Entry::value))
        {
            terms = negative.terms(value, ttl, terms);
        }
        let chance = self.chance.hash_one((key, began));
        let life = self.policy.lifetime(began, self.clock.now(), &terms, chance);
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
        if let Some(tags) = terms.tags {
            entry = entry.with_tags(tags);
        }
        Ok(entry)
    }

    /// What is to be stored for a key of a batch that was not answered, if this cache remembers absences (E16).
    #[expect(dead_code, reason = "for batches")]
    pub(crate) fn absent(&self) -> Option<S::Value> {
        self.negative.map(|negative| (negative.absent)())
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
            return self.entry(key, answer, None, self.clock.now()).map(Entry::into_value);
        }
        loop {
            let flight = match self.flights.join(key) {
                Joined::Lead(flight) => return self.lead(key, flight, compute, &mut waiting).await,
                Joined::Follow(flight) => flight,
            };
            let caller = flight.caller();
            let within = Within::current();
            if within.contains(&flight) {
                return Err(Error::new(ErrorKind::Cycle, "cache", Operation::Compute)
                    .with_message("the computation of a key asked for that key again"));
            }
            if within.is_within() {
                flight.excuse();
            }
            self.listener.tell(key, EventKind::Joined);
            match self.wait(key, &flight, caller, &mut waiting).await? {
                Landing::Found(entry) | Landing::Value(entry) => return Ok(entry.into_value()),
                Landing::Failed(error) => return Err(error),
                // Whoever ran it is gone: the next to come runs its own computation.
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
        let stale = self.stale(key);
        if let Some(entry) = &stale {
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
        if let Some(entry) = stale {
            // A deeper tier that answered at once may have known better (C1).
            let (entry, kind): (_, fn(_) -> _) = match flight.found() {
                Some(fresh) => (fresh, EventKind::Hit),
                None => (entry, EventKind::StaleHit),
            };
            self.listener.tell(key, kind(entry.lifetime()));
            return Ok(entry.into_value());
        }
        match self.wait(key, &flight, caller, waiting).await? {
            Landing::Found(entry) | Landing::Value(entry) => Ok(entry.into_value()),
            Landing::Failed(error) => Err(error),
            Landing::Panicked => match flight.take_panic() {
                Some(payload) => resume_unwind(payload),
                None => Err(Error::new(ErrorKind::Computation, "cache", Operation::Compute)
                    .with_message("the computation panicked")),
            },
            Landing::Vanished if !grounded => Err(shut_down(Operation::Compute)),
            Landing::Vanished => Err(Error::new(ErrorKind::Unsupported, "cache", Operation::Compute)
                .with_message("no runtime to run the computation on: call from a tokio task, or build the cache with `runtime(..)`")),
        }
    }

    /// A stale entry that may be served, if the store can tell at once: nobody waits for slower tiers to
    /// say whether they know better (E2).
    fn stale(&self, key: &S::Key) -> Option<Entry<S::Value>> {
        self.store.peek_with(key, |entry| {
            let freshness = self.policy.judge(entry.lifetime(), self.clock.now());
            (freshness == Freshness::Stale).then(|| entry.clone())
        })?
    }

    /// What is left to do after a shutdown: hits are served, nothing is computed.
    async fn serve_on(&self, key: &S::Key) -> Result<S::Value> {
        let read = self.store.get_at(key, self.clock.now());
        let found = self.background.within(self.policy.load_timeout, read).await;
        if let Ok(Ok(Some(entry))) = found {
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

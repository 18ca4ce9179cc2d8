//! The course of one flight: read the store, compute, store, land.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use crate::cache::background::{Cut, RefreshPermit};
use crate::cache::computed::Computed;
use crate::cache::core::Core;
use crate::cache::event::EventKind;
use crate::cache::flight::{Flight, Landing};
use crate::cache::places::{Full, Place};
use crate::entry::{Entry, Freshness};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::runtime::BoxFuture;
use crate::store::{SetOutcome, Store};

/// A computation with its types forgotten. It is given the entry that is still held, if any.
pub(crate) type Compute<V> =
    Box<dyn FnOnce(Option<Entry<V>>) -> BoxFuture<'static, Result<Computed<V>>> + Send>;

tokio::task_local! {
    /// The flights inside which this task computes, the innermost first.
    static WITHIN: Arc<Link>;
}

/// A flight that computes, and the one inside whose computation it was begun.
struct Link {
    /// Held, so that no later flight can stand at the same address.
    flight: Arc<dyn Any + Send + Sync>,
    outer: Option<Arc<Link>>,
}

/// The outermost flights that the present task computes for, to be handed on to a flight it begins.
pub(crate) struct Within(Option<Arc<Link>>);

impl Within {
    pub(crate) fn current() -> Self {
        Self(WITHIN.try_with(Arc::clone).ok())
    }

    /// Whether the task computes for any flight.
    pub(crate) fn is_within(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the task computes for this flight, so that waiting for it would never end.
    pub(crate) fn contains<V>(&self, flight: &Arc<Flight<V>>) -> bool {
        let mut link = self.0.as_ref();
        while let Some(inner) = link {
            if Arc::as_ptr(&inner.flight).addr() == Arc::as_ptr(flight).addr() {
                return true;
            }
            link = inner.outer.as_ref();
        }
        false
    }
}

/// The duty to land a flight: whatever becomes of the task, the key is freed and everyone is told.
pub(crate) struct Ticket<S: Store> {
    core: Arc<Core<S>>,
    key: <S::Key as ToOwned>::Owned,
    flight: Arc<Flight<S::Value>>,
    landed: bool,
}

impl<S: Store> Ticket<S> {
    pub(crate) fn new(core: Arc<Core<S>>, key: &S::Key, flight: Arc<Flight<S::Value>>) -> Self {
        core.background.enter();
        Self { core, key: key.to_owned(), flight, landed: false }
    }

    fn key(&self) -> &S::Key {
        std::borrow::Borrow::borrow(&self.key)
    }

    /// The entry that is served during a refresh, if it still may be: an end of the refresh that brings
    /// nothing is then nobody's trouble (E2).
    fn servable(&self) -> Option<Entry<S::Value>> {
        let stale = self.flight.stale().filter(|_| !self.flight.is_fenced())?;
        let freshness = self.core.policy.judge(stale.lifetime(), self.core.clock.now());
        (freshness <= Freshness::Stale).then_some(stale)
    }

    fn land(&mut self, landing: Landing<S::Value>) {
        if !std::mem::replace(&mut self.landed, true) {
            self.core.flights.leave(&self.key, &self.flight);
            self.flight.land(landing);
            self.core.background.leave();
        }
    }
}

impl<S: Store> Drop for Ticket<S> {
    fn drop(&mut self) {
        if !self.landed {
            self.land(self.servable().map_or(Landing::Vanished, Landing::Value));
        }
    }
}

/// Runs a flight from its beginning to its landing.
pub(crate) async fn fly<S: Store + 'static>(
    mut ticket: Ticket<S>,
    compute: Compute<S::Value>,
    within: Within,
) {
    let landing = match catch(unless_given_up(&ticket.flight, run(&ticket, compute, within))).await {
        // Its key is free, and nobody waits: there is nothing to be told.
        Ok(None) => Landing::Vanished,
        Ok(Some(landing)) => landing,
        Err(payload) => {
            let refreshing = ticket.flight.is_refreshing();
            let kind = if refreshing { EventKind::RefreshPanicked } else { EventKind::LoadPanicked };
            ticket.core.listener.tell(ticket.key(), kind);
            ticket.servable().map_or_else(
                || {
                    ticket.flight.leave_panic(payload);
                    Landing::Panicked
                },
                Landing::Value,
            )
        }
    };
    ticket.land(landing);
}

async fn run<S: Store + 'static>(
    ticket: &Ticket<S>,
    compute: Compute<S::Value>,
    within: Within,
) -> Landing<S::Value> {
    let core = &*ticket.core;
    if let Some(shown) = ticket.flight.stale() {
        return renew(ticket, shown, compute, within).await;
    }
    let held = match read(ticket).await {
        Ok(held) => held,
        Err(error) => return Landing::Failed(error),
    };
    // Judged after the read, however long it took (E13).
    let now = core.clock.now();
    let freshness = held.as_ref().map_or(Freshness::Dead, |entry| core.policy.judge(entry.lifetime(), now));
    let held = held.filter(|entry| entry.freshness(now) != Freshness::Dead);
    match (held, freshness) {
        (Some(entry), Freshness::Fresh) => {
            core.listener.tell(ticket.key(), EventKind::Hit(entry.lifetime()));
            Landing::Found(entry)
        }
        (Some(entry), Freshness::Stale) => {
            core.listener.tell(ticket.key(), EventKind::StaleHit(entry.lifetime()));
            let Some(_permit) = permit(ticket) else { return Landing::Value(entry) };
            refresh(ticket, entry, compute, within).await
        }
        (held, _) => {
            core.listener.tell(ticket.key(), EventKind::Miss);
            load(ticket, held, compute, within).await
        }
    }
}

/// Behind callers who were served this entry at once: takes what a slower tier knows better, else computes.
async fn renew<S: Store + 'static>(
    ticket: &Ticket<S>,
    shown: Entry<S::Value>,
    compute: Compute<S::Value>,
    within: Within,
) -> Landing<S::Value> {
    let core = &*ticket.core;
    let Some(_permit) = permit(ticket) else { return Landing::Value(shown) };
    let held = match read(ticket).await {
        Ok(held) => held,
        Err(error) => return Landing::Failed(error),
    };
    let now = core.clock.now();
    match held.map(|entry| (core.policy.judge(entry.lifetime(), now), entry)) {
        Some((Freshness::Fresh, entry)) => Landing::Found(entry),
        Some((Freshness::Stale, entry)) => refresh(ticket, entry, compute, within).await,
        _ => refresh(ticket, shown, compute, within).await,
    }
}

/// Waits for another poll, so that a refresh works in a task of its own and not in the poll of a caller
/// who is served the stale entry: a computation may work long before its first await (E2).
async fn aside() {
    let mut again = false;
    poll_fn(|context| {
        if std::mem::replace(&mut again, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn permit<S: Store>(ticket: &Ticket<S>) -> Option<RefreshPermit<'_>> {
    let core = &*ticket.core;
    let permit = core.background.try_refresh(core.policy.max_refreshes);
    if permit.is_none() {
        core.listener.tell(ticket.key(), EventKind::RefreshSkipped);
    }
    permit
}

/// Reads the store. A failed read is a miss, unless the cache is strict (E11).
async fn read<S: Store>(ticket: &Ticket<S>) -> Result<Option<Entry<S::Value>>> {
    let core = &*ticket.core;
    let limit = core.policy.load_timeout;
    let read = core.background.bounded(limit, core.store.get_at(ticket.key(), core.clock.now())).await;
    let error = match read {
        Ok(Ok(entry)) => return Ok(entry),
        Ok(Err(error)) => error,
        Err(cut) => {
            let error = cut_off(cut, Operation::Get, limit, "load_timeout");
            if cut == Cut::Stopped {
                return Err(error);
            }
            error
        }
    };
    core.listener.tell(ticket.key(), EventKind::StoreFailed(Operation::Get, &error));
    if core.policy.strict { Err(error) } else { Ok(None) }
}

/// Computes while the stale entry is served.
async fn refresh<S: Store + 'static>(
    ticket: &Ticket<S>,
    stale: Entry<S::Value>,
    compute: Compute<S::Value>,
    within: Within,
) -> Landing<S::Value> {
    let core = &*ticket.core;
    if let Some(error) = core.remembered_error(ticket.key()) {
        core.listener.tell(ticket.key(), EventKind::RefreshSkipped);
        return fall_back(ticket, Some(stale), error);
    }
    ticket.flight.refresh_behind(stale.clone());
    aside().await;
    match computed(ticket, Some(&stale), compute, within, Course::Refresh).await {
        Ok((entry, took)) => {
            core.listener.tell(ticket.key(), EventKind::RefreshSucceeded(took));
            match store(ticket, entry).await {
                // A strict cache has told of it; whoever was to be served the stale entry still is (E2).
                Landing::Failed(error) => ticket.servable().map_or(Landing::Failed(error), Landing::Value),
                landing => landing,
            }
        }
        Err(error) => {
            core.listener.tell(ticket.key(), EventKind::RefreshFailed(&error));
            fall_back(ticket, Some(stale), error)
        }
    }
}

/// Computes while the callers wait.
async fn load<S: Store + 'static>(
    ticket: &Ticket<S>,
    held: Option<Entry<S::Value>>,
    compute: Compute<S::Value>,
    within: Within,
) -> Landing<S::Value> {
    let core = &*ticket.core;
    let (outcome, remembered) = if let Some(error) = core.remembered_error(ticket.key()) {
        (Err(error), true)
    } else {
        if let Some(held) = &held {
            ticket.flight.load_beside(held.clone());
        }
        (computed(ticket, held.as_ref(), compute, within, Course::Load).await, false)
    };
    match outcome {
        Ok((entry, took)) => {
            core.listener.tell(ticket.key(), EventKind::LoadSucceeded(took));
            store(ticket, entry).await
        }
        Err(error) => {
            let kind = match error.kind() {
                _ if remembered => EventKind::ErrorRemembered(&error),
                ErrorKind::Overloaded => EventKind::LoadRejected,
                _ => EventKind::LoadFailed(&error),
            };
            core.listener.tell(ticket.key(), kind);
            let landing = fall_back(ticket, held, error.clone());
            if matches!(landing, Landing::Value(_)) {
                core.listener.tell(ticket.key(), EventKind::StaleOnError(&error));
            }
            landing
        }
    }
}

/// On whose account a computation runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Course {
    Load,
    Refresh,
}

/// Runs the computation and makes an entry of its answer. How long it took counts from when it had its place.
async fn computed<S: Store + 'static>(
    ticket: &Ticket<S>,
    held: Option<&Entry<S::Value>>,
    compute: Compute<S::Value>,
    within: Within,
    course: Course,
) -> Result<(Entry<S::Value>, Duration)> {
    let core = &*ticket.core;
    let (limit, setting, started) = match course {
        Course::Load => (core.policy.load_timeout, "load_timeout", EventKind::LoadStarted),
        Course::Refresh => (core.policy.refresh_timeout, "refresh_timeout", EventKind::RefreshStarted),
    };
    let began = OnceLock::new();
    let given = held.cloned();
    let work = async {
        let (_place, waited) = match course {
            Course::Load => place(ticket, &within).await?,
            Course::Refresh => (None, false),
        };
        core.listener.tell(ticket.key(), started);
        let (began, _) = *began.get_or_init(|| (core.clock.now(), waited));
        let flight = Arc::clone(&ticket.flight);
        let link = Arc::new(Link { flight, outer: within.0 });
        // The closure itself runs inside too: it may panic, or ask for its own key, before its first await.
        let answer = WITHIN.scope(link, async move { compute(given).await }).await?;
        Ok((answer, began))
    };
    let outcome = match core.background.bounded(limit, work).await {
        Ok(answer) => answer.and_then(|(answer, began)| {
            let entry = core.entry(ticket.key(), answer, held, began)?;
            Ok((entry, core.clock.now().since(began)))
        }),
        Err(Cut::Deadline) if began.get().is_none() => {
            Err(Error::new(ErrorKind::Timeout, "cache", Operation::Compute)
                .with_message(format!("no place for this load within {limit:?} (load_timeout, max_loads)")))
        }
        Err(cut) => Err(cut_off(cut, Operation::Compute, limit, setting)),
    };
    // Who lost its time in the queue says nothing of its origin.
    let late = |error: &Error| error.kind() == ErrorKind::Timeout;
    match (&outcome, began.get()) {
        (Err(error), Some((_, true))) if late(error) => {}
        (_, None) => {}
        _ => remember(ticket, outcome.as_ref().err()),
    }
    outcome
}

/// A place for the load, if loads are limited, and whether it had to wait for it. What runs within a computation
/// needs none (E21).
async fn place<S: Store>(ticket: &Ticket<S>, within: &Within) -> Result<(Option<Place>, bool)> {
    let Some(places) = ticket.core.places.as_ref().filter(|_| !within.is_within()) else {
        return Ok((None, false));
    };
    if ticket.flight.is_excused() {
        return Ok((None, false));
    }
    let mut waited = false;
    let place = places.take(|| {
        waited = true;
        ticket.flight.is_excused()
    });
    let place = place.await.map_err(|_: Full| {
        Error::new(ErrorKind::Overloaded, "cache", Operation::Compute)
            .with_message("as many loads run (max_loads) and wait (max_waiting_loads) as may")
    })?;
    Ok((place, waited))
}

/// Remembers or forgets how a computation came out, unless a write has overtaken it (E17).
fn remember<S: Store>(ticket: &Ticket<S>, error: Option<&Error>) {
    let core = &*ticket.core;
    let Some(errors) = &core.errors else { return };
    match error {
        None => ticket.flight.unless_fenced(|| errors.forget(ticket.key())),
        Some(error) if errors.wants(error) => {
            let now = core.clock.now();
            ticket.flight.unless_fenced(|| errors.failed(ticket.key(), error, now));
        }
        Some(_) => {}
    }
}

/// Stores a result that nothing has overtaken, and lands with it.
async fn store<S: Store>(ticket: &Ticket<S>, entry: Entry<S::Value>) -> Landing<S::Value> {
    let core = &*ticket.core;
    if !ticket.flight.may_store() {
        core.listener.tell(ticket.key(), EventKind::Overtaken);
        return Landing::Value(entry);
    }
    let limit = core.policy.load_timeout;
    let error = match core.background.bounded(limit, core.store.set(ticket.key(), entry.clone())).await {
        Ok(Ok(SetOutcome::Stored)) => return Landing::Value(entry),
        Ok(Ok(SetOutcome::Refused(why))) => {
            core.listener.tell(ticket.key(), EventKind::Refused(why));
            return Landing::Value(entry);
        }
        Ok(Err(error)) => error,
        Err(cut) => cut_off(cut, Operation::Set, limit, "load_timeout"),
    };
    core.listener.tell(ticket.key(), EventKind::StoreFailed(Operation::Set, &error));
    if core.policy.strict { Landing::Failed(error) } else { Landing::Value(entry) }
}

/// A failed computation lands with the last entry still held, if that may be served (E2, E8) and nobody
/// removed it meanwhile.
fn fall_back<S: Store>(ticket: &Ticket<S>, held: Option<Entry<S::Value>>, error: Error) -> Landing<S::Value> {
    let core = &*ticket.core;
    let now = core.clock.now();
    match held {
        Some(entry) if core.policy.serves_on_error(entry.lifetime(), now) && !ticket.flight.is_fenced() => {
            Landing::Value(entry)
        }
        _ => Landing::Failed(error),
    }
}

fn cut_off(cut: Cut, operation: Operation, limit: Duration, setting: &str) -> Error {
    match cut {
        Cut::Deadline => Error::new(ErrorKind::Timeout, "cache", operation)
            .with_message(format!("no end within {limit:?} ({setting})")),
        Cut::Stopped => shut_down(operation),
    }
}

pub(crate) fn shut_down(operation: Operation) -> Error {
    Error::new(ErrorKind::ShutDown, "cache", operation)
        .with_message("the cache was shut down or its last handle dropped")
}

/// Runs the work of a flight, until it is over or given up; then it is dropped.
async fn unless_given_up<V: Clone, F: Future>(flight: &Flight<V>, work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    poll_fn(|context| {
        loop {
            if flight.is_given_up() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(output) = work.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            if !flight.has_news(context.waker()) {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// Runs a future and hands over its panic instead of unwinding.
async fn catch<F: Future>(future: F) -> std::result::Result<F::Output, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    poll_fn(|context| {
        // The future is not polled again after a panic, so nobody sees what it left behind.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(payload) => Poll::Ready(Err(payload)),
        }
    })
    .await
}

/// The owned form of a store's key.
pub(crate) type Owned<S> = <<S as Store>::Key as ToOwned>::Owned;

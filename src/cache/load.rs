//! The course of one flight: read the store, compute, store, land.

use std::any::Any;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use crate::cache::background::Cut;
use crate::cache::budget::RefreshPermit;
use crate::cache::computed::Computed;
use crate::cache::core::Core;
use crate::cache::event::EventKind;
use crate::cache::flight::{Flight, Landing};
use crate::cache::run::{Answered, Errand, catch, computed, cut_off, unless_given_up};
use crate::cache::within::Within;
use crate::entry::{Entry, Freshness};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::runtime::BoxFuture;
use crate::store::{SetOutcome, Store};
use crate::time::Timestamp;

/// The owned form of a store's key.
pub(crate) type Owned<S> = <<S as Store>::Key as ToOwned>::Owned;

/// A computation with its types forgotten. It is given the entry that is still held, if any.
pub(crate) type Compute<V> =
    Box<dyn FnOnce(Option<Entry<V>>) -> BoxFuture<'static, Result<Computed<V>>> + Send>;

/// The duty to land a flight: whatever becomes of the task, the key is freed and everyone is told.
pub(crate) struct Ticket<S: Store> {
    pub(super) core: Arc<Core<S>>,
    pub(super) key: <S::Key as ToOwned>::Owned,
    pub(super) flight: Arc<Flight<S::Value>>,
    landed: AtomicBool,
}

impl<S: Store> Ticket<S> {
    pub(crate) fn new(core: Arc<Core<S>>, key: &S::Key, flight: Arc<Flight<S::Value>>) -> Self {
        core.background.enter();
        Self { core, key: key.to_owned(), flight, landed: AtomicBool::new(false) }
    }

    pub(super) fn key(&self) -> &S::Key {
        std::borrow::Borrow::borrow(&self.key)
    }

    /// The entry that is served during a refresh, if it still may be: an end of the refresh that brings
    /// nothing is then nobody's trouble (E2).
    fn servable(&self) -> Option<Entry<S::Value>> {
        let stale = self.flight.stale().filter(|_| !self.flight.is_fenced())?;
        let freshness =
            self.core.policy.judge(self.core.left_of(&self.flight, &stale)?, self.core.clock.now());
        (freshness <= Freshness::Stale).then_some(stale)
    }

    pub(super) fn has_landed(&self) -> bool {
        self.landed.load(Ordering::SeqCst)
    }

    pub(super) fn land(&self, landing: Landing<S::Value>) {
        if !self.landed.swap(true, Ordering::SeqCst) {
            self.core.flights.leave(&self.key, &self.flight);
            self.flight.land(landing);
            self.core.background.leave();
        }
    }
}

impl<S: Store> Drop for Ticket<S> {
    fn drop(&mut self) {
        if !self.has_landed() {
            self.land(self.servable().map_or(Landing::Vanished, Landing::Value));
        }
    }
}

/// Runs a flight from its beginning to its landing. What only a refresh does lies in a box, so that a load, which every
/// miss begins, is smaller.
pub(crate) async fn fly<S: Store + 'static>(ticket: Ticket<S>, compute: Compute<S::Value>, within: Within) {
    // Pinned one by one: a future that is handed to another is held twice, and each layer would double the task.
    let run = pin!(run(&ticket, compute, within));
    let flying = pin!(unless_given_up(&ticket.flight, run));
    match catch(flying).await {
        // Its key is free, and nobody waits: there is nothing to be told.
        Ok(None) => ticket.land(Landing::Vanished),
        Ok(Some(landing)) => ticket.land(landing),
        Err(payload) => ground(&ticket, &mut Some(payload)),
    }
}

/// Lands a flight whose computation panicked. The first that serves nothing in its place takes the payload.
pub(super) fn ground<S: Store>(ticket: &Ticket<S>, payload: &mut Option<Box<dyn Any + Send>>) {
    let refreshing = ticket.flight.is_refreshing();
    let kind = if refreshing { EventKind::RefreshPanicked } else { EventKind::LoadPanicked };
    ticket.core.listener.tell(ticket.key(), kind);
    ticket.land(ticket.servable().map_or_else(
        || {
            if let Some(payload) = payload.take() {
                ticket.flight.leave_panic(payload);
            }
            Landing::Panicked
        },
        Landing::Value,
    ));
}

async fn run<S: Store + 'static>(
    ticket: &Ticket<S>,
    compute: Compute<S::Value>,
    within: Within,
) -> Landing<S::Value> {
    let core = &*ticket.core;
    if let Some(shown) = ticket.flight.stale() {
        return Box::pin(renew(ticket, shown, compute, within)).await;
    }
    let held = match read(ticket).await {
        Ok(held) => held,
        Err(error) => return Landing::Failed(error),
    };
    let now = core.clock.now();
    match judged(ticket, held, now) {
        Judged::Fresh(entry) if core.is_due(ticket.key(), entry.lifetime(), now) => {
            ticket.flight.refresh_behind(entry.clone());
            Box::pin(renew(ticket, entry, compute, within)).await
        }
        Judged::Fresh(entry) => Landing::Found(entry),
        Judged::Stale(entry) => {
            let Some(_permit) = permit(ticket) else { return Landing::Value(entry) };
            Box::pin(refresh(ticket, entry, compute, within)).await
        }
        Judged::Miss(held) => load(ticket, held, compute, within).await,
    }
}

/// What a read came to.
pub(super) enum Judged<V> {
    Fresh(Entry<V>),
    Stale(Entry<V>),
    /// Nothing servable; what is not dead may stand in if the computation fails.
    Miss(Option<Entry<V>>),
}

/// Judges what was read for callers who wait. `now` is after the read, however long it took (E13).
pub(super) fn judged<S: Store>(
    ticket: &Ticket<S>,
    held: Option<Entry<S::Value>>,
    now: Timestamp,
) -> Judged<S::Value> {
    let core = &*ticket.core;
    let freshness = held.as_ref().map_or(Freshness::Dead, |entry| core.policy.judge(entry.lifetime(), now));
    let held = held.filter(|entry| entry.freshness(now) != Freshness::Dead);
    let (kind, judged) = match (held, freshness) {
        (Some(entry), Freshness::Fresh) => (EventKind::Hit(entry.lifetime()), Judged::Fresh(entry)),
        (Some(entry), Freshness::Stale) => (EventKind::StaleHit(entry.lifetime()), Judged::Stale(entry)),
        (held, _) => (EventKind::Miss, Judged::Miss(held)),
    };
    core.listener.tell(ticket.key(), kind);
    judged
}

/// Judges what was read for a refresh: a fresh entry that a slower tier knows, else the one to refresh.
pub(super) fn known_better<S: Store>(
    ticket: &Ticket<S>,
    shown: Entry<S::Value>,
    held: Option<Entry<S::Value>>,
    now: Timestamp,
) -> std::result::Result<Entry<S::Value>, Entry<S::Value>> {
    match held.map(|entry| (ticket.core.policy.judge(entry.lifetime(), now), entry)) {
        Some((Freshness::Fresh, entry)) => Ok(entry),
        Some((Freshness::Stale, entry)) => Err(entry),
        _ => Err(shown),
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
    if core.policy.judge(shown.lifetime(), core.clock.now()) == Freshness::Fresh {
        return renew_early(ticket, shown, compute, within).await;
    }
    let held = match read(ticket).await {
        Ok(held) => held,
        Err(error) => return Landing::Failed(error),
    };
    match known_better(ticket, shown, held, core.clock.now()) {
        Ok(entry) => Landing::Found(entry),
        Err(entry) => refresh(ticket, entry, compute, within).await,
    }
}

/// The same behind callers who were served a fresh entry that is due: takes what stays fresh for longer and is
/// not due itself (E18).
async fn renew_early<S: Store + 'static>(
    ticket: &Ticket<S>,
    shown: Entry<S::Value>,
    compute: Compute<S::Value>,
    within: Within,
) -> Landing<S::Value> {
    let past = early(ticket, &shown);
    let held = match read_at(ticket, past).await {
        Ok(held) => held,
        Err(error) => return Landing::Failed(error),
    };
    match known_longer(ticket, shown, held, ticket.core.clock.now()) {
        Ok(entry) => Landing::Found(entry),
        Err(entry) => refresh(ticket, entry, compute, within).await,
    }
}

/// An early refresh begins. At the instant that it returns the shown entry is fresh no more, so a chain that
/// is asked then looks below it.
pub(super) fn early<S: Store>(ticket: &Ticket<S>, shown: &Entry<S::Value>) -> Timestamp {
    let core = &*ticket.core;
    if let Some(ahead) = &core.ahead {
        ahead.begins(ticket.key(), shown.lifetime(), core.clock.now());
    }
    shown.lifetime().fresh_until().saturating_add(Duration::from_nanos(1))
}

/// Judges what was read for an early refresh: an entry that stays fresh for longer and is not due itself, else the
/// one to refresh.
pub(super) fn known_longer<S: Store>(
    ticket: &Ticket<S>,
    shown: Entry<S::Value>,
    held: Option<Entry<S::Value>>,
    now: Timestamp,
) -> std::result::Result<Entry<S::Value>, Entry<S::Value>> {
    let (core, key) = (&*ticket.core, ticket.key());
    let longer = |entry: &Entry<S::Value>| {
        entry.lifetime().fresh_until() > shown.lifetime().fresh_until()
            && core.policy.judge(entry.lifetime(), now) == Freshness::Fresh
    };
    let Some(entry) = held.filter(longer) else { return Err(shown) };
    match &core.ahead {
        Some(ahead) if ahead.is_due(key, entry.lifetime(), now) => Err(entry),
        Some(ahead) => {
            ahead.found(key, entry.lifetime(), now);
            Ok(entry)
        }
        None => Ok(entry),
    }
}

/// Waits for another poll, so that a refresh works in a task of its own and not in the poll of a caller
/// who is served the stale entry: a computation may work long before its first await (E2).
pub(super) async fn aside() {
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

pub(super) fn permit<S: Store>(ticket: &Ticket<S>) -> Option<RefreshPermit<'_>> {
    let core = &*ticket.core;
    let permit = core.background.try_refresh(1, || core.clock.now());
    if permit.is_none() {
        core.listener.tell(ticket.key(), EventKind::RefreshSkipped);
    }
    permit
}

/// Reads the store. A failed read is a miss, unless the cache is strict (E11).
async fn read<S: Store>(ticket: &Ticket<S>) -> Result<Option<Entry<S::Value>>> {
    read_at(ticket, ticket.core.clock.now()).await
}

/// The same at another instant than the present one.
async fn read_at<S: Store>(ticket: &Ticket<S>, at: Timestamp) -> Result<Option<Entry<S::Value>>> {
    let core = &*ticket.core;
    let read = pin!(core.store.get_at(ticket.key(), at));
    was_read(ticket, core.background.bounded(core.policy.load_timeout, read).await)
}

/// What became of a read.
pub(super) fn was_read<S: Store>(
    ticket: &Ticket<S>,
    read: std::result::Result<Result<Option<Entry<S::Value>>>, Cut>,
) -> Result<Option<Entry<S::Value>>> {
    let core = &*ticket.core;
    let error = match read {
        Ok(Ok(entry)) => return Ok(entry),
        Ok(Err(error)) => error,
        Err(cut) => {
            let error = cut_off(cut, Operation::Get, core.policy.load_timeout, "load_timeout");
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
    match computed(ticket, Some(&stale), compute, within, Errand::Refresh).await {
        Ok(Answered { entry, unchanged, took }) => {
            core.listener.tell(ticket.key(), EventKind::RefreshSucceeded(took));
            refreshed(ticket, store(ticket, entry, unchanged).await)
        }
        Err(error) => refresh_failed(ticket, stale, error),
    }
}

/// How a refresh lands that was stored or not.
pub(super) fn refreshed<S: Store>(ticket: &Ticket<S>, landing: Landing<S::Value>) -> Landing<S::Value> {
    match landing {
        // A strict cache has told of it; whoever was to be served the stale entry still is (E2).
        Landing::Failed(error) => ticket.servable().map_or(Landing::Failed(error), Landing::Value),
        landing => landing,
    }
}

pub(super) fn refresh_failed<S: Store>(
    ticket: &Ticket<S>,
    stale: Entry<S::Value>,
    error: Error,
) -> Landing<S::Value> {
    ticket.core.listener.tell(ticket.key(), EventKind::RefreshFailed(&error));
    fall_back(ticket, Some(stale), error)
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
        (computed(ticket, held.as_ref(), compute, within, Errand::Load).await, false)
    };
    match outcome {
        Ok(Answered { entry, unchanged, took }) => {
            core.listener.tell(ticket.key(), EventKind::LoadSucceeded(took));
            store(ticket, entry, unchanged).await
        }
        Err(error) => load_failed(ticket, held, &error, remembered),
    }
}

/// How a load lands that failed, or counts as failed because the last one did a moment ago.
pub(super) fn load_failed<S: Store>(
    ticket: &Ticket<S>,
    held: Option<Entry<S::Value>>,
    error: &Error,
    remembered: bool,
) -> Landing<S::Value> {
    let core = &*ticket.core;
    let kind = match error.kind() {
        _ if remembered => EventKind::ErrorRemembered(error),
        ErrorKind::Overloaded => EventKind::LoadRejected,
        _ => EventKind::LoadFailed(error),
    };
    core.listener.tell(ticket.key(), kind);
    let landing = fall_back(ticket, held, error.clone());
    if matches!(landing, Landing::Value(_)) {
        core.listener.tell(ticket.key(), EventKind::StaleOnError(error));
    }
    landing
}

/// Stores a result that nothing has overtaken, and lands with it. One that is unchanged the tiers may hold
/// already, under other deadlines (E22).
async fn store<S: Store>(ticket: &Ticket<S>, entry: Entry<S::Value>, unchanged: bool) -> Landing<S::Value> {
    let core = &*ticket.core;
    if !may_store(ticket, &entry) {
        return Landing::Value(entry);
    }
    let set = if unchanged {
        let renew = pin!(core.store.renew(ticket.key(), entry.clone()));
        core.background.bounded(core.policy.load_timeout, renew).await
    } else {
        let set = pin!(core.store.set(ticket.key(), entry.clone()));
        core.background.bounded(core.policy.load_timeout, set).await
    };
    was_stored(ticket, entry, set)
}

/// Asks for the right to store a result, and tells of one that was overtaken (E4).
pub(super) fn may_store<S: Store>(ticket: &Ticket<S>, entry: &Entry<S::Value>) -> bool {
    let may = ticket.core.left_of(&ticket.flight, entry).is_some() && ticket.flight.may_store();
    if !may {
        ticket.core.listener.tell(ticket.key(), EventKind::Overtaken);
    }
    may
}

/// How a flight lands whose result was given to the store.
pub(super) fn was_stored<S: Store>(
    ticket: &Ticket<S>,
    entry: Entry<S::Value>,
    set: std::result::Result<Result<SetOutcome>, Cut>,
) -> Landing<S::Value> {
    let core = &*ticket.core;
    let error = match set {
        Ok(Ok(SetOutcome::Stored)) => return Landing::Value(entry),
        Ok(Ok(SetOutcome::Refused(why))) => {
            core.listener.tell(ticket.key(), EventKind::Refused(why));
            return Landing::Value(entry);
        }
        Ok(Err(error)) => error,
        Err(cut) => cut_off(cut, Operation::Set, core.policy.load_timeout, "load_timeout"),
    };
    core.listener.tell(ticket.key(), EventKind::StoreFailed(Operation::Set, &error));
    if core.policy.strict { Landing::Failed(error) } else { Landing::Value(entry) }
}

/// A failed computation lands with the last entry still held, if that may be served (E2, E8) and nobody
/// removed it meanwhile. That the key is absent is an answer and no failure: only a stale window outlasts it.
pub(super) fn fall_back<S: Store>(
    ticket: &Ticket<S>,
    held: Option<Entry<S::Value>>,
    error: Error,
) -> Landing<S::Value> {
    let core = &*ticket.core;
    let now = core.clock.now();
    let serves = |life| match error.kind() {
        ErrorKind::NotFound => core.policy.judge(life, now) <= Freshness::Stale,
        _ => core.policy.serves_on_error(life, now),
    };
    match held {
        Some(entry)
            if core.left_of(&ticket.flight, &entry).is_some_and(serves) && !ticket.flight.is_fenced() =>
        {
            Landing::Value(entry)
        }
        _ => Landing::Failed(error),
    }
}

//! How a computation runs: in its place, within its time, until it is given up, and with its failure remembered.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use crate::cache::background::Cut;
use crate::cache::core::Core;
use crate::cache::event::EventKind;
use crate::cache::flight::Flight;
use crate::cache::load::{Compute, Ticket};
use crate::cache::places::{Full, Place};
use crate::cache::within::Within;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::store::Store;
use crate::time::Timestamp;

/// On whose account something is computed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    /// Callers wait.
    Load,
    /// Callers were served what was there.
    Refresh,
}

/// When a computation began, and whether it had to wait for its place.
#[derive(Clone, Copy)]
pub(super) struct Begun {
    pub(super) at: Timestamp,
    waited: bool,
}

/// What a computation came to.
pub(super) struct Answered<V> {
    pub(super) entry: Entry<V>,
    /// Its value is that of the entry that it was given (E22).
    pub(super) unchanged: bool,
    /// From when it had its place.
    pub(super) took: Duration,
}

/// Runs the computation and makes an entry of its answer.
pub(super) async fn computed<S: Store + 'static>(
    ticket: &Ticket<S>,
    held: Option<&Entry<S::Value>>,
    compute: Compute<S::Value>,
    within: Within,
    errand: Errand,
) -> Result<Answered<S::Value>> {
    let core = &*ticket.core;
    let given = held.cloned();
    // The closure itself runs inside too: it may panic, or ask for its own key, before its first await.
    let work = pin!(async move { compute(given).await });
    let (answer, begun) = placed(core, &[ticket], within, errand, work).await;
    let started_at = begun.map_or_else(|| core.clock.now(), |begun| begun.at);
    let outcome = answer.and_then(|answer| {
        let unchanged = answer.value.is_none();
        let ended = core.clock.now();
        let entry = core.entry(ticket.key(), answer, held, (started_at, ended))?;
        let took = ended.since(started_at);
        if let Some(ahead) = &core.ahead {
            ahead.measured(ticket.key(), took);
        }
        Ok(Answered { entry, unchanged, took })
    });
    remember(ticket, begun, outcome.as_ref().err());
    outcome
}

/// Runs the computation of these flights within the limit of its errand, once it has its place. Says also when that
/// was, if it came to it.
pub(super) async fn placed<S: Store, T>(
    core: &Core<S>,
    tickets: &[&Ticket<S>],
    within: Within,
    errand: Errand,
    work: impl Future<Output = Result<T>>,
) -> (Result<T>, Option<Begun>) {
    let (limit, setting) = match errand {
        Errand::Load => (core.policy.load_timeout, "load_timeout"),
        Errand::Refresh => (core.policy.refresh_timeout, "refresh_timeout"),
    };
    let begun = OnceLock::new();
    let work = pin!(async {
        let (_place, waited) = match errand {
            Errand::Load => place(core, tickets, &within).await?,
            Errand::Refresh => (None, false),
        };
        for ticket in tickets {
            let started = match errand {
                Errand::Load => EventKind::LoadStarted,
                Errand::Refresh => EventKind::RefreshStarted,
            };
            core.listener.tell(ticket.key(), started);
        }
        begun.get_or_init(|| Begun { at: core.began(), waited });
        within.and(tickets.iter().map(|ticket| Arc::clone(&ticket.flight))).scope(work).await
    });
    let outcome = match core.background.bounded(limit, work).await {
        Ok(answer) => answer,
        Err(Cut::Deadline) if begun.get().is_none() => {
            Err(Error::new(ErrorKind::Timeout, "cache", Operation::Compute)
                .with_message(format!("no place for this load within {limit:?} (load_timeout, max_loads)")))
        }
        Err(cut) => Err(cut_off(cut, Operation::Compute, limit, setting)),
    };
    (outcome, begun.get().copied())
}

/// A place for the load, if loads are limited, and whether it had to wait for it. What runs within a computation
/// needs none (E21).
async fn place<S: Store>(
    core: &Core<S>,
    tickets: &[&Ticket<S>],
    within: &Within,
) -> Result<(Option<Place>, bool)> {
    let Some(places) = core.places.as_ref().filter(|_| !within.is_within()) else {
        return Ok((None, false));
    };
    let excused = || tickets.iter().any(|ticket| ticket.flight.is_excused());
    if excused() {
        return Ok((None, false));
    }
    let mut waited = false;
    let place = places.take(|| {
        waited = true;
        excused()
    });
    let place = place.await.map_err(|_: Full| {
        Error::new(ErrorKind::Overloaded, "cache", Operation::Compute)
            .with_message("as many loads run (max_loads) and wait (max_waiting_loads) as may")
    })?;
    Ok((place, waited))
}

/// Remembers or forgets how a computation came out, unless a write has overtaken it (E17). Whoever never began, or
/// lost its time in the queue, says nothing of its origin.
pub(super) fn remember<S: Store>(ticket: &Ticket<S>, begun: Option<Begun>, error: Option<&Error>) {
    let core = &*ticket.core;
    let (Some(errors), Some(begun)) = (&core.errors, begun) else { return };
    match error {
        None => ticket.flight.unless_fenced(|| errors.forget(ticket.key())),
        Some(error) if error.kind() == ErrorKind::Timeout && begun.waited => {}
        Some(error) if errors.wants(error) => {
            let now = core.clock.now();
            ticket.flight.unless_fenced(|| errors.failed(ticket.key(), error, now));
        }
        Some(_) => {}
    }
}

pub(super) fn cut_off(cut: Cut, operation: Operation, limit: Duration, setting: &str) -> Error {
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
pub(super) async fn unless_given_up<V: Clone, F: Future>(flight: &Flight<V>, work: F) -> Option<F::Output> {
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
pub(super) async fn catch<F: Future>(future: F) -> std::result::Result<F::Output, Box<dyn Any + Send>> {
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
